"""Shadow by replay: before any user meets a canary, it answers what the baseline was asked.

Recent captured prompts are given to the canary, and its answers are compared with the baseline's,
pair by pair: by the detectors of the plan's guards, and by a judge if the plan has one.  A pair
counts where just one of the two is bad, or better; of such pairs half would be lost if the canary
were no worse.

Only prompts without side effects are replayed, and only those that were captured as they were:
one with something scrubbed out would be an easier or a harder question than the baseline had.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

import numpy as np

from ratchet.core.detectors import Detector
from ratchet.core.errors import Rejected
from ratchet.core.meters import LOG_MAX
from ratchet.kit.digest import digest_bytes
from ratchet.stats.paired import log_e_paired

# Of the false rollback rate.
SHARE = 0.25
PAIRS_MAX = 10_000
# A canary that answers none of so many prompts in a row is dead.
SILENT_IN_A_ROW_MAX = 5
# As is one that leaves out so many of the first that came.
SILENT_SHARE_MAX, SILENT_KNOWN_MIN = 0.2, 20
JUDGE = "judge"


@dataclass(frozen=True, slots=True, kw_only=True)
class PairJudge:
    """A model that says which of two answers is better, behind an OpenAI-compatible API."""

    url: str
    model: str
    key_variable: str = ""
    """Name of the environment variable with its key; empty for none."""
    criteria: str = ""
    """What better means here, in the owner's words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shadow:
    pairs: int = 200
    """How many prompts are replayed at most."""
    judge: PairJudge | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.pairs <= PAIRS_MAX:
            raise Rejected(f"release.shadow.pairs: expected 1 to {PAIRS_MAX}, found {self.pairs}")


class Outcome(Enum):
    """Of a pair, the canary's answer against the baseline's."""

    WORSE = "worse"
    SAME = "same"
    BETTER = "better"


class Preference(Enum):
    """What a judge says of two answers, by the order in which it saw them."""

    FIRST = "first"
    SECOND = "second"
    NEITHER = "neither"


def outcome_of(said: Preference, *, is_new_first: bool) -> Outcome:
    """Of the newer answer."""
    if said is Preference.NEITHER:
        return Outcome.SAME
    return Outcome.BETTER if (said is Preference.FIRST) == is_new_first else Outcome.WORSE


@dataclass(frozen=True, slots=True)
class Pair:
    """One replayed prompt."""

    outcomes: Mapping[str, Outcome] = field(default_factory=dict)
    """By check; empty when the prompt is gone."""
    silence: str = ""
    """Why the canary gave no answer; then there is no outcome."""


def compared(detectors: Sequence[Detector], baseline: str, canary: str) -> dict[str, Outcome]:
    """What the plan's detectors say of a pair of texts, by guard."""
    return {
        detector.guard: _of(detector.is_bad(baseline), detector.is_bad(canary))
        for detector in detectors
    }


def _of(is_old_bad: bool, is_new_bad: bool) -> Outcome:
    if is_old_bad == is_new_bad:
        return Outcome.SAME
    return Outcome.WORSE if is_new_bad else Outcome.BETTER


def comes_first(release_id: str, request_id: str) -> bool:
    """Whether the judge sees the canary's answer first: by chance, and the same each time."""
    return int(digest_bytes(f"{release_id}\0{request_id}".encode())[:8], 16) % 2 == 0


@dataclass(frozen=True, slots=True)
class Check:
    """What one check said of all pairs."""

    name: str
    worse: int
    same: int
    better: int

    @property
    def log_harm(self) -> float:
        return float(log_e_paired(np.asarray(self.worse), np.asarray(self.better)))


@dataclass(frozen=True, slots=True)
class Shadowed:
    """What the shadow has shown so far."""

    checks: tuple[Check, ...]
    known: int
    """Pairs that are over, whatever came out."""
    compared: int
    silent: int
    silent_in_a_row: int
    why_silent: str
    left: int
    """Prompts that are not compared yet."""

    @property
    def log_harm(self) -> float:
        """Of all checks together: they are known at the same time."""
        if not self.checks:
            return 0.0
        logs = np.array([check.log_harm for check in self.checks])
        return float(np.logaddexp.reduce(logs)) - math.log(len(logs))

    @property
    def silence(self) -> str:
        """What a canary that hardly answers did not answer; empty for one that does."""
        if self.silent_in_a_row >= SILENT_IN_A_ROW_MAX:
            return f"{self.silent_in_a_row} replayed prompts in a row"
        if self.known >= SILENT_KNOWN_MIN and self.silent > SILENT_SHARE_MAX * self.known:
            return f"{self.silent} of {self.known} replayed prompts"
        return ""

    def numbers(self) -> dict[str, float]:
        found = {"shadow.pairs": float(self.known)}
        for check in self.checks:
            found |= {
                f"shadow.{check.name}.worse": float(check.worse),
                f"shadow.{check.name}.better": float(check.better),
                f"shadow.{check.name}.e": math.exp(min(check.log_harm, LOG_MAX)),
            }
        return found

    def progress(self, problem: str) -> str:
        waits = f", waiting: {problem}" if problem else ""
        return f"{self.sentence()}; {self.left} to go{waits}"

    def sentence(self) -> str:
        said = [f"{c.name}: {c.worse} worse, {c.better} better" for c in self.checks]
        silent = f"; {self.silent} had no answer" if self.silent else ""
        return f"of {self.compared} replayed prompts {'; '.join(said) or 'none counted'}{silent}"


def shadowed(pairs: Sequence[Pair | None]) -> Shadowed:
    """Pairs in their order; None is not compared yet, and keeps back those behind it, so that what
    is known does not depend on which answer was quick."""
    known: list[Pair] = []
    for pair in pairs:
        if pair is None:
            break
        known.append(pair)
    names = dict.fromkeys(name for pair in known for name in pair.outcomes)
    silent = [pair.silence for pair in known]
    in_a_row = next((n for n, why in enumerate(reversed(silent)) if not why), len(silent))
    return Shadowed(
        checks=tuple(_check(name, known) for name in names),
        known=len(known),
        compared=sum(bool(pair.outcomes) for pair in known),
        silent=sum(map(bool, silent)),
        silent_in_a_row=in_a_row,
        why_silent=next((why for why in reversed(silent) if why), ""),
        left=len(pairs) - len(known),
    )


def _check(name: str, pairs: Sequence[Pair]) -> Check:
    found = [pair.outcomes[name] for pair in pairs if name in pair.outcomes]
    return Check(name, *(found.count(outcome) for outcome in Outcome))
