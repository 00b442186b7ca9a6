"""The shared script for the official Python client.  `client.mjs` does the same, step by step.

Prints what each step saw, as JSON; the test compares both clients with what is expected.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import openai

url, key, limited, model = sys.argv[1:]
ASK: list[Any] = [{"role": "user", "content": "the ball is red"}]
seen: dict[str, object] = {}


def client(api_key: str, **more: Any) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{url}/v1", api_key=api_key, max_retries=0, **more)


good = client(key)
chat = good.chat.completions.create(model=model, messages=ASK, max_tokens=3, temperature=0)
seen["chat"] = [chat.object, chat.choices[0].message.role, chat.usage is not None]

text, usage = "", 0
for chunk in good.chat.completions.create(
    model=model, messages=ASK, max_tokens=3, temperature=0, stream=True,
    stream_options={"include_usage": True},
):  # fmt: skip
    text += (chunk.choices[0].delta.content or "") if chunk.choices else ""
    usage = chunk.usage.total_tokens if chunk.usage else usage
seen["stream"] = [text == chat.choices[0].message.content, usage == chat.usage.total_tokens]

seen["models"] = [found.id for found in good.models.list()]


def error(call: object) -> list[object]:
    try:
        call()  # type: ignore[operator]
    except openai.APIStatusError as caught:
        return [type(caught).__name__, caught.status_code, caught.code]
    except openai.APIError as caught:
        return [type(caught).__name__]
    return ["none"]


seen["wrong_key"] = error(lambda: client("rk_no").models.list())
seen["wrong_model"] = error(lambda: good.chat.completions.create(model="x", messages=ASK))
seen["bad_request"] = error(lambda: good.chat.completions.create(model=model, messages=[]))
seen["timeout"] = error(
    lambda: client(key, timeout=0.001).chat.completions.create(model=model, messages=ASK)
)
second = client(limited)
second.models.list()
seen["limited"] = error(second.models.list)

stream = good.chat.completions.create(model=model, messages=ASK, max_tokens=200, stream=True)
for _ in stream:
    stream.close()
    break
seen["cancel"] = True
print(json.dumps(seen))
