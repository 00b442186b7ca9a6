"""What a deadline costs, and what jobs would have cost."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from ratchet.core.placement.availability import PUBLIC, fit, spells_of
from ratchet.core.placement.forecast import OURS, compare, offers, sample
from ratchet.core.placement.replay import HOUR, watched
from ratchet.core.placement.terms import Terms
from ratchet.entrypoints.cli.main import app

TERMS = Terms(
    delay_seconds=360.0,
    spot_usd_per_hour=1.0,
    on_demand_usd_per_hour=3.0,
    tick_seconds=600.0,
)


def test_a_later_deadline_costs_less_and_one_that_cannot_be_met_is_no_offer() -> None:
    found = offers(2 * HOUR, [2 * HOUR, 2.5 * HOUR, 4 * HOUR, 8 * HOUR, 24 * HOUR], TERMS, PUBLIC)

    assert [offer.deadline_seconds / HOUR for offer in found] == [2.5, 4, 8, 24]
    costs = [offer.usd for offer in found]
    assert costs == sorted(costs, reverse=True)
    assert 2.1 < costs[-1] < costs[0] < 3 * 2.2


def test_what_is_made_up_is_as_the_model_says() -> None:
    series = sample(PUBLIC, 600.0, 100_000, np.random.default_rng(1))

    again = fit([spells_of(series, 600.0)], 600.0)

    assert again.up_per_hour[:4] == pytest.approx(PUBLIC.up_per_hour[:4], rel=0.25)
    assert again.down_per_hour[:4] == pytest.approx(PUBLIC.down_per_hour[:4], rel=0.25)


def test_an_offer_is_what_jobs_cost() -> None:
    rng = np.random.default_rng(2)
    windows = [[watched(sample(PUBLIC, 600.0, 48, rng), 600.0, PUBLIC)] for _ in range(300)]
    found = compare(2 * HOUR, 8 * HOUR, windows, TERMS, PUBLIC)
    [offer] = offers(2 * HOUR, [8 * HOUR], TERMS, PUBLIC)

    ours = np.array([outcome.usd for outcome in found[OURS]])
    assert not any(outcome.late_seconds for each in found.values() for outcome in each)
    assert abs(ours.mean() - offer.usd) < 3 * ours.std() / np.sqrt(len(ours)) + 0.03
    assert ours.mean() < np.mean([outcome.usd for outcome in found["uniform progress"]])


def test_simulate_answers_in_words_and_in_json(tmp_path: Path) -> None:
    zone = tmp_path / "zone.json"
    up = [1, 1, 1, 0, 0, 1] * 40
    zone.write_text(json.dumps({"metadata": {"gap_seconds": 600}, "data": up}))
    wish = ["simulate", "--work", "1h", "--deadline", "3h", "--windows", "10", "--trace", str(zone)]

    words = CliRunner().invoke(app, wish)
    value = json.loads(CliRunner().invoke(app, [*wish, "--json"]).stdout)

    assert "10 windows of the trace" in words.stdout
    assert [row["policy"] for row in value["policies"]] == [
        "on-demand", "greedy", "uniform progress", "ratchet",
    ]  # fmt: skip
    assert all(row["late"] == 0 for row in value["policies"])
    assert value["policies"][0]["usd_mean"] == pytest.approx(1.1 * 3.0)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--work", "2h", "--deadline", "2h"], "at least 2.10h"),
        (["--work", "2", "--deadline", "3h"], "a duration with its unit"),
        (["--work", "1h", "--deadline", "9h", "--trace", "SHORT"], "expected at least 54"),
        (["--work", "1h", "--deadline", "2h", "--trace", "SHORT", "--trace", "OTHER"], "together"),
    ],
)
def test_what_cannot_be_simulated_is_refused(tmp_path: Path, options: list[str], says: str) -> None:
    for name, count in (("SHORT", 20), ("OTHER", 30)):
        value = {"metadata": {"gap_seconds": 600}, "data": [1, 0] * (count // 2)}
        (tmp_path / f"{name}.json").write_text(json.dumps(value))
    paths = [str(tmp_path / f"{o}.json") if o in ("SHORT", "OTHER") else o for o in options]

    told = CliRunner().invoke(app, ["simulate", *paths])

    assert told.exit_code != 0
    assert says in str(told.exception)
