"""Models behind OpenAI's chat API: a canary that is asked again, and judges of two answers."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import httpx2 as httpx

from ratchet.core.detectors import text_of
from ratchet.core.errors import Unavailable
from ratchet.core.routing import Endpoint
from ratchet.core.shadow import PairJudge, Preference
from ratchet.ports import Prompt

CALL_SECONDS = 60.0
# Of a request, what would change how its answer is carried and not what it says.
CARRIED = ("stream", "stream_options", "n", "logprobs", "top_logprobs")
JUDGE_TOKENS = 8
ANSWER_CHARACTERS_MAX = 20_000
CRITERIA = "Which answer is more correct, more helpful and closer to what was asked?"
_ASK = """\
You compare two answers to the same conversation. {criteria}
Their order means nothing. Say A, B, or TIE when neither is better, and nothing else.

<conversation>
{conversation}
</conversation>

<answer_a>
{first}
</answer_a>

<answer_b>
{second}
</answer_b>"""
_SAID = re.compile(r"\b(A|B|TIE)\b", re.IGNORECASE)
_MEANING = {"A": Preference.FIRST, "B": Preference.SECOND, "TIE": Preference.NEITHER}


class OpenAi:
    """A client of such APIs; `secret` gives the value of an environment variable, or nothing."""

    def __init__(self, secret: Callable[[str], str | None]) -> None:
        self._secret = secret
        # One for all calls: making one reads all authorities for TLS.
        self._client = httpx.AsyncClient(timeout=CALL_SECONDS)

    async def answer(self, place: Endpoint, model: str, prompt: Prompt) -> Mapping[str, Any]:
        """As `Answerer`."""
        asked = {k: v for k, v in prompt.parameters.items() if k not in CARRIED}
        body = {**asked, "model": model, "messages": list(prompt.messages)}
        return await self._chat(f"http://{place.host}:{place.port}/v1", body, "")

    async def prefer(
        self, judge: PairJudge, messages: Sequence[Mapping[str, Any]], first: str, second: str
    ) -> Preference:
        """As `Judges`.  An answer that is neither A, B nor TIE is no preference."""
        key = ""
        if judge.key_variable:
            key = self._secret(judge.key_variable) or ""
            if not key:
                raise Unavailable(f"judge {judge.model}: ${judge.key_variable} is not set")
        conversation = "\n".join(f"{each.get('role')}: {text_of(each)}" for each in messages)
        text = _ASK.format(
            criteria=judge.criteria or CRITERIA,
            conversation=conversation[:ANSWER_CHARACTERS_MAX],
            first=first[:ANSWER_CHARACTERS_MAX],
            second=second[:ANSWER_CHARACTERS_MAX],
        )
        body = {
            "model": judge.model,
            "messages": [{"role": "user", "content": text}],
            "temperature": 0.0,
            "max_tokens": JUDGE_TOKENS,
        }
        try:
            said = text_of(await self._chat(judge.url, body, key))
        except Unavailable as error:
            raise Unavailable(f"judge {judge.model}: {error}") from error
        found = _SAID.search(said)
        return Preference.NEITHER if found is None else _MEANING[found[1].upper()]

    async def _chat(self, url: str, body: Mapping[str, Any], key: str) -> Mapping[str, Any]:
        headers = {"authorization": f"Bearer {key}"} if key else {}
        try:
            answer = await self._client.post(f"{url}/chat/completions", json=body, headers=headers)
        except httpx.HTTPError as error:
            raise Unavailable(f"{url}: {error!r}") from error
        if answer.status_code != 200:
            raise Unavailable(f"{url}: {answer.status_code} {answer.text[:200]}")
        try:
            message: Mapping[str, Any] = answer.json()["choices"][0]["message"]
        except (ValueError, KeyError, IndexError, TypeError):
            raise Unavailable(f"{url}: no chat completion, {answer.text[:200]!r}") from None
        return message
