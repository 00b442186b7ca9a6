"""The live judge: what it says, and that it says nothing without evidence."""

from __future__ import annotations

import json
import random
from dataclasses import replace

import numpy as np
import pytest

from ratchet.adapters.postgres.codec import evidence_from_json, evidence_to_json
from ratchet.core.analysis import (
    EPOCH_UNITS,
    Evidence,
    Sight,
    Unit,
    describe,
    first_evidence,
    first_weight,
    freeze_reference,
    judge,
    next_weight_begins,
    observe,
)
from ratchet.core.artifact import VersionId
from ratchet.core.rollout import Release, ReleaseId, Signal, Stage, decide
from ratchet.core.spec import ReleasePlan

PLAN = ReleasePlan(units_per_notch=5)
SEEN = Sight(seconds_since_record=0.5, canary_engine_down_seconds=0.0)
REFERENCE = freeze_reference([60.0 + number for number in range(100)])
CANARY = Release(
    id=ReleaseId("r"),
    project="p",
    candidate=VersionId("new"),
    baseline=VersionId("old"),
    notches_percent=(5, 50, 100),
    stage=Stage.CANARY,
)


def units(
    count: int, *, canary_every: int, canary_fails: bool = False, canary_ms: float = 100.0
) -> list[Unit]:
    """Units in which every so many is the canary's; the baseline takes 100 ms and never fails."""
    found = []
    for number in range(1, count + 1):
        is_canary = number % canary_every == 0
        found.append(
            Unit(
                sequence=number,
                is_canary=is_canary,
                failed=is_canary and canary_fails,
                duration_ms=canary_ms if is_canary else 100.0,
            )
        )
    return found


def test_too_few_answers_are_no_reason_for_anything() -> None:
    evidence = observe(Evidence(), units(40, canary_every=20), 0.1)

    verdict = judge(CANARY, PLAN, evidence, SEEN)

    assert verdict.signal is None
    assert "2 of 5 canary answers" in verdict.because


def test_enough_answers_without_harm_are_a_climb() -> None:
    evidence = observe(Evidence(), units(200, canary_every=20), 0.1)

    verdict = judge(CANARY, PLAN, evidence, SEEN)

    assert verdict.signal is Signal.HEALTHY
    assert "no evidence of harm" in verdict.because


def test_a_canary_that_fails_is_rolled_back_with_its_numbers() -> None:
    evidence = observe(Evidence(), units(200, canary_every=20, canary_fails=True), 0.1)

    verdict = judge(CANARY, PLAN, evidence, SEEN)

    assert verdict.signal is Signal.UNHEALTHY
    assert "10 of 10 canary answers failed, 0 of 190 baseline answers" in verdict.because


def test_a_slow_canary_is_rolled_back_for_its_latency() -> None:
    known = Evidence(scale=REFERENCE)

    evidence = observe(known, units(300, canary_every=20, canary_ms=400.0), 0.1)
    verdict = judge(CANARY, PLAN, evidence, SEEN)

    assert verdict.signal is Signal.UNHEALTHY
    assert verdict.because.startswith("latency: 15 of 15 canary answers took longer")


def test_a_canary_slower_within_the_margin_is_not_worse() -> None:
    known = Evidence(scale=REFERENCE)

    evidence = observe(known, units(300, canary_every=20, canary_ms=109.0), 0.1)

    assert evidence.log_e_latency <= 1e-9  # zero but for rounding


def test_silence_is_not_health() -> None:
    evidence = observe(Evidence(), units(200, canary_every=20), 0.1)
    silent = replace(SEEN, seconds_since_record=PLAN.blind_hold_seconds + 1)

    assert judge(CANARY, PLAN, evidence, silent).signal is Signal.BLIND


def test_harm_that_was_proven_rolls_back_even_when_nobody_sees_any_more() -> None:
    evidence = observe(Evidence(), units(200, canary_every=20, canary_fails=True), 0.1)
    silent = replace(SEEN, seconds_since_record=999.0)

    assert judge(CANARY, PLAN, evidence, silent).signal is Signal.UNHEALTHY


def test_an_engine_that_stays_away_is_dead() -> None:
    gone = replace(SEEN, canary_engine_down_seconds=31.0)

    assert judge(CANARY, PLAN, Evidence(), gone).signal is Signal.DEAD


def test_a_paused_canary_does_not_climb() -> None:
    evidence = observe(Evidence(), units(200, canary_every=20), 0.1)
    paused = replace(CANARY, stage=Stage.PAUSED)

    assert judge(paused, PLAN, evidence, SEEN).signal is None


def test_weak_evidence_of_harm_stops_the_climb_but_rolls_nothing_back() -> None:
    few = units(100, canary_every=10)
    few[9] = replace(few[9], failed=True)
    few[19] = replace(few[19], failed=True)

    evidence = observe(Evidence(), few, 0.1)
    verdict = judge(CANARY, PLAN, evidence, SEEN)

    assert verdict.signal is None
    assert "no climb" in verdict.because


def test_units_that_were_taken_are_not_taken_twice() -> None:
    first = observe(Evidence(), units(120, canary_every=6), 0.1)

    again = observe(first, units(120, canary_every=6), 0.1)

    assert evidence_to_json(again) == evidence_to_json(first)


def test_the_reference_is_frozen_from_the_baseline_before_it_is_bet_on() -> None:
    few = [u for u in units(40, canary_every=20)]
    waiting = observe(Evidence(), few, 0.1)
    assert waiting.scale is None
    assert len(waiting.warming_ms) == 38

    more = [replace(u, sequence=u.sequence + 40) for u in units(40, canary_every=20)]
    frozen = observe(waiting, more, 0.1)

    assert frozen.scale is not None
    assert frozen.scale.values() == pytest.approx([100.0] * 5)
    assert frozen.warming_ms == ()
    # Only the block after that was judged, and the canary was not slower in it.
    assert -0.1 < frozen.log_e_latency <= 1e-9


def test_quantiles_need_enough_answers() -> None:
    scale = freeze_reference([float(i) for i in range(1, 101)])

    assert freeze_reference([1.0] * 49) is None
    assert scale is not None
    assert scale.values() == pytest.approx([51.0, 76.0, 91.0, 96.0, 100.0])


def test_a_new_notch_counts_from_zero_and_keeps_the_evidence() -> None:
    evidence = observe(Evidence(), units(200, canary_every=20), 0.1)

    after = next_weight_begins(evidence)

    assert after.notch_units == 0
    assert after.log_e == evidence.log_e
    assert describe(after)["canary_units"] == 10.0


def test_replaying_the_same_units_gives_the_same_bits() -> None:
    chance = random.Random(5)
    stream = [
        Unit(i, chance.random() < 0.2, chance.random() < 0.05, chance.expovariate(0.01))
        for i in range(1, 1500)
    ]
    known = Evidence(scale=REFERENCE)

    once, twice = (evidence_to_json(observe(known, stream, 0.1)) for _ in range(2))
    assert once == twice


def test_harm_that_begins_late_is_seen_sooner_with_new_capital() -> None:
    evidence = Evidence()
    for number in range(EPOCH_UNITS // 100 + 2):
        batch = [replace(u, sequence=u.sequence + number * 100) for u in units(100, canary_every=5)]
        evidence = observe(evidence, batch, 0.1)

    assert evidence.epochs == 1
    assert evidence.errors.capital.epoch == 1


BUDGET = ReleasePlan(notches_percent=(), harm_budget=100)


def ramped(
    rates: tuple[float, float], *, slower: float = 1.0, blocks: int = 150, seed: int = 4
) -> tuple[Release, Evidence, list[str]]:
    """Play a harm-budgeted release, a block of 100 units every ten seconds."""
    chance = np.random.default_rng(seed)
    evidence = first_evidence(BUDGET, list(chance.lognormal(5.0, 0.4, 500)))
    release = replace(CANARY, notches_percent=(), ramp_weight=first_weight(BUDGET))
    said: list[str] = []
    for number in range(blocks):
        is_canary = chance.random(100) < release.weight / 10_000
        failed = chance.random(100) < np.where(is_canary, rates[1], rates[0])
        durations = chance.lognormal(5.0, 0.4, 100) * np.where(is_canary, slower, 1.0)
        batch = [
            Unit(number * 100 + place + 1, bool(c), bool(f), float(ms))
            for place, (c, f, ms) in enumerate(zip(is_canary, failed, durations, strict=True))
        ]
        evidence = observe(evidence, batch, BUDGET.latency_margin, release.weight)
        verdict = judge(release, BUDGET, evidence, replace(SEEN, seconds_since_verdict=10.0))
        said.append(verdict.because)
        if verdict.signal is None:
            continue
        release = decide(release, verdict.signal, verdict.weight).release
        evidence = next_weight_begins(evidence)
        if release.stage.is_end:
            break
    return release, evidence, said


def test_a_good_release_climbs_by_its_budget_and_is_promoted_by_proof() -> None:
    release, evidence, said = ramped((0.01, 0.01))

    assert release.stage is Stage.PROMOTED
    assert said[-1].startswith("proven after")
    assert any("four times as much" in words for words in said)
    assert describe(evidence)["regression_max"] <= BUDGET.errors_margin
    assert describe(evidence)["e_not_slower"] >= 100


def test_a_bad_release_is_rolled_back_and_costs_less_than_its_budget() -> None:
    release, evidence, _ = ramped((0.01, 0.2))

    assert release.stage is Stage.ROLLED_BACK
    assert evidence.failed.canary_units * 0.19 <= 100


def test_a_release_that_is_slower_by_less_than_can_be_excluded_is_not_promoted() -> None:
    release, evidence, said = ramped((0.0, 0.0), slower=1.1)

    assert release.stage is Stage.CANARY
    assert "not slower by 10%" in said[-1]
    assert evidence.failed.canary_units > 500


def test_before_there_is_proof_it_is_said_what_is_missing() -> None:
    _, _, said = ramped((0.01, 0.01), blocks=3)

    assert "budget" in said[0] or "still to be shown" in said[0]


def test_few_answers_are_no_proof_however_good_they_look() -> None:
    known = first_evidence(BUDGET, [100.0, 150.0] * 40)
    release = replace(CANARY, notches_percent=(), ramp_weight=500)
    verdict = judge(release, BUDGET, known, SEEN)

    assert verdict.signal is None
    assert "that at most 1.00% more answers fail and that they are not slower" in verdict.because


def test_units_of_one_arm_alone_prove_nothing() -> None:
    known = first_evidence(BUDGET, [])
    alone = observe(known, units(100, canary_every=1), 0.1, 10_000)

    assert alone.safety is not None
    assert alone.safety.regression_max == 1.0


def test_a_judge_that_is_killed_again_and_again_decides_bit_for_bit_the_same() -> None:
    """A thousand kills: after each it begins with what was saved last, whenever it looks."""
    chance = random.Random(9)
    stream = [
        Unit(i, chance.random() < 0.3, chance.random() < 0.03, chance.lognormvariate(5.0, 0.4))
        for i in range(1, 12_001)
    ]
    begun = first_evidence(BUDGET, [100.0, 150.0, 200.0] * 40)
    undisturbed = observe(begun, stream, 0.1, 3_000)

    saved, there, kills = begun, 0, 0
    while there < len(stream) or kills < 1_000:
        there = min(len(stream), there + chance.randrange(40))
        looked = observe(saved, stream[:there], 0.1, 3_000)
        if chance.random() < 0.8:
            kills += 1  # before it could save
            continue
        saved = evidence_from_json(json.loads(json.dumps(evidence_to_json(looked))))
    saved = observe(saved, stream, 0.1, 3_000)

    assert kills >= 1_000
    assert evidence_to_json(saved) == evidence_to_json(undisturbed)


def test_units_that_make_no_block_yet_wait() -> None:
    some = observe(Evidence(), units(30, canary_every=5), 0.1)
    more = observe(some, units(45, canary_every=5), 0.1)

    assert (some.watermark, some.failed.units) == (20, 20)
    assert (more.watermark, more.failed.units) == (40, 40)
