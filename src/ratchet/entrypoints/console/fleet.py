"""What the fleet's page shows: the slots of each pool, who waits for one, and who had how much."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

# Nobody counts boxes; the number is beside them.
FREE_SHOWN_MAX = 32
KINDS = (("spot", "spot"), ("on_demand", "on demand"))


def fleet_view(fleet: Mapping[str, Any], mine: Collection[str]) -> dict[str, Any]:
    """Of `GET /fleet`; runs of the projects `mine` have a page in this console."""
    projects = fleet["projects"]
    hours = sum(row["month_slot_seconds"] for row in projects) / 3600.0
    weights = sum(row["weight"] for row in projects)
    return {
        "pools": [_pool(pool, mine) for pool in fleet["pools"]],
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


def _pool(pool: Mapping[str, Any], mine: Collection[str]) -> dict[str, Any]:
    has_nothing = [c for c in pool["claims"] if c["alive"] is None and c["granted"] is None]
    return {
        "name": pool["name"],
        "kinds": [_kind(kind, name, pool, mine) for kind, name in KINDS],
        "waiting": has_nothing,
    }


def _kind(kind: str, name: str, pool: Mapping[str, Any], mine: Collection[str]) -> dict[str, Any]:
    limit, taken = pool[kind], pool["taken"][kind]
    boxes = [
        {
            "run": claim["run_id"],
            "project": claim["project"],
            "slots": claim["slots"],
            "is_mine": claim["project"] in mine,
            "leaves": claim["alive"] == kind != claim["granted"],
        }
        for claim in pool["claims"]
        if kind in (claim["alive"], claim["granted"])
    ]
    free = 0 if limit is None else max(0, limit - taken)
    return {
        "kind": kind,
        "name": name,
        "taken": taken,
        "limit": limit,
        "boxes": boxes,
        "free": min(free, FREE_SHOWN_MAX),
    }
