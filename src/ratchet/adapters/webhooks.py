"""Webhooks of GitHub and GitLab: is it them, and which branch moved?"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping
from typing import Any

from ratchet.core.errors import Rejected
from ratchet.core.triggers import Push

BRANCH = "refs/heads/"
NOTHING = "0" * 40


def github_is_genuine(headers: Mapping[str, str], body: bytes, secret: str) -> bool:
    """`X-Hub-Signature-256`: HMAC of the body.
    https://docs.github.com/webhooks/using-webhooks/validating-webhook-deliveries"""
    wanted = "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    return hmac.compare_digest(wanted.encode(), headers.get("x-hub-signature-256", "").encode())


def gitlab_is_genuine(headers: Mapping[str, str], secret: str) -> bool:
    """`X-Gitlab-Token`: the secret itself.
    https://docs.gitlab.com/user/project/integrations/webhooks/"""
    return hmac.compare_digest(secret.encode(), headers.get("x-gitlab-token", "").encode())


def repositories_of(body: bytes) -> tuple[str, ...]:
    """Urls under which the sender knows its repository.  Raises `Rejected`."""
    value = _value(body)
    named = value.get("repository") or value.get("project")
    if not isinstance(named, dict):
        raise Rejected("webhook: no repository in it")
    keys = ("clone_url", "ssh_url", "git_url", "html_url", "git_http_url", "git_ssh_url", "web_url")
    return tuple(str(named[key]) for key in keys if named.get(key))


def push_of(headers: Mapping[str, str], body: bytes) -> Push | None:
    """The branch that moved; None for everything else that is told (a tag, a ping, a deletion).

    Raises `Rejected` for what is no webhook.
    """
    event = headers.get("x-github-event") or headers.get("x-gitlab-event", "")
    if event not in ("push", "Push Hook"):
        return None
    value = _value(body)
    ref, before, after = (value.get(key) for key in ("ref", "before", "after"))
    if not isinstance(ref, str) or not isinstance(after, str):
        raise Rejected("webhook: expected ref and after")
    if not ref.startswith(BRANCH) or after == NOTHING:
        return None
    pusher = value.get("pusher")
    who = pusher.get("name") if isinstance(pusher, dict) else value.get("user_username")
    return Push(
        repository=repositories_of(body)[0],
        branch=ref.removeprefix(BRANCH),
        before="" if before == NOTHING or not isinstance(before, str) else before,
        after=after,
        who=str(who or "unknown"),
    )


def _value(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        raise Rejected("webhook: the body is no JSON; choose application/json") from None
    if not isinstance(value, dict):
        raise Rejected("webhook: the body is no object")
    return value
