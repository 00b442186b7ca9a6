"""What Envoy answers by itself, in OpenAI's form and in words that say what to do."""

from __future__ import annotations

from dataclasses import dataclass

from ratchet.adapters.envoy.words import BESIDE, BESIDE_STREAM, ENVOY, Resource
from ratchet.core.access import KEY_PREFIX

_CEL = f"{ENVOY}extensions.access_loggers.filters.cel.v3.ExpressionFilter"
_DETAILS = "response.code_details"
_DENIED = "rbac_access_denied_matched_policy"
BUSY_SECONDS = 1


@dataclass(frozen=True, slots=True)
class Reply:
    """One reason of Envoy's, and what a client reads."""

    when: str
    """An expression over the answer (CEL)."""
    status: int
    code: str
    message: str
    type: str = "invalid_request_error"
    retry_after: str = ""


def _denied(policy: str) -> str:
    return f"{_DETAILS} == '{_DENIED}[{policy}]'"


REPLIES = (
    Reply(
        f"{_DETAILS} == 'jwt_authn_access_denied{{Jwt_is_missing}}'",
        401,
        "missing_api_key",
        f"no API key was given: send the header Authorization: Bearer {KEY_PREFIX}...",
    ),
    Reply(
        f"{_DETAILS} == 'jwt_authn_access_denied{{Jwt_is_expired}}'",
        401,
        "expired_api_key",
        "this API key has expired",
    ),
    # The same words for "never existed" and "was revoked".
    Reply(
        f"{_DETAILS}.startsWith('jwt_authn_access_denied') || {_denied('revoked')}",
        401,
        "invalid_api_key",
        "this API key is not valid or was revoked",
    ),
    Reply(
        _denied("other-project"),
        403,
        "project_not_allowed",
        "this API key belongs to another project",
    ),
    Reply(
        _denied("other-model"),
        403,
        "model_not_allowed",
        "this API key may not use the model that is served here",
    ),
    Reply(
        _denied("no-scope"),
        403,
        "scope_not_allowed",
        "this API key lacks the scope for this path, or for choosing a version",
    ),
    Reply(
        _denied("exhausted"),
        429,
        "insufficient_quota",
        "the budget of this API key, its team or its project is used up for this period",
        "insufficient_quota",
        retry_after="3600",
    ),
    Reply(
        f"{_denied('too-large')} || {_DETAILS} == 'request_payload_too_large'",
        413,
        "request_too_large",
        "the request is larger than this gateway takes (gateway.max_body)",
    ),
    Reply(
        f"{_DETAILS} == 'local_rate_limited'",
        429,
        "rate_limit_exceeded",
        "too many requests for this API key or its tier: slow down",
        "requests",
    ),
    Reply(
        # The words are the agent's.
        f"{_DETAILS} == 'request_rate_limited'",
        429,
        "insufficient_quota",
        "%LOCAL_REPLY_BODY%",
        "insufficient_quota",
        retry_after=str(BUSY_SECONDS),
    ),
    Reply(
        f"{_DETAILS} == 'rate_limiter_error'",
        503,
        "quota_unknown",
        "what is left of the budgets cannot be known at the moment: try again",
        "server_error",
        retry_after=str(BUSY_SECONDS),
    ),
    Reply(
        f"{_DETAILS}.contains('overflow')",
        503,
        "engines_busy",
        "every engine has as much to do as it takes: try again",
        "server_error",
        retry_after=str(BUSY_SECONDS),
    ),
    Reply(
        f"{_DETAILS} == 'no_healthy_upstream'",
        503,
        "no_engine",
        "no engine of this model is there at the moment: try again",
        "server_error",
        retry_after=str(BUSY_SECONDS),
    ),
    Reply(
        f"{_DETAILS} in ['upstream_response_timeout', 'upstream_per_try_timeout', "
        "'response_timeout', 'upstream_per_try_idle_timeout', 'stream_idle_timeout']",
        504,
        "timeout",
        "the model did not answer in time (gateway.timeouts)",
        "server_error",
    ),
    Reply(
        f"{_DETAILS}.startsWith('upstream_reset_before_response_started')",
        503,
        "engine_lost",
        "the engine went away before it answered: try again",
        "server_error",
        retry_after=str(BUSY_SECONDS),
    ),
)


def local_replies() -> Resource:
    """The listener's own answers."""
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
    beside = [_as_told(BESIDE, "application/json"), _as_told(BESIDE_STREAM, "text/event-stream")]
    other = {"json_format": _error("%LOCAL_REPLY_BODY%", "server_error", "%RESPONSE_CODE_DETAILS%")}
    return {"mappers": [health, *beside, *map(_mapper, REPLIES)], "body_format": other}


def _as_told(why: str, content_type: str) -> Resource:
    """The agent has said it in its own words."""
    expression = f"{_DETAILS} == '{why}'"
    return {
        "filter": {
            "extension_filter": {
                "name": why,
                "typed_config": {"@type": _CEL, "expression": expression},
            }
        },
        "body_format_override": {
            "text_format_source": {"inline_string": "%LOCAL_REPLY_BODY%"},
            "content_type": content_type,
        },
    }


def _mapper(reply: Reply) -> Resource:
    mapper: Resource = {
        "filter": {
            "extension_filter": {
                "name": "reason",
                "typed_config": {"@type": _CEL, "expression": reply.when},
            }
        },
        "status_code": reply.status,
        "body_format_override": {"json_format": _error(reply.message, reply.type, reply.code)},
    }
    if reply.retry_after:
        header = {"key": "retry-after", "value": reply.retry_after}
        mapper["headers_to_add"] = [
            {"header": header, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
        ]
    return mapper


def _error(message: str, type_: str, code: str) -> Resource:
    return {"error": {"message": message, "type": type_, "param": None, "code": code}}
