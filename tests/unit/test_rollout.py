"""The release's table: every legal move, and that illegal ones change nothing."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratchet.core.artifact import VersionId
from ratchet.core.errors import Rejected
from ratchet.core.rollout import (
    MOVES,
    MakeBaseline,
    Release,
    ReleaseId,
    RetireEngine,
    SetCanaryWeight,
    Signal,
    Stage,
    decide,
    diagram,
)
from ratchet.core.spec import ReleasePlan

OLD, NEW = VersionId("v_old"), VersionId("v_new")


def fresh(**changes: object) -> Release:
    values: dict[str, object] = {
        "id": ReleaseId("r1"),
        "project": "p",
        "candidate": NEW,
        "baseline": OLD,
        "notches_percent": (5, 50, 100),
        **changes,
    }
    return Release(**values)  # type: ignore[arg-type]


def play(release: Release, *signals: Signal) -> tuple[Release, list[object]]:
    """Feed signals in order; answer the last release and every command issued."""
    issued: list[object] = []
    for signal in signals:
        decision = decide(release, signal)
        release = decision.release
        issued += decision.commands
    return release, issued


def test_a_healthy_release_climbs_every_notch_then_becomes_the_baseline() -> None:
    release, issued = play(fresh(), Signal.READY, Signal.HEALTHY, Signal.HEALTHY)

    assert release.stage is Stage.PROMOTED
    assert issued == [
        SetCanaryWeight(500),
        SetCanaryWeight(5000),
        SetCanaryWeight(10_000),
        MakeBaseline(NEW),
        RetireEngine(OLD),
    ]


def test_evidence_of_harm_takes_the_canary_to_zero_and_retires_its_engine() -> None:
    release, issued = play(fresh(), Signal.READY, Signal.UNHEALTHY)

    assert release.stage is Stage.ROLLED_BACK
    assert issued[-2:] == [SetCanaryWeight(0), RetireEngine(NEW)]


def test_a_hold_takes_the_weight_and_a_resume_gives_back_the_same_notch() -> None:
    climbed, _ = play(fresh(), Signal.READY, Signal.HEALTHY)

    held, issued = play(climbed, Signal.BLIND)
    resumed, after = play(held, Signal.RESUME)

    assert (held.weight_percent, issued) == (0, [SetCanaryWeight(0)])
    assert (resumed.stage, after) == (Stage.CANARY, [SetCanaryWeight(5000)])


def test_a_pause_keeps_the_weight_and_harm_still_rolls_back() -> None:
    paused, issued = play(fresh(), Signal.READY, Signal.PAUSE)

    assert (paused.weight_percent, issued) == (5, [SetCanaryWeight(500)])
    assert play(paused, Signal.UNHEALTHY)[0].stage is Stage.ROLLED_BACK


def test_a_promoted_release_goes_back_to_the_old_baseline_when_a_person_says_so() -> None:
    promoted, _ = play(fresh(), Signal.READY, Signal.PROMOTE)

    back, issued = play(promoted, Signal.ABORT)

    assert back.stage is Stage.ROLLED_BACK
    assert MakeBaseline(OLD) in issued
    assert SetCanaryWeight(0) in issued


def test_after_a_promotion_some_keep_the_old_version_until_the_holdback_is_over() -> None:
    canary, _ = play(fresh(holdback_weight=500), Signal.READY)

    held_back, issued = play(canary, Signal.PROMOTE)
    over, after = play(held_back, Signal.OVER)
    back, returned = play(held_back, Signal.UNHEALTHY)

    assert (held_back.stage, held_back.weight) == (Stage.HOLDBACK, 9_500)
    assert issued == [SetCanaryWeight(9_500), MakeBaseline(NEW)]
    assert (over.stage, over.weight) == (Stage.PROMOTED, 10_000)
    assert RetireEngine(OLD) in after
    assert (back.stage, back.weight) == (Stage.ROLLED_BACK, 0)
    assert MakeBaseline(OLD) in returned


def test_a_person_who_is_asked_gives_more_or_decides() -> None:
    asked, issued = play(fresh(), Signal.READY, Signal.ASK)

    extended, _ = play(asked, Signal.EXTEND)
    promoted, _ = play(asked, Signal.PROMOTE)

    assert (asked.stage, asked.asks, issued[-1]) == (Stage.HELD, True, SetCanaryWeight(0))
    assert (extended.stage, extended.asks, extended.weight) == (Stage.CANARY, False, 500)
    assert promoted.stage is Stage.PROMOTED


def test_a_release_that_never_had_traffic_moves_none_when_it_is_given_up() -> None:
    for signal in (Signal.DEAD, Signal.ABORT):
        gone, issued = play(fresh(), signal)

        assert gone.stage is Stage.ROLLED_BACK
        assert issued == [RetireEngine(NEW)]


@pytest.mark.parametrize("stage", list(Stage))
@pytest.mark.parametrize("signal", list(Signal))
def test_a_pair_that_is_not_in_the_table_is_refused_by_name(stage: Stage, signal: Signal) -> None:
    if (stage, signal) in MOVES:
        # Only where the weight is chosen is there another to choose.
        notches = () if signal is Signal.MOVE else (5, 50, 100)
        decide(fresh(stage=stage, notches_percent=notches), signal)
        return

    with pytest.raises(Rejected, match=stage.value):
        decide(fresh(stage=stage), signal)


@given(st.lists(st.sampled_from(Signal), max_size=14))
def test_a_release_that_fell_back_serves_nobody_and_weights_follow_the_stage(
    signals: list[Signal],
) -> None:
    release, weight = fresh(), 0
    for signal in signals:
        with contextlib.suppress(Rejected):
            decision = decide(release, signal)
            release = decision.release
            for command in decision.commands:
                if isinstance(command, SetCanaryWeight):
                    weight = command.weight
        assert weight == release.weight

    if release.stage is Stage.ROLLED_BACK:
        assert weight == 0


def test_a_chosen_weight_is_moved_and_health_is_proof() -> None:
    release = decide(fresh(notches_percent=(), ramp_weight=500), Signal.READY).release

    moved = decide(release, Signal.MOVE, 1234)
    proven = decide(moved.release, Signal.HEALTHY)

    assert (release.weight, moved.release.weight, moved.release.weight_percent) == (
        500,
        1234,
        12.34,
    )
    assert moved.commands == (SetCanaryWeight(1234),)
    assert proven.release.stage is Stage.PROMOTED


def test_a_release_with_notches_is_not_moved_between_them() -> None:
    canary = decide(fresh(), Signal.READY).release

    with pytest.raises(Rejected, match="by notches"):
        decide(canary, Signal.MOVE, 1234)


def test_every_decision_counts_the_version_up() -> None:
    release, _ = play(fresh(version=4), Signal.READY, Signal.PAUSE)

    assert release.version == 6


def test_the_diagram_in_the_reference_is_drawn_from_the_table() -> None:
    page = Path(__file__).parents[2] / "docs" / "reference" / "release-states.md"

    assert diagram() in page.read_text()
    assert "canary --> promoted: healthy" in diagram()


@pytest.mark.parametrize("notches", [(), (5, 50), (50, 5, 100), (5, 5, 100), (0, 100)])
def test_notches_rise_from_at_least_one_to_all(notches: tuple[int, ...]) -> None:
    with pytest.raises(Rejected, match="notches must"):
        ReleasePlan(notches_percent=notches, harm_budget=None)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"harm_budget": 0.0}, "above 0"),
        ({"notches_percent": (5, 100)}, "either notches or harm_budget"),
        ({"holdback_share": 0.6}, "holdback_share"),
        ({"freeze": ("friday",)}, "fri 16:00"),
    ],
)
def test_a_plan_that_cannot_be_meant_is_refused(changes: dict[str, object], words: str) -> None:
    with pytest.raises(Rejected, match=words):
        ReleasePlan(**changes)  # type: ignore[arg-type]
