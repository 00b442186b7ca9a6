ALTER TABLE releases DROP CONSTRAINT releases_stage_check;
ALTER TABLE releases ADD CONSTRAINT releases_stage_check
    CHECK (stage IN ('starting', 'shadow', 'canary', 'paused', 'held', 'holdback', 'promoted',
                     'rolled_back', 'unchanged'));
DROP INDEX releases_one_live;
CREATE UNIQUE INDEX releases_one_live ON releases (project)
    WHERE stage IN ('starting', 'shadow', 'canary', 'paused', 'held');

ALTER TABLE releases ADD COLUMN problem text NOT NULL DEFAULT '';     -- why its shadow waits

-- Captured prompts that a canary answers before its first traffic, in the order they are judged in.
-- Only names of turns: what was asked stays with the turn, and goes with it.
CREATE TABLE shadow_pairs (
    release_id text NOT NULL REFERENCES releases (id),
    position   integer NOT NULL,
    request_id text NOT NULL,
    turn_at    timestamptz NOT NULL,                -- the turn's, so that its day is found
    correction boolean NOT NULL,                    -- not the canary's answer but a person's: does
                                                    -- the judge agree with people?
    outcomes   jsonb,                               -- by check; null until compared
    silence    text NOT NULL DEFAULT '',            -- why the canary gave no answer
    PRIMARY KEY (release_id, correction, position)
);

-- What a judge said of two answers: asked once.
CREATE TABLE preferences (
    digest  text PRIMARY KEY,                       -- of judge, prompt and answers
    said    text NOT NULL CHECK (said IN ('first', 'second', 'neither')),
    said_at timestamptz NOT NULL
);
