"""Simple rules of others, to be compared with and to fall back to.

Each wishes; `guard.guarded` sees to it that none is late.
"""

from __future__ import annotations

from collections.abc import Callable

from ratchet.core.placement.terms import Action, Machine, Situation, Terms

Rule = Callable[[Situation, Terms], Action]


def on_demand_only(at: Situation, terms: Terms) -> Action:
    return Action.ON_DEMAND


def greedy(at: Situation, terms: Terms) -> Action:
    """Spot while it is there, else wait; the guard goes to on-demand when it must, for good."""
    if at.machine is Machine.ON_DEMAND:
        return Action.ON_DEMAND
    return Action.SPOT if at.spot_is_up else Action.WAIT


def uniform_progress(at: Situation, terms: Terms) -> Action:
    """Stay on the line from no work at the start to all work at the deadline.

    Wu et al., "Can't Be Late: Optimizing Spot Instance Savings under Deadlines", NSDI 2024.
    """
    total = at.work_done_seconds + at.work_left_seconds
    pace = total / (at.elapsed_seconds + at.time_left_seconds)
    delay = terms.delay_seconds
    if at.machine is not Machine.SPOT and at.slack_seconds <= 2 * delay:
        # The safety net: from here on there is no time to change twice.
        return Action.ON_DEMAND
    if at.machine is Machine.SPOT and at.spot_is_up:
        return Action.SPOT
    is_behind = at.work_done_seconds < at.elapsed_seconds * pace
    if at.machine is Machine.ON_DEMAND:
        lead = at.work_done_seconds - (at.elapsed_seconds + 2 * delay) * pace
        return Action.SPOT if at.spot_is_up and lead > 0 else Action.ON_DEMAND
    if at.spot_is_up:
        return Action.SPOT
    return Action.ON_DEMAND if is_behind else Action.WAIT


def levi(at: Situation, terms: Terms) -> Action:
    """Any spot at once; on demand is kept while there is none; wait only with slack to spare.

    What the best program of LEVI (arXiv 2605.09764) does, in our words.
    """
    if at.spot_is_up:
        return Action.SPOT
    if at.machine is Machine.ON_DEMAND:
        return Action.ON_DEMAND
    slack = at.time_left_seconds - at.work_left_seconds - terms.delay_seconds
    spare = 2 * terms.tick_seconds + 0.1 * at.work_left_seconds
    return Action.WAIT if slack > spare else Action.ON_DEMAND
