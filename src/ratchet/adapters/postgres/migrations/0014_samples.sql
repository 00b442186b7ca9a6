-- What a Prometheus counted of both arms of a release, sample by sample.
CREATE TABLE samples (
    sequence       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    release_id     text NOT NULL REFERENCES releases (id),
    route_revision bigint NOT NULL,
    weight         integer NOT NULL,                -- the canary's, of 10,000
    newest_unit    bigint NOT NULL,
    counters       jsonb NOT NULL,                  -- by guard: [[all, bad], [all, bad]]
    at             timestamptz NOT NULL
);
CREATE INDEX samples_of_release ON samples (release_id, sequence);
