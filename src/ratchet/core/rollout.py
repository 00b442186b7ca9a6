"""The release state machine.

A release waits for its engine, climbs its plan one notch at a time and may fall back from any
notch.  This module decides and never acts: `decide` answers with the next release and the
commands that somebody else must carry out.  It knows no clock, no database, no Envoy.

Every legal move in the product is in `MOVES`.  A pair that is absent is illegal, and an illegal
move changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import NewType

from ratchet.core.artifact import VersionId
from ratchet.core.errors import Rejected
from ratchet.core.routing import WEIGHT_TOTAL

ReleaseId = NewType("ReleaseId", str)
# Who moved a release, where no person did.
JUDGE = "judge"


class Stage(Enum):
    STARTING = "starting"  # its engine loads; serves nobody yet
    SHADOW = "shadow"  # answers again what the baseline was asked; serves nobody yet
    CANARY = "canary"  # serves the weight of its current notch
    PAUSED = "paused"  # keeps its weight and is judged, but does not climb
    HELD = "held"  # serves nobody, because nobody can see how it does, or a person must decide
    HOLDBACK = "holdback"  # is the baseline; some still get the old version, and both are judged
    PROMOTED = "promoted"  # is the baseline, for everybody
    ROLLED_BACK = "rolled_back"  # serves nobody, for good
    UNCHANGED = "unchanged"  # is the baseline, bit for bit: nothing to release

    @property
    def is_end(self) -> bool:
        return self in (Stage.PROMOTED, Stage.ROLLED_BACK, Stage.UNCHANGED)

    @property
    def ends_run(self) -> bool:
        """What the run was for is decided; a holdback goes on without it."""
        return self.is_end or self is Stage.HOLDBACK


class Signal(Enum):
    READY = "ready"  # the engine answers
    HEALTHY = "healthy"  # enough units at this notch and no evidence of harm; or proof of no harm
    MOVE = "move"  # the harm budget allows another weight
    UNHEALTHY = "unhealthy"  # evidence of harm beyond the stated error rate
    DEAD = "dead"  # no engine of the canary is left
    BLIND = "blind"  # no telemetry for longer than the plan allows
    ASK = "ask"  # no more can be learned like this: a person must decide
    OVER = "over"  # the holdback is
    PAUSE = "pause"  # a person
    RESUME = "resume"  # a person
    EXTEND = "extend"  # a person, who gives more budget or time
    PROMOTE = "promote"  # a person, without waiting for evidence
    ABORT = "abort"  # a person


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    id: ReleaseId
    project: str
    candidate: VersionId
    baseline: VersionId
    notches_percent: tuple[int, ...]
    """Empty where the weight is chosen by a harm budget."""
    stage: Stage = Stage.STARTING
    notch: int = 0
    ramp_weight: int = 0
    """Of 10,000, where there are no notches."""
    holdback_weight: int = 0
    """Of 10,000: what the old version keeps for a while after a promotion; 0 for no holdback."""
    has_shadow: bool = False
    """Before its first traffic it answers what the baseline was asked."""
    asks: bool = False
    """Held until a person decides; a hold for blindness ends by itself."""
    version: int = 0
    """Bumped by every decision; the store compares and swaps on it."""

    @property
    def weight(self) -> int:
        """The candidate's share of the conversations, of 10,000."""
        if self.stage in (Stage.CANARY, Stage.PAUSED):
            notches = self.notches_percent
            return notches[self.notch] * 100 if notches else self.ramp_weight
        if self.stage is Stage.HOLDBACK:
            return WEIGHT_TOTAL - self.holdback_weight
        return WEIGHT_TOTAL if self.stage in (Stage.PROMOTED, Stage.UNCHANGED) else 0

    @property
    def weight_percent(self) -> float:
        return self.weight / 100


@dataclass(frozen=True, slots=True)
class SetCanaryWeight:
    """Route this share of conversations, of 10,000, to the candidate and the rest to the
    baseline."""

    weight: int


@dataclass(frozen=True, slots=True)
class MakeBaseline:
    """From now on this version is what the project serves."""

    version: VersionId


@dataclass(frozen=True, slots=True)
class RetireEngine:
    """Stop this version's engine, once nothing is routed to it and what is in flight had time to
    end."""

    version: VersionId


Command = SetCanaryWeight | MakeBaseline | RetireEngine


@dataclass(frozen=True, slots=True)
class Decision:
    release: Release
    commands: tuple[Command, ...]


def decide(release: Release, signal: Signal, weight: int | None = None) -> Decision:
    """Apply one signal; `weight` (of 10,000) comes with `MOVE`.

    Raises `Rejected` if this stage does not accept it.
    """
    move = MOVES.get((release.stage, signal))
    if move is None:
        raise Rejected(f"release {release.id} is {release.stage.value}: cannot take {signal.value}")
    decision = move(release if weight is None else replace(release, ramp_weight=weight))
    return replace(decision, release=replace(decision.release, version=release.version + 1))


def _begin(release: Release) -> Decision:
    if release.has_shadow:
        return Decision(replace(release, stage=Stage.SHADOW), ())
    return _enter(release)


def _enter(release: Release) -> Decision:
    canary = replace(release, stage=Stage.CANARY, asks=False)
    return Decision(canary, (SetCanaryWeight(canary.weight),))


def _climb(release: Release) -> Decision:
    if not release.notches_percent:
        # Without notches health is proof.
        return _promote(release)
    higher = release.notch + 1
    if release.notches_percent[higher] == 100:
        # At 100 % there is no baseline left to compare with: the last notch is the promotion.
        return _promote(release)
    climbed = replace(release, notch=higher)
    return Decision(climbed, (SetCanaryWeight(climbed.weight),))


def _move(release: Release) -> Decision:
    if release.notches_percent:
        raise Rejected(f"release {release.id} climbs by notches: its weight is not chosen")
    return Decision(release, (SetCanaryWeight(release.weight),))


def _promote(release: Release) -> Decision:
    if not release.holdback_weight:
        return _finish(release)
    held_back = replace(release, stage=Stage.HOLDBACK, asks=False)
    return Decision(held_back, (SetCanaryWeight(held_back.weight), MakeBaseline(release.candidate)))


def _finish(release: Release) -> Decision:
    return Decision(
        replace(release, stage=Stage.PROMOTED, asks=False),
        (
            SetCanaryWeight(WEIGHT_TOTAL),
            MakeBaseline(release.candidate),
            RetireEngine(release.baseline),
        ),
    )


def _fall_back(release: Release) -> Decision:
    return Decision(
        replace(release, stage=Stage.ROLLED_BACK, asks=False),
        (SetCanaryWeight(0), RetireEngine(release.candidate)),
    )


def _give_up(release: Release) -> Decision:
    """Before it had any traffic: what is routed now is not this release's."""
    return Decision(replace(release, stage=Stage.ROLLED_BACK), (RetireEngine(release.candidate),))


def _return_to_old(release: Release) -> Decision:
    back = _fall_back(release)
    return replace(back, commands=(*back.commands, MakeBaseline(release.baseline)))


def _hold(release: Release) -> Decision:
    return Decision(replace(release, stage=Stage.HELD), (SetCanaryWeight(0),))


def _ask(release: Release) -> Decision:
    return Decision(replace(release, stage=Stage.HELD, asks=True), (SetCanaryWeight(0),))


def _ask_unseen(release: Release) -> Decision:
    """Before it had any traffic."""
    return Decision(replace(release, stage=Stage.HELD, asks=True), ())


def _go_on(release: Release) -> Decision:
    return Decision(release, ())


def _pause(release: Release) -> Decision:
    return Decision(replace(release, stage=Stage.PAUSED), ())


def _unpause(release: Release) -> Decision:
    return Decision(replace(release, stage=Stage.CANARY), ())


MOVES: Mapping[tuple[Stage, Signal], Callable[[Release], Decision]] = {
    (Stage.STARTING, Signal.READY): _begin,
    (Stage.STARTING, Signal.DEAD): _give_up,
    (Stage.STARTING, Signal.ABORT): _give_up,
    (Stage.SHADOW, Signal.HEALTHY): _enter,
    (Stage.SHADOW, Signal.RESUME): _enter,
    (Stage.SHADOW, Signal.UNHEALTHY): _give_up,
    (Stage.SHADOW, Signal.DEAD): _give_up,
    (Stage.SHADOW, Signal.ASK): _ask_unseen,
    (Stage.SHADOW, Signal.ABORT): _give_up,
    (Stage.CANARY, Signal.HEALTHY): _climb,
    (Stage.CANARY, Signal.MOVE): _move,
    (Stage.CANARY, Signal.UNHEALTHY): _fall_back,
    (Stage.CANARY, Signal.DEAD): _fall_back,
    (Stage.CANARY, Signal.BLIND): _hold,
    (Stage.CANARY, Signal.ASK): _ask,
    (Stage.CANARY, Signal.PAUSE): _pause,
    (Stage.CANARY, Signal.EXTEND): _go_on,
    (Stage.CANARY, Signal.PROMOTE): _promote,
    (Stage.CANARY, Signal.ABORT): _fall_back,
    (Stage.PAUSED, Signal.UNHEALTHY): _fall_back,
    (Stage.PAUSED, Signal.DEAD): _fall_back,
    (Stage.PAUSED, Signal.BLIND): _hold,
    (Stage.PAUSED, Signal.RESUME): _unpause,
    (Stage.PAUSED, Signal.PROMOTE): _promote,
    (Stage.PAUSED, Signal.ABORT): _fall_back,
    (Stage.HELD, Signal.RESUME): _enter,
    (Stage.HELD, Signal.EXTEND): _enter,
    (Stage.HELD, Signal.PROMOTE): _promote,
    (Stage.HELD, Signal.DEAD): _fall_back,
    (Stage.HELD, Signal.ABORT): _fall_back,
    (Stage.HOLDBACK, Signal.UNHEALTHY): _return_to_old,
    (Stage.HOLDBACK, Signal.DEAD): _return_to_old,
    (Stage.HOLDBACK, Signal.ABORT): _return_to_old,
    (Stage.HOLDBACK, Signal.OVER): _finish,
    (Stage.HOLDBACK, Signal.PROMOTE): _finish,
    (Stage.PROMOTED, Signal.ABORT): _return_to_old,
}


def diagram() -> str:
    """The table as a Mermaid state diagram, for docs/reference."""
    lines = ["stateDiagram-v2", f"    [*] --> {Stage.STARTING.value}"]
    for (stage, signal), move in MOVES.items():
        for target in _targets(stage, move):
            lines.append(f"    {stage.value} --> {target.value}: {signal.value}")
    lines += [f"    {stage.value} --> [*]" for stage in Stage if stage.is_end]
    return "\n".join(lines)


def _targets(stage: Stage, move: Callable[[Release], Decision]) -> list[Stage]:
    """Stages that a move can lead to: from the first notch, and from the last before 100 %."""
    found: list[Stage] = []
    steps = (5, 50, 100)
    probes = ((steps, 0, 0), (steps, 1, 0), (steps, 1, 500), ((), 0, 0), (steps, 0, -1))
    for notches, notch, holdback in probes:
        probe = Release(
            id=ReleaseId("r"),
            project="p",
            candidate=VersionId("new"),
            baseline=VersionId("old"),
            notches_percent=notches,
            stage=stage,
            notch=notch,
            holdback_weight=max(0, holdback),
            has_shadow=holdback < 0,
        )
        try:
            target = move(probe).release.stage
        except Rejected:
            continue
        if target not in found:
            found.append(target)
    return found
