-- name: add_signing_key
-- The first one, or the next after a rotation; of two at once one wins.
INSERT INTO signing_keys (id, public, sealed, created_at) VALUES (:id, :public, :sealed, :now)
ON CONFLICT DO NOTHING RETURNING id;

-- name: current_signing_key
SELECT id, public, sealed FROM signing_keys WHERE retired_at IS NULL;

-- name: retire_signing_key
-- No row back: somebody else was faster.
UPDATE signing_keys SET retired_at = :now WHERE id = :id AND retired_at IS NULL RETURNING id;

-- name: trusted_signing_keys
-- The one that signs, and every older one that a living key still hangs on.
SELECT id, public FROM signing_keys
 WHERE retired_at IS NULL
    OR EXISTS (SELECT 1 FROM keys WHERE keys.signing_key = signing_keys.id
                AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > :now))
 ORDER BY created_at, id;

-- name: add_key!
INSERT INTO keys (id, project, name, principal, scopes, models, tier, team, role, hint, signing_key,
                  created_at, created_by, expires_at)
VALUES (:id, :project, :name, :principal, :scopes, :models, :tier, :team, :role, :hint, :signing_key,
        :now, :created_by, :expires_at);

-- name: get_key
SELECT * FROM keys WHERE id = :id;

-- name: list_keys
SELECT * FROM keys WHERE project = :project ORDER BY created_at DESC, id LIMIT :limit;

-- name: revoke_key
-- No row back: unknown, or revoked before.
UPDATE keys SET revoked_at = :now, revoked_because = :because
 WHERE id = :id AND revoked_at IS NULL
RETURNING project;

-- name: revoke_keys_of
UPDATE keys SET revoked_at = :now, revoked_because = :because
 WHERE signing_key = :signing_key AND revoked_at IS NULL
RETURNING id;

-- name: revoked_keys
-- What expired needs no telling; a day more than enough for clocks that differ.
SELECT id FROM keys
 WHERE project = :project AND revoked_at IS NOT NULL
   AND (expires_at IS NULL OR expires_at > :now - interval '1 day')
 ORDER BY id;

-- name: is_revoked
SELECT revoked_at IS NOT NULL AS revoked FROM keys WHERE id = :id;
