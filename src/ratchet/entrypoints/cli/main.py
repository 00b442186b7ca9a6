"""`ratchet`: noun, verb, object.  `--json` on everything that answers."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from ratchet import __version__
from ratchet.core.errors import NotFound, RatchetError, Rejected
from ratchet.entrypoints.cli import (
    artifact,
    data,
    engine,
    evals,
    fleet,
    gate,
    gateway,
    key,
    ledger,
    project,
    release,
    run,
    simulate,
    traffic,
    triggers,
)
from ratchet.entrypoints.cli.client import connect
from ratchet.entrypoints.cli.trigger import EXIT_BAD_INPUT, EXIT_FAILED

app = typer.Typer(
    name="ratchet",
    help="Continuous delivery for fine-tuned LLMs, on your own machines.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(run.app, name="run")
app.add_typer(release.app, name="release")
app.add_typer(artifact.app, name="artifact")
app.add_typer(data.app, name="data")
app.add_typer(engine.app, name="engine")
app.add_typer(evals.app, name="eval")
app.add_typer(fleet.app, name="fleet")
app.add_typer(gate.app, name="gate")
app.add_typer(gateway.app, name="gateway")
app.add_typer(key.app, name="key")
app.add_typer(triggers.app, name="trigger")
app.add_typer(project.versions, name="version")
app.command("init")(project.init)
app.command("schema")(project.schema)
app.command("traffic")(traffic.traffic)
app.command("simulate")(simulate.simulate)
app.add_typer(ledger.budgets, name="budget")
app.add_typer(ledger.prices, name="price")
app.command("usage")(ledger.usage)

StateOption = Annotated[
    Path | None, typer.Option("--state-dir", help="Folder of the stack. Default: .ratchet")
]


@app.command()
def up(
    state_dir: StateOption = None,
    project_file: Annotated[
        Path | None, typer.Option("--project", help="Spec to serve. Default: ./ratchet.yaml")
    ] = None,
    gateway_port: Annotated[int, typer.Option(help="Where users come in.")] = 8080,
    http_port: Annotated[int, typer.Option(help="Control API and console.")] = 8081,
    grpc_port: Annotated[int, typer.Option(help="Access records and workers.")] = 8082,
    fleet_of: Annotated[
        Path | None, typer.Option(help="Folder of another stack here, to share its pools.")
    ] = None,
) -> None:
    """Start the whole stack on this machine and keep it alive until Ctrl-C."""
    from ratchet.entrypoints.local.state import NAME, Ports, open_state
    from ratchet.entrypoints.local.up import fleet_of_stack, up_forever

    ports = Ports(gateway=gateway_port, http=http_port, grpc=grpc_port)
    env = {**os.environ, **(fleet_of_stack(fleet_of) if fleet_of else {})}
    state = open_state(state_dir or Path.cwd() / NAME)
    default = Path("ratchet.yaml")
    file = project_file or (default if default.exists() else None)
    _run_program(up_forever(state, ports, env, file))


@app.command(hidden=True)
def server() -> None:
    """The control plane.  Settings come from the environment (docs/reference/settings.md)."""
    from ratchet.entrypoints.server import ignore_hangup, serve
    from ratchet.kit.logs import configure
    from ratchet.settings import Settings, environment

    configure("server")
    ignore_hangup()
    asyncio.run(serve(Settings.from_env(environment())))


@app.command(hidden=True)
def agent(
    server: Annotated[str, typer.Option()],
    telemetry: Annotated[str, typer.Option()],
    token_file: Annotated[Path, typer.Option()],
    folder: Annotated[Path, typer.Option()],
    admin_socket: Annotated[Path, typer.Option()],
    name: Annotated[str, typer.Option()] = "gateway-1",
    region: Annotated[str, typer.Option()] = "",
) -> None:
    """Beside an Envoy: bring snapshots into force and report."""
    from ratchet.adapters.envoy.files import EnvoyFiles
    from ratchet.adapters.valkey.client import Valkey
    from ratchet.entrypoints.agent import Agent
    from ratchet.kit.clock import SystemClock
    from ratchet.kit.logs import configure
    from ratchet.kit.peers import peer_files
    from ratchet.kit.secret import Secret
    from ratchet.settings import environment

    configure("agent")
    files = EnvoyFiles(folder, admin_socket, region=region, env=environment())
    files.prepare()
    token = Secret(token_file.read_text().strip())
    url = environment().get("RATCHET_VALKEY_URL", "")
    valkey = Valkey(Secret(url)) if url else None
    try:
        peers = peer_files(environment())
    except ValueError as error:
        raise Rejected(str(error)) from None
    _run_program(Agent(name, server, telemetry, token, files, SystemClock(), valkey, peers).run())


@app.command()
def executor(
    config: Annotated[Path, typer.Option(help="What the cluster is like: image, grpc, objects.")],
    server: Annotated[str, typer.Option(help="URL of the control plane.")],
    token_file: Annotated[Path, typer.Option(help="The control plane's token for machines.")],
) -> None:
    """In a cluster: start the workers of runs with `train.executor: kubernetes` as Jobs."""
    from ratchet.adapters.kubernetes.config import load_cluster
    from ratchet.entrypoints.executor import serve
    from ratchet.kit.logs import configure
    from ratchet.kit.secret import Secret

    configure("executor")
    try:
        token = Secret(token_file.read_text().strip())
    except OSError as error:
        raise Rejected(f"{token_file}: cannot be read: {error.strerror}") from error
    _run_program(serve(load_cluster(config), server, token))


@app.command()
def demo(
    state_dir: StateOption = None,
    exit_: Annotated[bool, typer.Option("--exit", help="Stop when the story is told.")] = False,
) -> None:
    """The whole loop with a real LLM: a promotion, a gate, a rollback.  In a checkout."""
    from ratchet.entrypoints.demo.story import tell

    _run_program(tell(state_dir, dict(os.environ), stay=not exit_))


@app.command()
def doctor(
    state_dir: StateOption = None,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Say what is well and what is not."""
    from ratchet.entrypoints.cli.doctor import examine

    findings = examine(state_dir)
    if as_json:
        print(json.dumps(findings, indent=2))
    else:
        console = Console()
        for finding in findings:
            mark = "[green]✓[/]" if finding["ok"] else "[red]✗[/]"
            console.print(f"{mark} {finding['what']:<22} {finding['says']}")
    if not all(finding["ok"] for finding in findings):
        raise typer.Exit(EXIT_FAILED)


@app.command()
def status(
    state_dir: StateOption = None, as_json: Annotated[bool, typer.Option("--json")] = False
) -> None:
    """What serves now, and what is under way."""
    client = connect(state_dir)
    view: dict[str, Any] = {
        "projects": client.get("/projects"),
        "engines": client.get("/engines"),
        "gateways": client.get("/gateways"),
        "runs": client.get("/runs", limit=3),
        "console": client.url,
    }
    if as_json:
        print(json.dumps(view, indent=2))
        return
    console = Console()
    for known in view["projects"]:
        console.print(f"project {known['name']} serves {known['baseline_version']}")
    for serving in view["engines"]:
        console.print(f"  engine {serving['version_id']}: {serving['state']} {serving['because']}")
    for each in view["runs"]:
        console.print(f"  run {each['id']}: {each['state']} {each['because']}")
    console.print(f"console: {view['console']}")


@app.command()
def version() -> None:
    """Print the version of Ratchet."""
    print(__version__)


def _run_program(program: Any) -> None:
    """Run until done or told to stop; Ctrl-C is a normal end."""

    async def main() -> None:
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        await program

    try:
        asyncio.run(main())
    except (KeyboardInterrupt, asyncio.CancelledError):
        return


def main(run_app: Callable[[], None] = app) -> None:
    """Entry point: our errors become one line and an exit code, everything else is a bug."""
    try:
        run_app()
    except (Rejected, NotFound) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(EXIT_BAD_INPUT)
    except RatchetError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(EXIT_FAILED)


if __name__ == "__main__":
    main()
