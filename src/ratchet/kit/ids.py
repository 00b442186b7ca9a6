"""Identifiers: short, sortable by birth, safe in URLs and file names."""

from __future__ import annotations

import secrets
import time

# Crockford's base 32 without the letters that people misread.
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"


def new_id(prefix: str) -> str:
    """`prefix_` and 16 characters: 8 of time (milliseconds), 8 of chance (40 bits)."""
    millis = int(time.time() * 1000)
    return f"{prefix}_{_encode(millis, 9)[-8:]}{_encode(secrets.randbits(40), 8)}"


def _encode(value: int, length: int) -> str:
    characters = []
    for _ in range(length):
        characters.append(_ALPHABET[value & 31])
        value >>= 5
    return "".join(reversed(characters))
