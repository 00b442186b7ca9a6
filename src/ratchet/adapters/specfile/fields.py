"""Every key of `ratchet.yaml`: what it may hold and what it means.

One table, `FIELDS`; the reader, the JSON Schema for editors and the reference page come from it.
What is planned but not built is refused by name, so that no file promises what does not happen.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ratchet.adapters.specfile.field import (
    DURATION_SCHEMA,
    PATHS_SCHEMA,
    RATES_SCHEMA,
    SHARE_SCHEMA,
    STRING,
    Field,
)
from ratchet.adapters.specfile.guards import keys, read_flag, read_metrics
from ratchet.adapters.specfile.training import TRAINING
from ratchet.adapters.specfile.values import (
    duration,
    number,
    read_cache,
    read_capture,
    read_exact,
    read_fallback,
    read_notches,
    read_notify,
    read_oidc,
    read_one_of,
    read_rates,
    read_segments,
    read_shadow,
    read_size,
    read_texts,
    read_whole,
    read_windows,
    share,
)
from ratchet.core.segments import Dimension

_GUARD_SCHEMAS: Mapping[str, Mapping[str, Any]] = {
    "margin": SHARE_SCHEMA,
    "tolerance": SHARE_SCHEMA,
    "prove": {"type": "boolean"},
    "pattern": STRING,
    "labels": {"type": "array", "items": STRING},
    "json_schema": {"type": "object"},
    "within": DURATION_SCHEMA,
}

SERVING: Mapping[str, Field] = {
    "gateway.access": Field(
        read_one_of("keys", "open"),
        {"enum": ["keys", "open"]},
        "Whom the gateway serves: bearers of a key, or everybody. Default keys.",
    ),
    "gateway.timeouts.first_byte": Field(
        duration,
        DURATION_SCHEMA,
        "Until an answer begins; the whole of it where it is no stream. Default 120s.",
    ),
    "gateway.timeouts.idle": Field(
        duration, DURATION_SCHEMA, "Between two tokens of a stream. Default 60s."
    ),
    "gateway.timeouts.total": Field(
        duration, DURATION_SCHEMA, "Until an answer must be whole. Default 15m."
    ),
    "gateway.max_body": Field(
        read_size, STRING, "Largest request; above it 413. At most 64MiB. Default 8MiB."
    ),
    "gateway.limits.key": Field(
        read_rates,
        RATES_SCHEMA,
        'Requests of each key, like "600/m", or by tier: {gold: 6000/m, "*": 60/m}. Default none.',
    ),
    "gateway.limits.tier": Field(
        read_rates, RATES_SCHEMA, "Requests of all keys of a tier together. Default none."
    ),
    "gateway.in_flight_per_engine": Field(
        read_whole(1, 100_000),
        {"type": "integer"},
        "Requests at one engine, waiting or being answered; more are refused. Default 128.",
    ),
    "gateway.priority_tiers": Field(
        read_texts, PATHS_SCHEMA, "Tiers with as much room again of their own. Default none."
    ),
    "gateway.pinned": Field(
        read_texts, PATHS_SCHEMA, "Principals that always get the baseline. Default none."
    ),
    "gateway.sticky": Field(
        read_one_of("header", "user"),
        {"enum": ["header", "user"]},
        "What names a conversation: the header x-ratchet-conversation, or else also `user` or "
        "`metadata.conversation_id` of the body, which is then buffered. Default header.",
    ),
    "gateway.oidc": Field(
        read_oidc,
        {
            "type": "object",
            "additionalProperties": False,
            "required": ["issuer", "audience", "jwks", "groups"],
            "properties": {
                "issuer": STRING,
                "audience": STRING,
                "jwks": STRING,
                "claim": STRING,
                "groups": {"type": "object"},
            },
        },
        "Access tokens of an identity provider, besides keys: {issuer, audience, jwks, claim, "
        "groups: {NAME: {models, scopes, role}}}.",
    ),
    "gateway.fallback": Field(
        read_fallback,
        {
            "type": "object",
            "additionalProperties": False,
            "required": ["url"],
            "properties": {"url": STRING, "key": STRING},
        },
        "Who answers when no engine of the baseline is left: {url: https://HOST, key: $VARIABLE}.",
    ),
    "gateway.exact": Field(
        read_exact,
        {
            "oneOf": [
                {"type": "boolean"},
                {
                    "type": "object",
                    "additionalProperties": False,
                    "properties": {
                        "paths": PATHS_SCHEMA,
                        "away": {"enum": ["allow", "refuse"]},
                        "answer_tokens": {"type": "integer"},
                    },
                },
            ]
        },
        "Budgets are exact: what a request may take is put aside in Valkey before it is let in. "
        "true, or {paths, away, answer_tokens}: which paths, what to do without Valkey (allow or "
        "refuse; default allow), how long an answer may become that was asked for without "
        "max_tokens (default 4096). Default: off, exact after two seconds.",
    ),
    "gateway.cache": Field(
        read_cache,
        {
            "oneOf": [
                {"type": "boolean"},
                {
                    "type": "object",
                    "additionalProperties": False,
                    "properties": {"ttl": STRING, "max_answer": STRING},
                },
            ]
        },
        "Answer deterministic requests (temperature 0, or a seed) again from Valkey: true, or "
        "{ttl: 1h, max_answer: 1MiB}. Default: no cache.",
    ),
    "gateway.capture": Field(
        read_capture,
        {
            "oneOf": [
                {"type": "boolean"},
                {
                    "type": "object",
                    "additionalProperties": False,
                    "properties": {"sample": {"type": ["string", "number"]}, "retention": STRING},
                },
            ]
        },
        "Keep a sample of requests and answers as turns, scrubbed: true, or "
        "{sample: 10%, retention: 90d}. Default: nothing is kept.",
    ),
    "release.notches": Field(
        read_notches,
        {"type": "array", "items": {"type": "integer"}},
        "Instead of harm_budget: canary weights in per cent, each left upwards after "
        "units_per_notch answers without suspicion. That is exposure and no proof; for little "
        "traffic and demonstrations.",
    ),
    "release.harm_budget": Field(
        number(1, 1e9),
        {"type": "number"},
        "Bad answers, besides those that the baseline would have given, that a release may cost. "
        "The weight follows from it, and promotion is by proof; that takes some 5,000 answers. "
        "From 50 on most good releases are decided. Default 100.",
    ),
    "release.time_per_notch": Field(
        duration, DURATION_SCHEMA, "How long a canary stays at a notch at least. Default 0s."
    ),
    "release.min_duration": Field(
        duration,
        DURATION_SCHEMA,
        "Nothing is promoted sooner after its first traffic, whatever is proven. Default 0s.",
    ),
    "release.approval": Field(
        read_flag,
        {"type": "boolean"},
        "The judge pauses a release that it would promote, at its weight, and a person promotes "
        "it (`ratchet release promote`). Default false.",
    ),
    "release.units_per_notch": Field(
        read_whole(1, 1_000_000),
        {"type": "integer"},
        "With notches: canary answers before a climb. Default 20.",
    ),
    **{key: Field(read, _GUARD_SCHEMAS[key.rpartition(".")[2]], doc) for key, read, doc in keys()},
    "release.metrics": Field(
        read_metrics,
        {"type": "object", "additionalProperties": {"type": "object"}},
        "Guards over what your own systems push (`POST /api/v1/metrics`): {NAME: {kind: rate, "
        "score or amount, margin, tolerance, prove, within: 10m, two_sided}}. A rate may instead "
        "have prometheus: {bad: PROMQL, all: PROMQL}, counters of one version ($version) at "
        "RATCHET_PROMETHEUS_URL, which are read every 15 s; count conversations or orders, not "
        "requests.",
    ),
    "release.deadline": Field(
        duration,
        DURATION_SCHEMA,
        "An answer of either arm that has not ended by then counts as failed. Default 60s.",
    ),
    "release.max_duration": Field(
        duration,
        DURATION_SCHEMA,
        "After this a canary that is still undecided is held, and a person asked. Default 7d.",
    ),
    "release.shadow": Field(
        read_shadow,
        {
            "type": ["boolean", "object"],
            "properties": {
                "pairs": {"type": "integer"},
                "judge": {"type": "object", "additionalProperties": STRING},
            },
        },
        "Before its first traffic the canary answers what the baseline was asked, and the answers "
        "are compared pair by pair: by the guards that look at answers, and by a judge, a model "
        "behind OpenAI's API. true, or {pairs: 200, judge: {url: https://HOST/v1, model: NAME, "
        "key: $VARIABLE, criteria: what better means}}. Needs gateway.capture. Default: none.",
    ),
    "release.segments": Field(
        read_segments,
        {"type": "array", "items": {"enum": [dimension.value for dimension in Dimension]}},
        "Parts of the traffic that a release is judged within, too, at half of its error rate: "
        "tenant (who a key belongs to), language (the first of accept-language), prompt_length "
        "(short below 1 KiB of request, long from 8 KiB), feature (what clients say in the header "
        "x-ratchet-segment, such as tool use). Those with a tenth of the traffic. Default: none.",
    ),
    "release.freeze": Field(
        read_windows,
        {"type": ["string", "array"], "items": STRING},
        'Times of the week in which nothing goes up, like "fri 16:00 - mon 08:00 Europe/Berlin". '
        "Harm still rolls back.",
    ),
    "release.holdback": Field(
        duration,
        DURATION_SCHEMA,
        "How long a share of the users keeps the old version after a promotion; it goes on being "
        "compared, and the way back is a change of weights. Default 0s.",
    ),
    "release.holdback_share": Field(share, SHARE_SCHEMA, "How large a share. Default 5%."),
    "release.blind_hold": Field(
        duration, DURATION_SCHEMA, "Time without telemetry before weight 0. Default 60s."
    ),
    "notify": Field(
        read_notify,
        {"type": "array", "items": {"type": "object", "additionalProperties": STRING}},
        "Who is told when a release moves from one state to another: {slack: $VARIABLE} (an "
        "incoming webhook's url), {pagerduty: $VARIABLE} (an Events API v2 key; pages for a "
        "rollback and for what a person must decide), {webhook: URL, secret: $VARIABLE} (JSON, "
        "signed as Standard Webhooks has it). The server's environment has the variables.",
    ),
    "release.drill.error_rate": Field(
        share, SHARE_SCHEMA, "Fire drill: share of requests that the canary fails on purpose."
    ),
    "release.drill.delay": Field(
        duration, DURATION_SCHEMA, "Fire drill: delay that the canary adds on purpose."
    ),
    "release.drill.delay_share": Field(
        share, SHARE_SCHEMA, "Fire drill: share of the requests that it delays. Default 100%."
    ),
}

FIELDS: Mapping[str, Field] = {**TRAINING, **SERVING}

# A list of objects, so it has a reader of its own.
GATE_BOUNDS = (
    "at_least",
    "at_most",
    "not_worse_than_baseline_by",
    "better_than_baseline_by",
)
GATE_SLICES = "slices"

NOT_BUILT: Mapping[str, str] = {
    "data.contract": "data contracts",
}
