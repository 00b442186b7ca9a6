-- name: watched_projects
SELECT name, triggers, spec_file FROM projects ORDER BY name;

-- name: hear_delivery
-- By project and commit: heard twice, it is one.
INSERT INTO deliveries (project, after, push, source, state, heard_at)
VALUES (:project, :after, :push, :source, 'waiting', :now)
ON CONFLICT (project, after) DO NOTHING
RETURNING after;

-- name: waiting_deliveries
SELECT project, push, source, heard_at FROM deliveries
 WHERE state = 'waiting' ORDER BY heard_at, after;

-- name: settle_delivery!
UPDATE deliveries SET state = :state, because = :because, run_id = :run_id, ended_at = :now
 WHERE project = :project AND after = :after AND state = 'waiting';

-- name: list_deliveries
SELECT after, push, source, state, because, run_id, heard_at, ended_at FROM deliveries
 WHERE project = :project ORDER BY heard_at DESC LIMIT :limit;

-- name: trigger_mark
SELECT at, word FROM trigger_marks WHERE project = :project AND name = :name;

-- name: trigger_marks_of
SELECT name, at, word FROM trigger_marks WHERE project = :project ORDER BY name;

-- name: put_trigger_mark!
INSERT INTO trigger_marks (project, name, at, word) VALUES (:project, :name, :at, :word)
ON CONFLICT (project, name) DO UPDATE SET at = EXCLUDED.at, word = EXCLUDED.word;

-- name: standing_runs
-- Runs that have not ended; one whose release has begun is with users.
SELECT id, trigger->>'kind' AS kind, state = 'queued' AS is_queued,
       EXISTS (SELECT 1 FROM releases WHERE releases.run_id = runs.id) AS is_released
  FROM runs WHERE project = :project AND state IN ('queued', 'running') ORDER BY created_at, id;

-- name: feedback_since_run
SELECT count(feedback.id) AS new, coalesce(max(last.id), '') AS run_id
  FROM (SELECT id, created_at FROM runs WHERE project = :project
         ORDER BY created_at DESC, id DESC LIMIT 1) AS last
  LEFT JOIN feedback ON feedback.project = :project AND feedback.received_at > last.created_at;

-- name: all_feedback
SELECT count(*) AS new FROM feedback WHERE project = :project;

-- name: supersede_runs!
-- Queued ones that a newer run stands for.
UPDATE runs SET state = 'superseded', because = :because, ended_at = :now
 WHERE id = ANY (:ids::text[]) AND state = 'queued';

-- name: live_sources
SELECT DISTINCT source_dir FROM runs WHERE state IN ('queued', 'running');

-- name: untold_commits
-- Whose status says something else than what became of them.
SELECT project, runs.id AS run_id, runs.trigger->>'commit' AS commit, runs.state, runs.because,
       projects.triggers, runs.created_at AS at
  FROM runs JOIN projects ON projects.name = runs.project
 WHERE runs.created_at > :since AND runs.told_state <> runs.state AND runs.trigger->>'kind' = 'merge'
   AND runs.trigger->>'commit' <> '' AND projects.triggers->>'report' <> ''
 UNION ALL
SELECT project, NULL, after, 'failed', because, projects.triggers, heard_at
  FROM deliveries JOIN projects ON projects.name = deliveries.project
 WHERE heard_at > :since AND state = 'refused' AND NOT told AND projects.triggers->>'report' <> ''
 ORDER BY at LIMIT 20;

-- name: run_told!
UPDATE runs SET told_state = :state WHERE id = :id;

-- name: delivery_told!
UPDATE deliveries SET told = true WHERE project = :project AND after = :after;
