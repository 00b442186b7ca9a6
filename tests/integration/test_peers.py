"""Mutual TLS between an agent or a worker and the control plane's gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import grpc.aio
import pytest

from ratchet.core.errors import Rejected, Unavailable
from ratchet.entrypoints.grpc.capture import Capture
from ratchet.entrypoints.grpc.credentials import server_credentials
from ratchet.entrypoints.grpc.reporter import Reporter
from ratchet.entrypoints.metrics import Metrics
from ratchet.kit.clock import SystemClock
from ratchet.kit.peers import PeerFiles, peer_files
from ratchet.kit.secret import Secret
from ratchet.settings import Settings
from ratchet.train.desk import Desk, Superseded
from ratchet.wire.ratchet.v1 import capture_pb2_grpc, worker_pb2, worker_pb2_grpc
from tests.beside import Kept
from tests.integration.test_connections_at_the_gateway import Authority


class Gone(worker_pb2_grpc.WorkerServicer):
    """Knows no attempt: what is shown here is who may ask."""

    async def Claim(  # noqa: N802
        self, request: worker_pb2.ClaimRequest, context: grpc.aio.ServicerContext
    ) -> worker_pb2.ClaimResponse:
        await context.abort(grpc.StatusCode.NOT_FOUND, "no such attempt")
        raise AssertionError("abort raises")


def serving(peers: PeerFiles, scenario: Callable[[str], Awaitable[None]]) -> None:
    async def run() -> None:
        server = grpc.aio.server()
        capture_pb2_grpc.add_CaptureServicer_to_server(  # type: ignore[no-untyped-call]
            Capture(Kept(), Metrics(), SystemClock(), Secret("t")), server
        )
        worker_pb2_grpc.add_WorkerServicer_to_server(Gone(), server)  # type: ignore[no-untyped-call]
        port = server.add_secure_port("localhost:0", server_credentials(peers))
        await server.start()
        try:
            await scenario(f"localhost:{port}")
        finally:
            await server.stop(0)

    asyncio.run(run())


def files(authority: Authority, stem: str) -> PeerFiles:
    return PeerFiles(*authority.issue(stem, stem), authority.file)


async def reaches(address: str, peers: PeerFiles | None, token: str = "t") -> bool:
    reporter = Reporter(address, Secret(token), "gateway-1", peers)
    try:
        await reporter.turns([])
    except Unavailable:
        return False
    finally:
        await reporter.close()
    return True


def test_only_who_shows_a_certificate_of_the_authority_and_the_token_is_heard(
    tmp_path: Path,
) -> None:
    (tmp_path / "other").mkdir()
    ours, others = Authority(tmp_path), Authority(tmp_path / "other")
    forged = PeerFiles(*others.issue("agent", "agent"), ours.file)

    async def scenario(address: str) -> None:
        agent = files(ours, "agent")
        assert await reaches(address, agent)
        assert not await reaches(address, agent, token="guessed")
        assert not await reaches(address, None)
        assert not await reaches(address, forged)
        # And the server must be one of ours, too.
        assert not await reaches(address, files(others, "agent"))

    serving(files(ours, "server"), scenario)


def test_a_new_certificate_needs_no_restart(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    authority, other = Authority(tmp_path), Authority(tmp_path / "new")
    server, agent, next_agent = files(authority, "server"), files(authority, "a"), files(other, "b")

    async def scenario(address: str) -> None:
        assert await reaches(address, agent)
        for old, new in zip(
            (server.certificate, server.key, server.authority),
            (*other.issue("server", "server"), other.file),
            strict=True,
        ):
            new.replace(old)
        other.file.write_bytes(server.authority.read_bytes())

        assert await reaches(address, next_agent)
        assert not await reaches(address, agent)

    serving(server, scenario)


def test_a_worker_shows_its_certificate(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    worker = files(authority, "worker")

    async def scenario(address: str) -> None:
        desk = Desk(address, "att_1", "t", worker)
        with pytest.raises(Superseded):
            await asyncio.to_thread(desk.claim)

    serving(files(authority, "server"), scenario)


def test_half_of_a_setting_is_refused_by_name(tmp_path: Path) -> None:
    there = tmp_path / "file.pem"
    there.write_text("x")
    some = {"RATCHET_GRPC_CERT": str(there), "RATCHET_GRPC_KEY": str(there)}

    assert peer_files({}) is None
    with pytest.raises(ValueError, match="RATCHET_GRPC_CA is not set"):
        peer_files(some)
    with pytest.raises(ValueError, match="found no file"):
        peer_files({**some, "RATCHET_GRPC_CA": "/nowhere.pem"})
    with pytest.raises(Rejected, match="RATCHET_GRPC_CA"):
        Settings.from_env(
            {
                **some,
                "RATCHET_TOKEN_FILE": str(there),
                "RATCHET_SECRET_FILE": str(there),
                "DATABASE_URL": "postgresql://x",
                "RATCHET_OBJECTS_URL": "file:///x",
            }
        )
