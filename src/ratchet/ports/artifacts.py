"""What is in the object store, what keeps it, and how it goes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from ratchet.core.retention import Artifact, Lineage, Pin
from ratchet.ports.data import ObjectStore


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """A file as the object store lists it."""

    path: str
    bytes: int
    modified_at: datetime


class ArtifactStore(Protocol):
    """The book of artifacts.  Every change is one transaction."""

    async def reserve(self, run_id: str, keys: Sequence[str], now: datetime) -> Mapping[str, str]:
        """Where a run may read or write the content of keys, and finds it until the run ends.

        A tombstone is taken back; a key whose bytes are going or gone gets a new place.
        """

    async def hold(self, run_id: str, uris: Sequence[str]) -> bool:
        """Keep artifacts as they are until a run ends.  False, and nothing done, when one of them
        is going or gone or not known."""

    async def adopt(self, files: Mapping[str, tuple[int, datetime]]) -> None:
        """Enter artifacts that the store has and the book has not, and how large all are: bytes
        and birth by uri.  Bytes that came after their artifact's end are going at once."""

    async def lineage(self) -> Lineage: ...

    async def listing(self) -> list[Artifact]:
        """All whose bytes exist, or did until a moment ago."""

    async def bury(self, seen: Sequence[Artifact], not_before: datetime) -> list[str]:
        """Put tombstones on what is as it was seen and has no lease."""

    async def revive(self, uris: Sequence[str]) -> None:
        """Take tombstones back."""

    async def condemn(self, seen: Sequence[Artifact], now: datetime) -> list[str]:
        """Of buried ones that are as they were seen, whose grace is over and that have no lease:
        from now on they are going.  Answers which."""

    async def forget(self, uris: Sequence[str]) -> None:
        """The bytes of these are gone."""

    async def pin(self, pin: Pin, uris: Sequence[str], now: datetime) -> None:
        """Pin a subject and keep its artifacts, together.  By subject.  Raises `Conflict` when one
        of them is going or gone."""

    async def unpin(self, project: str, subject: str) -> None:
        """Raises `NotFound`."""

    async def pins(self) -> list[Pin]: ...


class ShelfObjects(ObjectStore, Protocol):
    """The object store for who writes to it."""

    async def has(self, path: str) -> bool: ...


class FileStore(Protocol):
    """The object store as a place of files."""

    async def files(self) -> list[StoredFile]: ...

    async def remove(self, paths: Sequence[str]) -> None:
        """What is not there is removed already."""
