-- The ledger: each answer is settled once, by its request's id.
ALTER TABLE keys ADD COLUMN team text NOT NULL DEFAULT '' CHECK (length(team) <= 200);

CREATE TABLE prices (
    project        text NOT NULL REFERENCES projects (name),
    version_id     text NOT NULL,                   -- empty: every version without its own
    prompt_usd     numeric(16, 8) NOT NULL CHECK (prompt_usd >= 0),      -- a million tokens
    completion_usd numeric(16, 8) NOT NULL CHECK (completion_usd >= 0),
    set_by         text NOT NULL,
    set_at         timestamptz NOT NULL,
    PRIMARY KEY (project, version_id)
);

CREATE TABLE settlements (
    request_id        text PRIMARY KEY,
    project           text NOT NULL,
    key_id            text NOT NULL,                -- empty where the gateway is open
    version_id        text NOT NULL,
    prompt_tokens     integer NOT NULL CHECK (prompt_tokens >= 0),
    completion_tokens integer NOT NULL CHECK (completion_tokens >= 0),
    cost_usd          numeric(20, 12) NOT NULL,     -- at the price of that moment
    told_by           text NOT NULL CHECK (told_by IN ('gateway', 'engine')),
    answered_at       timestamptz NOT NULL,
    settled_at        timestamptz NOT NULL
);

-- Sums of the settlements, changed once a batch and not once a request.
CREATE TABLE spending (
    project           text NOT NULL,
    day               date NOT NULL,                -- UTC
    key_id            text NOT NULL,
    version_id        text NOT NULL,
    requests          bigint NOT NULL,
    prompt_tokens     bigint NOT NULL,
    completion_tokens bigint NOT NULL,
    cost_usd          numeric(24, 12) NOT NULL,
    PRIMARY KEY (project, day, key_id, version_id)
);

CREATE TABLE budgets (
    id          text PRIMARY KEY,
    project     text NOT NULL REFERENCES projects (name),
    kind        text NOT NULL CHECK (kind IN ('key', 'team', 'project')),
    subject     text NOT NULL,
    period      text NOT NULL CHECK (period IN ('day', 'month')),
    unit        text NOT NULL CHECK (unit IN ('usd', 'tokens')),
    amount      numeric(20, 6) NOT NULL CHECK (amount > 0),
    state       text NOT NULL DEFAULT 'ok' CHECK (state IN ('ok', 'warned', 'exhausted')),
    state_since timestamptz NOT NULL,
    set_by      text NOT NULL,
    UNIQUE (project, kind, subject, period, unit)
);

ALTER TABLE access_records ADD COLUMN overhead_ms double precision NOT NULL DEFAULT 0;
ALTER TABLE access_records ADD COLUMN flags text NOT NULL DEFAULT '';
