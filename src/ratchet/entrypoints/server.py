"""`ratchet server`: the control plane in one process.

HTTP API and console, gRPC, durable flows, and timers.  SIGTERM ends streams, answers what runs and
stops; killed at any point, the next process goes on from the database.
"""

from __future__ import annotations

import asyncio
import signal

import grpc.aio
import structlog
import uvicorn
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from ratchet.adapters.postgres.migrate import migrate
from ratchet.core.errors import Unavailable
from ratchet.entrypoints.grpc.capture import Capture
from ratchet.entrypoints.grpc.credentials import server_credentials
from ratchet.entrypoints.grpc.telemetry import Telemetry
from ratchet.entrypoints.grpc.worker import WorkerDesk
from ratchet.entrypoints.http.app import build_app
from ratchet.entrypoints.metrics import Metrics
from ratchet.entrypoints.timers import timers
from ratchet.operations.access import prepare
from ratchet.settings import Settings
from ratchet.wire.ratchet.v1 import (
    capture_pb2,
    capture_pb2_grpc,
    telemetry_pb2,
    telemetry_pb2_grpc,
    worker_pb2,
    worker_pb2_grpc,
)
from ratchet.wiring import Parts, build

log = structlog.get_logger()

# A batch of turns, of which the last may be a long one.
MESSAGE_BYTES_MAX = 32 * 1024 * 1024
DATABASE_WAIT_SECONDS = 60.0
SHUTDOWN_SECONDS = 5


async def serve(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT.  Raises `Unavailable` when the database never comes."""
    await _migrate_patiently(settings.database_url.reveal())
    parts = build(settings)
    await parts.database.open()
    if parts.fleet_database is not parts.database:
        await parts.fleet_database.open()
    await prepare(parts.access)
    parts.durable.launch()
    metrics = Metrics()
    rpc = await _start_grpc(parts, metrics)
    web = uvicorn.Server(
        uvicorn.Config(
            build_app(parts, metrics),
            host=settings.http_host,
            port=settings.http_port,
            log_level="warning",
            access_log=False,
            timeout_graceful_shutdown=SHUTDOWN_SECONDS,
        )
    )
    tasks = [asyncio.create_task(work) for work in timers(parts, metrics)]
    try:
        # Uvicorn takes SIGTERM and SIGINT, ends its streams and returns.
        await web.serve()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await rpc.stop(grace=1.0)
        parts.durable.close()
        if parts.fleet_database is not parts.database:
            await parts.fleet_database.close()
        await parts.database.close()


async def _migrate_patiently(url: str) -> None:
    deadline = asyncio.get_running_loop().time() + DATABASE_WAIT_SECONDS
    while True:
        try:
            await asyncio.to_thread(migrate, url)
            return
        except Unavailable as error:
            if asyncio.get_running_loop().time() > deadline:
                raise
            log.warning("database_awaited", because=str(error))
            await asyncio.sleep(0.5)


async def _start_grpc(parts: Parts, metrics: Metrics) -> grpc.aio.Server:
    server = grpc.aio.server(
        options=[
            ("grpc.so_reuseport", 0),
            ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
        ]
    )
    desk = WorkerDesk(parts.attempts, parts.durable, parts.runs.clock, parts.settings.token)
    worker_pb2_grpc.add_WorkerServicer_to_server(desk, server)  # type: ignore[no-untyped-call]
    telemetry = Telemetry(parts.records, metrics, parts.runs.clock, parts.settings.token)
    telemetry_pb2_grpc.add_TelemetryServicer_to_server(telemetry, server)  # type: ignore[no-untyped-call]
    capture = Capture(parts.turns.turns, metrics, parts.runs.clock, parts.settings.token)
    capture_pb2_grpc.add_CaptureServicer_to_server(capture, server)  # type: ignore[no-untyped-call]
    checks = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    await checks.set("", health_pb2.HealthCheckResponse.SERVING)
    names = (
        worker_pb2.DESCRIPTOR.services_by_name["Worker"].full_name,
        telemetry_pb2.DESCRIPTOR.services_by_name["Telemetry"].full_name,
        capture_pb2.DESCRIPTOR.services_by_name["Capture"].full_name,
        health.SERVICE_NAME,
        reflection.SERVICE_NAME,
    )
    reflection.enable_server_reflection(names, server)
    address = f"{parts.settings.http_host}:{parts.settings.grpc_port}"
    peers = parts.settings.grpc_peers
    if peers is None:
        server.add_insecure_port(address)
    else:
        server.add_secure_port(address, server_credentials(peers))
    await server.start()
    return server


def ignore_hangup() -> None:
    """A closed terminal is no reason to stop serving."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
