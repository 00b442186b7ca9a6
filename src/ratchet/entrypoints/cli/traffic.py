"""`ratchet traffic`: play users from a file, so that a canary has something to be judged on."""

from __future__ import annotations

import asyncio
import getpass
import json
import signal
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from ratchet.core.errors import NotFound, Rejected
from ratchet.entrypoints.cli.client import connect
from ratchet.entrypoints.local.state import find_state

# Longer than anybody plays; the key is revoked when the traffic ends.
KEY_SECONDS = 7 * 86_400.0


def traffic(
    file: Annotated[Path, typer.Option("--file", help="Conversations, JSON Lines.")],
    rate: Annotated[float, typer.Option(min=0.1, max=200.0, help="Users a second.")] = 5.0,
    seconds: Annotated[float, typer.Option(min=0.0, help="0: until Ctrl-C.")] = 0.0,
    state_dir: Annotated[Path | None, typer.Option("--state-dir")] = None,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Play users through the gateway with the official client until Ctrl-C."""
    from ratchet.entrypoints.demo.users import Users, read_rows
    from ratchet.entrypoints.local.state import StateDir

    client = connect(state_dir)
    projects = client.get("/projects")
    if not projects:
        raise NotFound("nothing is served yet: start a run first")
    if not file.exists():
        raise Rejected(f"{file} does not exist")
    who = getpass.getuser()
    wish = {"name": "ratchet traffic", "lives_seconds": KEY_SECONDS, "who": who}
    key = client.post("/keys", {"project": projects[0]["name"], **wish})
    state = StateDir(state_dir.absolute()) if state_dir else find_state(Path.cwd())
    url = f"http://127.0.0.1:{state.ports().gateway}"
    users = Users(url, key["key"], projects[0]["served_name"], read_rows(file), rate)
    try:
        asyncio.run(_play(users.play(), seconds))
    finally:
        client.post(f"/keys/{key['id']}/revoke", {"why": "the traffic ended", "who": who})
    tally = users.tally
    if as_json:
        print(json.dumps({"answered": tally.answered, "failed": tally.failed}))
        return
    console = Console()
    for version in sorted({*tally.answered, *tally.failed}):
        console.print(
            f"{version}: {tally.answered[version]} answered, {tally.right[version]} as expected, "
            f"{tally.failed[version]} failed"
        )


async def _play(playing: Coroutine[Any, Any, None], seconds: float) -> None:
    task = asyncio.create_task(playing)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, task.cancel)
    if seconds:
        loop.call_later(seconds, task.cancel)
    await asyncio.gather(task, return_exceptions=True)
