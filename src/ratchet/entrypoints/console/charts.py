"""Small charts as SVG, drawn on the server: they need no script, follow the theme and can be saved.

Every function is pure: points in, values for the template out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ratchet.core.placement.timeline import Piece

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
    limit: Tick | None = None
    """Where something is decided."""
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
    limit = math.log10(threshold)
    logs = [(at, math.log10(max(value, 1e-3))) for at, value in points]
    high = max(limit * 1.12, *(value for _, value in logs))
    low = min(-1.0, *(value for _, value in logs))
    marks = [mark for mark in (-2, -1, 0, 1, 2, 4, 8, 16) if low <= mark <= high]
    return _line(
        logs,
        _seconds(points),
        (low, high),
        tuple(Tick(_y(mark, low, high), f"{10.0**mark:g}") for mark in marks),
        _from_start(points),
        Tick(_y(limit, low, high), f"roll back at {threshold:g}"),
    )


def regression_curve(points: Sequence[tuple[float, float]], margin: float) -> Line | None:
    """By how much worse a canary may be, at most, over seconds on a log axis, with the margin."""
    if len(points) < 2:
        return None
    limit = math.log10(max(margin, 1e-4))
    logs = [(at, math.log10(max(value, 1e-4))) for at, value in points]
    low = min(limit - 0.3, *(value for _, value in logs))
    marks = [mark for mark in (-4, -3, -2, -1, 0) if low <= mark]
    return _line(
        logs,
        _seconds(points),
        (low, 0.0),
        tuple(Tick(_y(mark, low, 0.0), f"{10.0 ** (mark + 2):g} %") for mark in marks),
        _from_start(points),
        Tick(_y(limit, low, 0.0), f"safe below {margin:.2%}"),
    )


def weight_curve(points: Sequence[tuple[float, float]]) -> Line | None:
    """A canary's weight in per cent over seconds: it stays until it is chosen again."""
    if len(points) < 2:
        return None
    peak = max(weight for _, weight in points) or 1.0
    top = peak * 1.08
    steps = [points[0]]
    for at, weight in points[1:]:
        steps += [(at, steps[-1][1]), (at, weight)]
    marks = [0.0, peak / 2, peak]
    return _line(
        steps,
        _seconds(points),
        (0.0, top),
        tuple(Tick(_y(mark, 0.0, top), f"{mark:.3g} %") for mark in marks),
        _from_start(points),
    )


@dataclass(frozen=True, slots=True)
class Strip:
    """One machine of a timeline, in SVG units."""

    x: float
    width: float
    kind: str
    title: str
    """What it was, for who points at it."""


@dataclass(frozen=True, slots=True)
class Timeline:
    strips: tuple[Strip, ...]
    x_ticks: tuple[Tick, ...]
    width: float = WIDTH
    height: float = 74.0


def timeline(pieces: Sequence[Piece]) -> Timeline | None:
    """Where a training ran over time; waits are left open."""
    if not pieces:
        return None
    began, ended = pieces[0].began_at, pieces[-1].ended_at
    whole = max((ended - began).total_seconds(), 1.0)
    strips = []
    for piece in pieces:
        if piece.kind == "waits":
            continue
        x = _x((piece.began_at - began).total_seconds(), 0.0, whole)
        far = _x((piece.ended_at - began).total_seconds(), 0.0, whole)
        words = " ".join(filter(None, (piece.kind, piece.zone, piece.end))).replace("_", " ")
        # Less than a pixel would not be seen.
        strips.append(Strip(x, max(far - x, 1.5), piece.kind, f"{words}, {piece.seconds:.0f} s"))
    ticks = _from_start([(0.0, 0.0), (whole, 0.0)])
    return Timeline(tuple(strips), ticks)


def _seconds(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    return 0.0, max(points[-1][0], 1.0)


def _from_start(points: Sequence[tuple[float, float]]) -> tuple[Tick, ...]:
    _, last = _seconds(points)
    return Tick(_x(0, 0, last), "start"), Tick(_x(last, 0, last), f"{last:.0f} s")


def _line(
    points: Sequence[tuple[float, float]],
    xs: tuple[float, float],
    ys: tuple[float, float],
    y_ticks: tuple[Tick, ...],
    x_ticks: tuple[Tick, ...],
    limit: Tick | None = None,
) -> Line:
    step = max(1, len(points) // POINTS_MAX)
    shown = [*points[:-1:step], points[-1]]
    places = [(_x(x, *xs), _y(y, *ys)) for x, y in shown]
    path = "M" + " L".join(f"{x:.1f},{y:.1f}" for x, y in places)
    floor = HEIGHT - BOTTOM
    area = f"{path} L{places[-1][0]:.1f},{floor} L{places[0][0]:.1f},{floor} Z"
    return Line(path, area, places[-1], y_ticks, x_ticks, limit)


def _x(value: float, low: float, high: float) -> float:
    return LEFT + (value - low) / max(high - low, 1e-9) * (WIDTH - LEFT - RIGHT)


def _y(value: float, low: float, high: float) -> float:
    return HEIGHT - BOTTOM - (value - low) / max(high - low, 1e-9) * (HEIGHT - TOP - BOTTOM)
