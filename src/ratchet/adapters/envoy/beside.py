"""What Envoy asks the agent beside it: only on routes that want it.

The agent listens on a socket next to Envoy.  Capture is told and never waited for: an agent that is
slow, stopped or killed costs turns, which are counted, and no request.  For the cache and for
feedback the agent is asked; a request that it does not answer in time goes on without it.
"""

from __future__ import annotations

from pathlib import Path

from ratchet.adapters.envoy import usage
from ratchet.adapters.envoy.admission import KEY_HEADER
from ratchet.adapters.envoy.words import (
    ENVOY,
    HTTP_FILTERS,
    HTTP_OPTIONS,
    LENGTH_HEADER,
    Resource,
)
from ratchet.core.quota import Away, Exact
from ratchet.core.serving import Capture

CLUSTER = "beside"
CAPTURE, ASK = "capture", "ask"
READ_ASKED = "asked"
QUOTA = {Away.ALLOW: "quota-or-allow", Away.REFUSE: "quota-or-refuse"}
QUOTA_DOMAIN = "ratchet"
ASKED_NUMBERS = ("max_tokens", "max_completion_tokens", "n")
_ASKED = "ratchet.asked"
_SAMPLED = "sampled"
_MATCHER = f"{ENVOY}extensions.common.matching.v3."
_COMPOSITE = f"{HTTP_FILTERS}composite.v3."
_EXT_PROC = f"{HTTP_FILTERS}ext_proc.v3.ExternalProcessor"
_JSON = f"{HTTP_FILTERS}json_to_metadata.v3.JsonToMetadata"
_RATE_LIMIT = f"{HTTP_FILTERS}ratelimit.v3.RateLimit"
_RATE_LIMIT_ROUTE = f"{HTTP_FILTERS}ratelimit.v3.RateLimitPerRoute"
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
    """Off, and without a cost, until a route turns them on.

    In this order: what the cache answers takes nothing of a budget, and is no turn.
    """
    return [_ask(), _read_asked(), *map(_quota, Away), _capture()]


def _capture() -> Resource:
    return {
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
    }


def _ask() -> Resource:
    return {
        "name": ASK,
        "disabled": True,
        "typed_config": {
            "@type": _EXT_PROC,
            "grpc_service": _SERVICE,
            "failure_mode_allow": True,
            "message_timeout": f"{ANSWER_SECONDS:g}s",
            "max_message_timeout": f"{ANSWER_SECONDS_MAX}s",
            "allow_mode_override": True,
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
    }


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


def _read_asked() -> Resource:
    """How long an answer a request asks for."""
    rules = [
        {
            "selectors": [{"key": name}],
            "on_present": {"metadata_namespace": _ASKED, "key": name, "type": "STRING"},
        }
        for name in ASKED_NUMBERS
    ]
    return {
        "name": READ_ASKED,
        "disabled": True,
        "typed_config": {"@type": _JSON, "request_rules": {"rules": rules}},
    }


def _quota(away: Away) -> Resource:
    return {
        "name": QUOTA[away],
        "disabled": True,
        "typed_config": {
            "@type": _RATE_LIMIT,
            "domain": QUOTA_DOMAIN,
            "timeout": f"{ANSWER_SECONDS:g}s",
            "failure_mode_deny": away is Away.REFUSE,
            "status_on_error": {"code": "ServiceUnavailable"},
            "disable_x_envoy_ratelimited_header": True,
            "rate_limit_service": {"grpc_service": _SERVICE, "transport_api_version": "V3"},
        },
    }


def exactly(exact: Exact) -> Resource:
    """What a route asks for whose budgets are exact: before a request, and after its answer."""
    who = [_header("x-request-id", "request"), _header(KEY_HEADER, "key")]
    lengths = [_header("content-length", "bytes"), _header(LENGTH_HEADER, "bytes_read")]
    asks = [*lengths, *map(_number, ASKED_NUMBERS)]
    limits: list[Resource] = [{"actions": [_says("phase", "reserve"), *who, *asks]}]
    for count in usage.COUNTS:
        limits.append(
            {
                "actions": [_says("phase", "settle"), *who, _says("count", count)],
                "hits_addend": {"format": f"%DYNAMIC_METADATA({usage.NAMESPACE}:{count})%"},
                "apply_on_stream_done": True,
            }
        )
    enabled = {"@type": f"{ENVOY}config.route.v3.FilterConfig", "disabled": False, "config": {}}
    return {
        READ_ASKED: enabled,
        QUOTA[exact.away]: {"@type": _RATE_LIMIT_ROUTE, "rate_limits": limits},
    }


def _says(key: str, value: str) -> Resource:
    return {"generic_key": {"descriptor_key": key, "descriptor_value": value}}


def _header(name: str, key: str) -> Resource:
    return {"request_headers": {"header_name": name, "descriptor_key": key, "skip_if_absent": True}}


def _number(name: str) -> Resource:
    where = {"key": _ASKED, "path": [{"key": name}]}
    return {"metadata": {"descriptor_key": name, "metadata_key": where, "skip_if_absent": True}}


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
