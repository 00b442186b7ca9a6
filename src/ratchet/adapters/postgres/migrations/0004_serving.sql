-- What a project's file says under `gateway`, whole; the column `access` goes into it.
ALTER TABLE projects ADD COLUMN serving jsonb NOT NULL DEFAULT '{}';
UPDATE projects SET serving = jsonb_build_object('access', access);
ALTER TABLE projects DROP COLUMN access;

-- How many gateways there are; each takes its part of the limits.
ALTER TABLE gateway ADD COLUMN gateways integer NOT NULL DEFAULT 1 CHECK (gateways >= 1);
ALTER TABLE gateway_reports ADD COLUMN seen_at timestamptz;

-- Engines that somebody else runs, in other places: told by hand, watched by the gateways.
CREATE TABLE engine_places (
    version_id text NOT NULL REFERENCES versions (id),
    host       text NOT NULL,
    port       integer NOT NULL CHECK (port BETWEEN 1 AND 65535),
    region     text NOT NULL,
    added_by   text NOT NULL,
    added_at   timestamptz NOT NULL,
    PRIMARY KEY (version_id, host, port)
);

-- Testers, pinned principals and answers of a fallback are used and paid, and prove nothing.
ALTER TABLE access_records ADD COLUMN routed text NOT NULL DEFAULT 'arms'
    CHECK (routed IN ('arms', 'chosen', 'pinned', 'fallback'));
