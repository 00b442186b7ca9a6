"""Lines that wait in a file until the control plane has them: written by us, shipped by others."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from ratchet.core.turns import Feedback, Turn


class Spool:
    """A file that grows at its end.  A line is whole or not there: it is written in one call, and
    who reads waits for its line feed."""

    def __init__(self, file: Path, bytes_max: int) -> None:
        """`bytes_max` bounds what waits, besides what was put aside."""
        self.file, self._bytes_max = file, bytes_max
        self._descriptor: int | None = None

    def _open(self) -> int:
        if self._descriptor is None:
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
            self._descriptor = os.open(self.file, flags, 0o600)
            size = os.fstat(self._descriptor).st_size
            if size and not _ends_whole(self.file, size):
                # Its writer was killed in the middle of a line.
                os.write(self._descriptor, b"\n")
        return self._descriptor

    def add(self, value: Turn | Feedback, *, is_promised: bool = False) -> bool:
        """Append; False when there is no room, and nothing is written then.

        With `is_promised` it is on the disk, not only with the kernel.
        """
        line = json.dumps(asdict(value), default=_time).encode() + b"\n"
        try:
            descriptor = self._open()
            before = os.fstat(descriptor).st_size
            if before + len(line) > self._bytes_max:
                return False
            if os.write(descriptor, line) < len(line):
                # The disk is full: what is there of the line must not be taken for one.
                os.ftruncate(descriptor, before)
                return False
            if is_promised:
                os.fsync(descriptor)
        except OSError:
            return False
        return True

    async def reopen(self) -> None:
        """Go on in a new file; the old one was renamed."""
        self.close()

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _time(value: object) -> str:
    assert isinstance(value, datetime)
    return value.isoformat()


def turn_from_line(line: str) -> Turn:
    """Raises `ValueError`, `KeyError` or `TypeError` for a line that no spool wrote."""
    known: dict[str, Any] = json.loads(line)
    known["started_at"] = datetime.fromisoformat(known["started_at"])
    known["subjects"], known["messages"] = tuple(known["subjects"]), tuple(known["messages"])
    return Turn(**known)


def feedback_from_line(line: str) -> Feedback:
    """Raises as `turn_from_line` does."""
    known: Mapping[str, Any] = json.loads(line)
    at = datetime.fromisoformat(known["received_at"])
    return Feedback(**{**known, "received_at": at, "subjects": tuple(known["subjects"])})


def _ends_whole(file: Path, size: int) -> bool:
    with file.open("rb") as opened:
        opened.seek(size - 1)
        return opened.read(1) == b"\n"
