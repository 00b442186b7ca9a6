"""Runs and attempts: legal moves, and when a stage is tried again."""

from __future__ import annotations

import pytest

from ratchet.core.errors import Rejected
from ratchet.core.run import (
    ATTEMPTS_MAX,
    AttemptOutcome,
    AttemptState,
    RunState,
    check_run_move,
    next_attempt,
)


def test_a_stage_begins_with_its_first_attempt() -> None:
    assert next_attempt(None) == 1


@pytest.mark.parametrize("state", ["wanted", "running", "succeeded"])
def test_an_attempt_that_lives_or_did_it_needs_no_other(state: str) -> None:
    assert next_attempt(AttemptOutcome(1, AttemptState(state), "")) is None


def test_a_lost_attempt_is_tried_again_until_it_is_too_often() -> None:
    assert next_attempt(AttemptOutcome(2, AttemptState.LOST, "killed")) == 3
    with pytest.raises(Rejected, match="lost 20 workers"):
        next_attempt(AttemptOutcome(50, AttemptState.LOST, "killed", ATTEMPTS_MAX))


def test_attempts_that_get_further_are_not_counted() -> None:
    assert next_attempt(AttemptOutcome(50, AttemptState.PREEMPTED, "spot", 1)) == 51


def test_what_does_not_fit_is_not_tried_again() -> None:
    with pytest.raises(Rejected, match="a larger machine"):
        next_attempt(AttemptOutcome(1, AttemptState.OUT_OF_MEMORY, "a larger machine"))


def test_a_failed_attempt_ends_the_stage_with_its_reason() -> None:
    with pytest.raises(Rejected, match="disk full"):
        next_attempt(AttemptOutcome(1, AttemptState.FAILED, "disk full"))


def test_an_ended_run_goes_nowhere() -> None:
    for state in RunState:
        if not state.is_end:
            continue
        for wanted in RunState:
            with pytest.raises(Rejected):
                check_run_move(state, wanted)


def test_a_queued_run_runs_or_is_cancelled() -> None:
    check_run_move(RunState.QUEUED, RunState.RUNNING)
    check_run_move(RunState.QUEUED, RunState.CANCELLED)
    with pytest.raises(Rejected, match="cannot become promoted"):
        check_run_move(RunState.QUEUED, RunState.PROMOTED)


def test_attempts_end_in_seven_ways() -> None:
    assert [s.value for s in AttemptState if s.is_end] == [
        "succeeded",
        "failed",
        "lost",
        "preempted",
        "out_of_memory",
        "timed_out",
        "cancelled",
    ]
