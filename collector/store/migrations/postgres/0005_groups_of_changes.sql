-- The sessions and transactions that changes belong to, by fingerprint: see src/grouping.rs.
CREATE TABLE change_groups (
    fingerprint BYTEA NOT NULL,
    position BIGINT NOT NULL,
    PRIMARY KEY (fingerprint, position)
);
