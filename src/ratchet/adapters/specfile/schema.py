"""The JSON Schema of `ratchet.yaml`, for editors."""

from __future__ import annotations

from typing import Any

from ratchet.adapters.specfile.fields import FIELDS, GATE_BOUNDS, GATE_SLICES


def json_schema() -> dict[str, Any]:
    """JSON Schema of the file, for editors."""
    root: dict[str, Any] = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "ratchet.yaml",
        "type": "object",
        "additionalProperties": False,
        "properties": {},
        "required": [],
    }
    for key, field in FIELDS.items():
        *sections, leaf = key.split(".")
        place = root
        for section in sections:
            if field.required and section not in place["required"]:
                place["required"].append(section)
            place = place["properties"].setdefault(
                section,
                {"type": "object", "additionalProperties": False, "properties": {}, "required": []},
            )
        place["properties"][leaf] = {**field.schema, "description": field.doc}
        if field.required:
            place["required"].append(leaf)
    bounds = {bound: {"type": ["number", "string"]} for bound in GATE_BOUNDS}
    root["properties"]["gates"] = {
        "type": "array",
        "minItems": 1,
        "items": {
            "type": "object",
            "required": ["metric"],
            "additionalProperties": False,
            "properties": {
                "metric": {"type": "string"},
                GATE_SLICES: {"type": "string"},
                **bounds,
            },
        },
        "description": "Conditions that a candidate must meet before any traffic.",
    }
    root["required"].append("gates")
    return root
