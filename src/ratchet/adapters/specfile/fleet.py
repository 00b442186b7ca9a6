"""`fleet.yaml`: what pools there are, and what each project may take of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from ratchet.adapters.specfile.document import Document
from ratchet.adapters.specfile.values import number, read_whole
from ratchet.core.errors import Rejected
from ratchet.core.fleet.claims import (
    LEAST,
    SLOTS_MAX,
    USD_MAX,
    WEIGHT_MAX,
    FleetPlan,
    Pool,
    Share,
)

_Reads = Mapping[str, Callable[[Any], Any]]
_SECTIONS: Mapping[str, _Reads] = {
    "pools": {"spot": read_whole(0, SLOTS_MAX), "on_demand": read_whole(0, SLOTS_MAX)},
    "projects": {"weight": number(LEAST, WEIGHT_MAX), "usd_per_month": number(LEAST, USD_MAX)},
}
NAME_LENGTH_MAX = 100


def load_fleet(path: Path) -> FleetPlan:
    """Read a fleet file.  Raises `Rejected` with every problem on a line of its own."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        raise Rejected(f"{path}: cannot be read: {error}") from error
    document = Document(str(path))
    found: dict[str, dict[str, dict[str, Any]]] = {name: {} for name in _SECTIONS}
    if (root := document.root(text, "keys such as `pools:`")) is not None:
        for key, section, node in document.pairs(root, ""):
            if section in _SECTIONS:
                found[section] = _entries(document, section, node)
            else:
                document.problem(key, section, "an unknown key", "pools or projects")
        if not found["pools"] and not document.problems:
            document.add(1, 1, "pools", "nothing", "at least one pool, like `gpus: {spot: 8}`")
    document.check()
    return FleetPlan(
        tuple(Pool(name=name, **given) for name, given in found["pools"].items()),
        {project: Share(**given) for project, given in found["projects"].items()},
    )


def _entries(document: Document, section: str, node: yaml.Node) -> dict[str, dict[str, Any]]:
    """Each pool, or each project, with its numbers."""
    entries: dict[str, dict[str, Any]] = {}
    for key, name, below in document.pairs(node, section):
        if not 1 <= len(name) <= NAME_LENGTH_MAX:
            document.problem(key, section, repr(name), f"a name of 1 to {NAME_LENGTH_MAX} letters")
        entries[name] = _numbers(document, f"{section}.{name}", below, _SECTIONS[section])
    return entries


def _numbers(document: Document, key: str, node: yaml.Node, reads: _Reads) -> dict[str, Any]:
    numbers: dict[str, Any] = {}
    for key_node, name, value in document.pairs(node, key):
        if name not in reads:
            document.problem(key_node, f"{key}.{name}", "an unknown key", " or ".join(reads))
        else:
            numbers[name] = document.leaf(f"{key}.{name}", value, reads[name])
    return numbers
