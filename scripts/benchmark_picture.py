"""Draw docs/images/benchmark.png from build/bench/canary-rows.json (`make bench-canary`).

Each judge is a point: canary requests until it sees a regression, against good releases that it
rolls back while both arms drift.  Needs what `pictures.py` needs.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

# The tests are no package that is installed, so they are found by the path above.
from tests.browser import page  # noqa: E402

SEEN, QUIET = "errors 1 to 3 %", "A/A, both drift 0.5 to 3 %"
LIMIT = 378
WIDTH, HEIGHT, LEFT, BOTTOM = 760, 440, 62, 48
X_RANGE, Y_RANGE = (30.0, 4_000.0), (0.001, 1.3)


def x_of(requests: float) -> float:
    low, high = map(math.log, X_RANGE)
    return LEFT + (math.log(requests) - low) / (high - low) * (WIDTH - LEFT - 150)


def y_of(share: float) -> float:
    low, high = map(math.log, Y_RANGE)
    place = (math.log(max(share, Y_RANGE[0])) - low) / (high - low)
    return HEIGHT - BOTTOM - place * (HEIGHT - BOTTOM - 20)


def points(rows: list[dict[str, Any]]) -> Iterator[tuple[str, float, float]]:
    quiet = {row["judge"]: row["stopped"] for row in rows if row["world"] == QUIET}
    for row in rows:
        if row["world"] == SEEN and row["judge"] in quiet and math.isfinite(row["canary"]):
            yield row["judge"], row["canary"], quiet[row["judge"]]


def draw(rows: list[dict[str, Any]]) -> str:
    found = list(points(rows))
    parts = [
        _line(x_of(LIMIT), 20, x_of(LIMIT), HEIGHT - BOTTOM, "4 4"),
        _text(x_of(LIMIT) + 4, HEIGHT / 2, "no test that keeps 1 % is sooner", "#777"),
        _line(LEFT, y_of(0.01), WIDTH - 20, y_of(0.01), "4 4"),
        _text(WIDTH - 150, y_of(0.01) - 6, "1 % of good releases", "#777"),
    ]
    for share in (0.001, 0.01, 0.1, 1.0):
        name = f"≤ {share:.1%}" if share == Y_RANGE[0] else f"{share:.0%}"
        parts.append(_text(6, y_of(share) + 4, name, "#777"))
    for requests in (50, 100, 300, 1_000, 3_000):
        parts.append(_text(x_of(requests) - 12, HEIGHT - BOTTOM + 18, f"{requests:,}", "#777"))
    crowd = 0
    for judge, canary, share in sorted(found, key=lambda point: point[1]):
        x, y = x_of(canary), y_of(share)
        colour = "#0a7d4f" if judge == "ratchet" else "#b3541e" if share > 0.01 else "#44546a"
        label = y - 10
        if share > 0.5:
            # They lie on each other, so their names stand below, one under the other.
            crowd += 1
            label = 40 + 14 * crowd
            parts.append(_line(x, y, x + 7, label - 4, ""))
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{colour}"/>')
        parts.append(_text(x + 9, label, judge, colour))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" '
        'font-family="system-ui, sans-serif" font-size="12">'
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>{"".join(parts)}'
        f"{_text(LEFT, HEIGHT - 8, 'canary requests until errors of 3 % instead of 1 % are seen')}"
        f"{_text(6, 12, 'good releases rolled back while both arms drift from 0.5 to 3 %')}</svg>"
    )


def _text(x: float, y: float, text: str, colour: str = "#222") -> str:
    safe = text.replace("&", "&amp;").replace("<", "&lt;")
    return f'<text x="{x:.1f}" y="{y:.1f}" fill="{colour}">{safe}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, dashes: str) -> str:
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="#bbb" '
        f'stroke-dasharray="{dashes}"/>'
    )


def main() -> int:
    file = ROOT / "build/bench/canary-rows.json"
    if not file.exists():
        print(f"{file} is not there: run `make bench-canary` first", file=sys.stderr)
        return 1
    rows = json.loads(file.read_text())["rows"]
    with page(WIDTH, HEIGHT) as opened:
        opened.set_content(f"<body style='margin:0'>{draw(rows)}</body>")
        opened.screenshot(path=str(ROOT / "docs/images/benchmark.png"))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
