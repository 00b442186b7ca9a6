"""What the gateway must do, as one value: arms with weights, and where their engines are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from ratchet.core.access import Admission
from ratchet.core.artifact import VersionId
from ratchet.core.errors import Rejected
from ratchet.core.serving import Serving

# Weights are hundredths of a per cent, so that 0.5 % can be said.
WEIGHT_TOTAL = 10_000


@dataclass(frozen=True, slots=True)
class Arm:
    """One version and the share of conversations that it serves."""

    version: VersionId
    weight: int

    def __post_init__(self) -> None:
        if not 0 <= self.weight <= WEIGHT_TOTAL:
            raise Rejected(f"weight {self.weight} is outside 0 to {WEIGHT_TOTAL}")


def arms_for(candidate: VersionId, baseline: VersionId, weight: int) -> tuple[Arm, ...]:
    """Candidate first, always: then raising its weight never moves a conversation back.

    Envoy gives a conversation the arm in whose interval its hash falls; the candidate's interval
    starts at zero and only grows.
    """
    if weight == 0 or candidate == baseline:
        return (Arm(baseline, WEIGHT_TOTAL),)
    if weight == WEIGHT_TOTAL:
        return (Arm(candidate, WEIGHT_TOTAL),)
    return (Arm(candidate, weight), Arm(baseline, WEIGHT_TOTAL - weight))


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where one engine listens, and in which region."""

    host: str
    port: int
    region: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewaySnapshot:
    """Everything a gateway needs to serve, complete in itself."""

    revision: int
    """Grows with every change of anything below."""
    route_revision: int
    """Grows with every change of weights; access records carry it."""
    arms: tuple[Arm, ...]
    endpoints: Mapping[VersionId, Sequence[Endpoint]]
    fallback: VersionId | None
    """What gets all traffic when the control plane stays away in the middle of a canary."""
    blind_hold_seconds: float
    admission: Admission
    serving: Serving = field(default_factory=Serving)
    gateways: int = 1
    """How many gateways share what is limited."""

    @property
    def baseline(self) -> VersionId:
        """What everybody gets who takes part in nothing: the arm that a canary is compared with."""
        return self.fallback or self.arms[-1].version

    def __post_init__(self) -> None:
        if self.arms and sum(arm.weight for arm in self.arms) != WEIGHT_TOTAL:
            raise Rejected(f"weights of {self.arms} do not sum to {WEIGHT_TOTAL}")


# Of routes that no control plane decided: their records belong to no weight that was asked for.
UNDECIDED = 0


def without_canary(snapshot: GatewaySnapshot) -> GatewaySnapshot:
    """The same gateway with all traffic on the fallback."""
    if snapshot.fallback is None:
        return snapshot
    alone = (Arm(snapshot.fallback, WEIGHT_TOTAL),)
    return replace(snapshot, arms=alone, route_revision=UNDECIDED)
