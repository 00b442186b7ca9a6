"""A model server that answers everything with one file's content, as fast as Python can."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import uvloop


class Answering(asyncio.Protocol):
    """Whole requests in, the same answer out; the connection stays open."""

    def __init__(self, answer: bytes) -> None:
        self._answer, self._data = answer, b""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._data += data
        while True:
            head, separator, rest = self._data.partition(b"\r\n\r\n")
            if not separator:
                return
            lower = head.lower()
            if b"transfer-encoding: chunked" in lower:
                end = rest.find(b"0\r\n\r\n")
                if end < 0:
                    return
                self._data = rest[end + 5 :]
            else:
                _, found, length = lower.partition(b"content-length: ")
                size = int(length.partition(b"\r\n")[0]) if found else 0
                if len(rest) < size:
                    return
                self._data = rest[size:]
            self._transport.write(self._answer)


async def main(port: int, body: bytes) -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    answer = head % len(body) + body
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Answering(answer), "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), Path(sys.argv[2]).read_bytes()))
