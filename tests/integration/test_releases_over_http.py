"""What people and their systems may do to a release, over the control API."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from psycopg.types.json import Jsonb

from ratchet.adapters.postgres.releases import PostgresReleases
from ratchet.core.evidence import observe
from ratchet.core.findings import describe
from ratchet.core.rollout import Signal, Stage, decide
from ratchet.core.shadow import PairJudge, Shadow
from ratchet.operations.release import act, advance_all
from ratchet.ports import EngineReport, StoredRelease, Taken
from tests.integration.test_access import Api, with_api
from tests.scenario.test_weeks_of_releases import NobodyWaits
from tests.stored import ACT, NOW, a_live_release
from tests.unit.test_segments import BEGUN, spoken
from tests.unit.test_segments import PLAN as SEGMENTED


async def held(api: Api) -> StoredRelease:
    """A release that waits for a person, with its engine ready."""
    database = api.parts.database
    stored = await a_live_release(database)
    stored = replace(stored, release=replace(stored.release, notches_percent=(), ramp_weight=500))
    releases = PostgresReleases(database)
    await api.parts.engines.report(stored.release.candidate, EngineReport("ready", 1), NOW)
    for signal in (Signal.READY, Signal.ASK):
        decision = decide(stored.release, signal)
        await releases.commit(stored, decision, ACT, Taken(), NOW)
        stored = replace(stored, release=decision.release)
    return stored


def test_who_is_asked_gives_more_and_the_release_goes_on(database_url: str, tmp_path: Path) -> None:
    async def scenario(api: Api) -> None:
        stored = await held(api)
        path = f"/releases/{stored.release.id}"
        # It waits for a person, and not for records to come again.
        await advance_all(api.parts.release, NobodyWaits())
        assert (await api("GET", path)).json()["stage"] == "held"

        nothing = await api("POST", f"{path}/extend", why="?", who="ana")
        mute = await api("POST", f"{path}/extend", bad_answers=5)
        after = await api("POST", f"{path}/extend", why="worth it", who="ana", bad_answers=50)

        assert (nothing.status_code, mute.status_code) == (422, 422)
        assert "expected a budget, a time, or both" in nothing.json()["detail"]
        shown = after.json()
        assert (shown["stage"], shown["asks"]) == ("canary", False)
        assert shown["plan"]["harm_budget"] == 150
        assert "worth it" in shown["verdicts"][-1]["because"]
        assert [guard["name"] for guard in shown["guards"]] == ["errors", "latency_p95"]

    with_api(database_url, tmp_path, scenario)


def test_a_page_shows_the_shadow_and_where_it_is_worse(database_url: str, tmp_path: Path) -> None:
    async def scenario(api: Api) -> None:
        database = api.parts.database
        stored = await a_live_release(database)
        plan = replace(SEGMENTED, shadow=Shadow(judge=PairJudge(url="http://j", model="j")))
        release = replace(stored.release, notches_percent=(), ramp_weight=500, has_shadow=True)
        stored = replace(stored, plan=plan, release=release, evidence=BEGUN)
        releases = PostgresReleases(database)
        german = observe(BEGUN, spoken(np.random.default_rng(1), 800, 5_000, german_fails=0.5), 0)
        for signal, evidence in ((Signal.READY, BEGUN), (Signal.HEALTHY, german)):
            decision = decide(stored.release, signal)
            act_ = replace(ACT, numbers=describe(evidence))
            stored = replace(stored, evidence=evidence)
            await releases.commit(stored, decision, act_, Taken(), NOW)
            stored = replace(stored, release=decision.release)
        await releases.save_evidence(stored, Taken(), NOW)
        async with database.transaction() as tx:
            for place, outcome in enumerate(("worse", "better", "same")):
                await tx.execute(
                    "INSERT INTO shadow_pairs (release_id, position, request_id, turn_at, "
                    "correction, outcomes) VALUES (%s, %s, '', now(), false, %s)",
                    (stored.release.id, place, Jsonb({"judge": outcome})),
                )

        page = (await api.page("/runs/run_1")).text

        assert "Shadow" in page
        assert "3 prompts compared" in page
        assert "Within segments" in page
        assert "language=de" in page

    with_api(database_url, tmp_path, scenario)


def test_a_release_is_explained_and_its_page_is_kept_when_it_is_decided(
    database_url: str, tmp_path: Path
) -> None:
    async def scenario(api: Api) -> None:
        stored = await held(api)
        path = f"/releases/{stored.release.id}"
        id_ = stored.release.id
        # No flow waits for this release, so nobody is woken.
        back = await act(id_, Signal.ABORT, "ana", "no", api.parts.release, NobodyWaits())
        assert back.release.stage is Stage.ROLLED_BACK

        await advance_all(api.parts.release, NobodyWaits())

        page = await api("GET", f"{path}/report")
        assert page.headers["content-type"].startswith("text/markdown")
        assert page.text.startswith("# Release rel_1: rolled back")
        row = await api.parts.database.one("get_release", id="rel_1")
        assert row is not None
        assert row["report"] == page.text
        assert (await api("GET", "/releases/none/report")).status_code == 404

    with_api(database_url, tmp_path, scenario)


@pytest.mark.parametrize(
    "metric",
    [
        {"request_id": "q", "name": "helpful", "value": None},
        {"request_id": "q", "name": "Helpful!", "value": 1},
        {"request_id": "", "name": "helpful", "value": 1},
    ],
)
def test_a_metric_that_is_none_is_refused(
    metric: dict[str, object], database_url: str, tmp_path: Path
) -> None:
    async def scenario(api: Api) -> None:
        good = {"request_id": "q", "name": "helpful", "value": 0.5}

        refused = await api("POST", "/metrics", project="p", metrics=[good, metric])
        taken = await api("POST", "/metrics", project="p", metrics=[good])
        again = await api("POST", "/metrics", project="p", metrics=[good])

        assert refused.status_code == 422
        # Nothing of a call that was refused was kept.
        assert (taken.json(), again.json()) == ({"new": 1}, {"new": 0})
        assert (await api("POST", "/metrics", None, project="p", metrics=[good])).status_code == 401

    with_api(database_url, tmp_path, scenario)


def test_of_two_controllers_at_once_one_decides(database_url: str, tmp_path: Path) -> None:
    async def scenario(api: Api) -> None:
        stored = await a_live_release(api.parts.database)
        for version in (stored.release.candidate, stored.release.baseline):
            await api.parts.engines.report(version, EngineReport("ready", 1), NOW)

        both = [advance_all(api.parts.release, NobodyWaits()) for _ in range(2)]
        await asyncio.gather(*both)

        shown = (await api("GET", f"/releases/{stored.release.id}")).json()
        assert shown["stage"] == "canary"
        assert [verdict["signal"] for verdict in shown["verdicts"]] == ["ready"]

    with_api(database_url, tmp_path, scenario)
