"""`ratchet data`: turns that were kept, what was said of them, and who is to be forgotten."""

from __future__ import annotations

import getpass
import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from ratchet.entrypoints.cli.client import connect
from ratchet.entrypoints.cli.key import only_project
from ratchet.entrypoints.cli.tables import list_table, minute

StateOption = Annotated[Path | None, typer.Option("--state-dir")]
ProjectOption = Annotated[str | None, typer.Option(help="Default: the only one there is.")]
JsonOption = Annotated[bool, typer.Option("--json")]
SHOWN_CHARACTERS = 60

app = typer.Typer(
    no_args_is_help=True,
    help="Turns and feedback (list, show, status, erase); dataset versions (versions, diff).",
)


@app.command("list")
def listing(
    project: ProjectOption = None,
    limit: Annotated[int, typer.Option(min=1, max=200)] = 20,
    with_feedback: Annotated[bool, typer.Option(help="Only turns that have some.")] = False,
    state_dir: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """The newest turns."""
    client = connect(state_dir)
    name = only_project(client, project)
    rows = client.get("/turns", project=name, limit=limit, only_said=with_feedback)
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    table = list_table("request", "version", "prompt", "answer", "feedback")
    for row in rows:
        last = row["messages"][-1].get("content")
        said = [_said(each) for each in row["feedback"]]
        table.add_row(
            row["request_id"],
            row["version_id"],
            _short(last),
            _short(row["answer"].get("content")),
            " ".join(said),
        )
    Console().print(table)


def _short(text: object) -> str:
    line = " ".join(str(text or "").split())
    return line if len(line) <= SHOWN_CHARACTERS else line[: SHOWN_CHARACTERS - 1] + "…"


def _said(feedback: dict[str, Any]) -> str:
    if feedback["thumbs"]:
        return {"up": "+1", "down": "-1"}[feedback["thumbs"]]
    if feedback["score"] is not None:
        return f"{feedback['score']:g}"
    return "corrected" if feedback["correction"] else "comment"


@app.command()
def show(request_id: str, project: ProjectOption = None, state_dir: StateOption = None) -> None:
    """One turn, whole, as JSON."""
    client = connect(state_dir)
    found = client.get(f"/turns/{request_id}", project=only_project(client, project))
    print(json.dumps(found, indent=2, ensure_ascii=False))


@app.command()
def status(
    project: ProjectOption = None, state_dir: StateOption = None, as_json: JsonOption = False
) -> None:
    """What was sampled in the last day, how much of it was kept, and what is stored."""
    client = connect(state_dir)
    found = client.get("/capture", project=only_project(client, project))
    if as_json:
        print(json.dumps(found, indent=2))
        return
    print(
        f"last 24 h: {found['sampled']} answers sampled, {found['kept']} kept, {found['lost']} lost"
    )
    since = f" since {found['oldest'][:10]}" if found["oldest"] else ""
    print(f"stored: {found['turns']} turns{since}, {found['feedback']} feedback")
    if found["feedback_without_turn"]:
        print(f"feedback whose turn is not (or not yet) here: {found['feedback_without_turn']}")


@app.command()
def versions(
    project: ProjectOption = None,
    limit: Annotated[int, typer.Option(min=1, max=200)] = 20,
    state_dir: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """The newest dataset versions: what runs were trained on."""
    client = connect(state_dir)
    rows = client.get("/datasets", project=only_project(client, project), limit=limit)
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    table = list_table("dataset", "rows", "new bytes", "created", "from")
    for row in rows:
        made_of = ", ".join(row["recipe"].get("files", ()))
        table.add_row(
            row["id"], str(row["rows"]), f"{row['bytes_new']:,}", minute(row["created_at"]), made_of
        )
    Console().print(table)


@app.command()
def diff(
    before: str,
    after: str,
    limit: Annotated[int, typer.Option(min=1, max=200, help="Rows shown of each kind.")] = 5,
    state_dir: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """How two dataset versions differ, row by row."""
    found = connect(state_dir).get(f"/datasets/{before}/diff/{after}", limit=limit)
    if as_json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
        return
    counts = found["counts"]
    print(
        f"{counts['added']} added, {counts['removed']} removed, {counts['changed']} with another "
        f"answer, {found['kept']} the same"
    )
    for sign, rows in (("-", found["removed"]), ("+", found["added"])):
        for row in rows:
            print(f"{sign} {_conversation(row)}")
    for pair in found["changed"]:
        print(f"- {_conversation(pair['before'])}\n+ {_conversation(pair['after'])}")


def _conversation(row: dict[str, Any]) -> str:
    *_, asked, answered = row["messages"]
    return f"{_short(asked['content'])} -> {_short(answered['content'])}"


@app.command()
def erase(
    subject: Annotated[
        str, typer.Option(help="A key's principal, a request's `user`, or a conversation.")
    ],
    why: Annotated[str, typer.Option(help="For the audit log.")],
    project: ProjectOption = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    state_dir: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Remove a person's turns and what was said of them.  Cannot be undone."""
    client = connect(state_dir)
    name = only_project(client, project)
    if not yes:
        typer.confirm(f"Erase all turns of {subject!r} in {name} for good?", abort=True)
    body = {"project": name, "subject": subject, "why": why, "who": getpass.getuser()}
    found = client.post("/erasures", body)
    if as_json:
        print(json.dumps(found, indent=2))
        return
    print(f"erased: {found['turns']} turns, {found['feedback']} feedback")
    if found["conversations"]:
        print(f"conversation names blanked in access records: {found['conversations']}")
    if found["versions"]:
        print(f"answered by: {', '.join(found['versions'])}")
    print("what still waits at a gateway is refused when it comes; no dataset is made of turns yet")
