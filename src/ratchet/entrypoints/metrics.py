"""What the control plane shows to Prometheus.

Labels are bounded: versions that serve, gateways, tiers of outcome.  Never keys, never paths.
Envoy's own numbers (ejections, retries, breakers, limits) are at the gateway's `/metrics`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from ratchet.ports import AccessRecord

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
OVERHEAD_SECONDS = (1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.1)
_ARM = ("version", "routed")


class Metrics:
    """Counters of one control plane, since it started."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        counter = partial(Counter, registry=self.registry)
        histogram = partial(Histogram, registry=self.registry)
        gauge = partial(Gauge, registry=self.registry)
        self._requests = counter(
            "ratchet_requests_total",
            "Answers of gateways by arm and outcome.",
            (*_ARM, "gateway", "outcome"),
        )
        self._tokens = counter("ratchet_tokens_total", "Tokens of answers.", (*_ARM, "kind"))
        self._retries = counter("ratchet_retries_total", "Attempts after the first.", _ARM)
        self._first = histogram(
            "ratchet_time_to_first_byte_seconds",
            "From the request's first byte to the answer's.",
            _ARM,
            buckets=SECONDS,
        )
        self._whole = histogram(
            "ratchet_request_seconds",
            "From the request's first byte to the answer's last.",
            _ARM,
            buckets=SECONDS,
        )
        self._rate = histogram(
            "ratchet_tokens_per_second",
            "Completion tokens by the time after the first byte, of streams and whole answers.",
            _ARM,
            buckets=(1, 5, 10, 20, 50, 100, 200, 500, 1000),
        )
        self._overhead = histogram(
            "ratchet_gateway_overhead_seconds",
            "What the gateway itself took: to the engine, and back from its first byte.",
            ("gateway",),
            buckets=OVERHEAD_SECONDS,
        )
        self.cost = gauge(
            "ratchet_cost_usd", "What a version's answers cost, since ever.", ("version",)
        )
        self.workers = _Workers(self.registry)
        self.fleet = _Fleet(self.registry)
        self.gateways = gauge("ratchet_gateways", "Gateways that were heard of lately.")
        self._cache = counter(
            "ratchet_cache_total",
            "Answers of routes with a cache: hit, miss or bypass.",
            ("outcome",),
        )
        self.turns = counter("ratchet_turns_total", "Turns that were stored.")
        self.feedback = counter("ratchet_feedback_total", "Feedback that was stored.")
        self.turns_lost = gauge(
            "ratchet_turns_lost",
            "Answers of the last day that were sampled, given whole and did not become a turn.",
        )

    def saw(self, gateway: str, records: Sequence[AccessRecord]) -> None:
        """Count records that are new."""
        for record in records:
            arm = (record.version, record.routed)
            self._requests.labels(*arm, gateway, outcome(record)).inc()
            if record.attempts > 1:
                self._retries.labels(*arm).inc(record.attempts - 1)
            if record.cache:
                self._cache.labels(record.cache).inc()
            self._first.labels(*arm).observe(record.first_byte_ms / 1000)
            self._whole.labels(*arm).observe(record.duration_ms / 1000)
            self._overhead.labels(gateway).observe(record.overhead_ms / 1000)
            if record.prompt_tokens is None or record.completion_tokens is None:
                continue
            self._tokens.labels(*arm, "prompt").inc(record.prompt_tokens)
            self._tokens.labels(*arm, "completion").inc(record.completion_tokens)
            seconds = (record.duration_ms - record.first_byte_ms) / 1000
            if record.completion_tokens > 1 and seconds > 0.001:
                self._rate.labels(*arm).observe((record.completion_tokens - 1) / seconds)

    def text(self) -> bytes:
        return generate_latest(self.registry)


class _Workers:
    """What workers took and cost, since ever."""

    def __init__(self, registry: CollectorRegistry) -> None:
        gauge = partial(Gauge, registry=registry)
        self._attempts = gauge(
            "ratchet_worker_attempts",
            "Workers that were started, since ever.",
            ("capacity", "state"),
        )
        self._worker_seconds = gauge(
            "ratchet_worker_seconds", "What workers took, since ever.", ("capacity",)
        )
        self._worker_usd = gauge(
            "ratchet_worker_cost_usd", "What workers cost, since ever.", ("capacity",)
        )
        self._worker_on_demand_usd = gauge(
            "ratchet_worker_on_demand_usd",
            "What the same hours would have cost on machines that stay.",
            ("capacity",),
        )

    def count(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """What the database knows of attempts, by capacity and state."""
        sums = (
            (self._worker_seconds, "seconds"),
            (self._worker_usd, "usd"),
            (self._worker_on_demand_usd, "on_demand_usd"),
        )
        for row in rows:
            self._attempts.labels(row["capacity"], row["state"]).set(row["attempts"])
        for capacity in {row["capacity"] for row in rows}:
            mine = [row for row in rows if row["capacity"] == capacity]
            for metric, key in sums:
                metric.labels(capacity).set(sum(row[key] for row in mine))


class _Fleet:
    """Slots that projects share, as whoever looked last left them."""

    def __init__(self, registry: CollectorRegistry) -> None:
        gauge = partial(Gauge, registry=registry)
        self._limit = gauge("ratchet_pool_slots", "Slots that there are.", ("pool", "kind"))
        self._taken = gauge("ratchet_pool_slots_taken", "Slots in use.", ("pool", "kind"))
        self._waiting = gauge("ratchet_pool_waiting", "Runs without a slot.", ("pool",))

    def count(self, pools: Sequence[Mapping[str, Any]]) -> None:
        """Of `FleetStore.view`.  A pool without a limit has no number of slots."""
        for metric in (self._limit, self._taken, self._waiting):
            metric.clear()
        for pool in pools:
            name = pool["name"]
            self._waiting.labels(name).set(pool["waiting"])
            for kind, taken in pool["taken"].items():
                self._taken.labels(name, kind).set(taken)
                if pool[kind] is not None:
                    self._limit.labels(name, kind).set(pool[kind])


def outcome(record: AccessRecord) -> str:
    """Few words for all that can come of a request."""
    if record.status == 0:
        return "client_gone"
    if record.status < 400:
        return "cut" if {"UC", "SI", "UT", "DPE"} & set(record.flags.split(",")) else "ok"
    if record.status < 500:
        return "limited" if record.status == 429 else "client_error"
    flags = set(record.flags.split(","))
    for flag, word in (("UO", "busy"), ("UH", "no_engine"), ("UT", "timeout")):
        if flag in flags:
            return word
    return "server_error"
