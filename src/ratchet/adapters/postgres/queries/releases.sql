-- name: add_release!
-- One release a run.
INSERT INTO releases (id, run_id, project, candidate, baseline, stage, plan, evidence, begun,
                      begun_revision, because, ramp_weight, created_at, updated_at)
VALUES (:id, :run_id, :project, :candidate, :baseline, :stage, :plan, :evidence, :evidence,
        coalesce((SELECT max(route_revision) FROM weight_changes WHERE project = :project), 0),
        :because, :ramp_weight, :now, :now)
ON CONFLICT (run_id) DO NOTHING;

-- name: get_release
SELECT * FROM releases WHERE id = :id;

-- name: release_of_run
SELECT * FROM releases WHERE run_id = :run_id;

-- name: list_releases
SELECT * FROM releases ORDER BY created_at DESC LIMIT :limit;

-- name: live_releases
SELECT * FROM releases WHERE stage IN ('starting', 'canary', 'paused', 'held') ORDER BY created_at;

-- name: commit_release
-- Save the next version of a release, if nobody else did.  No row back means Conflict.
UPDATE releases SET stage = :stage, notch = :notch, ramp_weight = :ramp_weight, version = :version, evidence = :evidence,
       because = :because, updated_at = :now
 WHERE id = :id AND version = :version - 1
RETURNING project;

-- name: save_evidence
-- Between decisions the evidence grows; a decision in the meantime wins.
UPDATE releases SET evidence = :evidence, because = :because, updated_at = :now
 WHERE id = :id AND version = :version
RETURNING id;

-- name: add_verdict!
INSERT INTO verdicts (release_id, version, signal, from_stage, to_stage, weight_percent, because,
                      numbers, who, at)
VALUES (:release_id, :version, :signal, :from_stage, :to_stage, :weight_percent, :because,
        :numbers, :who, :now);

-- name: list_verdicts
SELECT * FROM verdicts WHERE release_id = :release_id ORDER BY version;

-- name: add_evidence_point!
INSERT INTO evidence_points (release_id, at, weight, numbers)
VALUES (:release_id, :now, :weight, :numbers) ON CONFLICT DO NOTHING;

-- name: list_evidence_points
SELECT at, weight, numbers FROM evidence_points WHERE release_id = :release_id ORDER BY at;

-- name: units
-- First requests of conversations at one notch, after a watermark, in order of arrival.
SELECT sequence, version_id, failed, duration_ms
  FROM access_records AS record
 WHERE project = :project AND route_revision = :route_revision AND sequence > :watermark
   AND routed = 'arms'
   AND (conversation = '' OR NOT EXISTS (
        SELECT 1 FROM access_records AS earlier
         WHERE earlier.route_revision = record.route_revision AND earlier.routed = 'arms'
           AND earlier.conversation = record.conversation
           AND earlier.sequence < record.sequence))
 ORDER BY sequence LIMIT :limit;

-- name: weights_of_release
-- Revisions under which the candidate was one of two arms, in order.
SELECT route_revision, (arm->>'weight')::integer AS weight
  FROM weight_changes, jsonb_array_elements(arms) AS arm
 WHERE project = :project AND arm->>'version' = :candidate AND jsonb_array_length(arms) = 2
   AND route_revision > :after
 ORDER BY route_revision LIMIT :limit;

-- name: recent_durations
SELECT duration_ms FROM access_records
 WHERE version_id = :version_id AND routed = 'arms' AND NOT failed ORDER BY sequence DESC LIMIT :limit;

-- name: newest_record
SELECT max(received_at) AS at FROM access_records WHERE project = :project;

-- name: newest_verdict
SELECT max(at) AS at FROM verdicts WHERE release_id = :release_id;
