"""Our policy: the table of the zone's own rates, behind the guard."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from ratchet.core.placement.availability import Availability, chain_of, node_of
from ratchet.core.placement.table import Table, solve
from ratchet.core.placement.terms import Action, Situation, Terms

# How often a zone changes, beside the model: tables for these factors; the nearest is used.
FACTORS = (0.5, 1.0, 2.0)


@dataclass(slots=True)
class Tables:
    """Tables of one class of jobs, by how often a zone changes; each is made when it is needed."""

    model: Availability
    terms: Terms
    deadline_seconds: float
    slack_seconds: float
    is_adaptive: bool = True
    _made: dict[tuple[float, float], Table] = field(default_factory=dict)

    def table(self, loss: float, recovery: float) -> Table:
        key = (nearest_factor(loss), nearest_factor(recovery)) if self.is_adaptive else (1.0, 1.0)
        if key not in self._made:
            chain = chain_of(self.model.scaled(*key), self.terms.tick_seconds)
            ticks = math.ceil(self.deadline_seconds / self.terms.tick_seconds)
            self._made[key] = solve(chain, self.terms, ticks, self.slack_seconds)
        return self._made[key]

    def wish(self, at: Situation, terms: Terms) -> Action:
        """The rule of this policy (`rules.Rule`)."""
        table = self.table(at.loss_factor, at.recovery_factor)
        return table.action(at, node_of(at.spot_is_up, at.spot_age_seconds))


def nearest_factor(factor: float) -> float:
    return min(FACTORS, key=lambda known: abs(math.log(known / factor)))
