"""`ratchet demo`: three acts on real components, then a table of what happened.

1. New data: the model is retrained, passes its gates, is proven on users and promoted.
2. Spoiled data: the gates stop it; no user ever meets it.
3. A canary that misbehaves only live: the evidence rolls it back.

Every act is a run with an idempotency key, so a demo that was interrupted goes on where it was.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from ratchet.core.errors import RatchetError, Rejected
from ratchet.entrypoints.cli.client import PATIENCE_SECONDS, Client
from ratchet.entrypoints.demo.closing import closing_table
from ratchet.entrypoints.demo.users import Users, read_rows
from ratchet.entrypoints.local.state import NAME, Ports, StateDir, is_free, open_state
from ratchet.entrypoints.local.supervisor import Stack, running
from ratchet.entrypoints.local.up import serve_project
from ratchet.kit.clock import monotonic_seconds
from ratchet.kit.logs import configure
from ratchet.kit.network import free_port

# A training takes what two cores can give, so users come slowly; while a release is judged nothing
# trains, and a rush of users makes the evidence come in seconds instead of minutes.  Of what the
# machine can answer one after another, and at most so many: one that is run over shows its queue
# instead of its model.
USERS_SHARE, USERS_PER_SECOND_MAX = 0.15, 2.0
RUSH_SHARE, RUSH_PER_SECOND_MAX = 0.8, 8.0
# What the demo's users come in with: answers only, for a day.
KEY = {"scopes": ["answers"], "models": ["triage"], "lives_seconds": 86_400.0, "who": "demo"}
LIVE_STAGES = ("starting", "shadow", "canary", "paused", "held")


@dataclass(frozen=True, slots=True)
class Act:
    """One run of the story: its file, what it shows, and how it must end."""

    title: str
    config: str
    key: str
    ends: str


ACTS = (
    Act("Act 1: new data make a better model", "retrain.yaml", "demo-good", "promoted"),
    Act("Act 2: spoiled data (labels shuffled)", "retrain-spoiled.yaml", "demo-spoiled", "gated"),
    Act(
        "Act 3: a canary that misbehaves only live (injected fault: 30 % errors, 600 ms slower)",
        "retrain-drill.yaml",
        "demo-drill",
        "rolled_back",
    ),
)


async def tell(state_dir: Path | None, env: Mapping[str, str], *, stay: bool) -> None:
    """Tell the story.  Raises `Rejected` outside a checkout, or when an act ends otherwise."""
    configure("demo", level="ERROR")
    console = Console()
    began = monotonic_seconds()
    checkout = _checkout()
    console.rule("[bold]Ratchet: continuous delivery for a fine-tuned LLM, on this machine")
    await _prepare(checkout, console)
    state = open_state(state_dir or checkout / NAME / "demo")
    ports = _ports(state)
    async with running(state, ports, env, lambda line: console.print(f"  {line}")) as stack:
        _greet(stack, console, monotonic_seconds() - began)
        await serve_project(stack, checkout / "configs" / "retrain.yaml", console)
        token = state.token_file.read_text().strip()
        client = Client(stack.server_url, token, patience_seconds=PATIENCE_SECONDS)
        # Made twice by a patient client, the first is one that nobody has.
        wish = {"project": "triage", "name": "demo users", **KEY}
        key = await asyncio.to_thread(client.post, "/keys", wish)
        users = Users(
            stack.gateway_url,
            key["key"],
            "triage",
            read_rows(checkout / "examples" / "triage" / "data" / "live.jsonl"),
        )
        pace = pace_of(await users.seconds_an_answer())
        users.rate = pace.usual
        playing = asyncio.gather(users.play(), _steer(users, pace, client))
        console.print(
            f"  users    through the gateway with a key of their own: {pace.usual:.2g} a "
            f"second, {pace.rush:.2g} while a release is judged"
        )
        try:
            for act in ACTS:
                await _perform(act, checkout, stack, client, console)
        finally:
            playing.cancel()
            await asyncio.gather(playing, return_exceptions=True)
        seconds = monotonic_seconds() - began
        told = await asyncio.to_thread(
            closing_table, client, users.tally, ACTS, seconds, state, console
        )
        if not told:
            raise Rejected("an act did not end as it should: see the table")
        if stay:
            console.print(f"\nThe console stays up: {stack.server_url}   (Ctrl-C ends)")
            await asyncio.Event().wait()


@dataclass(frozen=True, slots=True)
class Pace:
    """Users a second: usually, and while a release is judged."""

    usual: float
    rush: float


def pace_of(answer_seconds: float) -> Pace:
    """What a machine can bear that takes so long for an answer."""
    return Pace(
        usual=min(USERS_PER_SECOND_MAX, USERS_SHARE / answer_seconds),
        rush=min(RUSH_PER_SECOND_MAX, RUSH_SHARE / answer_seconds),
    )


async def _steer(users: Users, pace: Pace, client: Client) -> None:
    """Let users come faster while a release is judged, until cancelled."""
    while True:
        with contextlib.suppress(RatchetError):
            releases = await asyncio.to_thread(client.get, "/releases", limit=1)
            live = bool(releases) and releases[0]["stage"] in LIVE_STAGES
            users.rate = pace.rush if live else pace.usual
        await asyncio.sleep(1.0)


def _checkout() -> Path:
    root = Path(__file__).parents[4]
    if not (root / "configs" / "retrain.yaml").exists():
        raise Rejected(
            "the demo needs the repository's configs/ and examples/: run `make demo` in a "
            "checkout, or try `ratchet up` and `ratchet init my-router`"
        )
    return root


async def _prepare(checkout: Path, console: Console) -> None:
    """Make the data from the installed archive, once."""
    data = checkout / "examples" / "triage" / "data"
    if (data / "reviews-and-tweets.jsonl").exists():
        return
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(checkout / "examples" / "triage" / "prepare.py"),
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await process.communicate()
    if process.returncode != 0:
        raise Rejected("the demo's data could not be made: run `make setup` again")
    console.print(f"  data     {output.decode().strip()} (human-rated product reviews)")


def _ports(state: StateDir) -> Ports:
    """The ports of the last time, else the usual ones, else free ones."""
    if state.stack_file.exists():
        known = state.ports()
        if all(map(is_free, (known.gateway, known.http, known.grpc))):
            return known
    usual = Ports()
    if all(map(is_free, (usual.gateway, usual.http, usual.grpc))):
        return usual
    return Ports(gateway=free_port(), http=free_port(), grpc=free_port())


def _greet(stack: Stack, console: Console, seconds: float) -> None:
    console.print(f"  stack    PostgreSQL, Valkey, Envoy, control plane: up after {seconds:.1f} s")
    console.print(f"  gateway  {stack.gateway_url}/v1")
    console.print(f"  console  [bold]{stack.server_url}[/]")


async def _perform(
    act: Act, checkout: Path, stack: Stack, client: Client, console: Console
) -> None:
    """Trigger a run as a merge would, with the same script, and show it to its end."""
    console.rule(act.title, align="left")
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(checkout / "scripts" / "trigger_retrain.py"),
        "--config", str(checkout / "configs" / act.config),
        "--state-dir", str(stack.state.root),
        "--key", act.key,
        "--why", act.title,
    )  # fmt: skip
    try:
        await process.wait()
    except asyncio.CancelledError:
        process.terminate()
        await process.wait()
        raise
