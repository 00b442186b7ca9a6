"""A table for people and `build/bench/NAME.json` for programs, from one list of results."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, slots=True)
class Result:
    """One measured number beside its goal; `better` says which way."""

    id: str
    value: float
    unit: str
    target: float | None = None
    better: str = "lower"

    @property
    def met(self) -> bool | None:
        if self.target is None:
            return None
        return self.value <= self.target if self.better == "lower" else self.value >= self.target


def publish(
    name: str, settings: str, results: list[Result], beside: tuple[str, ...] = ("",)
) -> None:
    """`beside` names what is compared: ids that start with `NAME.` then share a row."""
    marks = {True: "met", False: "not met", None: ""}
    sides = [f"{side}." if side else "" for side in beside]
    found = {r.id: r for r in results}
    table = Table(
        "what", *(side or "value" for side in beside), "goal", "", title=f"{name}: {settings}"
    )
    for r in (r for r in results if r.id.startswith(sides[0])):
        what = r.id.removeprefix(sides[0])
        row = [found.get(side + what) for side in sides]
        goal = "" if r.target is None else f"{'≤' if r.better == 'lower' else '≥'} {r.target:g}"
        values = (f"{each.value:.4g} {each.unit}" if each else "–" for each in row)
        table.add_row(what, *values, goal, marks[r.met])
    Console().print(table)
    folder = Path("build/bench")
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{k: v for k, v in asdict(r).items() if k != "better"} | {"met": r.met} for r in results]
    (folder / f"{name}.json").write_text(json.dumps(rows, indent=1))
