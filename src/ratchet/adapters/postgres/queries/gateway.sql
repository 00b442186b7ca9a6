-- name: get_gateway
SELECT project, revision, route_revision, arms, gateways FROM gateway ORDER BY project LIMIT 1;

-- name: set_arms
UPDATE gateway SET arms = :arms, revision = revision + 1, route_revision = route_revision + 1
 WHERE project = :project
RETURNING route_revision;

-- name: bump_gateway!
UPDATE gateway SET revision = revision + 1 WHERE project = :project;

-- name: notify_gateway
SELECT pg_notify('gateway', :project);

-- name: add_weight_change!
INSERT INTO weight_changes (project, route_revision, arms, because, committed_at)
VALUES (:project, :route_revision, :arms, :because, clock_timestamp());

-- name: list_weight_changes
SELECT route_revision, arms, because, committed_at, applied_at FROM weight_changes
 WHERE project = :project ORDER BY route_revision DESC LIMIT :limit;

-- name: report_gateway!
INSERT INTO gateway_reports (gateway, applied_revision, rejected, reported_at)
VALUES (:gateway, :revision, :rejected, :now)
ON CONFLICT (gateway) DO UPDATE SET applied_revision = EXCLUDED.applied_revision,
       rejected = EXCLUDED.rejected, reported_at = EXCLUDED.reported_at;

-- name: see_gateway!
INSERT INTO gateway_reports (gateway, applied_revision, rejected, reported_at, seen_at)
VALUES (:gateway, -1, '', :now, :now)
ON CONFLICT (gateway) DO UPDATE SET seen_at = EXCLUDED.seen_at;

-- name: count_gateways
-- Bring the count up to date; a row back means that it changed, and every gateway's part with it.
UPDATE gateway SET gateways = counted.alive, revision = revision + 1
  FROM (SELECT greatest(1, count(*)) AS alive FROM gateway_reports WHERE seen_at > :since) AS counted
 WHERE gateways <> counted.alive
RETURNING project, gateways;

-- name: mark_applied!
UPDATE weight_changes SET applied_at = :applied_at
 WHERE route_revision <= :route_revision AND applied_at IS NULL;

-- name: list_gateway_reports
SELECT gateway, applied_revision, rejected, reported_at FROM gateway_reports ORDER BY gateway;

-- name: lock_records
-- One writer at a time, so that a lower sequence never appears after a higher one was read.
SELECT pg_advisory_xact_lock(7203001);

-- name: add_record!
-- Settled once per request id, however often a gateway sends it.
INSERT INTO access_records (request_id, project, version_id, routed, route_revision, conversation,
                            key_id, status, failed, attempts, first_byte_ms, duration_ms,
                            overhead_ms, flags, bytes_sent,
                            prompt_tokens, completion_tokens, sampled, known, started_at,
                            received_at)
VALUES (:request_id, :project, :version_id, :routed, :route_revision, :conversation, :key_id, :status,
        :failed, :attempts, :first_byte_ms, :duration_ms, :overhead_ms, :flags, :bytes_sent, :prompt_tokens,
        :completion_tokens, :sampled, :known, :started_at, :received_at)
ON CONFLICT (request_id) DO NOTHING;

-- name: add_units!
-- Once each, in the order given, and of a conversation the first under each weight; only under
-- weights that two arms had.
INSERT INTO units (request_id, project, version_id, canary, route_revision, weight,
                   conversation, known, assigned_at)
SELECT told.request_id, :project, told.version_id, changed.arms->0->>'version',
       told.route_revision,
       (changed.arms->0->>'weight')::integer, told.conversation, told.known::jsonb, :now
  FROM unnest(:request_ids::text[], :versions::text[], :revisions::bigint[],
              :conversations::text[], :known::text[]) WITH ORDINALITY
       AS told (request_id, version_id, route_revision, conversation, known, place)
  JOIN weight_changes changed ON changed.project = :project
   AND changed.route_revision = told.route_revision AND jsonb_array_length(changed.arms) = 2
 ORDER BY told.place
ON CONFLICT DO NOTHING;

-- name: traffic_by_version
SELECT version_id, count(*) AS requests, count(*) FILTER (WHERE failed) AS failed,
       percentile_cont(0.5) WITHIN GROUP (ORDER BY duration_ms) AS p50_ms,
       percentile_cont(0.95) WITHIN GROUP (ORDER BY duration_ms) AS p95_ms
  FROM access_records WHERE project = :project AND received_at > :since
 GROUP BY version_id;

-- name: want_engine!
INSERT INTO engines (version_id, project, wanted, drill, state, since)
VALUES (:version_id, :project, true, :drill, 'stopped', :now)
ON CONFLICT (version_id) DO UPDATE
   SET wanted = true, stop_after = NULL, drill = EXCLUDED.drill;

-- name: retire_engine!
UPDATE engines SET stop_after = :stop_after WHERE version_id = :version_id;

-- name: stop_retired_engines
-- Never an engine that the gateway still routes to.
UPDATE engines SET wanted = false
 WHERE wanted AND stop_after IS NOT NULL AND stop_after <= :now
   AND NOT EXISTS (SELECT 1 FROM gateway, jsonb_array_elements(gateway.arms) AS arm
                    WHERE arm ->> 'version' = engines.version_id)
RETURNING version_id;

-- name: list_engines
SELECT engines.*, projects.served_name, projects.engine AS kind, versions.base,
       versions.adapter_uri
  FROM engines
  JOIN projects ON projects.name = engines.project
  JOIN versions ON versions.id = engines.version_id
 ORDER BY engines.version_id;

-- name: list_places
SELECT version_id, host, port, region, added_by, added_at FROM engine_places
 ORDER BY version_id, region, host, port;

-- name: put_place!
INSERT INTO engine_places (version_id, host, port, region, added_by, added_at)
VALUES (:version_id, :host, :port, :region, :added_by, :now)
ON CONFLICT (version_id, host, port) DO UPDATE SET region = EXCLUDED.region;

-- name: drop_place
DELETE FROM engine_places WHERE version_id = :version_id AND host = :host AND port = :port
RETURNING version_id;

-- name: project_of_version
SELECT project FROM versions WHERE id = :version_id;

-- name: report_engine
UPDATE engines SET state = :state, port = :port, because = :because,
       restarts = restarts + :restarts,
       since = CASE WHEN state = :state THEN since ELSE :now END
 WHERE version_id = :version_id
RETURNING project;

-- name: beat_executor!
INSERT INTO executors (id, host, pid, pid_started, heartbeat_at)
VALUES (:id, :host, :pid, :pid_started, :now)
ON CONFLICT (id) DO UPDATE SET heartbeat_at = EXCLUDED.heartbeat_at;

-- name: silent_executors
SELECT id, host, pid, pid_started, heartbeat_at FROM executors
 WHERE id <> :id AND reaped_at IS NULL;

-- name: mark_reaped!
UPDATE executors SET reaped_at = :now WHERE id = :id;
