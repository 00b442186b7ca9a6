-- name: add_release!
-- One release a run.
INSERT INTO releases (id, run_id, project, candidate, baseline, stage, plan, evidence, begun,
                      because, ramp_weight, created_at, updated_at)
VALUES (:id, :run_id, :project, :candidate, :baseline, :stage, :plan, :evidence, :evidence,
        :because, :ramp_weight, :now, :now)
ON CONFLICT (run_id) DO NOTHING;

-- name: get_release
SELECT * FROM releases WHERE id = :id;

-- name: release_of_run
SELECT * FROM releases WHERE run_id = :run_id;

-- name: list_releases
SELECT * FROM releases ORDER BY created_at DESC LIMIT :limit;

-- name: live_releases
SELECT * FROM releases WHERE stage IN ('starting', 'shadow', 'canary', 'paused', 'held', 'holdback')
 ORDER BY created_at;

-- name: commit_release
-- Save the next version of a release, if nobody else did.  No row back means Conflict.
UPDATE releases SET stage = :stage, notch = :notch, ramp_weight = :ramp_weight, asks = :asks,
       plan = :plan, version = :version, evidence = :evidence, because = :because,
       updated_at = :now, report = NULL,
       entered_at = coalesce(entered_at, CASE WHEN :stage = 'canary' THEN :now::timestamptz END)
 WHERE id = :id AND version = :version - 1
RETURNING project;

-- name: save_evidence
-- Between decisions the evidence grows; a decision in the meantime wins.
UPDATE releases SET evidence = :evidence, because = :because, updated_at = :now
 WHERE id = :id AND version = :version
RETURNING id;

-- name: add_verdict!
INSERT INTO verdicts (release_id, version, signal, from_stage, to_stage, weight_percent, because,
                      numbers, watermarks, who, at)
VALUES (:release_id, :version, :signal, :from_stage, :to_stage, :weight_percent, :because,
        :numbers, :watermarks, :who, :now);

-- name: list_verdicts
SELECT * FROM verdicts WHERE release_id = :release_id ORDER BY version;

-- name: add_evidence_point!
INSERT INTO evidence_points (release_id, at, weight, numbers)
VALUES (:release_id, :now, :weight, :numbers) ON CONFLICT DO NOTHING;

-- name: list_evidence_points
SELECT at, weight, numbers FROM evidence_points WHERE release_id = :release_id ORDER BY at;

-- name: newest_unit
SELECT coalesce(max(sequence), 0) AS sequence FROM units WHERE project = :project;

-- name: units
-- In order of assignment, with what their records say; no record: their answer has not ended.
SELECT unit.sequence, unit.request_id, unit.version_id, unit.route_revision, unit.weight,
       unit.conversation, unit.assigned_at, unit.censored, unit.judged, unit.feedback, unit.known,
       record.received_at IS NOT NULL AS ended,
       record.failed OR record.routed <> 'arms' AS failed,
       record.first_byte_ms, record.duration_ms, record.completion_tokens, record.sampled,
       settled.cost_usd::double precision AS cost_usd
  FROM units unit
  LEFT JOIN access_records record USING (request_id)
  LEFT JOIN settlements settled USING (request_id)
 WHERE unit.project = :project AND unit.sequence > :watermark
   AND unit.canary = :candidate
 ORDER BY unit.sequence LIMIT :limit;

-- name: late_units
-- The same, with what was heard of each since: its text, what people said, what was pushed.
SELECT unit.sequence, unit.version_id, unit.route_revision, unit.weight, unit.assigned_at,
       unit.judged, unit.feedback, unit.known,
       record.received_at IS NOT NULL AS ended,
       unit.censored OR coalesce(record.failed OR record.routed <> 'arms', false) AS failed,
       coalesce(record.sampled AND record.status = 200 AND record.flags = '', false) AS captured,
       turn.answer,
       coalesce((SELECT jsonb_object_agg(pushed.name, pushed.value) FROM pushed_metrics pushed
                  WHERE pushed.project = unit.project AND pushed.request_id = unit.request_id),
                '{}') AS pushed,
       EXISTS (SELECT FROM feedback said
                WHERE said.project = unit.project AND said.thumbs = 'down'
                  AND said.at > unit.assigned_at - interval '1 day'
                  AND (said.request_id = unit.request_id
                       OR (unit.conversation <> '' AND said.request_id = ''
                           AND said.conversation = unit.conversation))) AS thumbs_down
  FROM units unit
  LEFT JOIN access_records record USING (request_id)
  LEFT JOIN turns turn ON turn.project = unit.project AND turn.request_id = unit.request_id
   AND turn.at > unit.assigned_at - interval '1 day'
   AND turn.at < unit.assigned_at + interval '1 day'
 WHERE unit.project = :project AND unit.sequence > :watermark
   AND unit.canary = :candidate
 ORDER BY unit.sequence LIMIT :limit;

-- name: push_metrics
-- Each once; what was said first stays.
INSERT INTO pushed_metrics (project, request_id, name, value, received_at)
SELECT :project, told.request_id, told.name, told.value, :now
  FROM jsonb_to_recordset(:metrics::jsonb) AS told (request_id text, name text,
                                                    value double precision)
ON CONFLICT DO NOTHING
RETURNING request_id;

-- name: censor_units!
UPDATE units SET censored = true WHERE project = :project AND sequence = ANY (:sequences);

-- name: keep_judged!
UPDATE units SET judged = known.value
  FROM jsonb_to_recordset(:values::jsonb) AS known (sequence bigint, value jsonb)
 WHERE units.project = :project AND units.sequence = known.sequence;

-- name: keep_feedback!
UPDATE units SET feedback = known.value
  FROM jsonb_to_recordset(:values::jsonb) AS known (sequence bigint, value jsonb)
 WHERE units.project = :project AND units.sequence = known.sequence;

-- name: recent_answers
-- Of one arm, the newest first, in the order in which they ended.
SELECT record.failed OR record.routed <> 'arms' AS failed
  FROM access_records record JOIN units unit USING (request_id)
 WHERE unit.version_id = :version_id AND unit.canary = :candidate AND unit.sequence > (
       SELECT coalesce((begun->'streams'->'fast'->>'watermark')::bigint, 0)
         FROM releases WHERE id = :release_id)
 ORDER BY record.sequence DESC LIMIT :limit;

-- name: recent_measures
-- Of a version's newest answers that succeeded.
SELECT record.first_byte_ms, record.duration_ms, record.completion_tokens, record.known,
       settled.cost_usd::double precision AS cost_usd
  FROM access_records record LEFT JOIN settlements settled USING (request_id)
 WHERE record.version_id = :version_id AND record.routed = 'arms' AND NOT record.failed
 ORDER BY record.sequence DESC LIMIT :limit;

-- name: count_answers
SELECT count(*) AS answers, count(*) FILTER (WHERE failed) AS failed
  FROM access_records WHERE project = :project AND received_at > :since;

-- name: requests_per_second
SELECT count(*) / extract(epoch FROM :now::timestamptz - :since::timestamptz)::double precision
       AS per_second
  FROM access_records WHERE project = :project AND received_at > :since;

-- name: capacity
-- Requests in flight on average, by the time that those which ended took; and how many the
-- canary's engines may have.
SELECT coalesce(sum(record.duration_ms), 0) / 1000
       / extract(epoch FROM :now::timestamptz - :since::timestamptz)::double precision AS in_flight,
       (SELECT count(*) FROM engines
         WHERE version_id = :candidate AND state = 'ready' AND port IS NOT NULL)
       + (SELECT count(*) FROM engine_places WHERE version_id = :candidate) AS engines,
       (SELECT (serving->>'in_flight_per_engine')::integer FROM projects WHERE name = :project)
       AS room
  FROM access_records record WHERE record.project = :project AND record.received_at > :since;

-- name: newest_record
SELECT max(received_at) AS at FROM access_records WHERE project = :project;

-- name: newest_verdict
SELECT max(at) AS at FROM verdicts WHERE release_id = :release_id;

-- name: put_report!
UPDATE releases SET report = :report WHERE id = :id;

-- name: without_report
-- Decided, and not written down yet; the page of a holdback is written again when it is over.
SELECT id FROM releases WHERE report IS NULL AND stage IN ('promoted', 'rolled_back', 'holdback')
   AND begun ? 'streams'
 ORDER BY updated_at DESC LIMIT 20;
