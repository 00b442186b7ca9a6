"""Take away what nobody needs, say why the rest is kept, and keep what somebody asks for.

Bytes go in four steps, each of which may be killed and done again: an artifact that nothing keeps
gets a tombstone; after its grace everything is looked at anew, and what is still kept by nothing
is *going*; its bytes are removed; it is *gone*.  There is no lock: every step fails for what has
changed since it was seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from ratchet.core.access import GRANTS, Caller, Permission
from ratchet.core.errors import NotFound, Rejected
from ratchet.core.retention import (
    Artifact,
    ArtifactState,
    Lineage,
    Pin,
    Retention,
    artifact_of,
    files_of,
    reasons,
)
from ratchet.kit.clock import Clock
from ratchet.operations.datasets import DatasetParts, packs_of
from ratchet.ports import ArtifactStore, Audit, FileStore

# A file that was just written belongs to somebody who is about to say so.
BORN_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class ArtifactParts:
    book: ArtifactStore
    files: FileStore
    datasets: DatasetParts
    audit: Audit
    clock: Clock


@dataclass(frozen=True, slots=True)
class Pruning:
    """What a prune found and did."""

    kept: Mapping[str, Sequence[str]]
    """Why, by artifact."""
    unneeded: Sequence[Artifact]
    """Live, and kept by nothing."""
    buried: Sequence[Artifact]
    """With a tombstone, and kept by nothing."""
    removed: Sequence[str] = ()
    bytes_removed: int = 0


async def look(parts: ArtifactParts) -> tuple[list[Artifact], Lineage, Pruning]:
    """Everything there is, and what a prune would do to it.  Enters what the book has not."""
    # Artifacts first: what is decided on them fails when a later lineage would have kept them.
    artifacts = await _enter(parts)
    now = parts.clock.now()
    lineage = await parts.book.lineage()
    kept = reasons(lineage, [artifact.uri for artifact in artifacts], now)
    young = now - timedelta(seconds=BORN_SECONDS)
    loose = [artifact for artifact in artifacts if artifact.uri not in kept]
    unneeded = [a for a in loose if a.state is ArtifactState.LIVE and a.created_at < young]
    buried = [a for a in loose if a.state is ArtifactState.TOMBSTONED]
    return artifacts, lineage, Pruning(kept, unneeded, buried)


async def _enter(parts: ArtifactParts) -> list[Artifact]:
    """Bring the book up to what the store has; answers what is in it."""
    for dataset in await parts.datasets.datasets.without_packs():
        packs = await packs_of(dataset, parts.datasets)
        await parts.datasets.datasets.put_packs(dataset.id, packs)
    found: dict[str, tuple[int, datetime]] = {}
    for file in await parts.files.files():
        if (uri := artifact_of(file.path)) is not None:
            size, born = found.get(uri, (0, file.modified_at))
            found[uri] = (size + file.bytes, max(born, file.modified_at))
    known = await parts.book.listing()
    sizes = {artifact.uri: artifact.bytes for artifact in known}
    new = {uri: each for uri, each in found.items() if sizes.get(uri) != each[0]}
    if not new:
        return known
    await parts.book.adopt(new)
    return await parts.book.listing()


async def prune(parts: ArtifactParts, by: str, grace_seconds: float | None = None) -> Pruning:
    """Put tombstones on what nothing keeps, and remove what lay under one for its grace.

    Repeatable from any point.  `grace_seconds` is given to new tombstones; by default what the
    most careful project asks for.
    """
    artifacts, lineage, found = await look(parts)
    now = parts.clock.now()
    back = [a.uri for a in artifacts if a.state is ArtifactState.TOMBSTONED and a.uri in found.kept]
    await parts.book.revive(back)
    grace = grace_seconds if grace_seconds is not None else _grace(lineage)
    await parts.book.bury(found.unneeded, now + timedelta(seconds=grace))
    going = set(await parts.book.condemn(found.buried, now))
    # Also those that an earlier prune was killed over.
    going |= {a.uri for a in artifacts if a.state is ArtifactState.DELETING}
    removed = sorted(going)
    await parts.files.remove([file for uri in removed for file in files_of(uri)])
    await parts.book.forget(removed)
    size = sum(a.bytes for a in artifacts if a.uri in going)
    if removed:
        said = f"{len(removed)} artifacts, {size} bytes"
        await parts.audit.add(by, "prune artifacts", "store", "", said, "kept by nothing", now)
    return replace(found, removed=removed, bytes_removed=size)


async def prunes_by_itself(parts: ArtifactParts) -> bool:
    """Whether every project there is asks for it: they share one store."""
    policies = (await parts.book.lineage()).policies.values()
    return bool(policies) and all(policy.prune for policy in policies)


def _grace(lineage: Lineage) -> float:
    policies = lineage.policies.values() or [Retention()]
    return max(policy.grace_seconds for policy in policies)


async def pin(
    project: str, subject: str, because: str, legal: bool, by: Caller, parts: ArtifactParts
) -> list[str]:
    """Keep a version, a dataset, a run or an artifact; answers its artifacts.

    Raises `NotFound` for what is not known, `Conflict` for what was taken away.
    """
    if not because.strip():
        raise Rejected("a pin needs a reason")
    uris = await _uris_of(project, subject, parts)
    said = Pin(project=project, subject=subject, because=because, who=by.name, legal=legal)
    now = parts.clock.now()
    await parts.book.pin(said, uris, now)
    await parts.audit.add(
        by.name, "hold artifact" if legal else "pin artifact", subject, "", project, because, now
    )
    return uris


async def unpin(project: str, subject: str, by: Caller, parts: ArtifactParts) -> None:
    """Raises `NotFound`, and `Rejected` when a legal hold is not the caller's to end."""
    known = {(each.project, each.subject): each for each in await parts.book.pins()}
    found = known.get((project, subject))
    if found is not None and found.legal and Permission.ERASE not in GRANTS[by.role]:
        raise Rejected(f"{subject} is under a legal hold by {found.who}: only an admin ends it")
    await parts.book.unpin(project, subject)
    now = parts.clock.now()
    await parts.audit.add(by.name, "unpin artifact", subject, project, "", "", now)


async def _uris_of(project: str, subject: str, parts: ArtifactParts) -> list[str]:
    lineage = await parts.book.lineage()
    known = {artifact.uri for artifact in await parts.book.listing()}
    found = [
        uri
        for run in lineage.runs
        if run.project == project and subject in (run.version, run.dataset, run.run)
        for uri in run.uris
    ]
    if not found and subject in known:
        found = [subject]
    if not found:
        raise NotFound(f"{project} has no version, dataset, run or artifact {subject}")
    return list(dict.fromkeys(found))


async def why(project: str, subject: str, parts: ArtifactParts) -> dict[str, list[str]]:
    """What keeps the artifacts of a version, a dataset or a run, or one artifact.

    Raises `NotFound`.
    """
    uris = await _uris_of(project, subject, parts)
    artifacts, _, found = await look(parts)
    states = {artifact.uri: artifact for artifact in artifacts}
    return {uri: list(found.kept.get(uri) or [_fate(states.get(uri))]) for uri in uris}


def _fate(artifact: Artifact | None) -> str:
    if artifact is None or artifact.state is ArtifactState.GONE:
        return "gone"
    if artifact.state is ArtifactState.DELETING:
        return "going just now"
    if artifact.not_before is not None:
        return f"kept by nothing: goes after {artifact.not_before:%Y-%m-%d %H:%M} UTC; pin to keep"
    return "kept by nothing: the next prune puts a tombstone on it"
