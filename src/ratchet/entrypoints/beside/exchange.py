"""Envoy's external processing as we see it: one request that goes by, piece by piece."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ratchet.adapters.envoy.words import BESIDE, BESIDE_STREAM
from ratchet.wire.ratchet.beside.v1 import beside_pb2 as pb

ATTRIBUTES = "envoy.filters.http.ext_proc"


def headers_of(message: pb.HttpHeaders) -> dict[str, str]:
    """By lower-case name, as Envoy has them; the last of several."""
    return {
        header.key: header.value or header.raw_value.decode(errors="replace")
        for header in message.headers.headers
    }


@dataclass(slots=True)
class Body:
    """Bytes that come in pieces, up to a bound; what is too large is let go of."""

    bytes_max: int
    parts: list[bytes] = field(default_factory=list)
    size: int = 0
    is_whole: bool = False

    @property
    def is_too_large(self) -> bool:
        return self.size > self.bytes_max

    def add(self, piece: pb.HttpBody) -> int:
        """Answers by how much more is held, which is negative when it was let go of."""
        held = 0 if self.is_too_large else self.size
        self.size += len(piece.body)
        self.is_whole = self.is_whole or piece.end_of_stream
        if self.is_too_large:
            self.parts.clear()
            return -held
        self.parts.append(piece.body)
        return len(piece.body)

    def content(self) -> bytes:
        return b"".join(self.parts)


def attributes_of(message: pb.ProcessingRequest) -> Mapping[str, str]:
    """Route and cluster, as Envoy names them."""
    fields = message.attributes[ATTRIBUTES].fields if ATTRIBUTES in message.attributes else {}
    return {name: value.string_value for name, value in fields.items()}


def put_headers(headers: Mapping[str, str]) -> pb.HeaderMutation:
    """Headers that are set, whatever was there."""
    return pb.HeaderMutation(
        set_headers=[
            pb.HeaderValueOption(
                header=pb.HeaderValue(key=name, raw_value=value.encode()), append_action=2
            )
            for name, value in headers.items()
        ]
    )


def answer_here(
    status: int,
    content: bytes,
    content_type: str = "application/json",
    headers: Mapping[str, str] | None = None,
) -> pb.ProcessingResponse:
    """An answer that ends the request here."""
    is_stream = content_type.startswith("text/event-stream")
    return pb.ProcessingResponse(
        immediate_response=pb.ImmediateResponse(
            status=pb.HttpStatus(code=status),
            headers=put_headers({"content-type": content_type, **(headers or {})}),
            body=content,
            # By this Envoy knows that the words are ours (`adapters/envoy/replies.py`).
            details=BESIDE_STREAM if is_stream else BESIDE,
        )
    )
