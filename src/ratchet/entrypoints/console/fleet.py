"""What the fleet's page shows: the slots of each pool, who waits for one, and who had how much."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

# More are told as a number: nobody counts boxes.
BOXES_MAX = 64
KINDS = (("spot", "spot"), ("on_demand", "on demand"))


def fleet_view(fleet: Mapping[str, Any]) -> dict[str, Any]:
    """Of `GET /fleet`."""
    projects = fleet["projects"]
    hours = sum(row["month_slot_seconds"] for row in projects) / 3600.0
    weights = sum(row["weight"] for row in projects)
    return {
        "pools": [_pool(pool) for pool in fleet["pools"]],
        "projects": [
            {
                **row,
                "hours": row["month_slot_seconds"] / 3600.0,
                "had": row["month_slot_seconds"] / 36.0 / hours if hours else 0.0,
                "due": 100.0 * row["weight"] / weights,
            }
            for row in projects
        ],
    }


def _pool(pool: Mapping[str, Any]) -> dict[str, Any]:
    claims: Sequence[Mapping[str, Any]] = pool["claims"]
    return {
        "name": pool["name"],
        "kinds": [_kind(kind, name, pool[kind], claims) for kind, name in KINDS],
        "waiting": [
            claim for claim in claims if claim["alive"] is None and claim["granted"] is None
        ],
    }


def _kind(
    kind: str, name: str, limit: int | None, claims: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    boxes = []
    for claim in claims:
        if kind in (claim["alive"], claim["granted"]):
            leaves = claim["alive"] == kind != claim["granted"]
            box = {"run": claim["run_id"], "project": claim["project"], "leaves": leaves}
            boxes += [box] * claim["slots"]
    free = 0 if limit is None else max(0, limit - len(boxes))
    return {
        "kind": kind,
        "name": name,
        "taken": len(boxes),
        "limit": limit,
        "boxes": boxes[:BOXES_MAX],
        "free": min(free, max(0, BOXES_MAX - len(boxes))),
    }
