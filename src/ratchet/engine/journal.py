"""What this engine answered, a line for each request, for the ledger.

The gateway counts what it passed on; the engine knows also what was computed for clients that left,
and what a gateway that was killed could not write down.  Both name the request by its id, so
nothing is counted twice.
"""

from __future__ import annotations

import json
import os
from io import FileIO
from pathlib import Path

from starlette.requests import Request

from ratchet.engine.batch import Job
from ratchet.kit.clock import SystemClock

SEGMENT_BYTES = 16 * 1024 * 1024


class Journal:
    """Appends to files of a folder, each up to a size; without a folder it writes nothing.

    Whoever ships them deletes a file of which there is a newer one.
    """

    def __init__(self, folder: Path | None, version: str) -> None:
        self._folder, self._version = folder, version
        self._count = 0
        self._file = self._next()

    def _next(self) -> FileIO | None:
        if self._folder is None:
            return None
        self._count += 1
        name = f"{self._version}-{os.getpid()}-{self._count:06}.jsonl"
        # Unbuffered: a line is with the kernel when `add` returns, and survives a kill.
        return (self._folder / name).open("ab", buffering=0)

    def add(self, request: Request, job: Job) -> None:
        """One answer, whole or not.  A request that came past the gateway has no id and no line."""
        request_id = request.headers.get("x-request-id", "")
        if self._file is None or not request_id or not job.answer:
            return
        line = {
            "request_id": request_id,
            "version": self._version,
            "key_id": request.headers.get("x-ratchet-key", ""),
            "prompt_tokens": len(job.prompt),
            "completion_tokens": len(job.answer),
            "at": SystemClock().now().timestamp(),
        }
        self._file.write(json.dumps(line).encode() + b"\n")
        if self._file.tell() >= SEGMENT_BYTES:
            self._file.close()
            self._file = self._next()
