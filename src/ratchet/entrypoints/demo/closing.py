"""The demo's last page: what happened, from the records of the control plane and of the users."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console
from rich.table import Table

from ratchet.entrypoints.cli.client import Client
from ratchet.entrypoints.demo.users import Tally
from ratchet.entrypoints.local.state import StateDir


class Told(Protocol):
    """An act, as the table needs it."""

    @property
    def title(self) -> str: ...
    @property
    def key(self) -> str: ...
    @property
    def ends(self) -> str: ...


def closing_table(
    client: Client,
    tally: Tally,
    acts: Sequence[Told],
    seconds: float,
    state: StateDir,
    console: Console,
) -> bool:
    """Print everything; False when an act ended otherwise or a baseline request failed."""
    runs = {run["idempotency_key"]: client.get(f"/runs/{run['id']}") for run in _runs(client)}
    console.rule("[bold]What happened")
    well = _acts(acts, runs, console)
    _served(client, tally, runs, console)
    _accuracy(runs[acts[0].key], console)
    well &= _rollback(client, tally, runs[acts[2].key], console)
    trained = sum(_stage(run, "train")["detail"].get("adapter_bytes", 0) for run in runs.values())
    console.print(
        f"\n{seconds:.0f} s in all; adapters {trained / 1e6:.0f} MB, "
        f"state directory {_size(state.root) / 1e6:.0f} MB ({state.root})"
    )
    return well


def _runs(client: Client) -> list[dict[str, Any]]:
    runs: list[dict[str, Any]] = client.get("/runs", limit=200)
    return runs


def _stage(run: dict[str, Any], name: str) -> dict[str, Any]:
    stage: dict[str, Any] = next(stage for stage in run["stages"] if stage["name"] == name)
    return stage


def _acts(acts: Sequence[Told], runs: dict[str, dict[str, Any]], console: Console) -> bool:
    table = Table("act", "ended", "training", "whole run", title="Runs")
    reasons = []
    well = True
    for act in acts:
        run = runs[act.key]
        as_told = run["state"] == act.ends
        well &= as_told
        colour = "green" if as_told else "red"
        table.add_row(
            act.title.partition(":")[0],
            f"[{colour}]{run['state'].replace('_', ' ')}[/]",
            f"{_stage(run, 'train')['detail'].get('seconds', 0):.0f} s",
            f"{_seconds(run['started_at'], run['ended_at']):.0f} s",
        )
        reasons.append(f"{act.title.partition(':')[0]}: {run['because']}")
    console.print(table)
    for reason in reasons:
        console.print(f"  {reason}", markup=False, highlight=False)
    return well


def _served(
    client: Client, tally: Tally, runs: dict[str, dict[str, Any]], console: Console
) -> None:
    names = {run["version_id"]: key for key, run in runs.items() if run["version_id"]}
    table = Table(
        "version", "from", "answers", "right", "failed", "p50 ms", "p95 ms",
        title="What users got, by the version that answered",
    )  # fmt: skip
    since = "2000-01-01T00:00:00Z"
    traffic = {
        row["version_id"]: row for row in client.get("/traffic", project="triage", since=since)
    }
    for version in sorted({*tally.answered, *tally.failed}, key=str):
        answered = tally.answered[version]
        row = traffic.get(version)
        table.add_row(
            version,
            names.get(version, "base model" if row else ""),
            str(answered),
            f"{tally.right[version] / answered:.1%}" if answered else "–",
            str(tally.failed[version]),
            f"{row['p50_ms']:.0f}" if row else "–",
            f"{row['p95_ms']:.0f}" if row else "–",
        )
    console.print(table)
    for reason, count in tally.reasons.most_common(5):
        console.print(f"  {count} x {reason}", style="dim", markup=False)


def _accuracy(run: dict[str, Any], console: Console) -> None:
    gate = _stage(run, "gate")["detail"]
    suite = gate["suites"][0]
    low, high = suite["accuracy_interval"]
    name = f"{suite['suite']}.accuracy"
    console.print(
        f"Held-out accuracy on {suite['items']} items: base model "
        f"{gate['baseline'][name]:.3f} (it never keeps to the format), always the commonest "
        f"answer {suite['majority']:.3f}, after retraining [bold]{gate['candidate'][name]:.3f}[/] "
        f"(95 % interval {low:.3f} to {high:.3f})"
    )


def _rollback(client: Client, tally: Tally, run: dict[str, Any], console: Console) -> bool:
    """The third act in numbers; False when a request to a baseline failed."""
    if not run["release_id"]:
        return False
    release = client.get(f"/releases/{run['release_id']}")
    bad = release["candidate"]
    touched = next((t for t in release["traffic"] if t["version_id"] == bad), None)
    changes = client.get("/weights", project=run["project"])
    last = release["verdicts"][-1]
    change = next((c for c in changes if c["because"] == last["because"]), None)
    if change and change["applied_at"]:
        taken = _seconds(last["at"], change["applied_at"])
        pushed = _seconds(change["committed_at"], change["applied_at"])
        console.print(
            f"Rollback: verdict to 0 % in force at Envoy in [bold]{taken * 1000:.0f} ms[/] "
            f"({pushed * 1000:.0f} ms from the commit)"
        )
    if touched:
        console.print(
            f"The bad canary touched {touched['requests']} requests, "
            f"{touched['failed']} of which failed"
        )
    failed = sum(count for version, count in tally.failed.items() if version != bad)
    colour = "green" if failed == 0 else "red"
    console.print(f"Failed requests to any baseline: [{colour}]{failed}[/]")
    return failed == 0


def _seconds(start: str, end: str) -> float:
    return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
