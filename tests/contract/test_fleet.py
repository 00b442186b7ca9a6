"""Machines that projects share, on a real PostgreSQL: told, answered, metered, forgotten."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import psycopg
import pytest
from typer.testing import CliRunner, Result

from ratchet.adapters.postgres.fleet import SILENT_SECONDS_MAX, PostgresFleet
from ratchet.adapters.postgres.pool import Database
from ratchet.adapters.specfile.fleet import load_fleet
from ratchet.core.artifact import RunId
from ratchet.core.errors import Rejected, Unavailable
from ratchet.core.fleet.claims import Claim, FleetPlan, Pool, Share
from ratchet.core.place import Capacity
from ratchet.entrypoints.cli.main import app
from tests.stored import with_database

SPOT, STAYS = Capacity.SPOT, Capacity.ON_DEMAND
PLAN = FleetPlan((Pool(name="gpus", spot=1, on_demand=1),), {"p": Share(usd_per_month=10.0)})


def claim(run: str, wants: Capacity | None = SPOT, **given: Any) -> Claim:
    return Claim(run=run, **{"project": "p", "wants": wants, **given})


async def hours_pass(database: Database, hours: float) -> None:
    """For what is stored; the clock is the database's."""
    async with database.transaction() as tx:
        await tx.execute(
            "UPDATE fleet_claims SET told_at = told_at - make_interval(secs => %s), "
            "waiting_since = waiting_since - make_interval(secs => %s)",
            (hours * 3600, hours * 3600),
        )


def test_a_run_is_told_what_it_may_have_and_keeps_it(database_url: str) -> None:
    async def scenario(database: Database) -> None:
        fleet = PostgresFleet(database)
        await fleet.put(PLAN)

        first = await fleet.ask("gpus", claim("a"), 0.0)
        second = await fleet.ask("gpus", claim("b"), 0.0)
        again = await fleet.ask("gpus", claim("a"), 0.0)
        works = await fleet.ask("gpus", claim("a", alive=SPOT), 1.0)

        assert [first.kind, second.kind, again.kind, works.kind] == [SPOT, None, SPOT, SPOT]
        assert second.because == ("pool gpus: waits for 1 spot slot; 1 of 1 spot slots taken")
        await fleet.release(RunId("a"))
        assert (await fleet.ask("gpus", claim("b"), 0.0)).kind is SPOT
        assert (await fleet.ask("gpus", claim("c"), 0.0)).kind is None
        assert (await fleet.ask("gpus", claim("b", None), 0.0)).kind is None, "it wants no more"
        assert (await fleet.ask("gpus", claim("c"), 0.0)).kind is SPOT

    with_database(database_url, scenario)


def test_many_that_look_at_once_never_have_more_than_there_is(database_url: str) -> None:
    async def scenario(database: Database) -> None:
        fleet = PostgresFleet(database)
        await fleet.put(FleetPlan((Pool(name="gpus", spot=3),), {}))

        grants = await asyncio.gather(
            *(fleet.ask("gpus", claim(f"run-{n}"), 0.0) for n in range(40))
        )

        assert sum(grant.kind is SPOT for grant in grants) == 3

    with_database(database_url, scenario)


def test_what_workers_took_is_metered_and_a_spent_budget_has_them_leave(
    database_url: str,
) -> None:
    async def scenario(database: Database) -> None:
        fleet = PostgresFleet(database)
        await fleet.put(PLAN)
        await fleet.ask("gpus", claim("a"), 0.0)
        await fleet.ask("gpus", claim("a", alive=SPOT), 4.0)
        await hours_pass(database, 0.2)
        kept = await fleet.ask("gpus", claim("a", alive=SPOT), 100.0)
        await hours_pass(database, 0.1)
        spent = await fleet.ask("gpus", claim("a", alive=SPOT), 100.0)
        view = await fleet.view()

        assert not kept.leaves
        assert (spent.kind, spent.leaves) == (None, True)
        assert spent.because == "pool gpus: p has used its 10 USD of this month"
        [share] = view["projects"]
        assert share["usd_spent"] == pytest.approx(0.2 * 4.0 + 0.1 * 100.0, rel=1e-3)
        assert share["month_slot_seconds"] == pytest.approx(0.3 * 3600, rel=1e-3)
        [pool] = view["pools"]
        assert [(each["run_id"], each["alive"]) for each in pool["claims"]] == [("a", "spot")]
        await fleet.release(RunId("a"))
        async with database.transaction() as tx:
            await tx.execute("UPDATE fleet_usage SET day = day - 40")
        assert (await fleet.ask("gpus", claim("a"), 0.0)).kind is SPOT, "another month"

    with_database(database_url, scenario)


def test_a_stack_that_is_gone_is_forgotten(database_url: str) -> None:
    async def scenario(database: Database) -> None:
        fleet = PostgresFleet(database)
        await fleet.put(PLAN)
        await fleet.ask("gpus", claim("gone", alive=None), 0.0)
        await hours_pass(database, (SILENT_SECONDS_MAX - 10) / 3600)
        assert (await fleet.ask("gpus", claim("b"), 0.0)).kind is None
        await hours_pass(database, 20 / 3600)

        assert (await fleet.ask("gpus", claim("b"), 0.0)).kind is SPOT

    with_database(database_url, scenario)


def test_a_stack_that_comes_back_keeps_the_machine_that_it_is_on(database_url: str) -> None:
    """Its worker went on while its server was away, and its slot was given to another."""

    async def scenario(database: Database) -> None:
        fleet = PostgresFleet(database)
        await fleet.put(FleetPlan((Pool(name="gpus", spot=1),), {}))
        await fleet.ask("gpus", claim("a"), 0.0)
        await fleet.ask("gpus", claim("a", alive=SPOT), 0.0)
        await hours_pass(database, (SILENT_SECONDS_MAX + 10) / 3600)
        assert (await fleet.ask("gpus", claim("b"), 0.0)).kind is SPOT

        back = await fleet.ask("gpus", claim("a", alive=SPOT), 0.0)

        assert (back.kind, back.leaves) == (SPOT, False)
        assert (await fleet.ask("gpus", claim("c"), 0.0)).kind is None, "one too many as it is"

    with_database(database_url, scenario)


def test_waiting_counts_from_the_first_look_to_a_worker(database_url: str) -> None:
    async def scenario(database: Database) -> None:
        fleet = PostgresFleet(database)
        await fleet.put(PLAN)
        await fleet.ask("gpus", claim("first"), 0.0)
        await fleet.ask("gpus", claim("b"), 0.0)
        await hours_pass(database, 0.1)
        await fleet.ask("gpus", claim("b"), 0.0)
        [pool] = (await fleet.view())["pools"]
        waits = {each["run_id"]: each["waiting_seconds"] for each in pool["claims"]}
        await fleet.ask("gpus", claim("b", alive=STAYS), 0.0)
        [pool] = (await fleet.view())["pools"]
        works = {each["run_id"]: each["waiting_seconds"] for each in pool["claims"]}

        assert waits["b"] == pytest.approx(360.0, abs=5.0)
        assert works["b"] == 0.0

    with_database(database_url, scenario)


def test_a_pool_that_is_used_is_not_left_out(database_url: str) -> None:
    async def scenario(database: Database) -> None:
        fleet = PostgresFleet(database)
        await fleet.put(PLAN)
        await fleet.ask("gpus", claim("a"), 0.0)
        other = FleetPlan((Pool(name="cpus"),), {})

        with pytest.raises(Rejected, match="gpus is left out and still used by a"):
            await fleet.put(other)

        assert (await fleet.pool("gpus")).spot == 1, "nothing of it was done"
        await fleet.release(RunId("a"))
        before = (await fleet.put(other)).describe()
        assert before == "gpus 1 spot 1 on demand; p weight 1 10 USD a month"
        assert other.describe() == "cpus any spot any on demand"
        with pytest.raises(Rejected, match="found 'gpus', known are: cpus"):
            await fleet.ask("gpus", claim("a"), 0.0)

    with_database(database_url, scenario)


def test_a_database_without_a_fleet_is_waited_for(postgres_url: str) -> None:
    name = "without_a_fleet"
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")

    async def scenario(database: Database) -> None:
        with pytest.raises(Unavailable, match="RATCHET_FLEET_DATABASE_URL: no fleet there yet"):
            await PostgresFleet(database).pool("gpus")

    with_database(postgres_url.replace("/postgres?", f"/{name}?"), scenario)


GOOD = """\
pools:
  gpus: {spot: 8, on_demand: 2}
  laptop: {on_demand: 1}
projects:
  support-router: {weight: 2, usd_per_month: 400}
  summaries: {}
"""


def test_a_fleet_file_is_read(tmp_path: Path) -> None:
    file = tmp_path / "fleet.yaml"
    file.write_text(GOOD)

    plan = load_fleet(file)

    assert plan.pools == (
        Pool(name="gpus", spot=8, on_demand=2),
        Pool(name="laptop", on_demand=1),
    )
    assert plan.shares == {
        "support-router": Share(weight=2.0, usd_per_month=400.0),
        "summaries": Share(),
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "1:1: file: found no mapping, expected keys such as `pools:`"),
        ("projects: {}", "1:1: pools: found nothing, expected at least one pool"),
        ("pools: 3", "1:8: pools: found '3', expected keys below it"),
        ("pools: {a: [1]}", "1:12: pools.a: found a list, expected keys below it"),
        ("pools:\n  a: {spots: 1}", "2:7: pools.a.spots: found an unknown key, expected spot or"),
        ("pools: {a: {spot: -1}}", "found '-1', expected a whole number from 0 to 100000"),
        ("pools: {a: {spot: 1.5}}", "found '1.5', expected a whole number"),
        ("pools: {a: {spot: many}}", "found 'many', expected a whole number"),
        ("pools: {a: {}, a: {}}", "1:16: pools.a: found the key a second time, expected each"),
        ("pools: {'': {}}", "1:9: pools: found '', expected a name of 1 to 100 letters"),
        ("pools: {a: {}}\nprojects: {p: {weight: 0}}", "expected a number from 1e-06 to 1e+06"),
        ("pools: {a: {}}\nprojects: {p: {weight: .nan}}", "found '.nan', expected a number"),
        ("pools: {a: {}}\nteams: {}", "2:1: teams: found an unknown key, expected pools or"),
        ("pools: [", "YAML: found"),
    ],
)
def test_what_is_wrong_with_a_fleet_file_is_said_with_its_place(
    tmp_path: Path, text: str, said: str
) -> None:
    file = tmp_path / "fleet.yaml"
    file.write_text(text)

    with pytest.raises(Rejected) as refused:
        load_fleet(file)

    assert said in str(refused.value)
    assert str(file) in str(refused.value)


JOBS = """\
project,at_hours,work_hours,deadline_hours,slots,priority
router,0,2,8,1,0
router,1,1,4,2,5
summaries,0.5,3,,1,
"""


def simulated(folder: Path, jobs: str, fleet: str, *more: str) -> Result:
    (folder / "jobs.csv").write_text(jobs)
    (folder / "fleet.yaml").write_text(fleet)
    words = ["fleet", "simulate", str(folder / "fleet.yaml"), "--jobs", str(folder / "jobs.csv")]
    return CliRunner().invoke(app, [*words, *more])


def test_a_pool_of_some_size_is_tried_on_jobs(tmp_path: Path) -> None:
    told = simulated(tmp_path, JOBS, "pools: {gpus: {spot: 2, on_demand: 2}}", "--json")

    rows = json.loads(told.output)
    assert [row["on_demand"] for row in rows] == [2, 3], "one slot less would not hold a job"
    for row in rows:
        assert (row["late"], row["not_ended"]) == (0, 0)
        # Seven slot hours of work, at between spot's price and the other.
        assert 7.0 <= row["usd"] <= 3.0 * 9.0
        assert 0.0 <= row["waited_hours_median"] <= row["waited_hours_max"]


def test_a_simulation_is_told_in_a_table_and_takes_a_trace(tmp_path: Path) -> None:
    zone = tmp_path / "zone.json"
    zone.write_text(json.dumps({"metadata": {"gap_seconds": 600}, "data": [1] * 50}))

    told = simulated(tmp_path, JOBS, "pools: {gpus: {spot: 4}}", "--trace", str(zone))

    assert "3 jobs over pool gpus, spot as in" in told.output
    assert "any" in told.output
    assert "100%" in told.output, "spot was there all the time"


@pytest.mark.parametrize(
    ("jobs", "fleet", "said"),
    [
        ("project,hours\np,1\n", "pools: {a: {}}", "jobs.csv:1: found columns hours"),
        ("project,work_hours\n", "pools: {a: {}}", "jobs.csv:1: found no rows"),
        ("project,work_hours\np,long\n", "pools: {a: {}}", "jobs.csv:2: work_hours: found 'long'"),
        ("project,work_hours\n,1\n", "pools: {a: {}}", "jobs.csv:2: project: found nothing"),
        (
            "project,work_hours,slots\np,1,1.5\n",
            "pools: {a: {}}",
            "jobs.csv:2: slots: found '1.5', expected a whole number from 1 to 100000",
        ),
        ("project,slots\np,1\n", "pools: {a: {}}", "jobs.csv:2: work_hours: found nothing"),
        (JOBS, "pools: {a: {on_demand: 1}}", "job-2 needs 2 slots, and pool a has 1 on-demand"),
        (JOBS, "pools: {a: {spot: 0, on_demand: 2}}", "job-3 needs 1 slots, and pool a has 0 spot"),
    ],
)
def test_what_cannot_be_simulated_is_refused(
    tmp_path: Path, jobs: str, fleet: str, said: str
) -> None:
    refused = simulated(tmp_path, jobs, fleet)

    assert isinstance(refused.exception, Rejected)
    assert said in str(refused.exception)


def test_a_pool_that_is_not_in_the_file_is_refused(tmp_path: Path) -> None:
    refused = simulated(tmp_path, JOBS, "pools: {a: {}}", "--pool", "b")

    assert str(refused.exception) == "--pool: found 'b', expected one of a"
