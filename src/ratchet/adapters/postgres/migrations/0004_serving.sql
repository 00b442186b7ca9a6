-- What a project's file says under `gateway`, whole; the column `access` goes into it.
ALTER TABLE projects ADD COLUMN serving jsonb NOT NULL DEFAULT '{}';
UPDATE projects SET serving = jsonb_build_object('access', access);
ALTER TABLE projects DROP COLUMN access;

-- How many gateways there are; each takes its part of the limits.
ALTER TABLE gateway ADD COLUMN gateways integer NOT NULL DEFAULT 1 CHECK (gateways >= 1);
ALTER TABLE gateway_reports ADD COLUMN seen_at timestamptz;

-- Where an engine is, for those that are not on this machine alone.
ALTER TABLE engines ADD COLUMN region text NOT NULL DEFAULT '';

-- Testers, pinned principals and answers of a fallback are used and paid, and prove nothing.
ALTER TABLE access_records ADD COLUMN routed text NOT NULL DEFAULT 'arms'
    CHECK (routed IN ('arms', 'chosen', 'pinned', 'fallback'));
