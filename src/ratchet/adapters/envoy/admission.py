"""Who comes in, as Envoy filters: keys are checked by Envoy itself, nobody is asked.

Three filters stand in the listener for the life of the process.  `identity` checks a token's
signature and age and gives its claims to what follows; `revoked` refuses keys that were taken back,
by a look-up in a hash map, so that the list may be long.  Both are files of their own (extension
config discovery): a rotation or a revocation replaces a file and touches no route and no stream.
`permitted` compares the claims with what a route serves; its rules are in the route table.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence

from ratchet.adapters.envoy.words import (
    CACHE_HEADER,
    ENVOY,
    HTTP_FILTERS,
    LENGTH_HEADER,
    TRIAL_HEADER,
    Resource,
)
from ratchet.core.access import ANY_MODEL, ISSUER, KEY_PREFIX, Admission, Scope
from ratchet.core.serving import Oidc

JWT = f"{HTTP_FILTERS}jwt_authn.v3.JwtAuthentication"
_JWT_ROUTE = f"{HTTP_FILTERS}jwt_authn.v3.PerRouteConfig"
RBAC = f"{HTTP_FILTERS}rbac.v3.RBAC"
_RBAC_ROUTE = f"{HTTP_FILTERS}rbac.v3.RBACPerRoute"
_ACTION = f"{ENVOY}config.rbac.v3.Action"
_HEADER_INPUT = f"{ENVOY}type.matcher.v3.HttpRequestHeaderMatchInput"
_HEADER_MUTATION = f"{ENVOY}extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation"

KEY_HEADER = "x-ratchet-key"
TIER_HEADER = "x-ratchet-tier"
PRINCIPAL_HEADER = "x-ratchet-principal"
IDENTITY, REVOKED, PERMITTED = "identity", "revoked", "permitted"
_REQUIREMENT = "keys"
_CLAIMS = "claims"
_OIDC = "oidc"
JWKS_CLUSTER = "oidc-keys"
JWKS_CACHE_SECONDS = 300
# Clocks of gateway and control plane may differ by this much.
CLOCK_SKEW_SECONDS = 10
# For each worker thread of Envoy, about a kilobyte each.
REMEMBERED_TOKENS = 1_000

BEFORE = (IDENTITY, REVOKED)
"""Filters that come before `permitted`, in their order."""


def permitted_filter() -> Resource:
    return {"name": PERMITTED, "typed_config": {"@type": RBAC}}


def strip_claims() -> list[Resource]:
    """Nobody outside may say who they are."""
    headers = (
        KEY_HEADER,
        TIER_HEADER,
        PRINCIPAL_HEADER,
        CACHE_HEADER,
        LENGTH_HEADER,
        TRIAL_HEADER,
    )
    return [
        {
            "name": "envoy.http.early_header_mutation.header_mutation",
            "typed_config": {
                "@type": _HEADER_MUTATION,
                "mutations": [{"remove": header} for header in headers],
            },
        }
    ]


def identity(admission: Admission | None, oidc: Oidc | None) -> Resource:
    """Checks signatures and ages: of our keys, and of an identity provider's access tokens."""
    if admission is None or not admission.jwks:
        return {"@type": JWT}
    keys = {"keys": [dict(key) for key in admission.jwks]}
    ours = {
        "issuer": ISSUER,
        "local_jwks": {"inline_string": json.dumps(keys, sort_keys=True)},
        "from_headers": [{"name": "authorization", "value_prefix": f"Bearer {KEY_PREFIX}"}],
        # A signature costs more than all the rest; one that was good stays good.  Age is checked
        # every time.
        "jwt_cache_config": {"jwt_cache_size": REMEMBERED_TOKENS},
        "claim_to_headers": _headers("jti"),
        **_COMMON,
    }
    if oidc is None:
        return {
            "@type": JWT,
            "providers": {ISSUER: ours},
            "requirement_map": {_REQUIREMENT: {"provider_name": ISSUER}},
        }
    theirs = {
        "issuer": oidc.issuer,
        "audiences": [oidc.audience],
        "remote_jwks": {
            "http_uri": {"uri": oidc.jwks_url, "cluster": JWKS_CLUSTER, "timeout": "5s"},
            "cache_duration": f"{JWKS_CACHE_SECONDS}s",
            "async_fetch": {"fast_listener": True},
        },
        "from_headers": [{"name": "authorization", "value_prefix": "Bearer "}],
        # Limits, usage and revocation go by who it is.
        "claim_to_headers": _headers("sub"),
        **_COMMON,
    }
    either = {"requirements": [{"provider_name": name} for name in (ISSUER, _OIDC)]}
    return {
        "@type": JWT,
        "providers": {ISSUER: ours, _OIDC: theirs},
        "requirement_map": {_REQUIREMENT: {"requires_any": either}},
    }


_COMMON = {
    # Engines must not see tokens.
    "forward": False,
    "payload_in_metadata": _CLAIMS,
    "clock_skew_seconds": CLOCK_SKEW_SECONDS,
    # Routes that look at a claim come into question only now.
    "clear_route_cache": True,
}


def _headers(key_claim: str) -> list[Resource]:
    return [
        {"header_name": KEY_HEADER, "claim_name": key_claim},
        {"header_name": TIER_HEADER, "claim_name": "tier"},
        {"header_name": PRINCIPAL_HEADER, "claim_name": "sub"},
    ]


def revoked(admission: Admission | None) -> Resource:
    if admission is None or not (admission.revoked or admission.exhausted):
        return {"@type": RBAC}
    denied = dict.fromkeys(admission.exhausted, _action("exhausted", "DENY"))
    denied |= dict.fromkeys(admission.revoked, _action("revoked", "DENY"))
    tree = {
        "input": {
            "name": "key",
            "typed_config": {"@type": _HEADER_INPUT, "header_name": KEY_HEADER},
        },
        "exact_match_map": {"map": denied},
    }
    return {
        "@type": RBAC,
        "matcher": {"matcher_tree": tree, "on_no_match": _action("known", "ALLOW")},
    }


def _action(name: str, verdict: str) -> Resource:
    config = {"@type": _ACTION, "name": name, "action": verdict}
    return {"action": {"name": "verdict", "typed_config": config}}


def on_route(
    admission: Admission, oidc: Oidc | None, scopes: Sequence[Scope], body_bytes_max: int
) -> Resource:
    """What a route to engines asks of a request and of who sends it."""
    policies = {"too-large": _larger_than(body_bytes_max)}
    filters: Resource = {}
    if not admission.is_open:
        served = {admission.served_name, ANY_MODEL}
        grants = {} if oidc is None else oidc.grants
        ours = _claim("iss", ISSUER)

        def allowed(condition: Resource, groups: Iterable[str]) -> Resource:
            one_of = [_all_of(ours, condition)]
            if oidc is not None:
                one_of.append(_all_of(_claim("iss", oidc.issuer), _in_groups(oidc.claim, groups)))
            return _deny_unless(_any_of(*one_of))

        policies |= {
            "other-project": allowed(_claim("project", admission.project), grants),
            "other-model": allowed(
                _any_of(*(_listed("models", name) for name in sorted(served))),
                [group for group, grant in grants.items() if served & set(grant.models)],
            ),
            "no-scope": allowed(
                _all_of(*(_listed("scopes", scope.value) for scope in scopes)),
                [group for group, grant in grants.items() if set(scopes) <= set(grant.scopes)],
            ),
        }
        filters[IDENTITY] = {"@type": _JWT_ROUTE, "requirement_name": _REQUIREMENT}
    rules = {"rules": {"action": "DENY", "policies": policies}}
    filters[PERMITTED] = {"@type": _RBAC_ROUTE, "rbac": rules}
    return filters


def _in_groups(claim: str, groups: Iterable[str]) -> Resource:
    """The claim names one of the groups: in a list, or as a word of a text."""
    one_of = []
    for group in sorted(groups):
        word = {"google_re2": {}, "regex": f"(.* )?{re.escape(group)}( .*)?"}
        one_of += [_listed(claim, group), _metadata(claim, {"string_match": {"safe_regex": word}})]
    return _any_of(*one_of) if one_of else {"not_id": {"any": True}}


def _larger_than(bytes_max: int) -> Resource:
    length = {"start": bytes_max + 1, "end": 2**63 - 1}
    return {
        "permissions": [{"header": {"name": "content-length", "range_match": length}}],
        "principals": [{"any": True}],
    }


def _deny_unless(condition: Resource) -> Resource:
    """A claim that is missing fulfils nothing."""
    return {"permissions": [{"any": True}], "principals": [{"not_id": condition}]}


def _any_of(*conditions: Resource) -> Resource:
    return {"or_ids": {"ids": list(conditions)}}


def _all_of(*conditions: Resource) -> Resource:
    return {"and_ids": {"ids": list(conditions)}}


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
