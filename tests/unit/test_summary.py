"""A run as a CI job shows it."""

from __future__ import annotations

from typing import Any

from ratchet.entrypoints.cli.summary import summary


def run(state: str, because: str, **gate: Any) -> dict[str, Any]:
    detail = {"gates": [gate]} if gate else {}
    return {
        "id": "run_1",
        "state": state,
        "because": because,
        "stages": [{"name": "check", "detail": {}}, {"name": "gate", "detail": detail}],
    }


def test_a_gated_run_shows_its_gates_and_a_link() -> None:
    gate = {"gate": "a|b at least 1", "passed": False, "baseline": 0.5, "candidate": 0.25}

    shown = summary(run("gated", "too\nlow", **gate), "http://x/runs/run_1")

    assert shown.startswith("### Ratchet: gated\n\ntoo low\n")
    assert "| a\\|b at least 1 | **failed** | 0.5 | 0.25 |" in shown
    assert "[run run_1](http://x/runs/run_1)" in shown


def test_a_run_that_did_not_come_to_its_gates_says_why() -> None:
    assert "|---|" not in summary(run("rolled_back", "errors"), "u")
    assert "### Ratchet: rolled back" in summary(run("rolled_back", "errors"), "u")
