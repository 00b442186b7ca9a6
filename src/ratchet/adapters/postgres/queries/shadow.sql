-- name: choose_pairs!
-- The newest prompts that the baseline answered, without side effects, captured as they were.
INSERT INTO shadow_pairs (release_id, position, request_id, turn_at, correction)
SELECT :release_id, row_number() OVER (ORDER BY turn.at DESC, turn.request_id),
       turn.request_id, turn.at, false
  FROM turns turn
 WHERE turn.project = :project AND turn.version_id = :baseline AND turn.scrubbed = '{}'
   AND NOT turn.parameters ?| ARRAY['tools', 'functions']
 ORDER BY turn.at DESC, turn.request_id LIMIT :pairs
ON CONFLICT DO NOTHING;

-- name: choose_corrections!
-- Answers that people said how to better, for a judge to be measured by.
INSERT INTO shadow_pairs (release_id, position, request_id, turn_at, correction)
SELECT :release_id, row_number() OVER (ORDER BY said.at DESC, said.id),
       said.request_id, said.at, true
  FROM feedback said
 WHERE said.project = :project AND said.correction <> '' AND said.request_id <> ''
   AND EXISTS (SELECT FROM turns WHERE turns.request_id = said.request_id)
 ORDER BY said.at DESC, said.id LIMIT :pairs
ON CONFLICT DO NOTHING;

-- name: next_pairs
SELECT pair.position, pair.request_id, pair.correction, turn.messages, turn.answer,
       turn.parameters,
       CASE WHEN pair.correction THEN
            (SELECT said.correction FROM feedback said
              WHERE said.request_id = pair.request_id AND said.at = pair.turn_at
                AND said.correction <> '' LIMIT 1) END AS corrected
  FROM shadow_pairs pair
  LEFT JOIN turns turn ON turn.project = :project AND turn.request_id = pair.request_id
 WHERE pair.release_id = :release_id AND pair.outcomes IS NULL
 ORDER BY pair.correction DESC, pair.position LIMIT :limit;

-- name: put_pair!
-- What was said first stays.
UPDATE shadow_pairs SET outcomes = :outcomes, silence = :silence
 WHERE release_id = :release_id AND position = :position AND correction = :correction
   AND outcomes IS NULL;

-- name: shadow_pairs
SELECT outcomes, silence FROM shadow_pairs
 WHERE release_id = :release_id AND correction = :correction ORDER BY position;

-- name: put_problem!
UPDATE releases SET problem = :problem WHERE id = :release_id AND problem <> :problem;

-- name: preference
SELECT said FROM preferences WHERE digest = :digest;

-- name: put_preference!
INSERT INTO preferences (digest, said, said_at) VALUES (:digest, :said, :now)
ON CONFLICT DO NOTHING;
