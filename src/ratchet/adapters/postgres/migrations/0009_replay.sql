-- Evidence as a release began, so that all of it can be computed again.
ALTER TABLE releases ADD COLUMN begun jsonb;            -- none: from before this was kept
-- What the gateway had then: the release's own weights come after it.
ALTER TABLE releases ADD COLUMN begun_revision bigint NOT NULL DEFAULT 0;
