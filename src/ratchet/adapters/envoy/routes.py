"""Which arm answers: a gateway snapshot as Envoy's route table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from ratchet.adapters.envoy import admission, beside, conversation
from ratchet.adapters.envoy.clusters import OUTSIDE, target
from ratchet.adapters.envoy.listener import UNMEASURED
from ratchet.adapters.envoy.words import (
    ARMS,
    CACHE_HEADER,
    CHOSEN,
    CONVERSATION_HEADER,
    ENVOY,
    FALLBACK,
    FEEDBACK_ROUTE,
    HTTP_FILTERS,
    IDLE_HEADER,
    LENGTH_HEADER,
    PINNED,
    TRIAL_HEADER,
    VERSION_HEADER,
    Resource,
    cluster_name,
    route_name,
)
from ratchet.core.access import Scope
from ratchet.core.artifact import VersionId
from ratchet.core.routing import GatewaySnapshot
from ratchet.core.serving import Fallback, Sticky

# All that reaches an engine, letter by letter.  An engine may decode what Envoy compared as it was
# sent ("completion%73"), so what is not here must not pass: it would be neither permitted nor seen.
PATHS = {
    "/v1/chat/completions": Scope.ANSWERS,
    "/v1/completions": Scope.ANSWERS,
    "/v1/models": Scope.MODELS,
}
FEEDBACK_PATH = "/v1/feedback"
FEEDBACK_BYTES_MAX = 512 * 1024
OUR_HEADERS = (
    admission.KEY_HEADER,
    admission.PRINCIPAL_HEADER,
    admission.TIER_HEADER,
    CACHE_HEADER,
    CONVERSATION_HEADER,
    IDLE_HEADER,
    LENGTH_HEADER,
    TRIAL_HEADER,
    VERSION_HEADER,
)
# The engine says itself that it was silent for too long; this is for one that cannot.
IDLE_GRACE = 1.2
_BUFFER_ROUTE = f"{HTTP_FILTERS}buffer.v3.BufferPerRoute"


def routes(snapshot: GatewaySnapshot | None) -> Resource:
    """The route table; without a snapshot, one that says that nothing is served yet."""
    served = [_nothing_served()]
    if snapshot is not None and snapshot.arms:
        served = [route for path, scope in PATHS.items() for route in _ways(snapshot, path, scope)]
        served.append(_feedback(snapshot))
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
            "body": {
                "inline_string": f"no such path; there are {', '.join(PATHS)}, "
                f"{FEEDBACK_PATH} and /health"
            },
        },
    }
    return {
        "@type": f"{ENVOY}config.route.v3.RouteConfiguration",
        "name": "main",
        # Without this a route to a cluster that is not there is accepted and answers 503.
        "validate_clusters": True,
        "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [health, *served, unknown]}],
    }


def way_out(fallback: Fallback | None, key: str) -> Resource:
    """The routes of requests for a fallback: with its key, without our headers, marked."""
    route: Resource = {
        "name": FALLBACK,
        "match": {"prefix": "/"},
        "direct_response": {"status": 503, "body": {"inline_string": "no fallback"}},
    }
    if fallback is not None:
        del route["direct_response"]
        sets = [("authorization", f"Bearer {key}")] if key else []
        route |= {
            "route": {"cluster": OUTSIDE, "auto_host_rewrite": True, "timeout": "0s"},
            "request_headers_to_remove": list(OUR_HEADERS),
            "request_headers_to_add": [_set(*pair) for pair in sets],
            "response_headers_to_add": [_set(VERSION_HEADER, FALLBACK)],
        }
    return {
        "@type": f"{ENVOY}config.route.v3.RouteConfiguration",
        "name": FALLBACK,
        "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}],
    }


def _set(name: str, value: str) -> Resource:
    header = {"key": name, "value": value}
    return {"header": header, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}


def _if_absent(name: str, value: str) -> Resource:
    return {"header": {"key": name, "value": value}, "append_action": "ADD_IF_ABSENT"}


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


def _feedback(snapshot: GatewaySnapshot) -> Resource:
    """The agent answers; what is said here is said when it is away."""
    serving = snapshot.serving
    bytes_max = min(serving.body_bytes_max, FEEDBACK_BYTES_MAX)
    filters = admission.on_route(snapshot.admission, serving.oidc, (Scope.ANSWERS,), bytes_max)
    buffer = {"max_request_bytes": bytes_max}
    return {
        "name": FEEDBACK_ROUTE,
        "match": {
            "path": FEEDBACK_PATH,
            "headers": [{"name": ":method", "string_match": {"exact": "POST"}}],
        },
        "typed_per_filter_config": {
            **filters,
            UNMEASURED: {"@type": _BUFFER_ROUTE, "buffer": buffer},
            **beside.asked(),
        },
        "response_headers_to_add": [_set("retry-after", "1")],
        "direct_response": {
            "status": 503,
            "body": {"inline_string": "feedback cannot be taken at the moment: try again"},
        },
    }


def _ways(snapshot: GatewaySnapshot, path: str, scope: Scope) -> Iterator[Resource]:
    """All ways of one path to an engine, the most particular first."""
    revision = snapshot.route_revision
    if not snapshot.admission.is_open:
        name, scopes = route_name(CHOSEN, revision), (scope, Scope.ARMS)
        for version in sorted(snapshot.endpoints):
            to = _one(snapshot, version)
            yield _way(snapshot, path, scopes, name, to, {VERSION_HEADER: version})
    for principal in snapshot.serving.pinned:
        to, where = _one(snapshot, snapshot.baseline), {admission.PRINCIPAL_HEADER: principal}
        yield _way(snapshot, path, (scope,), route_name(PINNED, revision), to, where)
    name, to = route_name(ARMS, revision), _arms(snapshot)
    for tier in snapshot.serving.priority_tiers:
        where = {admission.TIER_HEADER: tier}
        yield _way(snapshot, path, (scope,), name, to | {"priority": "HIGH"}, where)
    yield _way(snapshot, path, (scope,), name, to, {})


def _way(
    snapshot: GatewaySnapshot,
    path: str,
    scopes: Sequence[Scope],
    name: str,
    to: Resource,
    where: Mapping[str, str],
) -> Resource:
    serving, timeouts = snapshot.serving, snapshot.serving.timeouts
    headers = [{"name": key, "string_match": {"exact": value}} for key, value in where.items()]
    filters = admission.on_route(snapshot.admission, serving.oidc, scopes, serving.body_bytes_max)
    filters[UNMEASURED] = {
        "@type": _BUFFER_ROUTE,
        "buffer": {"max_request_bytes": serving.body_bytes_max},
    }
    asks_body = serving.sticky is Sticky.USER and Scope.ANSWERS in scopes
    if asks_body:
        filters |= conversation.on_route()
    sets, says = [_set(IDLE_HEADER, f"{timeouts.idle_seconds:g}")], []
    if asks_body:
        # The line that says who was given which arm sees headers only.
        sets.append(_if_absent(CONVERSATION_HEADER, conversation.FOUND))
    if Scope.ANSWERS in scopes:
        filters |= beside.on_route(serving.capture)
        if serving.exact is not None and path in serving.exact.paths:
            filters |= beside.exactly(serving.exact)
        if serving.cache is not None:
            filters |= beside.asked()
            # Said by the agent; when it is away, by the route.
            sets.append(_if_absent(CACHE_HEADER, "bypass"))
            says.append(_set(CACHE_HEADER, f"%REQ({CACHE_HEADER})%"))
    silence = max(timeouts.first_byte_seconds, timeouts.idle_seconds * IDLE_GRACE)
    return {
        # The access record carries this name, and so the weights under which it was routed.
        "name": name,
        "match": {"path": path, "headers": headers},
        "typed_per_filter_config": filters,
        "request_body_buffer_limit": serving.body_bytes_max,
        "request_headers_to_add": sets,
        "response_headers_to_add": says,
        "route": {
            **to,
            # Only a fallback has a name of its own.
            "auto_host_rewrite": True,
            "timeout": f"{timeouts.total_seconds:.3f}s",
            "idle_timeout": f"{silence:.3f}s",
            "hash_policy": conversation.hash_policy(asks_body=asks_body),
            "retry_policy": _retries(),
        },
    }


def _retries() -> Resource:
    return {
        # Before the answer's first byte, when an engine breaks off; an answer has no effect but
        # itself, so another engine may begin it again.  Not after a time-out: the next engine would
        # only be slow, too.  Always inside the arm: Envoy chose the cluster before the first
        # attempt.
        "retry_on": "connect-failure,refused-stream,reset",
        "num_retries": 2,
        "retry_back_off": {"base_interval": "0.025s", "max_interval": "0.25s"},
        "retry_host_predicate": [
            {
                "name": "envoy.retry_host_predicates.previous_hosts",
                "typed_config": {
                    "@type": f"{ENVOY}extensions.retry.host.previous_hosts.v3."
                    "PreviousHostsPredicate"
                },
            }
        ],
        "host_selection_retry_max_attempts": 3,
        "retry_priority": {
            "name": "envoy.retry_priorities.previous_priorities",
            "typed_config": {
                "@type": f"{ENVOY}extensions.retry.priority.previous_priorities.v3."
                "PreviousPrioritiesConfig",
                "update_frequency": 1,
            },
        },
    }


def _says(version: VersionId) -> list[Resource]:
    """The answer names its version, unless it comes from a fallback that said so already."""
    return [_if_absent(VERSION_HEADER, version)]


def _arms(snapshot: GatewaySnapshot) -> Resource:
    is_trial = len(snapshot.arms) > 1
    clusters = [
        {
            "name": target(arm.version, snapshot),
            "weight": arm.weight,
            "response_headers_to_add": _says(arm.version),
            **({"request_headers_to_add": [_set(TRIAL_HEADER, "1")]} if is_trial else {}),
        }
        for arm in snapshot.arms
    ]
    return {"weighted_clusters": {"clusters": clusters, "use_hash_policy": True}}


def _one(snapshot: GatewaySnapshot, version: VersionId) -> Resource:
    """As weighted clusters of one, because a plain one cannot add headers of its own."""
    only = {
        "name": cluster_name(version),
        "weight": 1,
        "response_headers_to_add": _says(version),
    }
    return {"weighted_clusters": {"clusters": [only]}}
