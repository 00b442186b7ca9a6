"""A run's timeline out of its view, for the terminal and the console."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from ratchet.core.placement.timeline import Piece, with_waits


def pieces_of(run: dict[str, Any], now: datetime) -> list[Piece]:
    """Machines and waits of its training; empty for one that had no choice of machines."""
    if not run.get("placements"):
        return []
    stage = next(stage for stage in run["stages"] if stage["name"] == "train")
    machines = [
        Piece(
            kind=each["capacity"],
            zone=each["zone"],
            began_at=_moment(each["started_at"]),
            ended_at=now if each["ended_at"] is None else _moment(each["ended_at"]),
            end="" if each["ended_at"] is None else each["state"],
            usd_per_hour=each["usd_per_hour"],
        )
        for each in stage["attempts"]
        if each["started_at"] is not None
    ]
    return with_waits(machines, _moment(stage["started_at"]))


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)
