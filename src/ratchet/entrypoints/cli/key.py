"""`ratchet key`: create, list, rotate, revoke; and `ratchet usage`."""

from __future__ import annotations

import getpass
import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from ratchet.adapters.specfile.reader import duration_seconds
from ratchet.core.access import Role, Scope
from ratchet.core.errors import NotFound, Rejected
from ratchet.entrypoints.cli.client import Client, connect
from ratchet.entrypoints.cli.tables import list_table

app = typer.Typer(help="Keys of the gateway and of the control plane.", no_args_is_help=True)

StateOption = Annotated[Path | None, typer.Option("--state-dir", help="Folder of the stack.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Machine-readable answer.")]
ProjectOption = Annotated[str | None, typer.Option("--project", help="Default: the only one.")]
WhyOption = Annotated[str, typer.Option("--why", help="Reason, kept in the audit log.")]

NEVER = "never"


def only_project(client: Client, wanted: str | None) -> str:
    """The project that is named, or the one there is.  Raises `NotFound`."""
    if wanted:
        return wanted
    projects = client.get("/projects")
    if not projects:
        raise NotFound("there is no project yet: `ratchet init my-router`, `ratchet run start`")
    return str(projects[0]["name"])


@app.command()
def create(
    name: Annotated[str, typer.Option("--name", help="What it is for.")],
    project: ProjectOption = None,
    principal: Annotated[str, typer.Option(help="Who answers for it. Default: the name.")] = "",
    model: Annotated[list[str] | None, typer.Option(help="May be repeated. Default: any.")] = None,
    scope: Annotated[list[Scope] | None, typer.Option(help="May be repeated.")] = None,
    tier: Annotated[str, typer.Option(help="Tier that limits go by.")] = "standard",
    team: Annotated[str, typer.Option(help="Whose budget it uses, besides its own.")] = "",
    expires: Annotated[str, typer.Option(help='Like "30d", or "never".')] = "365d",
    role: Annotated[Role | None, typer.Option(help="Steers the control plane, too.")] = None,
    state_dir: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a key.  It is shown once and stored nowhere."""
    client = connect(state_dir)
    body: dict[str, Any] = {
        "project": only_project(client, project),
        "name": name,
        "principal": principal,
        "tier": tier,
        "team": team,
        "lives_seconds": None if expires == NEVER else duration_seconds(expires),
        "who": getpass.getuser(),
    }
    if model:
        body["models"] = model
    if scope:
        body["scopes"] = [each.value for each in scope]
    if role is not None:
        body["role"] = role.value
    _show(client.post("/keys", body), as_json)


def _show(made: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(made, indent=2))
        return
    until = f"until {made['expires_at'][:10]}" if made["expires_at"] else "for ever"
    # The token alone goes to standard output, so that a shell can take it.
    note = f"key {made['id']} ({made['name']}), valid {until}; the token is shown only now:"
    print(note, file=sys.stderr)
    print(made["key"])


@app.command("list")
def list_(
    project: ProjectOption = None,
    limit: Annotated[int, typer.Option(min=1, max=200)] = 50,
    state_dir: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Keys of a project, the newest first."""
    client = connect(state_dir)
    keys = client.get("/keys", project=only_project(client, project), limit=limit)
    if as_json:
        print(json.dumps(keys, indent=2))
        return
    table = list_table("key", "name", "ends in", "may", "state")
    for key in keys:
        may = ", ".join([*key["scopes"], *([key["role"]] if key["role"] else [])])
        state = "revoked" if key["revoked_at"] else "valid"
        if not key["revoked_at"] and key["expires_at"]:
            state = f"to {key['expires_at'][:10]}"
        table.add_row(key["id"], key["name"], f"…{key['hint']}", may, state)
    Console().print(table)


def living_key(client: Client, named: str, project: str | None = None) -> str:
    """The id of a key, which may be named by its name where only one that is valid has it.

    Raises `NotFound`, or `Rejected` when several have it.
    """
    if named.startswith("key_"):
        return named
    keys = client.get("/keys", project=only_project(client, project), limit=200)
    found = [key["id"] for key in keys if key["name"] == named and not key["revoked_at"]]
    if not found:
        raise NotFound(f"no valid key has the id or the name {named!r}: see `ratchet key list`")
    if len(found) > 1:
        raise Rejected(f"{len(found)} keys are named {named!r}: say which by its id")
    return str(found[0])


@app.command()
def rotate(
    key: Annotated[str, typer.Argument(metavar="KEY", help="Id, or name.")],
    state_dir: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """A second key like this one.  Change over, then revoke the first."""
    client = connect(state_dir)
    key_id = living_key(client, key)
    made = client.post(f"/keys/{key_id}/rotate", {"who": getpass.getuser()})
    _show(made, as_json)
    if not as_json:
        print(f"{key_id} stays valid until: ratchet key revoke {key_id}", file=sys.stderr)


@app.command()
def revoke(
    key: Annotated[str, typer.Argument(metavar="KEY", help="Id, or name.")],
    why: WhyOption = "revoked by a person",
    state_dir: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Refuse a key from now on, at every gateway within a second."""
    body = {"why": why, "who": getpass.getuser()}
    client = connect(state_dir)
    gone = client.post(f"/keys/{living_key(client, key)}/revoke", body)
    if as_json:
        print(json.dumps(gone))
    else:
        print(f"key {gone['id']} ({gone['name']}) is revoked. To undo: create a new one")


@app.command("rotate-signing")
def rotate_signing(
    why: WhyOption = "rotation",
    revoke: Annotated[
        bool, typer.Option("--revoke", help="Take back every key of the old pair: it leaked.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    state_dir: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Sign new keys with a new pair; those of the old one stay valid until they end."""
    if revoke and not yes:
        typer.confirm("This revokes every key of the old pair. Go on?", abort=True)
    body = {"why": why, "who": getpass.getuser(), "revoke": revoke}
    made = connect(state_dir).post("/signing-keys/rotate", body)
    if as_json:
        print(json.dumps(made))
    else:
        print(f"signing key {made['id']} signs from now on; {made['revoked']} keys were revoked")
