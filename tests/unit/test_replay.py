"""A release judged again: the same numbers, a changed number, and other rules on the same units."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from ratchet.core.analysis import (
    Evidence,
    Unit,
    describe,
    first_evidence,
    next_weight_begins,
    observe,
    still_to_show,
)
from ratchet.core.replay import AtWeight, Recorded, otherwise, replay
from ratchet.core.spec import ReleasePlan

PLAN = ReleasePlan()
BUDGETED = ReleasePlan(notches_percent=(), harm_budget=100, latency_margin=0.2)
BEGUN = first_evidence(PLAN, [60.0 + number for number in range(100)])


def units(count: int, *, after: int = 0, fails: bool = False, canary_every: int = 2) -> list[Unit]:
    """Answers of 80 to 119 ms; every so many are the canary's, and none else fails."""
    return [
        Unit(
            sequence=number,
            is_canary=(is_canary := number % canary_every == 0),
            failed=is_canary and fails,
            duration_ms=80.0 + (number // canary_every) % 40,
        )
        for number in range(after + 1, after + count + 1)
    ]


def verdict(signal: str, weight_percent: float, evidence: Evidence) -> Recorded:
    numbers = {k: v for k, v in describe(evidence).items() if math.isfinite(v)}
    return Recorded(signal, weight_percent, "", numbers)


def lived(parts: Sequence[AtWeight]) -> list[Recorded]:
    """What a judge stores that looks at every sixty units and moves after each part."""
    evidence, found = BEGUN, [verdict("started", parts[0].weight / 100, BEGUN)]
    for number, part in enumerate(parts):
        for end in range(60, len(part.units) + 60, 60):
            evidence = observe(evidence, part.units[:end], PLAN.latency_margin, part.weight)
        following = parts[number + 1].weight / 100 if number + 1 < len(parts) else 0.0
        found.append(verdict("healthy", following, evidence))
        evidence = next_weight_begins(evidence)
    return found


PARTS = [
    AtWeight(500, units(400, canary_every=10)),
    AtWeight(5_000, units(250, after=500, fails=True)),
]


def test_every_verdict_comes_out_again() -> None:
    again = list(replay(PLAN, BEGUN, PARTS, lived(PARTS)))

    assert [each.recorded.signal for each in again] == ["started", "healthy", "healthy"]
    assert [each.differences for each in again] == [[], [], []]
    assert again[-1].numbers["canary_units"] > again[1].numbers["canary_units"] > 0


def test_a_number_that_was_changed_is_named() -> None:
    recorded = lived(PARTS)
    touched = dict(recorded[-1].numbers)
    touched["e_errors"] = math.nextafter(touched["e_errors"], math.inf)
    recorded[-1] = replace(recorded[-1], numbers=touched)

    again = list(replay(PLAN, BEGUN, PARTS, recorded))

    assert [each.differences for each in again] == [[], [], ["e_errors"]]


def test_units_that_are_gone_make_a_difference() -> None:
    kept = [PARTS[0]]

    again = list(replay(PLAN, BEGUN, kept, lived(PARTS)))

    assert again[1].differences == []
    assert "canary_units" in again[2].differences


def test_a_verdict_that_moves_nothing_keeps_the_weight_and_its_units() -> None:
    part = AtWeight(5_000, units(240))
    evidence = observe(BEGUN, part.units[:120], PLAN.latency_margin, part.weight)
    later = observe(evidence, part.units, PLAN.latency_margin, part.weight)
    recorded = [
        verdict("started", 50.0, BEGUN),
        verdict("pause", 50.0, evidence),
        verdict("resume", 50.0, later),
    ]

    assert [each.differences for each in replay(PLAN, BEGUN, [part], recorded)] == [[], [], []]


def test_other_rules_on_the_same_units() -> None:
    harmful = otherwise(PLAN, BEGUN, PARTS)
    harmless = [AtWeight(5_000, units(6_000))]

    assert harmful.decision == "rolled back"
    assert 400 < harmful.units < 650
    # Notches promote by their length; only a plan with a budget promotes by proof.
    assert otherwise(PLAN, BEGUN, harmless).decision == "undecided"
    proven = otherwise(BUDGETED, BEGUN, harmless)
    assert (proven.decision, proven.canary_units >= 200) == ("promoted", True)
    assert otherwise(BUDGETED, BEGUN, [AtWeight(5_000, units(100))]).decision == "undecided"


def test_wide_margins_are_soon_shown_and_still_ask_for_enough_answers() -> None:
    wide = replace(BUDGETED, errors_margin=0.5, latency_margin=5.0)
    begun = first_evidence(wide, [60.0 + number for number in range(100)])
    seen = observe(begun, units(240), wide.latency_margin, 5_000)

    assert seen.safety is not None
    assert still_to_show(wide, seen.failed, seen.safety) == ["200 canary answers"]
    assert otherwise(wide, begun, [AtWeight(5_000, units(240))]).decision == "undecided"
    assert otherwise(wide, begun, [AtWeight(5_000, units(420))]).decision == "promoted"
