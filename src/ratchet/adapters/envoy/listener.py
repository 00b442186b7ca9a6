"""What Envoy is started with and never told again.

The listener is static for the life of the process, because a listener update cuts streams.
Everything that changes is a route, a cluster, an endpoint or a discovered filter, each in a file
that is replaced by a rename.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from ratchet.adapters.envoy import (
    admission,
    beside,
    conversation,
    discovered,
    records,
    usage,
)
from ratchet.adapters.envoy.replies import local_replies
from ratchet.adapters.envoy.words import (
    ENVOY,
    FALLBACK,
    HTTP_FILTERS,
    HTTP_OPTIONS,
    Resource,
    address,
    beside_socket,
    door_socket,
    file_source,
)
from ratchet.core.errors import Rejected
from ratchet.core.serving import BODY_BYTES_LIMIT, MEBIBYTE

_HCM = f"{ENVOY}extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
_TLS = f"{ENVOY}extensions.transport_sockets.tls.v3."
_CONNECTIONS = (
    f"{ENVOY}extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig"
)
_MATCH = f"{ENVOY}extensions.common.matching.v3.ExtensionWithMatcher"
_SKIP = f"{ENVOY}extensions.filters.common.matcher.action.v3.SkipFilter"
_HEADER_INPUT = f"{ENVOY}type.matcher.v3.HttpRequestHeaderMatchInput"
_BUFFER = f"{HTTP_FILTERS}buffer.v3.Buffer"

UNMEASURED = "unmeasured"
COLLECTOR = "traces"
CONNECTIONS_MAX = 20_000
# A reader that is slow makes its engine wait above this; not a limit of what may pass.
FLOW_BYTES = 8 * MEBIBYTE


@dataclass(frozen=True, slots=True)
class Tls:
    """Certificates in files that are watched: replaced by a rename, they are taken over."""

    certificate: Path
    key: Path
    client_ca: Path | None = None
    """Set: clients must show a certificate of this authority."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayPlaces:
    """Where a gateway listens and where its files are."""

    host: str
    port: int
    admin_socket: Path
    folder: Path
    tls: Tls | None = None
    metrics_port: int = 0
    """Where Prometheus finds Envoy's own numbers, on loopback; 0 for nowhere."""
    otlp: tuple[str, int] | None = None
    """Host and port of a collector of OpenTelemetry traces (OTLP over gRPC)."""


def bootstrap(places: GatewayPlaces) -> Resource:
    return {
        "node": {"id": f"gateway-{places.port}", "cluster": "ratchet"},
        "admin": {"address": {"pipe": {"path": str(places.admin_socket), "mode": 0o600}}},
        "static_resources": {
            "listeners": [
                _listener(places),
                _door(places),
                *([_metrics(places)] if places.metrics_port else []),
            ],
            "clusters": [
                beside.cluster(beside_socket(places.admin_socket)),
                *([_pipe("admin", places.admin_socket)] if places.metrics_port else []),
                *([_collector(*places.otlp)] if places.otlp else []),
            ],
        },
        "dynamic_resources": {"cds_config": file_source(places.folder / "cds.json")},
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


def _listener(places: GatewayPlaces) -> Resource:
    chain: Resource = {
        "filters": [
            {
                "name": "envoy.filters.network.http_connection_manager",
                "typed_config": _manager(places),
            }
        ]
    }
    if places.tls is not None:
        chain["transport_socket"] = _transport(places, places.tls)
    return {
        "name": "main",
        "address": address(places.host, places.port),
        "per_connection_buffer_limit_bytes": FLOW_BYTES,
        "filter_chains": [chain],
    }


def _manager(places: GatewayPlaces) -> Resource:
    manager = _main_manager(places)
    if places.otlp is not None:
        # Goes on with the client's trace and hands it to the engine (`traceparent`).
        manager["tracing"] = {
            "spawn_upstream_span": True,
            "provider": {
                "name": "envoy.tracers.opentelemetry",
                "typed_config": {
                    "@type": f"{ENVOY}config.trace.v3.OpenTelemetryConfig",
                    "grpc_service": {"envoy_grpc": {"cluster_name": COLLECTOR}, "timeout": "1s"},
                    "service_name": "ratchet-gateway",
                },
            },
        }
    return manager


def _main_manager(places: GatewayPlaces) -> Resource:
    return {
        "@type": _HCM,
        "stat_prefix": "gateway",
        "use_remote_address": True,
        "generate_request_id": True,
        "always_set_request_id_in_response": True,
        "early_header_mutation_extensions": admission.strip_claims(),
        "common_http_protocol_options": {"idle_timeout": "900s"},
        "http2_protocol_options": {"max_concurrent_streams": 1000},
        # The routes have their own.
        "stream_idle_timeout": "0s",
        "request_headers_timeout": "30s",
        "request_timeout": "0s",
        "drain_timeout": "5s",
        "delayed_close_timeout": "1s",
        "rds": {
            "route_config_name": "main",
            "config_source": file_source(places.folder / "rds.json"),
        },
        "local_reply_config": local_replies(),
        "access_log": [records.logger(records_file(places.folder))],
        "http_filters": [
            *discovered.filters(places.folder, admission.BEFORE),
            admission.permitted_filter(),
            *discovered.filters(places.folder, ("limits",)),
            _unmeasured(),
            *conversation.filters(),
            *beside.filters(),
            *usage.filters(),
            {
                "name": "envoy.filters.http.router",
                "typed_config": {
                    "@type": f"{HTTP_FILTERS}router.v3.Router",
                    "upstream_log": [records.assignments(records_file(places.folder))],
                    "upstream_log_options": {"flush_upstream_log_on_upstream_stream": True},
                },
            },
        ],
    }


def _metrics(places: GatewayPlaces) -> Resource:
    """Envoy's own numbers for Prometheus, and nothing else of its admin interface."""
    route = {
        "match": {"path": "/metrics"},
        "route": {"cluster": "admin", "prefix_rewrite": "/stats/prometheus"},
    }
    manager = {
        "@type": _HCM,
        "stat_prefix": "metrics",
        "route_config": {
            "name": "metrics",
            "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}],
        },
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{HTTP_FILTERS}router.v3.Router"},
            }
        ],
    }
    name = "envoy.filters.network.http_connection_manager"
    return {
        "name": "metrics",
        "address": address("127.0.0.1", places.metrics_port),
        "filter_chains": [{"filters": [{"name": name, "typed_config": manager}]}],
    }


def _pipe(name: str, socket: Path) -> Resource:
    endpoint = {"address": {"pipe": {"path": str(socket)}}}
    return {
        "name": name,
        "type": "STATIC",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": endpoint}]}],
        },
    }


def _collector(host: str, port: int) -> Resource:
    endpoint = {"address": address(host, port)}
    return {
        "name": COLLECTOR,
        "type": "STRICT_DNS",
        "connect_timeout": "1s",
        "typed_extension_protocol_options": {
            HTTP_OPTIONS: {
                "@type": f"type.googleapis.com/{HTTP_OPTIONS}",
                "explicit_http_config": {"http2_protocol_options": {}},
            }
        },
        "load_assignment": {
            "cluster_name": COLLECTOR,
            "endpoints": [{"lb_endpoints": [{"endpoint": endpoint}]}],
        },
    }


def _door(places: GatewayPlaces) -> Resource:
    """Where requests for the fallback pass through on their way out."""
    manager = {
        "@type": _HCM,
        "stat_prefix": FALLBACK,
        "stream_idle_timeout": "0s",
        "delayed_close_timeout": "1s",
        # It is the first listener's request still, with its id and its trace.
        "generate_request_id": False,
        "rds": {
            "route_config_name": FALLBACK,
            "config_source": file_source(places.folder / f"{FALLBACK}.json"),
        },
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{HTTP_FILTERS}router.v3.Router"},
            },
        ],
    }
    return {
        "name": FALLBACK,
        "address": {"pipe": {"path": str(door_socket(places.admin_socket)), "mode": 0o600}},
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


def _unmeasured() -> Resource:
    """Holds back a body that does not say its length until it is known to be short enough.

    All others pass without being held: their length is compared before they come.
    """
    told = {
        "single_predicate": {
            "input": {
                "name": "length",
                "typed_config": {"@type": _HEADER_INPUT, "header_name": "content-length"},
            },
            "value_match": {"safe_regex": {"google_re2": {}, "regex": "[0-9]+"}},
        }
    }
    skip = {"action": {"name": "skip", "typed_config": {"@type": _SKIP}}}
    return {
        "name": UNMEASURED,
        "typed_config": {
            "@type": _MATCH,
            "extension_config": {
                "name": UNMEASURED,
                "typed_config": {"@type": _BUFFER, "max_request_bytes": BODY_BYTES_LIMIT},
            },
            "xds_matcher": {"matcher_list": {"matchers": [{"predicate": told, "on_match": skip}]}},
        },
    }


def _transport(places: GatewayPlaces, tls: Tls) -> Resource:
    source = file_source(places.folder / "tls.json")
    context: Resource = {
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
        "alpn_protocols": ["h2", "http/1.1"],
        "tls_certificate_sds_secret_configs": [{"name": "server", "sds_config": source}],
    }
    if tls.client_ca is not None:
        source = file_source(places.folder / "tls-clients.json")
        context["validation_context_sds_secret_config"] = {
            "name": "clients",
            "sds_config": source,
        }
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": f"{_TLS}DownstreamTlsContext",
            "common_tls_context": context,
            "require_client_certificate": tls.client_ca is not None,
        },
    }


def secrets(tls: Tls | None) -> dict[str, Resource]:
    """Files that say which files hold the certificates.  Envoy watches those, so a new
    certificate needs no restart."""
    if tls is None:
        return {}
    made = {
        "tls": {
            "@type": f"{_TLS}Secret",
            "name": "server",
            "tls_certificate": {
                "certificate_chain": {"filename": str(tls.certificate)},
                "private_key": {"filename": str(tls.key)},
                "watched_directory": {"path": str(tls.certificate.parent)},
            },
        }
    }
    if tls.client_ca is not None:
        made["tls-clients"] = {
            "@type": f"{_TLS}Secret",
            "name": "clients",
            "validation_context": {
                "trusted_ca": {"filename": str(tls.client_ca)},
                "watched_directory": {"path": str(tls.client_ca.parent)},
            },
        }
    return made


def records_file(folder: Path) -> Path:
    """Where Envoy writes its access records; `folder` is the gateway's folder of files."""
    return folder.parent / "records.log"


def tls_of(env: Mapping[str, str]) -> Tls | None:
    """TLS as the environment says it: `RATCHET_GATEWAY_TLS_CERT`, `_TLS_KEY`, `_TLS_CLIENT_CA`.

    Raises `Rejected` for one without the other, or a file that is not there.
    """
    names = ("RATCHET_GATEWAY_TLS_CERT", "RATCHET_GATEWAY_TLS_KEY", "RATCHET_GATEWAY_TLS_CLIENT_CA")
    certificate, key, client_ca = (Path(env[n]) if env.get(n) else None for n in names)
    if certificate is None and key is None and client_ca is None:
        return None
    if certificate is None or key is None:
        raise Rejected(f"{names[0]} and {names[1]}: set both, or none")
    for name, file in zip(names, (certificate, key, client_ca), strict=True):
        if file is not None and not file.is_file():
            raise Rejected(f"{name}: found no file {file}, expected one in PEM form")
    return Tls(certificate.absolute(), key.absolute(), client_ca and client_ca.absolute())


def otlp_of(env: Mapping[str, str]) -> tuple[str, int] | None:
    """`OTEL_EXPORTER_OTLP_ENDPOINT`, as OpenTelemetry names it; only OTLP over gRPC, without TLS.

    Raises `Rejected` for an address without a port.
    """
    url = env.get("OTEL_EXPORTER_OTLP_ENDPOINT", "")
    if not url:
        return None
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname or not parts.port:
        raise Rejected(f"OTEL_EXPORTER_OTLP_ENDPOINT: found {url!r}, expected http://host:4317")
    return parts.hostname, parts.port
