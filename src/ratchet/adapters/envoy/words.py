"""Names that the gateway's parts share with each other and with who reads its records."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ratchet.core.artifact import VersionId

Resource = dict[str, Any]
ENVOY = "type.googleapis.com/envoy."
HTTP_FILTERS = f"{ENVOY}extensions.filters.http."
HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

CONVERSATION_HEADER = "x-ratchet-conversation"
VERSION_HEADER = "x-ratchet-version"
"""In an answer: the version that gave it.  In a tester's request: the one that is to answer."""
IDLE_HEADER = "x-ratchet-idle-seconds"
"""Tells an engine how long a stream may be silent."""
CACHE_HEADER = "x-ratchet-cache"
"""In an answer: hit, miss or bypass, where the project has a cache."""
SEGMENT_HEADER = "x-ratchet-segment"
"""In a request: what part of the product it comes from, in the client's own words."""
TRIAL_HEADER = "x-ratchet-trial"
"""Set on requests that one of two arms answers: their assignment is recorded as they begin."""
LENGTH_HEADER = "x-ratchet-length"
"""Bytes of a request whose `content-length` Envoy took away, because the agent read it."""
BESIDE, BESIDE_STREAM = "beside", "beside_stream"
"""Why Envoy answers by itself, when the agent told it what to say."""
FALLBACK = "fallback"
"""The name of the version that a fallback's answers carry."""
CONVERSATION_NAMESPACE = "ratchet.conversation"

# How a request found its arm is part of its route's name, and so of its access record.
ARMS, CHOSEN, PINNED = "arms", "chosen", "pinned"
CACHED = "cached"
FEEDBACK_ROUTE = "feedback"


def route_name(routed: str, revision: int) -> str:
    return f"{routed}-r{revision}"


def route_of(name: str) -> tuple[str, int] | None:
    """How a request was routed and under which weights; None for a route without an engine."""
    routed, separator, revision = name.rpartition("-r")
    if not separator or not revision.isdigit():
        return None
    return routed, int(revision)


def cluster_name(version: VersionId) -> str:
    return f"engine-{version}"


def version_of_cluster(name: str) -> VersionId | None:
    if not name.startswith("engine-"):
        return None
    return VersionId(name.removeprefix("engine-").removesuffix(f"-or-{FALLBACK}"))


def door_socket(admin_socket: Path) -> Path:
    """Where what goes to a fallback passes through.  Beside Envoy's admin socket, because a
    socket's path may have 107 bytes and a folder's more."""
    return admin_socket.with_name(f"{admin_socket.stem}-{FALLBACK}.sock")


def beside_socket(admin_socket: Path) -> Path:
    """Where the agent answers what Envoy asks it."""
    return admin_socket.with_name(f"{admin_socket.stem}-beside.sock")


def file_source(path: Path) -> Resource:
    return {"resource_api_version": "V3", "path_config_source": {"path": str(path)}}


def address(host: str, port: int) -> Resource:
    return {"socket_address": {"address": host, "port_value": port}}
