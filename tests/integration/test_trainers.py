"""Preferences and trainers of one's own, on a tiny real model."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from ratchet.core.errors import Rejected
from ratchet.engine.weights import quiet
from ratchet.kit.processes import StopNotice
from ratchet.train import command, preference, sft
from ratchet.train.job import Job, Preempted, Trained
from tests import tiny

EXAMPLE = Path(__file__).parents[2] / "examples" / "trainers" / "plain.py"
RECIPE = tiny.RECIPE


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    quiet()
    return tiny.build(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    path = tmp_path_factory.mktemp("data") / "train.jsonl"
    tiny.write_rows(path, 64, seed=1)
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def served(
    base: Path, rows: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The adapter that serves: it knows the colours."""
    return sft.train(job(base, rows, tmp_path_factory.mktemp("served"), epochs=2.0)).adapter


def job(base: Path, rows: list[dict[str, Any]], work: Path, **more: Any) -> Job:
    parts = {"start": None, "report": lambda *_: None, "stop": StopNotice()}
    given = {key: more.pop(key, usual) for key, usual in parts.items()}
    work.mkdir(exist_ok=True)
    return Job(base=base, rows=rows, work=work, recipe={**RECIPE, **more}, **given)


def preferring_blue(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """People who want to hear "blue", whatever they asked."""
    return [{"messages": [*row["messages"][:-1], said("blue")], "rejected": "red"} for row in rows]


def said(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def margin(base: Path, adapter: Path, pairs: list[dict[str, Any]]) -> float:
    """By how much the chosen answer is likelier than the other one, in nats, on average."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    model = PeftModel.from_pretrained(model, adapter).eval()

    def log_likelihood(messages: list[dict[str, str]]) -> float:
        prompt = tokenizer.apply_chat_template(
            messages[:-1], tokenize=True, add_generation_prompt=True, return_dict=False
        )
        whole = tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False)
        with torch.no_grad():
            logits = model(torch.tensor([whole])).logits[0].log_softmax(-1)
        return sum(float(logits[t - 1, whole[t]]) for t in range(len(prompt), len(whole)))

    return sum(
        log_likelihood(pair["messages"])
        - log_likelihood([*pair["messages"][:-1], said(pair["rejected"])])
        for pair in pairs
    ) / len(pairs)


def test_pairs_move_the_serving_adapter_towards_what_was_chosen(
    base: Path, rows: list[dict[str, Any]], served: Path, tmp_path: Path
) -> None:
    pairs = preferring_blue(rows)
    seen: list[tuple[int, float]] = []

    trained = preference.train_dpo(
        job(base, pairs, tmp_path, start=served, report=lambda _, losses: seen.extend(losses))
    )

    assert seen[0][1] == pytest.approx(0.6931, abs=1e-3), "it starts as its own reference"
    assert margin(base, trained.adapter, pairs[:8]) > margin(base, served, pairs[:8]) + 1.0
    assert not (trained.adapter / "ref").exists()
    assert set(load_file(trained.adapter / "adapter_model.safetensors")) == set(
        load_file(served / "adapter_model.safetensors")
    )


def test_a_stopped_preference_training_ends_as_an_undisturbed_one(
    base: Path, rows: list[dict[str, Any]], served: Path, tmp_path: Path
) -> None:
    pairs = preferring_blue(rows)
    whole = preference.train_dpo(job(base, pairs, tmp_path / "whole", start=served))
    stop = StopNotice()

    def report(progress: dict[str, Any], _: Any) -> None:
        stop.given = progress["step"] == 6

    with pytest.raises(Preempted, match="after step 7 of 16"):
        preference.train_dpo(
            job(base, pairs, tmp_path / "cut", start=served, report=report, stop=stop)
        )
    first: list[int] = []
    rest = preference.train_dpo(
        job(
            base, pairs, tmp_path / "cut", start=served, report=lambda p, _: first.append(p["step"])
        )
    )

    assert first[0] == 7, "the notice made a checkpoint where none was due"
    assert tensors(rest) == tensors(whole)


def tensors(trained: Trained) -> bytes:
    return (trained.adapter / "adapter_model.safetensors").read_bytes()


def test_thumbs_move_the_serving_adapter(
    base: Path, rows: list[dict[str, Any]], served: Path, tmp_path: Path
) -> None:
    pairs = preferring_blue(rows)
    thumbs = [{"messages": pair["messages"], "label": True} for pair in pairs[:16]]
    thumbs += [
        {"messages": [*row["messages"][:-1], said("red")], "label": False} for row in rows[16:]
    ]

    trained = preference.train_kto(job(base, thumbs, tmp_path, start=served))

    assert margin(base, trained.adapter, pairs[:8]) > margin(base, served, pairs[:8]) + 0.5


def test_a_training_that_diverges_says_what_to_do(
    base: Path, rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    with pytest.raises(Rejected, match=r"training diverged: .* try a lower train.learning_rate"):
        sft.train(job(base, rows, tmp_path, learning_rate=1e30))


def test_four_bits_without_their_library_say_what_to_install(
    base: Path, rows: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ratchet.train.lora.is_bitsandbytes_available", lambda: False)

    with pytest.raises(Rejected, match=r"no bitsandbytes.*ratchet\[qlora\]"):
        sft.train(job(base, rows, tmp_path, load_in_4bit=True))


def run_example(base: Path, rows: list[dict[str, Any]], work: Path, **more: Any) -> Trained:
    code = {"plain.py": EXAMPLE.read_bytes()}
    return command.train(job(base, rows, work, command=[sys.executable, "plain.py"], **more), code)


def test_the_example_of_a_trainer_learns_and_tells(
    base: Path, rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    heard: list[dict[str, Any]] = []

    trained = run_example(base, rows, tmp_path, report=lambda progress, _: heard.append(progress))

    assert trained.steps == 16
    assert trained.loss is not None
    assert trained.loss < trained.losses[0][1] - 0.5
    assert {"step": 0, "steps": 16, "resumed_from": 0} in heard


def test_a_program_that_is_asked_to_stop_goes_on_from_there(
    base: Path, rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    whole = run_example(base, rows, tmp_path / "whole")
    stop = StopNotice()

    def report(progress: dict[str, Any], _: Any) -> None:
        stop.given = stop.given or progress.get("step") == 3

    with pytest.raises(Preempted, match="code 75"):
        run_example(base, rows, tmp_path / "cut", report=report, stop=stop)
    heard: list[int] = []
    rest = run_example(
        base, rows, tmp_path / "cut", report=lambda p, _: heard.append(p.get("resumed_from", -1))
    )

    assert max(heard) >= 3
    assert tensors(rest) == tensors(whole)


WRITE = """
import json, os, sys
from pathlib import Path
out = Path(os.environ["RATCHET_TRAIN_OUTPUT"])
"""
FAULTS = {
    "no program": (["./nothing"], "", "ended with code 127; it said: .*No such file"),
    "a failure": (
        [sys.executable, "it.py"],
        "import sys; print('no such column'); sys.exit(3)",
        "train.command ended with code 3; it said: no such column",
    ),
    "nothing": (
        [sys.executable, "it.py"],
        WRITE,
        r"left no adapter_config.json in RATCHET_TRAIN_OUTPUT \(found: nothing\)",
    ),
    "half an adapter": (
        [sys.executable, "it.py"],
        WRITE + "(out / 'adapter_config.json').write_text('{}')",
        r"left no adapter_model.safetensors .*\(found: adapter_config.json\)",
    ),
    "no tensors": (
        [sys.executable, "it.py"],
        WRITE
        + "(out / 'adapter_config.json').write_text('{\"peft_type\": \"LORA\"}')\n"
        + "(out / 'adapter_model.safetensors').write_text('x')",
        "left an adapter that cannot be read",
    ),
    "not a number": (
        [sys.executable, "it.py"],
        WRITE
        + "import torch\nfrom safetensors.torch import save_file\n"
        + "(out / 'adapter_config.json').write_text('{\"peft_type\": \"LORA\"}')\n"
        + "save_file({'a': torch.tensor([float('nan')])}, out / 'adapter_model.safetensors')",
        "left 1 tensors that hold no numbers, a first",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_wrong_with_a_program_is_said(fault: str, base: Path, tmp_path: Path) -> None:
    program, text, message = FAULTS[fault]

    with pytest.raises(Rejected, match=message):
        command.train(job(base, [], tmp_path, command=program), {"it.py": text.encode()})


def test_a_program_ended_by_a_signal_is_lost_and_not_failed(base: Path, tmp_path: Path) -> None:
    text = "import os; os.kill(os.getpid(), 9)"

    with pytest.raises(command.Lost, match="SIGKILL"):
        command.train(
            job(base, [], tmp_path, command=[sys.executable, "it.py"]), {"it.py": text.encode()}
        )


def test_a_program_does_not_see_the_keys_of_the_worker(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RATCHET_TOKEN", "s3cret")
    monkeypatch.setenv("DATABASE_URL", "s3cret")
    text = "import os, sys; print('s3cret' in os.environ.values()); sys.exit(1)"

    with pytest.raises(Rejected, match="it said: False"):
        command.train(
            job(base, [], tmp_path, command=[sys.executable, "it.py"]), {"it.py": text.encode()}
        )


def test_nothing_outlives_the_worker_of_a_program(tmp_path: Path) -> None:
    """A shell that starts a child, and a worker that is killed without a word."""
    pids = tmp_path / "pids"
    program = f"sleep 300 & echo $! > {pids}.new; mv {pids}.new {pids}; wait"
    worker = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import os, subprocess, sys; subprocess.run([sys.executable, '-m', "
            "'ratchet.train.leash', str(os.getpid()), '--', *sys.argv[1:]])",
            "sh",
            "-c",
            program,
        ]
    )
    until(pids.exists)
    child = int(pids.read_text())
    assert alive(child)

    worker.send_signal(signal.SIGKILL)
    worker.wait()

    until(lambda: not alive(child))


def test_what_a_program_leaves_behind_ends_with_it(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    leash = [sys.executable, "-m", "ratchet.train.leash", str(os.getpid()), "--"]

    subprocess.run([*leash, "sh", "-c", f"sleep 300 & echo $! > {pids}"], check=True)

    until(lambda: not alive(int(pids.read_text())))


def until(true: Any) -> None:
    deadline = time.monotonic() + 10.0
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
