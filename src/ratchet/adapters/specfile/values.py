"""How each kind of value in `ratchet.yaml` is read: a value of ours, or what was expected."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from ratchet.core.access import ANY_MODEL, Role, Scope
from ratchet.core.errors import Rejected
from ratchet.core.freeze import Window
from ratchet.core.notices import Channel, Service
from ratchet.core.quota import Away, Exact
from ratchet.core.segments import Dimension
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
from ratchet.core.shadow import PAIRS_MAX, PairJudge, Shadow
from ratchet.core.spec import LearnedTurns
from ratchet.core.triggers import CatchUp, Schedule

DURATION = re.compile(r"^(\d+(?:\.\d+)?)(ms|s|m|h|d)$")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE = re.compile(r"^(\d{1,9})(B|KiB|MiB)$")
_BYTES = {"B": 1, "KiB": 1024, "MiB": MEBIBYTE}
# As Kubernetes writes it, too.
_MEMORY = re.compile(r"^(\d{1,6})(MiB|GiB|Mi|Gi)$")
MEMORY_BYTES_MIN = 512 * MEBIBYTE
_RATE = re.compile(r"^(\d{1,9})/(s|m|h|d)$")
_ORIGIN = re.compile(r"^https?://[A-Za-z0-9.-]+(:\d{1,5})?/?$")
_VARIABLE = re.compile(r"^\$[A-Z_][A-Z0-9_]*$")
_POINTS = re.compile(r"^\+?(\d+(?:\.\d+)?)pp$")
_NAME = re.compile(r"^[a-z0-9][a-z0-9-]{0,62}$")


class Unfit(Exception):
    """A value of the wrong kind; the message says what was expected."""


def read_text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise Unfit("text")
    return value


def read_name(value: Any) -> str:
    if not isinstance(value, str) or not _NAME.match(value):
        raise Unfit("a name of lower-case letters, digits and dashes")
    return value


def read_whole(low: int, high: int) -> Callable[[Any], int]:
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
    match = DURATION.match(value) if isinstance(value, str) else None
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


def points(value: Any) -> float:
    match = _POINTS.match(value) if isinstance(value, str) else None
    if match is None or not 0 < float(match[1]) < 100:
        raise Unfit('percentage points above 0, like "+1pp" or "+0.5pp"')
    return float(match[1]) / 100.0


def read_texts(value: Any) -> tuple[str, ...]:
    values = value if isinstance(value, list) else [value]
    if not values or not all(isinstance(item, str) and item.strip() for item in values):
        raise Unfit("a path, or a list of paths")
    return tuple(values)


def read_command(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        try:
            value = shlex.split(value)
        except ValueError:
            value = None
    if not isinstance(value, list) or not value or not all(isinstance(x, str) for x in value):
        raise Unfit("a program with its arguments, as a list of texts or as one would type it")
    return tuple(value)


def read_checkpoints(value: Any) -> int:
    if value == "auto":
        return 0
    if type(value) is not int or not 1 <= value <= 1_000_000:
        raise Unfit("auto, or a whole number from 1 to 1000000")
    return value


def read_turns(value: Any) -> LearnedTurns | None:
    if isinstance(value, bool):
        return LearnedTurns() if value else None
    if not isinstance(value, dict) or not set(value) <= {"since", "rows", "keys"}:
        raise Unfit("true, or {since: 30d, rows: 10000, keys: [NAME]}")
    given: dict[str, Any] = {}
    if "since" in value:
        given["since_seconds"] = duration(value["since"])
    if "rows" in value:
        given["rows_max"] = read_whole(1, 1_000_000)(value["rows"])
    if "keys" in value:
        given["keys"] = read_texts(value["keys"])
    return LearnedTurns(**given)


def read_notches(value: Any) -> tuple[int, ...]:
    if not isinstance(value, list) or not all(type(item) is int for item in value):
        raise Unfit("a list of whole per cents that rises to 100, like [5, 25, 50, 100]")
    if not value or value[-1] != 100 or sorted(set(value)) != value or value[0] < 1:
        raise Unfit("a list of whole per cents that rises to 100, like [5, 25, 50, 100]")
    return tuple(value)


def read_windows(value: Any) -> tuple[str, ...]:
    windows = read_texts(value)
    for window in windows:
        try:
            Window.of(window)
        except Rejected as error:
            raise Unfit(str(error).partition("expected ")[2] or str(error)) from None
    return windows


def read_notify(value: Any) -> tuple[Channel, ...]:
    if not isinstance(value, list) or not value:
        raise Unfit("a list, like [{slack: $SLACK_WEBHOOK}, {pagerduty: $PAGERDUTY_KEY}]")
    return tuple(map(_channel, value))


def _channel(value: Any) -> Channel:
    fits = isinstance(value, dict) and all(isinstance(each, str) for each in value.values())
    if fits and set(value) in ({"slack"}, {"pagerduty"}):
        [(service, variable)] = value.items()
        if not _VARIABLE.match(variable):
            raise Unfit(f"{service}'s secret as the name of a variable, like $SLACK_WEBHOOK")
        return Channel(service=Service(service), variable=variable.removeprefix("$"))
    if not fits or not {"webhook"} <= set(value) <= {"webhook", "secret"}:
        raise Unfit(
            "{slack: $VARIABLE}, {pagerduty: $VARIABLE} or {webhook: URL, secret: $VARIABLE}"
        )
    url, secret = value["webhook"], value.get("secret", "")
    if not _is_url(url):
        raise Unfit("a webhook's url, like https://host/path")
    if secret and not _VARIABLE.match(secret):
        raise Unfit("a webhook's secret as the name of a variable, like $HOOK_SECRET")
    return Channel(service=Service.WEBHOOK, url=url, variable=secret.removeprefix("$"))


def read_shadow(value: Any) -> Shadow | None:
    if isinstance(value, bool):
        return Shadow() if value else None
    if not isinstance(value, dict) or not set(value) <= {"pairs", "judge"}:
        raise Unfit("true, or {pairs: 200, judge: {url, model, key: $VARIABLE, criteria}}")
    judge = value.get("judge")
    pairs = read_whole(1, PAIRS_MAX)(value.get("pairs", Shadow().pairs))
    return Shadow(pairs=pairs, judge=None if judge is None else _judge(judge))


def _judge(value: Any) -> PairJudge:
    known = {"url", "model", "key", "criteria"}
    if not isinstance(value, dict) or not {"url", "model"} <= set(value) <= known:
        raise Unfit("a judge: {url: https://HOST/v1, model: NAME, key: $VARIABLE, criteria}")
    texts = {name: read_text(text) for name, text in value.items()}
    if not _is_url(texts["url"]):
        raise Unfit("a judge's url, like https://host/v1")
    key = texts.get("key", "")
    if key and not _VARIABLE.match(key):
        raise Unfit("a judge's key as the name of a variable, like $JUDGE_KEY")
    return PairJudge(
        url=texts["url"].rstrip("/"),
        model=texts["model"],
        key_variable=key.removeprefix("$"),
        criteria=texts.get("criteria", ""),
    )


def read_segments(value: Any) -> tuple[Dimension, ...]:
    names = [dimension.value for dimension in Dimension]
    if not isinstance(value, list) or not value or any(name not in names for name in value):
        raise Unfit(f"a list of {', '.join(names)}")
    return tuple(map(Dimension, value))


def read_variable(value: Any) -> str:
    """A secret, by the name of the variable that holds it."""
    if not isinstance(value, str) or not _VARIABLE.match(value):
        raise Unfit("the name of a variable, like $WEBHOOK_SECRET: no secrets in files")
    return value.removeprefix("$")


def read_report(value: Any) -> str:
    """Base url of an API that takes commit statuses."""
    known = {"github": "https://api.github.com", "gitlab": "https://gitlab.com/api/v4"}
    if value in known:
        return known[value]
    if not _is_url(value):
        raise Unfit("github, gitlab, or the url of your own server's API, like https://HOST/api/v4")
    return str(value).rstrip("/")


def read_schedule(value: Any) -> Schedule:
    wanted = '"0 3 * * 1", or {cron, timezone: Europe/Berlin, jitter: 10m, catch_up: last}'
    known = {"cron": value} if isinstance(value, str) else value
    if not isinstance(known, dict) or "cron" not in known:
        raise Unfit(wanted)
    if not set(known) <= {"cron", "timezone", "jitter", "catch_up"}:
        raise Unfit(wanted)
    given: dict[str, Any] = {"cron": read_text(known["cron"])}
    if "timezone" in known:
        given["timezone"] = read_text(known["timezone"])
    if "jitter" in known:
        given["jitter_seconds"] = duration(known["jitter"])
    if "catch_up" in known:
        given["catch_up"] = CatchUp(read_one_of("last", "none")(known["catch_up"]))
    try:
        return Schedule(**given)
    except Rejected as error:
        raise Unfit(f"{wanted}: {error}") from None


def read_one_of(*words: str) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        if value not in words:
            raise Unfit(" or ".join(words))
        return str(value)

    return read


def read_size(value: Any) -> int:
    match = _SIZE.match(value) if isinstance(value, str) else None
    if match is None or not 0 < int(match[1]) * _BYTES[match[2]] <= BODY_BYTES_LIMIT:
        raise Unfit('a size with its unit up to 64MiB, like "512KiB" or "8MiB"')
    return int(match[1]) * _BYTES[match[2]]


def read_memory(value: Any) -> int:
    match = _MEMORY.match(value) if isinstance(value, str) else None
    size = int(match[1]) * (MEBIBYTE if match[2][0] == "M" else 1024 * MEBIBYTE) if match else 0
    if size < MEMORY_BYTES_MIN:
        raise Unfit('a size with its unit of at least 512MiB, like "8GiB"')
    return size


def _rate(value: Any) -> Rate:
    match = _RATE.match(value) if isinstance(value, str) else None
    if match is None or int(match[1]) < 1:
        raise Unfit('requests in a time, like "600/m", "10/s", "5000/h"')
    return Rate(int(match[1]), _SECONDS[match[2]])


def read_rates(value: Any) -> dict[str, Rate]:
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


def read_fallback(value: Any) -> Fallback:
    if not isinstance(value, dict) or not set(value) <= {"url", "key"} or "url" not in value:
        raise Unfit("{url: https://HOST, key: $VARIABLE}")
    url, key = value["url"], value.get("key", "")
    if not _is_url(url) or not _ORIGIN.match(url):
        raise Unfit("a url without a path, like https://host or http://host:port")
    if not isinstance(key, str) or (key and not _VARIABLE.match(key)):
        raise Unfit("a key as the name of a variable, like $OPENAI_API_KEY: no secrets in files")
    return Fallback(url=url.rstrip("/"), key_variable=key.removeprefix("$"))


def read_cache(value: Any) -> Cache | None:
    if isinstance(value, bool):
        return Cache() if value else None
    if not isinstance(value, dict) or not set(value) <= {"ttl", "max_answer"}:
        raise Unfit("true, or {ttl: 1h, max_answer: 1MiB}")
    given: dict[str, Any] = {}
    if "ttl" in value:
        given["ttl_seconds"] = duration(value["ttl"])
    if "max_answer" in value:
        given["answer_bytes_max"] = read_size(value["max_answer"])
    try:
        return Cache(**given)
    except Rejected as error:
        raise Unfit(str(error).partition("expected ")[2]) from None


def read_exact(value: Any) -> Exact | None:
    if isinstance(value, bool):
        return Exact() if value else None
    wanted = "true, or {paths: [/v1/chat/completions], away: refuse, answer_tokens: 4096}"
    if not isinstance(value, dict) or not set(value) <= {"paths", "away", "answer_tokens"}:
        raise Unfit(wanted)
    given: dict[str, Any] = {}
    if "paths" in value:
        given["paths"] = read_texts(value["paths"])
    if "away" in value:
        given["away"] = Away(read_one_of("allow", "refuse")(value["away"]))
    if "answer_tokens" in value:
        given["answer_tokens"] = read_whole(1, 10_000_000)(value["answer_tokens"])
    try:
        return Exact(**given)
    except Rejected as error:
        raise Unfit(str(error).partition("expected ")[2]) from None


def read_capture(value: Any) -> Capture | None:
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


def read_oidc(value: Any) -> Oidc:
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
            models=read_texts(value.get("models", [ANY_MODEL])),
            scopes=tuple(map(Scope, value.get("scopes", ["answers", "models"]))),
            role=Role(value["role"]) if "role" in value else None,
        )
    except ValueError:
        scopes, roles = ([each.value for each in kind] for kind in (Scope, Role))
        raise Unfit(f"scopes among {scopes}, a role among {roles}") from None


def read_base(value: Any) -> str:
    """`{package: name}`, `hf://org/name` or a path; the file's folder is added to paths later."""
    if isinstance(value, dict):
        if list(value) == ["package"] and isinstance(value["package"], str):
            return f"package:{value['package']}"
        raise Unfit("{package: NAME}, hf://ORG/NAME or a path")
    text = read_text(value)
    return f"hf:{text.removeprefix('hf://')}" if text.startswith("hf://") else f"path:{text}"
