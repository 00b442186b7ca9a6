"""What became of a Job, read from the Job and its Pod."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from lightkube.resources.batch_v1 import Job
from lightkube.resources.core_v1 import Pod

from ratchet.core.run import AttemptState

# An image that cannot be had for so long will not be had: a name is wrong, or a permission.
IMAGE_SECONDS_MAX = 300.0
NO_IMAGE = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull")
NOT_STARTED = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError")
OOM = "OOMKilled"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an attempt ended, as far as the cluster knows."""

    state: AttemptState
    because: str


def outcome_of(job: Job, pods: Sequence[Pod], now: datetime) -> Outcome | None:
    """None while there is nothing to say: it waits, runs, or has told the control plane itself."""
    stuck = [found for pod in pods if (found := _stuck(pod, now)) is not None]
    if stuck:
        return stuck[0]
    failed = _condition(job, "Failed")
    if failed is None:
        return None
    if failed.reason == "DeadlineExceeded":
        return Outcome(AttemptState.TIMED_OUT, "its deadline passed")
    for pod in pods:
        if (found := _ended(pod)) is not None:
            return found
    return Outcome(AttemptState.LOST, f"{failed.reason}: {failed.message or 'no Pod is left'}")


def is_complete(job: Job) -> bool:
    return _condition(job, "Complete") is not None


def waits_for(pods: Sequence[Pod]) -> str:
    """Why a Pod does not run yet, in the scheduler's words; empty when it runs."""
    for pod in pods:
        for condition in _conditions(pod):
            if condition.type == "PodScheduled" and condition.status == "False":
                return f"{condition.reason}: {condition.message}"
    return ""


def _condition(job: Job, kind: str) -> Any:
    conditions = (job.status.conditions if job.status else None) or []
    return next((c for c in conditions if c.type == kind and c.status == "True"), None)


def _conditions(pod: Pod) -> Sequence[Any]:
    return (pod.status.conditions if pod.status else None) or []


def _containers(pod: Pod) -> Sequence[Any]:
    return (pod.status.containerStatuses if pod.status else None) or []


def _stuck(pod: Pod, now: datetime) -> Outcome | None:
    """A Pod that would wait for ever."""
    born = pod.metadata.creationTimestamp if pod.metadata else None
    for container in _containers(pod):
        waiting = container.state.waiting if container.state else None
        if waiting is None:
            continue
        said = f"{waiting.reason}: {waiting.message or container.image}"
        age = (now - born).total_seconds() if born is not None else 0.0
        if waiting.reason in NO_IMAGE and age > IMAGE_SECONDS_MAX:
            return Outcome(AttemptState.FAILED, f"the image cannot be had: {said}")
        if waiting.reason in NOT_STARTED and age > IMAGE_SECONDS_MAX:
            return Outcome(AttemptState.FAILED, f"the container does not start: {said}")
    return None


def _ended(pod: Pod) -> Outcome | None:
    name = pod.metadata.name if pod.metadata else "the Pod"
    for condition in _conditions(pod):
        if condition.type == "DisruptionTarget" and condition.status == "True":
            return Outcome(
                AttemptState.PREEMPTED, f"{condition.reason}: {condition.message or name}"
            )
    if pod.status is not None and pod.status.reason in ("Evicted", "Preempting", "Shutdown"):
        return Outcome(AttemptState.PREEMPTED, f"{pod.status.reason}: {pod.status.message or name}")
    for container in _containers(pod):
        ended = container.state.terminated if container.state else None
        if ended is None:
            continue
        if ended.reason == OOM:
            return Outcome(
                AttemptState.OUT_OF_MEMORY,
                "out of memory: raise train.resources.memory, or lower train.batch_size or "
                "train.max_length",
            )
        last = (ended.message or "").strip().splitlines()
        said = f": {last[-1]}" if last else ""
        return Outcome(AttemptState.LOST, f"worker ended with code {ended.exitCode}{said}")
    return None
