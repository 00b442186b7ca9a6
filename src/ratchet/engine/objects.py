"""The object store, and adapters fetched from it.  Loads no model, so it imports no torch."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import obstore
from obstore.store import from_url

from ratchet.core.retention import ADAPTER_FILES


def open_store(url: str) -> Any:
    """The object store: `file:///folder` or what obstore knows (`s3://bucket/prefix`)."""
    if url.startswith("file://"):
        Path(url.removeprefix("file://")).mkdir(parents=True, exist_ok=True)
    return from_url(url)


def put_new(store: Any, key: str, content: bytes) -> None:
    """Create-only: what stands under a digest never changes, so a second writer agrees."""
    try:
        obstore.put(store, key, content, mode="create")
    except obstore.exceptions.AlreadyExistsError:
        return


def get(store: Any, key: str) -> bytes:
    return bytes(obstore.get(store, key).bytes())


def keys(store: Any, folder: str) -> list[str]:
    """Of all objects below a folder."""
    return [entry["path"] for batch in obstore.list(store, folder) for entry in batch]


def delete(store: Any, key: str) -> None:
    with contextlib.suppress(FileNotFoundError, obstore.exceptions.NotFoundError):
        obstore.delete(store, key)


def fetch_adapter(
    store_url: str, uri: str, cache: Path, read: Callable[[str], bytes] | None = None
) -> Path:
    """Copy an adapter from the object store to a local folder, once.

    `read` gets an object by its key for who is patient with a store that is away.
    """
    folder = cache / "adapters" / uri.rpartition("/")[2]
    if folder.exists():
        return folder
    read = read or partial(get, open_store(store_url))
    beside = folder.with_name(f"{folder.name}.part{os.getpid()}")
    beside.mkdir(parents=True, exist_ok=True)
    for name in ADAPTER_FILES:
        (beside / name).write_bytes(read(f"{uri}/{name}"))
    if folder.exists():
        shutil.rmtree(beside)
    else:
        beside.rename(folder)
    return folder
