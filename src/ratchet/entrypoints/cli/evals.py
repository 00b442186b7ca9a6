"""`ratchet eval`: items as candidate and baseline answered them, and those that must not break
again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from ratchet.core.errors import NotFound, Rejected
from ratchet.entrypoints.cli.client import connect
from ratchet.entrypoints.cli.watch import find_run

app = typer.Typer(help="Items of evaluations, one by one (show, pin).", no_args_is_help=True)

StateOption = Annotated[Path | None, typer.Option("--state-dir")]
RunArgument = Annotated[str | None, typer.Argument(help="Default: the newest.")]
SHOWN_CHARACTERS = 200
ITEMS_MAX = 10_000


@app.command()
def show(
    run_id: RunArgument = None,
    won: Annotated[bool, typer.Option(help="Only those that the candidate won.")] = False,
    lost: Annotated[bool, typer.Option(help="Only those that it lost.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=ITEMS_MAX)] = 20,
    state_dir: StateOption = None,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Both answers to each item, side by side."""
    client = connect(state_dir)
    only = "won" if won else "lost" if lost else None
    found = client.get(f"/runs/{find_run(client, run_id)}/items", only=only, limit=limit)
    if as_json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
        return
    console = Console()
    counts = found["counts"]
    console.print(f"won {counts['won']}, lost {counts['lost']}, tied {counts['tied']}")
    colours = {"won": "green", "lost": "red", "tied": "dim"}
    for item in found["items"]:
        console.print(f"[{colours[item['became']]}]{item['became']}[/] {item['key'][:12]}")
        for name, text in (
            ("asked", item["row"]["messages"][-2]["content"]),
            ("expected", item["expected"]),
            ("baseline", item["baseline"]["answer"]),
            ("candidate", item["candidate"]["answer"]),
        ):
            console.print(f"  {name:<10}", end="", highlight=False)
            console.print(_short(text), markup=False, highlight=False)


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= SHOWN_CHARACTERS else f"{line[: SHOWN_CHARACTERS - 1]}…"


@app.command()
def pin(
    keys: Annotated[list[str] | None, typer.Argument(help="As `show` names them.")] = None,
    run_id: Annotated[str | None, typer.Option("--run", help="Default: the newest.")] = None,
    lost: Annotated[bool, typer.Option("--lost", help="Every item that was lost.")] = False,
    to: Annotated[Path, typer.Option(help="The list, JSON Lines.")] = Path("evals/pinned.jsonl"),
    state_dir: StateOption = None,
) -> None:
    """Add items to a list of those that must never break again; each once.

    The list is a file of your repository: a suite asks it, a gate of accuracy 1.0 holds it.
    """
    if bool(keys) == lost:
        raise Rejected("name items by their keys, or take every one that was --lost")
    client = connect(state_dir)
    run = find_run(client, run_id)
    only = "lost" if lost else None
    found = client.get(f"/runs/{run}/items", only=only, limit=ITEMS_MAX)["items"]
    chosen = found if lost else [_one(found, key, run) for key in keys or ()]
    added = _append(to, [item["row"] for item in chosen])
    print(f"{to}: {added} added, {len(chosen) - added} were there")
    suite = to.with_suffix(".yaml")
    if not suite.exists():
        suite.write_text(f"suite: {to.stem}\nitems: {to.name}\ncheck: exact\nmax_tokens: 64\n")
        print(
            f"{suite} asks them; add to ratchet.yaml:\n"
            f"  evaluate: {{suites: [..., {suite}]}}\n"
            f"  gates: [..., {{metric: {to.stem}.accuracy, at_least: 1.0}}]"
        )


def _one(items: list[dict[str, Any]], key: str, run: str) -> dict[str, Any]:
    found = [item for item in items if item["key"].startswith(key)]
    if len(found) != 1:
        raise NotFound(f"run {run} has {len(found)} items whose key begins with {key}")
    return found[0]


def _append(path: Path, rows: list[dict[str, Any]]) -> int:
    """Rows that the file has not; answers how many."""
    lines = [json.dumps(row, sort_keys=True, ensure_ascii=False) for row in rows]
    known = set(path.read_text(encoding="utf-8").splitlines()) if path.exists() else set()
    new = [line for line in dict.fromkeys(lines) if line not in known]
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in new)
    return len(new)
