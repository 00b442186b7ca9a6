"""What a release is judged by: each guard with its test, its direction and its margin.

A *margin* is how much worse a canary may be and still be promoted: a promotion proves that it is
not worse by that much.  A *tolerance* is how much worse it may be before it counts as harm at all.
Rates and scores have theirs in points, times and amounts as a share.

References: design of non-inferiority margins as in Wellek, "Testing Statistical Hypotheses of
Equivalence and Noninferiority" (2010).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from ratchet.core.errors import Rejected


class Kind(Enum):
    """Which test a guard has."""

    RATE = "rate"  # bad or not
    TIME = "time"  # higher is worse; as a whole, and in its tail
    AMOUNT = "amount"  # heavy-tailed; more is worse, or any change is
    SCORE = "score"  # from 0 to 1; lower is worse


class Group(Enum):
    """When a guard's values are known.  What comes at different times has an error rate of its
    own: such evidence may not be averaged (Choe and Ramdas, 2024)."""

    FAST = "fast"  # with the answer's end, from the gateway's own record
    JUDGED = "judged"  # soon after, from what was answered
    SCRAPED = "scraped"  # from time to time, from counters that somebody else keeps
    FEEDBACK = "feedback"  # when people said it, or had the time to


# Shares of the false rollback rate, where a plan has guards of all groups.
GROUP_SHARES: Mapping[Group, float] = {
    Group.FAST: 0.7,
    Group.JUDGED: 0.2,
    Group.SCRAPED: 0.2,
    Group.FEEDBACK: 0.1,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Guard:
    """One thing that a canary must not be worse at."""

    name: str
    kind: Kind
    group: Group = Group.FAST
    margin: float
    tolerance: float = 0.0
    is_two_sided: bool = False
    """Less is as bad as more."""
    must_be_proven: bool = True
    """A promotion by proof waits for this guard's proof, too."""
    within_seconds: float = 0.0
    """How long a value that is known later is waited for."""
    segment: str = ""
    """Only within this part of the traffic; empty for all of it."""

    def __post_init__(self) -> None:
        if self.margin <= 0 or (self.is_absolute and self.margin >= 1):
            raise Rejected(f"guard {self.name}: expected a margin above 0, found {self.margin:g}")
        if not 0 <= self.tolerance <= self.margin:
            raise Rejected(f"guard {self.name}: expected 0 <= tolerance <= margin")

    @property
    def label(self) -> str:
        """The name, and where."""
        return f"{self.name} in {self.segment}" if self.segment else self.name

    @property
    def is_absolute(self) -> bool:
        """Margins are points of the value itself, not shares of it."""
        return self.kind in (Kind.RATE, Kind.SCORE)

    @property
    def is_share_shown(self) -> bool:
        """What people read of it is a share of the answers."""
        return self.kind in (Kind.RATE, Kind.TIME)


ERRORS = Guard(name="errors", kind=Kind.RATE, margin=0.01)
REFUSALS, FORMAT, THUMBS_DOWN = "refusals", "format", "thumbs_down"
# What is looked for in an answer's text.
IN_THE_TEXT = (REFUSALS, FORMAT)
TEXT_SECONDS = 120.0
FEEDBACK_SECONDS = 600.0
LATENCY = Guard(name="latency_p95", kind=Kind.TIME, margin=0.10, tolerance=0.10)


def _in_the_text(name: str, margin: float) -> Guard:
    return Guard(
        name=name, kind=Kind.RATE, group=Group.JUDGED, margin=margin, within_seconds=TEXT_SECONDS
    )


# Every plan has these.
ALWAYS = (ERRORS, LATENCY)
# What may be guarded besides, with what is asked of it when a plan says no more.
KNOWN: Mapping[str, Guard] = {
    guard.name: guard
    for guard in (
        *ALWAYS,
        Guard(name="ttft_p95", kind=Kind.TIME, margin=0.10, tolerance=0.10),
        # A tenth fewer tokens in a second is so much more time for each.
        Guard(name="tokens_per_second", kind=Kind.TIME, margin=1 / 9, tolerance=1 / 9),
        Guard(name="length", kind=Kind.AMOUNT, margin=0.15, tolerance=0.15, is_two_sided=True),
        Guard(name="cost", kind=Kind.AMOUNT, margin=0.10, tolerance=0.10),
        _in_the_text(REFUSALS, 0.015),
        _in_the_text(FORMAT, 0.01),
        Guard(
            name=THUMBS_DOWN,
            kind=Kind.RATE,
            group=Group.FEEDBACK,
            margin=0.005,
            within_seconds=FEEDBACK_SECONDS,
        ),
    )
}


def with_always(guards: Sequence[Guard]) -> tuple[Guard, ...]:
    """A plan's guards: those that it names, and those that every plan has."""
    named = {guard.name: guard for guard in guards}
    rest = [guard for guard in guards if guard.name not in {always.name for always in ALWAYS}]
    return (*(named.get(always.name, always) for always in ALWAYS), *rest)


def weights_of(guards: Sequence[Guard]) -> tuple[float, ...]:
    """How the evidence of one group is averaged: half for errors and latency, which every plan
    has, half for all others; evenly within, and evenly over segments."""
    segments = list(dict.fromkeys(guard.segment for guard in guards))
    if len(segments) > 1:
        found: dict[Guard, float] = {}
        for segment in segments:
            some = [guard for guard in guards if guard.segment == segment]
            found |= dict(zip(some, weights_of(some), strict=True))
        return tuple(found[guard] / len(segments) for guard in guards)
    first = [guard.name in (ERRORS.name, LATENCY.name) for guard in guards]
    count, others = sum(first), len(first) - sum(first)
    if not count or not others:
        return (1.0 / len(guards),) * len(guards)
    return tuple(0.5 / count if is_first else 0.5 / others for is_first in first)


def group_shares(guards: Sequence[Guard]) -> dict[Group, float]:
    """How the false rollback rate is split over the groups that a plan has."""
    present = [group for group in Group if any(guard.group is group for guard in guards)]
    total = sum(GROUP_SHARES[group] for group in present)
    return {group: GROUP_SHARES[group] / total for group in present}
