"""Dataset versions: keep rows as one, and tell two apart."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Mapping, Sequence
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
from ratchet.kit.clock import Clock
from ratchet.ports import DatasetStore, ObjectStore, StoredDataset


@dataclass(frozen=True, slots=True)
class DatasetParts:
    datasets: DatasetStore
    objects: ObjectStore
    clock: Clock


async def freeze(
    project: str, rows: Sequence[Row], recipe: Mapping[str, object], parts: DatasetParts
) -> StoredDataset:
    """Keep rows as a dataset version.  By content: the same rows and recipe are the same version.

    Killed on the way, it leaves at most packs that no manifest names.
    """
    lines = [row.line for row in rows]
    try:
        return await parts.datasets.get(dataset_id(lines, recipe))
    except NotFound:
        pass
    before, packs = await _newest(project, parts)
    packed = await asyncio.to_thread(pack, lines, recipe, before, packs)
    stored = StoredDataset(
        id=packed.manifest.id,
        project=project,
        uri=f"datasets/{packed.manifest.id}.json.gz",
        rows=len(lines),
        recipe=recipe,
        bytes_new=await _write(packed, parts.objects),
    )
    await parts.datasets.add(stored, parts.clock.now())
    return stored


async def _write(packed: Packed, objects: ObjectStore) -> int:
    """The packs, and then the manifest; answers the bytes that were not there before."""
    contents = {key: pack_bytes(text) for key, text in packed.new.items()}
    manifest = json.dumps(packed.manifest.to_json(), separators=(",", ":")).encode()
    key = f"datasets/{packed.manifest.id}.json.gz"
    contents[key] = gzip.compress(manifest, mtime=0)
    size = 0
    for name, content in contents.items():
        if await objects.put(name, content):
            size += len(content)
    return size


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
    if not dataset.uri.endswith(".gz"):
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
