"""The Job of an attempt, and what is read from one: values only."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from lightkube.models.batch_v1 import JobCondition, JobStatus
from lightkube.models.core_v1 import (
    ContainerState,
    ContainerStateTerminated,
    ContainerStateWaiting,
    ContainerStatus,
    PodCondition,
    PodStatus,
)
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.batch_v1 import Job
from lightkube.resources.core_v1 import Pod

from ratchet.adapters.kubernetes.config import load_cluster
from ratchet.adapters.kubernetes.jobs import PRESETS, Attempt, Cluster, job_name, job_of
from ratchet.adapters.kubernetes.outcome import is_complete, outcome_of, waits_for
from ratchet.core.errors import Rejected
from ratchet.core.place import Capacity, Executor, Place
from ratchet.core.run import AttemptState

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
GKE = Cluster(image="registry/ratchet:1", grpc="ratchet:50051", objects="s3://b", **PRESETS["gke"])


def job(place: Place, cluster: Cluster = GKE) -> Any:
    return job_of(Attempt(id="att_1", run="run_1", stage="train", place=place), cluster)


def at(**more: Any) -> Place:
    return Place(executor=Executor.KUBERNETES, **more)


def test_a_job_is_named_by_its_attempt_and_runs_one_pod_once() -> None:
    made = job(at())

    assert made.metadata.name == job_name("att_1") == "ratchet-att-1"
    assert made.metadata.labels["ratchet.dev/attempt"] == "att_1"
    assert (made.spec.backoffLimit, made.spec.template.spec.restartPolicy) == (0, "Never")
    assert made.spec.podFailurePolicy.rules[0].onPodConditions[0].type == "DisruptionTarget"
    assert made.spec.ttlSecondsAfterFinished == 3600


def test_memory_that_is_asked_for_is_a_limit_and_cores_are_a_request() -> None:
    [container] = job(at(cpus=2.5, memory_bytes=8 << 30, gpus=1)).spec.template.spec.containers

    assert container.resources.requests == {"cpu": "2500m", "memory": str(8 << 30)}
    assert container.resources.limits == {"memory": str(8 << 30), "nvidia.com/gpu": "1"}


def test_spot_is_required_preferred_or_avoided() -> None:
    spot = job(at(capacity=Capacity.SPOT)).spec.template.spec
    either = job(at()).spec.template.spec
    steady = job(at(capacity=Capacity.ON_DEMAND)).spec.template.spec
    label = {"cloud.google.com/gke-spot": "true"}

    assert spot.nodeSelector == label
    assert [t.key for t in spot.tolerations] == ["cloud.google.com/gke-spot"]
    assert either.nodeSelector is None
    preferred = either.affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution
    assert preferred[0].preference.matchExpressions[0].key == "cloud.google.com/gke-spot"
    assert (steady.nodeSelector, steady.tolerations) == (None, None)


def test_a_machine_that_is_named_is_the_only_one() -> None:
    node = {"node.kubernetes.io/instance-type": "g5.xlarge"}
    spot = job(at(capacity=Capacity.SPOT, machine="g5.xlarge")).spec.template.spec
    either = job(at(machine="g5.xlarge")).spec.template.spec

    assert spot.nodeSelector == {"cloud.google.com/gke-spot": "true", **node}
    assert either.nodeSelector == node


def test_a_worker_has_no_right_that_it_does_not_need() -> None:
    pod = job(at()).spec.template.spec
    [container] = pod.containers

    assert pod.automountServiceAccountToken is False
    assert pod.securityContext.runAsNonRoot
    assert container.securityContext.readOnlyRootFilesystem
    assert container.securityContext.capabilities.drop == ["ALL"]


def test_kueue_is_asked_when_there_is_a_queue() -> None:
    queued = job(at(), Cluster(image="i", grpc="g", objects="o", queue="team"))

    assert queued.metadata.labels["kueue.x-k8s.io/queue-name"] == "team"
    assert (queued.spec.suspend, job(at()).spec.suspend) == (True, None)


def test_an_image_and_a_deadline_are_the_attempts_own() -> None:
    made = job(at(image="mine:2", deadline_seconds=90.0))

    assert made.spec.activeDeadlineSeconds == 90
    assert made.spec.template.spec.containers[0].image == "mine:2"


def failed(reason: str = "PodFailurePolicy", message: str = "rule 1") -> Job:
    condition = JobCondition(type="Failed", status="True", reason=reason, message=message)
    return Job(status=JobStatus(conditions=[condition]))


def pod(*conditions: tuple[str, str, str], state: ContainerState | None = None, **more: Any) -> Pod:
    age = more.pop("age", 0.0)
    containers = [
        ContainerStatus(
            name="worker", image="i:1", imageID="", ready=False, restartCount=0, state=state
        )
    ]
    return Pod(
        metadata=ObjectMeta(name="pod-1", creationTimestamp=NOW - timedelta(seconds=age)),
        status=PodStatus(
            conditions=[
                PodCondition(type=kind, status=status, reason=reason, message="words")
                for kind, status, reason in conditions
            ],
            containerStatuses=containers,
            **more,
        ),
    )


def ended(code: int, reason: str = "Error", message: str = "") -> ContainerState:
    return ContainerState(
        terminated=ContainerStateTerminated(exitCode=code, reason=reason, message=message)
    )


def waiting(reason: str) -> ContainerState:
    return ContainerState(waiting=ContainerStateWaiting(reason=reason, message="no such tag"))


@pytest.mark.parametrize(
    ("job_", "pods", "state", "because"),
    [
        (
            failed(),
            [pod(("DisruptionTarget", "True", "DeletionByTaintManager"), state=ended(143))],
            AttemptState.PREEMPTED,
            "DeletionByTaintManager: words",
        ),
        (
            failed(),
            [pod(reason="Evicted", message="low on memory")],
            AttemptState.PREEMPTED,
            "Evicted: low on memory",
        ),
        (
            failed(),
            [pod(state=ended(137, "OOMKilled"))],
            AttemptState.OUT_OF_MEMORY,
            "out of memory: raise train.resources.memory",
        ),
        (
            failed(),
            [pod(state=ended(1, message="Traceback\nKeyError: 'x'\n"))],
            AttemptState.LOST,
            "worker ended with code 1: KeyError: 'x'",
        ),
        (failed("DeadlineExceeded"), [], AttemptState.TIMED_OUT, "its deadline passed"),
        (failed(), [], AttemptState.LOST, "PodFailurePolicy: rule 1"),
        (
            Job(),
            [pod(state=waiting("ImagePullBackOff"), age=301.0)],
            AttemptState.FAILED,
            "the image cannot be had: ImagePullBackOff: no such tag",
        ),
        (
            Job(),
            [pod(state=waiting("CreateContainerConfigError"), age=301.0)],
            AttemptState.FAILED,
            "the container does not start",
        ),
    ],
)
def test_ends_are_told_apart(job_: Job, pods: list[Pod], state: AttemptState, because: str) -> None:
    found = outcome_of(job_, pods, NOW)

    assert found is not None
    assert found.state is state
    assert found.because.startswith(because)


def test_what_waits_or_runs_has_no_outcome() -> None:
    assert outcome_of(Job(), [], NOW) is None
    assert outcome_of(Job(), [pod(state=waiting("ImagePullBackOff"), age=9.0)], NOW) is None
    assert outcome_of(Job(), [pod(state=waiting("ContainerCreating"), age=999.0)], NOW) is None


def test_why_a_pod_waits_is_said_in_the_schedulers_words() -> None:
    assert waits_for([pod(("PodScheduled", "False", "Unschedulable"))]) == "Unschedulable: words"
    assert waits_for([pod(("PodScheduled", "True", ""))]) == ""


def test_a_complete_job_is_complete() -> None:
    done = Job(status=JobStatus(conditions=[JobCondition(type="Complete", status="True")]))

    assert is_complete(done)
    assert not is_complete(failed())


def test_the_operators_file_is_read_with_the_presets_of_a_cloud(tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text("cloud: eks\nimage: i\ngrpc: g:1\nobjects: s3://b\nqueue: team\n")

    cluster = load_cluster(file)

    assert cluster.spot == {"eks.amazonaws.com/capacityType": "SPOT"}
    assert (cluster.queue, cluster.namespace) == ("team", "ratchet")


def test_everything_wrong_with_the_operators_file_is_said_at_once(tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text("cloud: moon\nimage: 7\nqueu: team\nspot: yes\n")

    with pytest.raises(Rejected) as caught:
        load_cluster(file)

    said = str(caught.value)
    for part in (
        "cloud: found 'moon', expected one of eks, karpenter, gke",
        "unknown key queu",
        "grpc is missing",
        "objects is missing",
        "image: found 7, expected text",
        "spot: found True, expected labels",
    ):
        assert part in said


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"gpus": 1}, "train.resources.gpus"),
        ({"image": "x"}, "train.image"),
    ],
)
def test_what_only_a_cluster_has_is_refused_elsewhere(asked: dict[str, Any], says: str) -> None:
    with pytest.raises(Rejected, match=f"{says}: expected with train.executor: kubernetes"):
        Place(**asked)


def test_a_place_is_stored_and_read_back() -> None:
    place = at(cpus=2.0, capacity=Capacity.SPOT, deadline_seconds=60.0)

    assert Place.from_json(place.to_json()) == place
    assert Place.from_json({}) == Place()
