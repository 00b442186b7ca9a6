-- The first schema: projects, runs, versions, releases, engines, the gateway and its records.
-- The schema enforces what the code believes.

CREATE TABLE projects (
    name             text PRIMARY KEY CHECK (name ~ '^[a-z0-9][a-z0-9-]{0,62}$'),
    served_name      text NOT NULL,                 -- what clients put into "model"
    base             text NOT NULL,                 -- kind:location of the frozen weights
    engine           text NOT NULL CHECK (engine IN ('builtin', 'vllm')),
    baseline_version text,                          -- what serves now
    created_at       timestamptz NOT NULL
);
-- One gateway routes one model name for now; a second project is refused by the code that says so.

CREATE TABLE runs (
    id              text PRIMARY KEY,
    project         text NOT NULL REFERENCES projects (name),
    state           text NOT NULL CHECK (state IN ('queued', 'running', 'promoted', 'gated',
                        'rolled_back', 'unchanged', 'failed', 'cancelled')),
    trigger         jsonb NOT NULL,                 -- who or what asked, and why
    spec            jsonb NOT NULL,                 -- the spec at that moment, as values
    source_dir      text NOT NULL,                  -- folder that relative paths start from
    idempotency_key text NOT NULL,
    because         text NOT NULL DEFAULT '',       -- reason of the end, as a sentence
    created_at      timestamptz NOT NULL,
    started_at      timestamptz,
    ended_at        timestamptz,
    UNIQUE (project, idempotency_key)
);
-- Two runs at once would train against a moving baseline.
CREATE UNIQUE INDEX runs_one_active ON runs (project) WHERE state = 'running';
CREATE INDEX runs_by_age ON runs (project, created_at DESC);

CREATE TABLE stages (
    run_id     text NOT NULL REFERENCES runs (id),
    name       text NOT NULL CHECK (name IN ('check', 'freeze', 'train', 'evaluate', 'gate',
                   'register', 'release')),
    state      text NOT NULL CHECK (state IN ('pending', 'running', 'done', 'stopped', 'failed')),
    detail     jsonb NOT NULL DEFAULT '{}',         -- what the stage yielded, by its own keys
    because    text NOT NULL DEFAULT '',
    started_at timestamptz,
    ended_at   timestamptz,
    PRIMARY KEY (run_id, name)
);

CREATE TABLE attempts (
    id           text PRIMARY KEY,
    run_id       text NOT NULL REFERENCES runs (id),
    stage        text NOT NULL CHECK (stage IN ('train', 'evaluate')),
    number       integer NOT NULL CHECK (number >= 1),
    state        text NOT NULL CHECK (state IN ('wanted', 'running', 'succeeded', 'failed',
                     'lost', 'cancelled')),
    assignment   jsonb NOT NULL,                    -- everything the worker needs to know
    progress     jsonb NOT NULL DEFAULT '{}',       -- the newest report
    result       jsonb,
    because      text NOT NULL DEFAULT '',
    created_at   timestamptz NOT NULL,
    started_at   timestamptz,
    heartbeat_at timestamptz,
    ended_at     timestamptz,
    UNIQUE (run_id, stage, number)
);
-- One life of a stage at a time: two trainers would write over each other's checkpoints.
CREATE UNIQUE INDEX attempts_one_live ON attempts (run_id, stage)
    WHERE state IN ('wanted', 'running');

CREATE TABLE loss_points (
    run_id text NOT NULL REFERENCES runs (id),
    step   integer NOT NULL,
    loss   double precision NOT NULL,
    PRIMARY KEY (run_id, step)
);

CREATE TABLE datasets (
    id         text PRIMARY KEY,
    project    text NOT NULL REFERENCES projects (name),
    uri        text NOT NULL,
    rows       integer NOT NULL CHECK (rows > 0),
    created_at timestamptz NOT NULL
);

CREATE TABLE versions (
    id             text PRIMARY KEY,
    project        text NOT NULL REFERENCES projects (name),
    base           text NOT NULL,
    adapter_uri    text,
    adapter_digest text,
    dataset_id     text REFERENCES datasets (id),
    recipe         jsonb NOT NULL,
    report         jsonb NOT NULL,
    run_id         text UNIQUE REFERENCES runs (id),  -- a run registers at most one version
    created_at     timestamptz NOT NULL
);
ALTER TABLE projects ADD FOREIGN KEY (baseline_version) REFERENCES versions (id);

CREATE TABLE evaluations (
    weights    text NOT NULL,                       -- base and adapter digest
    suite      text NOT NULL,                       -- digest of items and checks
    report     jsonb NOT NULL,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (weights, suite)
);

CREATE TABLE releases (
    id         text PRIMARY KEY,
    run_id     text NOT NULL UNIQUE REFERENCES runs (id),
    project    text NOT NULL REFERENCES projects (name),
    candidate  text NOT NULL REFERENCES versions (id),
    baseline   text NOT NULL REFERENCES versions (id),
    stage      text NOT NULL CHECK (stage IN ('starting', 'canary', 'paused', 'held', 'promoted',
                   'rolled_back', 'unchanged')),
    plan       jsonb NOT NULL,
    notch      integer NOT NULL DEFAULT 0 CHECK (notch >= 0),
    version    integer NOT NULL DEFAULT 0,          -- compared and swapped by every decision
    evidence   jsonb NOT NULL,
    because    text NOT NULL DEFAULT '',
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL
);
CREATE UNIQUE INDEX releases_one_live ON releases (project)
    WHERE stage IN ('starting', 'canary', 'paused', 'held');

CREATE TABLE verdicts (
    release_id     text NOT NULL REFERENCES releases (id),
    version        integer NOT NULL,                -- of the release, after the move
    signal         text NOT NULL,
    from_stage     text NOT NULL,
    to_stage       text NOT NULL,
    weight_percent integer NOT NULL,
    because        text NOT NULL,
    numbers        jsonb NOT NULL,
    who            text NOT NULL,                   -- "judge" or a person
    at             timestamptz NOT NULL,
    PRIMARY KEY (release_id, version)
);

CREATE TABLE evidence_points (
    release_id text NOT NULL REFERENCES releases (id),
    at         timestamptz NOT NULL,
    weight     integer NOT NULL,
    numbers    jsonb NOT NULL,
    PRIMARY KEY (release_id, at)
);

CREATE TABLE engines (
    version_id text PRIMARY KEY REFERENCES versions (id),
    project    text NOT NULL REFERENCES projects (name),
    wanted     boolean NOT NULL,
    stop_after timestamptz,                         -- a retired engine stays warm until then
    drill      jsonb,                               -- a fault injected on purpose
    state      text NOT NULL CHECK (state IN ('stopped', 'starting', 'ready', 'down')),
    port       integer CHECK (port BETWEEN 1 AND 65535),
    restarts   integer NOT NULL DEFAULT 0,
    because    text NOT NULL DEFAULT '',
    since      timestamptz NOT NULL                 -- of the present state
);

CREATE TABLE gateway (
    project        text PRIMARY KEY REFERENCES projects (name),
    revision       bigint NOT NULL DEFAULT 1,       -- of anything the gateway is told
    route_revision bigint NOT NULL DEFAULT 1,       -- of the weights alone
    arms           jsonb NOT NULL
);

CREATE TABLE weight_changes (
    project        text NOT NULL REFERENCES projects (name),
    route_revision bigint NOT NULL,
    arms           jsonb NOT NULL,
    because        text NOT NULL,
    committed_at   timestamptz NOT NULL,
    applied_at     timestamptz,                     -- read back from Envoy
    PRIMARY KEY (project, route_revision)
);

CREATE TABLE gateway_reports (
    gateway          text PRIMARY KEY,
    applied_revision bigint NOT NULL,
    rejected         text NOT NULL DEFAULT '',      -- Envoy's own words about the newest snapshot
    reported_at      timestamptz NOT NULL
);

CREATE TABLE access_records (
    request_id     text PRIMARY KEY,
    sequence       bigint GENERATED ALWAYS AS IDENTITY UNIQUE,   -- order of arrival
    project        text NOT NULL,
    version_id     text NOT NULL,
    route_revision bigint NOT NULL,
    conversation   text NOT NULL DEFAULT '',
    status         integer NOT NULL,
    failed         boolean NOT NULL,
    attempts       integer NOT NULL,
    first_byte_ms  double precision NOT NULL,
    duration_ms    double precision NOT NULL,
    bytes_sent     bigint NOT NULL,
    started_at     timestamptz NOT NULL,
    received_at    timestamptz NOT NULL
);
CREATE INDEX access_records_by_notch ON access_records (route_revision, sequence);
CREATE INDEX access_records_by_version ON access_records (version_id, sequence);

CREATE TABLE audit (
    id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at       timestamptz NOT NULL,
    who      text NOT NULL,
    what     text NOT NULL,
    subject  text NOT NULL,
    old      text NOT NULL,
    new      text NOT NULL,
    because  text NOT NULL
);

CREATE TABLE executors (
    id           text PRIMARY KEY,
    host         text NOT NULL,                     -- machine and boot
    pid          integer NOT NULL,
    pid_started  text NOT NULL,                     -- so that a reused pid is another process
    heartbeat_at timestamptz NOT NULL,
    reaped_at    timestamptz
);
