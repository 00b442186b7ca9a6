-- name: settle
-- Each answer once, whoever tells of it first, at the price of now; and the sums in the same breath.
WITH told AS (
    SELECT * FROM unnest(:request_ids::text[], :key_ids::text[], :versions::text[],
                         :prompt_tokens::integer[], :completion_tokens::integer[],
                         :answered::timestamptz[])
           AS t (request_id, key_id, version_id, prompt_tokens, completion_tokens, answered_at)
), new AS (
    INSERT INTO settlements (request_id, project, key_id, version_id, prompt_tokens,
                             completion_tokens, cost_usd, told_by, answered_at, settled_at)
    SELECT told.request_id, :project, told.key_id, told.version_id, told.prompt_tokens,
           told.completion_tokens,
           (told.prompt_tokens * coalesce(own.prompt_usd, common.prompt_usd, 0)
            + told.completion_tokens * coalesce(own.completion_usd, common.completion_usd, 0))
           / 1000000,
           :told_by, told.answered_at, :now
      FROM told
      LEFT JOIN prices own ON own.project = :project AND own.version_id = told.version_id
      LEFT JOIN prices common ON common.project = :project AND common.version_id = ''
    ON CONFLICT (request_id) DO NOTHING
    RETURNING *
), sums AS (
    INSERT INTO spending (project, day, key_id, version_id, requests, prompt_tokens,
                          completion_tokens, cost_usd)
    SELECT project, (answered_at AT TIME ZONE 'UTC')::date, key_id, version_id, count(*),
           sum(prompt_tokens), sum(completion_tokens), sum(cost_usd)
      FROM new GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4
    ON CONFLICT (project, day, key_id, version_id) DO UPDATE
       SET requests = spending.requests + EXCLUDED.requests,
           prompt_tokens = spending.prompt_tokens + EXCLUDED.prompt_tokens,
           completion_tokens = spending.completion_tokens + EXCLUDED.completion_tokens,
           cost_usd = spending.cost_usd + EXCLUDED.cost_usd
)
SELECT count(*) AS settled FROM new;

-- name: put_price
WITH before AS (
    SELECT prompt_usd, completion_usd FROM prices
     WHERE project = :project AND version_id = :version_id
), put AS (
    INSERT INTO prices (project, version_id, prompt_usd, completion_usd, set_by, set_at)
    VALUES (:project, :version_id, :prompt_usd, :completion_usd, :set_by, :now)
    ON CONFLICT (project, version_id) DO UPDATE SET prompt_usd = EXCLUDED.prompt_usd,
           completion_usd = EXCLUDED.completion_usd, set_by = EXCLUDED.set_by,
           set_at = EXCLUDED.set_at
)
SELECT prompt_usd, completion_usd FROM before;

-- name: list_prices
SELECT version_id, prompt_usd, completion_usd, set_by, set_at FROM prices
 WHERE project = :project ORDER BY version_id;

-- name: get_budget
SELECT * FROM budgets WHERE id = :id;

-- name: find_budget
SELECT * FROM budgets WHERE project = :project AND kind = :kind AND subject = :subject
   AND period = :period AND unit = :unit FOR UPDATE;

-- name: put_budget
INSERT INTO budgets (id, project, kind, subject, period, unit, amount, state_since, set_by)
VALUES (:id, :project, :kind, :subject, :period, :unit, :amount, :now, :set_by)
ON CONFLICT (project, kind, subject, period, unit) DO UPDATE
   SET amount = EXCLUDED.amount, set_by = EXCLUDED.set_by
RETURNING id;

-- name: drop_budget
DELETE FROM budgets WHERE id = :id RETURNING *;

-- name: budgets_spent
-- What each budget has used in its present period.
SELECT budgets.*, used.amount AS spent
  FROM budgets
 CROSS JOIN LATERAL (
       SELECT coalesce(sum(CASE budgets.unit WHEN 'usd' THEN spending.cost_usd
                           ELSE spending.prompt_tokens + spending.completion_tokens END), 0) AS amount
         FROM spending
        WHERE spending.project = budgets.project
          AND spending.day >= CASE budgets.period WHEN 'day' THEN :today
                              ELSE date_trunc('month', :today::date)::date END
          AND (budgets.kind = 'project'
               OR (budgets.kind = 'key' AND spending.key_id = budgets.subject)
               OR (budgets.kind = 'team' AND spending.key_id IN (
                   SELECT id FROM keys
                    WHERE keys.project = budgets.project AND keys.team = budgets.subject)))
       ) AS used
 WHERE :project::text IS NULL OR budgets.project = :project
 ORDER BY budgets.project, budgets.kind, budgets.subject, budgets.period, budgets.unit;

-- name: budgets_of_keys
-- Which keys' own and teams' budgets there are.
SELECT keys.id AS key_id, budgets.id AS budget_id
  FROM budgets JOIN keys ON keys.project = budgets.project
   AND ((budgets.kind = 'key' AND keys.id = budgets.subject)
        OR (budgets.kind = 'team' AND keys.team = budgets.subject))
 WHERE budgets.project = :project AND keys.revoked_at IS NULL
 ORDER BY keys.id, budgets.id;

-- name: settled_among
SELECT request_id FROM settlements WHERE request_id = ANY (:requests);

-- name: move_budget
-- No row back: somebody else moved it.
UPDATE budgets SET state = :new, state_since = :now WHERE id = :id AND state = :old
RETURNING project;

-- name: exhausted_keys
SELECT DISTINCT keys.id FROM budgets
  JOIN keys ON keys.project = budgets.project
   AND (budgets.kind = 'project' OR (budgets.kind = 'key' AND keys.id = budgets.subject)
        OR (budgets.kind = 'team' AND keys.team = budgets.subject))
 WHERE budgets.project = :project AND budgets.state = 'exhausted' AND keys.revoked_at IS NULL
   AND (keys.expires_at IS NULL OR keys.expires_at > :now)
 ORDER BY keys.id;

-- name: cost_by_version
SELECT version_id, sum(cost_usd) AS cost_usd FROM spending GROUP BY version_id;

-- name: usage_by_key
-- What each key used, a day in UTC, as it was settled.
SELECT day, key_id, coalesce(keys.name, '') AS key_name, coalesce(keys.team, '') AS team,
       sum(requests)::bigint AS requests, sum(prompt_tokens)::bigint AS prompt_tokens,
       sum(completion_tokens)::bigint AS completion_tokens, sum(cost_usd) AS cost_usd
  FROM spending LEFT JOIN keys ON keys.id = key_id
 WHERE spending.project = :project AND day >= :since
 GROUP BY day, key_id, keys.name, keys.team
 ORDER BY day DESC, requests DESC, key_id LIMIT :limit;

-- name: untold_by_key
-- Answers that told no usage: counted, never guessed.
SELECT (received_at AT TIME ZONE 'UTC')::date AS day, key_id, count(*) AS requests,
       count(*) FILTER (WHERE failed) AS failed,
       count(*) FILTER (WHERE prompt_tokens IS NULL AND status = 200 AND NOT EXISTS (
           SELECT 1 FROM settlements WHERE settlements.request_id = access_records.request_id)
       ) AS untold
  FROM access_records
 WHERE project = :project AND received_at >= :since
 GROUP BY day, key_id;
