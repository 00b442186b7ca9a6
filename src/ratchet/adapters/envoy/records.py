"""Access records: what Envoy writes of each request, and how it is read back.

Envoy appends lines to a file beside it and the agent ships them.  So a record outlives a server, a
database and an agent that are away, and costs the request nothing but a line.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ratchet.adapters.envoy import admission, beside, usage
from ratchet.adapters.envoy.words import (
    CACHE_HEADER,
    CACHED,
    CONVERSATION_HEADER,
    ENVOY,
    FALLBACK,
    LENGTH_HEADER,
    SEGMENT_HEADER,
    TRIAL_HEADER,
    VERSION_HEADER,
    Resource,
    route_of,
    version_of_cluster,
)
from ratchet.core.artifact import VersionId
from ratchet.core.segments import known_of
from ratchet.ports import AccessRecord, Assignment

# Evidence must reach the judge fast.
FLUSH_MILLISECONDS = 50

_FORMAT = {
    "id": "%REQ(X-REQUEST-ID)%",
    "began": "%START_TIME(%s.%6f)%",
    "path": "%REQ(:PATH)%",
    "route": "%ROUTE_NAME%",
    "cluster": "%UPSTREAM_CLUSTER_RAW%",
    "version": f"%RESP({VERSION_HEADER})%",
    "conversation": f"%REQ({CONVERSATION_HEADER})%",
    "key": f"%REQ({admission.KEY_HEADER})%",
    "status": "%RESPONSE_CODE%",
    "flags": "%RESPONSE_FLAGS%",
    "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
    "sent": "%BYTES_SENT%",
    "first_us": "%COMMON_DURATION(DS_RX_BEG:DS_TX_BEG:us)%",
    "whole_us": "%COMMON_DURATION(DS_RX_BEG:DS_TX_END:us)%",
    "there_us": "%COMMON_DURATION(DS_RX_BEG:US_TX_BEG:us)%",
    "back_us": "%COMMON_DURATION(US_RX_BEG:DS_TX_BEG:us)%",
    "total_ms": "%DURATION%",
    "cache": f"%RESP({CACHE_HEADER})%",
    "tenant": f"%REQ({admission.PRINCIPAL_HEADER})%",
    "language": "%REQ(ACCEPT-LANGUAGE)%",
    "length": "%REQ(CONTENT-LENGTH)%",
    "length_read": f"%REQ({LENGTH_HEADER})%",
    "segment": f"%REQ({SEGMENT_HEADER})%",
    "sampled": beside.SAMPLED_STATE,
    **{count: f"%DYNAMIC_METADATA({usage.NAMESPACE}:{count})%" for count in usage.COUNTS},
}

_BEFORE = ("tenant", "language", "length", "length_read", "segment")
"""What is known of a request before it has an arm."""
_ASSIGNED = {
    "assigned": "1",
    **{
        name: _FORMAT[name] for name in ("id", "path", "route", "cluster", "conversation", *_BEFORE)
    },
}


def logger(file: Path) -> Resource:
    """The listener's access log."""
    path = {"header": {"name": ":path", "string_match": {"prefix": "/v1/"}}}
    return {
        "name": "records",
        "filter": {"header_filter": path},
        "typed_config": {
            "@type": f"{ENVOY}extensions.access_loggers.file.v3.FileAccessLog",
            "path": str(file),
            "log_format": {"json_format": _FORMAT},
        },
    }


def assignments(file: Path) -> Resource:
    """The router's log: who was given which arm, said as soon as an engine is asked.

    So that an answer which never ends is known to be missing, and on whose side.
    """
    begins = {"log_type_filter": {"types": ["UpstreamPoolReady"]}}
    on_trial = {"header_filter": {"header": {"name": TRIAL_HEADER, "present_match": True}}}
    return {
        "name": "assignments",
        "filter": {"and_filter": {"filters": [begins, on_trial]}},
        "typed_config": {
            "@type": f"{ENVOY}extensions.access_loggers.file.v3.FileAccessLog",
            "path": str(file),
            "log_format": {"json_format": _ASSIGNED},
        },
    }


def line_of(line: str) -> AccessRecord | Assignment | None:
    """One line, or None for what asked no model for an answer (health, lists, unknown paths).

    Raises `ValueError` for a line that was torn when its writer was killed.
    """
    seen = json.loads(line)
    return _assignment(seen) if seen.get("assigned") else _record(seen)


def _assignment(seen: Mapping[str, Any]) -> Assignment | None:
    found, version = route_of(seen["route"] or ""), version_of_cluster(seen["cluster"] or "")
    if found is None or version is None or not (seen["path"] or "").endswith("/completions"):
        return None
    conversation = seen["conversation"] or ""
    return Assignment(seen["id"], version, found[1], conversation, _known(seen))


def _known(seen: Mapping[str, Any]) -> Mapping[str, str]:
    length = seen.get("length") or seen.get("length_read") or ""
    return known_of(
        tenant=seen.get("tenant") or "",
        language=seen.get("language") or "",
        content_bytes=int(length) if length.isdigit() else None,
        feature=seen.get("segment") or "",
    )


def _record(seen: Mapping[str, Any]) -> AccessRecord | None:
    found = route_of(seen["route"] or "")
    version = _version(seen)
    if found is None or version is None or not (seen["path"] or "").endswith("/completions"):
        return None
    routed, route_revision = found
    is_hit = seen.get("cache") == "hit"
    counts = {} if is_hit else {count: seen[count] for count in usage.COUNTS}
    whole_us = seen["whole_us"]
    return AccessRecord(
        request_id=seen["id"],
        version=version,
        routed=CACHED if is_hit else FALLBACK if version == FALLBACK else routed,
        route_revision=route_revision,
        conversation=seen["conversation"] or "",
        key_id=seen["key"] or "",
        status=int(seen["status"] or 0),
        attempts=max(1, int(seen["attempts"] or 0)),
        first_byte_ms=(seen["first_us"] or 0) / 1000,
        duration_ms=float(seen["total_ms"]) if whole_us is None else whole_us / 1000,
        overhead_ms=((seen["there_us"] or 0) + (seen["back_us"] or 0)) / 1000,
        bytes_sent=int(seen["sent"] or 0),
        prompt_tokens=_whole(counts.get("prompt_tokens")),
        completion_tokens=_whole(counts.get("completion_tokens")),
        cache=seen.get("cache") or "",
        flags="" if seen["flags"] == "-" else seen["flags"] or "",
        sampled=bool(seen.get("sampled")),
        known=_known(seen),
        started_at=datetime.fromtimestamp(float(seen["began"]), UTC),
    )


def _whole(told: Any) -> int | None:
    return None if told is None else int(told)


def _version(seen: Mapping[str, Any]) -> VersionId | None:
    """The version that answered, or that should have; None for who was not let in."""
    is_hit = seen.get("cache") == "hit"
    if not is_hit and not int(seen["attempts"] or 0) and int(seen["status"] or 0) < 500:
        # Envoy names the cluster where the request would have gone.
        return None
    if seen["version"] == FALLBACK:
        return VersionId(FALLBACK)
    return version_of_cluster(seen["cluster"] or "")
