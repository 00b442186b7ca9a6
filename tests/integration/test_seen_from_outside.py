"""What the gateway shows of itself: Prometheus numbers and OpenTelemetry traces."""

from __future__ import annotations

import threading
import time
from concurrent import futures
from datetime import UTC, datetime
from typing import Any

import grpc
import httpx2 as httpx
import pytest

from ratchet.adapters.envoy.listener import otlp_of
from ratchet.core.artifact import VersionId
from ratchet.core.errors import Rejected
from ratchet.core.serving import Access, Rate, Serving
from ratchet.entrypoints.metrics import Metrics, outcome
from ratchet.kit.network import free_port
from ratchet.ports import AccessRecord
from tests.gateway import running_gateway
from tests.integration.test_keys_at_the_gateway import CLOSED, token
from tests.integration.test_routing_at_the_gateway import OPEN

TRACE = "0af7651916cd43dd8448eb211c80319c"
EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"


def test_envoys_own_numbers_are_there_for_prometheus() -> None:
    port = free_port()
    with running_gateway(metrics_port=port) as gateway:
        gateway.serve(CLOSED, serving=Serving(key_rates={"*": Rate(1, 3600.0)}))
        key = token(id="metered")
        assert [gateway.ask(key).status_code for _ in range(2)] == [200, 429]

        text = httpx.get(f"http://127.0.0.1:{port}/metrics").text
        other = httpx.get(f"http://127.0.0.1:{port}/config_dump")

    assert 'envoy_cluster_upstream_rq_completed{envoy_cluster_name="engine-v_1"} 1' in text
    assert "http_local_rate_limit_rate_limited" in text
    assert other.status_code == 404


def test_a_clients_trace_goes_through_to_the_engine_and_to_the_collector() -> None:
    received: list[bytes] = []
    arrived = threading.Event()

    def export(request: bytes, _: Any) -> bytes:
        received.append(request)
        arrived.set()
        return b""

    handler = grpc.method_handlers_generic_handler(
        EXPORT.split("/")[1], {"Export": grpc.unary_unary_rpc_method_handler(export)}
    )
    collector = grpc.server(futures.ThreadPoolExecutor(2))
    collector.add_generic_rpc_handlers((handler,))
    port = collector.add_insecure_port("127.0.0.1:0")
    collector.start()
    try:
        with running_gateway(otlp=("127.0.0.1", port)) as gateway:
            gateway.serve(OPEN, serving=Serving(access=Access.OPEN))
            header = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}
            seen = gateway.ask(None, headers=header).json()
            assert arrived.wait(15)
            deadline = time.monotonic() + 10
            while bytes.fromhex(TRACE) not in b"".join(received):
                assert time.monotonic() < deadline
                time.sleep(0.1)
    finally:
        collector.stop(0)

    # The engine gets the client's trace, and the gateway's span in it.
    assert seen["traceparent"].split("-")[1] == TRACE
    assert seen["traceparent"].split("-")[2] != "b7ad6b7169203331"


def test_a_collectors_address_is_checked() -> None:
    assert otlp_of({}) is None
    assert otlp_of({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4317"}) == ("c", 4317)
    with pytest.raises(Rejected, match="expected http://host:4317"):
        otlp_of({"OTEL_EXPORTER_OTLP_ENDPOINT": "collector"})


def record(**changes: Any) -> AccessRecord:
    values: dict[str, Any] = {
        "request_id": "1", "version": VersionId("v_1"), "routed": "arms", "route_revision": 1,
        "conversation": "", "key_id": "key_1", "status": 200, "attempts": 1,
        "first_byte_ms": 100.0, "duration_ms": 600.0, "overhead_ms": 0.2, "bytes_sent": 9,
        "prompt_tokens": 7, "completion_tokens": 11, "flags": "",
        "started_at": datetime.now(UTC),
    }  # fmt: skip
    return AccessRecord(**{**values, **changes})


def test_records_become_numbers_without_keys_in_their_labels() -> None:
    metrics = Metrics()
    metrics.saw("gateway-1", [record(), record(status=503, flags="UO", attempts=2)])

    text = metrics.text().decode()

    arm = 'routed="arms",version="v_1"'
    ok = f'gateway="gateway-1",outcome="ok",{arm}'
    assert f"ratchet_requests_total{{{ok}}} 1.0" in text
    assert f'ratchet_requests_total{{gateway="gateway-1",outcome="busy",{arm}}} 1.0' in text
    assert f'ratchet_tokens_total{{kind="completion",{arm}}} 22.0' in text
    assert f"ratchet_retries_total{{{arm}}} 1.0" in text
    assert 'ratchet_gateway_overhead_seconds_count{gateway="gateway-1"} 2.0' in text
    assert "key_1" not in text


@pytest.mark.parametrize(
    ("status", "flags", "word"),
    [
        (200, "", "ok"),
        (200, "UC", "cut"),
        (0, "DC", "client_gone"),
        (404, "", "client_error"),
        (503, "UH", "no_engine"),
        (504, "UT", "timeout"),
        (500, "", "server_error"),
    ],
)
def test_an_outcome_is_one_of_a_few_words(status: int, flags: str, word: str) -> None:
    assert outcome(record(status=status, flags=flags)) == word
