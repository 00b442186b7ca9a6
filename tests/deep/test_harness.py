"""Tasks of a real lm-evaluation-harness (build/lmeval), asked of a server that says them back."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ratchet.adapters.files import LocalFiles
from ratchet.adapters.harness import HarnessTasks
from ratchet.core.errors import Rejected
from ratchet.core.suite import Suite, suite_of
from ratchet.harness import Harness
from ratchet.train.evaluate import run_suite
from tests.e2e.stack import Stack
from tests.integration.test_evaluation import parrot

pytestmark = pytest.mark.deep

PYTHON = Path("build/lmeval/bin/python").absolute()
TASK = """
task: colours
dataset_path: json
dataset_kwargs: {data_files: {test: DATA}}
test_split: test
fewshot_split: test
num_fewshot: 1
output_type: OUTPUT
doc_to_text: "{{question}}"
doc_to_target: "{{answer}}"
generation_kwargs: {until: ["."]}
metric_list:
  - {metric: METRIC, aggregation: mean, higher_is_better: true}
filter_list:
  - name: first-word
    filter: [{function: regex, regex_pattern: "(\\\\w+)"}, {function: take_first}]
  - name: last-word
    filter: [{function: regex, regex_pattern: "(\\\\w+)$"}, {function: take_first}]
metadata: {version: 2.0}
"""
ASKED = [("red is the ball", "red"), ("my door. blue", "blue"), ("blue it is", "blue")]
SUITE = "suite: s\ncheck: lm_eval\nmax_tokens: 8\nlm_eval: {task: colours, HOW}\n"


@pytest.fixture
def harness(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Harness:
    if not PYTHON.exists():
        pytest.skip("no lm-evaluation-harness in build/lmeval")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    lines = [json.dumps({"question": q, "answer": a}) for q, a in ASKED]
    (tmp_path / "colours.jsonl").write_text("\n".join(lines) + "\n")
    text = TASK.replace("DATA", str(tmp_path / "colours.jsonl"))
    (tmp_path / "tasks").mkdir()
    written = text.replace("OUTPUT", "generate_until").replace("METRIC", "exact_match")
    likely = text.replace("OUTPUT", "multiple_choice").replace("METRIC", "acc")
    likely += "doc_to_choice: [red, blue]\n"
    (tmp_path / "tasks" / "colours.yaml").write_text(written)
    (tmp_path / "tasks" / "likely.yaml").write_text(likely.replace("colours\n", "likely\n", 1))
    return Harness(str(PYTHON), str(tmp_path / "tasks"))


def read(folder: Path, harness: Harness, how: str = "limit: 3") -> Suite:
    async def found() -> Suite:
        (folder / "s.yaml").write_text(SUITE.replace("HOW", how))
        file = await LocalFiles().suite(folder, "s.yaml")
        assert file.task is not None
        rows, resolved = await HarnessTasks(harness).items(file.task)
        assert not rows.bad
        return suite_of(replace(file, task=resolved), rows)

    return asyncio.run(found())


def test_a_task_is_asked_and_judged_as_the_harness_does(tmp_path: Path, harness: Harness) -> None:
    suite = read(tmp_path, harness)
    asked: dict[str, Any] = json.loads(json.dumps(suite.to_json()))
    with parrot() as (server, url):
        report = run_suite(
            asked, url, "m", tmp_path / "kept.jsonl", lambda _: None, harness=harness
        )

    assert sorted(server.asked) == sorted(question for question, _ in ASKED)
    assert [len(row["messages"]) for row in asked["rows"]] == [4, 4, 4]
    # "my door" is what is left of the second answer: it ends where the task's answers end.
    assert [item["score"] for item in report["items"]] == [1.0, 0.0, 1.0]
    assert report["items"][0]["metadata"]["task"] == "colours"
    assert asked["task"]["metric"] == "exact_match,first-word"
    assert asked["task"]["versions"] == {"colours": "2.0"}


def test_another_metric_is_another_suite(tmp_path: Path, harness: Harness) -> None:
    first = read(tmp_path, harness)
    last = read(tmp_path, harness, "limit: 3, few_shot: 0, metric: 'exact_match,last-word'")

    assert first.digest != last.digest
    assert [len(row.messages) for row in last.rows.good] == [2, 2, 2]


@pytest.mark.parametrize(
    ("task", "says"),
    [
        ({"task": "likely"}, "likely asks how likely texts are"),
        ({"task": "colors"}, "has no task colors; it has colours"),
        ({"task": "colours", "metric": "bleu"}, "found 'bleu', expected one of exact_match,first"),
    ],
)
def test_a_task_that_cannot_be_asked_says_why(
    harness: Harness, task: dict[str, str], says: str
) -> None:
    with pytest.raises(Rejected, match=says):
        asyncio.run(HarnessTasks(harness).items({"limit": 2, **task}))


def test_other_data_where_the_worker_is_is_noticed(tmp_path: Path, harness: Harness) -> None:
    asked: dict[str, Any] = json.loads(json.dumps(read(tmp_path, harness).to_json()))
    asked["rows"][0]["metadata"]["digest"] = "another"
    with parrot() as (_, url), pytest.raises(Rejected, match="item 0 of colours is another one"):
        run_suite(asked, url, "m", tmp_path / "kept.jsonl", lambda _: None, harness=harness)


def test_a_run_asks_a_task_of_the_served_model(tmp_path: Path, harness: Harness) -> None:
    told = {"RATCHET_LM_EVAL_PYTHON": harness.python, "RATCHET_LM_EVAL_INCLUDE": harness.include}
    stack = Stack(tmp_path / "stack", env=told)
    stack.prepare()
    folder = stack.root / "project"
    (folder / "colours.yaml").write_text(
        "suite: colours\ncheck: lm_eval\nmax_tokens: 4\nlm_eval: {task: colours, few_shot: 0}\n"
    )
    spec = stack.spec("forgets", train="good.jsonl")
    text = spec.read_text().replace("suites: [", "suites: [colours.yaml, ")
    spec.write_text(text.replace("gates:", "gates:\n  - {metric: colours.accuracy, at_least: 1.1}"))
    stack.start()
    try:
        run = stack.end_of(stack.start_run("forgets"), 400)
        found = stack.client().get(f"/runs/{run['id']}/items", only=None, limit=99)
    finally:
        stack.stop()

    assert run["state"] == "gated", run["because"]
    assert "colours.accuracy" in run["because"]
    asked = [
        each for each in found["items"] if each["row"].get("metadata", {}).get("task") == "colours"
    ]
    assert [each["row"]["messages"][0]["content"] for each in asked] == [q for q, _ in ASKED]


def test_who_asked_is_killed_and_nobody_goes_on_asking(harness: Harness) -> None:
    command = harness.items({"task": "colours", "limit": 1})
    asks = "import subprocess, sys; subprocess.run(sys.argv[1:])"
    asker = subprocess.Popen([sys.executable, "-c", asks, *command])
    until = time.monotonic() + 10.0
    while not (found := Path(f"/proc/{asker.pid}/task/{asker.pid}/children").read_text().split()):
        assert time.monotonic() < until
    time.sleep(1.5)  # it has begun to watch, and imports for many seconds more
    asker.kill()
    asker.wait()

    while Path(f"/proc/{found[0]}").exists():
        assert time.monotonic() < until, "it goes on"
        time.sleep(0.1)
