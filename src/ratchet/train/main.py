"""`python -m ratchet.train.main`: claim one attempt, do its stage, report, exit.

Exit codes: 0 the control plane has the outcome (also when the work failed or is no longer
wanted), anything else is a crash, and the stage is tried again from its checkpoint.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from obstore.exceptions import BaseError
from safetensors import SafetensorError

from ratchet.core.errors import Rejected, first_line
from ratchet.kit.peers import PeerFiles
from ratchet.train import command
from ratchet.train.desk import Desk, Superseded
from ratchet.train.evaluate import EngineFailed
from ratchet.train.job import Preempted, is_out_of_memory
from ratchet.train.store import is_disk_full

Stage = Callable[[dict[str, Any], Desk, argparse.Namespace], dict[str, Any]]


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("ratchet worker", description=__doc__)
    parser.add_argument("--attempt", required=True)
    parser.add_argument("--server", required=True, help="gRPC address of the control plane")
    parser.add_argument("--token-file", type=Path, required=True)
    parser.add_argument("--objects", required=True, help="URL of the object store")
    parser.add_argument("--work", type=Path, required=True, help="folder for checkpoints")
    parser.add_argument("--cache", type=Path, required=True, help="folder for bases and adapters")
    parser.add_argument(
        "--checkpoints",
        choices=["folder", "store"],
        default="folder",
        help="where the next machine finds them: in the work folder, or also in the object store",
    )
    parser.add_argument("--vllm-python", default=sys.executable)
    parser.add_argument(
        "--lm-eval-python", default=sys.executable, help="interpreter that has lm_eval"
    )
    parser.add_argument("--lm-eval-include", default="", help="folder with tasks of your own")
    parser.add_argument(
        "--peers", nargs=3, type=Path, metavar=("CERT", "KEY", "CA"), help="for mutual TLS"
    )
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    options = parse(sys.argv[1:] if arguments is None else arguments)
    peers = PeerFiles(*options.peers) if options.peers else None
    desk = Desk(options.server, options.attempt, options.token_file.read_text().strip(), peers)
    try:
        assignment = desk.claim()
        if assignment["stage"] == "train":
            # Asking a suite keeps every answer as it comes, so it may end anywhere.
            desk.stop.listen()
        result = _stage(assignment["stage"])(assignment, desk, options)
        desk.succeed(result)
    except Preempted as stopped:
        print(f"attempt {options.attempt}: {stopped}")
        # Unheard, the exit code tells it to whoever started us.
        return 0 if desk.yield_place(str(stopped)) else command.TRY_AGAIN
    except Superseded:
        print(f"attempt {options.attempt} is no longer wanted")
    except (EngineFailed, Rejected) as error:
        _tell(desk, str(error))
    except (OSError, RuntimeError, MemoryError, SafetensorError, BaseError) as error:
        if is_out_of_memory(error):
            with contextlib.suppress(Superseded):
                desk.outgrow(
                    f"out of memory: {first_line(error)[:200]}. Lower train.batch_size or "
                    "train.max_length, or take a larger machine"
                )
            return 0
        if not is_disk_full(error):
            raise
        _tell(desk, f"disk full: {error}. Free some space and start the run again")
    return 0


def _tell(desk: Desk, because: str) -> None:
    with contextlib.suppress(Superseded):
        desk.fail(because)


def _stage(name: str) -> Stage:
    """Each brings its own libraries, so that a worker loads only those it needs."""
    if name == "train":
        from ratchet.train.training import train_stage

        return train_stage
    from ratchet.train.evaluation import evaluate_stage

    return evaluate_stage


if __name__ == "__main__":
    code = main()
    # Libraries leave threads behind that can hold an exit for minutes; everything is reported.
    sys.stdout.flush()
    os._exit(code)
