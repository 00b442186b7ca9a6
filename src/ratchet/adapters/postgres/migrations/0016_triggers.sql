-- What asks for runs by itself, what was heard of it, and runs that wait for a moment.
ALTER TABLE projects
    ADD COLUMN triggers  jsonb NOT NULL DEFAULT '{}',
    ADD COLUMN spec_file text NOT NULL DEFAULT '';       -- of runs that read no repository

ALTER TABLE runs
    ADD COLUMN not_before timestamptz,                  -- a merge settles until then
    ADD COLUMN told_state text NOT NULL DEFAULT '',     -- what the commit's status says
    DROP CONSTRAINT runs_state_check,
    ADD CONSTRAINT runs_state_check CHECK (state IN ('queued', 'running', 'promoted', 'gated',
        'rolled_back', 'unchanged', 'failed', 'cancelled', 'superseded'));

CREATE TABLE deliveries (
    project  text NOT NULL REFERENCES projects (name),
    after    text NOT NULL,                             -- the commit
    push     jsonb NOT NULL,
    source   text NOT NULL CHECK (source IN ('github', 'gitlab', 'poll')),
    state    text NOT NULL CHECK (state IN ('waiting', 'started', 'left', 'refused')),
    because  text NOT NULL DEFAULT '',
    run_id   text REFERENCES runs (id),
    heard_at timestamptz NOT NULL,
    told     boolean NOT NULL DEFAULT false,            -- the commit's status says why
    ended_at timestamptz,
    PRIMARY KEY (project, after)
);
CREATE INDEX deliveries_waiting ON deliveries (heard_at) WHERE state = 'waiting';

CREATE TABLE trigger_marks (
    project text NOT NULL REFERENCES projects (name),
    name    text NOT NULL,                              -- schedule, poll
    at      timestamptz NOT NULL,                       -- up to when it has been dealt with
    word    text NOT NULL DEFAULT '',
    PRIMARY KEY (project, name)
);
