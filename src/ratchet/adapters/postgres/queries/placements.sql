-- What trainings run on.

-- name: training_so_far
-- The newest attempt, and the newest word on how fast it goes.
SELECT newest.id, newest.state, newest.created_at, newest.started_at, newest.ended_at,
       newest.assignment->'place' AS place,
       newest.progress ? 'seconds_left' AS works,
       (SELECT progress FROM attempts AS told
         WHERE told.run_id = newest.run_id AND told.stage = 'train'
           AND told.progress ? 'seconds_left' ORDER BY number DESC LIMIT 1) AS progress
  FROM attempts AS newest
 WHERE newest.run_id = :run_id AND newest.stage = 'train'
 ORDER BY newest.number DESC LIMIT 1;

-- name: start_delay
-- Of the project's last attempts to train: until the first step, or of a whole one all of its time
-- but the training, which has the way of the adapter to the store in it.  How long spot was waited
-- for is no part of it.
SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY seconds) AS seconds FROM (
    SELECT CASE WHEN attempts.state = 'succeeded'
                THEN extract(epoch FROM attempts.ended_at - begun.at) - (result->>'seconds')::float8
                ELSE extract(epoch FROM worked_at - begun.at) END AS seconds
      FROM attempts JOIN runs ON runs.id = attempts.run_id,
      LATERAL (SELECT CASE WHEN assignment->'place'->>'capacity' = 'spot' THEN attempts.started_at
                           ELSE attempts.created_at END AS at) AS begun
     WHERE runs.project = :project AND stage = 'train'
       AND (attempts.state = 'succeeded' OR worked_at IS NOT NULL)
     ORDER BY attempts.created_at DESC LIMIT 10) AS last;

-- name: training_began
SELECT started_at, (SELECT detail->>'estimated_seconds' FROM stages AS checked
                     WHERE checked.run_id = stages.run_id AND checked.name = 'check') AS estimated
  FROM stages WHERE run_id = :run_id AND name = 'train';

-- name: add_placement!
-- By change: what was decided last is not written again.
INSERT INTO placements (run_id, number, at, action, zone, because, usd_expected)
SELECT :run_id, coalesce(max(number), 0) + 1, :at, :action, :zone, :because, :usd_expected
  FROM placements WHERE run_id = :run_id
HAVING NOT EXISTS (
    SELECT 1 FROM placements AS last
     WHERE last.run_id = :run_id AND last.action = :action AND last.zone = :zone
       AND last.number = (SELECT max(number) FROM placements WHERE run_id = :run_id))
ON CONFLICT DO NOTHING;

-- name: list_placements
SELECT at, action, zone, because, usd_expected FROM placements
 WHERE run_id = :run_id ORDER BY number;
