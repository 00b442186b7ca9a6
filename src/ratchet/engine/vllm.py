"""`python -m ratchet.engine.vllm`: the same arguments, served by vLLM.

Writes base and adapter as one merged folder (a LoRA on vLLM's hot path is several times slower on a
CPU), then becomes vLLM's own OpenAI server.  The interpreter that has vLLM is `--python`.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from pathlib import Path

import torch

from ratchet.core.errors import Rejected
from ratchet.engine.bases import base_folder
from ratchet.engine.objects import fetch_adapter
from ratchet.engine.weights import (
    load_merged,
    quiet,
)
from ratchet.kit.processes import follow

EXIT_BAD_INPUT = 2
CPU_MEMORY_SHARE = 0.25


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("ratchet engine (vllm)", description=__doc__)
    for name in ("--base", "--name", "--python"):
        parser.add_argument(name, required=True)
    parser.add_argument("--adapter", default=None)
    parser.add_argument("--objects", default="")
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--version", default="unversioned")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--positions", type=int, default=2048)
    parser.add_argument("--parent", type=int, default=0, help="end when this process ends")
    return parser.parse_args(arguments)


def merged_folder(options: argparse.Namespace) -> Path:
    """A folder with the version's own weights, made once."""
    base = base_folder(options.base, options.cache / "bases")
    if not options.adapter:
        return base
    target: Path = options.cache / "merged" / options.version
    if target.exists():
        return target
    adapter = fetch_adapter(options.objects, options.adapter, options.cache)
    model, tokenizer = load_merged(base, adapter, "sdpa")
    beside = target.with_name(f"{target.name}.part{os.getpid()}")
    shutil.rmtree(beside, ignore_errors=True)
    model.save_pretrained(beside)
    tokenizer.save_pretrained(beside)
    beside.rename(target)
    return target


def main(arguments: list[str] | None = None) -> int:
    options = parse(sys.argv[1:] if arguments is None else arguments)
    if options.parent:
        follow(options.parent)
    quiet()
    try:
        folder = merged_folder(options)
    except Rejected as error:
        print(f"engine: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    command = [
        options.python, "-m", "vllm.entrypoints.openai.api_server",
        "--model", str(folder),
        "--served-model-name", options.name,
        "--host", options.host,
        "--port", str(options.port),
        "--max-model-len", str(options.positions),
        "--enable-prefix-caching",
        # The gateway counts by what answers say, also streams that did not ask for it.
        "--enable-force-include-usage",
    ]  # fmt: skip
    if not torch.cuda.is_available():
        # Its default is nine tenths of the machine's memory, which here is everybody's.
        command += ["--gpu-memory-utilization", str(CPU_MEMORY_SHARE)]
    return os.execv(options.python, command)


if __name__ == "__main__":
    sys.exit(main())
