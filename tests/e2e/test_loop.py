"""The whole loop as installed, with a tiny model: `ratchet up`, and then what users would do."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import openai
import pytest
import yaml

from tests.e2e.stack import Stack, Traffic, ask

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    made = Stack(tmp_path_factory.mktemp("stack"))
    made.prepare()
    made.start()
    yield made
    assert made.stop() == 0


def cli(stack: Stack, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ratchet.entrypoints.cli.main", *arguments],
        capture_output=True, text=True, cwd=stack.root, timeout=60, check=False,
    )  # fmt: skip


def test_the_official_client_is_served_through_envoy(stack: Stack) -> None:
    client = openai.OpenAI(base_url=f"{stack.gateway}/v1", api_key="none", max_retries=0)
    messages = [{"role": "user", "content": "the ball is red"}]

    whole = client.chat.completions.create(model="colours", messages=messages, max_tokens=4)
    stream = client.chat.completions.create(
        model="colours", messages=messages, max_tokens=4, stream=True
    )

    assert whole.usage.total_tokens > 0
    assert next(chunk.object for chunk in stream) == "chat.completion.chunk"
    with pytest.raises(openai.NotFoundError, match="does not exist"):
        client.chat.completions.create(model="nope", messages=messages)
    broken = httpx.post(f"{stack.gateway}/v1/chat/completions", content=b"{")
    assert broken.status_code == 400
    assert broken.json()["error"]["type"] == "invalid_request_error"


def test_answers_carry_their_request_id_and_version(stack: Stack) -> None:
    answer = ask(stack.gateway)

    assert answer.headers["x-request-id"]
    assert answer.headers["x-ratchet-version"].startswith("v_")


def test_health_and_unknown_paths_answer_from_envoy(stack: Stack) -> None:
    health = httpx.get(f"{stack.gateway}/health").json()

    assert health["status"] == "ok"
    assert isinstance(health["timestamp"], int)
    assert httpx.get(f"{stack.gateway}/nowhere").json()["error"]["message"].startswith("no such")


def test_changing_calls_want_the_token(stack: Stack) -> None:
    url = f"http://127.0.0.1:{stack.ports.http}/api/v1/runs"

    assert httpx.post(url, json={}).status_code == 401
    assert httpx.get(url).status_code == 200
    assert httpx.get(url, headers={"host": "evil.example"}).status_code == 400


def test_a_better_model_is_promoted_and_a_spoiled_one_gated(stack: Stack) -> None:
    before = ask(stack.gateway).headers["x-ratchet-version"]
    with Traffic(stack.gateway, steered_by=stack.client()) as users:
        good = stack.start_run("good", "k-good")
        spoiled = stack.start_run("spoiled", "k-spoiled")
        assert stack.client().get(f"/runs/{spoiled}")["state"] == "queued"
        assert stack.start_run("good", "k-good") == good

        promoted = stack.end_of(good)
        gated = stack.end_of(spoiled)

    assert promoted["state"] == "promoted", promoted["because"]
    assert gated["state"] == "gated", gated["because"]
    assert "wanted at least 0.8" in gated["because"]
    after = ask(stack.gateway).headers["x-ratchet-version"]
    assert after == promoted["version_id"] != before
    assert (users.broken, users.failed) == (0, {})


def test_a_bad_canary_is_rolled_back(stack: Stack) -> None:
    before = ask(stack.gateway).headers["x-ratchet-version"]
    with Traffic(stack.gateway, steered_by=stack.client()) as users:
        rolled_back = stack.end_of(stack.start_run("drill"))

    assert rolled_back["state"] == "rolled_back", rolled_back["because"]
    assert ask(stack.gateway).headers["x-ratchet-version"] == before
    bad = rolled_back["version_id"]
    assert users.broken == 0
    assert {version: n for version, n in users.failed.items() if version != bad} == {}
    changes = stack.client().get("/weights", project="colours")
    assert all(change["applied_at"] for change in changes)


def test_the_same_weights_again_are_nothing_to_release(stack: Stack) -> None:
    run = stack.end_of(stack.start_run("good"))

    assert run["state"] == "unchanged"
    assert "bit for bit" in run["because"]


def git(folder: Path, *arguments: str) -> str:
    who = ("-c", "user.name=ana", "-c", "user.email=ana@example.org")
    done = subprocess.run(
        ["git", *who, *arguments], cwd=folder, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def test_a_merge_retrains_by_the_steps_of_the_shipped_workflow(
    stack: Stack, tmp_path: Path
) -> None:
    """Their repository is ours with their spec in it; their runner has what `make setup` makes."""
    subprocess.run([ROOT / "scripts" / "setup"], check=True, stdout=subprocess.DEVNULL)
    theirs = tmp_path / "router"
    for name in git(ROOT, "ls-files", "Makefile", "pyproject.toml", "scripts", ".github").split():
        (theirs / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, theirs / name)
    git(theirs, "init", "-q", "-b", "main")
    git(theirs, "add", "-A")
    git(theirs, "commit", "-q", "-m", "begin")
    (theirs / ".venv").symlink_to(ROOT / ".venv")
    spec = (stack.root / "project" / "spoiled.yaml").read_text()
    for name in ("../model", "spoiled.jsonl", "held-out.yaml"):
        spec = spec.replace(name, str((stack.root / "project" / name).resolve()))
    git(theirs, "switch", "-q", "-c", "worse-data")
    (theirs / "configs").mkdir()
    (theirs / "configs" / "retrain.yaml").write_text(spec)
    git(theirs, "add", "configs")
    git(theirs, "commit", "-q", "-m", "take other data")
    git(theirs, "switch", "-q", "main")
    git(theirs, "merge", "-q", "--no-ff", "-m", "merge", "worse-data")
    commit = git(theirs, "rev-parse", "HEAD")
    workflow = yaml.safe_load((theirs / ".github/workflows/model-retrain.yml").read_text())
    [steps] = [job["steps"] for job in workflow["jobs"].values()]
    shown = tmp_path / "summary.md"
    runner = {
        **os.environ,
        "RATCHET_URL": f"http://127.0.0.1:{stack.ports.http}",
        "RATCHET_TOKEN": stack.state.token_file.read_text().strip(),
        "GITHUB_STEP_SUMMARY": str(shown),
    }

    def steps_of_the_job() -> list[str]:
        said = []
        for step in steps:
            if "run" in step:
                script = step["run"].replace("${{ github.sha }}", commit)
                done = subprocess.run(
                    ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script],
                    cwd=theirs, env=runner, capture_output=True, text=True, timeout=300,
                    check=False,
                )  # fmt: skip
                assert done.returncode == 0, done.stdout + done.stderr
                said.append(done.stdout)
        return said

    first, again = steps_of_the_job()[-1], steps_of_the_job()[-1]

    run = stack.client().get("/runs", limit=1)[0]
    assert run["trigger"]["commit"] == commit
    assert (run["state"], run["trigger"]["kind"]) == ("gated", "merge")
    assert f"run {run['id']}:" in first
    assert f"run {run['id']}:" in again
    report = shown.read_text()
    assert "### Ratchet: gated" in report
    assert "| held-out.accuracy at least 0.8 | **failed** |" in report
    assert f"[run {run['id']}](" in report


def test_the_commands_show_what_happened(stack: Stack) -> None:
    runs = json.loads(cli(stack, "run", "list", "--json").stdout)
    gated = next(run["id"] for run in runs if run["state"] == "gated")

    explained = cli(stack, "gate", "explain", gated).stdout
    release = json.loads(cli(stack, "release", "show", "--json").stdout)
    versions = cli(stack, "version", "list").stdout

    assert "lost" in explained or "won" in explained
    releases = stack.client().get("/releases")
    ended = next(each["id"] for each in releases if each["stage"] == "rolled_back")
    again = cli(stack, "release", "replay", ended)
    assert again.returncode == 0, again.stderr
    lines = again.stdout.splitlines()
    assert lines[-1].startswith("unhealthy")
    assert all(line.endswith("the same to the last bit") for line in lines)
    own = stack.root / "project" / "good.yaml"
    told = cli(stack, "release", "replay", ended, "--spec", str(own))
    assert "rolled back after" in told.stdout, told.stderr
    assert release["stage"] == "unchanged"
    assert "serves" in versions
    assert cli(stack, "doctor").returncode == 0
    assert cli(stack, "status").stdout.startswith("project colours serves")
    missing = cli(stack, "run", "show", "run_none")
    assert missing.returncode == 2
    assert "not known" in missing.stderr


def test_a_killed_worker_is_replaced_and_a_cancelled_run_stops(stack: Stack) -> None:
    run_id = stack.start_run("long")

    def step() -> int:
        stages = stack.client().get(f"/runs/{run_id}")["stages"]
        train = next(s for s in stages if s["name"] == "train")
        return int(train.get("attempt", {}).get("progress", {}).get("step", 0))

    stack.until(lambda: step() >= 12, 60, "training is under way")
    assert stack.kill("ratchet.train.main") >= 1
    stack.until(
        lambda: stack.client().get(f"/runs/{run_id}")["stages"][2]["attempt"]["number"] == 2,
        30, "a second attempt",
    )  # fmt: skip
    stack.until(lambda: step() >= 15, 60, "it goes on")
    resumed = stack.client().get(f"/runs/{run_id}")["stages"][2]["attempt"]["progress"]
    assert resumed["resumed_from"] >= 10

    assert cli(stack, "run", "cancel", run_id, "--json").returncode == 0
    ended = stack.end_of(run_id)
    assert ended["state"] == "cancelled"
    stack.until(lambda: not stack.pids("ratchet.train.main"), 20, "the worker is gone")


def test_a_killed_server_goes_on_and_users_notice_nothing(stack: Stack) -> None:
    stack.spec("again", train="more.jsonl", epochs=4)
    with Traffic(stack.gateway, steered_by=stack.client()) as users:
        run_id = stack.start_run("again")
        stack.until(
            lambda: stack.client().get(f"/runs/{run_id}")["stages"][2]["state"] == "running",
            60, "training begins",
        )  # fmt: skip
        assert stack.kill("cli.main server") >= 1
        run = stack.end_of(run_id)

    assert run["state"] == "promoted", run["because"]
    assert users.broken == 0
    assert not users.failed


def test_bad_input_is_named_and_nothing_is_started(stack: Stack) -> None:
    script = [sys.executable, str(ROOT / "scripts" / "trigger_retrain.py")]
    wrong = stack.root / "project" / "wrong.yaml"
    wrong.write_text((stack.root / "project" / "good.yaml").read_text() + "modle: x\n")
    before = len(stack.client().get("/runs"))

    done = subprocess.run(
        [*script, "--config", str(wrong), "--state-dir", str(stack.state.root)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip

    assert done.returncode == 2
    assert "modle: found an unknown key, expected `model`?" in done.stderr
    assert len(stack.client().get("/runs")) == before


def test_bad_data_fail_the_run_with_file_and_line(stack: Stack) -> None:
    folder = stack.root / "project"
    (folder / "bad.jsonl").write_text('{"messages": 1}\n')
    stack.spec("bad", train="bad.jsonl")
    stack.spec("missing", train="nowhere.jsonl")

    bad = stack.end_of(stack.start_run("bad"))
    missing = stack.end_of(stack.start_run("missing"))

    assert bad["state"] == missing["state"] == "failed"
    assert "bad.jsonl:1" in bad["because"]
    assert "nowhere.jsonl matches no file" in missing["because"]


def test_a_key_is_made_used_seen_and_revoked(stack: Stack) -> None:
    spec = stack.spec("closed", train="good.jsonl", access="keys")
    served = {"spec": spec.read_text(), "path": str(spec)}
    stack.client().post("/projects", served)
    stack.until(lambda: ask(stack.gateway).status_code == 401, 10, "the gateway is closed")

    made = json.loads(cli(stack, "key", "create", "--name", "app", "--json").stdout)
    client = openai.OpenAI(base_url=f"{stack.gateway}/v1", api_key=made["key"], max_retries=0)
    messages = [{"role": "user", "content": "the ball is red"}]
    whole = client.chat.completions.create(model="colours", messages=messages, max_tokens=4)
    assert whole.usage.total_tokens > 0
    assert "app" in cli(stack, "key", "list").stdout

    def seen() -> Any:
        with stack.database() as connection:
            sql = "SELECT count(*) FROM access_records WHERE key_id = %s"
            row = connection.execute(sql, (made["id"],)).fetchone()
        return row and row[0]

    stack.until(lambda: seen() == 1, 10, "the record names the key")
    used = json.loads(cli(stack, "usage", "--json").stdout)
    mine = next(row for row in used if row["key_id"] == made["id"])
    assert mine["prompt_tokens"] == whole.usage.prompt_tokens
    assert mine["completion_tokens"] == whole.usage.completion_tokens
    assert (mine["requests"], mine["failed"], mine["untold"]) == (1, 0, 0)
    twice = cli(stack, "key", "rotate", "app")
    assert twice.stdout.startswith("rk_")
    assert "2 keys are named" in cli(stack, "key", "revoke", "app").stderr
    revoked = cli(stack, "key", "revoke", made["id"], "--why", "the test is over")
    assert "is revoked" in cli(stack, "key", "revoke", "app").stdout
    assert "is revoked" in revoked.stdout

    def refused() -> bool:
        try:
            client.models.list()
        except openai.AuthenticationError as error:
            return "was revoked" in str(error)
        except openai.APIConnectionError:
            return False  # the gateway is just starting again
        return False

    stack.until(refused, 1, "the key is refused within a second")
    assert stack.kill("/envoy ", "bootstrap.json") == 1
    stack.until(refused, 10, "and still after a restart of the gateway")
    opened = stack.root / "project" / "good.yaml"
    stack.client().post("/projects", {"spec": opened.read_text(), "path": str(opened)})
    stack.until(lambda: ask(stack.gateway).status_code == 200, 10, "the gateway is open again")


def test_a_second_stack_in_the_same_place_is_refused(stack: Stack) -> None:
    same = cli(stack, "up")
    port = cli(
        stack, "up", "--state-dir", str(stack.root / "other"),
        "--gateway-port", str(stack.ports.gateway),
    )  # fmt: skip

    assert same.returncode == 1
    assert "already runs" in same.stderr
    assert port.returncode == 1
    assert f"port {stack.ports.gateway} is taken" in port.stderr


def test_a_stack_of_another_layout_is_refused(stack: Stack) -> None:
    other = stack.root / "old"
    other.mkdir()
    (other / "VERSION").write_text("0")

    done = cli(stack, "up", "--state-dir", str(other))

    assert done.returncode == 2
    assert "layout '0'" in done.stderr


def test_init_makes_a_project_that_is_valid(stack: Stack) -> None:
    made = cli(stack, "init", "my-router")

    assert made.returncode == 0
    assert (stack.root / "my-router" / "ratchet.yaml").exists()
    assert cli(stack, "init", "my-router").returncode == 1


def test_stopping_and_starting_again_goes_on_from_there(stack: Stack) -> None:
    serving = ask(stack.gateway).headers["x-ratchet-version"]

    assert stack.stop() == 0
    assert stack.pids() == []
    stack.start()

    assert ask(stack.gateway).headers["x-ratchet-version"] == serving
