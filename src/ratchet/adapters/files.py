"""The user's files on this machine: training rows and evaluation suites."""

from __future__ import annotations

import ast
import asyncio
import gzip
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import jsonschema_rs
import obstore
import yaml
from obstore.exceptions import BaseError
from obstore.store import from_url

from ratchet.core.checks import CHECKS, JSON_SCHEMA, JUDGE, LM_EVAL, PYTHON
from ratchet.core.data import BadRow, Row, Rows, read_rows
from ratchet.core.errors import Rejected
from ratchet.core.suite import HELD_OUT, SuiteFile

_SUITE_KEYS = ("suite", "items", "check", "max_tokens")
_TASK_SUITE_KEYS = ("suite", "check", LM_EVAL, "max_tokens")


class LocalFiles:
    """Reads what the paths of a spec name: relative to the spec's folder, absolute, or as URLs of
    what obstore knows (`s3://bucket/data/*.jsonl`).  A name that ends in .gz is unpacked."""

    async def rows(self, folder: Path, patterns: Sequence[str], method: str = "sft") -> Rows:
        return await asyncio.to_thread(_read, folder, patterns, method)

    async def contents(self, folder: Path, names: Sequence[str]) -> dict[str, bytes]:
        return await asyncio.to_thread(_contents, folder, names)

    async def suite(self, folder: Path, path: str) -> SuiteFile:
        return await asyncio.to_thread(_suite, folder, path)


def _read(folder: Path, patterns: Sequence[str], method: str = "sft") -> Rows:
    good: list[Row] = []
    bad: list[BadRow] = []
    for pattern in patterns:
        contents = _from_store(pattern) if "://" in pattern else _from_disk(folder, pattern)
        for name, content in contents:
            rows = read_rows(name, _lines(name, content), method)
            good += rows.good
            bad += rows.bad
    return Rows(tuple(good), tuple(bad))


def _contents(folder: Path, names: Sequence[str]) -> dict[str, bytes]:
    contents = {}
    for name in names:
        try:
            contents[name] = (folder / name).read_bytes()
        except OSError as error:
            raise Rejected(
                f"train.files: {name} in {folder}: cannot be read: {error.strerror}"
            ) from error
    return contents


def _lines(name: str, content: bytes) -> list[str]:
    try:
        if name.endswith(".gz"):
            content = gzip.decompress(content)
        # Only line feeds end a row: other line ends of Unicode may stand in its text.
        return content.decode("utf-8-sig").split("\n")
    except (OSError, EOFError, zlib.error) as error:
        raise Rejected(f"data: {name}: cannot be unpacked: {error}") from error
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise Rejected(
            f"data: {name}:{line}: found a byte that is no UTF-8, expected UTF-8 text: convert "
            "the file"
        ) from error


def _from_disk(folder: Path, pattern: str) -> Iterator[tuple[str, bytes]]:
    for path in _matches(folder, pattern):
        name = str(path.relative_to(folder) if path.is_relative_to(folder) else path)
        try:
            yield name, path.read_bytes()
        except OSError as error:
            raise Rejected(f"data: {path}: cannot be read: {error.strerror}") from error


def _matches(folder: Path, pattern: str) -> list[Path]:
    if Path(pattern).is_absolute():
        found = sorted(Path("/").glob(pattern.lstrip("/")))
    elif ".." in Path(pattern).parts:
        path = (folder / pattern).resolve()
        found = sorted(path.parent.glob(path.name))
    else:
        found = sorted(folder.glob(pattern))
    if not found:
        raise Rejected(
            f"data: {pattern} matches no file in {folder}: check the path, "
            "which starts at the spec's folder"
        )
    return found


def _from_store(pattern: str) -> Iterator[tuple[str, bytes]]:
    scheme, _, rest = pattern.partition("://")
    bucket, _, wanted = rest.partition("/")
    # Up to the folder of the first wildcard: that much a store can look for by itself.
    prefix = re.split(r"[*?\[]", wanted)[0].rpartition("/")[0]
    try:
        store: Any = from_url(f"{scheme}://{bucket}")
        listed = [entry["path"] for page in obstore.list(store, prefix or None) for entry in page]
        found = sorted(key for key in listed if fnmatch(key, wanted))
        if not found:
            raise Rejected(f"data: {pattern} matches no object: check bucket, path and region")
        for key in found:
            yield f"{scheme}://{bucket}/{key}", bytes(obstore.get(store, key).bytes())
    except (BaseError, OSError, ValueError) as error:
        raise Rejected(f"data: {pattern} cannot be read: {error}") from error


def _suite(folder: Path, path: str) -> SuiteFile:
    file = (folder / path).resolve()
    try:
        value = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise Rejected(f"evaluate.suites: {file}: cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise Rejected(f"evaluate.suites: {file}: not YAML: {error}") from error
    _check_suite(file, value)
    items = value.get("items", "")
    if items and items != HELD_OUT and "://" not in items:
        items = str(file.parent / items)
    return SuiteFile(
        name=value["suite"],
        items=items,
        check=value["check"],
        max_tokens=value["max_tokens"],
        schema=value.get("schema"),
        code=_code(file, value["code"]) if "code" in value else "",
        judge=value.get("judge"),
        task={"limit": None, **value[LM_EVAL]} if LM_EVAL in value else None,
    )


def _check_suite(file: Path, value: Any) -> None:
    if not isinstance(value, dict):
        raise Rejected(f"{file}: expected the keys {', '.join(_SUITE_KEYS)}")
    check = value.get("check")
    needed = _TASK_SUITE_KEYS if check == LM_EVAL else _SUITE_KEYS
    known = (*needed, "schema", "code", "judge", LM_EVAL)
    problems = [f"{file}: unknown key {key}" for key in value if key not in known]
    problems += [f"{file}: {key} is missing" for key in needed if key not in value]
    checks = (*CHECKS, JSON_SCHEMA, PYTHON, JUDGE, LM_EVAL)
    if check not in checks and "check" in value:
        problems.append(f"{file}: check: found {check!r}, expected one of {', '.join(checks)}")
    problems += [f"{file}: {fault}" for fault in _extra_faults(check, value)]
    for key in ("suite", "items", "code"):
        if key in value and not (isinstance(value[key], str) and value[key].strip()):
            problems.append(f"{file}: {key}: found {value[key]!r}, expected text")
    tokens = value.get("max_tokens", 1)
    if type(tokens) is not int or tokens < 1:
        problems.append(f"{file}: max_tokens: found {tokens!r}, expected a whole number above 0")
    if problems:
        raise Rejected("\n".join(problems))


def _extra_faults(check: object, value: dict[str, Any]) -> list[str]:
    """Of the keys that belong to one check only."""
    extras: dict[str, tuple[str, Callable[[Any], list[str]]]] = {
        JSON_SCHEMA: ("schema", _schema_faults),
        PYTHON: ("code", lambda _: []),
        JUDGE: ("judge", _judge_faults),
        LM_EVAL: (LM_EVAL, _task_faults),
    }
    faults = []
    for name, (key, faults_of) in extras.items():
        if (check == name) != (key in value):
            faults.append(f"{key}: expected with check: {name}, and only there")
        elif key in value:
            faults += [f"{key}: {fault}" for fault in faults_of(value[key])]
    return faults


def _code(suite: Path, name: str) -> str:
    """The program beside a suite.  Raises `Rejected` unless it has the function that is called."""
    file = suite.parent / name
    try:
        code = file.read_text(encoding="utf-8")
        tree = ast.parse(code)
    except (OSError, UnicodeDecodeError) as error:
        raise Rejected(f"{suite}: code: {file} cannot be read: {error}") from error
    except (SyntaxError, ValueError) as error:
        raise Rejected(f"{suite}: code: {file} is no Python: {error}") from error
    found = [each for each in tree.body if isinstance(each, ast.FunctionDef)]
    if not any(each.name == "score" for each in found):
        raise Rejected(f"{suite}: code: {file} has no function score(answer, expected, row)")
    return code


_TASK_KEYS = ("task", "limit", "few_shot", "metric")


def _task_faults(value: Any) -> list[str]:
    if not isinstance(value, dict):
        return [f"found {value!r}, expected {{task: NAME, limit: 100}}"]
    faults = [f"unknown key {key}" for key in value if key not in _TASK_KEYS]
    faults += [f"{key} is missing" for key in ("task",) if key not in value]
    for key in ("task", "metric"):
        if key in value and not (isinstance(value[key], str) and value[key].strip()):
            faults.append(f"{key}: found {value[key]!r}, expected text")
    for key, least in (("limit", 1), ("few_shot", 0)):
        if key in value and (type(value[key]) is not int or value[key] < least):
            faults.append(f"{key}: found {value[key]!r}, expected a whole number from {least}")
    return faults


_JUDGE_KEYS = ("url", "model", "key", "rubric")


def _judge_faults(value: Any) -> list[str]:
    if not isinstance(value, dict):
        return [f"found {value!r}, expected url and model"]
    faults = [f"unknown key {key}" for key in value if key not in _JUDGE_KEYS]
    faults += [f"{key} is missing" for key in ("url", "model") if key not in value]
    for key in _JUDGE_KEYS:
        if key in value and not (isinstance(value[key], str) and value[key].strip()):
            faults.append(f"{key}: found {value[key]!r}, expected text")
    url, key = str(value.get("url", "http://")), str(value.get("key", "$"))
    if not url.startswith(("http://", "https://")):
        faults.append(f"url: found {url!r}, expected http:// or https://")
    if not key.startswith("$"):
        # Said without it: a secret that stands in a file need not stand in a log, too.
        faults.append("key: expected $NAME of a variable, not the key itself")
    return faults


def _schema_faults(schema: Any) -> list[str]:
    try:
        jsonschema_rs.validator_for(schema)
    except (jsonschema_rs.ValidationError, TypeError, ValueError) as error:
        return [f"is no JSON Schema: {str(error).splitlines()[0]}"]
    return []
