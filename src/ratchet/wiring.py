"""The only place that names concrete classes: settings in, ready parts out."""

from __future__ import annotations

from dataclasses import dataclass

from ratchet.adapters.basemodel import BaseModels
from ratchet.adapters.files import LocalFiles
from ratchet.adapters.forge import CommitStatuses
from ratchet.adapters.git import GitRepositories
from ratchet.adapters.harness import HarnessTasks
from ratchet.adapters.messenger import Messages
from ratchet.adapters.mlflow import MlflowTracker
from ratchet.adapters.objects import ObstoreObjects
from ratchet.adapters.oidc import OidcTokens
from ratchet.adapters.openai import OpenAi
from ratchet.adapters.postgres.access import PostgresAccess
from ratchet.adapters.postgres.artifacts import PostgresArtifacts
from ratchet.adapters.postgres.bell import PostgresBell
from ratchet.adapters.postgres.executors import PostgresExecutors
from ratchet.adapters.postgres.fleet import PostgresFleet
from ratchet.adapters.postgres.gateway import PostgresEngines, PostgresGateway, PostgresRecords
from ratchet.adapters.postgres.ledger import PostgresLedger
from ratchet.adapters.postgres.notices import PostgresNotices
from ratchet.adapters.postgres.placements import PostgresPlacements
from ratchet.adapters.postgres.pool import Database
from ratchet.adapters.postgres.registry import PostgresDatasets, PostgresRegistry
from ratchet.adapters.postgres.releases import PostgresReleases
from ratchet.adapters.postgres.runs import (
    PostgresAttempts,
    PostgresAudit,
    PostgresProjects,
    PostgresRuns,
    PostgresStages,
)
from ratchet.adapters.postgres.samples import PostgresSamples
from ratchet.adapters.postgres.shadow import PostgresShadow
from ratchet.adapters.postgres.triggers import PostgresTriggers
from ratchet.adapters.postgres.turns import PostgresTurns
from ratchet.adapters.postgres.views import PostgresViews
from ratchet.adapters.prices import PriceLists
from ratchet.adapters.prometheus import Prometheus
from ratchet.adapters.specfile.reader import SpecFiles
from ratchet.adapters.stdout import StdoutEvents
from ratchet.adapters.tokens import Tokens
from ratchet.adapters.traces import player_of
from ratchet.adapters.valkey.client import Valkey
from ratchet.adapters.valkey.quota import ValkeyQuota
from ratchet.adapters.wandb.tracker import WandbTracker
from ratchet.core.placement.market import Player
from ratchet.durable.flow import Durable
from ratchet.kit.clock import Clock, SystemClock
from ratchet.kit.ids import new_id
from ratchet.operations.access import AccessParts
from ratchet.operations.artifacts import ArtifactParts
from ratchet.operations.datasets import DatasetParts
from ratchet.operations.evaluations import EvaluationParts
from ratchet.operations.fleet import FleetParts
from ratchet.operations.ledger import LedgerParts
from ratchet.operations.material import MaterialParts
from ratchet.operations.notices import NoticeParts
from ratchet.operations.placement import PlacementParts
from ratchet.operations.release import ReleaseParts
from ratchet.operations.retrain import Pipeline
from ratchet.operations.runs import RunParts
from ratchet.operations.scrapes import ScrapeParts
from ratchet.operations.shadow import ShadowParts
from ratchet.operations.shelf import Shelf
from ratchet.operations.tracking import TrackingParts
from ratchet.operations.triggers import TriggerParts
from ratchet.operations.turns import TurnParts
from ratchet.ports import EventSink, FleetStore, MetricSink, ObjectStore, Tracker
from ratchet.settings import Settings, environment

# Nobody waits for the control plane's calls, as a request would.
VALKEY_SECONDS = 1.0
# One run looks at a time.
FLEET_CONNECTIONS = 2


@dataclass(frozen=True, slots=True)
class Parts:
    """The control plane, put together."""

    settings: Settings
    database: Database
    fleet_database: Database
    """Its own, unless it shares another's pools."""
    bell: PostgresBell
    durable: Durable
    runs: RunParts
    triggers: TriggerParts
    tracking: TrackingParts
    material: MaterialParts
    datasets: DatasetParts
    artifacts: ArtifactParts
    evaluations: EvaluationParts
    release: ReleaseParts
    shadow: ShadowParts
    scrapes: ScrapeParts
    notices: NoticeParts
    access: AccessParts
    attempts: PostgresAttempts
    engines: PostgresEngines
    gateway: PostgresGateway
    records: PostgresRecords
    ledger: LedgerParts
    turns: TurnParts
    metrics: MetricSink
    executors: PostgresExecutors
    fleet: FleetParts
    views: PostgresViews


def build(settings: Settings) -> Parts:
    """Put the parts together.  Nothing is opened yet; call on the loop that will run them."""
    clock = SystemClock()
    url = settings.database_url.reveal()
    database = Database(url, size_max=settings.database_connections)
    fleet = _fleet(settings, database)
    projects, runs = PostgresProjects(database), PostgresRuns(database)
    attempts = PostgresAttempts(database)
    audit, releases = PostgresAudit(database), PostgresReleases(database)
    engines, turns = PostgresEngines(database), PostgresTurns(database)
    keys, shadow = PostgresAccess(database), PostgresShadow(database)
    samples = PostgresSamples(database)
    models = OpenAi(environment().get)
    material = _material(settings, database, clock, PostgresFleet(fleet))
    objects = ObstoreObjects(settings.objects_url)
    shelf = Shelf(PostgresArtifacts(database), objects, clock)
    datasets = DatasetParts(PostgresDatasets(database), shelf, clock)
    tracking = _tracking(settings, database, objects, clock)
    pipeline = _pipeline(database, material, datasets, tracking)
    run_parts = RunParts(
        projects=projects,
        runs=runs,
        stages=PostgresStages(database),
        attempts=attempts,
        workers=attempts,
        audit=audit,
        clock=clock,
    )
    return Parts(
        settings=settings,
        database=database,
        fleet_database=fleet,
        bell=PostgresBell(url, "work"),
        durable=Durable(_with_driver(url), new_id("exe"), {"retrain": pipeline.retrain}),
        runs=run_parts,
        triggers=_triggers(settings, database, run_parts),
        tracking=tracking,
        material=material,
        datasets=datasets,
        evaluations=_evaluations(run_parts, database, objects),
        artifacts=ArtifactParts(shelf.book, objects, datasets, audit, clock),
        release=ReleaseParts(releases, releases, engines, audit, clock, releases, shadow, samples),
        shadow=ShadowParts(releases, shadow, engines, projects, models, models, clock),
        scrapes=ScrapeParts(releases, Prometheus(settings.prometheus_url), samples, clock),
        notices=NoticeParts(PostgresNotices(database), Messages(environment().get), clock),
        access=AccessParts(keys, Tokens(settings.secret), OidcTokens(), projects, audit, clock),
        attempts=attempts,
        engines=engines,
        gateway=PostgresGateway(database),
        records=PostgresRecords(database),
        ledger=LedgerParts(
            PostgresLedger(database), projects, keys, audit, clock, _quota(settings)
        ),
        turns=TurnParts(turns, turns, _sinks(settings), projects, audit, clock),
        metrics=releases,
        executors=PostgresExecutors(database),
        fleet=FleetParts(material.fleet, audit, clock),
        views=PostgresViews(database),
    )


def _evaluations(runs: RunParts, database: Database, objects: ObjectStore) -> EvaluationParts:
    registry = PostgresRegistry(database)
    return EvaluationParts(runs.projects, runs.runs, runs.stages, registry, objects)


def _triggers(settings: Settings, database: Database, runs: RunParts) -> TriggerParts:
    return TriggerParts(
        store=PostgresTriggers(database),
        repositories=GitRepositories(settings.sources_dir, environment()),
        specs=SpecFiles(),
        forge=CommitStatuses(environment().get),
        runs=runs,
        console_url=_console(settings),
        clock=runs.clock,
    )


def _console(settings: Settings) -> str:
    return settings.console_url or f"http://{settings.http_host}:{settings.http_port}"


def _fleet(settings: Settings, own: Database) -> Database:
    if settings.fleet_database_url is None:
        return own
    return Database(settings.fleet_database_url.reveal(), size_max=FLEET_CONNECTIONS)


def _material(
    settings: Settings, database: Database, clock: Clock, fleet: FleetStore
) -> MaterialParts:
    return MaterialParts(
        files=LocalFiles(),
        tasks=HarnessTasks(settings.harness),
        prices=PriceLists(settings.prices, clock),
        bases=BaseModels(settings.cache_dir),
        evidence=PostgresReleases(database),
        answered=PostgresTurns(database),
        attempts=PostgresAttempts(database),
        projects=PostgresProjects(database),
        registry=PostgresRegistry(database),
        clock=clock,
        fleet=fleet,
        market=_market(settings),
    )


def _market(settings: Settings) -> Player | None:
    spot = settings.spot
    return None if spot is None else player_of(spot.traces, spot.speed, spot.began_at)


def _tracking(
    settings: Settings, database: Database, objects: ObjectStore, clock: Clock
) -> TrackingParts:
    return TrackingParts(
        runs=PostgresRuns(database),
        stages=PostgresStages(database),
        registry=PostgresRegistry(database),
        objects=objects,
        tracker=_tracker(settings),
        console_url=_console(settings),
        clock=clock,
    )


def _pipeline(
    database: Database, material: MaterialParts, datasets: DatasetParts, tracking: TrackingParts
) -> Pipeline:
    releases, objects = PostgresReleases(database), datasets.objects
    placements = PlacementParts(
        PostgresPlacements(database), material.fleet, material.market, datasets.clock
    )
    attempts = PostgresAttempts(database)
    return Pipeline(
        projects=PostgresProjects(database),
        runs=PostgresRuns(database),
        stages=PostgresStages(database),
        attempts=attempts,
        workers=attempts,
        registry=PostgresRegistry(database),
        releases=releases,
        evidence=releases,
        material=material,
        datasets=datasets,
        objects=objects,
        tracking=tracking,
        placement=placements,
        clock=datasets.clock,
    )


def _tracker(settings: Settings) -> Tracker | None:
    if (wandb := settings.wandb) is not None:
        return WandbTracker(wandb.project, wandb.folder, wandb.python)
    return MlflowTracker(settings.mlflow_uri) if settings.mlflow_uri else None


def _quota(settings: Settings) -> ValkeyQuota | None:
    if settings.valkey_url is None:
        return None
    return ValkeyQuota(Valkey(settings.valkey_url, call_seconds=VALKEY_SECONDS))


def _sinks(settings: Settings) -> tuple[EventSink, ...]:
    sinks: list[EventSink] = [StdoutEvents()] if settings.events_stdout else []
    if settings.mongodb_url is not None:
        # Imported only where it is used: `pip install ratchet[mongo]`.
        from ratchet.adapters.mongo import MongoEvents

        sinks.append(MongoEvents(settings.mongodb_url))
    return tuple(sinks)


def _with_driver(url: str) -> str:
    return url.replace("postgresql://", "postgresql+psycopg://", 1)
