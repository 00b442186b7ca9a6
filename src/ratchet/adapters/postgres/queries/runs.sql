-- name: add_run
-- The same key gives the same run, so that a trigger may be sent twice.
INSERT INTO runs (id, project, state, trigger, spec, source_dir, idempotency_key, created_at,
                  not_before)
VALUES (:id, :project, 'queued', :trigger, :spec, :source_dir, :key, :now, :not_before)
ON CONFLICT (project, idempotency_key) DO NOTHING
RETURNING id;

-- name: run_of_key
SELECT id FROM runs WHERE project = :project AND idempotency_key = :key;

-- name: add_stages!
INSERT INTO stages (run_id, name, state)
SELECT :run_id, unnest(:names::text[]), 'pending' ON CONFLICT DO NOTHING;

-- name: get_run
SELECT * FROM runs WHERE id = :id;

-- name: list_runs
SELECT * FROM runs WHERE (:project::text IS NULL OR project = :project)
 ORDER BY created_at DESC, id DESC LIMIT :limit;

-- name: start_next_run
-- The oldest queued run of each project that has none active.
UPDATE runs SET state = 'running', started_at = :now
 WHERE id IN (
    SELECT DISTINCT ON (project) id FROM runs AS queued
     WHERE state = 'queued' AND (not_before IS NULL OR not_before <= :now)
       AND NOT EXISTS (SELECT 1 FROM runs AS active
                        WHERE active.project = queued.project AND active.state = 'running')
     ORDER BY project, created_at, id)
RETURNING id;

-- name: active_runs
SELECT id FROM runs WHERE state = 'running' ORDER BY created_at;

-- name: put_place_of_run!
UPDATE runs SET spec = jsonb_set(spec, '{place}', :place::jsonb) WHERE id = :id;

-- name: move_run
UPDATE runs SET state = :to_state, because = :because,
       ended_at = CASE WHEN :ends THEN :now ELSE ended_at END
 WHERE id = :id AND state = :from_state
RETURNING id;

-- name: list_stages
SELECT name, state, detail, because, started_at, ended_at FROM stages WHERE run_id = :run_id;

-- name: begin_stage!
UPDATE stages SET state = 'running', started_at = coalesce(started_at, :now)
 WHERE run_id = :run_id AND name = :name AND state IN ('pending', 'running');

-- name: end_stage!
UPDATE stages SET state = :state, detail = detail || :detail, because = :because, ended_at = :now
 WHERE run_id = :run_id AND name = :name AND state IN ('pending', 'running');

-- name: stop_open_stages!
UPDATE stages SET state = :state, because = :because, ended_at = :now
 WHERE run_id = :run_id AND state = 'running';

-- name: last_attempt
WITH tries AS (
    SELECT *, coalesce((progress->>'resumed_from')::int, 0) AS began
    FROM attempts
    WHERE run_id = :run_id AND stage = :stage
)
SELECT tries.*, tries.number - furthest.number + 1 AS in_place
FROM tries, (SELECT number FROM tries ORDER BY began DESC, number LIMIT 1) AS furthest
ORDER BY tries.number DESC LIMIT 1;

-- name: list_attempts
SELECT id, stage, number, state, progress, because, created_at, started_at, ended_at,
       coalesce(assignment->'place'->>'capacity', 'any') AS capacity,
       coalesce(assignment->'place'->>'zone', '') AS zone,
       coalesce((assignment->'place'->>'usd_per_hour')::float8, 0) AS usd_per_hour
  FROM attempts WHERE run_id = :run_id ORDER BY created_at, number;

-- name: add_attempt!
-- Keyed by run, stage and number: asked twice, it is one attempt.
INSERT INTO attempts (id, run_id, stage, number, state, assignment, created_at)
VALUES (:id, :run_id, :stage, :number, 'wanted', :assignment, :now)
ON CONFLICT (run_id, stage, number) DO NOTHING;

-- name: get_attempt
SELECT * FROM attempts WHERE id = :id;

-- name: live_attempts
SELECT id, run_id, stage, number, state, heartbeat_at, created_at,
       coalesce(assignment->'place', '{}') AS place
  FROM attempts
 WHERE state IN ('wanted', 'running') ORDER BY created_at;

-- name: claim_attempt
UPDATE attempts SET state = 'running', started_at = coalesce(started_at, :now), heartbeat_at = :now
 WHERE id = :id AND state IN ('wanted', 'running')
RETURNING assignment;

-- name: heartbeat_attempt
UPDATE attempts
   SET heartbeat_at = :now, progress = progress || :progress,
       worked_at = coalesce(worked_at, CASE WHEN :progress ? 'step' THEN :now END)
 WHERE id = :id AND state = 'running'
RETURNING id, stop_at;

-- name: attempt_costs
SELECT coalesce(sum(extract(epoch FROM coalesce(ended_at, :now) - started_at)::float8 / 3600
                    * coalesce((assignment->'place'->>'usd_per_hour')::float8, 0)), 0) AS usd
  FROM attempts WHERE run_id = :run_id AND started_at IS NOT NULL;

-- name: ask_to_leave
UPDATE attempts SET stop_at = coalesce(stop_at, :now) WHERE id = :id RETURNING stop_at;

-- name: training_speed
SELECT (result->>'tokens')::float8 / (result->>'seconds')::float8 AS speed
  FROM attempts JOIN runs ON runs.id = attempts.run_id
 WHERE runs.project = :project AND stage = 'train' AND attempts.state = 'succeeded'
   AND (result->>'tokens')::float8 > 0 AND (result->>'seconds')::float8 > 0
 ORDER BY attempts.ended_at DESC LIMIT 1;

-- name: compute_by_month
-- What workers of a project took and cost, each attempt at its own price, and what the same hours
-- would have cost on machines that stay.
SELECT to_char(attempts.started_at AT TIME ZONE 'UTC', 'YYYY-MM') AS month,
       count(DISTINCT runs.id) AS runs, count(*) AS attempts,
       count(*) FILTER (WHERE attempts.state IN ('preempted', 'lost')) AS taken_away,
       sum(took.seconds)::float8 AS seconds,
       coalesce(sum(took.seconds) FILTER (WHERE assignment->'place'->>'capacity' = 'spot'), 0)::float8
           AS spot_seconds,
       sum(took.seconds / 3600 * coalesce((assignment->'place'->>'usd_per_hour')::float8, 0))::float8
           AS usd,
       sum(took.seconds / 3600 * coalesce((runs.spec->'place'->>'usd_per_hour')::float8, 0))::float8
           AS on_demand_usd
  FROM attempts
  JOIN runs ON runs.id = attempts.run_id,
  LATERAL (SELECT extract(epoch FROM coalesce(attempts.ended_at, :now) - attempts.started_at)
               AS seconds) AS took
 WHERE runs.project = :project AND attempts.started_at IS NOT NULL
 GROUP BY 1 ORDER BY 1 DESC LIMIT :limit;

-- name: compute_by_capacity
-- All workers since ever, for who counts them from outside.
SELECT coalesce(assignment->'place'->>'capacity', 'any') AS capacity, attempts.state,
       count(*) AS attempts, sum(took.seconds)::float8 AS seconds,
       sum(took.seconds / 3600 * coalesce((assignment->'place'->>'usd_per_hour')::float8, 0))::float8
           AS usd,
       sum(took.seconds / 3600 * coalesce((runs.spec->'place'->>'usd_per_hour')::float8, 0))::float8
           AS on_demand_usd
  FROM attempts
  JOIN runs ON runs.id = attempts.run_id,
  LATERAL (SELECT extract(epoch FROM coalesce(attempts.ended_at, :now) - attempts.started_at)
               AS seconds) AS took
 WHERE attempts.started_at IS NOT NULL
 GROUP BY 1, 2 ORDER BY 1, 2;

-- name: end_attempt
UPDATE attempts SET state = :state, result = :result, because = :because, ended_at = :now
 WHERE id = :id AND state IN ('wanted', 'running')
RETURNING run_id;

-- name: withdraw_attempt
-- One that has no worker yet; a claim and this exclude one another.
UPDATE attempts SET state = 'preempted', because = :because, ended_at = :now
 WHERE id = :id AND state = 'wanted'
RETURNING id;

-- name: cancel_attempts!
UPDATE attempts SET state = 'cancelled', because = :because, ended_at = :now
 WHERE run_id = :run_id AND state IN ('wanted', 'running');

-- name: add_loss_point!
-- A resumed worker reports steps again; the newest word stands.
INSERT INTO loss_points (run_id, step, loss) VALUES (:run_id, :step, :loss)
ON CONFLICT (run_id, step) DO UPDATE SET loss = EXCLUDED.loss;

-- name: list_loss_points
SELECT step, loss FROM loss_points WHERE run_id = :run_id ORDER BY step;
