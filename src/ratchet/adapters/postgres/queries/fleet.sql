-- Machines that several projects share.  Who decides goes one at a time: `lock_fleet` comes first.

-- name: lock_fleet
-- Until the transaction's end.
SELECT pg_advisory_xact_lock(hashtext('ratchet.fleet'));

-- name: list_pools
SELECT name, spot, on_demand FROM fleet_pools ORDER BY name;

-- name: put_pool!
INSERT INTO fleet_pools (name, spot, on_demand) VALUES (:name, :spot, :on_demand)
ON CONFLICT (name) DO UPDATE SET spot = EXCLUDED.spot, on_demand = EXCLUDED.on_demand;

-- name: drop_other_pools!
DELETE FROM fleet_pools WHERE NOT name = ANY (:names);

-- name: drop_shares!
DELETE FROM fleet_shares;

-- name: put_share!
INSERT INTO fleet_shares (project, weight, usd_per_month)
VALUES (:project, :weight, :usd_per_month);

-- name: fleet_shares_now
-- Of every project that has a share or has used something: in this month, and lately, where what is
-- `half_life_days` ago counts half.
WITH used AS (
    SELECT project,
           sum(usd) FILTER (WHERE day >= date_trunc('month', now() AT TIME ZONE 'UTC')::date) AS usd,
           sum(slot_seconds) FILTER (
               WHERE day >= date_trunc('month', now() AT TIME ZONE 'UTC')::date) AS month_seconds,
           sum(slot_seconds * 0.5 ^ (((now() AT TIME ZONE 'UTC')::date - day)
                                     / :half_life_days::float8)) AS slot_seconds
      FROM fleet_usage GROUP BY project)
SELECT coalesce(fleet_shares.project, used.project) AS project, coalesce(weight, 1) AS weight,
       usd_per_month, coalesce(usd, 0) AS usd_spent, coalesce(slot_seconds, 0) AS used_slot_seconds,
       coalesce(month_seconds, 0) AS month_slot_seconds
  FROM fleet_shares FULL JOIN used ON used.project = fleet_shares.project
 ORDER BY 1;

-- name: meter_claim!
-- What a worker took since the last look, on the day that it ended on.
INSERT INTO fleet_usage (project, day, slot_seconds, usd)
SELECT project, (now() AT TIME ZONE 'UTC')::date,
       slots * extract(epoch FROM now() - told_at),
       usd_per_hour * extract(epoch FROM now() - told_at) / 3600
  FROM fleet_claims WHERE run_id = :run_id AND alive IS NOT NULL
ON CONFLICT (project, day) DO UPDATE
   SET slot_seconds = fleet_usage.slot_seconds + EXCLUDED.slot_seconds,
       usd = fleet_usage.usd + EXCLUDED.usd;

-- name: put_claim!
-- What a run tells at a look.  What was granted stays until it is answered; who is new here and
-- works already (its stack was silent for too long) goes on with what it has.
INSERT INTO fleet_claims (run_id, project, pool, slots, priority, wants, sees_spot, alive,
                          granted, waiting_since, due_at, work_left_seconds, delay_seconds, may_leave,
                          usd_per_hour, told_at)
VALUES (:run_id, :project, :pool, :slots, :priority, :wants, :sees_spot, :alive, :alive,
        CASE WHEN :alive::text IS NULL THEN now() END, now() + make_interval(secs => :time_left),
        :work_left, :delay, :may_leave, :usd_per_hour, now())
ON CONFLICT (run_id) DO UPDATE
   SET pool = EXCLUDED.pool, slots = EXCLUDED.slots, priority = EXCLUDED.priority,
       wants = EXCLUDED.wants, sees_spot = EXCLUDED.sees_spot, alive = EXCLUDED.alive,
       waiting_since = CASE WHEN :alive::text IS NULL
                            THEN coalesce(fleet_claims.waiting_since, now()) END,
       due_at = EXCLUDED.due_at, work_left_seconds = EXCLUDED.work_left_seconds,
       delay_seconds = EXCLUDED.delay_seconds, may_leave = EXCLUDED.may_leave,
       usd_per_hour = EXCLUDED.usd_per_hour, told_at = now();

-- name: drop_silent_claims!
-- Of stacks that are gone.
DELETE FROM fleet_claims WHERE told_at < now() - make_interval(secs => :seconds);

-- name: drop_claim!
DELETE FROM fleet_claims WHERE run_id = :run_id;

-- name: list_claims
SELECT *, extract(epoch FROM now() - coalesce(waiting_since, now()))::float8 AS waiting_seconds,
       extract(epoch FROM due_at - now())::float8 AS time_left_seconds
  FROM fleet_claims WHERE :pool::text IS NULL OR pool = :pool ORDER BY pool, run_id;

-- name: answer_claim!
UPDATE fleet_claims SET granted = :granted, because = :because WHERE run_id = :run_id;
