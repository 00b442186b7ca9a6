"""Build the control API from its parts; no logic."""

from __future__ import annotations

from fastapi import Depends, FastAPI
from fastapi.middleware.trustedhost import TrustedHostMiddleware
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST

from ratchet import __version__
from ratchet.core.access import Permission
from ratchet.entrypoints.console.pages import console
from ratchet.entrypoints.http import (
    access,
    artifacts,
    datasets,
    engines,
    errors,
    evaluations,
    fleet,
    ledger,
    node,
    releases,
    runs,
    traffic,
    triggers,
    turns,
)
from ratchet.entrypoints.http.auth import Auth
from ratchet.entrypoints.metrics import Metrics
from ratchet.wiring import Parts

API = "/api/v1"


def build_app(parts: Parts, metrics: Metrics) -> FastAPI:
    app = FastAPI(
        title="Ratchet control API",
        version=__version__,
        docs_url=f"{API}/docs",
        openapi_url=f"{API}/openapi.json",
        responses=errors.RESPONSES,
    )
    errors.install(app)
    # A page on the internet must not reach this port through a name of its own.
    settings = parts.settings
    hosts = ["127.0.0.1", "localhost", settings.http_host, *settings.http_names]
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=hosts)
    auth = Auth(parts.settings.token, parts.access)
    reads = [Depends(auth.needs(Permission.READ))]
    for router in (
        runs.router(parts, auth),
        evaluations.router(parts),
        releases.router(parts, auth),
        traffic.router(parts, auth),
        engines.router(parts, auth),
    ):
        app.include_router(router, prefix=API, dependencies=reads)
    app.include_router(access.router(parts, auth), prefix=API)
    app.include_router(ledger.router(parts, auth), prefix=API)
    app.include_router(fleet.router(parts, auth), prefix=API)
    app.include_router(turns.router(parts, auth), prefix=API)
    app.include_router(datasets.router(parts, auth), prefix=API)
    app.include_router(artifacts.router(parts, auth), prefix=API)
    app.include_router(triggers.router(parts, auth), prefix=API)
    machines = [Depends(auth.needs(Permission.NODE))]
    app.include_router(node.router(parts), prefix=API, dependencies=machines)
    app.include_router(console(parts))

    @app.get("/health", tags=["health"])
    async def health() -> dict[str, str]:
        """Ready: the database answers."""
        await parts.views.projects()
        return {"status": "ok", "version": __version__}

    @app.get("/metrics", tags=["health"], response_class=PlainTextResponse)
    async def prometheus() -> PlainTextResponse:
        """Numbers for Prometheus, in its text format."""
        return PlainTextResponse(metrics.text(), media_type=CONTENT_TYPE_LATEST)

    return app
