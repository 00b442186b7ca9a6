"""Which artifacts are kept, and why: roots, and everything that a root is made of.

A root is what serves, a live release, the last promoted versions (the way back), a run that is
going on, a pin, and what is young.  A root keeps the run that made it: adapter, dataset, suites,
code and report.  Nothing here deletes; what no root keeps may be taken away later.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum

from ratchet.core.errors import Rejected

ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
CLASSES = {
    "adapters": "adapter",
    "checkpoints": "checkpoint",
    "code": "code",
    "datasets": "dataset",
    "reports": "report",
    "rows": "dataset",
    "suites": "suite",
}
_GENERATION = re.compile(r"\.g\d+$")


class ArtifactState(Enum):
    """Where an artifact stands.  Bytes exist up to `deleting`."""

    LIVE = "live"
    TOMBSTONED = "tombstoned"
    """Nobody needs it; it can be had back until its grace is over."""
    DELETING = "deleting"
    GONE = "gone"


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """Something in the object store that is kept or goes as one."""

    uri: str
    kind: str
    bytes: int
    state: ArtifactState
    epoch: int
    """Counts what was decided of it: whoever acts on an old look at it fails."""
    created_at: datetime
    not_before: datetime | None = None
    """Of a tombstone: its bytes stay until then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """What a project keeps besides what is in use."""

    promoted: int = 5
    """Versions, the newest: what one may want to go back to."""
    age_seconds: float = 30 * 86400.0
    """Whatever a run made, for so long after its end."""
    grace_seconds: float = 86400.0
    """Between the tombstone and the end of the bytes."""
    prune: bool = False
    """By itself, every hour."""

    def __post_init__(self) -> None:
        if self.promoted < 1:
            raise Rejected("artifacts.promoted: found 0, expected at least 1: the way back")


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeBy:
    """A run and what it made or read."""

    run: str
    project: str
    is_over: bool
    ended_at: datetime | None
    version: str | None
    promoted_at: datetime | None
    dataset: str | None
    uris: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """Somebody's word that a version, a dataset or an artifact stays."""

    project: str
    subject: str
    because: str
    who: str
    legal: bool
    """Only an admin takes it away."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lineage:
    """Everything that keeps artifacts, at one moment."""

    policies: Mapping[str, Retention]
    serving: Mapping[str, str]
    """Why a version is in use, by version."""
    runs: Sequence[MadeBy]
    pins: Sequence[Pin]
    leases: Mapping[str, str] = field(default_factory=dict)
    """Run that is going on, by artifact that it reads or writes."""


def reasons(lineage: Lineage, artifacts: Sequence[str], now: datetime) -> dict[str, list[str]]:
    """Why each artifact is kept, by uri; what is not in there is kept by nothing."""
    kept: dict[str, list[str]] = {uri: [f"{run} uses it"] for uri, run in lineage.leases.items()}
    pinned: dict[str, Pin] = {pin.subject: pin for pin in lineage.pins}
    window = _newest_promoted(lineage)
    for run in lineage.runs:
        for reason in _of_run(run, lineage, pinned, window, now):
            for uri in run.uris:
                kept.setdefault(uri, []).append(reason)
    going_on = {run.run for run in lineage.runs if not run.is_over}
    for uri in artifacts:
        if (pin := pinned.get(uri)) is not None:
            kept.setdefault(uri, []).append(_said(pin))
        if (maker := maker_of(uri)) in going_on:
            kept.setdefault(uri, []).append(f"{maker} is going on")
    return kept


def _of_run(
    run: MadeBy,
    lineage: Lineage,
    pinned: Mapping[str, Pin],
    window: Mapping[str, int],
    now: datetime,
) -> list[str]:
    found = []
    if not run.is_over:
        found.append(f"{run.run} is going on")
    if run.version is not None and run.version in lineage.serving:
        found.append(f"{run.version} {lineage.serving[run.version]}")
    if run.version is not None and run.version in window:
        found.append(f"{run.version} is promoted version {window[run.version]} from the newest")
    found += [_said(pinned[s]) for s in (run.version, run.dataset, run.run) if s and s in pinned]
    age = timedelta(seconds=_policy(lineage, run.project).age_seconds)
    if run.ended_at is not None and now - run.ended_at < age:
        found.append(f"{run.run} ended less than {_days(age)} ago")
    return found


def _newest_promoted(lineage: Lineage) -> dict[str, int]:
    """Versions of the way back, with their place: 1 is the newest."""
    promoted: dict[str, list[tuple[datetime, str]]] = {}
    for run in lineage.runs:
        if run.promoted_at is not None and run.version is not None:
            promoted.setdefault(run.project, []).append((run.promoted_at, run.version))
    return {
        version: place
        for project, versions in promoted.items()
        for place, (_, version) in enumerate(sorted(versions, reverse=True), 1)
        if place <= _policy(lineage, project).promoted
    }


def _policy(lineage: Lineage, project: str) -> Retention:
    return lineage.policies.get(project, Retention())


def _said(pin: Pin) -> str:
    kind = "legal hold" if pin.legal else "pinned"
    return f"{kind} by {pin.who}: {pin.because}"


def _days(age: timedelta) -> str:
    return f"{age.days} d" if age.days else f"{age.total_seconds():.0f} s"


def kind_of(uri: str) -> str | None:
    """The class of an artifact by its name; None for what is not ours to take away."""
    return CLASSES.get(uri.partition("/")[0])


def artifact_of(path: str) -> str | None:
    """The artifact that a stored file belongs to; None for what is none of ours."""
    kind = kind_of(path)
    if kind == "adapter":
        folder, _, name = path.rpartition("/")
        return folder if name in ADAPTER_FILES and folder != "adapters" else None
    return path if kind is not None and path.count("/") == 1 else None


def files_of(uri: str) -> tuple[str, ...]:
    """The stored files of an artifact."""
    if kind_of(uri) == "adapter":
        return tuple(f"{uri}/{name}" for name in ADAPTER_FILES)
    return (uri,)


def maker_of(uri: str) -> str | None:
    """The run that alone writes an artifact, where its name says so."""
    parts = uri.split("/")
    if parts[0] == "adapters" and len(parts) == 3:
        return parts[1]
    if parts[0] == "reports":
        return parts[1].removesuffix(".json")
    if parts[0] == "checkpoints" and step_of(uri) is not None:
        return parts[1].split(".")[1]
    return None


def checkpoint_uri(training: str, run: str, step: int) -> str:
    """Of a training, which another run may go on with, and of the run that writes it."""
    return f"checkpoints/{training}.{run}.{step:08d}.tar"


def step_of(uri: str) -> int | None:
    """The step of a checkpoint; None for what is none."""
    parts = uri.removeprefix("checkpoints/").split(".")
    is_one = len(parts) == 4 and parts[3] == "tar" and parts[2].isdigit()
    return int(parts[2]) if is_one else None


def adapter_uri(run: str, digest: str) -> str:
    """Of its own run: nobody else writes there, so nobody can write what is being taken away."""
    return f"adapters/{run}/{digest[:24]}"


def uri_of(key: str, generation: int) -> str:
    """Where the content of a key lies.

    A key that was taken away and is wanted again gets another place, so that a deletion that comes
    late cannot meet the new bytes.
    """
    return key if generation == 1 else f"{key}.g{generation}"


def key_of(uri: str) -> str:
    return _GENERATION.sub("", uri)


def generation_of(uri: str) -> int:
    found = _GENERATION.search(uri)
    return int(found[0][2:]) if found else 1
