"""Values of guards that are known after the answer: what it says, what people say of it.

A unit of such a group waits until its values are there or the guard's time is over; then it is
judged with what there is, and what comes later changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ratchet.core.detectors import text_of
from ratchet.core.evidence import Unit
from ratchet.core.guards import ERRORS, THUMBS_DOWN, Group
from ratchet.core.segments import Known
from ratchet.core.spec import ReleasePlan


@dataclass(frozen=True, slots=True, kw_only=True)
class LateUnit:
    """A unit with what has been heard of it since."""

    sequence: int
    is_canary: bool
    weight: int
    revision: int
    age_seconds: float
    """Since it was assigned."""
    is_ended: bool
    will_be_captured: bool
    """Its answer is sampled and succeeded, so its text will come."""
    answer: Mapping[str, Any] | None = None
    pushed: Mapping[str, float]
    """By metric: what the project's own systems said."""
    is_thumbs_down: bool = False
    is_failed: bool = False
    """It ended, and not well: what is said of answers cannot be said of it."""
    kept: Mapping[str, float] | None = None
    """As it was judged before."""
    known: Known = field(default_factory=dict)
    """What segments it is of."""


def late_units(plan: ReleasePlan, group: Group, heard: Sequence[LateUnit]) -> list[Unit]:
    """Units of one late group, up to the first that is still waited for."""
    found: list[Unit] = []
    for late in heard:
        values = late.kept if late.kept is not None else _values(plan, group, late)
        if values is None:
            break
        found.append(
            Unit(
                sequence=late.sequence,
                is_canary=late.is_canary,
                values=values,
                weight=late.weight,
                revision=late.revision,
                known=late.known,
            )
        )
    return found


def _values(plan: ReleasePlan, group: Group, late: LateUnit) -> Mapping[str, float] | None:
    """None while they may still come."""
    guards = [guard for guard in plan.guards if guard.group is group]
    is_over = late.age_seconds > max(guard.within_seconds for guard in guards)
    if group is Group.FEEDBACK:
        # Who says nothing was content enough: the question is how many complain.
        return {THUMBS_DOWN: float(late.is_thumbs_down)} if is_over else None
    looked_at = {detector.guard for detector in plan.detectors}
    awaited = {guard.name for guard in guards} - looked_at
    has_all = awaited <= set(late.pushed) and (
        not looked_at or late.answer is not None or (late.is_ended and not late.will_be_captured)
    )
    if not has_all and not is_over:
        return None
    pushed = {name: late.pushed[name] for name in awaited & set(late.pushed)}
    failed = {ERRORS.name: 1.0} if late.is_failed else {}
    return {**failed, **pushed, **dict(_detected(plan, late))}


def _detected(plan: ReleasePlan, late: LateUnit) -> Iterator[tuple[str, float]]:
    if late.answer is None:
        return
    text = text_of(late.answer)
    for detector in plan.detectors:
        yield detector.guard, float(detector.is_bad(text))
