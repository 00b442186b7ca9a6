"""`fleet.yaml`: what pools there are, and what each project may take of them; and files of jobs."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from ratchet.core.errors import Rejected
from ratchet.core.fleet.claims import FleetPlan, Pool, Share
from ratchet.core.fleet.replay import Arrival

SLOTS_MAX = 100_000
WEIGHT_MAX = 1_000_000.0
USD_MAX = 1e9
# Key -> (whole numbers only, least, most).
POOL_KEYS = {"spot": (True, 0.0, SLOTS_MAX), "on_demand": (True, 0.0, SLOTS_MAX)}
SHARE_KEYS = {"weight": (False, 1e-6, WEIGHT_MAX), "usd_per_month": (False, 1e-6, USD_MAX)}
SECTIONS: Mapping[str, Mapping[str, tuple[bool, float, float]]] = {
    "pools": POOL_KEYS,
    "projects": SHARE_KEYS,
}


def load_fleet(path: Path) -> FleetPlan:
    """Read a fleet file.  Raises `Rejected` with every problem on a line of its own."""
    try:
        root = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except OSError as error:
        raise Rejected(f"{path}: cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise Rejected(f"{path}: found no YAML: {' '.join(str(error).split())}") from error
    problems: list[str] = []
    found: dict[str, dict[str, dict[str, Any]]] = {"pools": {}, "projects": {}}
    for key, name, value in _pairs(root, str(path), "", problems):
        if name not in SECTIONS:
            problems.append(f"{_at(path, key)}: found {name!r}, expected pools or projects")
            continue
        for inner, what, values in _pairs(value, str(path), name, problems):
            where = f"{name}.{what}"
            found[name][what] = _numbers(values, str(path), where, SECTIONS[name], problems)
            if name == "pools" and not 1 <= len(what) <= 100:
                problems.append(f"{_at(path, inner)}: {where}: expected a name of 1 to 100 letters")
    if not problems and not found["pools"]:
        problems.append(f"{path}: found no pools, expected at least one: pools: {{gpus: {{}}}}")
    if problems:
        raise Rejected("\n".join(problems))
    return FleetPlan(
        tuple(Pool(name=name, **given) for name, given in found["pools"].items()),
        {project: Share(**given) for project, given in found["projects"].items()},
    )


def _numbers(
    node: yaml.Node,
    path: str,
    where: str,
    known: Mapping[str, tuple[bool, float, float]],
    problems: list[str],
) -> dict[str, Any]:
    numbers: dict[str, Any] = {}
    for key, name, value in _pairs(node, path, where, problems):
        if name not in known:
            words = " or ".join(known)
            problems.append(f"{_at(path, key)}: {where}: found {name!r}, expected {words}")
            continue
        whole, least, most = known[name]
        number = _number(value)
        fits = number is not None and least <= number <= most
        if number is None or not fits or (whole and number != int(number)):
            kind = "a whole number" if whole else "a number"
            problems.append(
                f"{_at(path, value)}: {where}.{name}: found {_shown(value)}, expected {kind} from "
                f"{least:g} to {most:g}"
            )
            continue
        numbers[name] = int(number) if whole else number
    return numbers


def _pairs(
    node: yaml.Node | None, path: str, where: str, problems: list[str]
) -> Iterator[tuple[yaml.Node, str, yaml.Node]]:
    """Of a mapping: the key's node, its name, and what it holds."""
    if not isinstance(node, yaml.MappingNode):
        place = f"{path}:1:1" if node is None else _at(path, node)
        problems.append(f"{place}: {where or 'file'}: found {_shown(node)}, expected a mapping")
        return
    seen: set[str] = set()
    for key, value in node.value:
        name = str(key.value)
        if name in seen:
            problems.append(f"{_at(path, key)}: {where}: found {name!r} twice, expected it once")
            continue
        seen.add(name)
        yield key, name, value


def _number(node: yaml.Node) -> float | None:
    is_number = node.tag in ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
    if not is_number or not isinstance(node, yaml.ScalarNode):
        return None
    try:
        return float(node.value.replace("_", ""))
    except ValueError:
        return None


def _at(path: Path | str, node: yaml.Node) -> str:
    return f"{path}:{node.start_mark.line + 1}:{node.start_mark.column + 1}"


def _shown(node: yaml.Node | None) -> str:
    if node is None:
        return "nothing"
    if isinstance(node, yaml.ScalarNode):
        return repr(node.value)
    return "a mapping" if isinstance(node, yaml.MappingNode) else "a list"


JOB_COLUMNS = ("project", "at_hours", "work_hours", "deadline_hours", "slots", "priority")
HOURS_MAX = 24.0 * 366.0


def load_jobs(path: Path) -> list[Arrival]:
    """Jobs from a CSV with `project`, `at_hours`, `work_hours`, and if you like `deadline_hours`
    (empty: none), `slots` and `priority`.  Raises `Rejected` with every problem."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise Rejected(f"{path}: cannot be read as CSV: {error}") from error
    problems: list[str] = []
    unknown = [name for name in (rows[0] if rows else ()) if name not in JOB_COLUMNS]
    if unknown or not rows:
        found = f"columns {unknown}" if unknown else "no rows"
        raise Rejected(f"{path}:1: found {found}, expected {', '.join(JOB_COLUMNS)}")
    jobs = [_job(row, number, path, problems) for number, row in enumerate(rows, start=1)]
    if problems:
        raise Rejected("\n".join(problems))
    return jobs


def _job(row: Mapping[str, str | None], number: int, path: Path, problems: list[str]) -> Arrival:
    where = f"{path}:{number + 1}"

    def value(name: str, usual: float | None, least: float, most: float = HOURS_MAX) -> float:
        text = (row.get(name) or "").strip()
        try:
            found = float(text) if text or usual is None else usual
        except ValueError:
            found = math.nan
        if not least <= found <= most:
            expected = f"a number from {least:g} to {most:g}"
            problems.append(f"{where}: {name}: found {text!r}, expected {expected}")
            return least
        return found

    if not (project := (row.get("project") or "").strip()):
        problems.append(f"{where}: project: found nothing, expected a name")
    has_deadline = bool((row.get("deadline_hours") or "").strip())
    deadline = value("deadline_hours", None, 0.001) * 3600.0 if has_deadline else None
    return Arrival(
        name=f"job-{number}",
        project=project,
        at_seconds=value("at_hours", 0.0, 0.0) * 3600.0,
        work_seconds=value("work_hours", None, 0.001) * 3600.0,
        deadline_seconds=deadline,
        slots=int(value("slots", 1.0, 1.0, SLOTS_MAX)),
        priority=int(value("priority", 0.0, -1000.0, 1000.0)),
    )
