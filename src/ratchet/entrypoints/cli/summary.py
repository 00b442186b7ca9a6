"""A run as Markdown: what a CI job shows beside a commit."""

from __future__ import annotations

from typing import Any


def summary(run: dict[str, Any], url: str) -> str:
    """State, reason, link, and the gates' table when the run has come to them."""
    lines = [f"### Ratchet: {run['state'].replace('_', ' ')}", "", _cell(run["because"]), ""]
    gates = next((s["detail"].get("gates") for s in run["stages"] if s["name"] == "gate"), None)
    if gates:
        lines += ["| gate | verdict | baseline | candidate |", "|---|---|---|---|"]
        for gate in gates:
            verdict = "passed" if gate["passed"] else "**failed**"
            lines.append(
                f"| {_cell(gate['gate'])} | {verdict} | {gate['baseline']:.3g} | "
                f"{gate['candidate']:.3g} |"
            )
        lines.append("")
    lines.append(f"[run {run['id']}]({url})")
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
