-- A dataset version knows how it was made and what it cost.
ALTER TABLE datasets
    ADD COLUMN recipe    jsonb NOT NULL DEFAULT '{}',   -- how its rows were chosen
    ADD COLUMN bytes_new bigint NOT NULL DEFAULT 0      -- that no earlier version had written
        CHECK (bytes_new >= 0);
CREATE INDEX datasets_by_age ON datasets (project, created_at DESC);
