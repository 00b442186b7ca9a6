"""Never late: what may be done so that on-demand capacity can still save the deadline.

It knows nothing of models.  Whatever a policy believes, only what passes here is done.
"""

from __future__ import annotations

from ratchet.core.placement.terms import Action, Machine, Situation, Terms

# Sums of seconds are not exact.
EPSILON = 1e-6


def is_safe(action: Action, at: Situation, terms: Terms) -> bool:
    """Whether, after a tick of this and then the worst, on-demand alone is still in time.

    The worst: spot goes at the next look.  A job that holds time left >= work left + delay (or +
    what is pending of its on-demand machine) is never late while on-demand can be had.
    """
    if at.guarded_work_seconds <= EPSILON:
        return True
    time_left = at.time_left_seconds - terms.tick_seconds
    if action is Action.WAIT:
        return _holds(time_left, at.guarded_work_seconds + terms.delay_seconds)
    if action is Action.SPOT:
        return _spot_is_safe(at, terms, time_left)
    # On-demand is as safe as it gets.
    return action is Action.ON_DEMAND or _overlap_is_safe(at, terms)


def _spot_is_safe(at: Situation, terms: Terms, time_left: float) -> bool:
    # Should spot go within the tick, then the worst moment is the one before it began to work: from
    # then on work and time go by alike.  So the look at its end is as bad as any in between.
    pending = at.pending_seconds if at.machine is Machine.SPOT else terms.delay_seconds
    work = max(0.0, terms.tick_seconds - pending)
    return _holds(time_left, at.guarded_work_seconds - work + terms.delay_seconds)


def _overlap_is_safe(at: Situation, terms: Terms) -> bool:
    """It works on demand until the spot machine takes over, which may then be lost at once."""
    works = at.machine is Machine.ON_DEMAND and at.pending_seconds <= EPSILON
    if terms.handover_seconds is None or not (works or at.machine is Machine.BOTH):
        return False
    rest = terms.delay_seconds if works else at.pending_seconds
    needed = at.guarded_work_seconds + terms.handover_seconds + terms.delay_seconds
    return rest > terms.tick_seconds or _holds(at.time_left_seconds, needed)


def _holds(time_left: float, needed: float) -> bool:
    return needed <= time_left + EPSILON


def guarded(wish: Action, at: Situation, terms: Terms) -> Action:
    """The wish if it is possible and safe, else on-demand."""
    needs_spot = wish in (Action.SPOT, Action.OVERLAP)
    if needs_spot and not at.spot_is_up:
        wish = Action.WAIT
    if is_safe(wish, at, terms):
        return wish
    return Action.SPOT if _only_spot_can_save(at, terms) else Action.ON_DEMAND


def _only_spot_can_save(at: Situation, terms: Terms) -> bool:
    """Work that turned out longer: a new machine would be late, this one may not be."""
    on_demand = at.guarded_work_seconds + terms.delay_seconds
    return (
        at.machine is Machine.SPOT
        and at.spot_is_up
        and on_demand > at.time_left_seconds + EPSILON
        and at.pending_seconds < terms.delay_seconds
    )
