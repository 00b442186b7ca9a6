"""How many tokens an answer took, read by Envoy from the answer itself.

Whole answers are JSON, streams are events; both carry OpenAI's `usage`.  What is found goes into
the request's metadata and so into its access record; the answer is passed on as it is.
"""

from __future__ import annotations

from typing import Any

Resource = dict[str, Any]
_TYPE = "type.googleapis.com/envoy.extensions."
_JSON = f"{_TYPE}filters.http.json_to_metadata.v3.JsonToMetadata"
_SSE = f"{_TYPE}filters.http.sse_to_metadata.v3.SseToMetadata"
_PARSER = f"{_TYPE}content_parsers.json.v3.JsonContentParser"

NAMESPACE = "ratchet.usage"
COUNTS = ("prompt_tokens", "completion_tokens")


def filters() -> list[Resource]:
    return [
        {
            "name": "usage-of-answers",
            "typed_config": {
                "@type": _JSON,
                "response_rules": {"rules": [_rule(count) for count in COUNTS]},
            },
        },
        {
            "name": "usage-of-streams",
            "typed_config": {
                "@type": _SSE,
                "response_rules": {
                    "content_parser": {
                        "name": "json",
                        "typed_config": {
                            "@type": _PARSER,
                            "rules": [{"rule": _rule(count)} for count in COUNTS],
                        },
                    }
                },
            },
        },
    ]


def _rule(count: str) -> Resource:
    found = {"metadata_namespace": NAMESPACE, "key": count, "type": "NUMBER"}
    return {"selectors": [{"key": "usage"}, {"key": count}], "on_present": found}
