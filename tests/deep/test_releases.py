"""The judge on a live stack: good releases are promoted by proof, bad ones fall by the right guard.

Real Envoy, real engines with a tiny model, real users.  `RATCHET_AA_RELEASES` says how often a
version is released against itself.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import tiny
from tests.e2e.stack import Stack, Traffic

pytestmark = pytest.mark.deep

AA_RELEASES = int(os.environ.get("RATCHET_AA_RELEASES", "3"))
USERS_PER_SECOND = 60.0

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
        self._stack, self._count = stack, 0

    def run(self, release: str, **train: Any) -> dict[str, Any]:
        self._count += 1
        how = {"train": "good.jsonl", "epochs": 1, "rate": 1e-12, "seed": self._count, **train}
        spec = self._stack.root / "project" / f"release-{self._count}.yaml"
        spec.write_text(SPEC.format(release=release, **how))
        run = self._stack.end_of(self._stack.start_run(spec.stem), 400)
        assert run["release_id"], run
        release_: dict[str, Any] = self._stack.client().get(f"/releases/{run['release_id']}")
        last = release_["verdicts"][-1]
        print(f"{last['to_stage']}: {last['because']}", flush=True)
        again = self._stack.client().get(f"/releases/{run['release_id']}/replay")
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


def test_a_version_against_itself_is_never_rolled_back_and_promoted_by_proof(
    releases: Releases,
) -> None:
    for _ in range(AA_RELEASES):
        ended = releases.run(f"{{guards: {{{GUARDS}}}}}", epochs=6, rate=1e-2)

        assert ended["stage"] == "promoted", ended["because"]
        assert ended["because"].startswith("proven after")
