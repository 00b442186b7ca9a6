"""`ratchet gateway`: the gateways, what they have applied, and how to empty one."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ratchet.core.errors import RatchetError
from ratchet.entrypoints.cli.client import connect, state_of
from ratchet.entrypoints.cli.tables import list_table, minute

StateOption = Annotated[Path | None, typer.Option("--state-dir")]

app = typer.Typer(no_args_is_help=True, help="Gateways: list, drain, restart.")


@app.command("list")
def listing(
    state_dir: StateOption = None, as_json: Annotated[bool, typer.Option("--json")] = False
) -> None:
    """Gateways that were heard of, and what they have in force."""
    rows = connect(state_dir).get("/gateways")
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    table = list_table("gateway", "revision", "reported", "refused because")
    for row in rows:
        table.add_row(
            row["gateway"],
            str(row["applied_revision"]),
            minute(row["reported_at"]),
            row["rejected"],
        )
    Console().print(table)


@app.command("restart")
def restart_gateway(state_dir: StateOption = None) -> None:
    """Start a new Envoy that takes over from the old one (hot restart); nothing is lost.

    For a new binary, or settings that Envoy reads at its start, such as TLS.
    """
    state = state_of(state_dir)
    holder = (state.root / "lock").read_text().strip()
    if not holder.isdigit():
        raise RatchetError(f"no stack runs in {state.root}")
    os.kill(int(holder), signal.SIGUSR1)
    print(f"a new Envoy takes over; see {state.log('envoy')}")


@app.command("drain")
def drain_gateway(
    state_dir: StateOption = None,
    admin_socket: Annotated[
        Path | None, typer.Option(help="Envoy's admin socket; default the local stack's.")
    ] = None,
    cap: Annotated[float, typer.Option(help="Seconds to wait for streams at most.")] = 900.0,
) -> None:
    """Take no new connections and wait for every stream to end.

    Envoy goes on running without a listener; restart it, or stop it.  Exit code 1 when streams
    were still running at the cap.
    """
    from ratchet.adapters.envoy.drain import drain

    socket = admin_socket or state_of(state_dir).sockets / "envoy.sock"
    if cut := asyncio.run(drain(socket, cap)):
        raise RatchetError(f"{cut} requests were still running after {cap:g} s")
    print("drained: no request is running, no connection is taken")
