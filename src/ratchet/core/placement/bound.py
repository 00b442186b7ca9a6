"""What nobody can beat: the least cost when all of the future is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ratchet.core.placement.table import LATE, Grid, Step, later, paid, steps_from
from ratchet.core.placement.terms import Action, Machine, Terms

HAS_SPOT = (Machine.SPOT, Machine.BOTH)


def least_usd(
    zones: Sequence[Sequence[bool]], work_seconds: float, deadline_seconds: float, terms: Terms
) -> float:
    """Of a job that starts now, with spot of each zone up or down in each tick as given.

    `LATE` if there is none in time.  For whole seconds; the larger what divides tick, delay and
    work, the faster.
    """
    grid = Grid.exact(terms, work_seconds)
    up = np.asarray(zones, bool)
    ticks = int(deadline_seconds / terms.tick_seconds + 1e-9)
    start = round((ticks * terms.tick_seconds - work_seconds) / grid.row_seconds)
    rows = start + grid.delay + 1
    steps = [_honest(steps_from(grid, terms, machine, rest)) for machine, rest in grid.states]
    value = np.zeros((rows, len(grid.states), len(up)), np.float32)
    for tick in range(1, ticks + 1):
        now = up[:, ticks - tick]
        survives = up[:, ticks - tick + 1] if tick > 1 else np.zeros_like(now)
        kept, lost = value * survives, value * ~survives
        work = tick * grid.tick - np.arange(rows)
        before = np.full_like(value, LATE)
        for state, (machine, rest) in enumerate(grid.states):
            left = work - (0 if machine is Machine.BOTH else rest)
            for step in steps[state]:
                cost = paid(step, left, grid, terms)[:, None] + later(step, value, kept, lost)
                if step.action in (Action.SPOT, Action.OVERLAP):
                    cost[:, ~now] = LATE
                before[:, state] = np.minimum(before[:, state], cost)
            before[left <= 0, state] = 0.0
        _choose_zone(before, grid)
        value = before
    return float(value[start, grid.state(Machine.NONE, 0), 0])


def _honest(steps: Sequence[Step]) -> list[Step]:
    """A wait costs nothing, however eager one may be."""
    return [replace(s, extra_usd=0.0) if s.action is Action.WAIT else s for s in steps]


def _choose_zone(value: NDArray[np.float32], grid: Grid) -> None:
    """Without a spot machine any zone may be next; with one, it may be given up for another."""
    free = [i for i, (machine, _) in enumerate(grid.states) if machine not in HAS_SPOT]
    value[:, free] = value[:, free].min(axis=2, keepdims=True)
    none = grid.state(Machine.NONE, 0)
    for state, (machine, rest) in enumerate(grid.states):
        if machine is Machine.SPOT:
            # What was pending need not be waited for.
            given_up = np.minimum(np.arange(len(value)) + rest, len(value) - 1)
            np.minimum(value[:, state], value[given_up, none], out=value[:, state])
