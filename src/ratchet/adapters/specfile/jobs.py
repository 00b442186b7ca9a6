"""A CSV of trainings, to play over a pool."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from pathlib import Path

from ratchet.adapters.specfile.values import Unfit, number
from ratchet.core.errors import Rejected
from ratchet.core.fleet.claims import SLOTS_MAX
from ratchet.core.fleet.replay import Arrival

HOUR = 3600.0
HOURS_MAX = 24.0 * 366.0
_hours = number(0.001, HOURS_MAX)


def _whole(low: int, high: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not text.lstrip("-").isdecimal() or not low <= int(text) <= high:
            raise Unfit(f"a whole number from {low} to {high}")
        return int(text)

    return read


_COLUMNS: Mapping[str, Callable[[str], float]] = {
    "at_hours": number(0.0, HOURS_MAX),
    "work_hours": _hours,
    "deadline_hours": _hours,
    "slots": _whole(1, SLOTS_MAX),
    "priority": _whole(-1000, 1000),
}
_NEEDED = ("project", "work_hours")
_USUAL = {"at_hours": 0.0, "slots": 1, "priority": 0}


def load_jobs(path: Path) -> list[Arrival]:
    """Jobs with `project` and `work_hours`, and if you like `at_hours`, `deadline_hours` (empty:
    none), `slots` and `priority`.  Raises `Rejected` with every problem on a line of its own."""
    try:
        rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
    except (OSError, UnicodeError, csv.Error) as error:
        raise Rejected(f"{path}: cannot be read as CSV: {error}") from error
    columns = ["project", *_COLUMNS]
    unknown = [str(name) for name in (rows[0] if rows else ()) if name not in columns]
    if unknown or not rows:
        found = f"columns {', '.join(unknown)}" if unknown else "no rows"
        raise Rejected(f"{path}:1: found {found}, expected rows of {', '.join(columns)}")
    problems: list[str] = []
    jobs = [_job(row, number, path, problems) for number, row in enumerate(rows, start=1)]
    if problems:
        raise Rejected("\n".join(problems))
    return jobs


def _job(row: Mapping[str, str | None], number: int, path: Path, problems: list[str]) -> Arrival:
    given = {name: text for name, cell in row.items() if (text := (cell or "").strip())}
    problems += [
        f"{path}:{number + 1}: {name}: found nothing, expected a value"
        for name in _NEEDED
        if name not in given
    ]
    values: dict[str, float] = dict(_USUAL)
    for name, text in given.items():
        if name not in _COLUMNS:
            continue
        try:
            values[name] = _COLUMNS[name](text)
        except Unfit as unfit:
            problems.append(f"{path}:{number + 1}: {name}: found {text!r}, expected {unfit}")
    deadline_hours = values.get("deadline_hours")
    return Arrival(
        name=f"job-{number}",
        project=given.get("project", ""),
        at_seconds=values["at_hours"] * HOUR,
        work_seconds=values.get("work_hours", 0.0) * HOUR,
        deadline_seconds=None if deadline_hours is None else deadline_hours * HOUR,
        slots=int(values["slots"]),
        priority=int(values["priority"]),
    )
