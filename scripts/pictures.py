"""Draw docs/images/release-*.png: releases played by the real judge, drawn as in the console.

`pictures.py` needs the dev extra and a Chromium that Playwright finds (`tests/browser.py`).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ratchet.core.findings import describe
from ratchet.core.planning import Traffic
from ratchet.core.rehearsal import Looked, Suppose, looks
from ratchet.core.spec import ReleasePlan
from ratchet.entrypoints.console import charts
from ratchet.entrypoints.console.pages import FOLDER, environment

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

# The tests are no package that is installed, so they are found by the path above.
from tests.browser import page  # noqa: E402

TRAFFIC = Traffic(per_second=10.0, error_rate=0.01)
PICTURES = {
    "good": (Suppose(error_rate=0.01), "as good as the baseline: 1 % of both fail"),
    "bad": (Suppose(error_rate=0.03), "worse: 3 % fail instead of 1 %"),
    "slow": (Suppose(error_rate=0.01, slower=0.3), "30 % slower, where 10 % are allowed"),
}


def draw(steps: Sequence[Looked], title: str) -> str:
    """The three charts of a release, as a page."""
    numbers = [(step.seconds, describe(step.evidence)) for step in steps]
    evidence = [(at, found["e"]) for at, found in numbers]
    bound = [(at, found["regression_max"]) for at, found in numbers]
    shown = {
        "evidence of harm": charts.evidence_curve(evidence, 100.0),
        "fails more often by at most": charts.regression_curve(bound, 0.01),
        "canary weight": charts.weight_curve([(s.seconds, s.weight / 100) for s in steps]),
    }
    # A template's macros are attributes that only the template knows.
    chart = environment().get_template("live.html").module.chart  # type: ignore[attr-defined]
    figures = "".join(
        f"<figure><figcaption>{name}</figcaption>{chart(line, name)}</figure>"
        for name, line in shown.items()
    )
    style = (FOLDER / "static" / "console.css").read_text()
    return (
        f"<style>{style}</style><main style='display:block;padding:16px;max-width:680px'>"
        f"<section class=card><h2>{title}</h2>{figures}"
        f"<p class=because>{steps[-1].verdict.because}</p></section></main>"
    )


def main() -> int:
    for name, (suppose, title) in PICTURES.items():
        chance = np.random.default_rng(7)
        steps = list(looks(ReleasePlan(), TRAFFIC, suppose, chance, 7_200.0))
        with page(712, 400) as opened:
            opened.set_content(draw(steps, title))
            opened.screenshot(
                path=str(ROOT / "docs/images" / f"release-{name}.png"), full_page=True
            )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
