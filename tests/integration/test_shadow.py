"""A shadow over a real database: prompts chosen, answered again, compared, decided.

What a canary and a judge say must be what a test wants, so a `ScriptedModel` stands in for both; a
trained model's shadow is in `tests/deep/test_releases.py`.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from ratchet.adapters.openai import OpenAi
from ratchet.adapters.postgres.gateway import PostgresEngines, PostgresGateway
from ratchet.adapters.postgres.pool import Database
from ratchet.adapters.postgres.releases import PostgresReleases
from ratchet.adapters.postgres.runs import PostgresAudit, PostgresProjects
from ratchet.adapters.postgres.samples import PostgresSamples
from ratchet.adapters.postgres.shadow import PostgresShadow
from ratchet.adapters.postgres.turns import PostgresTurns
from ratchet.adapters.postgres.views import PostgresViews
from ratchet.core.detectors import Detector
from ratchet.core.errors import Unavailable
from ratchet.core.evidence import first_evidence
from ratchet.core.guards import KNOWN, with_always
from ratchet.core.rollout import ReleaseId, Signal, Stage
from ratchet.core.shadow import Outcome, Pair, PairJudge, Preference, Shadow
from ratchet.core.spec import ReleasePlan
from ratchet.kit.clock import ManualClock
from ratchet.operations.release import ReleaseParts, act, advance_all, replayed, report
from ratchet.operations.shadow import ShadowParts, replay_prompts
from ratchet.ports import EngineReport, StoredRelease
from tests.contract.test_turns import said, turn
from tests.scenario.test_weeks_of_releases import NobodyWaits
from tests.stored import NOW, a_live_release, with_database

RELEASE = ReleaseId("rel_1")


class ScriptedModel(ThreadingHTTPServer):
    """An OpenAI API whose answers a test chooses."""

    def __init__(self, says: Callable[[dict[str, Any]], str | int]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.says = says
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str] = []


class _Handler(BaseHTTPRequestHandler):
    server: ScriptedModel

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.asked.append(body)
        self.server.keys.append(self.headers.get("authorization", ""))
        said_ = self.server.says(body)
        message = {"role": "assistant", "content": said_}
        content = json.dumps({"choices": [{"message": message}]}).encode()
        self.send_response(said_ if isinstance(said_, int) else 200)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args: object) -> None: ...


@contextmanager
def scripted(says: Callable[[dict[str, Any]], str | int]) -> Iterator[ScriptedModel]:
    server = ScriptedModel(says)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


@dataclass
class Rehearsed:
    """A release with its engine ready, before its shadow."""

    database: Database
    clock: ManualClock = field(default_factory=lambda: ManualClock(NOW))

    def __post_init__(self) -> None:
        releases, engines = PostgresReleases(self.database), PostgresEngines(self.database)
        self.shadow = PostgresShadow(self.database)
        self.release_parts = ReleaseParts(
            releases, releases, engines, PostgresAudit(self.database), self.clock, releases,
            self.shadow, PostgresSamples(self.database),
        )  # fmt: skip
        models = OpenAi({"JUDGE_KEY": "sk-1"}.get)
        self.parts = ShadowParts(
            releases, self.shadow, engines, PostgresProjects(self.database), models, models,
            self.clock,
        )  # fmt: skip

    async def begin(self, canary: ScriptedModel, shadow: Shadow) -> None:
        stored = await a_live_release(self.database)
        plan = replace(
            stored.plan,
            shadow=shadow,
            guards=with_always([KNOWN["format"]]),
            detectors=(Detector("format", labels=("red", "blue")),),
        )
        await self._with_plan(plan)
        ready = EngineReport("ready", canary.server_address[1])
        await self.parts.engines.report(stored.release.candidate, ready, NOW)
        turns = PostgresTurns(self.database)
        kept = [
            replace(
                turn(f"q{n}"), version=stored.release.baseline, scrubbed={},
                started_at=NOW - timedelta(seconds=n),
                answer={"role": "assistant", "content": "red"},
                messages=({"role": "user", "content": f"colour {n}?"},),
                parameters={"model": "old", "temperature": 0.0, "stream": True},
            )
            for n in range(40)
        ]  # fmt: skip
        kept[0] = replace(kept[0], scrubbed={"EMAIL": 1})
        kept[1] = replace(kept[1], parameters={"tools": [{"type": "function"}]})
        await turns.add(kept, NOW)
        await turns.add_feedback([replace(said("f1", request="q5"), correction="blue")], NOW)
        await self.tick()

    async def _with_plan(self, plan: ReleasePlan) -> None:
        from psycopg.types.json import Jsonb

        from ratchet.adapters.postgres.codec import plan_to_json
        from ratchet.adapters.postgres.evidence import evidence_to_json

        evidence = Jsonb(evidence_to_json(first_evidence(plan, {})))
        async with self.database.transaction() as tx:
            await tx.execute(
                "UPDATE releases SET plan = %s, evidence = %s, begun = %s, ramp_weight = 500",
                (Jsonb(plan_to_json(plan)), evidence, evidence),
            )

    async def tick(self) -> StoredRelease:
        self.clock.advance(timedelta(seconds=1))
        await advance_all(self.release_parts, NobodyWaits())
        return await self.stored()

    async def stored(self) -> StoredRelease:
        return await self.parts.releases.get(RELEASE)

    async def play(self) -> StoredRelease:
        for _ in range(40):
            await replay_prompts(self.parts)
            stored = await self.tick()
            if stored.release.stage is not Stage.SHADOW:
                return stored
        raise AssertionError(stored.because)


def staged(url: str, scenario: Callable[[Rehearsed], Awaitable[None]]) -> None:
    with_database(url, lambda database: scenario(Rehearsed(database)))


def test_a_canary_that_answers_as_well_meets_its_first_users(database_url: str) -> None:
    async def scenario(stage: Rehearsed) -> None:
        with scripted(lambda body: "blue") as canary:
            await stage.begin(canary, Shadow(pairs=30))
            begun = await stage.stored()
            assert (begun.release.stage, begun.release.weight) == (Stage.SHADOW, 0)
            arms = await PostgresGateway(stage.database).arms("p")
            assert [arm.version for arm in arms] == [begun.release.baseline]

            after = await stage.play()

        assert after.release.stage is Stage.CANARY
        assert after.release.weight > 0
        # As it was asked, but not streamed; nothing scrubbed, nothing with tools.
        assert len(canary.asked) == 30
        assert {tuple(sorted(body)) for body in canary.asked} == {
            ("messages", "model", "temperature")
        }
        prompts = {body["messages"][0]["content"] for body in canary.asked}
        assert prompts == {f"colour {n}?" for n in range(2, 32)}
        verdicts = await replayed(RELEASE, stage.release_parts)
        assert [each.recorded.signal for each in verdicts] == ["ready", "healthy"]
        assert [each.differences for each in verdicts] == [[], []]
        assert "| format | 0 | 30 | 0 | 1 |" in await report(RELEASE, stage.release_parts)
        view = await PostgresViews(stage.database).release(RELEASE)
        assert (view["shadow"]["compared"], view["shadow"]["left"]) == (30, 0)

    staged(database_url, scenario)


def test_a_canary_with_other_labels_meets_nobody(database_url: str) -> None:
    async def scenario(stage: Rehearsed) -> None:
        with scripted(lambda body: "green") as canary:
            await stage.begin(canary, Shadow(pairs=30))
            gateway = PostgresGateway(stage.database)
            before = await gateway.snapshot(NOW)
            after = await stage.play()
            snapshot = await gateway.snapshot(NOW)

        assert after.release.stage is Stage.ROLLED_BACK
        assert "worse, 0 better; evidence" in after.because
        assert after.because.endswith("no user met it")
        assert snapshot.route_revision == before.route_revision
        assert len(canary.asked) < 20

    staged(database_url, scenario)


def test_a_judge_is_asked_once_and_measured_by_what_people_corrected(database_url: str) -> None:
    def prefers_blue(body: dict[str, Any]) -> str:
        text = body["messages"][0]["content"]
        is_first_blue = "<answer_a>\nblue" in text
        return "A" if is_first_blue else "answer: b."

    async def scenario(stage: Rehearsed) -> None:
        with scripted(lambda body: "blue") as canary, scripted(prefers_blue) as judge:
            url = f"http://127.0.0.1:{judge.server_address[1]}/v1"
            kind = PairJudge(url=url, model="j", key_variable="JUDGE_KEY", criteria="Be blue.")
            await stage.begin(canary, Shadow(pairs=12, judge=kind))
            after = await stage.play()
            pairs = await stage.shadow.pairs(RELEASE)
            # What it said stays said, whoever asks again.
            await stage.database.all("put_preference", digest="d", said="first", now=NOW)
            await stage.shadow.put_preference("d", Preference.SECOND, NOW)
            assert await stage.shadow.preference("d") is Preference.FIRST

        assert after.release.stage is Stage.CANARY
        assert set(judge.keys) == {"Bearer sk-1"}
        assert "Be blue." in judge.asked[0]["messages"][0]["content"]
        # A person wanted of one prompt what the canary answered: asked once.
        assert len(judge.asked) == 12
        assert [pair.outcomes["judge"] for pair in pairs if pair] == [Outcome.BETTER] * 12
        page = await report(RELEASE, stage.release_parts)
        assert "of 1 answers that people corrected, the judge preferred the correction 1" in page

    staged(database_url, scenario)


def test_a_judge_that_is_away_is_waited_for_and_said(database_url: str) -> None:
    states: list[str | int] = [503]

    async def scenario(stage: Rehearsed) -> None:
        with scripted(lambda body: "blue") as canary, scripted(lambda _: states[0]) as judge:
            url = f"http://127.0.0.1:{judge.server_address[1]}/v1"
            await stage.begin(canary, Shadow(pairs=4, judge=PairJudge(url=url, model="j")))
            with pytest.raises(Unavailable, match="judge j"):
                await replay_prompts(stage.parts)
            waiting = await stage.tick()
            assert waiting.release.stage is Stage.SHADOW
            assert "4 to go, waiting: judge j:" in waiting.because

            states[0] = "it depends"
            after = await stage.play()

        assert after.release.stage is Stage.CANARY
        assert "judge: 0 worse, 0 better" in after.because

    staged(database_url, scenario)


def test_a_canary_that_says_nothing_is_given_up(database_url: str) -> None:
    async def scenario(stage: Rehearsed) -> None:
        with scripted(lambda body: 500) as canary:
            await stage.begin(canary, Shadow())
            after = await stage.play()

        assert after.release.stage is Stage.ROLLED_BACK
        assert "no answer to" in after.because
        assert "500" in after.because

    staged(database_url, scenario)


def test_what_was_said_first_stays_and_what_is_gone_says_nothing(database_url: str) -> None:
    async def scenario(stage: Rehearsed) -> None:
        with scripted(lambda body: "green") as canary:
            await stage.begin(canary, Shadow(pairs=6))
            release = (await stage.stored()).release
            first, *_ = await stage.shadow.next_prompts(release, 1)
            # Two controllers at once.
            await stage.shadow.put(RELEASE, first, Pair({"format": Outcome.BETTER}))
            await stage.shadow.put(RELEASE, first, Pair({"format": Outcome.WORSE}))
            await stage.database.all("erase_turns", project="p", subject=turn("q").subjects[0])
            await replay_prompts(stage.parts)
            await replay_prompts(stage.parts)
            pairs = await stage.shadow.pairs(RELEASE)

        assert pairs[0] == Pair({"format": Outcome.BETTER})
        assert pairs[1:] == [Pair()] * 5
        assert canary.asked == []

    staged(database_url, scenario)


def test_a_person_ends_a_shadow_either_way(database_url: str) -> None:
    async def scenario(stage: Rehearsed) -> None:
        with scripted(lambda body: "blue") as canary:
            await stage.begin(canary, Shadow())
            parts = stage.release_parts
            after = await act(RELEASE, Signal.RESUME, "ana", "known good", parts, NobodyWaits())
            assert after.release.stage is Stage.CANARY
            gone = await act(RELEASE, Signal.ABORT, "ana", "no", parts, NobodyWaits())
            assert gone.release.stage is Stage.ROLLED_BACK
            assert await replay_prompts(stage.parts) == 0

    staged(database_url, scenario)
