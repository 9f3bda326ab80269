-- The package that an item is a part of, by fingerprint: see src/folding.rs.
ALTER TABLE items ADD COLUMN shipped_by BYTEA;
CREATE INDEX items_by_package ON items (host, shipped_by) WHERE shipped_by IS NOT NULL;
