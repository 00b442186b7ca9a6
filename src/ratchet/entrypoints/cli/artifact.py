"""`ratchet artifact`: what the object store holds, why, and what may go."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from ratchet.adapters.specfile.reader import duration_seconds
from ratchet.entrypoints.cli.client import connect
from ratchet.entrypoints.cli.key import only_project
from ratchet.entrypoints.cli.tables import list_table

app = typer.Typer(
    no_args_is_help=True,
    help="What the object store holds (list, why), what may go (prune), what must stay (pin).",
)

StateOption = Annotated[Path | None, typer.Option("--state-dir")]
JsonOption = Annotated[bool, typer.Option("--json")]
ProjectOption = Annotated[str | None, typer.Option(help="Default: the only one there is.")]
Subject = Annotated[str, typer.Argument(help="A version, a dataset, a run, or an artifact.")]
SHOWN = 20


@app.command("list")
def listing(
    limit: Annotated[int, typer.Option(min=1, max=10_000)] = 50,
    state_dir: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Every artifact with its size, its state and what keeps it."""
    found = connect(state_dir).get("/artifacts", limit=limit)
    if as_json:
        print(json.dumps(found, indent=2))
        return
    table = list_table("artifact", "kind", "size", "state", "kept because")
    for each in found["artifacts"]:
        because = each["because"]
        more = f" (+{len(because) - 1})" if len(because) > 1 else ""
        kept = f"{because[0]}{more}" if because else "-"
        table.add_row(each["uri"], each["kind"], _size(each["bytes"]), each["state"], kept)
    console = Console()
    console.print(table)
    total = ", ".join(f"{kind} {_size(n)}" for kind, n in sorted(found["bytes"].items()))
    console.print(f"{found['count']} artifacts: {total or 'nothing'}")


@app.command()
def prune(
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do it; else it is only shown.")] = False,
    grace: Annotated[str, typer.Option(help='Of new tombstones, like "1d".')] = "",
    state_dir: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what nothing keeps; with --yes put tombstones on it and remove what had its grace."""
    client = connect(state_dir)
    if yes:
        body = {"grace_seconds": duration_seconds(grace)} if grace else {}
        found = client.post("/artifacts/prune", body)
    else:
        found = client.get("/artifacts", limit=10_000)
    if as_json:
        found.pop("artifacts", None)
        print(json.dumps(found, indent=2))
        return
    console = Console()
    _table(console, "kept by nothing", found["unneeded"])
    _table(console, "under a tombstone", found["buried"])
    unneeded = f"{found['unneeded_count']} artifacts, {_size(found['unneeded_bytes'])}"
    buried = f"{found['buried_count']} under a tombstone, {_size(found['buried_bytes'])}"
    if not yes:
        console.print(f"kept by nothing: {unneeded}; {buried}. Nothing was changed: --yes does it.")
        return
    size = _size(found["bytes_removed"])
    console.print(f"tombstones on {unneeded}; removed {found['removed_count']}, {size}")


def _table(console: Console, title: str, artifacts: list[dict[str, Any]]) -> None:
    if not artifacts:
        return
    table = list_table(title, "kind", "size", "since", "bytes stay until")
    for each in artifacts[:SHOWN]:
        until = (each["not_before"] or "-")[:16].replace("T", " ")
        born = each["created_at"][:16].replace("T", " ")
        table.add_row(each["uri"], each["kind"], _size(each["bytes"]), born, until)
    console.print(table)
    if len(artifacts) > SHOWN:
        console.print(f"and {len(artifacts) - SHOWN} more (--json shows all)")


@app.command()
def why(
    subject: Subject,
    project: ProjectOption = None,
    state_dir: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """What keeps an artifact, or those of a version, a dataset or a run."""
    client = connect(state_dir)
    name = only_project(client, project)
    found = client.get("/artifacts/why", project=name, subject=subject)
    if as_json:
        print(json.dumps(found, indent=2))
        return
    for uri, because in found.items():
        print(uri)
        for each in because:
            print(f"  {each}")


@app.command()
def pin(
    subject: Subject,
    because: Annotated[str, typer.Option("--why", help="Reason, kept with the pin.")],
    legal: Annotated[bool, typer.Option(help="A legal hold: only an admin ends it.")] = False,
    project: ProjectOption = None,
    state_dir: StateOption = None,
) -> None:
    """Keep something, whatever the rules say."""
    client = connect(state_dir)
    body = {
        "project": only_project(client, project),
        "subject": subject,
        "why": because,
        "legal": legal,
    }
    kept = client.post("/artifacts/pins", body)["kept"]
    print(f"{subject} is kept: {len(kept)} artifacts")


@app.command()
def unpin(subject: Subject, project: ProjectOption = None, state_dir: StateOption = None) -> None:
    """The rules decide again."""
    client = connect(state_dir)
    name = only_project(client, project)
    client.delete("/artifacts/pins", project=name, subject=subject)
    print(f"{subject} is not pinned any more")


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    raise AssertionError
