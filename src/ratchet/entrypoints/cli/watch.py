"""Follow a run or a release until it ends: bars on a terminal, one line an event elsewhere."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from ratchet.core.errors import NotFound, Unavailable
from ratchet.core.rollout import Stage
from ratchet.core.run import RunState
from ratchet.entrypoints.cli.client import Client

POLL_SECONDS = 0.5
# A run is queued for a moment even when nothing stands before it.
QUEUED_LOOKS = 4
MARKS = {"done": "✓", "stopped": "■", "failed": "✗"}
COLOURS = {"done": "green", "stopped": "yellow", "failed": "red"}
RUN_COLOURS = {
    "promoted": "green",
    "unchanged": "green",
    "gated": "yellow",
    "rolled_back": "yellow",
    "failed": "red",
    "cancelled": "red",
    "superseded": "yellow",
}


def is_end(state: str) -> bool:
    return RunState(state).is_end


def follow_run(client: Client, run_id: str, console: Console) -> dict[str, Any]:
    """Show a run as it goes; answers it as it ended.  A server that restarts is waited for."""
    with _bars(console) as bars:
        seen = _Seen(console, bars)
        for run in _polls(client, f"/runs/{run_id}"):
            seen.show_run(run)
            if run["release_id"] and not is_end(run["state"]):
                seen.show_release(client.get(f"/releases/{run['release_id']}"))
            if is_end(run["state"]):
                if run["release_id"]:
                    seen.show_release(client.get(f"/releases/{run['release_id']}"))
                break
    return dict(run)


def follow_release(client: Client, release_id: str, console: Console) -> dict[str, Any]:
    """Show a release as it goes, until it is decided; a holdback is not waited for."""
    with _bars(console) as bars:
        seen = _Seen(console, bars)
        for release in _polls(client, f"/releases/{release_id}"):
            seen.show_release(release)
            if Stage(release["stage"]).ends_run:
                break
    return dict(release)


def _bars(console: Console) -> Progress:
    return Progress(
        TextColumn("  {task.description:<9}"),
        BarColumn(bar_width=32),
        TextColumn("{task.fields[note]}"),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


def _polls(client: Client, path: str) -> Iterator[Any]:
    while True:
        # While the control plane restarts, the run goes on without it.
        with contextlib.suppress(Unavailable):
            yield client.get(path)
        time.sleep(POLL_SECONDS)


@dataclass(slots=True)
class _Seen:
    """What was shown already, so that each event is shown once."""

    console: Console
    bars: Progress
    stages: dict[str, str] = field(default_factory=dict)
    verdicts: int = 0
    attempts: dict[str, int] = field(default_factory=dict)
    queued: int = 0
    task: TaskID | None = None
    task_stage: str = ""

    def show_run(self, run: dict[str, Any]) -> None:
        self.queued += run["state"] == "queued"
        if run["state"] == "queued" and self.queued == QUEUED_LOOKS:
            self.console.print("  … queued: another run of this project is active", style="dim")
        for stage in run["stages"]:
            self._show_stage(stage)

    def _show_stage(self, stage: dict[str, Any]) -> None:
        name, state = stage["name"], stage["state"]
        attempt = stage.get("attempt")
        if attempt and attempt["number"] > self.attempts.get(name, 1):
            self.attempts[name] = attempt["number"]
            self.console.print(f"  ↻ {name:<9} attempt {attempt['number']}", style="yellow")
        if state == "running":
            self._bar(name, (attempt or {}).get("progress") or {})
        if state != self.stages.get(name) and state in MARKS:
            self._end_bar(name)
            because = str(stage["because"]).replace("\n", "\n              ")
            self.console.print(f"  [{COLOURS[state]}]{MARKS[state]}[/] {name:<9} ", end="")
            self.console.print(because, markup=False, highlight=False)
        self.stages[name] = state

    def _bar(self, name: str, progress: dict[str, Any]) -> None:
        if self.task_stage != name:
            self._end_bar(self.task_stage)
            self.task = self.bars.add_task(name, total=None, note="")
            self.task_stage = name
        assert self.task is not None
        note = str(progress.get("doing", ""))
        if "loss" in progress:
            # A program of one's own says what it likes to.
            note = f"step {progress.get('step', 0)}/{progress.get('steps', '?')}"
            note += f"  loss {progress['loss']:.3f}"
            if "tokens_per_second" in progress:
                note += f"  {progress['tokens_per_second']:.0f} tokens/s"
            if "seconds_left" in progress:
                note += f"  {progress['seconds_left']:.0f} s left"
        elif "step" in progress:
            note = f"{note} {progress['step']}/{progress['steps']}"
        self.bars.update(
            self.task, total=progress.get("steps"), completed=progress.get("step", 0), note=note
        )

    def _end_bar(self, name: str) -> None:
        if self.task is not None and self.task_stage == name:
            self.bars.remove_task(self.task)
            self.task, self.task_stage = None, ""

    def show_release(self, release: dict[str, Any]) -> None:
        for verdict in release["verdicts"][self.verdicts :]:
            self.verdicts += 1
            percent = f"{verdict['weight_percent']:>3g} %"
            colour = "red" if verdict["to_stage"] == "rolled_back" else "cyan"
            self.console.print(f"  [{colour}]→ {verdict['to_stage']:<11} {percent}[/]  ", end="")
            self.console.print(verdict["because"], markup=False, highlight=False)
        if release["stage"] in ("canary", "paused") and release["points"]:
            numbers = release["points"][-1]["numbers"]
            progress = {"doing": f"{release['because']}; e = {numbers['e']:.2f} of 100"}
            self._bar("release", progress)


def find_release(client: Client, wanted: str | None) -> str:
    """A release by id, or the newest one.  Raises `NotFound`."""
    if wanted:
        return wanted
    releases = client.get("/releases", limit=1)
    if not releases:
        raise NotFound("there is no release yet")
    return str(releases[0]["id"])


def find_run(client: Client, wanted: str | None) -> str:
    """A run by id, or the newest one.  Raises `NotFound`."""
    if wanted:
        return wanted
    runs = client.get("/runs", limit=1)
    if not runs:
        raise NotFound("there is no run yet")
    return str(runs[0]["id"])
