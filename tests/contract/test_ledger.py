"""The ledger on a real PostgreSQL: settled once, summed exactly, budgets in force."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from ratchet.adapters.postgres.access import PostgresAccess
from ratchet.adapters.postgres.ledger import PostgresLedger
from ratchet.adapters.postgres.pool import Database
from ratchet.adapters.postgres.runs import PostgresAudit, PostgresProjects
from ratchet.adapters.postgres.views import PostgresViews
from ratchet.adapters.valkey.client import Valkey
from ratchet.adapters.valkey.quota import ValkeyQuota
from ratchet.core.access import Caller, Role
from ratchet.core.artifact import VersionId
from ratchet.core.errors import Unavailable
from ratchet.core.ledger import Budget, Period, Price, SubjectKind, Unit
from ratchet.core.quota import Exact, Tokens
from ratchet.kit.clock import ManualClock
from ratchet.operations.ledger import (
    LedgerParts,
    drop_budget,
    mind_budgets,
    set_budget,
    tell_exact_routes,
)
from ratchet.ports import Settlement
from tests.integration.test_access import Api, with_api
from tests.stored import NOW, SPEC, a_live_release, with_database
from tests.valkey import Server

ANA = Caller(name="ana", role=Role.ADMIN)


def answer(
    request: str, key: str = "key_1", at: datetime = NOW, version: str = "v_1", tokens: int = 10
) -> Settlement:
    return Settlement(
        request_id=request,
        version=VersionId(version),
        key_id=key,
        prompt_tokens=tokens,
        completion_tokens=tokens,
        answered_at=at,
    )


def test_an_answer_is_settled_once_whoever_tells_of_it_and_however_often(
    database_url: str,
) -> None:
    async def scenario(database: Database) -> None:
        await a_live_release(database)
        ledger = PostgresLedger(database)

        assert await ledger.settle([answer("1"), answer("2"), answer("1")], "gateway", NOW) == 2
        assert await ledger.settle([answer("2"), answer("3")], "engine", NOW) == 1
        assert await ledger.settle([answer("3"), answer("1")], "gateway", NOW) == 0

        views = PostgresViews(database)
        [used] = await views.usage("p", NOW - timedelta(days=1), 10)
        assert await views.costs() == {"v_1": 0.0}
        assert (used["requests"], used["prompt_tokens"]) == (3, 30)

    with_database(database_url, scenario)


def test_a_price_is_that_of_the_moment_and_of_the_version(database_url: str) -> None:
    async def scenario(database: Database) -> None:
        await a_live_release(database)
        ledger, views = PostgresLedger(database), PostgresViews(database)
        free = answer("0")
        await ledger.settle([free], "gateway", NOW)
        await ledger.put_price("p", "", Price(Decimal("0.15"), Decimal("0.6")), "ana", NOW)
        dear = Price(Decimal(3), Decimal(15))
        assert await ledger.put_price("p", "v_2", dear, "ana", NOW) == ""
        many = [answer(f"a{number}", tokens=1) for number in range(1000)]
        await ledger.settle([*many, answer("b", version="v_2")], "gateway", NOW)
        await ledger.put_price("p", "", Price(Decimal(99), Decimal(99)), "ana", NOW)
        await ledger.settle([free], "gateway", NOW)

        [used] = await views.usage("p", NOW - timedelta(days=1), 10)

        # 1000 x (0.15 + 0.6) / 1M + 10 x (3 + 15) / 1M, to the last digit.
        assert used["cost_usd"] == "0.00093"

    with_database(database_url, scenario)


def test_budgets_of_keys_teams_and_the_project_warn_and_refuse_and_begin_again(
    database_url: str, tmp_path: Path
) -> None:
    async def scenario(api: Api) -> None:
        parts = api.parts
        ledger = parts.ledger.ledger
        one, two = await api.key(team="search"), await api.key(team="search")
        other = await api.key()
        now = parts.runs.clock.now()
        for kind, subject, amount in (
            (SubjectKind.KEY, one["id"], 100),
            (SubjectKind.TEAM, "search", 200),
            (SubjectKind.PROJECT, "", 1000),
        ):
            budget = Budget(
                project="p", kind=kind, subject=subject, period=Period.DAY, unit=Unit.TOKENS,
                amount=Decimal(amount),
            )  # fmt: skip
            await set_budget(budget, ANA, parts.ledger)

        async def use(request: str, key: str, tokens: int) -> tuple[str, ...]:
            await ledger.settle([answer(request, key, now, tokens=tokens // 2)], "gateway", now)
            await mind_budgets(parts.ledger)
            return (await parts.gateway.snapshot(now)).admission.exhausted

        async def states() -> list[str]:
            rows = (await api("GET", "/budgets?project=p")).json()
            return [row["state"] for row in rows]

        assert await use("1", one["id"], 80) == ()
        assert await states() == ["warned", "ok", "ok"]
        revision = (await parts.gateway.snapshot(now)).revision
        assert await use("2", one["id"], 20) == (one["id"],)
        assert (await parts.gateway.snapshot(now)).revision == revision + 1
        assert await use("3", two["id"], 100) == tuple(sorted((one["id"], two["id"])))
        # A new key of a team that has nothing left has nothing, either.
        late = await api.key(team="search")
        assert late["id"] in (await parts.gateway.snapshot(now)).admission.exhausted
        assert other["id"] not in (await parts.gateway.snapshot(now)).admission.exhausted
        assert len(await use("4", other["id"], 800)) == 4
        told = (await api("GET", "/audit")).json()
        moves = [(row["old"], row["new"]) for row in told if row["what"] == "budget"]
        assert moves.count(("warned", "exhausted")) + moves.count(("ok", "exhausted")) == 3

        # The next day everybody may go on; so they may with a larger budget, or none.
        tomorrow = await ledger.budgets_spent(now + timedelta(days=1))
        assert [spent for *_, spent in tomorrow] == [0, 0, 0]
        for row in (await api("GET", "/budgets?project=p")).json():
            await drop_budget(row["id"], "over", ANA, parts.ledger)
        assert (await parts.gateway.snapshot(now)).admission.exhausted == ()

    with_api(database_url, tmp_path, scenario)


def test_prices_and_budgets_over_http_say_what_is_wrong(database_url: str, tmp_path: Path) -> None:
    async def scenario(api: Api) -> None:
        budget = {"project": "p", "kind": "team", "subject": "s", "period": "day", "unit": "usd"}
        made = await api("PUT", "/budgets", amount="12.5", **budget)
        again = await api("PUT", "/budgets", amount="20", **budget)
        assert made.status_code == 200
        assert made.json() == again.json()
        [listed] = (await api("GET", "/budgets?project=p")).json()
        assert (listed["amount"], listed["spent"], listed["state"]) == ("20", "0", "ok")

        assert (await api("PUT", "/budgets", amount="-1", **budget)).status_code == 422
        nowhere = budget | {"project": "q"}
        assert (await api("PUT", "/budgets", amount="1", **nowhere)).status_code == 404
        stranger = budget | {"kind": "key", "subject": "key_x"}
        assert (await api("PUT", "/budgets", amount="1", **stranger)).status_code == 404
        price = {"project": "p", "prompt_usd": "0.1", "completion_usd": "0.2"}
        assert (await api("PUT", "/prices", **price)).status_code == 204
        [kept] = (await api("GET", "/prices?project=p")).json()
        assert (kept["prompt_usd"], kept["completion_usd"]) == ("0.1", "0.2")
        dropped = await api("POST", f"/budgets/{made.json()['id']}/drop", why="over")
        assert dropped.status_code == 204
        assert (await api("POST", "/budgets/bud_x/drop", why="over")).status_code == 404
        changes = [row["what"] for row in (await api("GET", "/audit")).json()]
        assert {"set budget", "drop budget", "set price"} <= set(changes)

    with_api(database_url, tmp_path, scenario)


def test_an_engines_journal_is_settled_once_over_http(database_url: str, tmp_path: Path) -> None:
    async def scenario(api: Api) -> None:
        at = api.parts.runs.clock.now().timestamp()
        line = {"request_id": "r", "version": "v_1", "prompt_tokens": 3, "completion_tokens": 4}
        body = [line | {"at": at, "key_id": "key_1"}]

        first = await api("POST", "/node/answers", answers=body)
        again = await api("POST", "/node/answers", answers=body)
        wrong = await api("POST", "/node/answers", answers=[line | {"at": at, "request_id": ""}])
        stranger = await api("POST", "/node/answers", None, answers=body)

        assert (first.json(), again.json()) == ({"new": 1}, {"new": 0})
        assert (wrong.status_code, stranger.status_code) == (422, 401)

    with_api(database_url, tmp_path, scenario)


def test_exact_routes_are_told_what_the_ledger_says(database_url: str, valkey: Server) -> None:
    async def scenario(database: Database) -> None:
        await a_live_release(database)
        serving = replace(SPEC.serving, exact=Exact())
        await PostgresProjects(database).put(replace(SPEC, serving=serving), NOW)
        quota = ValkeyQuota(Valkey(valkey.url))
        ledger = PostgresLedger(database)
        parts = LedgerParts(
            ledger, PostgresProjects(database), PostgresAccess(database), PostgresAudit(database),
            ManualClock(NOW), quota,
        )  # fmt: skip
        await ledger.put_budget(limit(Unit.TOKENS, "100"), "ana", NOW)
        await tell_exact_routes(parts)
        assert await quota.reserve("p", "key_1", "1", Tokens(50, 40), 4e9) is None
        assert await quota.reserve("p", "key_1", "2", Tokens(10, 1), 4e9) is not None
        await quota.settle("p", "key_1", "1", Tokens(10, 10))
        await ledger.settle([answer("1", tokens=10)], "gateway", NOW)

        await tell_exact_routes(parts)

        # 20 are spent and nothing is put aside: what was settled is not counted twice.
        assert await quota.open_requests("p") == []
        assert await quota.reserve("p", "key_1", "3", Tokens(40, 40), 4e9) is None
        assert await quota.reserve("p", "key_1", "4", Tokens(1, 0), 4e9) is not None

    with_database(database_url, scenario)


def test_without_exact_routes_nobody_is_told(database_url: str, valkey: Server) -> None:
    async def scenario(database: Database) -> None:
        await a_live_release(database)
        quota = ValkeyQuota(Valkey(valkey.url))
        parts = LedgerParts(
            PostgresLedger(database), PostgresProjects(database), PostgresAccess(database),
            PostgresAudit(database), ManualClock(NOW), quota,
        )  # fmt: skip
        await tell_exact_routes(parts)
        await tell_exact_routes(replace(parts, quota=None))

        with pytest.raises(Unavailable):
            await quota.reserve("p", "key_1", "1", Tokens(1, 1), 4e9)

    with_database(database_url, scenario)


def limit(unit: Unit, amount: str) -> Budget:
    return Budget(
        project="p", kind=SubjectKind.PROJECT, subject="", period=Period.DAY, unit=unit,
        amount=Decimal(amount),
    )  # fmt: skip
