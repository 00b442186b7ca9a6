"""Slack, PagerDuty and signed webhooks: each is one POST."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from typing import Any

import httpx2 as httpx
from standardwebhooks import Webhook
from standardwebhooks.webhooks import EmptyWebhookSecretError

from ratchet.core.errors import Rejected, Unavailable
from ratchet.core.notices import Channel, Notice, Service
from ratchet.core.rollout import JUDGE, Stage

PAGERDUTY_URL = "https://events.pagerduty.com/v2/enqueue"
CALL_SECONDS = 10.0
# What a receiver refuses now and may take later.
LATER = (408, 425, 429)


class Messages:
    """Sends notices; `secret` gives the value of an environment variable, or nothing."""

    def __init__(
        self, secret: Callable[[str], str | None], pagerduty_url: str = PAGERDUTY_URL
    ) -> None:
        self._secret, self._pagerduty_url = secret, pagerduty_url
        # One for all calls: making one reads all authorities for TLS.
        self._client = httpx.AsyncClient(timeout=CALL_SECONDS)

    async def send(self, channel: Channel, notice: Notice, now: datetime) -> None:
        """As `Messenger`."""
        value = (self._secret(channel.variable) or "") if channel.variable else ""
        if channel.variable and not value:
            raise Unavailable(f"${channel.variable} is not set")
        if channel.service is Service.SLACK:
            await self._post(value, _bytes({"text": _slack(notice)}))
        elif channel.service is Service.PAGERDUTY:
            await self._post(self._pagerduty_url, _bytes(_pagerduty(notice, value)))
        else:
            content = _bytes(_event(notice))
            await self._post(channel.url, content, **_signed(notice, content, value, now))

    async def _post(self, url: str, content: bytes, **headers: str) -> None:
        """Errors never have the url in them: Slack's is a secret."""
        try:
            answer = await self._client.post(
                url, content=content, headers={"content-type": "application/json", **headers}
            )
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise Unavailable(f"cannot be reached: {type(error).__name__}") from None
        if answer.status_code >= 500 or answer.status_code in LATER:
            raise Unavailable(f"answered {answer.status_code}")
        if answer.status_code >= 400:
            raise Rejected(f"refused it: {answer.status_code} {answer.text[:200]}")


def _slack(notice: Notice) -> str:
    """Slack reads &, < and > as its own."""
    text = f"*{notice.headline}* ({notice.weight_percent:g} %)\n> {notice.because}"
    said = text if notice.who == JUDGE else f"{text}\n(by {notice.who})"
    escaped = said.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return escaped.replace("\n&gt; ", "\n> ")


def _pagerduty(notice: Notice, key: str) -> dict[str, Any]:
    ended = {"routing_key": key, "event_action": "resolve", "dedup_key": notice.release_id}
    if not notice.wakes:
        return ended
    severity = "error" if notice.to_stage is Stage.ROLLED_BACK else "warning"
    return {
        **ended,
        "event_action": "trigger",
        "payload": {
            "summary": f"{notice.headline}: {notice.because}"[:1024],
            "source": f"ratchet/{notice.project}",
            "severity": severity,
            "timestamp": notice.at.isoformat(),
            "component": notice.candidate,
            "custom_details": _event(notice)["data"],
        },
    }


def _event(notice: Notice) -> dict[str, Any]:
    return {
        "type": f"release.{notice.to_stage.value}",
        "timestamp": notice.at.isoformat(),
        "data": {
            "project": notice.project,
            "release": notice.release_id,
            "run": notice.run_id,
            "version": notice.candidate,
            "from": notice.from_stage.value,
            "to": notice.to_stage.value,
            "weight_percent": notice.weight_percent,
            "asks": notice.asks,
            "because": notice.because,
            "who": notice.who,
        },
    }


def _signed(notice: Notice, content: bytes, secret: str, now: datetime) -> dict[str, str]:
    """Headers as Standard Webhooks has them; without a secret nobody can tell who sent it."""
    headers = {"webhook-id": notice.id, "webhook-timestamp": str(int(now.timestamp()))}
    if not secret:
        return headers
    try:
        signature = Webhook(secret).sign(notice.id, now, content.decode())
    except (ValueError, EmptyWebhookSecretError) as error:
        raise Rejected(f"the webhook's secret is no base64: {error}") from None
    return {**headers, "webhook-signature": signature}


def _bytes(value: dict[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
