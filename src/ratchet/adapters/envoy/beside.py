"""What Envoy asks the agent beside it: only on routes that want it.

The agent listens on a socket next to Envoy.  Capture is told and never waited for: an agent that is
slow, stopped or killed costs turns, which are counted, and no request.  For the cache and for
feedback the agent is asked; a request that it does not answer in time goes on without it.
"""

from __future__ import annotations

from pathlib import Path

from ratchet.adapters.envoy.words import ENVOY, HTTP_FILTERS, HTTP_OPTIONS, Resource
from ratchet.core.serving import Capture

CLUSTER = "beside"
CAPTURE, ASK = "capture", "ask"
_SAMPLED = "sampled"
_MATCHER = f"{ENVOY}extensions.common.matching.v3."
_COMPOSITE = f"{HTTP_FILTERS}composite.v3."
_EXT_PROC = f"{HTTP_FILTERS}ext_proc.v3.ExternalProcessor"
_EXT_PROC_ROUTE = f"{HTTP_FILTERS}ext_proc.v3.ExtProcPerRoute"
_SERVICE = {"envoy_grpc": {"cluster_name": CLUSTER}}
_ATTRIBUTES = ["xds.cluster_name", "xds.route_name"]
# The agent answers within milliseconds; without it a request goes on.
ANSWER_SECONDS = 0.5
# It may ask for this much more, for one that waits for the answer of another.
ANSWER_SECONDS_MAX = 60
# A captured stream holds its place for this long after its end, so that the agent can read it.
READ_SECONDS = 2.0
STREAMS_MAX = 20_000
# Tells in the access record that a request was chosen to be captured.
SAMPLED_STATE = "%FILTER_STATE(envoy.extensions.filters.http.composite.matched_actions)%"


def cluster(socket: Path) -> Resource:
    endpoint = {"address": {"pipe": {"path": str(socket)}}}
    thresholds = {"max_requests": STREAMS_MAX, "max_pending_requests": STREAMS_MAX}
    return {
        "name": CLUSTER,
        "type": "STATIC",
        "connect_timeout": "0.25s",
        "circuit_breakers": {"thresholds": [thresholds]},
        "typed_extension_protocol_options": {
            HTTP_OPTIONS: {
                "@type": f"type.googleapis.com/{HTTP_OPTIONS}",
                "explicit_http_config": {
                    "http2_protocol_options": {"max_concurrent_streams": STREAMS_MAX}
                },
            }
        },
        "load_assignment": {
            "cluster_name": CLUSTER,
            "endpoints": [{"lb_endpoints": [{"endpoint": endpoint}]}],
        },
    }


def filters() -> list[Resource]:
    """Off, and without a cost, until a route turns it on."""
    return [
        {
            "name": CAPTURE,
            "disabled": True,
            "typed_config": {
                "@type": f"{_MATCHER}ExtensionWithMatcher",
                "extension_config": {
                    "name": CAPTURE,
                    "typed_config": {"@type": f"{_COMPOSITE}Composite"},
                },
                "xds_matcher": {"on_no_match": _sample(0.0)},
            },
        },
        {
            "name": ASK,
            "disabled": True,
            "typed_config": {
                "@type": _EXT_PROC,
                "grpc_service": _SERVICE,
                "failure_mode_allow": True,
                "message_timeout": f"{ANSWER_SECONDS:g}s",
                "max_message_timeout": f"{ANSWER_SECONDS_MAX}s",
                "allow_mode_override": True,
                "mutation_rules": {"disallow_system": True, "allow_all_routing": False},
                "request_attributes": _ATTRIBUTES,
                "processing_mode": {
                    "request_header_mode": "SEND",
                    "request_body_mode": "BUFFERED_PARTIAL",
                    "response_header_mode": "SEND",
                    "response_body_mode": "NONE",
                    "request_trailer_mode": "SKIP",
                    "response_trailer_mode": "SKIP",
                },
            },
        },
    ]


def on_route(capture: Capture | None) -> Resource:
    """What a route of answers asks for."""
    if capture is None:
        return {}
    matcher = {"on_no_match": _sample(capture.sample)}
    return {
        CAPTURE: {
            "@type": f"{_MATCHER}ExtensionWithMatcherPerRoute",
            "xds_matcher": matcher,
        }
    }


def asked() -> Resource:
    """What a route asks for whose requests the agent answers."""
    return {ASK: {"@type": _EXT_PROC_ROUTE, "overrides": {}}}


def _sample(share: float) -> Resource:
    tell = {
        "@type": _EXT_PROC,
        "grpc_service": _SERVICE,
        "observability_mode": True,
        "failure_mode_allow": True,
        "deferred_close_timeout": f"{READ_SECONDS:g}s",
        "request_attributes": _ATTRIBUTES,
        "processing_mode": {
            "request_header_mode": "SEND",
            "request_body_mode": "STREAMED",
            "response_header_mode": "SEND",
            "response_body_mode": "STREAMED",
            "request_trailer_mode": "SKIP",
            "response_trailer_mode": "SKIP",
        },
    }
    parts = {"numerator": round(share * 1_000_000), "denominator": "MILLION"}
    action = {
        "@type": f"{_COMPOSITE}ExecuteFilterAction",
        "typed_config": {"name": _SAMPLED, "typed_config": tell},
        "sample_percent": {"default_value": parts},
    }
    return {"action": {"name": _SAMPLED, "typed_config": action}}
