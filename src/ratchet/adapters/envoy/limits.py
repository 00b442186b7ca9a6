"""How many requests a key and a tier may send, counted by each gateway for itself.

A file of its own (extension config discovery), not part of the routes: the buckets must not be
full again whenever a weight moves.  A gateway gets its part of every limit.  A bucket starts full,
so in any time t a limit of r requests per s seconds lets through at most r + r * t / s; a change of
the limits, or of the number of gateways, fills the buckets once more.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from ratchet.adapters.envoy.admission import KEY_HEADER, TIER_HEADER
from ratchet.adapters.envoy.words import HTTP_FILTERS, Resource
from ratchet.core.serving import ANY_TIER, Rate, Serving

LIMITS = "limits"
TYPE = f"{HTTP_FILTERS}local_ratelimit.v3.LocalRateLimit"
# Buckets that are remembered, for the keys that came last; about 200 bytes each.
KEYS_MAX = 20_000
# Envoy wants a bucket for what no limit names.
_UNLIMITED = {"max_tokens": 4_000_000_000, "tokens_per_fill": 4_000_000_000, "fill_interval": "1s"}
_ALL = {"default_value": {"numerator": 100, "denominator": "HUNDRED"}}


def limits(serving: Serving | None, gateways: int) -> Resource:
    """The filter; without a serving, one that limits nothing."""
    config: Resource = {"@type": TYPE, "stat_prefix": LIMITS}
    if serving is None or not (serving.key_rates or serving.tier_rates):
        return config
    return config | {
        "token_bucket": _UNLIMITED,
        "always_consume_default_token_bucket": False,
        "filter_enabled": _ALL,
        "filter_enforced": _ALL,
        "response_headers_to_add": [
            {"header": {"key": "retry-after", "value": str(_retry_seconds(serving, gateways))}}
        ],
        "enable_x_ratelimit_headers": "DRAFT_VERSION_03",
        "max_dynamic_descriptors": KEYS_MAX,
        "rate_limits": [
            *_actions(serving.key_rates, "key", _KEY),
            *_actions(serving.tier_rates, "together", _TOGETHER),
        ],
        "descriptors": [
            # An entry without a value stands for every value: a bucket for each key.
            *_buckets(serving.key_rates, "key", {"key": "key"}, gateways),
            *_buckets(serving.tier_rates, "together", {"key": "all", "value": "all"}, gateways),
        ],
    }


def _retry_seconds(serving: Serving, gateways: int) -> int:
    """When the slowest bucket has one more; `x-ratelimit-reset` of the answer says it exactly."""
    rates = [*serving.key_rates.values(), *serving.tier_rates.values()]
    parts = [rate.share(gateways) for rate in rates]
    return max(1, math.ceil(max(part.seconds / part.requests for part in parts)))


_KEY = {"request_headers": {"header_name": KEY_HEADER, "descriptor_key": "key"}}
_TOGETHER = {"generic_key": {"descriptor_key": "all", "descriptor_value": "all"}}


def _actions(rates: Mapping[str, Rate], kind: str, what: Resource) -> Iterator[Resource]:
    """What is counted: by the tier that is named, or by none of those."""
    named = [tier for tier in rates if tier != ANY_TIER]
    for tier in rates:
        among, others = ([tier], False) if tier != ANY_TIER else (named, True)
        headers = [
            {"name": TIER_HEADER, "string_match": {"exact": name}, "invert_match": others}
            for name in among
        ] or [{"name": TIER_HEADER, "present_match": True}]
        match = {"descriptor_key": kind, "descriptor_value": tier, "headers": headers}
        yield {"actions": [{"header_value_match": match}, what]}


def _buckets(
    rates: Mapping[str, Rate], kind: str, what: Resource, gateways: int
) -> Iterator[Resource]:
    for tier, whole in rates.items():
        rate = whole.share(gateways)
        yield {
            "entries": [{"key": kind, "value": tier}, what],
            "token_bucket": {
                "max_tokens": rate.requests,
                "tokens_per_fill": rate.requests,
                "fill_interval": f"{rate.seconds:.3f}s",
            },
        }
