//! Drift that is folded under its package's: what that is, as SQL.
//!
//! Invariants: a drift is folded while it is unresolved, its item is a part of a package, and that package has unresolved
//! drift on the same host that opened before the part last moved or at most [`TOGETHER`] after: what stood open before its package
//! drifted is a matter of its own and stays one. This is decided whenever it is read, from the rows as they are: no row says
//! that it is folded, so none can be wrong about it. The texts speak of a drift `d` and need nothing else.
//!
//! They are scalar subqueries, which both planners answer by index for each drift; of a join PostgreSQL makes one of all items.

use trueline_drift::ItemKind;

use crate::encoding::Numbered;

/// Microseconds. A package manager tells of a package once it is done with all, the files of the first of them long before.
const TOGETHER: i64 = 3600 * 1_000_000;

/// When the earliest unresolved drift of the item `{item}` opened.
fn drifts_since(item: &str) -> String {
    format!("(SELECT min(o.opened_at) FROM drift o WHERE o.item = {item} AND o.resolved_at IS NULL)")
}

/// A column of the package's item, or NULL where the drift is not folded. CROSS JOIN keeps SQLite from another order.
pub(crate) fn package(column: &str) -> String {
    format!(
        "(SELECT p.{column} FROM items f CROSS JOIN items p WHERE d.resolved_at IS NULL AND f.id = d.item AND p.host = f.host \
        AND p.fingerprint = f.shipped_by AND {} <= d.updated_at + {TOGETHER})",
        drifts_since("p.id")
    )
}

/// Since when packages of the tenant `$1` have drifted: `host`, `fingerprint`, `since`.
pub(crate) fn packages() -> String {
    format!(
        "(SELECT p.host, p.fingerprint, min(o.opened_at) AS since FROM drift o CROSS JOIN items p \
        WHERE p.id = o.item AND o.tenant = $1 AND o.resolved_at IS NULL AND p.kind = {} GROUP BY p.host, p.fingerprint)",
        ItemKind::Package.number()
    )
}

/// Whether a drift `d` of a part of the package `s` of [`packages`] is folded; false where there is no such package.
pub(crate) fn is_folded_under() -> String {
    format!("CASE WHEN s.since <= d.updated_at + {TOGETHER} THEN 1 ELSE 0 END")
}

/// Whether the drift is folded. Written so that PostgreSQL takes it for as likely as not: taken for rare, it sorts all drift to
/// find a page.
pub(crate) fn is_folded() -> String {
    format!("CASE WHEN {} IS NULL THEN FALSE ELSE TRUE END", package("id"))
}

/// How many drifts are folded under this one of an item `i`: under each of a package's that is unresolved, all of them.
pub(crate) fn folds() -> String {
    let package = ItemKind::Package.number();
    format!(
        "CASE WHEN i.kind = {package} AND d.resolved_at IS NULL THEN (SELECT count(*) FROM items f CROSS JOIN drift part \
        WHERE f.host = i.host AND f.shipped_by = i.fingerprint AND part.item = f.id AND part.resolved_at IS NULL \
        AND {} <= part.updated_at + {TOGETHER}) ELSE 0 END",
        drifts_since("i.id")
    )
}
