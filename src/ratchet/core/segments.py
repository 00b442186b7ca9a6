"""Parts of the traffic that a release is also judged within.

A regression that hits one tenant, one language or long prompts is thin in the whole.  What segment
a request is of is known before it has an arm, so that the arm cannot have changed it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from enum import Enum

# Of the traffic before the release, so large a share makes a segment, of so many answers at least.
SHARE_MIN = 0.1
SHARE_MAX = 0.95
ANSWERS_MIN = 50
SEGMENTS_MAX = 12
SHORT_BYTES, LONG_BYTES = 1024, 8192
# Longer is no name.
FEATURE_CHARACTERS_MAX = 64
_BETWEEN = "="


class Dimension(Enum):
    """What requests are told apart by."""

    TENANT = "tenant"  # who the key belongs to
    LANGUAGE = "language"  # the first of accept-language
    PROMPT_LENGTH = "prompt_length"  # of the request's body, in three classes
    FEATURE = "feature"  # what clients say in x-ratchet-segment: tool use, a part of the product


# By dimension; one that could not be known is absent.
Known = Mapping[str, str]


def known_of(*, tenant: str, language: str, content_bytes: int | None, feature: str) -> Known:
    """What a gateway knows of a request; empty texts and None are not known."""
    found = {
        Dimension.TENANT: tenant,
        Dimension.LANGUAGE: _first_language(language),
        Dimension.PROMPT_LENGTH: "" if content_bytes is None else _length(content_bytes),
        Dimension.FEATURE: feature if len(feature) <= FEATURE_CHARACTERS_MAX else "",
    }
    return {dimension.value: value for dimension, value in found.items() if value}


def _first_language(accepted: str) -> str:
    """`de-CH,de;q=0.9` is `de`."""
    first = accepted.partition(",")[0].partition(";")[0].strip().partition("-")[0].lower()
    return first if first.isalpha() and first.isascii() and len(first) <= 8 else ""


def _length(content_bytes: int) -> str:
    if content_bytes < SHORT_BYTES:
        return "short"
    return "medium" if content_bytes < LONG_BYTES else "long"


def segment_of(dimension: str, value: str) -> str:
    return f"{dimension}{_BETWEEN}{value}"


def dimension_of(segment: str) -> Dimension:
    return Dimension(segment.partition(_BETWEEN)[0])


def is_of(known: Known, segment: str) -> bool:
    dimension, _, value = segment.partition(_BETWEEN)
    return known.get(dimension) == value


def frequent(dimensions: Sequence[Dimension], seen: Sequence[Known]) -> tuple[str, ...]:
    """Segments that are worth judging, by the requests before a release: neither rare nor nearly
    all, the largest first."""
    counts: Counter[str] = Counter(
        segment_of(dimension.value, known[dimension.value])
        for known in seen
        for dimension in dimensions
        if dimension.value in known
    )
    least = max(ANSWERS_MIN, SHARE_MIN * len(seen))
    fit = [(-n, name) for name, n in counts.items() if least <= n <= SHARE_MAX * len(seen)]
    return tuple(name for _, name in sorted(fit)[:SEGMENTS_MAX])
