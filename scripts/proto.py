#!/usr/bin/env python3
"""Lint the wire contract, and refuse a change that old programs would misread.

`proto/released.txt` has a line for all that was ever promised: fields with their numbers and types,
enum values, methods.  A line that no longer holds is a breaking change.  `--add` writes what is
new; nothing here takes a line away.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

from google.protobuf.descriptor import Descriptor, FieldDescriptor, FileDescriptor

from ratchet.wire.ratchet.v1 import capture_pb2, telemetry_pb2, worker_pb2

FILES = (capture_pb2.DESCRIPTOR, telemetry_pb2.DESCRIPTOR, worker_pb2.DESCRIPTOR)
RELEASED = Path(__file__).parents[1] / "proto" / "released.txt"
UPPER_CAMEL = re.compile(r"^[A-Z][A-Za-z0-9]*$")
LOWER_SNAKE = re.compile(r"^[a-z][a-z0-9_]*$")
TYPES = {
    value: name.removeprefix("TYPE_").lower()
    for name, value in vars(FieldDescriptor).items()
    if name.startswith("TYPE_")
}


def promises(file: FileDescriptor) -> Iterator[str]:
    """One line for each thing that a program of yesterday relies on."""
    for message in file.message_types_by_name.values():
        yield from _fields(message)
    for enum in file.enum_types_by_name.values():
        for value in enum.values:
            yield f"{enum.full_name}.{value.name} = {value.number}"
    for service in file.services_by_name.values():
        for method in service.methods:
            sides = (method.client_streaming, method.server_streaming)
            asks, answers = ("stream " if side else "" for side in sides)
            types = method.input_type.full_name, method.output_type.full_name
            yield f"{method.full_name}({asks}{types[0]}) returns ({answers}{types[1]})"


def _fields(message: Descriptor) -> Iterator[str]:
    for field in message.fields:
        kind = field.message_type.full_name if field.message_type else TYPES[field.type]
        if field.enum_type:
            kind = field.enum_type.full_name
        many = "repeated " if field.is_repeated else ""
        yield f"{message.full_name}.{field.name} = {field.number} {many}{kind}"
    for nested in message.nested_types:
        yield from _fields(nested)


def faults(file: FileDescriptor) -> Iterator[str]:
    """Names that are not as protobuf's style guide wants them."""
    for message in file.message_types_by_name.values():
        if not UPPER_CAMEL.match(message.name):
            yield f"{message.full_name}: expected UpperCamelCase"
        for field in message.fields:
            if not LOWER_SNAKE.match(field.name):
                yield f"{message.full_name}.{field.name}: expected lower_snake_case"
    yield from _faults_of_enums(file)
    for service in file.services_by_name.values():
        for method in service.methods:
            wanted = f"{method.name}Request", f"{method.name}Response"
            if (method.input_type.name, method.output_type.name) != wanted:
                yield f"{method.full_name}: expected {wanted[0]} and {wanted[1]}"


def _faults_of_enums(file: FileDescriptor) -> Iterator[str]:
    for enum in file.enum_types_by_name.values():
        prefix = re.sub(r"(?<!^)(?=[A-Z])", "_", enum.name).upper() + "_"
        for value in enum.values:
            if not value.name.startswith(prefix):
                yield f"{enum.full_name}.{value.name}: expected the prefix {prefix}"
        if enum.values_by_number[0].name != f"{prefix}UNSPECIFIED":
            yield f"{enum.full_name}: expected {prefix}UNSPECIFIED = 0"


def main() -> int:
    found = [line for file in FILES for line in promises(file)]
    released = RELEASED.read_text().splitlines() if RELEASED.exists() else []
    if "--add" in sys.argv:
        RELEASED.write_text("\n".join(sorted({*released, *found})) + "\n")
        return 0
    problems = [fault for file in FILES for fault in faults(file)]
    problems += [f"broken promise: {line}" for line in released if line not in found]
    problems += [
        f"not in {RELEASED.name} yet, add it with scripts/proto.py --add: {line}"
        for line in found
        if line not in released
    ]
    print("\n".join(problems) or "the wire contract holds")
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
