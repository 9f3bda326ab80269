-- The sessions and transactions that changes belong to, by fingerprint: see src/grouping.rs.
CREATE TABLE change_groups (
    fingerprint BLOB NOT NULL,
    position INTEGER NOT NULL,
    PRIMARY KEY (fingerprint, position)
) STRICT, WITHOUT ROWID;
