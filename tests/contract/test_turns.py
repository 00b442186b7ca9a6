"""Turns and feedback on a real PostgreSQL: kept once, by day, and forgotten on demand."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from ratchet.adapters.postgres.gateway import PostgresRecords
from ratchet.adapters.postgres.pool import Database
from ratchet.adapters.postgres.runs import PostgresAudit, PostgresProjects
from ratchet.adapters.postgres.turns import PostgresTurns
from ratchet.adapters.postgres.views import PostgresViews
from ratchet.core.access import Caller, Role
from ratchet.core.errors import Unavailable
from ratchet.core.serving import Capture, Serving
from ratchet.core.spec import LearnedTurns
from ratchet.core.turns import Feedback, Turn, subject_digest
from ratchet.kit.clock import ManualClock
from ratchet.operations.turns import TurnParts, erase, keep_to_retention, tell_followers
from ratchet.ports import Event
from tests.integration.test_access import Api, with_api
from tests.stored import NOW, SPEC, a_live_release, record, with_database

ANA = Caller(name="ana", role=Role.ADMIN)
JANE = subject_digest("p", "jane")
DAY = timedelta(days=1)


def turn(request: str, subject: str = JANE, days_ago: int = 0) -> Turn:
    return Turn(
        project="p",
        request_id=request,
        version="v_1",
        conversation="c",
        key_id="key_1",
        subjects=(subject,),
        messages=({"role": "user", "content": "where?"},),
        answer={"role": "assistant", "content": "here"},
        parameters={"model": "m"},
        finish_reason="stop",
        scrubbed={"EMAIL": 1},
        sample=0.1,
        started_at=NOW - DAY * days_ago,
    )


def said(id_: str, request: str = "", conversation: str = "", days_ago: int = 0) -> Feedback:
    return Feedback(
        project="p",
        id=id_,
        request_id=request,
        conversation=conversation,
        key_id="key_1",
        subjects=(subject_digest("p", "bob"),),
        score=None,
        thumbs="down",
        correction="there",
        comment="",
        received_at=NOW - DAY * days_ago,
    )


def parts_of(database: Database, *sinks: object) -> TurnParts:
    turns = PostgresTurns(database)
    return TurnParts(
        turns=turns,
        events=turns,
        sinks=sinks,  # type: ignore[arg-type]
        projects=PostgresProjects(database),
        audit=PostgresAudit(database),
        clock=ManualClock(NOW),
    )


def test_turns_and_feedback_are_kept_once_and_joined_whichever_comes_first(
    database_url: str,
) -> None:
    async def scenario(database: Database) -> None:
        await a_live_release(database)
        turns, views = PostgresTurns(database), PostgresViews(database)

        assert await turns.add_feedback([said("f1", request="r1")], NOW) == 1
        assert (await views.capture("p", NOW))["feedback_without_turn"] == 1
        assert await turns.add([turn("r1"), turn("r2", days_ago=3), turn("r1")], NOW) == 2
        assert await turns.add([turn("r1")], NOW) == 0
        # The same words at another time, and in one breath: still one.
        late = said("f1", request="r1", days_ago=-1)
        assert await turns.add_feedback([late, said("f2", conversation="c"), late], NOW) == 1

        first = (await views.turns("p", 10, request_id="r1"))[0]
        assert [each["id"] for each in first["feedback"]] == ["f1", "f2"]
        assert (first["messages"][0]["content"], first["scrubbed"]) == ("where?", {"EMAIL": 1})
        assert len(await views.turns("p", 10, only_said=True)) == 2
        newest = await views.turns("p", 1)
        assert len(await views.turns("p", 10, before=newest[0]["sequence"])) == 1
        stored = await views.capture("p", NOW)
        assert (stored["turns"], stored["feedback"]) == (2, 2)
        assert stored["feedback_without_turn"] == 0

    with_database(database_url, scenario)


def test_many_gateways_that_begin_a_day_at_once_make_its_table_once(database_url: str) -> None:
    async def scenario(database: Database) -> None:
        await a_live_release(database)
        turns = PostgresTurns(database)

        new = await asyncio.gather(*(turns.add([turn(f"r{n}")], NOW) for n in range(6)))

        assert sum(new) == 6

    with_database(database_url, scenario)


def test_one_that_no_database_holds_does_not_stop_the_others(database_url: str) -> None:
    async def scenario(database: Database) -> None:
        await a_live_release(database)
        bad = replace(turn("bad"), finish_reason="\0")

        assert await PostgresTurns(database).add([turn("r1"), bad, turn("r2")], NOW) == 2

    with_database(database_url, scenario)


def test_of_another_project_nothing_is_taken(database_url: str) -> None:
    async def scenario(database: Database) -> None:
        await a_live_release(database)

        assert await PostgresTurns(database).add([replace(turn("r1"), project="x")], NOW) == 0

    with_database(database_url, scenario)


def test_losses_are_what_was_sampled_and_answered_and_did_not_come(database_url: str) -> None:
    async def scenario(database: Database) -> None:
        await a_live_release(database)
        asked = [
            replace(record(f"r{n}", "v_1", 1), sampled=n < 4, started_at=NOW - timedelta(minutes=5))
            for n in range(5)
        ]
        asked[3] = replace(asked[3], status=503)
        just_now = replace(record("r9", "v_1", 1), sampled=True, started_at=NOW)
        await PostgresRecords(database).add([*asked, just_now], NOW)
        await PostgresTurns(database).add([turn("r0"), turn("r1")], NOW)

        counted = await PostgresViews(database).capture("p", NOW)

        # Of r0, r1, r2 and r9: r2 is lost, r9 may still come; r3 failed, r4 was not sampled.
        assert (counted["sampled"], counted["kept"], counted["lost"]) == (4, 2, 1)

    with_database(database_url, scenario)


def test_days_that_are_too_old_go_as_tables(database_url: str) -> None:
    async def scenario(database: Database) -> None:
        await a_live_release(database)
        serving = Serving(capture=Capture(retention_days=2))
        await PostgresProjects(database).put(replace(SPEC, serving=serving), NOW)
        parts = parts_of(database)
        await parts.turns.add([turn("new"), turn("edge", days_ago=2), turn("old", days_ago=3)], NOW)
        await parts.turns.add_feedback([said("f1", request="old", days_ago=3)], NOW)

        dropped = await keep_to_retention(parts)

        assert [name.split("_")[0] for name in dropped] == ["turns", "feedback"]
        left = await PostgresViews(database).turns("p", 10)
        assert sorted(each["request_id"] for each in left) == ["edge", "new"]
        assert await keep_to_retention(parts) == []

    with_database(database_url, scenario)


def test_an_erased_person_is_gone_and_does_not_come_back(database_url: str) -> None:
    async def scenario(database: Database) -> None:
        await a_live_release(database)
        parts, views = parts_of(database), PostgresViews(database)
        hers = {"tenant": "jane", "language": "de"}
        named = replace(record("r1", "v_1", 1), conversation="jane", known=hers)
        await PostgresRecords(database).add([named], NOW)
        await parts.turns.add([turn("r1"), turn("r2", subject="other")], NOW)
        await parts.turns.add_feedback([said("f1", request="r1"), said("f2", request="r2")], NOW)

        erased = await erase("p", "jane", "she asked", ANA, parts)

        assert (erased.turns, erased.feedback, erased.conversations) == (1, 1, 1)
        assert erased.versions == ("v_1",)
        [kept] = await database.all("recent_measures", version_id="v_1", limit=9)
        assert kept["known"]["tenant"].startswith("erased-")
        assert kept["known"]["language"] == "de"
        [left] = await views.turns("p", 10)
        assert (left["request_id"], len(left["feedback"])) == ("r2", 1)
        # It waited at a gateway meanwhile.
        assert await parts.turns.add([turn("r0", days_ago=1), turn("r1")], NOW) == 0
        # What she asks from now on is hers to give again.
        assert await parts.turns.add([turn("r3", days_ago=-1)], NOW) == 1
        rows = await database.all("list_audit", limit=1)
        assert (rows[0]["what"], rows[0]["subject"]) == ("erase subject", JANE)
        assert "jane" not in str(rows[0])

    with_database(database_url, scenario)


class Copies:
    """A sink in memory that is away when it is told."""

    name = "copies"

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.is_away = False

    async def send(self, events: list[Event]) -> None:
        if self.is_away:
            raise Unavailable("a test says so")
        self.events += events


def test_followers_are_told_everything_in_order_also_after_they_were_away(
    database_url: str,
) -> None:
    async def scenario(database: Database) -> None:
        await a_live_release(database)
        copies = Copies()
        parts = parts_of(database, copies)
        await parts.turns.add([turn("r1"), turn("r2", subject="other")], NOW)
        copies.is_away = True
        try:
            await tell_followers(parts)
        except Unavailable:
            copies.is_away = False
        await parts.turns.add_feedback([said("f1", request="r2")], NOW)
        await erase("p", "jane", "she asked", ANA, parts)

        while await tell_followers(parts):
            continue

        # What is erased before it was told is never told.
        assert [(e.kind, e.id) for e in copies.events] == [
            ("turn", "r2"),
            ("feedback", "f1"),
            ("erasure", JANE),
        ]

    with_database(database_url, scenario)


def test_turns_are_read_and_erased_over_http_by_who_may(database_url: str, tmp_path: Path) -> None:
    async def scenario(api: Api) -> None:
        store = api.parts.turns.turns
        await store.add([turn("r1"), turn("r2")], NOW)
        viewer = (await api.key(role="viewer"))["key"]
        operator = (await api.key(role="operator"))["key"]
        wish = {"project": "p", "subject": "jane", "why": "she asked"}

        assert (await api("GET", "/turns?project=p", viewer)).status_code == 403
        assert len((await api("GET", "/turns?project=p", operator)).json()) == 2
        assert (await api("GET", "/turns/r1?project=p")).json()["request_id"] == "r1"
        assert (await api("GET", "/turns/r7?project=p")).status_code == 404
        assert (await api("GET", "/capture?project=p", viewer)).json()["turns"] == 2
        assert (await api("POST", "/erasures", operator, **wish)).status_code == 403
        erased = (await api("POST", "/erasures", **wish)).json()
        assert erased == {"turns": 2, "feedback": 0, "conversations": 0, "versions": ["v_1"]}

    with_api(database_url, tmp_path, scenario)


def test_turns_are_data_when_somebody_said_something_of_their_answer(database_url: str) -> None:
    found = []

    async def scenario(database: Database) -> None:
        await a_live_release(database)
        turns = PostgresTurns(database)
        made = [turn("old", days_ago=3), turn("r1", days_ago=1), turn("r2"), turn("silent")]
        await turns.add(made, NOW)
        opinions = [said("f0", "old"), said("f1", "r1"), said("f2", "r2"), said("f3", "r2")]
        await turns.add_feedback([*opinions, said("f4", conversation="c")], NOW)
        for plan in (
            LearnedTurns(since_seconds=2 * 86400.0),
            LearnedTurns(rows_max=1),
            LearnedTurns(keys=("key_1",)),
            LearnedTurns(keys=("key_2",)),
        ):
            answered = await turns.answered("p", plan, NOW)
            found.append([(each.request_id, len(each.opinions)) for each in answered])
        assert answered == []
        [newest] = await turns.answered("p", LearnedTurns(rows_max=1), NOW)
        assert newest.answer["content"] == "here"
        assert newest.correction == "there"

    with_database(database_url, scenario)

    assert found == [
        [("r1", 1), ("r2", 2)],
        [("r2", 2)],
        [("old", 1), ("r1", 1), ("r2", 2)],
        [],
    ]
