-- name: lock_turns
-- One writer at a time, so that a lower sequence never appears after a higher one was read.
SELECT pg_advisory_xact_lock(7203003);

-- name: make_days
SELECT make_day(parent, project, day)
  FROM (SELECT DISTINCT :parent::text AS parent, project, day
          FROM unnest(:projects::text[], :days::date[]) AS t (project, day)) AS wanted;

-- name: add_turns
-- Each once by its request, and none of somebody who was erased after it was asked.
INSERT INTO turns (project, request_id, version_id, conversation, key_id, subjects, messages, answer,
                   parameters, finish_reason, scrubbed, sample, at, received_at)
SELECT t.project, t.request_id, t.version, t.conversation, t.key_id,
       ARRAY(SELECT jsonb_array_elements_text(t.subjects)),
       t.messages, t.answer, t.parameters, t.finish_reason, t.scrubbed, t.sample, t.at, :now
  FROM jsonb_to_recordset(:turns::jsonb) AS t (
       project text, request_id text, version text, conversation text, key_id text,
       subjects jsonb, messages jsonb, answer jsonb, parameters jsonb, finish_reason text,
       scrubbed jsonb, sample double precision, at timestamptz)
 WHERE NOT EXISTS (
       SELECT FROM erasures
        WHERE erasures.project = t.project AND erasures.erased_at >= t.at
          AND t.subjects ? erasures.subject)
   AND EXISTS (SELECT FROM projects WHERE projects.name = t.project)
 ORDER BY t.at
ON CONFLICT (project, at, request_id) DO NOTHING
RETURNING request_id AS id;

-- name: add_feedback
-- Each once by its id, also when it is said again later.
INSERT INTO feedback (project, id, request_id, conversation, key_id, subjects, score, thumbs,
                      correction, comment, at, received_at)
SELECT DISTINCT ON (t.id)
       t.project, t.id, t.request_id, t.conversation, t.key_id,
       ARRAY(SELECT jsonb_array_elements_text(t.subjects)),
       t.score, t.thumbs, t.correction, t.comment, t.at, :now
  FROM jsonb_to_recordset(:feedback::jsonb) AS t (
       project text, id text, request_id text, conversation text, key_id text, subjects jsonb,
       score double precision, thumbs text, correction text, comment text, at timestamptz)
 WHERE NOT EXISTS (
       SELECT FROM erasures
        WHERE erasures.project = t.project AND erasures.erased_at >= t.at
          AND t.subjects ? erasures.subject)
   AND EXISTS (SELECT FROM projects WHERE projects.name = t.project)
   AND NOT EXISTS (SELECT FROM feedback known WHERE known.project = t.project AND known.id = t.id)
 ORDER BY t.id, t.at
ON CONFLICT (project, at, id) DO NOTHING
RETURNING id;

-- name: drop_old_days
SELECT drop_days(:parent, :project, :first_day) AS dropped;

-- name: list_turns
-- The newest first, each with all that was said of it.
SELECT turns.*, coalesce(said.feedback, '[]') AS feedback
  FROM turns
  LEFT JOIN LATERAL (
       SELECT jsonb_agg(jsonb_build_object(
                  'id', f.id, 'at', f.at, 'key_id', f.key_id, 'score', f.score,
                  'thumbs', f.thumbs, 'correction', f.correction, 'comment', f.comment,
                  'of', CASE WHEN f.request_id <> '' THEN 'answer' ELSE 'conversation' END)
                  ORDER BY f.at) AS feedback
         FROM feedback f
        WHERE f.project = turns.project
          AND (f.request_id = turns.request_id
               OR (f.request_id = '' AND f.conversation = turns.conversation))
       ) AS said ON true
 WHERE turns.project = :project AND (:before::bigint IS NULL OR sequence < :before)
   AND (:request_id::text IS NULL OR request_id = :request_id)
   AND (NOT :only_said OR said.feedback IS NOT NULL)
 ORDER BY sequence DESC LIMIT :limit;

-- name: answered_turns
-- The newest of which somebody said something, the oldest first.
SELECT * FROM (
SELECT turns.request_id, turns.conversation, turns.messages, turns.answer, turns.at, said.opinions
  FROM turns
  JOIN LATERAL (
       SELECT jsonb_agg(jsonb_build_object(
                  'thumbs', f.thumbs, 'score', f.score, 'correction', f.correction)
                  ORDER BY f.at, f.id) AS opinions
         FROM feedback f
        WHERE f.project = turns.project AND f.request_id = turns.request_id
       ) AS said ON said.opinions IS NOT NULL
 WHERE turns.project = :project AND turns.at >= :since
   AND (:keys::text[] = '{}' OR turns.key_id = ANY (:keys::text[])
        OR turns.key_id IN (SELECT id FROM keys
                             WHERE project = :project AND name = ANY (:keys::text[])))
 ORDER BY turns.at DESC, turns.request_id LIMIT :limit) AS newest
 ORDER BY at, request_id;

-- name: capture_counts
-- What was sampled and given whole, and how much of it became turns.
SELECT count(*) AS sampled,
       count(*) FILTER (WHERE kept) AS kept,
       count(*) FILTER (WHERE NOT kept AND started_at < :settled_before) AS lost
  FROM (SELECT started_at, EXISTS (
               SELECT FROM turns WHERE turns.project = records.project
                  AND turns.request_id = records.request_id
                  AND turns.at BETWEEN :since::timestamptz - interval '1 day'
                                   AND :now::timestamptz + interval '1 day') AS kept
          FROM access_records records
         WHERE project = :project AND sampled AND started_at >= :since
           AND status = 200 AND flags = ''
           AND NOT EXISTS (SELECT FROM erasures WHERE erasures.project = records.project
                              AND erasures.erased_at >= records.started_at)) AS asked;

-- name: stored_turns
SELECT (SELECT count(*) FROM turns WHERE turns.project = :project) AS turns,
       (SELECT min(at) FROM turns WHERE turns.project = :project) AS oldest,
       (SELECT count(*) FROM feedback WHERE feedback.project = :project) AS feedback,
       (SELECT count(*) FROM feedback f WHERE f.project = :project
           AND NOT EXISTS (SELECT FROM turns t WHERE t.project = f.project
                  AND (t.request_id = f.request_id
                       OR (f.request_id = '' AND t.conversation = f.conversation)))
       ) AS feedback_without_turn;

-- name: erase_turns
DELETE FROM turns WHERE project = :project AND subjects @> ARRAY[:subject::text]
RETURNING request_id, version_id;

-- name: erase_feedback
-- Theirs, and what others said of their turns.
DELETE FROM feedback WHERE project = :project
   AND (subjects @> ARRAY[:subject::text] OR request_id = ANY (:request_ids))
RETURNING id;

-- name: erase_conversations
-- One nameless token for all of them: a conversation stays one unit of a release's evidence.
WITH token AS MATERIALIZED (SELECT 'erased-' || gen_random_uuid() AS name),
units_too AS (
    UPDATE units SET conversation = (SELECT name FROM token)
     WHERE project = :project AND conversation = :name
)
UPDATE access_records SET conversation = (SELECT name FROM token)
 WHERE project = :project AND conversation = :name
RETURNING request_id;

-- name: erase_tenant!
-- Still one segment, without a name.
WITH token AS MATERIALIZED (
    SELECT jsonb_build_object('tenant', 'erased-' || gen_random_uuid()) AS tenant
),
units_too AS (
    UPDATE units SET known = known || (SELECT tenant FROM token)
     WHERE project = :project AND known->>'tenant' = :name
)
UPDATE access_records SET known = known || (SELECT tenant FROM token)
 WHERE project = :project AND known->>'tenant' = :name;

-- name: put_erasure!
INSERT INTO erasures (project, subject, erased_at) VALUES (:project, :subject, :now)
ON CONFLICT (project, subject) DO UPDATE
   SET erased_at = EXCLUDED.erased_at, sequence = EXCLUDED.sequence;

-- name: follow
-- What came after a follower's place: turns, feedback and erasures in one order.
SELECT sequence, 'turn' AS kind, request_id AS id, to_jsonb(turns) AS event FROM turns
 WHERE sequence > :after
UNION ALL
SELECT sequence, 'feedback', id, to_jsonb(feedback) FROM feedback WHERE sequence > :after
UNION ALL
SELECT sequence, 'erasure', subject, to_jsonb(erasures) FROM erasures WHERE sequence > :after
 ORDER BY sequence LIMIT :limit;

-- name: follower
SELECT sequence FROM followers WHERE name = :name;

-- name: move_follower!
INSERT INTO followers (name, sequence, moved_at) VALUES (:name, :sequence, :now)
ON CONFLICT (name) DO UPDATE SET sequence = EXCLUDED.sequence, moved_at = EXCLUDED.moved_at;
