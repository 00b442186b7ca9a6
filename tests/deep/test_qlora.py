"""A base in four bits, by a real bitsandbytes (build/qlora) on the CPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests import tiny

pytestmark = pytest.mark.deep

PACKAGES = Path("build/qlora").absolute()
TRAIN = """
import json, sys
from pathlib import Path
import bitsandbytes
from ratchet.kit.processes import StopNotice
from ratchet.train import lora, sft
from ratchet.train.job import Job

base, rows, work, recipe, start = (json.loads(word) for word in sys.argv[1:])
job = Job(base=Path(base), start=start and Path(start), work=Path(work), recipe=recipe,
          rows=[json.loads(line) for line in Path(rows).read_text().splitlines()],
          report=lambda *_: None, stop=StopNotice())
Path(work).mkdir()
quantized = [type(part).__name__ for part in lora.model_of(job)["model"].modules()]
done = sft.train(job)
print(json.dumps([quantized.count("Linear4bit"), [loss for _, loss in done.losses]]))
"""


def trained(
    base: Path, rows: Path, work: Path, start: Path | None = None, **more: object
) -> tuple[int, list[float]]:
    """How many of its layers were in four bits, and its losses."""
    recipe = {
        "lora": {"rank": 16, "alpha": 32}, "epochs": 3.0, "learning_rate": 5e-3, "batch_size": 8,
        "max_length_tokens": 64, "seed": 1, "checkpoint_every_steps": 100, "load_in_4bit": True,
        **more,
    }  # fmt: skip
    words = [str(base), str(rows), str(work), recipe, start and str(start)]
    done = subprocess.run(
        [sys.executable, "-c", TRAIN, *map(json.dumps, words)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([*filter(None, sys.path), str(PACKAGES)])},
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    quantized, losses = json.loads(done.stdout.splitlines()[-1])
    return quantized, losses


def test_a_base_in_four_bits_yields_an_adapter_that_serves_over_the_whole_one(
    tmp_path: Path,
) -> None:
    if not PACKAGES.exists():
        pytest.skip("bitsandbytes is not installed in build/qlora; make test-deep installs it")
    base, rows = tiny.build(tmp_path / "model"), tmp_path / "rows.jsonl"
    tiny.write_rows(rows, 240, seed=1)

    quantized, losses = trained(base, rows, tmp_path / "first")
    unquantized, whole = trained(base, rows, tmp_path / "whole", load_in_4bit=False)
    _, further = trained(base, rows, tmp_path / "next", tmp_path / "first" / "adapter", epochs=0.2)

    assert (quantized, unquantized) == (14, 0)  # seven projections in each of two layers
    assert losses[-1] == pytest.approx(whole[-1], abs=0.05)
    assert losses[-1] < losses[0] - 1
    assert further[0] == pytest.approx(losses[-1], abs=0.1)  # it went on from there
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), tmp_path / "first/adapter"
    )
    right = 0
    for line in rows.read_text().splitlines()[:40]:
        asked, answer = json.loads(line)["messages"]
        ids = tokenizer.apply_chat_template(
            [asked], add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        out = model.generate(**ids, max_new_tokens=3, do_sample=False)
        said = tokenizer.decode(out[0, ids["input_ids"].shape[1] :], skip_special_tokens=True)
        right += said.strip() == answer["content"]
    assert right >= 36
