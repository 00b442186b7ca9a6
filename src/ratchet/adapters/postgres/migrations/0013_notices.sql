-- What is to be told of a verdict, and to whom: written with it, sent by whoever looks next.
CREATE TABLE notices (
    release_id text NOT NULL,
    version    integer NOT NULL,
    place      integer NOT NULL,                    -- of the channel in its plan
    channel    jsonb NOT NULL,
    attempts   integer NOT NULL DEFAULT 0,
    due_at     timestamptz,                         -- null: sent, or given up
    sent_at    timestamptz,
    problem    text NOT NULL DEFAULT '',            -- of the last attempt
    PRIMARY KEY (release_id, version, place),
    FOREIGN KEY (release_id, version) REFERENCES verdicts (release_id, version)
);
CREATE INDEX notices_due ON notices (due_at) WHERE due_at IS NOT NULL;
