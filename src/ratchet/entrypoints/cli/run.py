"""`ratchet run`: start, watch, list, show, cancel."""

from __future__ import annotations

import getpass
import json
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from ratchet.adapters.specfile.reader import load_spec
from ratchet.core.placement.timeline import bar, cost_on_demand_usd, cost_usd
from ratchet.entrypoints.cli.client import Client, connect
from ratchet.entrypoints.cli.key import only_project
from ratchet.entrypoints.cli.tables import list_table, minute
from ratchet.entrypoints.cli.trigger import EXIT_BAD_INPUT, EXIT_FAILED, EXITS, start_run
from ratchet.entrypoints.cli.watch import RUN_COLOURS, find_run, follow_run
from ratchet.entrypoints.timeline import pieces_of
from ratchet.kit.clock import SystemClock

# A million rows take a minute.
CHECK_SECONDS = 600.0
BAR_WIDTH = 60

app = typer.Typer(help="Retrainings.", no_args_is_help=True)

StateOption = Annotated[Path | None, typer.Option("--state-dir", help="Folder of the stack.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Machine-readable answer.")]


@app.command()
def start(
    file: Annotated[Path, typer.Option("--file", "-f", help="The spec.")] = Path("ratchet.yaml"),
    watch_: Annotated[bool, typer.Option("--watch", help="Follow the run to its end.")] = False,
    key: Annotated[str, typer.Option(help="Idempotency key: sent twice, it is one run.")] = "",
    why: Annotated[str, typer.Option(help="For the record.")] = "",
    state_dir: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Retrain as the spec says."""
    client = connect(state_dir)
    run_id = start_run(client, file, kind="person", why=why, key=key)
    if watch_:
        _follow(client, run_id, as_json)
    elif as_json:
        print(json.dumps({"id": run_id, "url": f"{client.url}/runs/{run_id}"}))
    else:
        Console().print(f"run {run_id} queued: {client.url}/runs/{run_id}")


@app.command()
def check(
    file: Annotated[Path, typer.Option("--file", "-f", help="The spec.")] = Path("ratchet.yaml"),
    state_dir: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """What would stop a run of this spec before it costs anything.  Starts nothing.

    Exit code 2 when something would.
    """
    path = file.absolute()
    load_spec(path)
    body = {"spec": path.read_text(), "path": str(path)}
    found = connect(state_dir).post("/runs/check", body, seconds=CHECK_SECONDS)
    if as_json:
        print(json.dumps(found, indent=2))
    else:
        _print_check(found)
    if found["problems"]:
        raise typer.Exit(EXIT_BAD_INPUT)


def _print_check(found: dict[str, Any]) -> None:
    facts, console = found["facts"], Console(soft_wrap=True)
    say = partial(console.print, markup=False, highlight=False)
    if facts.get("rows"):
        say(
            f"rows      {facts['rows']} ({facts['bad_rows']} bad, {facts['duplicates']} with the "
            "prompt of another)"
        )
        answers = ", ".join(f"{text[:30]!r} {n}" for text, n in facts["answers"].items())
        say(f"answers   {facts['different_answers']} different; commonest: {answers}")
    say(f"held out  {facts['held_out']} items")
    if "tokens" in facts:
        spread = ", ".join(f"{name} {value}" for name, value in facts["tokens"].items())
        say(
            f"tokens    {spread}; {facts['tokens_an_epoch']} an epoch; the base reads "
            f"{facts['context_tokens']}"
        )
    for note in found["notes"]:
        say(f"note      {note}", style="yellow")
    for problem in found["problems"]:
        say(f"problem   {problem}", style="red")
    problems = len(found["problems"])
    say(
        f"{problems} problem{'s' if problems > 1 else ''}: a run would stop before it trains"
        if problems
        else "nothing would stop a run before it trains"
    )


@app.command()
def watch(
    run_id: Annotated[str | None, typer.Argument(help="Default: the newest.")] = None,
    state_dir: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Follow a run to its end."""
    client = connect(state_dir)
    _follow(client, find_run(client, run_id), as_json)


def _follow(client: Client, run_id: str, as_json: bool) -> None:
    console = Console(stderr=as_json)
    console.print(f"run {run_id}: {client.url}/runs/{run_id}")
    run = follow_run(client, run_id, console)
    if as_json:
        print(json.dumps(run))
    else:
        colour = RUN_COLOURS[run["state"]]
        console.print(f"[{colour}]{run['state'].replace('_', ' ')}[/]: {run['because']}")
    raise typer.Exit(EXITS.get(run["state"], EXIT_FAILED))


@app.command("list")
def list_(
    limit: Annotated[int, typer.Option(min=1, max=200)] = 20,
    state_dir: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """The newest runs."""
    runs = connect(state_dir).get("/runs", limit=limit)
    if as_json:
        print(json.dumps(runs, indent=2))
        return
    table = list_table("run", "state", "asked by", "created", "because")
    for run in runs:
        trigger = f"{run['trigger']['kind']} ({run['trigger']['who']})"
        colour = RUN_COLOURS.get(run["state"], "cyan")
        table.add_row(
            run["id"], f"[{colour}]{run['state']}[/]", trigger, minute(run["created_at"]),
            run["because"][:100],
        )  # fmt: skip
    Console().print(table)


@app.command()
def costs(
    project: Annotated[str | None, typer.Option(help="Default: the only one there is.")] = None,
    state_dir: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """What workers took and cost, by month, each at its own price, beside on-demand's."""
    client = connect(state_dir)
    rows = client.get("/compute", project=only_project(client, project))
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    table = list_table(
        "month", "runs", "attempts", "taken away", "hours", "on spot", "usd", "on demand"
    )
    for row in rows:
        table.add_row(
            row["month"], str(row["runs"]), str(row["attempts"]), str(row["taken_away"]),
            f"{row['seconds'] / 3600:.2f}", f"{row['spot_seconds'] / 3600:.2f}",
            f"{row['usd']:.2f}", f"{row['on_demand_usd']:.2f}",
        )  # fmt: skip
    Console().print(table)


@app.command()
def show(
    run_id: Annotated[str | None, typer.Argument(help="Default: the newest.")] = None,
    state_dir: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """One run with its stages."""
    client = connect(state_dir)
    run: dict[str, Any] = client.get(f"/runs/{find_run(client, run_id)}")
    if as_json:
        print(json.dumps(run, indent=2))
        return
    console = Console()
    console.print(f"run {run['id']}: {run['state']} {run['because']}")
    for stage in run["stages"]:
        console.print(f"  {stage['name']:<9} {stage['state']:<8} {stage['because']}")
    if run["version_id"]:
        console.print(f"  version {run['version_id']}")
    _print_timeline(run, console)


def _print_timeline(run: dict[str, Any], console: Console) -> None:
    """Where its training ran and why, if there was a choice."""
    pieces = pieces_of(run, SystemClock().now())
    if not pieces:
        return
    console.print(f"  ran on    {bar(pieces, BAR_WIDTH)}", highlight=False)
    console.print("            s spot, D on demand, . waits", style="dim", highlight=False)
    usual = run["spec"]["place"]["usd_per_hour"]
    usd, instead = cost_usd(pieces), cost_on_demand_usd(pieces, usual)
    console.print(f"  cost      {usd:.4g} USD; the same hours on demand {instead:.4g} USD")
    for choice in run["placements"]:
        zone = f" {choice['zone']}" if choice["zone"] else ""
        console.print(
            f"  {choice['at'][11:19]}  {choice['action'].replace('_', ' ')}{zone}: "
            f"{choice['because']}",
            highlight=False,
        )


@app.command()
def cancel(
    run_id: str,
    why: Annotated[str, typer.Option(help="For the record.")] = "no longer wanted",
    state_dir: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """End a run; its worker stops within seconds."""
    body = {"who": getpass.getuser(), "why": why}
    run = connect(state_dir).post(f"/runs/{run_id}/cancel", body)
    print(json.dumps(run) if as_json else f"run {run_id}: {run['state']}")
