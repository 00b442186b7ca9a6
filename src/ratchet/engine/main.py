"""`python -m ratchet.engine.main`: load one version, warm it up, serve until told to stop.

The port opens only when the weights are loaded and one answer was computed, so "it listens" means
"it is ready".  SIGTERM and Ctrl-C stop accepting, finish what runs, then exit.
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import torch
import uvicorn

from ratchet.core.errors import Rejected
from ratchet.engine.api import Api, Fault
from ratchet.engine.bases import base_folder
from ratchet.engine.batch import Batcher
from ratchet.engine.journal import Journal
from ratchet.engine.objects import fetch_adapter
from ratchet.engine.packed import ATTENTION, PackedModel, Piece, UnsupportedModel
from ratchet.engine.weights import (
    load_merged,
    quiet,
    stop_tokens,
)
from ratchet.kit.processes import follow

DRAIN_SECONDS = 30
EXIT_BAD_INPUT = 2
EXIT_NOT_SERVED = 1


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("ratchet engine", description=__doc__)
    parser.add_argument("--base", required=True, help="package:NAME, path:FOLDER or hf:ORG/NAME")
    parser.add_argument("--adapter", default=None, help="key of an adapter in the object store")
    parser.add_argument("--objects", default="", help="URL of the object store")
    parser.add_argument("--cache", type=Path, required=True, help="folder for bases and adapters")
    parser.add_argument("--name", required=True, help='what clients put into "model"')
    parser.add_argument("--version", default="unversioned")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--slots", type=int, default=32, help="requests computed at once")
    parser.add_argument("--positions", type=int, default=2048, help="longest conversation, tokens")
    parser.add_argument("--threads", type=int, default=0, help="0: as many as cores")
    parser.add_argument("--parent", type=int, default=0, help="end when this process ends")
    parser.add_argument("--journal", type=Path, default=None, help="folder for usage records")
    parser.add_argument("--drill-error-rate", type=float, default=0.0)
    parser.add_argument("--drill-delay-seconds", type=float, default=0.0)
    parser.add_argument("--drill-delay-share", type=float, default=1.0)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    options = parse(sys.argv[1:] if arguments is None else arguments)
    if options.parent:
        follow(options.parent)
    quiet()
    if options.threads:
        torch.set_num_threads(options.threads)
    try:
        base = base_folder(options.base, options.cache / "bases")
        adapter = None
        if options.adapter:
            adapter = fetch_adapter(options.objects, options.adapter, options.cache)
        model, tokenizer = load_merged(base, adapter, ATTENTION)
        packed = PackedModel(model, slots=options.slots, positions=options.positions)
    except (Rejected, UnsupportedModel) as error:
        print(f"engine: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    _warm_up(packed, tokenizer)
    batcher = Batcher(packed, stop_tokens(model, tokenizer))
    fault = Fault(options.drill_error_rate, options.drill_delay_seconds, options.drill_delay_share)
    journal = Journal(options.journal, options.version)
    api = Api(options.name, options.version, batcher, tokenizer, fault, journal)
    return _serve(api, batcher, options)


def _warm_up(model: PackedModel, tokenizer: Any) -> None:
    """The first passes allocate and choose kernels; no user should wait for that."""
    prompt = tokenizer.encode("Hello, how are you today? " * 10)
    model.step([Piece(0, 0, prompt)])
    for running in range(1, model.slots + 1):
        model.step([Piece(slot, len(prompt), prompt[-1:]) for slot in range(running)])


def _serve(api: Api, batcher: Batcher, options: argparse.Namespace) -> int:
    """HTTP on a thread of its own, the model on this one, which loaded it."""
    server = uvicorn.Server(
        uvicorn.Config(
            api.app(),
            host=options.host,
            port=options.port,
            log_level="warning",
            access_log=False,
            timeout_graceful_shutdown=DRAIN_SECONDS,
        )
    )

    def stop(*_: object) -> None:
        server.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)

    def listen() -> None:
        try:
            server.run()
        finally:
            batcher.close()

    http = threading.Thread(target=listen, name="http", daemon=True)
    http.start()
    try:
        batcher.run()
    finally:
        # Requests in flight learn how they ended, also when the model raised.
        server.should_exit = True
        http.join(DRAIN_SECONDS)
    return 0 if server.started else EXIT_NOT_SERVED


if __name__ == "__main__":
    sys.exit(main())
