"""`ratchet engine`: what serves, and engines that somebody else runs in other places."""

from __future__ import annotations

import getpass
import json
from typing import Annotated

import typer
from rich.console import Console

from ratchet.core.errors import Rejected
from ratchet.entrypoints.cli.client import connect
from ratchet.entrypoints.cli.key import JsonOption, StateOption
from ratchet.entrypoints.cli.tables import list_table

app = typer.Typer(help="Engines: list, add one from elsewhere, drop it.", no_args_is_help=True)

PlaceArgument = Annotated[str, typer.Argument(metavar="ADDRESS:PORT", help="Like 10.0.0.7:8000.")]


@app.command("list")
def listing(state_dir: StateOption = None, as_json: JsonOption = False) -> None:
    """Engines of this stack and of other places."""
    client = connect(state_dir)
    own, places = client.get("/engines"), client.get("/engines/places")
    if as_json:
        print(json.dumps({"own": own, "elsewhere": places}, indent=2))
        return
    table = list_table("version", "at", "region", "state")
    for engine in own:
        at = f"127.0.0.1:{engine['port']}" if engine["port"] else ""
        table.add_row(engine["version_id"], at, "", f"{engine['state']} {engine['because']}")
    for place in places:
        at = f"{place['host']}:{place['port']}"
        table.add_row(place["version_id"], at, place["region"], f"added by {place['added_by']}")
    Console().print(table)


@app.command()
def add(
    version: str,
    place: PlaceArgument,
    region: Annotated[str, typer.Option(help="Gateways take their own region first.")] = "",
    state_dir: StateOption = None,
) -> None:
    """Route to an engine elsewhere, too; it must serve this version under the model's name."""
    host, port = _address(place)
    body = {"host": host, "port": port, "region": region, "who": getpass.getuser()}
    connect(state_dir).put(f"/engines/{version}/places", body)
    print(f"gateways route to {place} for {version} as soon as it is healthy")


@app.command()
def drop(version: str, place: PlaceArgument, state_dir: StateOption = None) -> None:
    """Route there no longer; requests in flight end."""
    host, port = _address(place)
    body = {"host": host, "port": port, "who": getpass.getuser()}
    connect(state_dir).post(f"/engines/{version}/places/drop", body)
    print(f"gateways no longer route to {place} for {version}")


def _address(place: str) -> tuple[str, int]:
    host, _, port = place.rpartition(":")
    if not host or not port.isdigit():
        raise Rejected(f"found {place!r}, expected an address and a port like 10.0.0.7:8000")
    return host, int(port)
