//! Lists in pages.

/// Keyset pagination: at most `limit` rows that come after the cursor in the listing's own order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    pub limit: u32,
    /// From [`Listed::next`] of the page before.
    pub after: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed<T> {
    pub items: Vec<T>,
    /// Opaque; absent on the last page.
    pub next: Option<String>,
}
