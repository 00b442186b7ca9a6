"""`ratchet release`: plan, rehearse, show, explain, replay, and what people may do to one."""

from __future__ import annotations

import getpass
import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from ratchet.adapters.specfile.reader import duration_seconds, load_spec
from ratchet.core.errors import RatchetError
from ratchet.entrypoints.cli import ahead
from ratchet.entrypoints.cli.client import Client, connect
from ratchet.entrypoints.cli.tables import list_table
from ratchet.entrypoints.cli.watch import find_release, follow_release

app = typer.Typer(help="Versions on their way to users.", no_args_is_help=True)

StateOption = Annotated[Path | None, typer.Option("--state-dir", help="Folder of the stack.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Machine-readable answer.")]
IdArgument = Annotated[str | None, typer.Argument(help="Default: the newest.")]
WhyOption = Annotated[str, typer.Option("--why", help="Reason, kept in the ledger.")]
ForceOption = Annotated[str, typer.Option("--why", help="Reason, kept in the ledger; required.")]
YesOption = Annotated[bool, typer.Option("--yes", help="Do not ask.")]

UNDO = {
    "promote": "ratchet release rollback, while the holdback lasts",
    "rollback": "start a new run",
    "pause": "ratchet release resume",
    "resume": "ratchet release pause",
    "extend": "ratchet release rollback",
}


@app.command()
def show(
    release_id: IdArgument = None,
    watch: Annotated[bool, typer.Option("--watch", help="Follow it to its end.")] = False,
    state_dir: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """A release with its verdicts and its evidence."""
    client = connect(state_dir)
    wanted = find_release(client, release_id)
    console = Console(stderr=as_json)
    release = client.get(f"/releases/{wanted}")
    if watch:
        console.print(f"release {wanted}: {release['candidate']} against {release['baseline']}")
        release = follow_release(client, wanted, console)
    if as_json:
        print(json.dumps(release, indent=2))
    else:
        _print(release, console)


def _print(release: dict[str, Any], console: Console) -> None:
    console.print(f"release {release['id']}: {release['stage']}")
    console.print(f"  {release['because']}")
    for verdict in release["verdicts"]:
        console.print(
            f"  {verdict['at'][11:19]} {verdict['from_stage']} → {verdict['to_stage']} "
            f"{verdict['weight_percent']:g} %  {verdict['because']}  ({verdict['who']})"
        )
    table = list_table("version", "requests", "failed", "p50 ms", "p95 ms")
    for row in release["traffic"]:
        table.add_row(
            row["version_id"], str(row["requests"]), str(row["failed"]),
            f"{row['p50_ms']:.0f}", f"{row['p95_ms']:.0f}",
        )  # fmt: skip
    console.print(table)


@app.command("list")
def list_(
    limit: Annotated[int, typer.Option(min=1, max=200)] = 20,
    state_dir: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """The newest releases."""
    releases = connect(state_dir).get("/releases", limit=limit)
    if as_json:
        print(json.dumps(releases, indent=2))
        return
    table = list_table("release", "stage", "candidate", "baseline", "because")
    for r in releases:
        table.add_row(r["id"], r["stage"], r["candidate"], r["baseline"], r["because"][:90])
    Console().print(table)


def _act(
    verb: str, release_id: str | None, why: str, yes: bool, client: Client, **more: float
) -> dict[str, Any]:
    wanted = find_release(client, release_id)
    release = client.get(f"/releases/{wanted}")
    if not yes:
        typer.confirm(
            f"{verb} release {wanted} ({release['candidate']}, now {release['stage']})? "
            "This moves live traffic",
            abort=True,
        )
    body = {"who": getpass.getuser(), "why": why, **more}
    after: dict[str, Any] = client.post(f"/releases/{wanted}/{verb}", body)
    return after


def _say(verb: str, release: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(release, indent=2))
    else:
        print(f"release {release['id']} is {release['stage']}. To undo: {UNDO[verb]}")


app.command()(ahead.plan)
app.command()(ahead.rehearse)


def _otherwise(found: dict[str, Any]) -> str:
    seen = f"{found['canary_units']} canary answers of {found['units']} in all"
    if found["decision"] == "undecided":
        return f"no proof in {seen}"
    return f"{found['decision']} after {seen}"


@app.command()
def replay(
    release_id: IdArgument = None,
    spec: Annotated[
        Path | None, typer.Option("--spec", help="What would this spec's plan have decided?")
    ] = None,
    state_dir: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compute every verdict again from the answers on record.  Exit code 1 when one differs."""
    client = connect(state_dir)
    wanted = find_release(client, release_id)
    if spec is not None:
        load_spec(spec)
        body = {"spec": spec.read_text(), "path": str(spec.absolute())}
        found = client.post(f"/releases/{wanted}/otherwise", body)
        print(json.dumps(found, indent=2) if as_json else f"{spec}: {_otherwise(found)}")
        return
    verdicts = client.get(f"/releases/{wanted}/replay")
    if as_json:
        print(json.dumps(verdicts, indent=2))
    else:
        for verdict in verdicts:
            same = ", ".join(verdict["differences"]) or "the same to the last bit"
            print(f"{verdict['signal']:<10} {verdict['weight_percent']:>5g} %  {same}")
    if differing := [v for v in verdicts if v["differences"]]:
        raise RatchetError(f"{len(differing)} of {len(verdicts)} verdicts come out differently")


@app.command()
def explain(
    release_id: IdArgument = None, state_dir: StateOption = None, as_json: JsonOption = False
) -> None:
    """Why: every guard with its numbers, the ledger, and what it means, as Markdown."""
    client = connect(state_dir)
    wanted = find_release(client, release_id)
    if as_json:
        print(json.dumps(client.get(f"/releases/{wanted}")["guards"], indent=2))
    else:
        print(client.text(f"/releases/{wanted}/report"), end="")


@app.command()
def extend(
    why: ForceOption,
    release_id: IdArgument = None,
    budget: Annotated[
        float, typer.Option("--budget", min=0.0, help="Bad answers more that may be given.")
    ] = 0.0,
    by: Annotated[str, typer.Option("--for", help="Time more, like 12h.")] = "0s",
    yes: YesOption = False,
    state_dir: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give a release more harm budget or time; one that was held for want of it goes on."""
    more = {"bad_answers": budget, "seconds": duration_seconds(by)}
    _say("extend", _act("extend", release_id, why, yes, connect(state_dir), **more), as_json)


@app.command()
def promote(
    why: ForceOption,
    release_id: IdArgument = None,
    yes: YesOption = False,
    state_dir: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """All traffic to the canary now, without waiting for evidence."""
    _say("promote", _act("promote", release_id, why, yes, connect(state_dir)), as_json)


@app.command()
def rollback(
    release_id: IdArgument = None,
    why: WhyOption = "decided by a person",
    yes: YesOption = False,
    state_dir: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """No traffic to the canary; after a promotion, back to the old version while it is warm."""
    _say("rollback", _act("rollback", release_id, why, yes, connect(state_dir)), as_json)


@app.command()
def pause(
    release_id: IdArgument = None,
    why: WhyOption = "decided by a person",
    yes: YesOption = False,
    state_dir: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Keep the weight; evidence of harm still rolls back."""
    _say("pause", _act("pause", release_id, why, yes, connect(state_dir)), as_json)


@app.command()
def resume(
    release_id: IdArgument = None,
    why: WhyOption = "decided by a person",
    yes: YesOption = False,
    state_dir: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Go on after a pause or a hold."""
    _say("resume", _act("resume", release_id, why, yes, connect(state_dir)), as_json)
