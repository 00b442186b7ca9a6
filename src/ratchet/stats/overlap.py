"""Texts that say nearly the same: Jaccard similarity of word shingles.

Broder, On the resemblance and containment of documents, 1997.  Exact, by an inverted index over the
smaller side; what much of that side shares (a template around every question) is no resemblance
and is left out of both.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

SHINGLE_WORDS = 3
# Shared by more than this of the texts, and by more than a handful, a shingle is template.
TEMPLATE_SHARE = 0.1
TEMPLATE_TEXTS_MIN = 5


@dataclass(frozen=True, slots=True)
class Resemblance:
    """Text number `one` of the smaller side resembles number `other` of the larger one."""

    one: int
    other: int
    similarity: float


def shingles(text: str) -> frozenset[str]:
    """All runs of three words; of a shorter text the whole."""
    words = text.lower().split()
    if len(words) <= SHINGLE_WORDS:
        return frozenset({" ".join(words)} if words else ())
    return frozenset(
        " ".join(words[place : place + SHINGLE_WORDS])
        for place in range(len(words) - SHINGLE_WORDS + 1)
    )


def resembling(few: Sequence[str], many: Iterable[str], at_least: float = 0.8) -> list[Resemblance]:
    """Of each text of `few` the text of `many` that is most like it, if it is that much alike."""
    sets = [shingles(text) for text in few]
    spread = Counter(shingle for each in sets for shingle in each)
    limit = max(TEMPLATE_TEXTS_MIN, TEMPLATE_SHARE * len(few))
    template = frozenset(shingle for shingle, count in spread.items() if count > limit)
    sets = [each - template for each in sets]
    holders: dict[str, list[int]] = {}
    for number, each in enumerate(sets):
        for shingle in each:
            holders.setdefault(shingle, []).append(number)
    best: dict[int, Resemblance] = {}
    for other, text in enumerate(many):
        theirs = shingles(text) - template
        shared = Counter(one for shingle in theirs for one in holders.get(shingle, ()))
        for one, count in shared.items():
            similarity = count / (len(sets[one]) + len(theirs) - count)
            if similarity >= at_least and (one not in best or similarity > best[one].similarity):
                best[one] = Resemblance(one, other, similarity)
    return [best[one] for one in sorted(best)]
