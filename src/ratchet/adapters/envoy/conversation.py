"""Which conversation a request belongs to, where the body is asked (`gateway.sticky: user`).

Off unless a route turns it on: the body is then held until it is read.
"""

from __future__ import annotations

from ratchet.adapters.envoy.words import (
    CONVERSATION_HEADER,
    CONVERSATION_NAMESPACE,
    ENVOY,
    HTTP_FILTERS,
    Resource,
)

READ, REMEMBER = "conversation", "conversation-hash"
STATE_KEY = "ratchet.conversation"
_JSON = f"{HTTP_FILTERS}json_to_metadata.v3.JsonToMetadata"
_STATE = f"{HTTP_FILTERS}set_filter_state.v3.Config"
FOUND = f"%DYNAMIC_METADATA({CONVERSATION_NAMESPACE}:id)%"
# Where OpenAI's clients can say it, the first that is there wins.
_PLACES = (("user",), ("metadata", "conversation_id"))


def filters() -> list[Resource]:
    rules = [
        {
            "selectors": [{"key": key} for key in place],
            "on_present": {"metadata_namespace": CONVERSATION_NAMESPACE, "key": "id"},
        }
        # The last writer wins.
        for place in reversed(_PLACES)
    ]
    state = {
        "object_key": STATE_KEY,
        "factory_key": "envoy.hashable_string",
        "format_string": {
            "text_format_source": {"inline_string": FOUND},
            "omit_empty_values": True,
        },
        "skip_if_empty": True,
    }
    return [
        {
            "name": READ,
            "disabled": True,
            "typed_config": {"@type": _JSON, "request_rules": {"rules": rules}},
        },
        {
            "name": REMEMBER,
            "disabled": True,
            # The arm was drawn when the headers came; now it is drawn again.
            "typed_config": {
                "@type": _STATE,
                "on_request_headers": [state],
                "clear_route_cache": True,
            },
        },
    ]


def on_route() -> Resource:
    """Turns the filters on."""
    enabled = {"@type": f"{ENVOY}config.route.v3.FilterConfig", "disabled": False, "config": {}}
    return {READ: enabled, REMEMBER: enabled}


def hash_policy(*, asks_body: bool) -> list[Resource]:
    header = {"header": {"header_name": CONVERSATION_HEADER}, "terminal": True}
    if not asks_body:
        return [header]
    return [header, {"filter_state": {"key": STATE_KEY}}]
