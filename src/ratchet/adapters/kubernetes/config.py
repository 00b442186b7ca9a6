"""The operator's file about a cluster: `ratchet executor --config cluster.yaml`."""

from __future__ import annotations

from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import yaml

from ratchet.adapters.kubernetes.jobs import PRESETS, Cluster
from ratchet.core.errors import Rejected

_MAPS = ("spot", "on_demand")


def load_cluster(path: Path) -> Cluster:
    """Read the file.  Raises `Rejected` with every problem on a line of its own.

    `cloud: eks|karpenter|gke` fills in how machines are labelled there.
    """
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise Rejected(f"{path}: cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise Rejected(f"{path}: not YAML: {error}") from error
    if not isinstance(value, dict):
        raise Rejected(f"{path}: expected keys like image, grpc, objects")
    problems: list[str] = []
    cloud = value.pop("cloud", None)
    if cloud is not None and cloud not in PRESETS:
        problems.append(f"{path}: cloud: found {cloud!r}, expected one of {', '.join(PRESETS)}")
    given: dict[str, Any] = {**PRESETS.get(str(cloud), {}), **value}
    known = {field.name: field for field in fields(Cluster)}
    problems += [f"{path}: unknown key {key}" for key in given if key not in known]
    for name, field in known.items():
        if name not in given and field.default is MISSING and field.default_factory is MISSING:
            problems.append(f"{path}: {name} is missing")
        elif name in given:
            problems += [f"{path}: {name}: {fault}" for fault in _faults(name, given[name])]
    if problems:
        raise Rejected("\n".join(problems))
    given["spot_tolerations"] = tuple(given.get("spot_tolerations", ()))
    return Cluster(**given)


def _faults(name: str, value: Any) -> list[str]:
    if name == "spot_tolerations":
        fine = isinstance(value, list | tuple) and all(_is_map(each) for each in value)
        return [] if fine else [f"found {value!r}, expected a list of key, value, effect"]
    if name in _MAPS:
        return [] if _is_map(value) else [f"found {value!r}, expected labels with their values"]
    needed = name in ("image", "grpc", "objects")
    fine = isinstance(value, str) and (bool(value.strip()) or not needed)
    return [] if fine else [f"found {value!r}, expected text"]


def _is_map(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(key, str) and isinstance(each, str) for key, each in value.items()
    )
