-- Whether a listed item should have no optional field that the baseline does not list. Captured baselines saw all there were;
-- hosts are held against them anew.
ALTER TABLE baselines ADD COLUMN whole SMALLINT NOT NULL DEFAULT 0;
UPDATE baselines SET whole = 1 WHERE origin = 1;
UPDATE hosts SET generation = generation + 1 WHERE baseline IS NOT NULL;
