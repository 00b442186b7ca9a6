-- name: take_artifact
-- The newest place of a key, if its bytes are there to stay.
UPDATE artifacts SET state = 'live', not_before = NULL, epoch = epoch + 1
 WHERE key = :key AND state IN ('live', 'tombstoned')
   AND generation = (SELECT max(generation) FROM artifacts WHERE key = :key)
RETURNING uri;

-- name: new_artifact
-- A place where nothing was.  Two who ask at once get the same.
INSERT INTO artifacts (uri, key, generation, kind, bytes, state, created_at)
SELECT CASE WHEN next = 1 THEN :key ELSE :key || '.g' || next END, :key, next, :kind, 0, 'live', :now
  FROM (SELECT coalesce(max(generation), 0) + 1 AS next FROM artifacts WHERE key = :key) AS place
ON CONFLICT (key, generation) DO UPDATE SET epoch = artifacts.epoch + 1
RETURNING uri;

-- name: hold_artifacts
UPDATE artifacts SET state = 'live', not_before = NULL, epoch = epoch + 1
 WHERE uri = ANY (:uris) AND state IN ('live', 'tombstoned')
RETURNING uri;

-- name: lease_artifacts!
INSERT INTO artifact_leases (uri, run_id)
SELECT uri, :run_id FROM unnest(:uris::text[]) AS uri
ON CONFLICT DO NOTHING;

-- name: drop_old_leases!
DELETE FROM artifact_leases USING runs
 WHERE runs.id = artifact_leases.run_id AND runs.state NOT IN ('queued', 'running');

-- name: adopt_artifacts!
-- Bytes that came after their end are taken away once more; nobody may have them back, because
-- what was listed may be gone again by now.
INSERT INTO artifacts (uri, key, generation, kind, bytes, state, created_at)
SELECT t.uri, t.key, t.generation, t.kind, t.bytes, 'live', t.born
  FROM unnest(:uris::text[], :keys::text[], :generations::int[], :kinds::text[], :sizes::bigint[],
              :births::timestamptz[]) AS t (uri, key, generation, kind, bytes, born)
ON CONFLICT (uri) DO UPDATE
   SET bytes = EXCLUDED.bytes,
       state = CASE artifacts.state WHEN 'gone' THEN 'deleting' ELSE artifacts.state END,
       epoch = artifacts.epoch + (artifacts.state = 'gone')::int
 WHERE artifacts.state = 'gone' OR artifacts.bytes <> EXCLUDED.bytes;

-- name: list_artifacts
SELECT uri, kind, bytes, state, epoch, created_at, not_before FROM artifacts
 WHERE state <> 'gone' ORDER BY uri;

-- name: bury_artifacts
UPDATE artifacts SET state = 'tombstoned', not_before = :not_before, epoch = artifacts.epoch + 1
  FROM unnest(:uris::text[], :epochs::bigint[]) AS seen (uri, epoch)
 WHERE artifacts.uri = seen.uri AND artifacts.epoch = seen.epoch AND artifacts.state = 'live'
   AND NOT EXISTS (
       SELECT FROM artifact_leases leases JOIN runs ON runs.id = leases.run_id
        WHERE leases.uri = seen.uri AND runs.state IN ('queued', 'running'))
RETURNING artifacts.uri;

-- name: condemn_artifacts
UPDATE artifacts SET state = 'deleting', not_before = NULL, epoch = artifacts.epoch + 1
  FROM unnest(:uris::text[], :epochs::bigint[]) AS seen (uri, epoch)
 WHERE artifacts.uri = seen.uri AND artifacts.epoch = seen.epoch
   AND artifacts.state = 'tombstoned' AND artifacts.not_before <= :now
   AND NOT EXISTS (
       SELECT FROM artifact_leases leases JOIN runs ON runs.id = leases.run_id
        WHERE leases.uri = seen.uri AND runs.state IN ('queued', 'running'))
RETURNING artifacts.uri;

-- name: revive_artifacts!
UPDATE artifacts SET state = 'live', not_before = NULL, epoch = epoch + 1
 WHERE uri = ANY (:uris) AND state = 'tombstoned';

-- name: forget_artifacts!
UPDATE artifacts SET state = 'gone', epoch = epoch + 1
 WHERE uri = ANY (:uris) AND state = 'deleting';

-- name: pin_artifact!
INSERT INTO artifact_pins (project, subject, because, who, legal, created_at)
VALUES (:project, :subject, :because, :who, :legal, :now)
ON CONFLICT (project, subject) DO UPDATE
   SET because = EXCLUDED.because, who = EXCLUDED.who, legal = EXCLUDED.legal;

-- name: unpin_artifact
DELETE FROM artifact_pins WHERE project = :project AND subject = :subject RETURNING subject;

-- name: list_pins
SELECT project, subject, because, who, legal FROM artifact_pins ORDER BY project, subject;

-- name: lineage_of_serving
-- One statement: one moment.
SELECT baseline_version AS version, 'serves' AS because FROM projects
 WHERE baseline_version IS NOT NULL
UNION ALL
SELECT candidate, 'is the canary of ' || id FROM releases
 WHERE stage NOT IN ('promoted', 'rolled_back', 'unchanged')
UNION ALL
SELECT baseline, 'is the baseline of ' || id FROM releases
 WHERE stage NOT IN ('promoted', 'rolled_back', 'unchanged')
UNION ALL
SELECT version_id, 'has an engine' FROM engines WHERE wanted;

-- name: lineage_of_runs
SELECT runs.id AS run, runs.project, runs.state NOT IN ('queued', 'running') AS is_over,
       runs.ended_at, versions.id AS version, versions.dataset_id,
       CASE WHEN releases.stage IN ('promoted', 'holdback') THEN releases.updated_at END
           AS promoted_at,
       froze.detail->>'dataset' AS frozen, versions.adapter_uri,
       learnt.detail->>'adapter_uri' AS trained, asked.detail->>'reports' AS reports,
       ARRAY(SELECT suite->>'uri' FROM jsonb_array_elements(froze.detail->'suites') AS suite)
           AS suites,
       ARRAY(SELECT value FROM jsonb_each_text(froze.detail->'code')) AS code,
       coalesce(places.uri, datasets.uri) AS manifest,
       coalesce(places.packs, datasets.packs, '{}') AS packs
  FROM runs
  LEFT JOIN versions ON versions.run_id = runs.id
  LEFT JOIN releases ON releases.run_id = runs.id
  LEFT JOIN stages froze ON froze.run_id = runs.id AND froze.name = 'freeze'
  LEFT JOIN stages learnt ON learnt.run_id = runs.id AND learnt.name = 'train'
  LEFT JOIN stages asked ON asked.run_id = runs.id AND asked.name = 'evaluate'
  LEFT JOIN datasets ON datasets.id = coalesce(versions.dataset_id, froze.detail->>'dataset')
  -- What it reads itself: since then another run may have stored the same version elsewhere.
  LEFT JOIN dataset_places places ON places.uri = froze.detail->>'uri';

-- name: lineage_of_leases
SELECT leases.uri, leases.run_id FROM artifact_leases leases JOIN runs ON runs.id = leases.run_id
 WHERE runs.state IN ('queued', 'running');

-- name: retention_of_projects
SELECT name, retention FROM projects;

-- name: datasets_without_packs
SELECT id, project, uri, rows, recipe, bytes_new, created_at, packs FROM datasets
 WHERE packs IS NULL;

-- name: put_packs!
UPDATE datasets SET packs = :packs WHERE id = :id;
