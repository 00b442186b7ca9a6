"""The console's pictures and words, from values."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from jinja2 import StrictUndefined

from ratchet.core.placement.timeline import Piece
from ratchet.entrypoints.console import charts
from ratchet.entrypoints.console.pages import environment

RUN: dict[str, Any] = {
    "id": "run_1",
    "state": "running",
    "because": "",
    "stages": [
        {
            "name": "train",
            "state": "done",
            "because": "fine",
            "attempt": {"number": 2, "state": "succeeded"},
            "attempts": [
                {"number": 1, "state": "out_of_memory"},
                {"number": 2, "state": "succeeded"},
            ],
        }
    ],
    "progress": {},
    "timeline": None,
    "loss_chart": charts.loss_curve([(1, 2.0), (2, 1.0)], 10),
    "gates": [{"gate": "s.accuracy at least 0.5", "passed": True, "because": "it is 0.8"}],
    "suites": [{"suite": "s", "items": 240, "accuracy_interval": [0.7, 0.9], "majority": 0.5}],
}


def test_a_page_says_its_numbers_and_escapes_what_users_wrote() -> None:
    templates = environment()
    templates.undefined = StrictUndefined

    page = templates.get_template("live.html").render(
        project={"served_name": "<b>m</b>"}, gateways=[], arms=[], runs=[], run=RUN, release=None
    )

    assert "s: 240 items, 95 % interval 0.700 to 0.900" in page
    assert "&lt;b&gt;m" in page
    assert "attempt 2" in page
    assert "out of memory before" in page
    assert "<svg" in page


def test_where_a_training_ran_is_a_strip_for_each_machine_and_why_is_beside_it() -> None:
    began = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)

    def piece(kind: str, first: int, last: int, end: str = "") -> Piece:
        moments = [began + timedelta(seconds=at) for at in (first, last)]
        zone = "us-west-2a" if kind == "spot" else ""
        return Piece(kind=kind, zone=zone, began_at=moments[0], ended_at=moments[1], end=end)

    pieces = [piece("waits", 0, 30), piece("spot", 30, 90, "preempted"), piece("on_demand", 95, 95)]
    drawn = charts.timeline(pieces)
    assert drawn is not None
    assert [strip.kind for strip in drawn.strips] == ["spot", "on_demand"]
    assert drawn.strips[0].title == "spot us-west-2a preempted, 60 s"
    assert drawn.strips[1].width == 1.5, "what is short is still seen"
    assert charts.timeline([]) is None

    choice = {"at": "2026-01-01T12:01:35", "action": "on_demand", "zone": "", "because": "<late>"}
    run = {**RUN, "timeline": drawn, "usd": 0.5, "usd_on_demand": 1.5, "placements": [choice]}
    page = (
        environment()
        .get_template("live.html")
        .render(project={"served_name": "m"}, gateways=[], arms=[], runs=[], run=run, release=None)
    )
    assert page.count("<rect") == 2
    assert "12:01:35 on demand: &lt;late&gt;" in page


def test_one_point_is_no_curve() -> None:
    assert charts.loss_curve([(1, 1.0)], 5) is None
    assert charts.evidence_curve([(0.0, 1.0)], 100.0) is None
    assert charts.regression_curve([(0.0, 1.0)], 0.01) is None
    assert charts.weight_curve([(0.0, 5.0)]) is None


@pytest.mark.parametrize("last", [1e-2, 1.0, 1e9])
def test_the_threshold_is_always_in_the_picture(last: float) -> None:
    curve = charts.evidence_curve([(0.0, 1.0), (5.0, last)], 100.0)

    assert curve is not None
    assert curve.limit is not None
    assert charts.TOP < curve.limit.at < curve.height - charts.BOTTOM
    assert charts.TOP - 0.1 <= curve.end[1] <= curve.height - charts.BOTTOM + 0.1


@pytest.mark.parametrize("last", [-0.02, 1e-5, 0.009, 1.0])
def test_the_margin_of_safety_is_always_in_the_picture(last: float) -> None:
    curve = charts.regression_curve([(0.0, 1.0), (5.0, last)], 0.01)

    assert curve is not None
    assert curve.limit is not None
    assert curve.limit.label == "safe below 1.00%"
    assert charts.TOP < curve.limit.at < curve.height - charts.BOTTOM
    # Lower in the picture is less: below the line is what promotes.
    assert (curve.end[1] > curve.limit.at) == (last < 0.01)


def test_a_weight_stays_until_it_is_chosen_again() -> None:
    curve = charts.weight_curve([(0.0, 5.0), (10.0, 5.0), (20.0, 50.0)])

    assert curve is not None
    places = [place.split(",") for place in curve.path[1:].split(" L")]
    before, after = places[-2], places[-1]
    assert before[0] == after[0]
    assert before[1] == places[0][1]
    assert float(after[1]) < float(before[1])
