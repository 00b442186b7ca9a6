"""Artifacts in a local folder or on S3, through obstore.

A local write goes to a temporary name and is renamed; S3 refuses a second create by itself.  So
what exists under a key is whole.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import from_url

from ratchet.core.errors import NotFound, Unavailable, first_line
from ratchet.ports import StoredFile

REMOVED_AT_ONCE = 500


class ObstoreObjects:
    """`file:///folder`, `s3://bucket/prefix`, and what else obstore knows."""

    def __init__(self, url: str) -> None:
        if url.startswith("file://"):
            Path(url.removeprefix("file://")).mkdir(parents=True, exist_ok=True)
        self._store: Any = from_url(url)
        self._url = url

    def _away(self, fault: str, error: Exception) -> Unavailable:
        return Unavailable(f"object store {self._url} {fault}: {first_line(error)}")

    async def put(self, key: str, content: bytes) -> bool:
        try:
            await obstore.put_async(self._store, key, content, mode="create")
        except AlreadyExistsError:
            return False
        except (BaseError, OSError) as error:
            raise self._away(f"refuses {key}", error) from error
        return True

    async def get(self, key: str) -> bytes:
        try:
            answer = await obstore.get_async(self._store, key)
            return bytes(await answer.bytes_async())
        except FileNotFoundError as error:
            raise NotFound(f"object store has no {key}") from error
        except (BaseError, OSError) as error:
            raise self._away(f"does not give {key}", error) from error

    async def has(self, path: str) -> bool:
        try:
            await obstore.head_async(self._store, path)
        except FileNotFoundError:
            return False
        except (BaseError, OSError) as error:
            raise self._away(f"does not tell of {path}", error) from error
        return True

    async def files(self) -> list[StoredFile]:
        try:
            pages = [page async for page in obstore.list(self._store, chunk_size=1000)]
        except (BaseError, OSError) as error:
            raise self._away("lists nothing", error) from error
        return [
            StoredFile(path=each["path"], bytes=each["size"], modified_at=each["last_modified"])
            for page in pages
            for each in page
        ]

    async def remove(self, paths: Sequence[str]) -> None:
        for begin in range(0, len(paths), REMOVED_AT_ONCE):
            some = list(paths[begin : begin + REMOVED_AT_ONCE])
            try:
                await obstore.delete_async(self._store, some)
            except (BaseError, OSError):
                # One that is missing stops a folder at it: each by itself.
                await asyncio.gather(*(self._remove(path) for path in some))

    async def _remove(self, path: str) -> None:
        try:
            await obstore.delete_async(self._store, path)
        except FileNotFoundError:
            return
        except (BaseError, OSError) as error:
            raise self._away(f"keeps {path}", error) from error
