"""Everything in `tests/bad` gives its one right message, with its place, before anything runs."""

from __future__ import annotations

import asyncio
import shutil
import sys
from datetime import datetime
from pathlib import Path
from typing import cast

import pytest

from ratchet.adapters.basemodel import BaseModels
from ratchet.adapters.files import LocalFiles
from ratchet.adapters.harness import HarnessTasks
from ratchet.adapters.prices import PriceLists
from ratchet.adapters.specfile.reader import load_spec
from ratchet.core.errors import Rejected
from ratchet.harness import Harness
from ratchet.kit.clock import SystemClock
from ratchet.operations.material import MaterialParts, inspect
from ratchet.ports import (
    AnsweredSource,
    AttemptStore,
    EvidenceSource,
    FleetStore,
    ProjectStore,
    Registry,
)
from tests import tiny

BAD = Path(__file__).parents[1] / "bad"
SPECS = sorted((BAD / "specs").glob("*.yaml"))
DATA = sorted(path for path in (BAD / "data").iterdir() if path.name != "good")


class NobodyAsked:
    """A control plane that knows nothing: no traffic to measure a plan by, no project."""

    async def answers(self, project: str, since: datetime) -> tuple[int, int]:
        return 0, 0

    async def find(self, name: str) -> None:
        return None

    async def tokens_per_second(self, project: str) -> None:
        return None


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.build(tmp_path_factory.mktemp("model"))


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_a_bad_spec_is_refused_with_its_place(path: Path) -> None:
    [says] = [
        line.removeprefix("# says: ")
        for line in path.read_text().splitlines()
        if line.startswith("# says: ")
    ]

    with pytest.raises(Rejected) as caught:
        load_spec(path)

    [problem] = str(caught.value).splitlines()
    assert says in problem
    assert problem.startswith(str(path))


@pytest.mark.parametrize("case", DATA, ids=lambda path: path.name)
def test_bad_data_is_refused_with_its_line_and_a_fix(
    case: Path, model: Path, tmp_path: Path
) -> None:
    [problem] = look(case, model, tmp_path)

    assert (case / "says.txt").read_text().strip() in problem


def test_what_the_bad_cases_are_changed_from_is_good(model: Path, tmp_path: Path) -> None:
    assert look(BAD / "data" / "good", model, tmp_path) == ()


def test_a_machine_whose_price_nobody_knows_is_refused(model: Path, tmp_path: Path) -> None:
    case = tmp_path / "case"
    case.mkdir()
    text = (BAD / "data" / "good" / "ratchet.yaml").read_text()
    (case / "ratchet.yaml").write_text(
        text.replace("train: {max", "train: {machine: g5.xlarge, max")
    )

    [problem] = look(case, model, tmp_path)

    assert "no usd_per_hour of g5.xlarge" in problem
    assert "RATCHET_PRICES names no list" in problem


def test_there_are_ten_of_each() -> None:
    assert len(SPECS) >= 10
    assert len(DATA) >= 10


def look(case: Path, model: Path, folder: Path) -> tuple[str, ...]:
    """Problems of the good project with a case's files in the place of its own."""
    project = folder / "project"
    shutil.copytree(BAD / "data" / "good", project)
    shutil.copytree(case, project, dirs_exist_ok=True)
    (project / "model").symlink_to(model)
    parts = MaterialParts(
        files=LocalFiles(),
        tasks=HarnessTasks(Harness(sys.executable)),
        prices=PriceLists((), SystemClock()),
        bases=BaseModels(None),
        evidence=cast(EvidenceSource, NobodyAsked()),
        attempts=cast(AttemptStore, NobodyAsked()),
        answered=cast(AnsweredSource, NobodyAsked()),
        projects=cast(ProjectStore, NobodyAsked()),
        registry=cast(Registry, NobodyAsked()),
        clock=SystemClock(),
        fleet=cast(FleetStore, NobodyAsked()),
    )
    spec = load_spec(project / "ratchet.yaml")
    return asyncio.run(inspect(spec, project, parts)).problems
