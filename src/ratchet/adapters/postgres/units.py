"""Rows of units and their records as the judge's values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime

from ratchet.adapters.postgres.pool import Row
from ratchet.core.evidence import CENSORED, Unit
from ratchet.core.guards import Group
from ratchet.core.late import LateUnit
from ratchet.core.measures import Answer, measures
from ratchet.core.rollout import Release


def unit_of(row: Row, release: Release, now: datetime) -> Unit:
    known: Mapping[str, float] = {}
    waiting = None
    if row["censored"]:
        known = CENSORED
    elif row["ended"]:
        known = measures(answer_of(row))
    else:
        waiting = (now - row["assigned_at"]).total_seconds()
    return Unit(
        sequence=row["sequence"],
        is_canary=row["version_id"] == release.candidate,
        values=known,
        weight=row["weight"],
        revision=row["route_revision"],
        waiting_seconds=waiting,
        is_censored=row["censored"],
        known=row["known"],
    )


def kept_unit_of(unit: Unit, kept: Mapping[str, float]) -> Unit:
    """As it was judged in a late group."""
    return replace(unit, values=_floats(kept) or {}, waiting_seconds=None, is_censored=False)


def late_unit_of(row: Row, release: Release, group: Group, now: datetime) -> LateUnit:
    return LateUnit(
        sequence=row["sequence"],
        is_canary=row["version_id"] == release.candidate,
        weight=row["weight"],
        revision=row["route_revision"],
        age_seconds=(now - row["assigned_at"]).total_seconds(),
        is_ended=row["ended"],
        will_be_captured=row["captured"],
        answer=row["answer"],
        pushed=row["pushed"],
        is_thumbs_down=row["thumbs_down"],
        is_failed=row["failed"],
        kept=_floats(row[group.value]),
        known=row["known"],
    )


def _floats(kept: Mapping[str, float] | None) -> Mapping[str, float] | None:
    """A jsonb number without a fraction comes back as an int."""
    return None if kept is None else {name: float(value) for name, value in kept.items()}


def answer_of(row: Row) -> Answer:
    return Answer(
        failed=row["failed"],
        first_byte_ms=row["first_byte_ms"],
        duration_ms=row["duration_ms"],
        completion_tokens=row["completion_tokens"],
        cost_usd=row["cost_usd"],
    )
