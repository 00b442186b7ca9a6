"""Small charts as SVG, drawn on the server: they need no script, follow the theme and can be saved.

Every function is pure: points in, values for the template out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 640.0, 180.0
LEFT, RIGHT, TOP, BOTTOM = 44.0, 12.0, 12.0, 24.0
POINTS_MAX = 400  # more than there are pixels to show them


@dataclass(frozen=True, slots=True)
class Tick:
    at: float
    label: str


@dataclass(frozen=True, slots=True)
class Line:
    """A curve with its axes, in SVG units."""

    path: str
    area: str
    end: tuple[float, float]
    y_ticks: tuple[Tick, ...]
    x_ticks: tuple[Tick, ...]
    width: float = WIDTH
    height: float = HEIGHT


def loss_curve(points: Sequence[tuple[int, float]], steps: int) -> Line | None:
    """Training loss over steps, from zero to a little above the largest."""
    if len(points) < 2:
        return None
    top = max(loss for _, loss in points) * 1.08
    last = max(steps, points[-1][0])
    marks = [0.0, top / 2, top]
    return _line(
        [(step, loss) for step, loss in points],
        (0.0, float(last)),
        (0.0, top),
        tuple(Tick(_y(mark, 0.0, top), f"{mark:.2g}") for mark in marks),
        (Tick(_x(0, 0, last), "step 0"), Tick(_x(last, 0, last), str(last))),
    )


def evidence_curve(points: Sequence[tuple[float, float]], threshold: float) -> Line | None:
    """Evidence of harm over seconds on a log axis, with room for the threshold."""
    if len(points) < 2:
        return None
    logs = [(at, math.log10(max(value, 1e-3))) for at, value in points]
    high = max(math.log10(threshold) * 1.12, *(value for _, value in logs))
    low = min(-1.0, *(value for _, value in logs))
    last = max(points[-1][0], 1.0)
    marks = [mark for mark in (-2, -1, 0, 1, 2, 4, 8, 16) if low <= mark <= high]
    return _line(
        logs,
        (0.0, last),
        (low, high),
        tuple(Tick(_y(mark, low, high), f"{10.0**mark:g}") for mark in marks),
        (Tick(_x(0, 0, last), "start"), Tick(_x(last, 0, last), f"{last:.0f} s")),
    )


def evidence_height(points: Sequence[tuple[float, float]], value: float) -> float:
    """Where a value lies on the evidence axis of these points."""
    logs = [math.log10(max(v, 1e-3)) for _, v in points]
    high = max(math.log10(100.0) * 1.12, *logs)
    low = min(-1.0, *logs)
    return _y(math.log10(value), low, high)


def _line(
    points: Sequence[tuple[float, float]],
    xs: tuple[float, float],
    ys: tuple[float, float],
    y_ticks: tuple[Tick, ...],
    x_ticks: tuple[Tick, ...],
) -> Line:
    step = max(1, len(points) // POINTS_MAX)
    shown = [*points[::step], points[-1]]
    places = [(_x(x, *xs), _y(y, *ys)) for x, y in shown]
    path = "M" + " L".join(f"{x:.1f},{y:.1f}" for x, y in places)
    floor = HEIGHT - BOTTOM
    area = f"{path} L{places[-1][0]:.1f},{floor} L{places[0][0]:.1f},{floor} Z"
    return Line(path, area, places[-1], y_ticks, x_ticks)


def _x(value: float, low: float, high: float) -> float:
    return LEFT + (value - low) / max(high - low, 1e-9) * (WIDTH - LEFT - RIGHT)


def _y(value: float, low: float, high: float) -> float:
    return HEIGHT - BOTTOM - (value - low) / max(high - low, 1e-9) * (HEIGHT - TOP - BOTTOM)
