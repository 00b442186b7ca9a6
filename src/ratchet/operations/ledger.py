"""Budgets: set, drop, and look after them as answers are settled."""

from __future__ import annotations

from dataclasses import dataclass

from ratchet.core.access import Caller, KeyId
from ratchet.core.errors import NotFound
from ratchet.core.ledger import Budget, BudgetState, Price, SubjectKind
from ratchet.kit.clock import Clock
from ratchet.ports import AccessStore, Audit, LedgerStore, ProjectStore, QuotaStore


@dataclass(frozen=True, slots=True)
class LedgerParts:
    ledger: LedgerStore
    projects: ProjectStore
    keys: AccessStore
    audit: Audit
    clock: Clock
    quota: QuotaStore | None = None
    """Where exact routes put aside; None without a Valkey."""


async def set_budget(budget: Budget, by: Caller, parts: LedgerParts) -> str:
    """Set or change a budget; answers its id.  Raises `NotFound` for an unknown project or key."""
    await parts.projects.get(budget.project)
    if budget.kind is SubjectKind.KEY:
        key = await parts.keys.get(KeyId(budget.subject))
        if key.project != budget.project:
            raise NotFound(f"key {budget.subject} is not known in project {budget.project}")
    now = parts.clock.now()
    id_, before = await parts.ledger.put_budget(budget, by.name, now)
    await parts.audit.add(by.name, "set budget", id_, before, budget.describe(), "", now)
    await mind_budgets(parts)
    return id_


async def drop_budget(id_: str, why: str, by: Caller, parts: LedgerParts) -> None:
    """Raises `NotFound`."""
    now = parts.clock.now()
    budget = await parts.ledger.drop_budget(id_)
    await parts.audit.add(by.name, "drop budget", id_, budget.describe(), "", why, now)


async def set_price(
    project: str, version: str, price: Price, by: Caller, parts: LedgerParts
) -> None:
    """What answers cost from now on: of one version, or of all that have no price of their own.

    Raises `NotFound` for an unknown project.  What is settled stays as it was.
    """
    await parts.projects.get(project)
    now = parts.clock.now()
    before = await parts.ledger.put_price(project, version, price, by.name, now)
    shown = f"{price.prompt_usd} / {price.completion_usd} USD per million tokens"
    await parts.audit.add(by.name, "set price", version or project, before, shown, "", now)


async def mind_budgets(parts: LedgerParts) -> list[tuple[str, BudgetState]]:
    """Bring every budget's state up to date with what is settled; answers what changed.

    Gateways are told in the same transaction.  Repeatable.
    """
    now = parts.clock.now()
    changed = []
    for id_, budget, state, spent in await parts.ledger.budgets_spent(now):
        new = budget.state(spent)
        if new is state or not await parts.ledger.move_budget(id_, state, new, now):
            continue
        because = f"{spent:f} of {budget.describe()}"
        await parts.audit.add("system", "budget", id_, state.value, new.value, because, now)
        changed.append((id_, new))
    return changed


async def tell_exact_routes(parts: LedgerParts) -> None:
    """Say to gateways with exact routes what the ledger says.

    Requests in flight are read before the ledger: what is settled in between counts twice until
    the next time, never not at all.  Raises `Unavailable`.
    """
    if parts.quota is None:
        return
    for project in await parts.projects.listing():
        if project.serving.exact is None:
            continue
        now = parts.clock.now()
        requests = await parts.quota.open_requests(project.name)
        accounts, settled = await parts.ledger.accounts(project.name, requests, now)
        await parts.quota.tell(project.name, accounts, settled, now.timestamp())
