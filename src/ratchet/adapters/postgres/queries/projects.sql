-- name: put_project!
-- Register a project, or take over what its spec says now.  The baseline is never touched here.
INSERT INTO projects (name, served_name, base, engine, serving, triggers, retention,
                      created_at)
VALUES (:name, :served_name, :base, :engine, :serving, :triggers, :retention, :now)
ON CONFLICT (name) DO UPDATE SET served_name = EXCLUDED.served_name, engine = EXCLUDED.engine,
       serving = EXCLUDED.serving, triggers = EXCLUDED.triggers, retention = EXCLUDED.retention;

-- name: put_spec_file!
-- Where runs without a repository read the spec.
UPDATE projects SET spec_file = :spec_file WHERE name = :name;

-- name: list_projects
SELECT name, served_name, base, engine, serving, baseline_version, created_at FROM projects ORDER BY name;

-- name: get_project
SELECT name, served_name, base, engine, serving, triggers, baseline_version, created_at
  FROM projects WHERE name = :name;

-- name: set_baseline!
UPDATE projects SET baseline_version = :version WHERE name = :project;

-- name: put_gateway!
-- The first route of a project; later ones come from releases.
INSERT INTO gateway (project, arms) VALUES (:project, :arms) ON CONFLICT (project) DO NOTHING;

-- name: add_audit!
INSERT INTO audit (at, who, what, subject, old, new, because)
VALUES (:now, :who, :what, :subject, :old, :new, :because);

-- name: list_audit
SELECT at, who, what, subject, old, new, because FROM audit ORDER BY id DESC LIMIT :limit;

-- name: lock_project
-- What serves, kept as it is until the end of the transaction.
SELECT baseline_version FROM projects WHERE name = :name FOR UPDATE;
