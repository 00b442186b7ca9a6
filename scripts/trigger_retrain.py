#!/usr/bin/env python3
"""Ask the control plane for a retraining: from a merge, a cron job, or by hand.

Finds the control plane through --state-dir, RATCHET_URL and RATCHET_TOKEN, or the nearest .ratchet.
Exit codes: 0 promoted, unchanged, left to a newer run, or stopped by a gate as configured; 1
failed, rolled back or cancelled; 2 bad input.  A CI job that calls it is the commit's check.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from rich.console import Console

from ratchet.core.errors import NotFound, RatchetError, Rejected
from ratchet.entrypoints.cli.client import PATIENCE_SECONDS, connect
from ratchet.entrypoints.cli.summary import summary
from ratchet.entrypoints.cli.trigger import EXIT_BAD_INPUT, EXIT_FAILED, EXITS, commit_of, start_run
from ratchet.entrypoints.cli.watch import follow_run
from ratchet.kit.digest import digest_file
from ratchet.kit.ids import new_id


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="the spec, as ratchet.yaml")
    parser.add_argument("--no-wait", action="store_true", help="do not follow the run")
    parser.add_argument("--key", default="", help="idempotency key; default: commit and file")
    parser.add_argument("--why", default="merge", help="for the record")
    parser.add_argument("--state-dir", type=Path, default=None)
    parser.add_argument(
        "--summary",
        type=Path,
        default=os.environ.get("GITHUB_STEP_SUMMARY"),
        help="file that the outcome is added to as Markdown; default: $GITHUB_STEP_SUMMARY",
    )
    options = parser.parse_args()
    console = Console()
    try:
        client = connect(options.state_dir, patience_seconds=PATIENCE_SECONDS)
        key = options.key or default_key(options.config) or new_id("key")
        run_id = start_run(client, options.config, kind="merge", why=options.why, key=key)
        console.print(f"run {run_id}: {client.url}/runs/{run_id}")
        if options.no_wait:
            return 0
        run = follow_run(client, run_id, console)
    except (Rejected, NotFound) as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except RatchetError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_FAILED
    console.print(f"{run['state'].replace('_', ' ')}: {run['because']}", markup=False)
    if options.summary:
        with Path(options.summary).open("a") as file:
            file.write(summary(run, f"{client.url}/runs/{run_id}"))
    return EXITS.get(run["state"], EXIT_FAILED)


def default_key(config: Path) -> str:
    """One run for one commit of one file; outside of Git every call is a run of its own."""
    commit = commit_of(config.absolute().parent)
    if not commit or not config.exists():
        return ""
    return f"{commit[:12]}-{digest_file(config)[:12]}"


if __name__ == "__main__":
    sys.exit(main())
