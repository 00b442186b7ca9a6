"""Callers that are killed at random lines: before a call to a store, or before they hear it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Killed(BaseException):
    """The process is gone: nothing of the product catches it."""


class Fragile:
    """A store whose caller may be killed before each call, or before it hears the answer."""

    def __init__(self, real: Any, dies: Callable[[], bool]) -> None:
        self._real, self._dies = real, dies

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._real, name)

        async def fragile(*args: Any, **more: Any) -> Any:
            if self._dies():
                raise Killed
            answer = await call(*args, **more)
            if self._dies():
                raise Killed
            return answer

        return fragile
