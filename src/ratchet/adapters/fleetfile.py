"""`fleet.yaml`: what pools there are, and what each project may take of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from ratchet.core.errors import Rejected
from ratchet.core.fleet.claims import FleetPlan, Pool, Share

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
