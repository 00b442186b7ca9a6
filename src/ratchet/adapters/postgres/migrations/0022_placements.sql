-- What a training was given to run on, and why: one row for each change of mind.
CREATE TABLE placements (
    run_id       text NOT NULL REFERENCES runs (id),
    number       integer NOT NULL,
    at           timestamptz NOT NULL,
    action       text NOT NULL,
    zone         text NOT NULL,
    because      text NOT NULL,
    usd_expected jsonb NOT NULL,
    PRIMARY KEY (run_id, number)
);
