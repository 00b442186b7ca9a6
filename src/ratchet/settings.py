"""Every setting of the control plane, typed, with its reason; read once, at the edge.

What an operator changes while the system runs is data in PostgreSQL with an audit row, not a
setting.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from ratchet.core.errors import Rejected
from ratchet.harness import Harness
from ratchet.kit.peers import PeerFiles, peer_files
from ratchet.kit.secret import Secret

# Also set by `ratchet up --fleet-of`.
FLEET = "RATCHET_FLEET_DATABASE_URL"


@dataclass(frozen=True, slots=True, kw_only=True)
class Spot:
    """Zones whose availability is played from files, so many times as fast as it went."""

    traces: tuple[Path, ...]
    speed: float
    began_at: datetime
    notice_seconds: float
    """From the word that a machine is taken away until it is gone; 0: without a word."""


def spot_of(env: Mapping[str, str]) -> Spot | None:
    """Raises `ValueError` for what is no number, no moment or not positive."""
    if not (paths := env.get("RATCHET_SPOT_TRACES", "")):
        return None
    speed = float(env.get("RATCHET_SPOT_SPEED", "1"))
    if speed <= 0:
        raise ValueError(f"RATCHET_SPOT_SPEED: found {speed:g}, expected a positive number")
    began = env.get("RATCHET_SPOT_BEGAN", "1970-01-01T00:00:00+00:00")
    return Spot(
        traces=tuple(map(Path, paths.split(","))),
        speed=speed,
        began_at=datetime.fromisoformat(began),
        notice_seconds=float(env.get("RATCHET_SPOT_NOTICE_SECONDS", "30")),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Wandb:
    """Where versions are mirrored to at Weights & Biases.  The rest are its client's own variables
    (`WANDB_API_KEY`, `WANDB_ENTITY`, `WANDB_MODE`)."""

    project: str
    folder: Path
    """Where its client writes: `WANDB_DIR`."""
    python: str
    """Interpreter that has it: `RATCHET_WANDB_PYTHON`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    database_url: Secret
    """PostgreSQL.  `DATABASE_URL`; the embedded stack sets it to its own server."""

    fleet_database_url: Secret | None = None
    """PostgreSQL of the stack whose pools this one shares: `RATCHET_FLEET_DATABASE_URL`.  None: its
    own."""

    token: Secret
    """Who may change things: `RATCHET_TOKEN_FILE` holds it.  People and programs on this machine
    that can read the file are its administrators; others get a key with a role."""

    secret: Secret
    """What private signing keys are sealed under: `RATCHET_SECRET_FILE` holds 32 random bytes in
    base64.  Not in the database, so that a copy of the database signs nothing."""

    objects_url: str
    """Where artifacts are: `RATCHET_OBJECTS_URL`, `file:///folder` or `s3://bucket/prefix`."""

    cache_dir: Path | None = None
    """Where engines and workers of this machine unpack base models: `RATCHET_CACHE_DIR`.  Without
    it, tokens of bases that come as packages are not counted before a run."""

    sources_dir: Path = Path("sources")
    """Copies of the repositories that runs are triggered from: `RATCHET_SOURCES_DIR`."""

    http_host: str = "127.0.0.1"
    """`RATCHET_HTTP_HOST`.  Loopback, because there is no login yet."""

    http_names: tuple[str, ...] = ()
    """Other names that clients reach the control API by: `RATCHET_HTTP_NAMES`."""

    http_port: int = 8081
    """Control API and console: `RATCHET_HTTP_PORT`."""

    grpc_port: int = 8082
    """Access records and workers: `RATCHET_GRPC_PORT`."""

    grpc_peers: PeerFiles | None = None
    """Mutual TLS on gRPC: `RATCHET_GRPC_CERT`, `RATCHET_GRPC_KEY` and `RATCHET_GRPC_CA`, at the
    server, the agents and the workers.  The token is asked for all the same."""

    console_url: str = ""
    """Where people reach the console, for links in commit statuses: `RATCHET_CONSOLE_URL`.
    Default: this machine's own address."""

    gateway_url: str = "http://127.0.0.1:8080"
    """Where users reach the gateway, as the console shows it: `RATCHET_GATEWAY_URL`."""

    database_connections: int = 8
    """Upper bound of our pool: `RATCHET_DATABASE_CONNECTIONS`.  Flows have six of their own."""

    judge_seconds: float = 0.25
    """How often canaries are judged: `RATCHET_JUDGE_SECONDS`.  A shorter pause costs queries, not
    correctness: the evidence stays valid however often one looks."""

    mlflow_uri: str = ""
    """Mirror of runs and versions: `MLFLOW_TRACKING_URI`.  Empty: no mirror there."""

    wandb: Wandb | None = None
    """The same at Weights & Biases: `WANDB_PROJECT`.  One of the two."""

    harness: Harness = field(default_factory=lambda: Harness(sys.executable))
    """lm-evaluation-harness, for suites with `check: lm_eval`: `RATCHET_LM_EVAL_PYTHON` and
    `RATCHET_LM_EVAL_INCLUDE`."""

    prices: tuple[str, ...] = ()
    """Lists of what machines cost, files or urls: `RATCHET_PRICES`, with commas."""

    valkey_url: Secret | None = None
    """Valkey or Redis, for exact budgets: `RATCHET_VALKEY_URL`.  The embedded stack sets it."""

    mongodb_url: Secret | None = None
    """Where turns, feedback and erasures are copied to: `RATCHET_MONGODB_URL`.  Empty: nowhere."""

    prometheus_url: str = ""
    """Where guards with counters are read from: `RATCHET_PROMETHEUS_URL`."""

    spot: Spot | None = None
    """Spot capacity of this machine, played from files of availability: `RATCHET_SPOT_TRACES`,
    `RATCHET_SPOT_SPEED` and `RATCHET_SPOT_BEGAN`.  Simulated: workers are taken away as it says."""

    events_stdout: bool = False
    """The same as JSON lines on the server's standard output: `RATCHET_EVENTS_STDOUT=1`."""

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Settings:
        """Raises `Rejected` naming the variable that is missing or wrong."""
        try:
            token = Path(env["RATCHET_TOKEN_FILE"]).read_text().strip()
            secret = Path(env["RATCHET_SECRET_FILE"]).read_text().strip()
            return cls(
                database_url=Secret(env["DATABASE_URL"]),
                fleet_database_url=Secret(fleet) if (fleet := env.get(FLEET)) else None,
                token=Secret(token),
                secret=Secret(secret),
                objects_url=env["RATCHET_OBJECTS_URL"],
                cache_dir=Path(cache) if (cache := env.get("RATCHET_CACHE_DIR")) else None,
                sources_dir=Path(env.get("RATCHET_SOURCES_DIR", "sources")),
                console_url=env.get("RATCHET_CONSOLE_URL", "").rstrip("/"),
                http_host=env.get("RATCHET_HTTP_HOST", "127.0.0.1"),
                http_names=tuple(filter(None, env.get("RATCHET_HTTP_NAMES", "").split(","))),
                http_port=int(env.get("RATCHET_HTTP_PORT", "8081")),
                grpc_port=int(env.get("RATCHET_GRPC_PORT", "8082")),
                grpc_peers=peer_files(env),
                gateway_url=env.get("RATCHET_GATEWAY_URL", "http://127.0.0.1:8080"),
                database_connections=int(env.get("RATCHET_DATABASE_CONNECTIONS", "8")),
                judge_seconds=float(env.get("RATCHET_JUDGE_SECONDS", "0.25")),
                mlflow_uri=env.get("MLFLOW_TRACKING_URI", ""),
                wandb=wandb_of(env),
                harness=harness_of(env),
                prices=tuple(filter(None, env.get("RATCHET_PRICES", "").split(","))),
                valkey_url=Secret(valkey) if (valkey := env.get("RATCHET_VALKEY_URL")) else None,
                mongodb_url=Secret(url) if (url := env.get("RATCHET_MONGODB_URL")) else None,
                prometheus_url=env.get("RATCHET_PROMETHEUS_URL", ""),
                spot=spot_of(env),
                events_stdout=env.get("RATCHET_EVENTS_STDOUT", "") not in ("", "0"),
            )
        except KeyError as error:
            raise Rejected(f"environment variable {error.args[0]} is not set") from error
        except (OSError, ValueError) as error:
            raise Rejected(f"settings from the environment: {error}") from error


def wandb_of(env: Mapping[str, str]) -> Wandb | None:
    project = env.get("WANDB_PROJECT", "")
    if not project:
        return None
    if env.get("MLFLOW_TRACKING_URI"):
        raise Rejected(
            "MLFLOW_TRACKING_URI and WANDB_PROJECT are both set, and versions are mirrored to one "
            "tracker; unset one of them"
        )
    return Wandb(
        project=project,
        folder=Path(env.get("WANDB_DIR") or ".").absolute(),
        python=env.get("RATCHET_WANDB_PYTHON") or sys.executable,
    )


def harness_of(env: Mapping[str, str]) -> Harness:
    return Harness(
        env.get("RATCHET_LM_EVAL_PYTHON") or sys.executable,
        env.get("RATCHET_LM_EVAL_INCLUDE", ""),
    )


def environment() -> Mapping[str, str]:
    """The process's environment.  The one place that reads it."""
    return os.environ
