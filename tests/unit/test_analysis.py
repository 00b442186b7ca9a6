"""The live judge: what it says, and that it says nothing without evidence."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ratchet.core.analysis import (
    Pending,
    Recent,
    Sight,
    Verdict,
    breaker_limit,
    first_weight,
    judge,
    still_to_show,
)
from ratchet.core.artifact import VersionId
from ratchet.core.evidence import Evidence, first_evidence, next_weight_begins, observe, ready
from ratchet.core.findings import describe
from ratchet.core.guards import ERRORS, LATENCY, with_always
from ratchet.core.rollout import Release, ReleaseId, Signal, Stage, decide
from ratchet.core.spec import ReleasePlan
from tests.units import USUAL, drawn, units

PLAN = ReleasePlan(notches_percent=(5, 50, 100), harm_budget=None, units_per_notch=5)
BUDGET = ReleasePlan()
SEEN = Sight(seconds_since_record=0.5, canary_engine_down_seconds=0.0)
BEGUN = first_evidence(PLAN, USUAL)
CANARY = Release(
    id=ReleaseId("r"),
    project="p",
    candidate=VersionId("new"),
    baseline=VersionId("old"),
    notches_percent=(5, 50, 100),
    stage=Stage.CANARY,
)


def after(count: int, *, fails: bool = False, ms: float = 100.0, every: int = 20) -> Evidence:
    stream = units(count, canary_every=every, canary_fails=fails, canary_ms=ms, weight=500)
    return observe(BEGUN, stream, 500)


def said_of(evidence: Evidence, sight: Sight = SEEN, release: Release = CANARY) -> Verdict:
    return judge(release, PLAN, evidence, sight)


def test_too_few_answers_are_no_reason_for_anything() -> None:
    verdict = said_of(after(40))

    assert verdict.signal is None
    assert "2 of 5 canary answers" in verdict.because


def test_enough_answers_without_harm_are_a_climb() -> None:
    verdict = said_of(after(200))

    assert verdict.signal is Signal.HEALTHY
    assert "no evidence of harm" in verdict.because


def test_a_canary_that_fails_is_rolled_back_with_its_numbers() -> None:
    verdict = said_of(after(200, fails=True))

    assert verdict.signal is Signal.UNHEALTHY
    assert "10 of 10 canary answers failed, 0 of 190 baseline answers" in verdict.because


def test_a_slow_canary_is_rolled_back_for_its_latency() -> None:
    verdict = said_of(after(300, ms=400.0))

    assert verdict.signal is Signal.UNHEALTHY
    assert verdict.because.startswith("latency_p95: 15 of 15 canary answers took longer")


def test_a_canary_slower_within_the_margin_is_not_worse() -> None:
    assert after(300, ms=109.0).meter(LATENCY.name).log_harm <= 1e-9  # zero but for rounding


def test_silence_is_not_health() -> None:
    silent = replace(SEEN, seconds_since_record=PLAN.blind_hold_seconds + 1)

    assert said_of(after(200), silent).signal is Signal.BLIND


def test_harm_that_was_proven_rolls_back_even_when_nobody_sees_any_more() -> None:
    silent = replace(SEEN, seconds_since_record=999.0)

    assert said_of(after(200, fails=True), silent).signal is Signal.UNHEALTHY


def test_an_engine_that_stays_away_is_dead() -> None:
    gone = replace(SEEN, canary_engine_down_seconds=31.0)

    assert said_of(BEGUN, gone).signal is Signal.DEAD


def test_nobody_is_moved_onto_an_engine_that_is_not_there() -> None:
    lost = replace(SEEN, baseline_engine_down_seconds=3.0, canary_engine_down_seconds=31.0)

    verdict = said_of(after(200, fails=True), lost)

    assert verdict.signal is None
    assert "baseline's engine is down" in verdict.because


def test_a_paused_canary_does_not_climb() -> None:
    paused = replace(CANARY, stage=Stage.PAUSED)

    assert said_of(after(200), release=paused).signal is None


def test_a_frozen_canary_does_not_climb_and_still_falls() -> None:
    frozen = replace(SEEN, freeze="fri 16:00 - mon 08:00")

    climb, fall = said_of(after(200), frozen), said_of(after(200, fails=True), frozen)

    assert climb.signal is None
    assert "frozen (fri 16:00" in climb.because
    assert fall.signal is Signal.UNHEALTHY


def test_weak_evidence_of_harm_stops_the_climb_but_rolls_nothing_back() -> None:
    few = units(100, canary_every=10, weight=500)
    failed = units(20, canary_every=10, canary_fails=True, weight=500)

    verdict = said_of(observe(BEGUN, [*failed, *few[20:]], 500))

    assert verdict.signal is None
    assert "no climb" in verdict.because


def test_failures_in_a_row_open_the_breaker_while_the_baseline_is_well() -> None:
    row = Recent(canary_failures_in_a_row=6, baseline_units=100, baseline_failed=0)
    few = replace(row, canary_failures_in_a_row=4)

    verdict = said_of(BEGUN, replace(SEEN, recent=row))

    assert verdict.signal is Signal.DEAD
    assert "the last 6 canary answers failed, one after the other" in verdict.because
    assert said_of(BEGUN, replace(SEEN, recent=few)).signal is None


@pytest.mark.parametrize(
    ("baseline", "failed", "limit"),
    # The worse the baseline, the longer the row that means something.
    [(100, 0, 5), (100, 4, 7), (100, 10, 9), (100, 30, 16), (100, 50, None), (19, 0, None)],
)
def test_the_breaker_knows_how_often_the_baseline_fails(
    baseline: int, failed: int, limit: int | None
) -> None:
    assert breaker_limit(Recent(baseline_units=baseline, baseline_failed=failed)) == limit


def test_a_baseline_that_is_ill_is_nothing_to_be_promoted_against() -> None:
    ill = Recent(baseline_units=40, baseline_failed=25)

    verdict = said_of(after(200), replace(SEEN, recent=ill))

    assert verdict.signal is None
    assert "the baseline itself is ill: 25 of its last 40" in verdict.because


def test_a_wrong_split_is_a_question_for_a_person() -> None:
    stream = [replace(u, weight=500) for u in drawn(np.random.default_rng(3), 6_000, 1_000, (0, 0))]

    verdict = said_of(observe(BEGUN, stream, 500))

    assert verdict.signal is Signal.ASK
    assert "not split as asked: 5.00% were to go to the canary, 11" in verdict.because


def test_answers_that_never_end_on_both_sides_let_nothing_be_concluded() -> None:
    stream = [
        replace(unit, waiting_seconds=99.0) if number % 10 < 1 else unit
        for number, unit in enumerate(units(400, canary_every=19, weight=500))
    ]

    verdict = said_of(observe(BEGUN, ready(stream, 60.0).units, 500))

    assert verdict.signal is None
    assert "baseline answers did not end within 60 s" in verdict.because


def test_a_canary_that_stays_undecided_for_too_long_is_a_question_for_a_person() -> None:
    long = replace(SEEN, seconds_since_start=PLAN.max_duration_seconds + 1)

    verdict = said_of(after(60), long)

    assert verdict.signal is Signal.ASK
    assert "undecided" in verdict.because


def ramped(
    rates: tuple[float, float], *, slower: float = 1.0, blocks: int = 150, seed: int = 4,
    plan: ReleasePlan = BUDGET,
) -> tuple[Release, Evidence, list[str]]:  # fmt: skip
    """Play a harm-budgeted release, a hundred units every ten seconds."""
    chance = np.random.default_rng(seed)
    usual = {LATENCY.name: list(chance.lognormal(5.0, 0.4, 500))}
    evidence = first_evidence(plan, usual)
    release = replace(CANARY, notches_percent=(), ramp_weight=first_weight(plan, 10.0))
    said: list[str] = []
    for number in range(blocks):
        batch = drawn(
            chance, 100, release.weight, rates, slower=slower, after=number * 100,
            revision=number + 1,
        )  # fmt: skip
        evidence = observe(evidence, batch, release.weight)
        verdict = judge(release, plan, evidence, replace(SEEN, seconds_since_verdict=10.0))
        said.append(verdict.because)
        if verdict.signal is None:
            continue
        release = decide(release, verdict.signal, verdict.weight).release
        evidence = next_weight_begins(evidence)
        if release.stage.is_end or release.stage is Stage.HELD:
            break
    return release, evidence, said


def test_a_good_release_climbs_by_its_budget_and_is_promoted_by_proof() -> None:
    release, evidence, said = ramped((0.01, 0.01))

    assert release.stage is Stage.PROMOTED
    assert said[-1].startswith("proven after")
    assert any("four times as much" in words for words in said)
    numbers = describe(evidence)
    assert numbers["regression_max"] <= ERRORS.margin
    assert numbers["latency_p95.e_safe"] >= 100


def test_a_bad_release_is_rolled_back_and_costs_less_than_its_budget() -> None:
    release, evidence, _ = ramped((0.01, 0.2))

    assert release.stage is Stage.ROLLED_BACK
    assert evidence.fast.units.canary_units * 0.19 <= 100


def test_a_budget_that_is_spent_without_proof_is_a_question_for_a_person() -> None:
    release, _, said = ramped((0.02, 0.035), plan=replace(BUDGET, harm_budget=8.0))

    assert (release.stage, release.asks, release.weight) == (Stage.HELD, True, 0)
    assert "may be the whole harm budget of 8" in said[-1]


def test_a_release_that_is_slower_by_less_than_can_be_excluded_is_not_promoted() -> None:
    release, evidence, said = ramped((0.0, 0.0), slower=1.1)

    assert release.stage is Stage.CANARY
    assert "latency_p95 not worse by 10%" in said[-1]
    assert evidence.fast.units.canary_units > 500


def test_a_guard_that_need_not_be_proven_keeps_nobody_waiting() -> None:
    relaxed = replace(LATENCY, must_be_proven=False)
    plan = replace(BUDGET, guards=with_always([relaxed]))

    assert ramped((0.0, 0.0), slower=1.1, plan=plan)[0].stage is Stage.PROMOTED


def test_before_there_is_proof_it_is_said_what_is_missing_and_how_long_it_may_take() -> None:
    _, _, said = ramped((0.01, 0.01), blocks=12)

    assert any("still to be shown" in words for words in said)
    assert any("canary answers more" in words for words in said)


def test_few_answers_are_no_proof_however_good_they_look() -> None:
    known = first_evidence(BUDGET, {LATENCY.name: [100.0, 150.0] * 40})
    release = replace(CANARY, notches_percent=(), ramp_weight=500)
    verdict = judge(release, BUDGET, known, SEEN)

    assert verdict.signal is None
    assert "at most 1.00% more answers fail; latency_p95 not worse by 10%" in verdict.because


def test_wide_margins_are_soon_shown_and_still_ask_for_enough_answers() -> None:
    wide = with_always([replace(ERRORS, margin=0.5), replace(LATENCY, margin=5.0, tolerance=5.0)])
    evidence = first_evidence(replace(BUDGET, guards=wide), USUAL)

    seen = observe(evidence, units(240, canary_every=2), 5_000)

    assert still_to_show(seen) == ["200 canary answers"]


def test_what_would_be_promoted_waits_for_its_time_and_for_a_person() -> None:
    _, evidence, _ = ramped((0.01, 0.01))
    half = replace(CANARY, notches_percent=(), ramp_weight=5_000)
    plan = replace(BUDGET, min_duration_seconds=600.0, needs_approval=True)

    early = judge(half, plan, evidence, replace(SEEN, seconds_since_start=60.0))
    then = judge(half, plan, evidence, replace(SEEN, seconds_since_start=601.0))
    paused = decide(half, Signal.PAUSE).release

    assert early.signal is None
    assert early.because.endswith("not promoted before 540 s more (min_duration)")
    assert then.signal is Signal.PAUSE
    assert then.because.startswith("proven after")
    assert then.because.endswith("a person must promote it (approval)")
    # It stays so, still judged, until the person says so.
    assert judge(paused, plan, evidence, SEEN).signal is None
    assert decide(paused, Signal.PROMOTE).release.stage is Stage.PROMOTED


def test_a_notch_has_its_time_and_only_the_last_step_asks() -> None:
    plan = replace(PLAN, seconds_per_notch=300.0, needs_approval=True)
    calm, second = after(200), replace(CANARY, notch=1)

    early = judge(CANARY, plan, calm, replace(SEEN, seconds_since_verdict=100.0))
    late = replace(SEEN, seconds_since_verdict=301.0)

    assert (early.signal, early.because) == (None, "200 s more at 5 % (time_per_notch)")
    assert judge(CANARY, plan, calm, late).signal is Signal.HEALTHY
    assert judge(second, plan, calm, late).signal is Signal.PAUSE


def test_nobody_is_moved_to_an_engine_that_is_just_down() -> None:
    _, evidence, _ = ramped((0.01, 0.01))
    down = replace(SEEN, canary_engine_down_seconds=4.0, seconds_since_verdict=60.0)

    said = judge(replace(CANARY, notches_percent=(), ramp_weight=5_000), BUDGET, evidence, down)

    assert (said.signal, said.because) == (None, "the canary's engine is down for 4 s")


def test_a_weight_is_what_the_engines_can_take_and_a_promotion_needs_all_of_it() -> None:
    release, evidence, said = ramped((0.01, 0.01))
    assert release.stage is Stage.PROMOTED
    assert said[-1].startswith("proven after")
    small = replace(SEEN, capacity_share=0.3, seconds_since_verdict=60.0)
    half = replace(CANARY, notches_percent=(), ramp_weight=5_000)

    waits = judge(half, BUDGET, evidence, small)
    there = judge(half, BUDGET, evidence, replace(small, capacity_share=1.0))

    assert (waits.signal, waits.weight) == (Signal.MOVE, 3_000)
    assert "30.0%, as much as its engines can take" in waits.because
    assert there.signal is Signal.HEALTHY
    at_most = replace(half, ramp_weight=3_000)
    assert "engines for all of the traffic: they can take 30%" in (
        judge(at_most, BUDGET, evidence, small).because
    )


def test_answers_that_are_not_judged_yet_count_as_shown() -> None:
    release = replace(CANARY, notches_percent=(), ramp_weight=500)
    evidence = observe(first_evidence(BUDGET, USUAL), units(400, canary_every=20), 500)
    due = replace(SEEN, seconds_since_verdict=10.0)
    hanging = replace(due, pending=Pending(canary_units=180, weight_units=1_800))

    free, careful = (judge(release, BUDGET, evidence, sight) for sight in (due, hanging))

    assert (free.signal, free.weight) == (Signal.MOVE, 2_000)
    assert careful.signal is Signal.MOVE
    assert careful.weight is not None
    assert careful.weight < 500


@pytest.mark.parametrize(
    ("budget", "per_second", "weight"),
    [(100, 0, 500), (100, 10, 500), (100, 1000, 10), (5, 1e6, 1)],
)
def test_with_much_traffic_a_canary_begins_with_less(
    budget: float, per_second: float, weight: int
) -> None:
    assert first_weight(replace(BUDGET, harm_budget=budget), per_second) == weight


HELD_BACK = replace(CANARY, stage=Stage.HOLDBACK, holdback_weight=500)
HOLDING = replace(BUDGET, holdback_seconds=3_600.0)


def test_a_holdback_goes_on_judging_with_the_roles_swapped() -> None:
    # One in twenty still has the old version, and it does better.
    swapped = [
        replace(unit, is_canary=not unit.is_canary, values=other.values, weight=9_500)
        for unit, other in zip(
            units(400, canary_every=20),
            units(400, canary_every=20, canary_fails=True),
            strict=True,
        )
    ]
    worse = [
        replace(unit, values=units(1, canary_every=1, canary_fails=True)[0].values)
        if unit.is_canary and unit.sequence % 3 == 0
        else replace(unit, values=units(1, canary_every=2)[0].values)
        for unit in swapped
    ]

    quiet = judge(HELD_BACK, HOLDING, first_evidence(HOLDING, USUAL), SEEN)
    harmed = judge(HELD_BACK, HOLDING, observe(first_evidence(HOLDING, USUAL), worse, 9_500), SEEN)

    assert quiet.signal is None
    assert "5% keep the old version, 60 minutes more" in quiet.because
    assert harmed.signal is Signal.UNHEALTHY
    assert decide(HELD_BACK, Signal.UNHEALTHY).release.stage is Stage.ROLLED_BACK


def test_a_holdback_ends_when_its_time_is_over_or_its_engine_is_gone() -> None:
    over = replace(SEEN, seconds_since_verdict=3_601.0)
    gone = replace(SEEN, baseline_engine_down_seconds=31.0)

    for sight in (over, gone):
        assert judge(HELD_BACK, HOLDING, BEGUN, sight).signal is Signal.OVER
    died = judge(HELD_BACK, HOLDING, BEGUN, replace(SEEN, canary_engine_down_seconds=31.0))
    assert died.signal is Signal.DEAD
