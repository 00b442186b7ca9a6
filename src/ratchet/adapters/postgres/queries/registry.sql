-- name: add_dataset!
INSERT INTO datasets (id, project, uri, rows, recipe, bytes_new, packs, created_at)
VALUES (:id, :project, :uri, :rows, :recipe, :bytes_new, :packs, :now)
ON CONFLICT (id) DO UPDATE SET uri = EXCLUDED.uri, packs = EXCLUDED.packs;

-- name: add_dataset_place!
INSERT INTO dataset_places (uri, packs) VALUES (:uri, :packs) ON CONFLICT DO NOTHING;

-- name: lock_live
-- Nobody takes these away before this transaction ends.
SELECT uri FROM artifacts WHERE uri = ANY (:uris) AND state = 'live' ORDER BY uri FOR SHARE;

-- name: get_dataset
SELECT id, project, uri, rows, recipe, bytes_new, created_at, packs FROM datasets WHERE id = :id;

-- name: list_datasets
-- The newest first.
SELECT id, project, uri, rows, recipe, bytes_new, created_at, packs
  FROM datasets WHERE project = :project ORDER BY created_at DESC, id LIMIT :limit;

-- name: add_version!
-- Addressed by digest: the same content registers once.
INSERT INTO versions (id, project, base, adapter_uri, adapter_digest, dataset_id, recipe, report,
                      run_id, created_at)
VALUES (:id, :project, :base, :adapter_uri, :adapter_digest, :dataset_id, :recipe, :report,
        :run_id, :now)
ON CONFLICT DO NOTHING;

-- name: get_version
SELECT * FROM versions WHERE id = :id;

-- name: version_of_run
SELECT * FROM versions WHERE run_id = :run_id;

-- name: list_versions
SELECT * FROM versions WHERE project = :project ORDER BY created_at DESC LIMIT :limit;

-- name: get_evaluation
SELECT report FROM evaluations WHERE weights = :weights AND suite = :suite;

-- name: put_evaluation!
INSERT INTO evaluations (weights, suite, report, created_at)
VALUES (:weights, :suite, :report, :now)
-- One that an older Ratchet measured lacks what is asked for today.
ON CONFLICT (weights, suite) DO UPDATE SET report = excluded.report
WHERE evaluations.report -> 'memory_bytes' IS NULL;

-- name: put_mirror!
UPDATE versions SET mirrored_at = :now, mirror = :link WHERE id = :id;

-- name: not_mirrored
SELECT * FROM versions WHERE mirrored_at IS NULL AND run_id IS NOT NULL
 ORDER BY created_at LIMIT :limit;
