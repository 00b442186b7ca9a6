"""What a run is made of: the user's files, base models, dataset versions, and where bytes lie."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from ratchet.core.data import Row, Rows
from ratchet.core.precheck import Tokens
from ratchet.core.prices import PriceList
from ratchet.core.spec import BaseModel
from ratchet.core.suite import SuiteFile


class ObjectStore(Protocol):
    """Artifacts: written beside and renamed, never changed afterwards."""

    async def put(self, key: str, content: bytes) -> bool:
        """Create-only.  False when the key exists already."""

    async def get(self, key: str) -> bytes:
        """Raises `NotFound`."""


class FileSource(Protocol):
    """The user's files, as they are at this moment."""

    async def rows(self, folder: Path, patterns: Sequence[str], method: str) -> Rows:
        """All rows of all files, as a method of training needs them.

        Raises `Rejected` naming a pattern that matches nothing.
        """

    async def contents(self, folder: Path, names: Sequence[str]) -> Mapping[str, bytes]:
        """Files as they are, by name.  Raises `Rejected` naming one that cannot be read."""

    async def suite(self, folder: Path, path: str) -> SuiteFile:
        """Raises `Rejected` with file, line, found and expected."""


class TaskSource(Protocol):
    """Tasks that others have written: lm-evaluation-harness."""

    async def items(self, how: Mapping[str, object]) -> tuple[Rows, Mapping[str, object]]:
        """What a task asks, and `how` it is judged, with everything that was left open.

        Raises `Rejected` when the task, or the harness, is not there or cannot be asked.
        """


class PriceSource(Protocol):
    """What machines cost, as lists say it."""

    async def prices(self) -> Sequence[PriceList]:
        """Raises `Rejected` naming a list that cannot be read, and the line that is no price."""


class BaseModelSource(Protocol):
    """Base models as far as this machine sees them without loading their weights."""

    async def problem(self, base: BaseModel) -> str | None: ...

    async def tokens(self, base: BaseModel, rows: Sequence[Row]) -> Tokens | str:
        """Rows as the base reads them, or why that cannot be told here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredDataset:
    """A dataset version: where its manifest is, and what it cost."""

    id: str
    project: str
    uri: str
    rows: int
    recipe: Mapping[str, object]
    bytes_new: int
    """That no earlier version had written, as stored."""
    packs: tuple[str, ...] | None = None
    """Where its rows are; None for one that was stored before packs were known."""
    created_at: datetime | None = None


class DatasetStore(Protocol):
    async def add(self, dataset: StoredDataset, now: datetime) -> None:
        """By id; bytes that were taken away have a new place.  Raises `Conflict` when some of them
        are being taken away."""

    async def get(self, dataset_id: str) -> StoredDataset:
        """Raises `NotFound`."""

    async def listing(self, project: str, limit: int) -> list[StoredDataset]:
        """The newest first."""

    async def without_packs(self) -> list[StoredDataset]: ...

    async def put_packs(self, dataset_id: str, packs: Sequence[str]) -> None: ...
