"""`ratchet fleet`: machines that several projects share."""

from __future__ import annotations

import getpass
import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from ratchet.adapters.specfile.fleet import load_fleet
from ratchet.entrypoints.cli.client import connect
from ratchet.entrypoints.cli.fleet_simulate import simulate
from ratchet.entrypoints.cli.key import JsonOption, StateOption
from ratchet.entrypoints.cli.tables import list_table

app = typer.Typer(help="Machines that several projects share.", no_args_is_help=True)


@app.command("apply")
def apply(
    file: Annotated[Path, typer.Argument(help="Pools and projects' shares, like fleet.yaml.")],
    state_dir: StateOption = None,
) -> None:
    """Say what pools there are and what each project may take; replaces what was said before."""
    plan = load_fleet(file)
    body = {
        "pools": {
            pool.name: {"spot": pool.spot, "on_demand": pool.on_demand} for pool in plan.pools
        },
        "projects": {
            project: {"weight": share.weight, "usd_per_month": share.usd_per_month}
            for project, share in plan.shares.items()
        },
        "who": getpass.getuser(),
    }
    connect(state_dir).put("/fleet", body)
    names = ", ".join(pool.name for pool in plan.pools)
    print(f"pools: {names}; projects with a share: {', '.join(plan.shares) or 'none'}")


app.command("simulate")(simulate)


@app.command("show")
def show(state_dir: StateOption = None, as_json: JsonOption = False) -> None:
    """Who has which slots, who waits and why, and what each project used in this month."""
    fleet = connect(state_dir).get("/fleet")
    if as_json:
        print(json.dumps(fleet, indent=2))
        return
    console = Console()
    if not fleet["pools"]:
        print("no pools; say what there is with `ratchet fleet apply fleet.yaml`")
        return
    for pool in fleet["pools"]:
        console.print(f"[bold]{pool['name']}[/]  {slots(pool, 'spot')}, {slots(pool, 'on_demand')}")
        table = list_table("run", "project", "slots", "priority", "has", "wants")
        for claim in pool["claims"]:
            table.add_row(
                claim["run_id"], claim["project"], str(claim["slots"]), str(claim["priority"]),
                claim["alive"] or "nothing", claim["wants"] or "nothing",
            )  # fmt: skip
        if pool["claims"]:
            console.print(table)
        for claim in pool["claims"]:
            if claim["alive"] is None:
                console.print(f"  [dim]{claim['run_id']}[/] {claim['because']}", highlight=False)
    shares = list_table("project", "weight", "slot hours", "USD", "of at most")
    for row in fleet["projects"]:
        limit = row["usd_per_month"]
        shares.add_row(
            row["project"], f"{row['weight']:g}", f"{row['month_slot_seconds'] / 3600:.2f}",
            f"{row['usd_spent']:.4f}", "" if limit is None else f"{limit:g}",
        )  # fmt: skip
    if fleet["projects"]:
        console.print(shares)


def slots(pool: dict[str, Any], kind: str) -> str:
    """`3 of 8 spot slots taken`."""
    limit = "any number of" if pool[kind] is None else pool[kind]
    return f"{pool['taken'][kind]} of {limit} {kind.replace('_', '-')} slots taken"
