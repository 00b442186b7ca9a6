"""The Job of one attempt: a value, made of the attempt and of what the cluster's operator said.

One Pod, once: what comes after its end is decided by the control plane, which knows whether the
attempt got further, and asks for the next one under another name.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from lightkube.models.batch_v1 import (
    JobSpec,
    PodFailurePolicy,
    PodFailurePolicyOnExitCodesRequirement,
    PodFailurePolicyOnPodConditionsPattern,
    PodFailurePolicyRule,
)
from lightkube.models.core_v1 import (
    Affinity,
    Capabilities,
    Container,
    EmptyDirVolumeSource,
    EnvFromSource,
    NodeAffinity,
    NodeSelectorRequirement,
    NodeSelectorTerm,
    PersistentVolumeClaimVolumeSource,
    PodSecurityContext,
    PodSpec,
    PodTemplateSpec,
    PreferredSchedulingTerm,
    ResourceRequirements,
    SeccompProfile,
    SecretEnvSource,
    SecretVolumeSource,
    SecurityContext,
    Toleration,
    Volume,
    VolumeMount,
)
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.batch_v1 import Job

from ratchet.core.place import Capacity, Place

WORKER = "worker"
ATTEMPT_LABEL = "ratchet.dev/attempt"
MANAGED = {"app.kubernetes.io/managed-by": "ratchet", "app.kubernetes.io/component": "worker"}
# After its end a Job stays so long, for who wants to look at it; we have read it long before.
KEPT_SECONDS = 3600
# Clouds give 30 to 120 seconds before they take a spot machine.
STOP_SECONDS = 60
GPU = "nvidia.com/gpu"
# What clouds label their nodes with, EKS and GKE among them.
INSTANCE_TYPE = "node.kubernetes.io/instance-type"
SECRETS = "/var/run/ratchet"
WORK = "/work"
CACHE = "/cache"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """What the operator says of a cluster; see docs/howto/kubernetes.md."""

    image: str
    grpc: str
    """Address of the control plane's gRPC, as Pods reach it."""
    objects: str
    """URL of the object store."""
    namespace: str = "ratchet"
    token_secret: str = "ratchet-worker"
    """A Secret whose key `token` is the control plane's."""
    env_secret: str = ""
    """A Secret with variables of the object store: AWS_ACCESS_KEY_ID, ..."""
    service_account: str = "ratchet-worker"
    checkpoints_claim: str = ""
    """A PersistentVolumeClaim; without one, checkpoints go to the object store."""
    cache_claim: str = ""
    """A PersistentVolumeClaim for base models; without one every Pod fetches its own."""
    priority_class: str = ""
    queue: str = ""
    """A LocalQueue of Kueue, which then starts the Job."""
    spot: dict[str, str] = field(default_factory=dict)
    """Labels of machines that may be taken away."""
    on_demand: dict[str, str] = field(default_factory=dict)
    """Labels of machines that are not."""
    spot_tolerations: tuple[dict[str, str], ...] = ()


# How the clouds label their machines.
PRESETS: dict[str, dict[str, Any]] = {
    "eks": {
        "spot": {"eks.amazonaws.com/capacityType": "SPOT"},
        "on_demand": {"eks.amazonaws.com/capacityType": "ON_DEMAND"},
    },
    "karpenter": {
        "spot": {"karpenter.sh/capacity-type": "spot"},
        "on_demand": {"karpenter.sh/capacity-type": "on-demand"},
    },
    "gke": {
        "spot": {"cloud.google.com/gke-spot": "true"},
        # Google labels spot machines only.
        "on_demand": {},
        "spot_tolerations": (
            {"key": "cloud.google.com/gke-spot", "value": "true", "effect": "NoSchedule"},
        ),
    },
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    id: str
    run: str
    stage: str
    place: Place


def job_name(attempt: str) -> str:
    """By the attempt: asked for twice, it is one Job."""
    return f"ratchet-{attempt.replace('_', '-')}"


def job_of(attempt: Attempt, cluster: Cluster) -> Job:
    """All that is sent to the API server for an attempt."""
    labels = {
        **MANAGED,
        ATTEMPT_LABEL: attempt.id,
        "ratchet.dev/run": attempt.run,
        "ratchet.dev/stage": attempt.stage,
    }
    queue = {"kueue.x-k8s.io/queue-name": cluster.queue} if cluster.queue else {}
    deadline = attempt.place.deadline_seconds
    return Job(
        metadata=ObjectMeta(
            name=job_name(attempt.id),
            namespace=cluster.namespace,
            labels={**labels, **queue},
        ),
        spec=JobSpec(
            backoffLimit=0,
            completions=1,
            parallelism=1,
            activeDeadlineSeconds=round(deadline) if deadline else None,
            ttlSecondsAfterFinished=KEPT_SECONDS,
            # Kueue takes the Job when there is room for it.
            suspend=True if cluster.queue else None,
            podFailurePolicy=_failure_policy(),
            template=PodTemplateSpec(
                metadata=ObjectMeta(labels=labels), spec=_pod(attempt, cluster)
            ),
        ),
    )


def _failure_policy() -> PodFailurePolicy:
    """A Pod that was taken away and a program that failed are told apart in the Job's condition."""
    return PodFailurePolicy(
        rules=[
            PodFailurePolicyRule(
                action="FailJob",
                onPodConditions=[
                    PodFailurePolicyOnPodConditionsPattern(type="DisruptionTarget", status="True")
                ],
            ),
            PodFailurePolicyRule(
                action="FailJob",
                onExitCodes=PodFailurePolicyOnExitCodesRequirement(
                    containerName=WORKER, operator="NotIn", values=[0]
                ),
            ),
        ]
    )


def _pod(attempt: Attempt, cluster: Cluster) -> PodSpec:
    place = attempt.place
    return PodSpec(
        restartPolicy="Never",
        serviceAccountName=cluster.service_account,
        # A worker talks to the control plane and the store, never to the cluster.
        automountServiceAccountToken=False,
        enableServiceLinks=False,
        terminationGracePeriodSeconds=STOP_SECONDS,
        priorityClassName=cluster.priority_class or None,
        securityContext=PodSecurityContext(
            runAsNonRoot=True,
            runAsUser=10001,
            runAsGroup=10001,
            fsGroup=10001,
            fsGroupChangePolicy="OnRootMismatch",
            seccompProfile=SeccompProfile(type="RuntimeDefault"),
        ),
        nodeSelector=_required_nodes(place, cluster) or None,
        affinity=_preferred_nodes(place.capacity, cluster),
        tolerations=_tolerations(place, cluster) or None,
        containers=[_container(attempt, cluster)],
        volumes=_volumes(cluster),
    )


def _container(attempt: Attempt, cluster: Cluster) -> Container:
    place = attempt.place
    return Container(
        name=WORKER,
        image=place.image or cluster.image,
        # No shell between the signal and the worker.
        command=["python", "-m", "ratchet.train.main"],
        args=[
            "--attempt", attempt.id,
            "--server", cluster.grpc,
            "--token-file", f"{SECRETS}/token",
            "--objects", cluster.objects,
            "--work", WORK,
            "--cache", CACHE,
            "--checkpoints", "folder" if cluster.checkpoints_claim else "store",
        ],
        envFrom=[EnvFromSource(secretRef=SecretEnvSource(name=cluster.env_secret))]
        if cluster.env_secret
        else None,
        resources=_resources(place),
        securityContext=SecurityContext(
            allowPrivilegeEscalation=False,
            readOnlyRootFilesystem=True,
            capabilities=Capabilities(drop=["ALL"]),
        ),
        volumeMounts=[
            VolumeMount(name="token", mountPath=SECRETS, readOnly=True),
            VolumeMount(name="work", mountPath=WORK),
            VolumeMount(name="cache", mountPath=CACHE),
            VolumeMount(name="tmp", mountPath="/tmp"),
        ],
        # The end of the log is what a person sees first.
        terminationMessagePolicy="FallbackToLogsOnError",
    )  # fmt: skip


def _resources(place: Place) -> ResourceRequirements:
    """Memory asked for is memory had: a worker that outgrows it is ended, and nobody else."""
    requests: dict[str, str] = {}
    limits: dict[str, str] = {}
    if place.cpus:
        requests["cpu"] = f"{round(place.cpus * 1000)}m"
    if place.memory_bytes:
        requests["memory"] = limits["memory"] = str(place.memory_bytes)
    if place.gpus:
        limits[GPU] = str(place.gpus)
    return ResourceRequirements(requests=requests or None, limits=limits or None)


def _volumes(cluster: Cluster) -> list[Volume]:
    def kept(name: str, claim: str) -> Volume:
        if claim:
            source = PersistentVolumeClaimVolumeSource(claimName=claim)
            return Volume(name=name, persistentVolumeClaim=source)
        return Volume(name=name, emptyDir=EmptyDirVolumeSource())

    secret = SecretVolumeSource(secretName=cluster.token_secret, defaultMode=0o440)
    return [
        Volume(name="token", secret=secret),
        kept("work", cluster.checkpoints_claim),
        kept("cache", cluster.cache_claim),
        kept("tmp", ""),
    ]


def _required_nodes(place: Place, cluster: Cluster) -> dict[str, str]:
    kind = {
        Capacity.SPOT: cluster.spot,
        Capacity.ON_DEMAND: cluster.on_demand,
        Capacity.ANY: {},
    }[place.capacity]
    return {**kind, INSTANCE_TYPE: place.machine} if place.machine else kind


def _preferred_nodes(capacity: Capacity, cluster: Cluster) -> Affinity | None:
    """Either will do: the cheap ones first."""
    if capacity is not Capacity.ANY or not cluster.spot:
        return None
    wanted = [
        NodeSelectorRequirement(key=key, operator="In", values=[value])
        for key, value in cluster.spot.items()
    ]
    term = PreferredSchedulingTerm(weight=100, preference=NodeSelectorTerm(matchExpressions=wanted))
    return Affinity(
        nodeAffinity=NodeAffinity(preferredDuringSchedulingIgnoredDuringExecution=[term])
    )


def _tolerations(place: Place, cluster: Cluster) -> list[Toleration]:
    found = []
    if place.gpus:
        found.append(Toleration(key=GPU, operator="Exists", effect="NoSchedule"))
    if place.capacity is not Capacity.ON_DEMAND:
        found += [
            Toleration(
                operator="Equal" if "value" in each else "Exists",
                key=each.get("key"),
                value=each.get("value"),
                effect=each.get("effect"),
            )
            for each in cluster.spot_tolerations
        ]
    return found
