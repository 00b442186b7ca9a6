-- name: position_of_release
-- Its weights now, if it is routed by them.
SELECT gateway.route_revision, coalesce((SELECT max(sequence) FROM units
                                          WHERE units.project = gateway.project), 0) AS newest_unit
  FROM gateway WHERE gateway.project = :project;

-- name: add_sample
-- Only while the weights are those that it was begun under, and with what they say of the canary.
INSERT INTO samples (release_id, route_revision, weight, newest_unit, counters, at)
SELECT :release_id, gateway.route_revision, (gateway.arms->0->>'weight')::integer, :newest_unit,
       :counters, :now
  FROM gateway WHERE gateway.project = :project AND gateway.route_revision = :route_revision
   AND jsonb_array_length(gateway.arms) = 2 AND gateway.arms->0->>'version' = :candidate
RETURNING sequence;

-- name: samples
-- Those after a watermark, and the one at it, which the next is counted from.
SELECT sequence, route_revision, weight, newest_unit, counters FROM samples
 WHERE release_id = :release_id AND sequence >= :watermark ORDER BY sequence LIMIT :limit;
