"""Real availability of spot, from `../shared/data/spot-traces` or a folder like it."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

HOUR = 3600.0
SEED = 7


@dataclass(frozen=True, slots=True)
class Series:
    """One zone's availability, probe by probe."""

    name: str
    year: int
    tick_seconds: float
    up: tuple[bool, ...]
    first_tick: int


@cache
def traces(folder: Path) -> dict[str, Series]:
    found = {}
    # Of 2023, probes of ten minutes were written three times each.
    for year, name, every in ((2022, "aws-2022-10", 1), (2023, "aws-2023-02", 3)):
        for path in sorted((folder / name).glob("*.json")):
            value = json.loads(path.read_text())
            found[f"{year} {path.stem}"] = Series(
                path.stem,
                year,
                value["metadata"]["gap_seconds"] * every,
                tuple(map(bool, value["data"][::every])),
                value["metadata"]["first_tick"] // every,
            )
    return found


def of_year(folder: Path, year: int) -> list[Series]:
    return [series for series in traces(folder).values() if series.year == year]


def other(year: int) -> int:
    return {2022: 2023, 2023: 2022}[year]


def starts_of(folder: Path, name: str, hours: float, count: int) -> tuple[int, ...]:
    """Windows that lie within the series, drawn by the series' name."""
    series = traces(folder)[name]
    last = len(series.up) - math.ceil(hours * HOUR / series.tick_seconds)
    rng = np.random.default_rng([SEED, *name.encode()])
    return tuple(sorted(int(x) for x in rng.integers(0, last, count)))


def published(folder: Path, name: str, count: int) -> tuple[int, ...]:
    """Of 2022: starts that others published, evenly taken."""
    windows = json.loads((folder / "published-windows.json").read_text())["single_zone"]
    ids = list(windows["start_tick_by_window_id"])
    chosen = [ids[round(i * (len(ids) - 1) / (count - 1))] for i in range(count)]
    first = traces(folder)[name].first_tick
    return tuple(windows["start_tick_by_window_id"][key] - first for key in chosen)
