"""The console's pictures and words, from values."""

from __future__ import annotations

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from ratchet.entrypoints.console import charts

RUN: dict[str, Any] = {
    "id": "run_1",
    "state": "running",
    "because": "",
    "stages": [{"name": "train", "state": "done", "because": "fine", "attempt": {"number": 2}}],
    "progress": {},
    "loss_chart": charts.loss_curve([(1, 2.0), (2, 1.0)], 10),
    "gates": [{"gate": "s.accuracy at least 0.5", "passed": True, "because": "it is 0.8"}],
    "suites": [{"suite": "s", "items": 240, "accuracy_interval": [0.7, 0.9], "majority": 0.5}],
}


def test_a_page_says_its_numbers_and_escapes_what_users_wrote() -> None:
    environment = Environment(
        loader=PackageLoader("ratchet.entrypoints.console"),
        autoescape=True,
        undefined=StrictUndefined,
    )
    environment.filters["clock"] = environment.filters["words"] = str

    page = environment.get_template("live.html").render(
        project={"served_name": "<b>m</b>"}, gateways=[], arms=[], runs=[], run=RUN, release=None
    )

    assert "s: 240 items, 95 % interval 0.700 to 0.900" in page
    assert "&lt;b&gt;m" in page
    assert "attempt 2" in page
    assert "<svg" in page


def test_one_point_is_no_curve() -> None:
    assert charts.loss_curve([(1, 1.0)], 5) is None
    assert charts.evidence_curve([(0.0, 1.0)], 100.0) is None


def test_the_threshold_is_always_in_the_picture() -> None:
    points = [(0.0, 1.0), (5.0, 1e9)]
    curve = charts.evidence_curve(points, 100.0)

    assert curve is not None
    assert charts.TOP < charts.evidence_height(points, 100.0) < curve.height
    assert curve.end[1] >= charts.TOP - 0.1
