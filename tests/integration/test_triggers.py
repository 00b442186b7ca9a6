"""Triggers over a real PostgreSQL and a real Git repository: one run each, whoever tells, however
often, whatever is killed."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import itertools
import json
import os
import subprocess
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from ratchet.adapters.forge import CommitStatuses
from ratchet.adapters.git import GitRepositories
from ratchet.adapters.postgres.pool import Database
from ratchet.adapters.postgres.runs import PostgresRuns
from ratchet.adapters.postgres.triggers import PostgresTriggers
from ratchet.adapters.postgres.turns import PostgresTurns
from ratchet.adapters.specfile.reader import parse_spec
from ratchet.core.artifact import RunId
from ratchet.core.errors import NotFound, Rejected, Unavailable
from ratchet.core.triggers import Merge, Push, Triggers
from ratchet.core.turns import Feedback
from ratchet.entrypoints.http.app import build_app
from ratchet.entrypoints.metrics import Metrics
from ratchet.kit.clock import ManualClock
from ratchet.operations import runs as run_operations
from ratchet.operations import triggers as operations
from ratchet.operations.access import prepare
from ratchet.operations.triggers import TriggerParts
from ratchet.ports import Delivery, Heard, Untold
from ratchet.wiring import Parts, build
from tests.contract.test_specfile import SMALL
from tests.integration.test_access import settings
from tests.integration.test_notices import Receiver, receiving
from tests.scenario.test_weeks_of_releases import NobodyWaits
from tests.stored import NOW

SECRET = "of webhooks"
ENV = {"PATH": os.environ["PATH"], "HOOK_SECRET": SECRET, "FORGE_TOKEN": "t0ken"}


class Repository:
    """A repository of somebody else's, on this disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self.git("init", "-q", "-b", "main")

    def git(self, *arguments: str) -> str:
        who = ("-c", "user.name=ana", "-c", "user.email=ana@example.org")
        return subprocess.run(
            ["git", *who, *arguments], cwd=self.folder, check=True, capture_output=True, text=True
        ).stdout.strip()

    def commit(self, **files: str) -> str:
        for name, content in files.items():
            path = self.folder / name.replace("__", "/")
            path.parent.mkdir(exist_ok=True)
            path.write_text(content)
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", "change")
        return self.git("rev-parse", "HEAD")

    def spec(self, triggers: str) -> str:
        return f"{SMALL}triggers: {{repository: {self.folder}, spec: spec, {triggers}}}\n"


class Stand:
    """The parts of triggers, a repository, and a clock that is moved by hand."""

    def __init__(self, folder: Path, parts: Parts, triggers: str) -> None:
        self.database, self.clock = parts.database, ManualClock(NOW)
        self.everything = parts
        self.repository = Repository(folder / "repository")
        self.spec = self.repository.spec(triggers)
        self.first = self.repository.commit(spec=self.spec)
        runs = replace(parts.runs, clock=self.clock)
        self.parts: TriggerParts = replace(
            parts.triggers,
            runs=runs,
            clock=self.clock,
            repositories=GitRepositories(folder / "sources", ENV),
            forge=CommitStatuses(ENV.get),
        )

    async def begin(self) -> None:
        path = self.repository.folder / "spec"
        await run_operations.apply(parse_spec(self.spec, path), "ana", self.parts.runs)

    def push(self, before: str, after: str, branch: str = "main") -> Push:
        return Push(
            repository=str(self.repository.folder), branch=branch, before=before, after=after,
            who="ana",
        )  # fmt: skip

    async def hear(self, before: str, after: str, branch: str = "main") -> str:
        [watched] = await self.parts.store.watched()
        return await operations.hear(
            watched, self.push(before, after, branch), "github", self.parts
        )

    async def attend(self) -> None:
        await operations.attend(self.parts, NobodyWaits())

    async def runs(self) -> list[dict[str, Any]]:
        """The oldest first."""
        return (await self.everything.views.runs("p", 50))[::-1]

    async def heard(self) -> list[dict[str, Any]]:
        shown = await self.everything.views.triggers("p", 50, self.clock.now())
        heard: list[dict[str, Any]] = shown["heard"]
        return heard[::-1]

    async def start(self) -> list[RunId]:
        return await self.parts.runs.runs.start_next(self.clock.now())


def with_stand(
    url: str, folder: Path, triggers: str, scenario: Callable[[Stand], Awaitable[None]]
) -> None:
    async def run() -> None:
        parts = build(settings(url, folder))
        await parts.database.open()
        try:
            stand = Stand(folder, parts, triggers)
            await stand.begin()
            await scenario(stand)
        finally:
            await parts.database.close()

    asyncio.run(run())


MERGE = "merge: {paths: [spec, 'data/**'], secret: $HOOK_SECRET}"


def test_ten_merges_in_a_minute_are_one_run_of_the_last(database_url: str, tmp_path: Path) -> None:
    async def scenario(stand: Stand) -> None:
        before = stand.first
        for number in range(10):
            after = stand.repository.commit(data__rows=f"{number}\n")
            assert await stand.hear(before, after) == "heard"
            await stand.attend()
            assert await stand.start() == []
            stand.clock.advance(timedelta(seconds=5))
            before = after
        stand.clock.advance(timedelta(seconds=5))

        [started] = await stand.start()

        runs = await stand.runs()
        assert [run["state"] for run in runs] == ["superseded"] * 9 + ["running"]
        assert runs[-1]["id"] == started
        assert runs[-1]["trigger"] == {
            "kind": "merge", "who": "ana", "why": "merged into main", "commit": before,
        }  # fmt: skip
        assert all(
            earlier["because"] == f"superseded by {later['id']}, which was asked for later"
            for earlier, later in itertools.pairwise(runs)
        )
        run = await PostgresRuns(stand.database).get(started)
        assert (run.source_dir / "data" / "rows").read_text() == "9\n"

    with_stand(database_url, tmp_path, MERGE, scenario)


def test_what_is_told_twice_and_by_two_ways_is_one_run(database_url: str, tmp_path: Path) -> None:
    async def scenario(stand: Stand) -> None:
        await operations.poll(stand.parts)
        after = stand.repository.commit(data__rows="1\n")

        assert await stand.hear(stand.first, after) == "heard"
        assert await stand.hear(stand.first, after) == "heard before"
        stand.clock.advance(timedelta(minutes=6))
        await operations.poll(stand.parts)
        await stand.attend()
        await stand.attend()

        [run] = await stand.runs()
        [heard] = await stand.heard()
        assert (heard["state"], heard["run_id"], heard["source"]) == (
            "started", run["id"], "github",
        )  # fmt: skip

    with_stand(database_url, tmp_path, f"{MERGE.removesuffix('}')}, poll: 5m}}", scenario)


def test_a_repository_that_sends_nothing_is_asked(database_url: str, tmp_path: Path) -> None:
    async def scenario(stand: Stand) -> None:
        await operations.poll(stand.parts)
        assert await stand.heard() == []
        after = stand.repository.commit(data__rows="1\n")
        stand.clock.advance(timedelta(minutes=1))
        await operations.poll(stand.parts)
        assert await stand.heard() == []

        stand.clock.advance(timedelta(minutes=5))
        await operations.poll(stand.parts)
        await stand.attend()

        [heard] = await stand.heard()
        assert (heard["after"], heard["source"], heard["state"]) == (after, "poll", "started")

    with_stand(database_url, tmp_path, "merge: {poll: 5m}", scenario)


def test_a_merge_that_is_about_something_else_starts_nothing(
    database_url: str, tmp_path: Path
) -> None:
    async def scenario(stand: Stand) -> None:
        after = stand.repository.commit(README="words\n")
        assert await stand.hear(stand.first, "f" * 40, "feature") == "left: feature is not main"
        await stand.hear(stand.first, after)

        await stand.attend()

        [heard] = await stand.heard()
        assert (heard["state"], heard["because"]) == ("left", "nothing of spec, data/** changed")
        assert await stand.runs() == []

    with_stand(database_url, tmp_path, MERGE, scenario)


def test_a_spec_that_is_wrong_at_its_commit_is_told_to_the_commit(
    database_url: str, tmp_path: Path
) -> None:
    async def scenario(stand: Stand) -> None:
        with receiving() as forge:
            report = f"report: {forge.url}/api/v3, token: $FORGE_TOKEN"
            good = stand.repository.spec(f"{MERGE}, {report}")
            path = stand.repository.folder / "spec"
            await run_operations.apply(parse_spec(good, path), "ana", stand.parts.runs)
            wrong = stand.repository.commit(spec=good.replace("at_least", "at_leats"))
            other = stand.repository.commit(spec=good.replace("project: p", "project: q"))
            right = stand.repository.commit(spec=good)
            for before, after in ((stand.first, wrong), (wrong, other), (other, right)):
                await stand.hear(before, after)
            await stand.hear(right, "e" * 40)

            await stand.attend()
            forge.status = 503
            await operations.tell_commits(stand.parts)
            forge.got.clear()
            forge.status = 201
            for _ in range(2):
                await operations.tell_commits(stand.parts)

            states = {each["after"]: each["state"] for each in await stand.heard()}
            assert states == {
                wrong: "refused", other: "refused", right: "started", "e" * 40: "refused",
            }  # fmt: skip
            told = {path.rpartition("/")[2]: json.loads(body) for path, _, body in forge.got}
            assert len(forge.got) == len(told) == 4
            assert told[wrong]["state"] == "error"
            assert "at_leats" in told[wrong]["description"]
            assert "found q, expected p" in told[other]["description"]
            [run] = await stand.runs()
            assert told[right] == {
                "state": "pending", "context": "ratchet", "description": "queued",
                "target_url": f"http://127.0.0.1:8081/runs/{run['id']}",
            }  # fmt: skip
            sent, headers, _ = forge.got[0]
            assert sent.startswith("/api/v3/repos/")
            assert headers["authorization"] == "Bearer t0ken"

    with_stand(database_url, tmp_path, MERGE, scenario)


@pytest.mark.parametrize(
    ("report", "path", "state", "header"),
    [
        ("/api/v3", "/api/v3/repos/acme/router/statuses/", "failure", "authorization"),
        ("/api/v4", "/api/v4/projects/acme%2Frouter/statuses/", "failed", "private-token"),
    ],
)
def test_a_status_goes_to_each_forge_in_its_own_words(
    report: str, path: str, state: str, header: str
) -> None:
    async def tell(receiver: Receiver, token: str) -> None:
        triggers = Triggers(
            repository="git@git.example.org:acme/router.git",
            token_variable=token,
            report=f"{receiver.url}{report}",
        )
        untold = Untold(
            project="p", run_id=RunId("run_1"), triggers=triggers, commit="a" * 40,
            state="gated", because="accuracy is 0.4 " + "x" * 200,
        )  # fmt: skip
        await CommitStatuses(ENV.get).tell(untold, "http://console/runs/run_1")

    with receiving() as receiver:
        asyncio.run(tell(receiver, "FORGE_TOKEN"))
        with pytest.raises(Unavailable, match=r"\$NOT_THERE is not set"):
            asyncio.run(tell(receiver, "NOT_THERE"))
        receiver.status = 404
        with pytest.raises(Rejected, match="404"):
            asyncio.run(tell(receiver, "FORGE_TOKEN"))

    sent, headers, body = receiver.got[0]
    told = json.loads(body)
    assert sent == f"{path}{'a' * 40}"
    assert told["state"] == state
    assert len(told["description"]) == 140
    assert header in headers


class DiesOnce:
    """A real store, and a process that is killed when it would say that it is done."""

    def __init__(self, store: PostgresTriggers) -> None:
        self._store, self.is_dead = store, False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def settle(
        self, delivery: Delivery, heard: Heard, because: str, run_id: RunId | None, now: datetime
    ) -> None:
        if not self.is_dead:
            self.is_dead = True
            raise KeyboardInterrupt
        await self._store.settle(delivery, heard, because, run_id, now)


def test_a_kill_between_the_run_and_its_record_starts_no_second_run(
    database_url: str, tmp_path: Path
) -> None:
    async def scenario(stand: Stand) -> None:
        stand.parts = replace(stand.parts, store=DiesOnce(PostgresTriggers(stand.database)))
        await stand.hear(stand.first, stand.repository.commit(data__rows="1\n"))

        with pytest.raises(KeyboardInterrupt):
            await stand.attend()
        await stand.attend()

        [run] = await stand.runs()
        [heard] = await stand.heard()
        assert (run["state"], heard["run_id"]) == ("queued", run["id"])

    with_stand(database_url, tmp_path, MERGE, scenario)


def test_a_kill_between_a_schedules_run_and_its_mark_is_the_same_run(
    database_url: str, tmp_path: Path
) -> None:
    async def scenario(stand: Stand) -> None:
        await operations.keep_schedules(stand.parts, NobodyWaits())
        before = await stand.parts.store.mark("p", "schedule")
        assert before is not None
        stand.clock.at = datetime.fromisoformat("2026-11-24T02:00:01+00:00")
        await operations.keep_schedules(stand.parts, NobodyWaits())
        # As a kill leaves it: the run is there, and the mark is not.
        await stand.parts.store.put_mark("p", "schedule", *before)
        await stand.start()

        await operations.keep_schedules(stand.parts, NobodyWaits())

        [run] = await stand.runs()
        mark = await stand.parts.store.mark("p", "schedule")
        assert mark is not None
        assert mark[1] == f"started: run {run['id']}"

    with_stand(database_url, tmp_path, f"{NIGHTLY}, concurrency: skip", scenario)


def test_a_repository_that_is_away_is_waited_for(database_url: str, tmp_path: Path) -> None:
    async def scenario(stand: Stand) -> None:
        await stand.hear(stand.first, stand.repository.commit(data__rows="1\n"))
        away = stand.repository.folder.rename(tmp_path / "away")
        await stand.attend()
        assert [each["state"] for each in await stand.heard()] == ["waiting"]

        away.rename(stand.repository.folder)
        await stand.attend()

        assert [each["state"] for each in await stand.heard()] == ["started"]

    with_stand(database_url, tmp_path, MERGE, scenario)


def test_a_newer_merge_ends_the_run_that_it_replaces(database_url: str, tmp_path: Path) -> None:
    async def scenario(stand: Stand) -> None:
        one = stand.repository.commit(data__rows="1\n")
        await stand.hear(stand.first, one)
        await stand.attend()
        stand.clock.advance(timedelta(seconds=11))
        [old] = await stand.start()
        two = stand.repository.commit(data__rows="2\n")
        await stand.hear(one, two)

        await stand.attend()

        first, second = await stand.runs()
        assert (first["state"], first["because"]) == (
            "cancelled", f"cancelled by system: replaced by {second['id']}",
        )  # fmt: skip
        stand.clock.advance(timedelta(seconds=11))
        assert await stand.start() == [second["id"]]
        assert old == first["id"]

    with_stand(database_url, tmp_path, f"{MERGE}, concurrency: replace", scenario)


def test_a_run_that_goes_on_may_keep_others_away(database_url: str, tmp_path: Path) -> None:
    async def scenario(stand: Stand) -> None:
        one = stand.repository.commit(data__rows="1\n")
        await stand.hear(stand.first, one)
        await stand.attend()
        stand.clock.advance(timedelta(seconds=11))
        [running] = await stand.start()
        await stand.hear(one, stand.repository.commit(data__rows="2\n"))

        await stand.attend()

        assert [run["id"] for run in await stand.runs()] == [running]
        assert (await stand.heard())[-1]["because"] == f"run {running} has not ended"

    with_stand(database_url, tmp_path, f"{MERGE}, concurrency: skip", scenario)


NIGHTLY = "schedule: {cron: '0 3 * * *', timezone: Europe/Berlin}"


def test_a_schedule_starts_the_newest_commit_once_a_time(database_url: str, tmp_path: Path) -> None:
    async def scenario(stand: Stand) -> None:
        async def keep() -> None:
            await operations.keep_schedules(stand.parts, NobodyWaits())

        await keep()
        assert await stand.runs() == []
        newest = stand.repository.commit(data__rows="1\n")
        stand.clock.at = datetime.fromisoformat("2026-11-24T02:00:01+00:00")
        await keep()
        await keep()

        [run] = await stand.runs()
        assert (run["trigger"]["kind"], run["trigger"]["why"]) == (
            "schedule", "0 3 * * * Europe/Berlin",
        )  # fmt: skip
        assert newest in run["source_dir"]
        # A week later, nobody was there: one run, and it would be a second one that waits.
        stand.clock.advance(timedelta(days=7))
        await keep()
        shown = await stand.everything.views.triggers("p", 5, stand.clock.now())
        assert shown["last"]["schedule"]["word"] == f"left: run {run['id']} has not ended"
        assert shown["next_schedule"] == "2026-12-02T02:00:00+00:00"

    with_stand(database_url, tmp_path, NIGHTLY, scenario)


def test_a_schedule_without_a_repository_reads_the_registered_file(
    database_url: str, tmp_path: Path
) -> None:
    async def scenario(stand: Stand) -> None:
        path = tmp_path / "ratchet.yaml"
        text = f"{SMALL}triggers: {{schedule: '* * * * *'}}\n"
        path.write_text(text)
        spec = parse_spec(text, path)
        await run_operations.apply(spec, "ana", stand.parts.runs, path)
        await operations.keep_schedules(stand.parts, NobodyWaits())
        stand.clock.advance(timedelta(minutes=1))
        await operations.keep_schedules(stand.parts, NobodyWaits())
        [run] = await stand.runs()
        assert run["source_dir"] == str(tmp_path)

        path.write_text("project: [")
        await stand.start()
        stand.clock.advance(timedelta(minutes=1))
        await operations.keep_schedules(stand.parts, NobodyWaits())

        shown = await stand.everything.views.triggers("p", 5, stand.clock.now())
        assert shown["last"]["schedule"]["word"].startswith(f"refused: {path}:1:")
        assert len(await stand.runs()) == 1

    with_stand(database_url, tmp_path, NIGHTLY, scenario)


def test_a_day_without_its_time_is_not_looked_through_again(
    database_url: str, tmp_path: Path
) -> None:
    async def scenario(stand: Stand) -> None:
        await operations.keep_schedules(stand.parts, NobodyWaits())
        stand.clock.advance(timedelta(days=20))

        await operations.keep_schedules(stand.parts, NobodyWaits())

        mark = await stand.parts.store.mark("p", "schedule")
        assert mark is not None
        assert stand.clock.now() - mark[0] == timedelta(minutes=5)
        assert await stand.runs() == []

    with_stand(database_url, tmp_path, "schedule: '0 0 1 1 *'", scenario)


def test_enough_feedback_starts_a_run_and_the_count_begins_anew(
    database_url: str, tmp_path: Path
) -> None:
    async def say(database: Database, count: int, at: datetime) -> None:
        said = [
            Feedback(
                project="p", id=f"{at.isoformat()}-{number}", request_id="r", conversation="",
                key_id="", subjects=(), score=None, thumbs="up", correction="", comment="",
                received_at=at,
            )
            for number in range(count)
        ]  # fmt: skip
        await PostgresTurns(database).add_feedback(said, at)

    async def scenario(stand: Stand) -> None:
        async def count() -> None:
            await operations.count_feedback(stand.parts, NobodyWaits())

        await say(stand.database, 2, NOW)
        await count()
        assert await stand.runs() == []
        await say(stand.database, 3, NOW + timedelta(seconds=1))
        stand.clock.advance(timedelta(minutes=1))
        for _ in range(2):
            await count()
        [run] = await stand.runs()
        assert run["trigger"]["why"] == "5 new feedback since ever"
        await say(stand.database, 4, stand.clock.now() + timedelta(seconds=1))
        assert await stand.parts.store.feedback_since_run("p") == (4, run["id"])

    with_stand(database_url, tmp_path, "feedback: 5", scenario)


def test_old_checkouts_go_and_those_of_runs_stay(database_url: str, tmp_path: Path) -> None:
    async def scenario(stand: Stand) -> None:
        after = stand.repository.commit(data__rows="1\n")
        await stand.hear(stand.first, after)
        await stand.attend()
        triggers = (await stand.parts.store.watched())[0].triggers
        unused = await stand.parts.repositories.checkout(triggers, stand.first)
        stand.clock.at = datetime.now(NOW.tzinfo) + timedelta(days=2)

        assert await operations.tidy(stand.parts) == 1

        assert not unused.exists()
        [run] = await stand.runs()
        assert Path(run["source_dir"]).exists()

    with_stand(database_url, tmp_path, MERGE, scenario)


def test_a_repository_says_what_it_does_not_have(tmp_path: Path) -> None:
    repository = Repository(tmp_path / "r")
    first = repository.commit(a="1")
    repositories = GitRepositories(tmp_path / "sources", ENV)
    here = Triggers(repository=str(repository.folder), merge=Merge())

    async def scenario() -> None:
        with pytest.raises(NotFound):
            await repositories.checkout(here, first)
        assert await repositories.newest(here) == first
        second = repository.commit(a="2", b="1")
        assert await repositories.newest(here) == second
        assert await repositories.changed(here, first, second) == ("a", "b")
        assert await repositories.changed(here, "", second) is None
        assert await repositories.changed(here, "f" * 40, second) is None
        with pytest.raises(Rejected, match="no branch 'other'"):
            await repositories.newest(replace(here, merge=Merge(branch="other")))
        with pytest.raises(NotFound, match="no commit"):
            await repositories.checkout(here, "f" * 40)
        with pytest.raises(NotFound, match="is no commit"):
            await repositories.checkout(here, "--help")
        one = await repositories.checkout(here, first)
        assert (one / "a").read_text() == "1"
        assert not (one / "b").exists()
        assert await repositories.checkout(here, first) == one
        with pytest.raises(Unavailable, match="git says"):
            await repositories.newest(replace(here, repository="ext::sh -c true"))

    asyncio.run(scenario())
    # Nothing half-done stays, and the one checkout that there is has its commit's name.
    [left] = (tmp_path / "sources" / "checkouts").iterdir()
    assert left.name.endswith(f"-{first}")


def github(repository: Repository, before: str, after: str) -> bytes:
    """What GitHub sends of a push, as far as we read it."""
    value = {
        "ref": "refs/heads/main", "before": before, "after": after, "pusher": {"name": "ana"},
        "repository": {"clone_url": str(repository.folder), "full_name": "acme/router"},
    }  # fmt: skip
    return json.dumps(value).encode()


def signed(body: bytes, secret: str = SECRET) -> dict[str, str]:
    digest = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    return {
        "x-github-event": "push", "x-hub-signature-256": f"sha256={digest}",
        "content-type": "application/json",
    }  # fmt: skip


def test_webhooks_are_taken_when_they_are_genuine(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(stand: Stand) -> None:
        await prepare(stand.everything.access)
        transport = httpx.ASGITransport(app=build_app(stand.everything, Metrics()))
        client = httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1/api/v1")
        after = stand.repository.commit(data__rows="1\n")
        body = github(stand.repository, stand.first, after)

        async def post(path: str, content: bytes, headers: dict[str, str]) -> tuple[int, str]:
            sent = {name.encode(): value.encode() for name, value in headers.items()}
            answer = await client.post(f"/hooks/{path}", content=content, headers=sent)
            shown = answer.json()
            return answer.status_code, shown.get("became") or shown["detail"]

        refused = await post("github", body, signed(body))
        assert refused == (403, "no secret is set: triggers.merge.secret and its variable")
        monkeypatch.setenv("HOOK_SECRET", SECRET)
        forged = await post("github", body, signed(body, "guessed"))
        assert forged == (401, "the webhook is not signed with our secret")
        assert (await post("github", body + b" ", signed(body)))[0] == 401
        assert (await post("gitlab", body, {"x-gitlab-token": "é"}))[0] == 401
        elsewhere = body.replace(b"repository/", b"x/").replace(
            str(stand.repository.folder).encode(), b"/other"
        )
        assert (await post("github", elsewhere, signed(elsewhere)))[0] == 404
        for wrong in (b"{", b"[]", b"{}"):
            assert (await post("github", wrong, signed(wrong)))[0] == 422
        ping = signed(body) | {"x-github-event": "ping"}
        assert await post("github", body, ping) == (200, "left: no branch moved")
        assert await stand.heard() == []

        assert await post("github", body, signed(body)) == (202, "heard")
        assert await post("github", body, signed(body)) == (202, "heard before")
        lab = {"x-gitlab-token": SECRET, "x-gitlab-event": "Push Hook"}
        value = json.loads(body)
        project = {"git_http_url": value.pop("repository")["clone_url"]}
        told = json.dumps({**value, "project": project, "user_username": "ben"}).encode()
        assert await post("gitlab", told, lab) == (202, "heard before")
        [heard] = await stand.heard()
        assert heard["push"]["after"] == after
        listed = await client.get("/triggers?project=p")
        assert listed.json()["triggers"]["merge"]["branch"] == "main"

    with_stand(database_url, tmp_path, MERGE, scenario)
