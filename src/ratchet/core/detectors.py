"""Cheap looks at what was answered: is it a refusal, has it the form that was agreed on?

An answer is looked at as it was captured: scrubbed, so a pattern should not depend on names,
addresses or numbers that are taken out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jsonschema_rs

from ratchet.core.errors import Rejected

# Longer answers are looked at up to here: a pattern must not cost more than the answer did.
CHARACTERS_MAX = 20_000
REFUSAL = (
    r"(?i)\b(i('m| am) (sorry|afraid|unable)|i (can('|no)?t|cannot|won('|no)t|am not able to) "
    r"(help|assist|comply|answer|provide|do that|fulfil)|as an ai( language)? model)\b"
)


@dataclass(frozen=True)
class Detector:
    """What makes an answer bad; exactly one of the forms is set."""

    guard: str
    matches: str = ""
    """Bad where this pattern is found."""
    pattern: str = ""
    """Bad where the whole answer does not match."""
    labels: tuple[str, ...] = ()
    """Bad where the answer is none of these, spaces around it aside."""
    json_schema: str = ""
    """Bad where the answer is not JSON that this schema (as text) allows."""

    def __post_init__(self) -> None:
        forms = [self.matches, self.pattern, self.labels, self.json_schema]
        if sum(map(bool, forms)) != 1:
            raise Rejected(
                f"release.guards.{self.guard}: expected one of pattern, labels, json_schema"
            )
        try:
            # Made now, so that a broken one is refused before anything runs.
            assert callable(self.is_bad)
        except (re.error, ValueError, TypeError) as error:
            raise Rejected(f"release.guards.{self.guard}: {error}") from None

    @cached_property
    def is_bad(self) -> Callable[[str], bool]:
        """Says it of one answer's text."""
        if self.matches:
            found = re.compile(self.matches)
            return lambda text: found.search(text[:CHARACTERS_MAX]) is not None
        if self.pattern:
            whole = re.compile(self.pattern)
            return lambda text: whole.fullmatch(text[:CHARACTERS_MAX].strip()) is None
        if self.labels:
            return lambda text: text.strip() not in self.labels
        validator = jsonschema_rs.validator_for(json.loads(self.json_schema))
        return lambda text: not _allows(validator, text)


def _allows(validator: Any, text: str) -> bool:
    try:
        return bool(validator.is_valid(json.loads(text)))
    except (ValueError, RecursionError):
        return False


def text_of(answer: Mapping[str, Any]) -> str:
    """What a captured answer says: its content, or the arguments of its first tool call."""
    content = answer.get("content")
    if isinstance(content, str) and content:
        return content
    for call in answer.get("tool_calls") or ():
        return str(call.get("function", {}).get("arguments", ""))
    return ""
