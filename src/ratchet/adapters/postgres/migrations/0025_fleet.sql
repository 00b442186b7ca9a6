-- Machines that several projects share.  The times are this database's own: those who share it have
-- clocks of their own.
CREATE TABLE fleet_pools (
    name      text PRIMARY KEY CHECK (name <> '' AND length(name) <= 100),
    spot      integer CHECK (spot >= 0),              -- null: as many as are asked for
    on_demand integer CHECK (on_demand >= 0)
);

CREATE TABLE fleet_shares (
    project       text PRIMARY KEY,
    weight        double precision NOT NULL CHECK (weight > 0),
    usd_per_month double precision CHECK (usd_per_month > 0)
);

-- Of a run, from its first look for a slot to its end.
CREATE TABLE fleet_claims (
    run_id            text PRIMARY KEY,
    project           text NOT NULL,
    pool              text NOT NULL REFERENCES fleet_pools (name),
    slots             integer NOT NULL CHECK (slots >= 1),
    priority          integer NOT NULL,
    wants             text CHECK (wants IN ('spot', 'on_demand')),
    sees_spot         boolean NOT NULL,
    alive             text CHECK (alive IN ('spot', 'on_demand')),
    granted           text CHECK (granted IN ('spot', 'on_demand')),
    waiting_since     timestamptz,                    -- null: it has what it wants
    due_at            timestamptz,
    work_left_seconds double precision NOT NULL,
    delay_seconds     double precision NOT NULL,
    may_leave         boolean NOT NULL,
    usd_per_hour      double precision NOT NULL,      -- of its living worker
    told_at           timestamptz NOT NULL,
    because           text NOT NULL DEFAULT ''
);
CREATE INDEX fleet_claims_by_pool ON fleet_claims (pool);

CREATE TABLE fleet_usage (
    project      text NOT NULL,
    day          date NOT NULL,                       -- UTC
    slot_seconds double precision NOT NULL,
    usd          double precision NOT NULL,
    PRIMARY KEY (project, day)
);
