"""The judge on a live stack: good releases are promoted by proof, bad ones fall by the right guard.

Real Envoy, real engines with a tiny model, real users.  `RATCHET_AA_RELEASES` says how often a
version is released against itself.
"""

from __future__ import annotations

import json
import os
import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from ratchet.core.errors import RatchetError
from tests import tiny
from tests.e2e.stack import Stack, Traffic

pytestmark = pytest.mark.deep

KILLS = 20
AA_RELEASES = int(os.environ.get("RATCHET_AA_RELEASES", "3"))
USERS_PER_SECOND = 15.0

SPEC = """\
project: colours
model: {{base: ../model, name: colours}}
data: {{train: {train}}}
train: {{epochs: {epochs}, batch_size: 8, learning_rate: {rate}, seed: {seed},
        lora: {{rank: 8, alpha: 16}}, max_length: 64, checkpoint_every_steps: 50}}
evaluate: {{suites: [held-out.yaml]}}
gates:
  - {{metric: held-out.accuracy, at_least: 0.0}}
gateway: {{access: open, capture: {{sample: 100%}}}}
release: {release}
"""
# Wide, because everything shares two cores; what they are, both arms must meet.
GUARDS = "errors: {margin: +4pp}, latency_p95: {margin: 60%}"


class Releases:
    """Runs one release after the other and tells how each ended."""

    def __init__(self, stack: Stack) -> None:
        self.stack, self._count = stack, 0

    def run(self, release: str, **train: Any) -> dict[str, Any]:
        self._count += 1
        how = {"train": "good.jsonl", "epochs": 1, "rate": 1e-12, "seed": self._count, **train}
        spec = self.stack.root / "project" / f"release-{self._count}.yaml"
        spec.write_text(SPEC.format(release=release, **how))
        run = self.stack.end_of(self.stack.start_run(spec.stem), 400)
        assert run["release_id"], run
        # The last kill may come after the verdict.
        client = self.stack.client(patience_seconds=60.0)
        release_: dict[str, Any] = client.get(f"/releases/{run['release_id']}")
        last = release_["verdicts"][-1]
        print(f"{last['to_stage']}: {last['because']}", flush=True)
        again = client.get(f"/releases/{run['release_id']}/replay")
        assert [each["differences"] for each in again] == [[]] * len(again)
        return release_


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Releases]:
    stack = Stack(tmp_path_factory.mktemp("releases"))
    stack.prepare()
    folder = stack.root / "project"
    tiny.write_rows(folder / "good.jsonl", 240, seed=1)
    _rewrite(folder / "good.jsonl", folder / "verbose.jsonl", lambda word: " ".join([word] * 3))
    _rewrite(folder / "good.jsonl", folder / "words.jsonl", lambda word: f"the {word}")
    stack.start()
    made = Releases(stack)
    try:
        with Traffic(stack.gateway, USERS_PER_SECOND):
            # What is served from now on answers with a colour.
            first = made.run("{notches: [50, 100], units_per_notch: 5}", epochs=6, rate=1e-2)
            assert first["stage"] == "promoted"
            yield made
    finally:
        stack.stop()


def _rewrite(rows: Path, into: Path, change: Callable[[str], str]) -> None:
    """The same questions, answered in other words."""
    lines = [json.loads(line) for line in rows.read_text().splitlines()]
    for line in lines:
        answer = line["messages"][-1]
        answer["content"] = change(answer["content"])
    into.write_text("".join(json.dumps(line) + "\n" for line in lines))


def guilty(release: dict[str, Any]) -> list[str]:
    return [guard["name"] for guard in release["guards"] if guard["is_guilty"]]


def canary_answers(release: dict[str, Any]) -> float:
    return float(release["verdicts"][-1]["numbers"]["canary_units"])


@pytest.mark.parametrize(
    ("release", "train", "guard", "answers_max"),
    [
        # Twice what `make bench-canary` has for errors of 50 %, latency +20 %, the tail; the others
        # are as large.
        ("drill: {error_rate: 50%}", {}, "errors", 20),
        ("drill: {delay: 400ms}", {}, "latency_p95", 300),
        ("drill: {delay: 3s, delay_share: 15%}", {}, "latency_p95", 1_600),
        ("metrics", {"train": "words.jsonl"}, "format", 400),
        ("metrics", {"train": "verbose.jsonl"}, "length", 400),
    ],
)
def test_each_regression_falls_by_its_own_guard(
    releases: Releases, release: str, train: dict[str, Any], guard: str, answers_max: int
) -> None:
    more = {"format": ", format: {labels: [red, blue]}", "length": ", length: {margin: 30%}"}
    named = f"guards: {{{GUARDS}{more.get(guard, '')}}}"
    plan = named if release == "metrics" else f"{named}, {release}"
    # The baseline is the base with an adapter; what is not trained again must be trained as it was.
    how = {"epochs": 6, "rate": 1e-2, **train}

    ended = releases.run(f"{{{plan}}}", **how)

    assert ended["stage"] == "rolled_back"
    assert guard in guilty(ended)
    assert canary_answers(ended) <= answers_max


SHADOW = "shadow: {pairs: 60}, guards: {errors: {margin: +4pp}, latency_p95: {margin: 60%}, "


def test_a_version_with_other_words_meets_nobody(releases: Releases) -> None:
    plan = f"{{{SHADOW}format: {{labels: [red, blue]}}}}}}"

    ended = releases.run(plan, epochs=6, rate=1e-2, train="words.jsonl")

    assert [verdict["to_stage"] for verdict in ended["verdicts"]] == ["shadow", "rolled_back"]
    assert ended["because"].endswith("no user met it")
    assert canary_answers(ended) == 0
    assert 0 < ended["shadow"]["compared"] <= 60


def test_a_good_version_goes_through_its_shadow_and_every_segment(releases: Releases) -> None:
    plan = f"{{{SHADOW}format: {{labels: [red, blue]}}}}, segments: [prompt_length, language]}}"

    ended = releases.run(plan, epochs=6, rate=1e-2)

    stages = [verdict["to_stage"] for verdict in ended["verdicts"]]
    assert (stages[:3], stages[-1]) == (["shadow", "canary", "canary"], "promoted")
    assert ended["because"].startswith("proven after")
    assert ended["shadow"]["compared"] == 60


class Killer:
    """Kills the control plane while a canary is judged."""

    def __init__(self, stack: Stack, seed: int) -> None:
        self._stack, self._chance = stack, random.Random(seed)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work)
        self.kills = 0

    def __enter__(self) -> Killer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _work(self) -> None:
        with self._stack.database() as connection:
            # One that is killed before it serves would never judge anything.
            while not self._stop.wait(self._chance.uniform(0.1, 2.0)):
                live = "SELECT count(*) FROM releases WHERE stage IN ('shadow', 'canary')"
                [found] = connection.execute(live).fetchall()
                if found[0] and self._serves() and self._stack.kill("cli.main server"):
                    self.kills += 1

    def _serves(self) -> bool:
        """It does, and did for a moment of chance."""
        try:
            self._stack.client().get("/releases")
        except (RatchetError, httpx.HTTPError):
            return False
        return not self._stop.wait(self._chance.uniform(0.0, 2.0))


def test_a_judge_that_is_killed_decides_the_same(releases: Releases) -> None:
    """Every verdict comes out again from the units, bit for bit (`Releases.run` replays), whatever
    was killed before it was stored; and none is there twice."""
    kills, round_ = 0, 0
    while kills < KILLS:
        round_ += 1
        with Killer(releases.stack, round_) as killer:
            is_bad = round_ % 2 == 0
            drill = ", drill: {error_rate: 50%}" if is_bad else ""
            ended = releases.run(f"{{guards: {{{GUARDS}}}{drill}}}", epochs=6, rate=1e-2)
        kills += killer.kills
        print(f"{killer.kills} kills", flush=True)

        assert ended["stage"] == ("rolled_back" if is_bad else "promoted"), ended["because"]
        versions = [verdict["version"] for verdict in ended["verdicts"]]
        assert versions == list(range(1, len(versions) + 1))
    with releases.stack.database() as connection:
        [twice] = connection.execute(
            "SELECT count(*) FROM weight_changes AS change WHERE NOT EXISTS "
            "(SELECT 1 FROM verdicts WHERE verdicts.because = change.because) "
            "AND route_revision > 1"
        ).fetchall()
    assert twice[0] == 0
    print(f"{kills} kills in {round_} releases")


def test_a_version_against_itself_is_never_rolled_back_and_promoted_by_proof(
    releases: Releases,
) -> None:
    for _ in range(AA_RELEASES):
        ended = releases.run(f"{{guards: {{{GUARDS}}}}}", epochs=6, rate=1e-2)

        assert ended["stage"] == "promoted", ended["because"]
        assert ended["because"].startswith("proven after")
