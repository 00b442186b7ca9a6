"""A release judged again: the same numbers, a changed number, and other rules on the same units."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from ratchet.core.evidence import Evidence, Unit, first_evidence, next_weight_begins, observe
from ratchet.core.findings import describe
from ratchet.core.guards import KNOWN, LATENCY, Group, with_always
from ratchet.core.replay import Recorded, otherwise, replay
from ratchet.core.spec import ReleasePlan
from tests.units import USUAL, units

PLAN = ReleasePlan(notches_percent=(5, 50, 100), harm_budget=None)
WIDER = with_always([replace(LATENCY, margin=0.2, tolerance=0.2)])
BUDGETED = ReleasePlan(guards=WIDER)
BEGUN = first_evidence(PLAN, USUAL)


def part(
    count: int, weight: int, revision: int, *, after: int = 0, fails: bool = False, every: int = 2
) -> list[Unit]:
    """Answers of 80 to 119 ms, of both arms alike."""
    return units(
        count, canary_every=every, canary_fails=fails, after=after, weight=weight,
        revision=revision, ms=lambda number: 80.0 + number % 40,
    )  # fmt: skip


def verdict(signal: str, weight_percent: float, evidence: Evidence) -> Recorded:
    watermarks = {group: stream.watermark for group, stream in evidence.streams.items()}
    return Recorded(signal, weight_percent, "", describe(evidence), watermarks)


def lived(parts: Sequence[Sequence[Unit]]) -> list[Recorded]:
    """What a judge stores that looks at every seventy units and moves after each part."""
    evidence, found = BEGUN, [verdict("started", 5.0, BEGUN)]
    stream: list[Unit] = []
    for some in parts:
        for end in range(70, len(some) + 70, 70):
            evidence = observe(evidence, [*stream, *some[:end]], some[0].weight)
        stream += some
        found.append(verdict("healthy", 50.0, evidence))
        evidence = next_weight_begins(evidence)
    return found


PARTS = [part(410, 500, 1, every=10), part(250, 5_000, 2, after=500, fails=True)]
UNITS = {Group.FAST: [unit for some in PARTS for unit in some]}


def test_every_verdict_comes_out_again() -> None:
    again = list(replay(BEGUN, UNITS, lived(PARTS)))

    assert [each.recorded.signal for each in again] == ["started", "healthy", "healthy"]
    assert [each.differences for each in again] == [[], [], []]
    assert again[-1].numbers["canary_units"] > again[1].numbers["canary_units"] > 0


def test_a_number_that_was_changed_is_named() -> None:
    recorded = lived(PARTS)
    touched = dict(recorded[-1].numbers)
    touched["errors.e"] = math.nextafter(touched["errors.e"], math.inf)
    recorded[-1] = replace(recorded[-1], numbers=touched)

    again = list(replay(BEGUN, UNITS, recorded))

    assert [each.differences for each in again] == [[], [], ["errors.e"]]


def test_units_that_are_gone_make_a_difference() -> None:
    again = list(replay(BEGUN, {Group.FAST: PARTS[0]}, lived(PARTS)))

    assert again[1].differences == []
    assert "canary_units" in again[2].differences


def test_a_look_that_ended_with_a_short_block_comes_out_again() -> None:
    stream = UNITS[Group.FAST]
    # The first unit of the new weight ends the block that was left at the old one.
    looked = observe(BEGUN, stream[:411], 5_000)
    assert looked.watermark == 410

    [again] = replay(BEGUN, UNITS, [verdict("pause", 50.0, looked)])

    assert again.differences == []


def test_other_rules_on_the_same_units() -> None:
    harmful = otherwise(PLAN, BEGUN, UNITS)
    harmless = {Group.FAST: part(6_000, 5_000, 1)}

    assert harmful.decision == "rolled back"
    assert 400 < harmful.units < 650
    # Notches promote by their length; only a plan with a budget promotes by proof.
    assert otherwise(PLAN, BEGUN, harmless).decision == "undecided"
    proven = otherwise(BUDGETED, BEGUN, harmless)
    assert (proven.decision, proven.canary_units >= 200) == ("promoted", True)
    assert otherwise(BUDGETED, BEGUN, {Group.FAST: part(100, 5_000, 1)}).decision == "undecided"
    assert otherwise(BUDGETED, BEGUN, {}).units == 0


def test_a_guard_that_the_release_did_not_have_learns_from_its_first_units() -> None:
    stricter = replace(BUDGETED, guards=(*WIDER, KNOWN["ttft_p95"]))
    slower = [
        replace(unit, values={**unit.values, "ttft_p95": 900.0})
        if unit.is_canary and unit.sequence > 300
        else unit
        for unit in part(2_000, 5_000, 1)
    ]

    assert otherwise(stricter, BEGUN, {Group.FAST: slower}).decision == "rolled back"
    assert otherwise(BUDGETED, BEGUN, {Group.FAST: slower}).decision != "rolled back"
