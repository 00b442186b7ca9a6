-- name: add_notice!
INSERT INTO notices (release_id, version, place, channel, due_at)
VALUES (:release_id, :version, :place, :channel, :now);

-- name: claim_notices
-- Whoever claims has a minute; then another may.
UPDATE notices SET due_at = :now::timestamptz + interval '1 minute', attempts = attempts + 1
 WHERE (release_id, version, place) IN (
       SELECT release_id, version, place FROM notices WHERE due_at <= :now
        ORDER BY due_at, release_id, version, place LIMIT :limit FOR UPDATE SKIP LOCKED)
RETURNING release_id, version, place, channel, attempts;

-- name: noticed
SELECT verdict.from_stage, verdict.to_stage, verdict.weight_percent, verdict.because, verdict.who,
       verdict.at, verdict.signal, release.project, release.run_id, release.candidate
  FROM verdicts verdict JOIN releases release ON release.id = verdict.release_id
 WHERE verdict.release_id = :release_id AND verdict.version = :version;

-- name: notice_sent!
UPDATE notices SET due_at = NULL, sent_at = :now, problem = ''
 WHERE release_id = :release_id AND version = :version AND place = :place;

-- name: notice_failed!
UPDATE notices SET due_at = :due_at, problem = :problem
 WHERE release_id = :release_id AND version = :version AND place = :place;

-- name: list_notices
SELECT version, place, channel, attempts, due_at, sent_at, problem FROM notices
 WHERE release_id = :release_id ORDER BY version, place;
