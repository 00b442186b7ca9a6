"""Draw the pictures of docs/explanation/placement.md with the code that decides.

    .venv/bin/python scripts/placement_pictures.py

Nothing here is drawn by hand: a map is asked of `place` point by point, strips are replays.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

import numpy as np

from ratchet.core.placement.availability import AGE_EDGES_SECONDS, PUBLIC
from ratchet.core.placement.forecast import compare, sample
from ratchet.core.placement.market import Zone
from ratchet.core.placement.plan import Facts, place
from ratchet.core.placement.replay import Outcome, Seen, watched
from ratchet.core.placement.terms import Action, Machine, Terms

IMAGES = Path(__file__).parents[1] / "docs" / "images"
HOUR = 3600.0
COLOURS = {
    Action.WAIT: "#d7dbe0",
    Action.SPOT: "#2f9e6e",
    Action.ON_DEMAND: "#c2541b",
}
WORDS = {Action.WAIT: "wait", Action.SPOT: "spot", Action.ON_DEMAND: "on demand"}
INK, FAINT = "#57606a", "#8c959f"
SPOT_USD, ON_DEMAND_USD = 1.0, 3.0
DELAY_SECONDS = 360.0
DEADLINE_HOURS, WORK_HOURS_MAX = 12.0, 6.0
COLUMNS, ROWS, CELL = 48, 36, 7
SEED, WEEK_TICK_SECONDS = 11, 600.0


def page(width: int, height: int, inside: Iterator[str]) -> str:
    begin = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        'font-family="system-ui, sans-serif" font-size="12">'
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>'
    )
    return "\n".join([begin, *inside, "</svg>\n"])


def text(x: float, y: float, said: str, *, anchor: str = "start", ink: str = INK) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{ink}">{said}</text>'


def box(x: float, y: float, width: float, height: float, colour: str) -> str:
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{colour}"/>'
    )


def legend(x: float, y: float) -> Iterator[str]:
    for action, colour in COLOURS.items():
        yield box(x, y - 10, 12, 12, colour)
        yield text(x + 17, y, WORDS[action])
        x += 90


def action_map() -> str:
    """What a job without a machine does, by time left and work left."""

    def inside() -> Iterator[str]:
        for number, (is_up, minutes) in enumerate(((False, 120), (True, 5))):
            left = 52 + number * (COLUMNS * CELL + 50)
            state = "up" if is_up else "away"
            yield text(left, 24, f"spot has been {state} for {minutes} min")
            yield from panel(Zone("a", Seen(is_up, minutes * 60.0)), left, 34)
        yield from legend(52, ROWS * CELL + 90)

    return page(52 + 2 * (COLUMNS * CELL + 50), ROWS * CELL + 106, inside())


def panel(zone: Zone, left: float, top: float) -> Iterator[str]:
    height, width = ROWS * CELL, COLUMNS * CELL
    for row in range(ROWS):
        work_hours = (row + 1) / ROWS * WORK_HOURS_MAX
        decided = [
            decide(zone, (column + 1) / COLUMNS * DEADLINE_HOURS, work_hours)
            for column in range(COLUMNS)
        ]
        column = 0
        for action, same in groupby(decided):
            count = len(list(same))
            y = top + height - (row + 1) * CELL
            yield box(left + column * CELL, y, count * CELL, CELL, COLOURS[action])
            column += count
    for hours in (0, 3, 6, 9, 12):
        x = left + hours / DEADLINE_HOURS * width
        yield text(x, top + height + 16, f"{hours} h", anchor="middle", ink=FAINT)
    for hours in (0, 2, 4, 6):
        y = top + height - hours / WORK_HOURS_MAX * height + 4
        yield text(left - 6, y, f"{hours} h", anchor="end", ink=FAINT)
    yield text(left + width / 2, top + height + 32, "time left", anchor="middle")
    yield text(left - 44, top - 10, "work", ink=INK)


def decide(zone: Zone, time_left_hours: float, work_hours: float) -> Action:
    facts = Facts(
        time_left_seconds=time_left_hours * HOUR,
        work_left_seconds=work_hours * HOUR,
        work_left_max_seconds=work_hours * HOUR,
        delay_seconds=DELAY_SECONDS,
        machine=Machine.NONE,
        pending_seconds=0.0,
        zone="",
        spot_usd_per_hour=SPOT_USD,
        on_demand_usd_per_hour=ON_DEMAND_USD,
    )
    return place(facts, [zone], DEADLINE_HOURS * HOUR).action


def strips() -> str:
    """The same job on the same capacity, under each policy."""
    hours, work_hours = 36.0, 20.0
    ticks = round(hours * HOUR / WEEK_TICK_SECONDS)
    series = sample(PUBLIC, WEEK_TICK_SECONDS, ticks, np.random.default_rng(SEED))
    terms = Terms(
        delay_seconds=DELAY_SECONDS,
        spot_usd_per_hour=SPOT_USD,
        on_demand_usd_per_hour=ON_DEMAND_USD,
        tick_seconds=WEEK_TICK_SECONDS,
    )
    seen = watched(series, WEEK_TICK_SECONDS, PUBLIC)
    played = compare(work_hours * HOUR, hours * HOUR, [[seen]], terms, PUBLIC)

    def inside() -> Iterator[str]:
        left, width = 130.0, 620.0
        yield text(left, 18, f"{work_hours:g} hours of work within {hours:g}")
        yield text(left - 10, 45, "spot is there", anchor="end")
        colours = ["#9fd8bf" if is_up else "#f2f4f6" for is_up in series]
        yield from strip(colours, left, 32, width, ticks)
        for number, (name, (outcome,)) in enumerate(played.items()):
            y = 62 + number * 30
            yield text(left - 10, y + 13, name, anchor="end")
            yield from strip([COLOURS[shown(a)] for a in outcome.actions], left, y, width, ticks)
            yield text(left + width + 10, y + 13, said(outcome))
        yield from legend(left, 62 + len(played) * 30 + 20)

    return page(860, 62 + len(played) * 30 + 36, inside())


def shown(action: Action) -> Action:
    return Action.ON_DEMAND if action is Action.OVERLAP else action


def said(outcome: Outcome) -> str:
    return f"{outcome.usd:.1f} USD"


def strip(
    colours: Sequence[str], left: float, top: float, width: float, ticks: int
) -> Iterator[str]:
    tick = 0
    for colour, same in groupby(colours):
        count = len(list(same))
        yield box(left + tick / ticks * width, top, count / ticks * width, 18, colour)
        tick += count


def rates() -> str:
    """How likely spot is to change within an hour, by how long it has been so."""
    edges = [0.0, *AGE_EDGES_SECONDS]
    names = [f"{edge / 60:.0f}" for edge in edges]
    sides = {True: ("goes", "#c2541b"), False: ("comes back", "#2f9e6e")}
    per_hour = {is_up: [PUBLIC.per_hour(is_up, edge) for edge in edges] for is_up in sides}
    top = max(max(values) for values in per_hour.values())

    def inside() -> Iterator[str]:
        left, height, step = 50.0, 160.0, 52.0
        for number, name in enumerate(names):
            for beside, (is_up, (_, colour)) in enumerate(sides.items()):
                tall = per_hour[is_up][number] / top * height
                x = left + number * step + beside * 20
                yield box(x, 30 + height - tall, 18, tall, colour)
            yield text(left + number * step + 19, 48 + height, name, anchor="middle", ink=FAINT)
        yield text(left, 68 + height, "minutes since its last change, at least")
        yield text(left - 6, 36, f"{top:.1f}", anchor="end", ink=FAINT)
        yield text(left - 6, 30 + height, "0", anchor="end", ink=FAINT)
        yield text(left - 44, 16, "times an hour")
        for number, (word, colour) in enumerate(sides.values()):
            yield box(330 + number * 110, 6, 12, 12, colour)
            yield text(347 + number * 110, 16, word)

    return page(640, 245, inside())


def main() -> None:
    pictures = {
        "placement-map.svg": action_map(),
        "placement-strips.svg": strips(),
        "placement-rates.svg": rates(),
    }
    for name, drawn in pictures.items():
        (IMAGES / name).write_text(drawn)
        print(f"{name}: {len(drawn) / 1000:.0f} kB")


if __name__ == "__main__":
    main()
