-- Keys of the gateway and the control plane, and the keys that sign them.

-- A project that was there before served everybody, and goes on until its spec says otherwise.
ALTER TABLE projects ADD COLUMN access text NOT NULL DEFAULT 'open'
    CHECK (access IN ('open', 'keys'));

CREATE TABLE signing_keys (
    id         text PRIMARY KEY,                    -- "kid" of the tokens that it signs
    public     jsonb NOT NULL,                      -- JSON Web Key
    sealed     bytea NOT NULL,                      -- private half, AES-GCM under the operator's secret
    created_at timestamptz NOT NULL,
    retired_at timestamptz                          -- signs no more; trusted while a key needs it
);
CREATE UNIQUE INDEX signing_keys_one_signs ON signing_keys ((true)) WHERE retired_at IS NULL;

CREATE TABLE keys (
    id              text PRIMARY KEY,               -- "jti" of the token; the token is not stored
    project         text NOT NULL REFERENCES projects (name),
    name            text NOT NULL CHECK (length(name) BETWEEN 1 AND 200),
    principal       text NOT NULL,
    scopes          text[] NOT NULL,
    models          text[] NOT NULL,
    tier            text NOT NULL,
    role            text CHECK (role IN ('viewer', 'operator', 'releaser', 'admin')),
    hint            text NOT NULL,                  -- last characters, to tell tokens apart
    signing_key     text NOT NULL REFERENCES signing_keys (id),
    created_at      timestamptz NOT NULL,
    created_by      text NOT NULL,
    expires_at      timestamptz,
    revoked_at      timestamptz,
    revoked_because text NOT NULL DEFAULT ''
);
CREATE INDEX keys_by_project ON keys (project, created_at DESC);
CREATE INDEX keys_revoked ON keys (project, id) WHERE revoked_at IS NOT NULL;

-- Which key asked.  Empty where the gateway is open.
ALTER TABLE access_records ADD COLUMN key_id text NOT NULL DEFAULT '';
