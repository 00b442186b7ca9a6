"""Content addresses: the same content has the same name everywhere and for ever."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path


def digest_bytes(content: bytes) -> str:
    """Lower-case SHA-256, 64 characters."""
    return hashlib.sha256(content).hexdigest()


def digest_json(value: object) -> str:
    """Digest of a JSON value; key order and white space do not matter."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return digest_bytes(text.encode())


def digest_lines(lines: Iterable[str]) -> str:
    """Digest of lines in their order, each ended by a line feed."""
    state = hashlib.sha256()
    for line in lines:
        state.update(line.encode())
        state.update(b"\n")
    return state.hexdigest()


def digest_file(path: Path) -> str:
    """Digest of a file, read in pieces, so that weights of any size fit."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
