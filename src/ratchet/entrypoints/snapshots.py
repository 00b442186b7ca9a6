"""A gateway snapshot on the wire between server and agent."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from ratchet.core import serving
from ratchet.core.access import Admission, KeyId
from ratchet.core.artifact import VersionId
from ratchet.core.routing import Arm, Endpoint, GatewaySnapshot


def to_json(snapshot: GatewaySnapshot) -> dict[str, Any]:
    return {
        "revision": snapshot.revision,
        "route_revision": snapshot.route_revision,
        "arms": [{"version": arm.version, "weight": arm.weight} for arm in snapshot.arms],
        "endpoints": {
            version: [asdict(place) for place in places]
            for version, places in snapshot.endpoints.items()
        },
        "fallback": snapshot.fallback,
        "blind_hold_seconds": snapshot.blind_hold_seconds,
        "admission": asdict(snapshot.admission),
        "serving": serving.to_json(snapshot.serving),
        "gateways": snapshot.gateways,
    }


def from_json(value: dict[str, Any]) -> GatewaySnapshot:
    return GatewaySnapshot(
        revision=value["revision"],
        route_revision=value["route_revision"],
        arms=tuple(Arm(VersionId(arm["version"]), arm["weight"]) for arm in value["arms"]),
        endpoints={
            VersionId(version): tuple(Endpoint(**place) for place in places)
            for version, places in value["endpoints"].items()
        },
        fallback=None if value["fallback"] is None else VersionId(value["fallback"]),
        blind_hold_seconds=value["blind_hold_seconds"],
        admission=_admission(value["admission"]),
        serving=serving.from_json(value["serving"]),
        gateways=value["gateways"],
    )


def _admission(value: dict[str, Any]) -> Admission:
    return Admission(
        is_open=value["is_open"],
        project=value["project"],
        served_name=value["served_name"],
        jwks=tuple(value["jwks"]),
        revoked=tuple(KeyId(key) for key in value["revoked"]),
        exhausted=tuple(KeyId(key) for key in value.get("exhausted", ())),
    )
