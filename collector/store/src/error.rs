//! What can go wrong in the store, told apart by what the caller should do.

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Nothing was written; trying again later may succeed.
    #[error("the database's disk is full: free space on it; the collector goes on by itself ({operation})")]
    NoSpace { operation: &'static str },
    /// Trying again later may succeed.
    #[error("cannot reach the database ({operation}): {reason}")]
    Unavailable { operation: &'static str, reason: String },
    /// A cursor, a name or a document that the caller was given by somebody else is not usable.
    #[error("{subject}: {reason}")]
    Invalid { subject: &'static str, reason: String },
    /// What is stored does not decode: damage, or a newer schema.
    #[error("stored {subject} cannot be read: {reason}")]
    Corrupt { subject: &'static str, reason: String },
    #[error("the database refused {operation}: {source}")]
    Database { operation: &'static str, source: sqlx::Error },
    #[error("the schema could not be brought up to date: {0}")]
    Migration(String),
}

impl StoreError {
    /// The kind of error, for metrics.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::NoSpace { .. } => "no_space",
            Self::Unavailable { .. } => "unavailable",
            Self::Invalid { .. } => "invalid",
            Self::Corrupt { .. } => "corrupt",
            Self::Database { .. } => "refused",
            Self::Migration(_) => "migration",
        }
    }

    /// Whether the same call may succeed later without anybody changing the call.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::NoSpace { .. } | Self::Unavailable { .. })
    }
}
