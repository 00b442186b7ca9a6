"""What a key of the spec is: how it is read, how a schema says it, what it means."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ratchet.adapters.specfile.values import (
    DURATION,
)


@dataclass(frozen=True, slots=True)
class Field:
    """What a key may hold: how to read it, how a schema says it, what it means."""

    read: Callable[[Any], Any]
    schema: Mapping[str, Any]
    doc: str
    required: bool = False


STRING = {"type": "string"}
DURATION_SCHEMA = {"type": "string", "pattern": DURATION.pattern}
SHARE_SCHEMA = {"type": ["number", "string"]}
RATES_SCHEMA = {"type": ["string", "object"], "additionalProperties": STRING}
PATHS_SCHEMA = {"type": ["string", "array"], "items": STRING}
