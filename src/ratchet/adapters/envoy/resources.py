"""A gateway snapshot as Envoy resources: plain JSON, no protobuf, any Envoy version's validator.

The listener is static for the life of the process, because a listener update cuts streams.
Everything that changes is a route, a cluster or an endpoint, each in a file that is replaced by a
rename.  One cluster a version, so that a promotion changes weights and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ratchet.adapters.envoy import admission, usage
from ratchet.core.access import Scope
from ratchet.core.artifact import VersionId
from ratchet.core.routing import Endpoint, GatewaySnapshot

Resource = dict[str, Any]
TYPE = "type.googleapis.com/"
_FILTERS = f"{TYPE}envoy.extensions.filters"
_HCM = f"{_FILTERS}.network.http_connection_manager.v3.HttpConnectionManager"
_ROUTER = f"{_FILTERS}.http.router.v3.Router"
_ALS = f"{TYPE}envoy.extensions.access_loggers.grpc.v3.HttpGrpcAccessLogConfig"
_HTTP = f"{TYPE}envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_CONNECTIONS = (
    f"{TYPE}envoy.extensions.resource_monitors.downstream_connections.v3."
    "DownstreamConnectionsConfig"
)

CONVERSATION_HEADER = "x-ratchet-conversation"
VERSION_HEADER = "x-ratchet-version"
ROUTE_PREFIX = "arms-r"
# All that reaches an engine, letter by letter.  An engine may decode what Envoy compared as it was
# sent ("completion%73"), so what is not here must not pass: it would be neither permitted nor seen.
PATHS = {
    "/v1/chat/completions": Scope.ANSWERS,
    "/v1/completions": Scope.ANSWERS,
    "/v1/models": Scope.MODELS,
}
# A stream holds a slot for as long as it runs; Envoy's default of 1,024 is for short requests.
REQUESTS_MAX = 8192
CONNECTIONS_MAX = 20_000
BODY_BYTES_MAX = 8 * 1024 * 1024
# Longer silence than a model ever keeps between two tokens.
IDLE_SECONDS = 300
# Evidence must reach the judge fast; a batch this small costs microseconds a request.
RECORDS_FLUSH_SECONDS = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayPlaces:
    """Where a gateway listens and where its files are."""

    host: str
    port: int
    admin_socket: Path
    folder: Path
    telemetry_host: str
    telemetry_port: int


def bootstrap(places: GatewayPlaces) -> Resource:
    """What Envoy is started with and never told again."""
    return {
        "node": {"id": f"gateway-{places.port}", "cluster": "ratchet"},
        "admin": {"address": {"pipe": {"path": str(places.admin_socket), "mode": 0o600}}},
        "static_resources": {
            "listeners": [_listener(places)],
            "clusters": [_telemetry(places)],
        },
        "dynamic_resources": {"cds_config": _file(places.folder / "cds.json")},
        "overload_manager": {
            "resource_monitors": [
                {
                    "name": "envoy.resource_monitors.global_downstream_max_connections",
                    "typed_config": {
                        "@type": _CONNECTIONS,
                        "max_active_downstream_connections": CONNECTIONS_MAX,
                    },
                }
            ]
        },
    }


def _file(path: Path) -> Resource:
    return {"resource_api_version": "V3", "path_config_source": {"path": str(path)}}


def _address(host: str, port: int) -> Resource:
    return {"socket_address": {"address": host, "port_value": port}}


def _listener(places: GatewayPlaces) -> Resource:
    manager = {
        "@type": _HCM,
        "stat_prefix": "gateway",
        "use_remote_address": True,
        "generate_request_id": True,
        "always_set_request_id_in_response": True,
        "early_header_mutation_extensions": admission.strip_claims(),
        "common_http_protocol_options": {"idle_timeout": "900s"},
        "stream_idle_timeout": f"{IDLE_SECONDS}s",
        "request_timeout": "0s",
        "drain_timeout": "5s",
        "delayed_close_timeout": "1s",
        "rds": {
            "route_config_name": "main",
            "config_source": _file(places.folder / "rds.json"),
        },
        "local_reply_config": _local_replies(),
        "access_log": [
            {
                "name": "records",
                "filter": {
                    "header_filter": {
                        "header": {"name": ":path", "string_match": {"prefix": "/v1/"}}
                    }
                },
                "typed_config": _records(),
            }
        ],
        "http_filters": [
            *admission.filters(
                {name: _file(places.folder / f"{name}.json") for name in admission.DISCOVERED}
            ),
            *usage.filters(),
            {"name": "envoy.filters.http.router", "typed_config": {"@type": _ROUTER}},
        ],
    }
    return {
        "name": "main",
        "address": _address(places.host, places.port),
        "per_connection_buffer_limit_bytes": BODY_BYTES_MAX,
        "filter_chains": [
            {
                "filters": [
                    {
                        "name": "envoy.filters.network.http_connection_manager",
                        "typed_config": manager,
                    }
                ]
            }
        ],
    }


def _records() -> Resource:
    return {
        "@type": _ALS,
        "common_config": {
            "log_name": "ratchet",
            "transport_api_version": "V3",
            "grpc_service": {"envoy_grpc": {"cluster_name": "telemetry"}},
            "buffer_flush_interval": f"{RECORDS_FLUSH_SECONDS}s",
            "buffer_size_bytes": 16384,
        },
        "additional_request_headers_to_log": [CONVERSATION_HEADER, admission.KEY_HEADER],
        "additional_response_headers_to_log": [VERSION_HEADER],
    }


def _local_replies() -> Resource:
    """What Envoy answers by itself, in the forms that clients know."""
    health = {
        "filter": {
            "header_filter": {"header": {"name": ":path", "string_match": {"exact": "/health"}}}
        },
        "body_format_override": {
            "text_format_source": {
                "inline_string": '{"status": "ok", "timestamp": %START_TIME(%s)%}\n'
            },
            "content_type": "application/json",
        },
    }
    return {
        "mappers": [health, *admission.refusals()],
        "body_format": {
            "json_format": {
                "error": {
                    "message": "%LOCAL_REPLY_BODY%",
                    "type": "server_error",
                    "param": None,
                    "code": "%RESPONSE_CODE_DETAILS%",
                }
            }
        },
    }


def _telemetry(places: GatewayPlaces) -> Resource:
    return {
        "name": "telemetry",
        "type": "STATIC",
        "connect_timeout": "1s",
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": _HTTP,
                "explicit_http_config": {
                    "http2_protocol_options": {
                        "connection_keepalive": {"interval": "5s", "timeout": "2s"}
                    }
                },
            }
        },
        "load_assignment": {
            "cluster_name": "telemetry",
            "endpoints": [
                {
                    "lb_endpoints": [
                        {
                            "endpoint": {
                                "address": _address(places.telemetry_host, places.telemetry_port)
                            }
                        }
                    ]
                }
            ],
        },
    }


def routes(snapshot: GatewaySnapshot | None) -> Resource:
    """The route table; without a snapshot, one that says that nothing is served yet."""
    served = [_nothing_served()]
    if snapshot is not None:
        served = [_arms(snapshot, path, scope) for path, scope in PATHS.items()]
    health = {
        "name": "health",
        "match": {"path": "/health"},
        "direct_response": {"status": 200, "body": {"inline_string": "ok"}},
    }
    unknown = {
        "name": "unknown",
        "match": {"prefix": "/"},
        "direct_response": {
            "status": 404,
            "body": {"inline_string": f"no such path; there are {', '.join(PATHS)} and /health"},
        },
    }
    return {
        "@type": f"{TYPE}envoy.config.route.v3.RouteConfiguration",
        "name": "main",
        # Without this a route to a cluster that is not there is accepted and answers 503.
        "validate_clusters": True,
        "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [health, *served, unknown]}],
    }


def _nothing_served() -> Resource:
    return {
        "name": "nothing-served",
        "match": {"prefix": "/v1/"},
        "direct_response": {
            "status": 503,
            "body": {"inline_string": "no model is served yet: start a run, or `ratchet up` "
                     "in a folder with a ratchet.yaml"},
        },
    }  # fmt: skip


def _arms(snapshot: GatewaySnapshot, path: str, scope: Scope) -> Resource:
    return {
        # The access record carries this name, and so the weights under which it was routed.
        "name": f"{ROUTE_PREFIX}{snapshot.route_revision}",
        "match": {"path": path},
        "typed_per_filter_config": admission.on_route(snapshot.admission, scope),
        "route": {
            "timeout": "0s",
            "idle_timeout": f"{IDLE_SECONDS}s",
            "weighted_clusters": {
                "clusters": [
                    {
                        "name": cluster_name(arm.version),
                        "weight": arm.weight,
                        "response_headers_to_add": [
                            {"header": {"key": VERSION_HEADER, "value": arm.version}}
                        ],
                    }
                    for arm in snapshot.arms
                ],
                "use_hash_policy": True,
            },
            "hash_policy": [{"header": {"header_name": CONVERSATION_HEADER}, "terminal": True}],
            "retry_policy": {
                # Only where the engine cannot have begun, and always inside the arm: Envoy chose
                # the cluster before the first attempt.
                "retry_on": "connect-failure,refused-stream,reset-before-request",
                "num_retries": 2,
                "retry_back_off": {"base_interval": "0.025s", "max_interval": "0.25s"},
            },
        },
    }


def cluster_name(version: VersionId) -> str:
    return f"engine-{version}"


def version_of_cluster(name: str) -> VersionId | None:
    return VersionId(name.removeprefix("engine-")) if name.startswith("engine-") else None


def cluster(version: VersionId, folder: Path) -> Resource:
    name = cluster_name(version)
    return {
        "@type": f"{TYPE}envoy.config.cluster.v3.Cluster",
        "name": name,
        "type": "EDS",
        "connect_timeout": "1s",
        "lb_policy": "LEAST_REQUEST",
        "eds_cluster_config": {"eds_config": _file(folder / f"eds-{name}.json")},
        "per_connection_buffer_limit_bytes": BODY_BYTES_MAX,
        # Otherwise Envoy sends traffic to dead hosts when half of them are dead.
        "common_lb_config": {"healthy_panic_threshold": {"value": 0}},
        "circuit_breakers": {
            "thresholds": [
                {
                    "max_connections": REQUESTS_MAX,
                    "max_pending_requests": REQUESTS_MAX,
                    "max_requests": REQUESTS_MAX,
                    "retry_budget": {"budget_percent": {"value": 20}, "min_retry_concurrency": 4},
                }
            ]
        },
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": _HTTP,
                "explicit_http_config": {"http_protocol_options": {}},
                # Below the engine's own keep-alive, so that no request meets a closing connection.
                "common_http_protocol_options": {"idle_timeout": "4s"},
            }
        },
    }


def endpoints(version: VersionId, places: Sequence[Endpoint]) -> Resource:
    return {
        "@type": f"{TYPE}envoy.config.endpoint.v3.ClusterLoadAssignment",
        "cluster_name": cluster_name(version),
        "endpoints": [
            {
                "lb_endpoints": [
                    {"endpoint": {"address": _address(place.host, place.port)}} for place in places
                ]
            }
        ],
    }
