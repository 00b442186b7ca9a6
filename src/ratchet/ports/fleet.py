"""Machines that several projects share, and what became of them."""

from __future__ import annotations

from typing import Any, Protocol

from ratchet.core.artifact import RunId
from ratchet.core.fleet.answer import Grant
from ratchet.core.fleet.claims import Claim, FleetPlan, Pool


class FleetStore(Protocol):
    async def pool(self, name: str) -> Pool:
        """Raises `Rejected` with the names that are known."""

    async def ask(self, pool: str, claim: Claim, usd_per_hour: float) -> Grant:
        """Tell what a run wants and has, and hear what it may have.  By run.

        The price is that of its living worker, and is metered until the next look.  Raises
        `Rejected` for an unknown pool.
        """

    async def release(self, run_id: RunId) -> None:
        """It wants nothing any more.  By run."""

    async def put(self, plan: FleetPlan) -> FleetPlan:
        """Replace pools and shares; answers what was there.

        Raises `Rejected` when a pool that is left out is still used.
        """

    async def view(self) -> dict[str, Any]:
        """Pools with their claims, and shares with what they used, as people see them."""
