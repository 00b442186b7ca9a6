"""Everything Ratchet needs from the outside world, and nothing else.

Read this package to know what Ratchet touches: `pipeline` for what a run needs, `gateway` for what
stands in front of users, `turns` for what they said.  Each protocol is implemented once per system
under `ratchet.adapters`.  Every method that writes says by what key it may be repeated.  Failures
of the outside system are `Unavailable`; everything else that is raised is named.
"""

from __future__ import annotations

from ratchet.ports.gateway import (
    AccessRecord,
    AccessStore,
    AnswerStore,
    EngineReport,
    EngineStore,
    GatewayReport,
    GatewayStore,
    LedgerStore,
    PeopleTokens,
    QuotaStore,
    RecordSink,
    Settlement,
    SigningKey,
    TokenMaker,
    WantedEngine,
)
from ratchet.ports.pipeline import (
    Act,
    AttemptStore,
    Audit,
    EvidenceSource,
    FileSource,
    Json,
    LiveAttempt,
    ObjectStore,
    Project,
    ProjectStore,
    Registry,
    ReleaseStore,
    Run,
    RunStore,
    StageRecord,
    StageStore,
    StoredRelease,
    Suite,
    Tracker,
    WorkerDesk,
)
from ratchet.ports.turns import (
    Erased,
    Event,
    EventLog,
    EventSink,
    TurnStore,
)

__all__ = [
    "AccessRecord",
    "AccessStore",
    "Act",
    "AnswerStore",
    "AttemptStore",
    "Audit",
    "EngineReport",
    "EngineStore",
    "Erased",
    "Event",
    "EventLog",
    "EventSink",
    "EvidenceSource",
    "FileSource",
    "GatewayReport",
    "GatewayStore",
    "Json",
    "LedgerStore",
    "LiveAttempt",
    "ObjectStore",
    "PeopleTokens",
    "Project",
    "ProjectStore",
    "QuotaStore",
    "RecordSink",
    "Registry",
    "ReleaseStore",
    "Run",
    "RunStore",
    "Settlement",
    "SigningKey",
    "StageRecord",
    "StageStore",
    "StoredRelease",
    "Suite",
    "TokenMaker",
    "Tracker",
    "TurnStore",
    "WantedEngine",
    "WorkerDesk",
]
