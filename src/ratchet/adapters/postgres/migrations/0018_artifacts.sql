-- The book of what is in the object store: what is kept, what is going, what is gone.
CREATE TABLE artifacts (
    uri        text PRIMARY KEY,                    -- where the bytes are
    key        text NOT NULL,                       -- what they are; another place after each end
    generation integer NOT NULL CHECK (generation >= 1),
    kind       text NOT NULL,
    bytes      bigint NOT NULL CHECK (bytes >= 0),
    state      text NOT NULL CHECK (state IN ('live', 'tombstoned', 'deleting', 'gone')),
    epoch      bigint NOT NULL DEFAULT 0,           -- compared by every decision
    not_before timestamptz,                         -- of a tombstone: its bytes stay until then
    created_at timestamptz NOT NULL,
    UNIQUE (key, generation),
    CHECK ((state = 'tombstoned') = (not_before IS NOT NULL))
);
CREATE INDEX artifacts_with_bytes ON artifacts (uri) WHERE state <> 'gone';

CREATE TABLE artifact_leases (
    uri    text NOT NULL REFERENCES artifacts (uri),
    run_id text NOT NULL REFERENCES runs (id),
    PRIMARY KEY (uri, run_id)
);
CREATE INDEX artifact_leases_by_run ON artifact_leases (run_id);

CREATE TABLE artifact_pins (
    project    text NOT NULL REFERENCES projects (name),
    subject    text NOT NULL,                       -- a version, a dataset, a run, or an artifact
    because    text NOT NULL,
    who        text NOT NULL,
    legal      boolean NOT NULL,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (project, subject)
);

ALTER TABLE datasets ADD COLUMN packs text[];       -- NULL: stored before there was this book
ALTER TABLE projects ADD COLUMN retention jsonb NOT NULL DEFAULT '{}';
