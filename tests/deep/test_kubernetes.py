"""Workers as Jobs, against a fake API server (tests/kube_api.py) that checks strictly what it is
sent; the test plays kubelet and runs what a Job's container says."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
import yaml

from ratchet.adapters.kubernetes.cluster import KubernetesJobs
from ratchet.adapters.kubernetes.config import load_cluster
from ratchet.adapters.kubernetes.jobs import PRESETS, Attempt, Cluster, job_name
from ratchet.core.artifact import RunId
from ratchet.core.errors import Conflict, Rejected, Unavailable
from ratchet.core.place import Capacity, Executor, Place
from ratchet.core.run import StageName
from ratchet.durable.flow import Durable
from ratchet.entrypoints.executor import KubernetesExecutor
from ratchet.kit.clock import ManualClock, SystemClock
from tests.e2e.stack import Stack, Traffic
from tests.integration.test_access import LOCAL, Api, with_api
from tests.kube import PYTHON, Kube, Kubelet, fail, kube_api, pod_of
from tests.stored import NOW, queued

pytestmark = pytest.mark.deep

ROOT = Path(__file__).parents[2]
CLUSTER = Cluster(image="i:1", grpc="g:1", objects="s3://b", **PRESETS["gke"])
HERE = Place(executor=Executor.KUBERNETES)


@pytest.fixture
def kube() -> Iterator[Kube]:
    with kube_api() as running:
        yield running


PLACES = {
    "plain": (HERE, CLUSTER),
    "spot": (Place(executor=Executor.KUBERNETES, capacity=Capacity.SPOT), CLUSTER),
    "steady": (Place(executor=Executor.KUBERNETES, capacity=Capacity.ON_DEMAND), CLUSTER),
    "everything": (
        Place(
            executor=Executor.KUBERNETES,
            cpus=2.5,
            memory_bytes=8 << 30,
            gpus=2,
            image="mine:2",
            deadline_seconds=3600.0,
        ),
        Cluster(
            image="i:1",
            grpc="g:1",
            objects="s3://b",
            env_secret="objects",
            checkpoints_claim="work",
            cache_claim="cache",
            priority_class="low",
            queue="team",
            **PRESETS["eks"],
        ),
    ),
}


@pytest.mark.parametrize("name", PLACES)
def test_what_is_sent_is_valid_for_three_versions_of_kubernetes(kube: Kube, name: str) -> None:
    place, cluster = PLACES[name]
    attempt = Attempt(id="att_1", run="run_1", stage="train", place=place)

    async def scenario() -> None:
        jobs = KubernetesJobs(kube.client(), cluster)
        await jobs.create(attempt)
        await jobs.create(attempt)  # 409: it is ours, and adopted
        [job], pods = await jobs.listing()
        assert job.metadata is not None
        assert (job.metadata.name, pods) == ("ratchet-att-1", [])
        await jobs.delete(job_name("att_1"))
        await jobs.delete(job_name("att_1"))
        assert await jobs.listing() == ([], [])

    asyncio.run(scenario())


def test_the_checker_refuses_what_is_no_job(kube: Kube) -> None:
    """Else all that it lets pass would mean nothing."""
    base = f"{kube.url}/apis/batch/v1/namespaces/ratchet/jobs"
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "x"}}

    for spec in ({}, {"template": {"spec": {"containers": [{"nmae": "x"}]}}}):
        answer = httpx.post(base, json={**job, "spec": spec})
        assert (answer.status_code, answer.json()["reason"]) == (422, "Invalid")


def test_manifests_are_valid_for_three_versions_of_kubernetes(tmp_path: Path) -> None:
    if not PYTHON.exists():
        pytest.skip("build/kube does not exist: make test-deep makes it")
    check = (
        "import sys, yaml, kubernetes_validate as k\n"
        "for doc in yaml.safe_load_all(open(sys.argv[1])):\n"
        "    for version in ('1.35', '1.36', '1.37'):\n"
        "        k.validate(doc, version, strict=True)\n"
    )
    for file in sorted((ROOT / "deploy" / "kubernetes").glob("*.yaml")):
        subprocess.run([PYTHON, "-c", check, str(file)], check=True)
        config = next(
            doc["data"]["cluster.yaml"]
            for doc in yaml.safe_load_all(file.read_text())
            if doc["kind"] == "ConfigMap"
        )
        (tmp_path / "cluster.yaml").write_text(config)
        load_cluster(tmp_path / "cluster.yaml")


@pytest.mark.parametrize(
    ("code", "reason", "error"),
    [
        (422, "Invalid", Rejected),
        (403, "Forbidden", Conflict),
        (429, "TooManyRequests", Unavailable),
        (500, "InternalError", Unavailable),
    ],
)
def test_errors_of_the_api_server_are_told_apart(
    kube: Kube, code: int, reason: str, error: type[Exception]
) -> None:
    kube.fault("POST", code, reason)

    async def scenario() -> None:
        jobs = KubernetesJobs(kube.client(), CLUSTER)
        attempt = Attempt(id="att_1", run="run_1", stage="train", place=HERE)
        with pytest.raises(error, match="on demand"):
            await jobs.create(attempt)
        await jobs.create(attempt)

    asyncio.run(scenario())


def test_a_watch_that_is_cut_or_too_old_begins_anew(kube: Kube) -> None:
    async def scenario() -> None:
        jobs = KubernetesJobs(kube.client(), CLUSTER)
        seen: list[int] = []

        async def look() -> None:
            async for _ in jobs.changes():
                seen.append(len((await jobs.listing())[0]))

        looking = asyncio.create_task(look())
        for number, trouble in enumerate(({}, {"do": "cut"}, {"do": "forget"}, {"do": "cut"})):
            if trouble == {"do": "forget"}:
                # The next watch asks from a version that is no longer known.
                await asyncio.to_thread(kube.ask, do="forget")
                await asyncio.to_thread(kube.fault, "watch", 410, "Expired", 2)
                trouble = {"do": "cut"}
            if trouble:
                await asyncio.to_thread(kube.ask, **trouble)
            await jobs.create(Attempt(id=f"att_{number}", run="r", stage="train", place=HERE))
            deadline = time.monotonic() + 20.0
            while not seen or seen[-1] != number + 1:
                assert time.monotonic() < deadline, (number, seen)
                await asyncio.sleep(0.05)
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)

    asyncio.run(scenario())


ENDS: dict[str, tuple[Callable[[Kube, dict[str, Any]], object], str, str]] = {
    "preempted": (
        lambda kube, job: kube.put(
            "pods",
            pod_of(
                job,
                conditions=[
                    {"type": "DisruptionTarget", "status": "True", "reason": "Preempted"}
                ],
            ),
        ),
        "preempted",
        "Preempted: ",
    ),
    "out of memory": (
        lambda kube, job: kube.put(
            "pods",
            pod_of(
                job,
                containerStatuses=[
                    {
                        "name": "worker", "image": "i", "imageID": "", "ready": False,
                        "restartCount": 0,
                        "state": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}},
                    }
                ],
            ),
        ),
        "out_of_memory",
        "raise train.resources.memory",
    ),
    "deleted by somebody": (
        lambda kube, job: httpx.delete(
            f"{kube.url}/apis/batch/v1/namespaces/ratchet/jobs/{job['metadata']['name']}"
        ).raise_for_status(),
        "lost",
        "its Job is gone",
    ),
}  # fmt: skip


@pytest.mark.parametrize("end", ENDS)
def test_the_control_plane_hears_how_an_attempt_ended(
    kube: Kube, database_url: str, tmp_path: Path, end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    happen, state, because = ENDS[end]
    woken: list[str] = []

    async def wake(_: Durable, run: str) -> None:
        woken.append(run)

    # No flow runs here that could be woken.
    monkeypatch.setattr(Durable, "wake", wake)

    async def scenario(api: Api) -> None:
        api.http.headers["authorization"] = f"Bearer {LOCAL}"
        attempts = api.parts.attempts
        run = RunId("run_1")
        await api.parts.runs.runs.add(queued("run_1"), "key", NOW)
        place = {"place": HERE.to_json()}
        await attempts.add(run, StageName.TRAIN, 1, place, NOW)
        executor = KubernetesExecutor(
            KubernetesJobs(kube.client(), CLUSTER), api.http, SystemClock()
        )
        await executor.look()
        await executor.look()
        [job] = kube.objects("jobs")
        [living] = await attempts.live()
        await attempts.claim(living.id, NOW)

        happen(kube, job)
        if end != "deleted by somebody":
            fail(kube, job)
        await executor.look()

        last = await attempts.last(run, StageName.TRAIN)
        assert last is not None
        assert (last.state.value, because in last.because) == (state, True), last
        assert woken == ["run_1"]
        await executor.look()
        assert len(kube.objects("jobs")) <= 1

    with_api(database_url, tmp_path, scenario)


def test_a_job_whose_attempt_is_no_longer_wanted_is_deleted(
    kube: Kube, database_url: str, tmp_path: Path
) -> None:
    async def scenario(api: Api) -> None:
        api.http.headers["authorization"] = f"Bearer {LOCAL}"
        run = RunId("run_1")
        await api.parts.runs.runs.add(queued("run_1"), "key", NOW)
        await api.parts.attempts.add(run, StageName.TRAIN, 1, {"place": HERE.to_json()}, NOW)
        clock = ManualClock(NOW)
        executor = KubernetesExecutor(KubernetesJobs(kube.client(), CLUSTER), api.http, clock)
        await executor.look()
        assert len(kube.objects("jobs")) == 1

        await api.parts.attempts.cancel(run, "a person said so", NOW)
        await executor.look()
        assert len(kube.objects("jobs")) == 1, "its worker may be leaving by itself"
        clock.advance(timedelta(seconds=31))
        await executor.look()

        assert kube.objects("jobs") == []

    with_api(database_url, tmp_path, scenario)


def test_a_run_trains_in_a_cluster_that_fails_and_takes_its_machine_away(
    kube: Kube, tmp_path: Path
) -> None:
    stack = Stack(tmp_path)
    stack.prepare()
    spec = stack.spec("cluster", train="good.jsonl", epochs=8, checkpoint_every=5)
    spec.write_text(
        spec.read_text().replace("train: {", "train: {executor: kubernetes, capacity: spot, ")
    )
    stack.start()
    for folder in ("work", "cache"):
        (tmp_path / folder).mkdir()
    kubelet = Kubelet(kube, tmp_path, stack.state.token_file)
    kubelet.start()
    executor = start_executor(kube, stack)
    try:
        with Traffic(stack.gateway):
            kube.fault("POST", 500, "InternalError", 2)
            kube.fault("GET", 429, "TooManyRequests", 2)
            kube.fault("watch", 410, "Expired", 2)
            run = stack.start_run("cluster")
            stack.until(lambda: progress(stack, run) >= 20, 180, "20 steps")
            first = kubelet.take_machine()
            stack.until(lambda: first not in kubelet.running, 60, "the machine is gone")
            stack.until(lambda: kubelet.running, 60, "another Job runs")
            executor.kill()
            executor.wait()
            kube.ask(do="cut")
            executor = start_executor(kube, stack)
            ended = stack.end_of(run, 300)
    finally:
        executor.kill()
        executor.wait()
        kubelet.stopping = True
        kubelet.join(10)
        stack.stop()

    assert ended["state"] == "promoted", ended["because"]
    stages = {stage["name"]: stage["attempts"] for stage in ended["stages"]}
    assert [each["state"] for each in stages["train"]] == ["preempted", "succeeded"]
    assert stages["train"][1]["progress"]["resumed_from"] >= 20
    attempts = [each["id"] for each in stages["train"] + stages["evaluate"]]
    names = sorted(job["metadata"]["name"] for job in kube.objects("jobs"))
    assert names == sorted(job_name(each) for each in attempts), "no Job was started twice"


def test_a_training_in_a_cluster_without_spot_takes_a_machine_that_stays_in_time(
    kube: Kube, tmp_path: Path
) -> None:
    deadline_seconds = 420
    stack = Stack(tmp_path)
    stack.prepare()
    prices = f"usd_per_hour: 3.0, spot_usd_per_hour: 1.0, deadline: {deadline_seconds}s"
    places = {"first": "capacity: any", "second": f"capacity: spot, {prices}"}
    for name, data in (("first", "good.jsonl"), ("second", "more.jsonl")):
        spec = stack.spec(name, train=data, epochs=8, checkpoint_every=5)
        place = f"train: {{executor: kubernetes, {places[name]}, "
        spec.write_text(spec.read_text().replace("train: {", place).replace("0.8}", "1.1}"))
    stack.start()
    for folder in ("work", "cache"):
        (tmp_path / folder).mkdir()
    kubelet = Kubelet(kube, tmp_path, stack.state.token_file)
    kubelet.start()
    executor = start_executor(kube, stack)
    try:
        # How fast it goes is known from the training before.
        assert stack.end_of(stack.start_run("first"), 300)["state"] == "gated"
        run = stack.start_run("second")
        stack.until(lambda: progress(stack, run) >= 20, 180, "20 steps on spot")
        kubelet.has_room = lambda job: (
            "gke-spot" not in json.dumps(job["spec"]["template"]["spec"].get("nodeSelector", {}))
        )
        kubelet.take_machine()
        ended = stack.end_of(run, deadline_seconds + 200)
        jobs = kube.objects("jobs")
    finally:
        executor.kill()
        executor.wait()
        kubelet.stopping = True
        kubelet.join(10)
        stack.stop()

    assert ended["state"] == "gated", ended["because"]
    train = next(stage for stage in ended["stages"] if stage["name"] == "train")
    ends = [(each["state"], each["capacity"]) for each in train["attempts"]]
    took = moment(train["ended_at"]) - moment(train["started_at"])
    print(ends, took, [(each["action"], each["because"]) for each in ended["placements"]])
    assert ends[0] == ("preempted", "spot")
    assert ends[-2] == ("preempted", "spot"), "it was asked for, and given up"
    assert train["attempts"][-2]["started_at"] is None
    assert ends[-1] == ("succeeded", "on_demand")
    assert train["attempts"][-1]["progress"]["resumed_from"] >= 20
    assert took.total_seconds() <= deadline_seconds
    assert job_name(train["attempts"][-2]["id"]) not in {job["metadata"]["name"] for job in jobs}


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def progress(stack: Stack, run: str) -> int:
    stages = stack.client().get(f"/runs/{run}")["stages"]
    train = [each for stage in stages if stage["name"] == "train" for each in stage["attempts"]]
    return int(train[-1]["progress"].get("step", 0)) if train else 0


def start_executor(kube: Kube, stack: Stack) -> subprocess.Popen[bytes]:
    """`ratchet executor`, as an operator starts it."""
    config = stack.root / "cluster.yaml"
    config.write_text(
        yaml.safe_dump(
            {
                "image": "i:1",
                "grpc": f"127.0.0.1:{stack.ports.grpc}",
                "objects": stack.state.objects_url,
                "cloud": "gke",
            }
        )
    )
    kubeconfig = stack.root / "kubeconfig"
    kubeconfig.write_text(json.dumps(kube.config()))
    with (stack.root / "executor.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "ratchet.entrypoints.cli.main", "executor",
             "--config", str(config), "--server", f"http://127.0.0.1:{stack.ports.http}",
             "--token-file", str(stack.state.token_file)],
            stdout=log, stderr=log, env={**os.environ, "KUBECONFIG": str(kubeconfig)},
        )  # fmt: skip
