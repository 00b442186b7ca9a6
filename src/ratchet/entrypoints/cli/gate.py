"""`ratchet gate explain`: why a candidate passed or not, with the items it won and lost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from ratchet.core.errors import NotFound
from ratchet.entrypoints.cli.client import connect
from ratchet.entrypoints.cli.watch import find_run

app = typer.Typer(help="Offline checks.", no_args_is_help=True)


@app.callback()
def _gates() -> None:
    """Offline checks of a candidate, before any traffic."""


@app.command()
def explain(
    run_id: Annotated[str | None, typer.Argument(help="Default: the newest.")] = None,
    state_dir: Annotated[Path | None, typer.Option("--state-dir")] = None,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Each gate's verdict, and examples of items won and lost against the baseline."""
    client = connect(state_dir)
    run = client.get(f"/runs/{find_run(client, run_id)}")
    stage = next(stage for stage in run["stages"] if stage["name"] == "gate")
    if not stage["detail"]:
        raise NotFound(f"run {run['id']} has not reached its gates: it is {run['state']}")
    if as_json:
        print(json.dumps(stage["detail"], indent=2))
        return
    console = Console()
    table = Table("gate", "verdict", "baseline", "candidate", title=f"run {run['id']}")
    for gate in stage["detail"]["gates"]:
        verdict = "[green]passed[/]" if gate["passed"] else "[red]failed[/]"
        table.add_row(gate["gate"], verdict, f"{gate['baseline']:.3g}", f"{gate['candidate']:.3g}")
    console.print(table)
    # Below, not beside: sentences in a narrow column cannot be read.
    for gate in stage["detail"]["gates"]:
        console.print(f"{'✓' if gate['passed'] else '✗'} {gate['because']}", markup=False)
    for suite in stage["detail"]["suites"]:
        _explain_suite(suite, console)


def _explain_suite(suite: dict[str, Any], console: Console) -> None:
    low, high = suite["accuracy_interval"]
    difference = suite["difference"]
    console.print(
        f"\n[bold]{suite['suite']}[/]: {suite['items']} items, accuracy 95 % interval "
        f"{low:.3f} to {high:.3f}, always the commonest answer scores {suite['majority']:.3f}; "
        f"won {difference['won']}, lost {difference['lost']} against the baseline"
    )
    for word in ("won", "lost"):
        for example in suite[word]:
            colour = "green" if word == "won" else "red"
            console.print(f"  [{colour}]{word}[/] ", end="")
            console.print(
                f"{example['prompt']!r}: expected {example['expected']!r}, baseline said "
                f"{example['baseline']!r}, candidate {example['candidate']!r}",
                markup=False,
                highlight=False,
            )
