-- Units in the order in which they were given an arm, so that an answer which never ends is missed.
CREATE TABLE units (
    request_id     text PRIMARY KEY,
    sequence       bigint GENERATED ALWAYS AS IDENTITY UNIQUE,     -- order of assignment
    project        text NOT NULL,
    version_id     text NOT NULL,                   -- the arm
    canary         text NOT NULL,                   -- which version was on trial
    route_revision bigint NOT NULL,
    weight         integer NOT NULL CHECK (weight BETWEEN 1 AND 9999), -- its, of 10,000
    conversation   text NOT NULL DEFAULT '',
    assigned_at    timestamptz NOT NULL,            -- when we heard of it
    censored       boolean NOT NULL DEFAULT false,  -- judged as not ended, whatever came later
    judged         jsonb,                           -- values of guards that were known later,
    feedback       jsonb                            -- as the judge took them
);
CREATE UNIQUE INDEX units_first_of_conversation ON units (project, route_revision, conversation)
    WHERE conversation <> '';
CREATE INDEX units_in_order ON units (project, canary, sequence);
-- Evidence of before has its place in the order of records: units come after all of these.
SELECT setval(pg_get_serial_sequence('units', 'sequence'),
              greatest(1, (SELECT max(sequence) FROM access_records)));

-- What a project's own systems measured of an answer.
CREATE TABLE pushed_metrics (
    project     text NOT NULL,
    request_id  text NOT NULL,
    name        text NOT NULL,
    value       double precision NOT NULL,
    received_at timestamptz NOT NULL,
    PRIMARY KEY (project, request_id, name)
);

ALTER TABLE releases DROP CONSTRAINT releases_stage_check;
ALTER TABLE releases ADD CONSTRAINT releases_stage_check
    CHECK (stage IN ('starting', 'canary', 'paused', 'held', 'holdback', 'promoted', 'rolled_back',
                     'unchanged'));
ALTER TABLE releases ADD COLUMN report text;                           -- Markdown, once it is over
ALTER TABLE releases ADD COLUMN asks boolean NOT NULL DEFAULT false;   -- held until a person decides
ALTER TABLE releases ADD COLUMN entered_at timestamptz;                -- first traffic
-- How far each group of guards was judged, by its name.
ALTER TABLE verdicts ADD COLUMN watermarks jsonb NOT NULL DEFAULT '{}';
