"""Units become evidence in order, in whole blocks, whenever one looks."""

from __future__ import annotations

import json
import math
import random
from dataclasses import replace

import numpy as np
import pytest

from ratchet.adapters.postgres.evidence import evidence_from_json, evidence_to_json
from ratchet.core.evidence import (
    BLOCK_UNITS,
    CENSORED,
    EPOCH_UNITS,
    Evidence,
    Unit,
    first_evidence,
    next_weight_begins,
    observe,
    ready,
)
from ratchet.core.findings import describe
from ratchet.core.guards import KNOWN, Group, Guard, Kind, with_always
from ratchet.core.meters import Reference, TimeMeter
from ratchet.core.spec import ReleasePlan
from tests.units import USUAL, answered, drawn, units

PLAN = ReleasePlan()
EVERYTHING = replace(
    PLAN,
    guards=with_always(
        [
            *(g for g in KNOWN.values() if g.group is Group.FAST),
            KNOWN["thumbs_down"],
            Guard(name="helpful", kind=Kind.SCORE, group=Group.JUDGED, margin=0.05),
        ]
    ),
)
BEGUN = first_evidence(PLAN, USUAL)


def scale_of(evidence: Evidence) -> Reference:
    meter = evidence.meter("latency_p95")
    assert isinstance(meter, TimeMeter)
    return meter.reference


def test_units_that_were_taken_are_not_taken_twice() -> None:
    first = observe(BEGUN, units(120, canary_every=6), 1666)

    again = observe(first, units(120, canary_every=6), 1666)

    assert evidence_to_json(again) == evidence_to_json(first)


def test_what_is_left_of_a_block_waits_for_more() -> None:
    some = observe(BEGUN, units(BLOCK_UNITS + 3, canary_every=5), 2000)

    assert some.fast.units.units == BLOCK_UNITS
    assert some.watermark == BLOCK_UNITS


def test_a_change_of_weight_ends_a_block_and_stragglers_are_counted_not_judged() -> None:
    before = units(25, canary_every=5, weight=500, revision=7)
    late = replace(units(1, canary_every=1, after=30)[0], weight=500, revision=7)
    after = [
        *units(5, canary_every=5, after=25, weight=2000, revision=8),
        late,
        *units(15, canary_every=5, after=31, weight=2000, revision=8),
    ]

    waiting = observe(BEGUN, before, 500)
    seen = observe(next_weight_begins(waiting), [*before, *after], 2000)

    assert waiting.fast.units.units == 20
    # Twenty, the five that were left at the old weight, and twenty at the new one.
    assert seen.fast.units.units == 45
    assert (seen.fast.revision, seen.fast.stragglers) == (8, 1)
    assert (seen.notch_units, seen.weight_units) == (4, 20)


def test_an_answer_that_has_not_ended_keeps_back_those_behind_it() -> None:
    stream = units(30, canary_every=5)
    stream[10] = replace(stream[10], values={}, waiting_seconds=3.0)

    known = ready(stream, deadline_seconds=60.0)

    assert len(known.units) == 10
    assert known.censored == ()
    assert observe(BEGUN, known.units, 2000).watermark == 0


def test_an_answer_that_never_ends_counts_as_failed_on_its_own_side() -> None:
    stream = units(40, canary_every=5)
    stream[9] = replace(stream[9], values={}, waiting_seconds=61.0)

    known = ready(stream, deadline_seconds=60.0)
    evidence = observe(BEGUN, known.units, 2000)

    assert known.censored == (10,)
    assert known.units[9].values == CENSORED
    assert (evidence.censored.total, evidence.censored.canary_total) == (1, 1)
    assert describe(evidence)["canary_failed"] == 1


def test_a_canary_that_hangs_while_the_baseline_answers_is_harm() -> None:
    stream = [
        replace(unit, values={}, waiting_seconds=61.0) if unit.is_canary else unit
        for unit in units(200, canary_every=10)
    ]

    evidence = observe(BEGUN, ready(stream, 60.0).units, 1000)

    assert evidence.log_harm > math.log(100)


def test_the_reference_is_frozen_from_the_baseline_before_it_is_bet_on() -> None:
    begun = first_evidence(PLAN, {})
    waiting = observe(begun, units(40, canary_every=20), 500)
    assert scale_of(waiting).scale is None
    assert len(scale_of(waiting).warming) == 38

    frozen = observe(waiting, units(40, canary_every=20, after=40), 500)

    scale = scale_of(frozen).scale
    assert scale is not None
    assert scale.values() == pytest.approx([100.0] * 5)
    assert scale_of(frozen).warming == ()
    # Only the block after that was judged, and the canary was not slower in it.
    assert -0.1 < frozen.meter("latency_p95").log_harm <= 1e-9


def test_quantiles_need_enough_answers() -> None:
    scale = Reference.of([float(i) for i in range(1, 101)], is_logarithmic=True).scale

    assert Reference.of([1.0] * 49, is_logarithmic=True).scale is None
    assert scale is not None
    assert scale.values() == pytest.approx([51.0, 76.0, 91.0, 96.0, 100.0])


def test_another_weight_counts_from_zero_and_keeps_the_evidence() -> None:
    evidence = observe(BEGUN, units(200, canary_every=20), 500)

    after = next_weight_begins(evidence)

    assert (evidence.notch_units, after.notch_units) == (10, 0)
    assert after.log_harm == evidence.log_harm
    assert describe(after)["canary_units"] == 10.0


def test_harm_that_begins_late_is_seen_sooner_with_new_capital() -> None:
    evidence = first_evidence(PLAN, {})
    for number in range(EPOCH_UNITS // 100 + 2):
        evidence = observe(evidence, units(100, canary_every=5, after=100 * number), 2000)

    assert evidence.fast.epochs == 1


def stream_of(chance: random.Random, count: int) -> list[Unit]:
    """All that there is: failures, missing values, changes of weight, stragglers."""
    found, revision = [], 1
    for number in range(1, count + 1):
        revision += chance.random() < 0.01
        values = dict(
            answered(
                failed=chance.random() < 0.03,
                ms=chance.lognormvariate(5.0, 0.4),
                tokens=chance.choice([None, 0, 5, 20]),
                usd=chance.choice([None, 0.001]),
            ),
            thumbs_down=float(chance.random() < 0.02),
            helpful=chance.choice([0.0, 0.5, 1.0, math.nan]),
        )
        is_late = chance.random() < 0.01 and revision > 1
        found.append(
            Unit(number, chance.random() < 0.3, values, 3_000, revision - is_late)
        )  # fmt: skip
    return found


@pytest.mark.parametrize("kills_min", [200, pytest.param(1_000, marks=pytest.mark.deep)])
def test_a_judge_that_is_killed_again_and_again_knows_bit_for_bit_the_same(kills_min: int) -> None:
    """After each kill it begins with what was saved last, whenever it looks."""
    chance = random.Random(9)
    stream = stream_of(chance, 9 * kills_min)
    begun = first_evidence(EVERYTHING, USUAL)

    def seen(evidence: Evidence, until: int) -> Evidence:
        for group in EVERYTHING.groups:
            after = evidence.streams[group].watermark
            evidence = observe(evidence, stream[after:until], 3_000, group)
        return evidence

    undisturbed = seen(begun, len(stream))
    saved, there, kills = evidence_to_json(begun), 0, 0
    while there < len(stream) or kills < kills_min:
        there = min(len(stream), there + chance.randrange(18))
        # It looks, and may be killed before what it found is saved.
        looked = seen(evidence_from_json(json.loads(json.dumps(saved)), EVERYTHING), there)
        if chance.random() < 0.6 and kills < kills_min:
            kills += 1
            continue
        saved = evidence_to_json(looked)

    assert kills >= kills_min
    assert saved == evidence_to_json(undisturbed)


def test_every_kind_of_guard_survives_json_bit_for_bit() -> None:
    evidence = first_evidence(EVERYTHING, {})
    stream = stream_of(random.Random(2), 400)
    for group in EVERYTHING.groups:
        evidence = observe(evidence, stream, 3_000, group)

    read = evidence_from_json(json.loads(json.dumps(evidence_to_json(evidence))), EVERYTHING)

    assert evidence_to_json(read) == evidence_to_json(evidence)
    assert describe(read) == describe(evidence)


def test_of_an_older_judges_evidence_the_place_is_kept() -> None:
    old = {"watermark": 7, "notch_units": 3, "errors": {"log_capital": [0.0] * 16}, "latency": []}

    read = evidence_from_json(old, PLAN)

    assert read.watermark == 7
    assert read.log_harm == pytest.approx(0.0)


def test_units_of_one_arm_alone_prove_nothing() -> None:
    alone = observe(BEGUN, units(100, canary_every=1, weight=10_000), 10_000)

    assert alone.log_harm == pytest.approx(0.0)
    assert describe(alone)["regression_max"] == 1.0


def test_a_wrong_split_is_noticed_and_a_right_one_is_not() -> None:
    chance = np.random.default_rng(3)
    right = observe(BEGUN, drawn(chance, 20_000, 500), 500)
    wrong = [replace(unit, weight=500) for unit in drawn(chance, 20_000, 700)]

    assert right.split.log_e < math.log(1000)
    assert observe(BEGUN, wrong, 500).split.log_e > math.log(1000)
