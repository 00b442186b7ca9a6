"""The console's pages: the live page, a page for each run, and their streams."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse
from fastapi.staticfiles import StaticFiles
from jinja2 import Environment, PackageLoader, select_autoescape
from sse_starlette import EventSourceResponse

from ratchet import __version__
from ratchet.core.artifact import RunId
from ratchet.core.errors import NotFound, Unavailable
from ratchet.core.guards import ERRORS
from ratchet.core.placement.timeline import cost_on_demand_usd, cost_usd
from ratchet.core.routing import WEIGHT_TOTAL
from ratchet.entrypoints.console import charts
from ratchet.entrypoints.console.fleet import fleet_view
from ratchet.entrypoints.timeline import pieces_of
from ratchet.operations.evaluations import compared, counted
from ratchet.wiring import Parts

FOLDER = Path(__file__).parent
REFRESH_SECONDS = 0.7
TRAFFIC_MINUTES = 5
RUNS_SHOWN = 8
ITEMS_SHOWN = 200
NOT_ENDED = ("starting", "shadow", "canary", "paused", "held", "holdback")


def console(parts: Parts) -> APIRouter:
    """Routes of the console, to be included into the control API."""
    pages = APIRouter(include_in_schema=False)
    templates = environment()
    pages.mount("/static", StaticFiles(directory=FOLDER / "static"), name="static")

    async def live(run_id: str | None) -> str:
        try:
            view = await _view(parts, run_id)
        except Unavailable as error:
            return templates.get_template("away.html").render(because=str(error))
        return templates.get_template("live.html").render(**view)

    async def page(run_id: str | None) -> HTMLResponse:
        stream = f"/live/{run_id}" if run_id else "/live"
        return _page(parts, templates, await live(run_id), stream)

    @pages.get("/")
    async def home() -> HTMLResponse:
        return await page(None)

    @pages.get("/runs/{run_id}")
    async def run(run_id: str) -> HTMLResponse:
        await parts.views.run(run_id)
        return await page(run_id)

    @pages.get("/live")
    async def stream_home(request: Request) -> EventSourceResponse:
        return EventSourceResponse(changes(request, partial(live, None)))

    @pages.get("/live/{run_id}")
    async def stream_run(request: Request, run_id: str) -> EventSourceResponse:
        return EventSourceResponse(changes(request, partial(live, run_id)))

    pages.include_router(_items(parts, templates))
    pages.include_router(_fleet(parts, templates))
    return pages


async def changes(
    request: Request, inside: Callable[[], Awaitable[str]]
) -> AsyncIterator[dict[str, str]]:
    """A page's inside, each time it differs from what was sent."""
    sent = ""
    while not await request.is_disconnected():
        content = await inside()
        digest = hashlib.sha256(content.encode()).hexdigest()
        if digest != sent:
            yield {"data": content}
            sent = digest
        await asyncio.sleep(REFRESH_SECONDS)


def _fleet(parts: Parts, templates: Environment) -> APIRouter:
    """The page of machines that projects share."""
    pages = APIRouter(include_in_schema=False)

    async def inside() -> str:
        try:
            mine = [project["name"] for project in await parts.views.projects()]
            view = fleet_view(await parts.fleet.store.view(), mine)
        except Unavailable as error:
            away = templates.get_template("away.html")
            return away.render(what="The fleet's database", because=str(error))
        return templates.get_template("fleet.html").render(**view)

    @pages.get("/fleet")
    async def fleet() -> HTMLResponse:
        return _page(parts, templates, await inside(), "/live-fleet")

    @pages.get("/live-fleet")
    async def stream(request: Request) -> EventSourceResponse:
        return EventSourceResponse(changes(request, inside))

    return pages


def _items(parts: Parts, templates: Environment) -> APIRouter:
    """The page with both answers to every item."""
    pages = APIRouter(include_in_schema=False)

    @pages.get("/runs/{run_id}/items")
    async def items(run_id: str, only: str = "lost") -> HTMLResponse:
        try:
            found = await compared(RunId(run_id), parts.evaluations)
        except Unavailable as error:
            away = templates.get_template("away.html").render(
                what="The object store", because=str(error)
            )
            return _page(parts, templates, away)
        chosen = [item for item in found if only in ("all", item.became)]
        content = templates.get_template("items.html").render(
            run_id=run_id,
            only=only,
            counts=counted(found),
            items=chosen[:ITEMS_SHOWN],
            left=max(0, len(chosen) - ITEMS_SHOWN),
        )
        return _page(parts, templates, content)

    return pages


def _page(parts: Parts, templates: Environment, content: str, stream: str = "") -> HTMLResponse:
    """A whole page; with a stream its inside follows what happens."""
    whole = templates.get_template("page.html").render(
        content=content,
        stream=stream,
        version=__version__,
        gateway=parts.settings.gateway_url,
    )
    return HTMLResponse(whole)


def _amount(guard: dict[str, Any], name: str) -> str:
    """A guard's number as people read it; ends of an interval have their sign."""
    value = guard[name]
    if value is None:
        return "–"
    sign = "+" if name in ("low", "high") else ""
    if guard["kind"] in ("rate", "time"):
        return f"{value:{sign}.1%}"
    return f"{value:{sign}.3g}"


def _minutes(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 5400 else f"{seconds / 60:.0f} min"


def _evidence(value: float) -> str:
    return f"{value:.2g}" if value < 100 else f"{value:.0f}" if value < 1e5 else "> 100,000"


def environment() -> Environment:
    """The templates with their filters."""
    templates = Environment(
        loader=PackageLoader("ratchet.entrypoints.console"),
        autoescape=select_autoescape(),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters["clock"] = lambda text: str(text)[11:19]
    templates.filters["amount"] = _amount
    templates.filters["evidence"] = _evidence
    templates.filters["minutes"] = _minutes
    templates.filters["words"] = lambda text: str(text).replace("_", " ")
    return templates


async def _view(parts: Parts, run_id: str | None) -> dict[str, Any]:
    """Everything the live page shows."""
    projects = await parts.views.projects()
    view: dict[str, Any] = {"project": projects[0] if projects else None, "run": None}
    if not projects:
        return view
    project = projects[0]["name"]
    runs = await parts.views.runs(project, RUNS_SHOWN)
    wanted = run_id or _current(runs)
    view |= {
        "arms": await _arms(parts, project),
        "runs": runs,
        "run": await _run(parts, wanted) if wanted else None,
        "release": None,
        "gateways": await parts.views.gateways(),
    }
    if view["run"] and view["run"]["release_id"]:
        view["release"] = await _release(parts, view["run"]["release_id"])
    return view


def _current(runs: list[dict[str, Any]]) -> str | None:
    """The active run, or the newest."""
    active = next((run["id"] for run in runs if run["state"] == "running"), None)
    return active or (runs[0]["id"] if runs else None)


async def _arms(parts: Parts, project: str) -> list[dict[str, Any]]:
    """What serves now: each arm with its share, its engine and its recent traffic."""
    since = parts.runs.clock.now() - timedelta(minutes=TRAFFIC_MINUTES)
    traffic = {row["version_id"]: row for row in await parts.views.traffic(project, since)}
    engines = {row["version_id"]: row for row in await parts.views.engines()}
    arms = []
    for arm in reversed(await parts.gateway.arms(project)):
        row = traffic.get(arm.version, {})
        engine = engines.get(arm.version, {})
        arms.append(
            {
                "version": arm.version,
                "percent": arm.weight * 100 / WEIGHT_TOTAL,
                "requests": row.get("requests", 0),
                "failed": row.get("failed", 0),
                "p50_ms": row.get("p50_ms"),
                "p95_ms": row.get("p95_ms"),
                "engine": engine.get("state", "unknown"),
                "drill": engine.get("drill"),
            }
        )
    return arms


async def _run(parts: Parts, run_id: str) -> dict[str, Any] | None:
    try:
        run = await parts.views.run(run_id)
    except NotFound:
        return None
    train = next(stage for stage in run["stages"] if stage["name"] == "train")
    progress = train.get("attempt", {}).get("progress", {})
    run["progress"] = progress
    run["loss_chart"] = charts.loss_curve(run["loss"], int(progress.get("steps", 0)))
    pieces = pieces_of(run, parts.runs.clock.now())
    run["timeline"] = charts.timeline(pieces)
    run["usd"] = cost_usd(pieces)
    usual = run["spec"].get("place", {}).get("usd_per_hour", 0.0)
    run["usd_on_demand"] = cost_on_demand_usd(pieces, usual)
    gate = next(stage for stage in run["stages"] if stage["name"] == "gate")
    run["gates"] = gate["detail"].get("gates", [])
    run["suites"] = gate["detail"].get("suites", [])
    return run


async def _release(parts: Parts, release_id: str) -> dict[str, Any]:
    release = await parts.views.release(release_id)
    verdicts = release["verdicts"]
    release["is_live"] = release["stage"] in NOT_ENDED
    release["notches"] = release["plan"]["notches_percent"]
    release["weight"] = verdicts[-1]["weight_percent"] if verdicts else 0
    # A verdict's own numbers are no point: it ends the look that they are from.
    seen = [(p["at"], p["weight"], p["numbers"]) for p in release["points"]]
    seen += [(v["at"], v["weight_percent"], v["numbers"]) for v in verdicts if v["numbers"]]
    seen.sort(key=lambda point: point[0])
    return release | (_pictures(release["plan"], seen) if seen else {})


def _pictures(
    plan: dict[str, Any], seen: list[tuple[str, float, dict[str, float]]]
) -> dict[str, Any]:
    """Numbers and charts of what was seen, as (time, weight, numbers), in order."""
    numbers, began = seen[-1][2], datetime.fromisoformat(seen[0][0])
    seconds = [(datetime.fromisoformat(at) - began).total_seconds() for at, _, _ in seen]

    def curve(name: str) -> list[tuple[float, float]]:
        pairs = zip(seconds, seen, strict=True)
        return [(at, found[name]) for at, (_, _, found) in pairs if name in found]

    shown = {"numbers": numbers, "chart": charts.evidence_curve(curve("e"), numbers["threshold"])}
    if plan["harm_budget"] is None:
        return shown
    margin = next(guard["margin"] for guard in plan["guards"] if guard["name"] == ERRORS.name)
    weights = [(at, weight) for at, (_, weight, _) in zip(seconds, seen, strict=True)]
    return shown | {
        "proof_chart": charts.regression_curve(curve("regression_max"), margin),
        "weight_chart": charts.weight_curve(weights),
        "harmed_max": numbers["canary_units"] * max(numbers["regression_max"], 0.0),
    }
