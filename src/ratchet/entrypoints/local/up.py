"""`ratchet up`: the stack in the foreground, until Ctrl-C."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from ratchet.core.errors import NotFound
from ratchet.entrypoints.cli.client import PATIENCE_SECONDS, Client
from ratchet.entrypoints.local.postgres import Postgres
from ratchet.entrypoints.local.state import Ports, StateDir
from ratchet.entrypoints.local.supervisor import Stack, running
from ratchet.kit.clock import monotonic_seconds
from ratchet.kit.logs import configure
from ratchet.settings import FLEET

ENGINE_SECONDS_MAX = 300.0


async def up_forever(
    state: StateDir, ports: Ports, env: Mapping[str, str], file: Path | None
) -> None:
    """Start, say where everything is, and stay."""
    configure("supervisor", level="WARNING")
    console = Console()
    began = monotonic_seconds()

    def say(line: str) -> None:
        console.print(f"  {line}")

    async with running(state, ports, env, say) as stack:
        console.print(f"[bold]ratchet is up[/] after {monotonic_seconds() - began:.1f} s")
        console.print(f"  gateway  {stack.gateway_url}/v1   (what users call)")
        console.print(f"  console  {stack.server_url}")
        console.print(f"  state    {state.root}")
        if file is not None or await _known(stack):
            await serve_project(stack, file, console)
        else:
            console.print("  no project yet: `ratchet init my-router`, then `ratchet run start`")
        console.print("  keys     `ratchet key create --name me` makes one for the gateway")
        console.print("[dim]Ctrl-C stops everything; the next start goes on from here[/]")
        await asyncio.Event().wait()


def fleet_of_stack(root: Path) -> dict[str, str]:
    """Settings that share another stack's pools.  Raises `NotFound` when there is none."""
    other = StateDir(root.absolute())
    other.ports()
    postgres = Postgres.of(other)
    try:
        return {FLEET: postgres.url.reveal()}
    except FileNotFoundError as error:
        raise NotFound(
            f"{root} has no PostgreSQL of its own: set {FLEET} to that of the stack"
        ) from error


async def serve_project(stack: Stack, file: Path | None, console: Console) -> None:
    """Register a project, or take the one that is known, and wait until its baseline answers."""
    client = _client(stack)
    if file is not None:
        version = (await asyncio.to_thread(_register, client, file))["baseline"]
    else:
        version = (await _known(stack))[0]["baseline_version"]
    began = monotonic_seconds()
    with console.status(f"loading {version} (the first time converts the weights)"):
        while monotonic_seconds() - began < ENGINE_SECONDS_MAX:
            engines = await asyncio.to_thread(client.get, "/engines")
            mine = next(e for e in engines if e["version_id"] == version)
            if mine["state"] == "ready":
                seconds = monotonic_seconds() - began
                console.print(f"  serving  {version} after {seconds:.1f} s")
                return
            await asyncio.sleep(0.2)
    console.print(f"[red]engine not ready[/]: {mine['because']}; see {stack.state.root}/logs")


def _client(stack: Stack) -> Client:
    token = stack.state.token_file.read_text().strip()
    return Client(stack.server_url, token, patience_seconds=PATIENCE_SECONDS)


async def _known(stack: Stack) -> list[dict[str, Any]]:
    """Projects of an earlier start."""
    found: list[dict[str, Any]] = await asyncio.to_thread(_client(stack).get, "/projects")
    return found


def _register(client: Client, file: Path) -> dict[str, Any]:
    path = file.absolute()
    body = {"spec": path.read_text(), "path": str(path)}
    project: dict[str, Any] = client.post("/projects", body)
    return project
