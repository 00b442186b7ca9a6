"""Dataset versions: keep rows as one, and tell two apart."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ratchet.core.data import Row
from ratchet.core.dataset import (
    Difference,
    Manifest,
    Packed,
    dataset_id,
    difference,
    pack,
    pack_bytes,
    pack_lines,
)
from ratchet.core.errors import NotFound
from ratchet.core.retention import key_of
from ratchet.kit.clock import Clock
from ratchet.kit.digest import digest_bytes
from ratchet.operations.shelf import Shelf, shelve
from ratchet.ports import DatasetStore, ObjectStore, StoredDataset


@dataclass(frozen=True, slots=True)
class DatasetParts:
    datasets: DatasetStore
    shelf: Shelf
    clock: Clock

    @property
    def objects(self) -> ObjectStore:
        return self.shelf.objects


async def freeze(
    run: str,
    project: str,
    rows: Sequence[Row],
    recipe: Mapping[str, object],
    parts: DatasetParts,
) -> StoredDataset:
    """Keep rows as a dataset version for a run.

    By content: the same rows and recipe are the same version.  Killed on the way, it leaves at most
    packs that no manifest names.
    """
    lines = [row.line for row in rows]
    try:
        known = await parts.datasets.get(dataset_id(lines, recipe))
    except NotFound:
        pass
    else:
        there = (known.uri, *(known.packs or ()))
        if known.packs is not None and await parts.shelf.book.hold(run, there):
            return known
    before, packs = await _newest(project, parts)
    packed = await asyncio.to_thread(pack, lines, recipe, before, packs)
    stored = await _write(run, project, packed, packs or {}, parts)
    await parts.datasets.add(stored, parts.clock.now())
    return stored


async def _write(
    run: str,
    project: str,
    packed: Packed,
    packs: Mapping[str, Sequence[str]],
    parts: DatasetParts,
) -> StoredDataset:
    """The packs, and then the manifest that says where they lie."""

    def content(pack_: str) -> Callable[[], bytes]:
        # Of an older pack only if it was being taken away just now.
        return lambda: pack_bytes(
            packed.new[pack_] if pack_ in packed.new else "\n".join(packs[pack_]) + "\n"
        )

    contents = {key_of(pack_): content(pack_) for pack_ in packed.manifest.packs}
    places, size = await shelve(run, contents, parts.shelf)
    manifest = packed.manifest.moved(
        {pack_: places[key_of(pack_)] for pack_ in packed.manifest.packs}
    )
    text = json.dumps(manifest.to_json(), separators=(",", ":")).encode()
    # Where packs lie elsewhere, it is another manifest of the same version.
    key = f"datasets/{manifest.id}-{digest_bytes(text)[:8]}.json.gz"
    places, more = await shelve(run, {key: lambda: gzip.compress(text, mtime=0)}, parts.shelf)
    return StoredDataset(
        id=manifest.id,
        project=project,
        uri=places[key],
        rows=manifest.rows,
        recipe=manifest.recipe,
        bytes_new=size + more,
        packs=tuple(manifest.packs),
    )


async def packs_of(dataset: StoredDataset, parts: DatasetParts) -> tuple[str, ...]:
    """Where the rows of a version are that an older Ratchet stored."""
    try:
        manifest, _ = await _read(dataset, parts.objects)
    except NotFound:
        return ()
    return tuple(manifest.packs)


async def _newest(
    project: str, parts: DatasetParts
) -> tuple[Manifest | None, Mapping[str, Sequence[str]] | None]:
    """The project's newest version, to build upon; None before the first."""
    for known in await parts.datasets.listing(project, 1):
        try:
            return await _read(known, parts.objects)
        except NotFound:
            break  # its bytes were pruned
    return None, None


async def _read(
    dataset: StoredDataset, objects: ObjectStore
) -> tuple[Manifest, dict[str, list[str]]]:
    if not key_of(dataset.uri).endswith(".gz"):
        raise NotFound(f"dataset {dataset.id} was stored by an older Ratchet, in one piece")
    value: dict[str, Any] = json.loads(gzip.decompress(await objects.get(dataset.uri)))
    manifest = Manifest.from_json(value)
    packs = {key: pack_lines(key, await objects.get(key)) for key in manifest.packs}
    return manifest, packs


async def compare(before_id: str, after_id: str, parts: DatasetParts) -> Difference:
    """What is in one dataset version and not in another.  Raises `NotFound`."""
    lines = []
    for dataset_id_ in (before_id, after_id):
        manifest, packs = await _read(await parts.datasets.get(dataset_id_), parts.objects)
        lines.append(manifest.lines(packs))
    return await asyncio.to_thread(difference, *lines)
