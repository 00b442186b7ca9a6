"""`ratchet trigger`: what asks for runs by itself, and what became of what was heard."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ratchet.entrypoints.cli.client import connect
from ratchet.entrypoints.cli.key import only_project
from ratchet.entrypoints.cli.tables import list_table, minute

app = typer.Typer(help="Merges, schedules, feedback: what starts runs.", no_args_is_help=True)


@app.command("list")
def list_(
    project: Annotated[str | None, typer.Option(help="Default: the only one there is.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=200)] = 20,
    state_dir: Annotated[Path | None, typer.Option("--state-dir")] = None,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """What each trigger waits for, and what became of what was heard."""
    client = connect(state_dir)
    found = client.get("/triggers", project=only_project(client, project), limit=limit)
    if as_json:
        print(json.dumps(found, indent=2))
        return
    known, last = found["triggers"], found["last"]
    console = Console(soft_wrap=True)
    if merge := known["merge"]:
        paths = ", ".join(merge["paths"]) or "anything"
        console.print(f"merge     {known['repository']} {merge['branch']}: {paths}", markup=False)
    if schedule := known["schedule"]:
        due = minute(found["next_schedule"])
        word = last.get("schedule", {}).get("word") or "nothing yet"
        console.print(
            f"schedule  {schedule['cron']} {schedule['timezone']}: next {due} UTC; last: {word}",
            markup=False,
        )
    if known["feedback"]:
        word = last.get("feedback", {}).get("word") or "nothing yet"
        console.print(f"feedback  {known['feedback']} new; last: {word}", markup=False)
    if not (merge or schedule or known["feedback"]):
        console.print("no triggers: runs start by `ratchet run start`, or by the API")
    if not found["heard"]:
        return
    table = list_table("commit", "by", "heard", "became", "because")
    for each in found["heard"]:
        table.add_row(
            each["after"][:12], f"{each['push']['who']} ({each['source']})",
            minute(each["heard_at"]), each["state"], each["because"][:100],
        )  # fmt: skip
    console.print(table)
