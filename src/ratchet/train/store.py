"""The object store as a worker uses it.

What is away is waited for: a worker that gives up would have to do its work again.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from typing import TypeVar

from obstore.exceptions import (
    BaseError,
    NotFoundError,
    PermissionDeniedError,
    UnauthenticatedError,
)

from ratchet.core.errors import Rejected, first_line
from ratchet.engine.objects import delete, get, keys, open_store, put_new

RETRY_SECONDS_MIN = 1.0
RETRY_SECONDS_MAX = 15.0
# No patience makes these better.
FINAL = (NotFoundError, PermissionDeniedError, UnauthenticatedError)
_Value = TypeVar("_Value")


class Store:
    """One store by its url.  `wait` is called between two tries, and may raise to give up."""

    def __init__(self, url: str, wait: Callable[[], None]) -> None:
        self._store, self._url, self._wait = open_store(url), url, wait

    def get(self, key: str) -> bytes:
        """Raises `Rejected` when there is no such object, or it may not be read."""
        return self._patiently(lambda: get(self._store, key), f"does not give {key}")

    def put_new(self, key: str, content: bytes) -> None:
        """Create-only: what is there stays.  Raises `Rejected` when it may not be written."""
        self._patiently(lambda: put_new(self._store, key, content), f"does not take {key}")

    def listing(self, prefix: str) -> list[str]:
        """Keys of the objects that begin so."""
        folder = prefix.rpartition("/")[0]
        found = self._patiently(lambda: keys(self._store, folder), f"does not list {folder}")
        return [key for key in found if key.startswith(prefix)]

    def delete(self, key: str) -> None:
        """One that is not there is gone already."""
        self._patiently(lambda: delete(self._store, key), f"does not delete {key}")

    def _patiently(self, call: Callable[[], _Value], fault: str) -> _Value:
        pause = RETRY_SECONDS_MIN
        while True:
            try:
                return call()
            except (FileNotFoundError, *FINAL) as error:
                raise Rejected(f"object store {self._url} {fault}: {first_line(error)}") from error
            except BaseError as error:
                if is_disk_full(error):
                    raise
                print(
                    f"object store {self._url} {fault}, trying again: {first_line(error)}",
                    flush=True,
                )
            self._wait()
            time.sleep(pause)
            pause = min(pause * 2, RETRY_SECONDS_MAX)


def is_disk_full(error: Exception) -> bool:
    """Whether a write failed for want of space; torch, safetensors and obstore each say so in an
    exception of their own, with the kernel's words inside."""
    return any(os.strerror(code) in str(error) for code in (errno.ENOSPC, errno.EDQUOT))
