"""A YAML file under reading: what it says, with line and column, and all that is wrong with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import yaml

from ratchet.adapters.specfile.values import Unfit
from ratchet.core.errors import Rejected

_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a file: where, what was found, what was expected."""

    file: str
    line: int
    column: int
    key: str
    found: str
    expected: str

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}:{self.column}"
        return f"{where}: {self.key}: found {self.found}, expected {self.expected}"


class Document:
    """Collects problems, so that all are reported at once."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.problems: list[Problem] = []

    def root(self, text: str, keys: str) -> yaml.MappingNode | None:
        """The whole as a mapping; None with a problem when it is none.  `keys` says what such a
        file has."""
        try:
            root = yaml.compose(text, Loader=yaml.SafeLoader)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark
            line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
            self.add(line, column, "YAML", str(error.problem), "valid YAML")
            return None
        except (yaml.YAMLError, UnicodeError) as error:
            self.add(1, 1, "YAML", str(error).splitlines()[0], "text in UTF-8")
            return None
        if not isinstance(root, yaml.MappingNode):
            self.add(1, 1, "file", "no mapping", keys)
            return None
        return root

    def pairs(self, node: yaml.Node, key: str) -> Iterator[tuple[yaml.Node, str, yaml.Node]]:
        """Of a mapping, each key once: its node, its name, and what it holds."""
        if not isinstance(node, yaml.MappingNode):
            self.problem(node, key, shown(node), "keys below it")
            return
        seen: set[str] = set()
        for key_node, value_node in node.value:
            name = str(key_node.value)
            if name in seen:
                whole = f"{key}.{name}" if key else name
                self.problem(key_node, whole, "the key a second time", "each key once")
                continue
            seen.add(name)
            yield key_node, name, value_node

    def leaf(self, key: str, node: yaml.Node, read: Callable[[Any], _Value]) -> _Value | None:
        """A value; None with a problem when it is not as expected."""
        try:
            return read(construct(node))
        except Unfit as unfit:
            self.problem(node, key, shown(node), str(unfit))
            return None

    def problem(self, node: yaml.Node, key: str, found: str, expected: str) -> None:
        mark = node.start_mark
        self.add(mark.line + 1, mark.column + 1, key, found, expected)

    def add(self, line: int, column: int, key: str, found: str, expected: str) -> None:
        self.problems.append(Problem(self.file, line, column, key, found, expected))

    def check(self) -> None:
        """Raises `Rejected` with every problem on a line of its own."""
        if self.problems:
            raise Rejected("\n".join(map(str, self.problems)))


def construct(node: yaml.Node) -> Any:
    loader = yaml.SafeLoader("")
    try:
        return loader.construct_object(node, deep=True)
    finally:
        loader.dispose()


def shown(node: yaml.Node) -> str:
    if isinstance(node, yaml.ScalarNode):
        return repr(node.value)
    return "a mapping" if isinstance(node, yaml.MappingNode) else "a list"
