"""Cheap looks at answers, and values that come later than the answer."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ratchet.core.detectors import REFUSAL, Detector, text_of
from ratchet.core.errors import Rejected
from ratchet.core.guards import KNOWN, Group, Guard, Kind, with_always
from ratchet.core.late import LateUnit, late_units
from ratchet.core.spec import ReleasePlan

REFUSALS = Detector("refusals", matches=REFUSAL)
FORMAT = Detector("format", labels=("billing", "delivery"))


@pytest.mark.parametrize(
    ("detector", "text", "is_bad"),
    [
        (REFUSALS, "I'm sorry, but I can't help with that.", True),
        (REFUSALS, "As an AI language model I do not eat.", True),
        (REFUSALS, "You can't pay by card; billing can help.", False),
        (FORMAT, " billing\n", False),
        (FORMAT, "Billing, I think", True),
        (FORMAT, "", True),
        (Detector("format", pattern=r"\d{3}"), "123\n", False),
        (Detector("format", pattern=r"\d{3}"), "1234", True),
        (Detector("format", json_schema='{"required": ["queue"]}'), '{"queue": "a"}', False),
        (Detector("format", json_schema='{"required": ["queue"]}'), '{"other": 1}', True),
        (Detector("format", json_schema='{"type": "object"}'), "not JSON", True),
        (Detector("format", json_schema='{"type": "object"}'), "[" * 100_000, True),
    ],
)
def test_a_detector_says_what_is_bad(detector: Detector, text: str, is_bad: bool) -> None:
    assert detector.is_bad(text) is is_bad


@pytest.mark.parametrize(
    ("forms", "words"),
    [
        ({}, "one of pattern, labels, json_schema"),
        ({"pattern": "a", "labels": ("b",)}, "one of pattern"),
        ({"pattern": "("}, "release.guards.format"),
        ({"json_schema": '{"type": "nonsense"}'}, "release.guards.format"),
    ],
)
def test_a_detector_that_cannot_work_is_refused(forms: dict[str, object], words: str) -> None:
    with pytest.raises(Rejected, match=words):
        Detector("format", **forms)  # type: ignore[arg-type]


def test_what_an_answer_says_is_its_content_or_its_first_call() -> None:
    call = {"function": {"name": "route", "arguments": '{"queue": "a"}'}}

    assert text_of({"content": "hi", "tool_calls": [call]}) == "hi"
    assert text_of({"content": None, "tool_calls": [call]}) == '{"queue": "a"}'
    assert text_of({"content": ""}) == ""


HELPFUL = Guard(
    name="helpful", kind=Kind.SCORE, group=Group.JUDGED, margin=0.05, within_seconds=300.0
)
LOOKED_AT = ReleasePlan(
    guards=with_always([KNOWN["format"], KNOWN["thumbs_down"]]), detectors=(FORMAT,)
)
PUSHED = ReleasePlan(guards=with_always([HELPFUL]))
UNIT = LateUnit(
    sequence=1, is_canary=True, weight=500, revision=3, age_seconds=5.0, is_ended=True,
    will_be_captured=True, pushed={},
)  # fmt: skip


def judged(plan: ReleasePlan, unit: LateUnit) -> dict[str, float] | None:
    """Its values, or nothing while they are waited for."""
    found = late_units(plan, Group.JUDGED, [unit])
    return dict(found[0].values) if found else None


def test_a_captured_answer_is_waited_for_until_its_time_is_over() -> None:
    bad = replace(UNIT, answer={"content": "pizza"})

    assert judged(LOOKED_AT, UNIT) is None
    assert judged(LOOKED_AT, bad) == {"format": 1.0}
    assert judged(LOOKED_AT, replace(UNIT, age_seconds=121.0)) == {}
    # Of what is not sampled nothing will come.
    assert judged(LOOKED_AT, replace(UNIT, will_be_captured=False)) == {}
    assert judged(LOOKED_AT, replace(UNIT, will_be_captured=False, is_ended=False)) is None


def test_what_is_pushed_is_waited_for_and_what_was_judged_stays() -> None:
    assert judged(PUSHED, UNIT) is None
    assert judged(PUSHED, replace(UNIT, pushed={"helpful": 0.5, "other": 1})) == {"helpful": 0.5}
    assert judged(PUSHED, replace(UNIT, age_seconds=301.0)) == {}
    assert judged(PUSHED, replace(UNIT, pushed={"helpful": 0.5}, kept={})) == {}


def test_one_that_is_waited_for_keeps_back_those_behind_it() -> None:
    known = replace(UNIT, pushed={"helpful": 1.0})
    row = [known, replace(UNIT, sequence=2), replace(known, sequence=3)]

    assert [unit.sequence for unit in late_units(PUSHED, Group.JUDGED, row)] == [1]


def test_people_are_given_time_and_silence_is_no_complaint() -> None:
    said = replace(UNIT, is_thumbs_down=True)
    late = [replace(unit, age_seconds=601.0) for unit in (said, UNIT)]

    assert late_units(LOOKED_AT, Group.FEEDBACK, [said]) == []
    [down, quiet] = late_units(LOOKED_AT, Group.FEEDBACK, late)
    assert (down.values, quiet.values) == ({"thumbs_down": 1.0}, {"thumbs_down": 0.0})
    assert (down.weight, down.revision, down.is_canary) == (500, 3, True)


def test_a_guard_that_looks_into_answers_needs_to_know_for_what() -> None:
    with pytest.raises(Rejected, match=r"release\.guards\.format: expected what to look for"):
        replace(LOOKED_AT, detectors=())
