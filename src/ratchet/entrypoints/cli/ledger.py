"""`ratchet usage`, `ratchet budget` and `ratchet price`: what answers took, and what they may."""

from __future__ import annotations

import getpass
import json
from datetime import timedelta
from decimal import Decimal
from typing import Annotated, Any

import typer
from rich.console import Console

from ratchet.core.ledger import Period, SubjectKind, Unit
from ratchet.entrypoints.cli.client import connect
from ratchet.entrypoints.cli.key import (
    JsonOption,
    ProjectOption,
    StateOption,
    WhyOption,
    living_key,
    only_project,
)
from ratchet.entrypoints.cli.tables import list_table, minute
from ratchet.kit.clock import SystemClock

budgets = typer.Typer(help="What keys, teams and projects may use.", no_args_is_help=True)
prices = typer.Typer(help="What answers cost.", no_args_is_help=True)


def usage(
    project: ProjectOption = None,
    days: Annotated[int, typer.Option(min=1, max=400, help="How far back.")] = 7,
    state_dir: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Requests, tokens and cost of each key and day (UTC)."""
    client = connect(state_dir)
    since = (SystemClock().now() - timedelta(days=days)).isoformat()
    rows = client.get("/usage", project=only_project(client, project), since=since)
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    titles = ("requests", "prompt", "answer", "USD", "failed", "untold")
    numbers = ("requests", "prompt_tokens", "completion_tokens", "cost_usd", "failed", "untold")
    table = list_table("day", "key", "team", *titles)
    for row in rows:
        who = row["key_name"] or row["key_id"] or "open"
        row["cost_usd"] = f"{Decimal(row['cost_usd']):.6f}"
        table.add_row(row["day"], who, row["team"], *(str(row[number]) for number in numbers))
    Console().print(table)


@budgets.command("set")
def set_budget(
    amount: Annotated[str, typer.Argument(help="Like 50usd or 2000000tokens.")],
    period: Annotated[Period, typer.Option("--per")] = Period.MONTH,
    key: Annotated[str, typer.Option(help="Id of the key, or its name.")] = "",
    team: Annotated[str, typer.Option(help="Name of the team.")] = "",
    project: ProjectOption = None,
    state_dir: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Bound what a key, a team or (without either) the project may use.

    At 80 % there is a warning in the log and the audit; at 100 % its keys are refused within two
    seconds, until the next day or month (UTC) or a larger budget.
    """
    client = connect(state_dir)
    unit = next((unit for unit in Unit if amount.endswith(unit.value)), None)
    if unit is None or (key and team):
        raise typer.BadParameter("an amount like 50usd or 2000000tokens; of --key or of --team")
    kind = SubjectKind.KEY if key else SubjectKind.TEAM if team else SubjectKind.PROJECT
    body: dict[str, Any] = {
        "project": only_project(client, project),
        "kind": kind.value,
        "subject": living_key(client, key, project) if key else team,
        "period": period.value,
        "unit": unit.value,
        "amount": amount.removesuffix(unit.value),
        "who": getpass.getuser(),
    }
    made = client.put("/budgets", body)
    print(json.dumps(made) if as_json else f"budget {made['id']} is set")


@budgets.command("list")
def list_budgets(
    project: ProjectOption = None, state_dir: StateOption = None, as_json: JsonOption = False
) -> None:
    """Budgets and what their present period has used."""
    client = connect(state_dir)
    rows = client.get("/budgets", project=only_project(client, project))
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    table = list_table("budget", "of", "per", "used", "of at most", "unit", "state")
    for row in rows:
        whose = row["kind"] if row["kind"] == "project" else f"{row['kind']} {row['subject']}"
        table.add_row(
            row["id"], whose, row["period"], row["spent"], row["amount"], row["unit"], row["state"]
        )
    Console().print(table)


@budgets.command("drop")
def drop_budget(
    budget_id: str, why: WhyOption = "dropped by a person", state_dir: StateOption = None
) -> None:
    """Bound no longer."""
    body = {"why": why, "who": getpass.getuser()}
    connect(state_dir).post(f"/budgets/{budget_id}/drop", body)
    print(f"budget {budget_id} is dropped")


@prices.command("set")
def set_price(
    prompt: Annotated[str, typer.Option(help="USD for a million prompt tokens.")],
    completion: Annotated[str, typer.Option(help="USD for a million answer tokens.")],
    version: Annotated[str, typer.Option(help="Default: all without a price of their own.")] = "",
    project: ProjectOption = None,
    state_dir: StateOption = None,
) -> None:
    """What answers cost from now on; what was settled stays as it was."""
    client = connect(state_dir)
    body = {
        "project": only_project(client, project),
        "version": version,
        "prompt_usd": prompt,
        "completion_usd": completion,
        "who": getpass.getuser(),
    }
    client.put("/prices", body)
    print(f"price of {version or 'every version without its own'} is set")


@prices.command("list")
def list_prices(
    project: ProjectOption = None, state_dir: StateOption = None, as_json: JsonOption = False
) -> None:
    """Prices in force."""
    client = connect(state_dir)
    rows = client.get("/prices", project=only_project(client, project))
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    table = list_table("version", "prompt USD / 1M", "answer USD / 1M", "set by", "at")
    for row in rows:
        table.add_row(
            row["version_id"] or "all others", row["prompt_usd"], row["completion_usd"],
            row["set_by"], minute(row["set_at"]),
        )  # fmt: skip
    Console().print(table)
