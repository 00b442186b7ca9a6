"""The ledger in PostgreSQL: settlements, sums, prices and budgets."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal

from ratchet.adapters.postgres.pool import Connection, Database, Row, fetch
from ratchet.core.errors import NotFound
from ratchet.core.ledger import Budget, BudgetState, Period, Price, SubjectKind, Unit
from ratchet.core.quota import Accounts, account
from ratchet.kit.ids import new_id
from ratchet.ports import Settlement


class PostgresLedger:
    def __init__(self, database: Database) -> None:
        self._db = database

    async def settle(self, answers: Sequence[Settlement], told_by: str, now: datetime) -> int:
        async with self._db.transaction() as tx:
            gateway = await fetch(tx, "get_gateway")
            if not gateway:
                return 0
            return await settle(tx, str(gateway[0]["project"]), answers, told_by, now)

    async def put_price(
        self, project: str, version: str, price: Price, by: str, now: datetime
    ) -> str:
        row = await self._db.one(
            "put_price",
            project=project,
            version_id=version,
            prompt_usd=price.prompt_usd,
            completion_usd=price.completion_usd,
            set_by=by,
            now=now,
        )
        return "" if row is None else f"{row['prompt_usd']} / {row['completion_usd']}"

    async def put_budget(self, budget: Budget, by: str, now: datetime) -> tuple[str, str]:
        named = {
            "project": budget.project,
            "kind": budget.kind.value,
            "subject": budget.subject,
            "period": budget.period.value,
            "unit": budget.unit.value,
        }
        async with self._db.transaction() as tx:
            before = await fetch(tx, "find_budget", **named)
            id_ = before[0]["id"] if before else new_id("bud")
            await fetch(tx, "put_budget", id=id_, amount=budget.amount, set_by=by, now=now, **named)
        return str(id_), _budget(before[0]).describe() if before else ""

    async def drop_budget(self, id_: str) -> Budget:
        async with self._db.transaction() as tx:
            rows = await fetch(tx, "drop_budget", id=id_)
            if not rows:
                raise NotFound(f"budget {id_} is not known here")
            await _tell_gateways(tx, rows[0]["project"])
        return _budget(rows[0])

    async def budgets_spent(self, now: datetime) -> list[tuple[str, Budget, BudgetState, Decimal]]:
        rows = await self._db.all("budgets_spent", today=now.astimezone(UTC).date(), project=None)
        return [
            (row["id"], _budget(row), BudgetState(row["state"]), Decimal(row["spent"]))
            for row in rows
        ]

    async def accounts(
        self, project: str, requests: Sequence[str], now: datetime
    ) -> tuple[Accounts, list[str]]:
        async with self._db.transaction() as tx:
            await tx.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            today = now.astimezone(UTC).date()
            budgets = await fetch(tx, "budgets_spent", today=today, project=project)
            prices = await fetch(tx, "list_prices", project=project)
            of_keys = await fetch(tx, "budgets_of_keys", project=project)
            settled = await fetch(tx, "settled_among", requests=list(requests))
        known = [Price(row["prompt_usd"], row["completion_usd"]) for row in prices]
        keys: dict[str, tuple[str, ...]] = {}
        for row in of_keys:
            keys[row["key_id"]] = (*keys.get(row["key_id"], ()), row["budget_id"])
        accounts = Accounts(
            accounts=tuple(
                account(row["id"], _budget(row), Decimal(row["spent"]), known) for row in budgets
            ),
            of_keys=keys,
            of_all=tuple(row["id"] for row in budgets if row["kind"] == "project"),
        )
        return accounts, [row["request_id"] for row in settled]

    async def move_budget(
        self, id_: str, old: BudgetState, new: BudgetState, now: datetime
    ) -> bool:
        async with self._db.transaction() as tx:
            rows = await fetch(tx, "move_budget", id=id_, old=old.value, new=new.value, now=now)
            if rows and BudgetState.EXHAUSTED in (old, new):
                await _tell_gateways(tx, rows[0]["project"])
        return bool(rows)


async def settle(
    tx: Connection, project: str, answers: Sequence[Settlement], told_by: str, now: datetime
) -> int:
    """Settle inside a transaction of the caller's; answers how many were new."""
    if not answers:
        return 0
    rows = await fetch(
        tx,
        "settle",
        project=project,
        told_by=told_by,
        now=now,
        request_ids=[answer.request_id for answer in answers],
        key_ids=[answer.key_id for answer in answers],
        versions=[answer.version for answer in answers],
        prompt_tokens=[answer.prompt_tokens for answer in answers],
        completion_tokens=[answer.completion_tokens for answer in answers],
        answered=[answer.answered_at for answer in answers],
    )
    return int(rows[0]["settled"])


async def _tell_gateways(tx: Connection, project: str) -> None:
    await fetch(tx, "bump_gateway", project=project)
    await fetch(tx, "notify_gateway", project=project)


def _budget(row: Row) -> Budget:
    return Budget(
        project=row["project"],
        kind=SubjectKind(row["kind"]),
        subject=row["subject"],
        period=Period(row["period"]),
        unit=Unit(row["unit"]),
        amount=row["amount"].normalize(),
    )
