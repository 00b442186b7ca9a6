-- Weights that are chosen, not listed: hundredths of a per cent.
ALTER TABLE releases ADD COLUMN ramp_weight integer NOT NULL DEFAULT 0
    CHECK (ramp_weight BETWEEN 0 AND 10000);
ALTER TABLE verdicts ALTER COLUMN weight_percent TYPE double precision;
ALTER TABLE evidence_points ALTER COLUMN weight TYPE double precision;
