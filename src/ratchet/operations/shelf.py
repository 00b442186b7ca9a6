"""Write artifacts so that nobody takes them away meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ratchet.kit.clock import Clock
from ratchet.ports import ArtifactStore, ShelfObjects


@dataclass(frozen=True, slots=True)
class Shelf:
    book: ArtifactStore
    objects: ShelfObjects
    clock: Clock


async def shelve(
    run: str, contents: Mapping[str, Callable[[], bytes]], shelf: Shelf
) -> tuple[Mapping[str, str], int]:
    """Write content under its keys, unless it is there; nobody takes it away while the run lasts.

    Answers where each lies, and how many bytes are new.
    """
    places = await shelf.book.reserve(run, list(contents), shelf.clock.now())
    size = 0
    for key, uri in places.items():
        # Somebody may have reserved it and been killed before it was written.
        if not await shelf.objects.has(uri):
            content = contents[key]()
            size += len(content) if await shelf.objects.put(uri, content) else 0
    return places, size
