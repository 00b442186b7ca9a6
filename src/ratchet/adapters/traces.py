"""Files of spot availability: what was seen of a zone, probe by probe."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from ratchet.core.errors import Rejected
from ratchet.core.placement.market import Player


@dataclass(frozen=True, slots=True)
class Trace:
    """One zone, probed at equal distances."""

    name: str
    tick_seconds: float
    up: tuple[bool, ...]


def read_trace(path: Path) -> Trace:
    """JSON as published with "Can't Be Late" (`{"metadata": {"gap_seconds": ...}, "data": [1, 0]}`,
    1 for available), or CSV with the columns `time` and `available`.  Raises `Rejected`.
    """
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise Rejected(f"{path}: cannot be read: {error}") from error
    found = _json(path, text) if path.suffix == ".json" else _csv(path, text)
    if len(found.up) < 2:
        raise Rejected(f"{path}: found {len(found.up)} probes, expected at least 2")
    return found


def _json(path: Path, text: str) -> Trace:
    try:
        value = json.loads(text)
        gap = float(value["metadata"]["gap_seconds"])
        up = tuple(_flag(path, number, one) for number, one in enumerate(value["data"]))
    except (ValueError, TypeError, KeyError) as error:
        raise Rejected(
            f"{path}: found {error!r}, expected "
            '{"metadata": {"gap_seconds": SECONDS}, "data": [1, 0, ...]}'
        ) from error
    if gap <= 0:
        raise Rejected(f"{path}: metadata.gap_seconds: found {gap:g}, expected a positive number")
    return Trace(path.stem, gap, up)


def _flag(path: Path, number: int, value: Any) -> bool:
    if value not in (0, 1):
        raise Rejected(f"{path}: data[{number}]: found {value!r}, expected 0 or 1 (available)")
    return bool(value)


def _csv(path: Path, text: str) -> Trace:
    """Equal distances are asked for: what lies between two probes is not known."""
    rows = list(csv.DictReader(text.splitlines()))
    times, up = [], []
    for line, row in enumerate(rows, start=2):
        try:
            times.append(datetime.fromisoformat(row["time"]).timestamp())
            up.append({"0": False, "1": True}[row["available"]])
        except (KeyError, ValueError, TypeError) as error:
            raise Rejected(
                f"{path}:{line}: found {dict(row)}, expected time (ISO 8601) and available (0 or 1)"
            ) from error
    gaps = [after - before for before, after in pairwise(times)]
    if not gaps or gaps[0] <= 0:
        raise Rejected(f"{path}: expected at least two probes, in their order")
    for line, gap in enumerate(gaps, start=3):
        if abs(gap - gaps[0]) > 0.1 * gaps[0]:
            raise Rejected(
                f"{path}:{line}: found {gap:g} s after the probe before it, expected {gaps[0]:g} s "
                "as between the first two"
            )
    return Trace(path.stem, gaps[0], tuple(up))


def read_zones(paths: Sequence[Path]) -> list[Trace]:
    """Several at once.  Raises `Rejected` when they were not probed together."""
    zones = [read_trace(path) for path in paths]
    if len({(zone.tick_seconds, len(zone.up)) for zone in zones}) > 1:
        lengths = ", ".join(f"{z.name}: {len(z.up)} of {z.tick_seconds:g} s" for z in zones)
        raise Rejected(f"traces: found {lengths}; expected zones that were probed together")
    if len({zone.name for zone in zones}) < len(zones):
        raise Rejected("traces: found two files of one name, expected one for each zone")
    return zones


def player_of(paths: Sequence[Path], speed: float, began_at: datetime) -> Player:
    """Zones that are played from files.  Raises `Rejected` as `read_zones` does."""
    zones = read_zones(paths)
    return Player(
        names=tuple(zone.name for zone in zones),
        series=tuple(zone.up for zone in zones),
        tick_seconds=zones[0].tick_seconds,
        began_at=began_at,
        speed=speed,
    )
