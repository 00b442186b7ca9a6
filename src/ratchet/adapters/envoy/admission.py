"""Who comes in, as Envoy filters: keys are checked by Envoy itself, nobody is asked.

Four filters stand in the listener for the life of the process.  `identity` checks a token's
signature and age and gives its claims to what follows; `revoked` refuses keys that were taken back,
by a look-up in a hash map, so that the list may be long.  Both are files of their own (extension
config discovery): a rotation or a revocation replaces a file and touches no route and no stream.
`permitted` compares the claims with what a route serves; its rules are in the route table.

What is wrong with a key is said in OpenAI's form and in our words, and the same words stand for
"never existed" and "was revoked".
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ratchet.core.access import ANY_MODEL, ISSUER, KEY_PREFIX, Admission, Scope

Resource = dict[str, Any]
_TYPE = "type.googleapis.com/envoy."
_JWT = f"{_TYPE}extensions.filters.http.jwt_authn.v3.JwtAuthentication"
_JWT_ROUTE = f"{_TYPE}extensions.filters.http.jwt_authn.v3.PerRouteConfig"
_RBAC = f"{_TYPE}extensions.filters.http.rbac.v3.RBAC"
_RBAC_ROUTE = f"{_TYPE}extensions.filters.http.rbac.v3.RBACPerRoute"
_ACTION = f"{_TYPE}config.rbac.v3.Action"
_HEADER_INPUT = f"{_TYPE}type.matcher.v3.HttpRequestHeaderMatchInput"
_CEL = f"{_TYPE}extensions.access_loggers.filters.cel.v3.ExpressionFilter"
_HEADER_MUTATION = f"{_TYPE}extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation"

KEY_HEADER = "x-ratchet-key"
TIER_HEADER = "x-ratchet-tier"
PRINCIPAL_HEADER = "x-ratchet-principal"
IDENTITY, REVOKED, PERMITTED = "identity", "revoked", "permitted"
DISCOVERED = {IDENTITY: _JWT, REVOKED: _RBAC}
"""Filters in files of their own, with their types."""
_REQUIREMENT = "keys"
_CLAIMS = "claims"
# Clocks of gateway and control plane may differ by this much.
CLOCK_SKEW_SECONDS = 10
# For each worker thread of Envoy, about a kilobyte each.
REMEMBERED_TOKENS = 1_000

_REFUSALS = (
    # (Envoy's reason, status, code, what a person reads)
    (
        "response.code_details == 'jwt_authn_access_denied{Jwt_is_missing}'",
        401,
        "missing_api_key",
        f"no API key was given: send the header Authorization: Bearer {KEY_PREFIX}...",
    ),
    (
        "response.code_details == 'jwt_authn_access_denied{Jwt_is_expired}'",
        401,
        "expired_api_key",
        "this API key has expired",
    ),
    (
        "response.code_details.startsWith('jwt_authn_access_denied') || "
        "response.code_details == 'rbac_access_denied_matched_policy[revoked]'",
        401,
        "invalid_api_key",
        "this API key is not valid or was revoked",
    ),
    (
        "response.code_details == 'rbac_access_denied_matched_policy[other-project]'",
        403,
        "project_not_allowed",
        "this API key belongs to another project",
    ),
    (
        "response.code_details == 'rbac_access_denied_matched_policy[other-model]'",
        403,
        "model_not_allowed",
        "this API key may not use the model that is served here",
    ),
    (
        "response.code_details == 'rbac_access_denied_matched_policy[no-scope]'",
        403,
        "scope_not_allowed",
        "this API key lacks the scope for this path",
    ),
)


def filters(discovered: Mapping[str, Resource]) -> list[Resource]:
    """The listener's filters, in their order.  `discovered` names the file of each that has one."""
    return [
        *(
            {
                "name": name,
                "config_discovery": {"config_source": discovered[name], "type_urls": [type_]},
            }
            for name, type_ in DISCOVERED.items()
        ),
        {"name": PERMITTED, "typed_config": {"@type": _RBAC}},
    ]


def strip_claims() -> list[Resource]:
    """Nobody outside may say who they are."""
    headers = (KEY_HEADER, TIER_HEADER, PRINCIPAL_HEADER)
    return [
        {
            "name": "envoy.http.early_header_mutation.header_mutation",
            "typed_config": {
                "@type": _HEADER_MUTATION,
                "mutations": [{"remove": header} for header in headers],
            },
        }
    ]


def extension(name: str, admission: Admission | None) -> Resource:
    """One discovered filter as a resource.  Without an admission it knows no key at all."""
    config = _identity(admission) if name == IDENTITY else _revoked(admission)
    return {
        "@type": f"{_TYPE}config.core.v3.TypedExtensionConfig",
        "name": name,
        "typed_config": config,
    }


def _identity(admission: Admission | None) -> Resource:
    if admission is None or not admission.jwks:
        return {"@type": _JWT}
    keys = {"keys": [dict(key) for key in admission.jwks]}
    provider = {
        "issuer": ISSUER,
        "local_jwks": {"inline_string": json.dumps(keys, sort_keys=True)},
        "from_headers": [{"name": "authorization", "value_prefix": f"Bearer {KEY_PREFIX}"}],
        # Engines must not see keys.
        "forward": False,
        "payload_in_metadata": _CLAIMS,
        "clock_skew_seconds": CLOCK_SKEW_SECONDS,
        # A signature costs more than all the rest; one that was good stays good.  Age is checked
        # every time.
        "jwt_cache_config": {"jwt_cache_size": REMEMBERED_TOKENS},
        "claim_to_headers": [
            {"header_name": KEY_HEADER, "claim_name": "jti"},
            {"header_name": TIER_HEADER, "claim_name": "tier"},
            {"header_name": PRINCIPAL_HEADER, "claim_name": "sub"},
        ],
    }
    return {
        "@type": _JWT,
        "providers": {ISSUER: provider},
        "requirement_map": {_REQUIREMENT: {"provider_name": ISSUER}},
    }


def _revoked(admission: Admission | None) -> Resource:
    if admission is None or not admission.revoked:
        return {"@type": _RBAC}
    deny = _action("revoked", "DENY")
    tree = {
        "input": {
            "name": "key",
            "typed_config": {"@type": _HEADER_INPUT, "header_name": KEY_HEADER},
        },
        "exact_match_map": {"map": dict.fromkeys(admission.revoked, deny)},
    }
    return {
        "@type": _RBAC,
        "matcher": {"matcher_tree": tree, "on_no_match": _action("known", "ALLOW")},
    }


def _action(name: str, verdict: str) -> Resource:
    config = {"@type": _ACTION, "name": name, "action": verdict}
    return {"action": {"name": "verdict", "typed_config": config}}


def on_route(admission: Admission, scope: Scope) -> Resource:
    """What a route to engines asks of who comes; nothing where the gateway is open."""
    if admission.is_open:
        return {}
    served = [admission.served_name, ANY_MODEL]
    policies = {
        "other-project": _deny(_claim("project", admission.project)),
        "other-model": _deny(*(_listed("models", name) for name in served)),
        "no-scope": _deny(_listed("scopes", scope.value)),
    }
    return {
        IDENTITY: {"@type": _JWT_ROUTE, "requirement_name": _REQUIREMENT},
        PERMITTED: {
            "@type": _RBAC_ROUTE,
            "rbac": {"rules": {"action": "DENY", "policies": policies}},
        },
    }


def _deny(*one_of: Resource) -> Resource:
    """Refuse who fulfils none of the conditions.  A claim that is missing fulfils nothing."""
    return {
        "permissions": [{"any": True}],
        "principals": [{"not_id": {"or_ids": {"ids": list(one_of)}}}],
    }


def _claim(name: str, value: str) -> Resource:
    return _metadata(name, {"string_match": {"exact": value}})


def _listed(name: str, value: str) -> Resource:
    return _metadata(name, {"list_match": {"one_of": {"string_match": {"exact": value}}}})


def _metadata(name: str, value: Resource) -> Resource:
    return {
        "sourced_metadata": {
            "metadata_matcher": {
                # Envoy files the claims under the filter's own name, whatever ours is.
                "filter": "envoy.filters.http.jwt_authn",
                "path": [{"key": _CLAIMS}, {"key": name}],
                "value": value,
            }
        }
    }


def refusals() -> list[Resource]:
    """Answers to who is not let in, in OpenAI's form."""
    return [
        {
            "filter": {
                "extension_filter": {
                    "name": "reason",
                    "typed_config": {"@type": _CEL, "expression": expression},
                }
            },
            "status_code": status,
            "body_format_override": {
                "json_format": {
                    "error": {
                        "message": message,
                        "type": "invalid_request_error",
                        "param": None,
                        "code": code,
                    }
                }
            },
        }
        for expression, status, code, message in _REFUSALS
    ]
