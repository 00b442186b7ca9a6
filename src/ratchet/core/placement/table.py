"""The dynamic programme: of all that a job may do next, what costs least on average.

Backward induction over ticks left, slack, machine and availability.  Slack is time left less work
left less what is pending of the machine: a tick of work costs none of it, a tick of waiting costs a
tick, a new machine costs the delay.  So the table has a row for what may be wasted, not for all the
work there is.  States from which on-demand could not save the deadline cost `LATE`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ratchet.core.placement.availability import Chain
from ratchet.core.placement.terms import Action, Machine, Situation, Terms

LATE = 1e9
HOUR = 3600.0
# A slack row is a tick over this: the one of these under which the delay is nearest to whole rows.
ROWS_A_TICK = (5, 6, 8, 10)
# Of what a tick of spot costs, what a tick of waiting "costs": of two equal plans, the earlier.
EAGERNESS = 1e-4
ACTIONS = (Action.WAIT, Action.SPOT, Action.ON_DEMAND, Action.OVERLAP)

Values = NDArray[np.float32]
"""[slack row, machine state, node]: expected USD until the job is done."""


@dataclass(frozen=True, slots=True)
class Grid:
    """Seconds as rows, and the machine states that there are."""

    tick: int
    """Rows of a tick."""
    delay: int
    handover: int | None
    row_seconds: float
    states: tuple[tuple[Machine, int], ...]
    """A machine, and how many rows are pending of it."""

    @classmethod
    def of(cls, terms: Terms) -> Grid:
        """As coarse as the delay allows."""

        def error(rows: int) -> float:
            exact = terms.delay_seconds / terms.tick_seconds * rows
            return abs(exact - round(exact)) / rows

        return cls._with(terms, min(ROWS_A_TICK, key=error))

    @classmethod
    def exact(cls, terms: Terms, work_seconds: float) -> Grid:
        """Without any rounding, for whole seconds of all three."""
        tick, delay = round(terms.tick_seconds), round(terms.delay_seconds)
        whole = math.gcd(tick, delay, round(work_seconds))
        return cls._with(terms, round(terms.tick_seconds) // whole)

    @staticmethod
    def _with(terms: Terms, tick: int) -> Grid:
        row = terms.tick_seconds / tick
        delay = max(1, round(terms.delay_seconds / row))
        rests = [0, *range(delay - tick, 0, -tick)]
        handover = (
            None if terms.handover_seconds is None else math.ceil(terms.handover_seconds / row)
        )
        states = [(Machine.NONE, 0)]
        states += [
            (machine, rest) for machine in (Machine.SPOT, Machine.ON_DEMAND) for rest in rests
        ]
        if handover is not None:
            states += [(Machine.BOTH, rest) for rest in rests if rest]
        return Grid(tick, delay, handover, row, tuple(states))

    def state(self, machine: Machine, rest: int) -> int:
        return self.states.index((machine, rest))

    def nearest_state(self, machine: Machine, pending_seconds: float) -> int:
        """The state of a machine whose pending rows are the fewest that cover the seconds."""
        rows = pending_seconds / self.row_seconds
        mine = [(rest, i) for i, (kind, rest) in enumerate(self.states) if kind is machine]
        enough = [pair for pair in mine if pair[0] >= rows - 1e-6]
        return min(enough)[1] if enough else max(mine)[1]


@dataclass(frozen=True, slots=True)
class Step:
    """What an action does to a job in a state: its price, and where the next look finds it."""

    action: Action
    busy: int
    """Rows of machine time before the work of this tick begins."""
    usd_per_row: float
    extra_usd: float
    slack: int
    """Rows of slack that it costs."""
    state: int
    """When spot survives, or where none is used."""
    lost_state: int
    """When the spot machine is lost."""
    lost_refund: int
    """Rows of slack that come back then: what was pending is not waited for."""


def steps_from(grid: Grid, terms: Terms, machine: Machine, rest: int) -> list[Step]:
    """All that a job in a state may do."""
    spot = terms.spot_usd_per_hour * grid.row_seconds / HOUR
    on_demand = terms.on_demand_usd_per_hour * grid.row_seconds / HOUR
    none = grid.state(Machine.NONE, 0)
    # What is pending of a machine that is given up need not be waited for.
    refund = 0 if machine is Machine.BOTH else rest

    def run(kind: Machine, price: float) -> Step:
        pending, cost = (rest, 0) if machine is kind else (grid.delay, grid.delay - refund)
        after = max(0, pending - grid.tick)
        state = grid.state(kind, after)
        action = Action.SPOT if kind is Machine.SPOT else Action.ON_DEMAND
        lost, back = (none, after) if kind is Machine.SPOT else (state, 0)
        return Step(action, pending, price, 0.0, cost, state, lost, back)

    if machine is Machine.BOTH:
        works = grid.state(Machine.ON_DEMAND, 0)
        keep = Step(Action.ON_DEMAND, 0, on_demand, 0.0, 0, works, works, 0)
        return [keep, _overlap(grid, spot, on_demand, rest)]
    found = [
        Step(Action.WAIT, 0, 0.0, EAGERNESS * spot, grid.tick - refund, none, none, 0),
        run(Machine.SPOT, spot),
        run(Machine.ON_DEMAND, on_demand),
    ]
    if machine is Machine.ON_DEMAND and not rest and grid.handover is not None:
        found.append(_overlap(grid, spot, on_demand, grid.delay))
    return found


def _overlap(grid: Grid, spot: float, on_demand: float, rest: int) -> Step:
    """Both are paid until the spot machine can work; then on-demand hands over."""
    both = min(rest, grid.tick)
    extra = both * on_demand
    if rest > grid.tick:
        state, cost = grid.state(Machine.BOTH, rest - grid.tick), 0
    else:
        state, cost = grid.state(Machine.SPOT, 0), grid.handover or 0
    works = grid.state(Machine.ON_DEMAND, 0)
    if rest <= grid.tick:
        # It may be lost right after the hand-over.
        return Step(Action.OVERLAP, 0, spot, extra, cost, state, grid.state(Machine.NONE, 0), 0)
    return Step(Action.OVERLAP, 0, spot, extra, cost, state, works, 0)


@dataclass(frozen=True, slots=True)
class Table:
    """The best action for each tick left, slack, machine and node."""

    grid: Grid
    terms: Terms
    best: NDArray[np.int8]
    """[tick, slack row, state, node]: index into `ACTIONS`."""
    values: NDArray[np.float16] | None
    """[tick, slack row, state, node], where they were kept."""

    def place(self, at: Situation) -> tuple[int, int, int]:
        """Ticks, slack row and machine state, each rounded to the worse."""
        state = self.grid.nearest_state(at.machine, at.pending_seconds)
        tick = int(at.time_left_seconds / self.terms.tick_seconds + 1e-6)
        row = int(max(0.0, at.slack_seconds) / self.grid.row_seconds + 1e-6)
        return min(max(tick, 0), len(self.best) - 1), min(row, self.best.shape[1] - 1), state

    def action(self, at: Situation, node: int) -> Action:
        return ACTIONS[self.best[(*self.place(at), node)]]

    def costs(self, at: Situation, node: int, chain: Chain) -> dict[Action, float]:
        """What each action is expected to cost until the job is done; of a table with values."""
        assert self.values is not None
        tick, row, state = self.place(at)
        if tick == 0:
            return {}
        machine, rest = self.grid.states[state]
        after = np.nan_to_num(self.values[tick - 1].astype(np.float32), posinf=LATE)
        left = np.array([tick * self.grid.tick - row - (0 if machine is Machine.BOTH else rest)])
        found = {}
        for step in steps_from(self.grid, self.terms, machine, rest):
            if step.action in (Action.SPOT, Action.OVERLAP) and not at.spot_is_up:
                continue
            plain, kept, lost = (
                after @ moves[node].astype(np.float32)[:, None]
                for moves in (chain.moves, chain.survives, chain.dies)
            )
            coming = later(step, plain, kept, lost)[row, 0]
            found[step.action] = float(paid(step, left, self.grid, self.terms)[0] + coming)
        return found


def solve(
    chain: Chain, terms: Terms, ticks: int, slack_seconds: float, *, keep_values: bool = False
) -> Table:
    """The table of jobs with at most so much time and slack.

    Memory is ticks x rows x states x nodes bytes, and twice as much more with values.
    """
    grid = Grid.of(terms)
    rows = math.ceil(slack_seconds / grid.row_seconds) + grid.delay + 1
    nodes = len(chain.survives)
    moves_t, survives_t, dies_t = (
        np.ascontiguousarray(m.T.astype(np.float32))
        for m in (chain.moves, chain.survives, chain.dies)
    )
    steps = [steps_from(grid, terms, machine, rest) for machine, rest in grid.states]
    is_down = ~chain.is_up
    shape = (rows, len(grid.states), nodes)
    best = np.zeros((ticks + 1, *shape), np.int8)
    # Half precision: only to be shown.  What is late does not fit, and is infinite.
    kept = np.zeros((ticks + 1, *shape), np.float16) if keep_values else None
    value: Values = np.zeros(shape, np.float32)
    for tick in range(1, ticks + 1):
        work = tick * grid.tick - np.arange(rows)
        after, costs = value, np.full((len(ACTIONS), *shape), 2 * LATE, np.float32)
        plain = after @ moves_t
        kept_up, lost = after @ survives_t, after @ dies_t
        for state, (_, rest) in enumerate(grid.states):
            left = work - (0 if grid.states[state][0] is Machine.BOTH else rest)
            for step in steps[state]:
                cost = paid(step, left, grid, terms)[:, None] + later(step, plain, kept_up, lost)
                if step.action in (Action.SPOT, Action.OVERLAP):
                    cost[:, is_down] = 2 * LATE
                costs[ACTIONS.index(step.action), :, state] = cost
        choice = _first_best(costs)
        best[tick] = choice
        value = np.minimum(np.take_along_axis(costs, choice[None].astype(np.intp), 0)[0], LATE)
        for state, (machine, rest) in enumerate(grid.states):
            pending = 0 if machine is Machine.BOTH else rest
            value[work - pending <= 0, state] = 0.0
        if kept is not None:
            kept[tick] = np.where(value < LATE / 1e6, value, np.inf)
    return Table(grid, terms, best, kept)


def _first_best(costs: NDArray[np.float32]) -> NDArray[np.int8]:
    choice: NDArray[np.int8] = np.argmin(costs, axis=0).astype(np.int8)
    return choice


def later(
    step: Step,
    plain: NDArray[np.float32],
    kept_up: NDArray[np.float32],
    lost: NDArray[np.float32],
) -> NDArray[np.float32]:
    """Expected cost after the step, by slack row and node."""
    if step.action in (Action.WAIT, Action.ON_DEMAND):
        return _shifted(plain[:, step.state], step.slack)
    survived = _shifted(kept_up[:, step.state], step.slack)
    return survived + _shifted(lost[:, step.lost_state], step.slack - step.lost_refund)


def _shifted(value: NDArray[np.float32], rows: int) -> NDArray[np.float32]:
    """Values at so many rows less of slack; too late where there are none."""
    if rows == 0:
        return value
    found = np.full_like(value, LATE)
    if rows > 0:
        found[rows:] = value[:-rows] if rows < len(value) else value[:0]
        return found
    found[:rows] = value[-rows:]
    found[rows:] = value[-1]
    return found


def paid(step: Step, left: NDArray[np.int_], grid: Grid, terms: Terms) -> NDArray[np.float32]:
    """USD of this tick, by slack row: of a last tick only what is used, where bills are so."""
    used = np.full(len(left), grid.tick)
    if not terms.bills_whole_ticks:
        used = np.clip(step.busy + left, 0, grid.tick)
    return (used * step.usd_per_row + step.extra_usd).astype(np.float32)
