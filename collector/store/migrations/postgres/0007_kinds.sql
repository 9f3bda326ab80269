-- Items of the kinds from `mount` (9) on may be stored from here on. A program that does not know them must refuse to start: it could
-- not read on.
UPDATE schema_version SET version = 7;
