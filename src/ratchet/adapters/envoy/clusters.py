"""The engines of a version as Envoy's cluster, and who answers when none is left.

One cluster a version, so that a promotion changes weights and nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from ratchet.adapters.envoy.admission import JWKS_CLUSTER
from ratchet.adapters.envoy.words import (
    ENVOY,
    FALLBACK,
    HTTP_OPTIONS,
    Resource,
    address,
    cluster_name,
    file_source,
)
from ratchet.core.artifact import VersionId
from ratchet.core.routing import Endpoint, GatewaySnapshot

CONNECTIONS_MAX = 8192
FLOW_BYTES = 8 * 1024 * 1024
OUTSIDE = "fallback-server"
# What most Linux systems trust.
SYSTEM_CA = "/etc/ssl/certs/ca-certificates.crt"
# A busy engine may be slow to say that it is well; a dead one refuses connections, which is seen
# at the first request.
HEALTH_SECONDS = 5
HEALTH_TIMEOUT_SECONDS = 4
SLOW_START_SECONDS = 20


def target(version: VersionId, snapshot: GatewaySnapshot) -> str:
    """The cluster that a route names: the engines, or the engines with a fallback behind them."""
    if snapshot.serving.fallback is not None and version == snapshot.baseline:
        return f"{cluster_name(version)}-or-{FALLBACK}"
    return cluster_name(version)


def clusters(
    snapshot: GatewaySnapshot, versions: Sequence[VersionId], folder: Path, door: Path
) -> list[Resource]:
    """Clusters of the snapshot, and of versions that routes may still name.

    `folder` has the files of endpoints; `door` is the socket of what goes to a fallback.
    """
    made = [_engines(version, snapshot, folder) for version in versions]
    fallback = snapshot.serving.fallback
    if fallback is not None and snapshot.arms:
        made += [_engines_or_fallback(snapshot), _door(door), _server(OUTSIDE, fallback.url)]
    if snapshot.serving.oidc is not None:
        made.append(_server(JWKS_CLUSTER, snapshot.serving.oidc.jwks_url))
    return made


def _engines(version: VersionId, snapshot: GatewaySnapshot, folder: Path) -> Resource:
    name = cluster_name(version)
    engines = max(1, len(snapshot.endpoints.get(version, ())))
    room = math.ceil(engines * snapshot.serving.in_flight_per_engine / snapshot.gateways)
    return {
        "@type": f"{ENVOY}config.cluster.v3.Cluster",
        "name": name,
        "type": "EDS",
        "connect_timeout": "1s",
        "lb_policy": "LEAST_REQUEST",
        # A new engine has cold caches.
        "least_request_lb_config": {
            "slow_start_config": {"slow_start_window": f"{SLOW_START_SECONDS}s"}
        },
        "eds_cluster_config": {"eds_config": file_source(folder / f"eds-{name}.json")},
        "per_connection_buffer_limit_bytes": FLOW_BYTES,
        # Who was taken out is out, well or not.
        "ignore_health_on_host_removal": True,
        # Otherwise Envoy sends traffic to dead hosts when half of them are dead.
        "common_lb_config": {
            "healthy_panic_threshold": {"value": 0},
            # Otherwise an engine that became healthy gets nothing for a second.
            "update_merge_window": "0s",
        },
        "health_checks": [
            {
                "interval": f"{HEALTH_SECONDS}s",
                "no_traffic_interval": f"{HEALTH_SECONDS}s",
                "timeout": f"{HEALTH_TIMEOUT_SECONDS}s",
                "unhealthy_threshold": 2,
                "healthy_threshold": 1,
                "http_health_check": {"path": "/health"},
            }
        ],
        # Half of the engines at most: ejecting the only one helps nobody.
        "outlier_detection": {
            "consecutive_5xx": 5,
            "split_external_local_origin_errors": True,
            "consecutive_local_origin_failure": 2,
            "interval": "1s",
            "base_ejection_time": "5s",
            "max_ejection_time": "60s",
            "max_ejection_percent": 50,
        },
        "circuit_breakers": {
            "thresholds": [_room(room, "DEFAULT"), _room(room, "HIGH")],
        },
        "typed_extension_protocol_options": _http1(),
    }


def _room(requests: int, priority: str) -> Resource:
    return {
        "priority": priority,
        "max_connections": CONNECTIONS_MAX,
        "max_pending_requests": CONNECTIONS_MAX,
        "max_requests": requests,
        "retry_budget": {"budget_percent": {"value": 20}, "min_retry_concurrency": 4},
    }


def _http1() -> Resource:
    options = {
        "@type": f"type.googleapis.com/{HTTP_OPTIONS}",
        "explicit_http_config": {"http_protocol_options": {}},
        # Below the engine's own keep-alive, so that no request meets a closing connection.
        "common_http_protocol_options": {"idle_timeout": "4s"},
    }
    return {HTTP_OPTIONS: options}


def _engines_or_fallback(snapshot: GatewaySnapshot) -> Resource:
    return {
        "@type": f"{ENVOY}config.cluster.v3.Cluster",
        "name": target(snapshot.baseline, snapshot),
        "connect_timeout": "1s",
        "lb_policy": "CLUSTER_PROVIDED",
        "cluster_type": {
            "name": "envoy.clusters.aggregate",
            "typed_config": {
                "@type": f"{ENVOY}extensions.clusters.aggregate.v3.ClusterConfig",
                "clusters": [cluster_name(snapshot.baseline), FALLBACK],
            },
        },
    }


def _door(socket: Path) -> Resource:
    """To our own second listener, which gives a request the key of the other server and marks the
    answer: a cluster cannot."""
    pipe = {"pipe": {"path": str(socket)}}
    return {
        "@type": f"{ENVOY}config.cluster.v3.Cluster",
        "name": FALLBACK,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {
            "cluster_name": FALLBACK,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": pipe}}]}],
        },
        "typed_extension_protocol_options": _http1(),
    }


def _server(name: str, url: str) -> Resource:
    """One server out there, over TLS where its url says so."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    endpoint = {"address": address(host, port), "hostname": parts.netloc}
    made: Resource = {
        "@type": f"{ENVOY}config.cluster.v3.Cluster",
        "name": name,
        "type": "STRICT_DNS",
        "connect_timeout": "3s",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": endpoint}]}],
        },
        "typed_extension_protocol_options": _http1(),
    }
    if parts.scheme == "https":
        made["transport_socket"] = {
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": f"{ENVOY}extensions.transport_sockets.tls.v3.UpstreamTlsContext",
                "sni": host,
                "auto_sni_san_validation": True,
                "common_tls_context": {
                    "validation_context": {"trusted_ca": {"filename": SYSTEM_CA}}
                },
            },
        }
    return made


def endpoints(version: VersionId, places: Sequence[Endpoint], region: str) -> Resource:
    """The engines by region: those of the gateway's own first, the others only when it is ill."""
    regions = sorted({place.region for place in places}, key=lambda name: (name != region, name))
    return {
        "@type": f"{ENVOY}config.endpoint.v3.ClusterLoadAssignment",
        "cluster_name": cluster_name(version),
        "endpoints": [
            {
                "locality": {"region": name},
                "priority": priority,
                "lb_endpoints": [
                    {"endpoint": {"address": address(place.host, place.port)}}
                    for place in places
                    if place.region == name
                ],
            }
            for priority, name in enumerate(regions)
        ],
    }
