-- Turns, what was said of them, and who wanted to be forgotten.
-- By project and by day: what is too old goes as whole tables, never row by row.

-- Order of arrival, of both, for those who follow them.
CREATE SEQUENCE turns_sequence;

CREATE TABLE turns (
    project       text NOT NULL,
    request_id    text NOT NULL,
    sequence      bigint NOT NULL DEFAULT nextval('turns_sequence'),
    version_id    text NOT NULL,
    conversation  text NOT NULL,
    key_id        text NOT NULL,
    subjects      text[] NOT NULL,                  -- digests of who asked
    messages      jsonb NOT NULL,                   -- scrubbed
    answer        jsonb NOT NULL,                   -- scrubbed
    parameters    jsonb NOT NULL,
    finish_reason text NOT NULL,
    scrubbed      jsonb NOT NULL,                   -- what was taken out, by kind
    sample        double precision NOT NULL,        -- share of the requests that was sampled
    at            timestamptz NOT NULL,             -- when it was asked, by its gateway's clock
    received_at   timestamptz NOT NULL,
    PRIMARY KEY (project, at, request_id)
) PARTITION BY LIST (project);
CREATE INDEX turns_by_request ON turns (request_id);
CREATE INDEX turns_by_sequence ON turns (sequence);
CREATE INDEX turns_by_conversation ON turns (conversation, at) WHERE conversation <> '';
CREATE INDEX turns_by_subject ON turns USING gin (subjects);

CREATE TABLE feedback (
    project      text NOT NULL,
    id           text NOT NULL,                     -- by who said what of what
    sequence     bigint NOT NULL DEFAULT nextval('turns_sequence'),
    request_id   text NOT NULL,                     -- of an answer, or
    conversation text NOT NULL,                     -- of a conversation
    key_id       text NOT NULL,
    subjects     text[] NOT NULL,
    score        double precision,
    thumbs       text NOT NULL CHECK (thumbs IN ('', 'up', 'down')),
    correction   text NOT NULL,
    comment      text NOT NULL,
    at           timestamptz NOT NULL,              -- when it was said, by its gateway's clock
    received_at  timestamptz NOT NULL,
    PRIMARY KEY (project, at, id)
) PARTITION BY LIST (project);
CREATE INDEX feedback_by_id ON feedback (id);
CREATE INDEX feedback_by_sequence ON feedback (sequence);
CREATE INDEX feedback_by_request ON feedback (request_id) WHERE request_id <> '';
CREATE INDEX feedback_by_conversation ON feedback (conversation) WHERE conversation <> '';
CREATE INDEX feedback_by_subject ON feedback USING gin (subjects);

-- What waits at a gateway while its person is erased must not come in afterwards.
CREATE TABLE erasures (
    project   text NOT NULL,
    subject   text NOT NULL,                        -- digest
    sequence  bigint NOT NULL DEFAULT nextval('turns_sequence'),
    erased_at timestamptz NOT NULL,
    PRIMARY KEY (project, subject)
);

-- How far each follower of turns and feedback has come.
CREATE TABLE followers (
    name     text PRIMARY KEY,
    sequence bigint NOT NULL,
    moved_at timestamptz NOT NULL
);

ALTER TABLE access_records ADD COLUMN sampled boolean NOT NULL DEFAULT false;
CREATE INDEX access_records_sampled ON access_records (started_at) WHERE sampled;

-- The table of a project's day, made when it is first needed.
CREATE FUNCTION make_day(parent text, project text, day date) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    of_project text := parent || '_' || left(md5(project), 12);
    of_day     text := of_project || '_' || to_char(day, 'YYYYMMDD');
BEGIN
    IF to_regclass(of_day) IS NOT NULL THEN
        RETURN;
    END IF;
    PERFORM pg_advisory_xact_lock(7203002);
    EXECUTE format('CREATE TABLE IF NOT EXISTS %I PARTITION OF %I FOR VALUES IN (%L) '
                   'PARTITION BY RANGE (at)', of_project, parent, project);
    EXECUTE format('CREATE TABLE IF NOT EXISTS %I PARTITION OF %I FOR VALUES FROM (%L) TO (%L)',
                   of_day, of_project, day::text || ' 00:00:00+00',
                   (day + 1)::text || ' 00:00:00+00');
END $$;

-- Drop a project's days before `first_day`; answers their names.
CREATE FUNCTION drop_days(parent text, project text, first_day date) RETURNS SETOF text
LANGUAGE plpgsql AS $$
DECLARE
    of_project text := parent || '_' || left(md5(project), 12);
    old        text;
BEGIN
    FOR old IN
        SELECT inhrelid::regclass::text FROM pg_inherits
         WHERE inhparent = to_regclass(of_project)
           AND right(inhrelid::regclass::text, 8) < to_char(first_day, 'YYYYMMDD')
         ORDER BY 1
    LOOP
        EXECUTE format('DROP TABLE %I', old);
        RETURN NEXT old;
    END LOOP;
END $$;
