"""Every error that Ratchet raises on purpose.

RatchetError
├── NotFound       the caller named something that does not exist
├── Rejected       the caller's input breaks a rule; retrying cannot help
├── Conflict       someone else changed it first; re-read and try again
└── Unavailable    an outside system failed; the same call may work later

A bug is none of these: it stays an ordinary exception and crashes its task.
"""

from __future__ import annotations


class RatchetError(Exception):
    """Base of the four.  The message names the thing, its state and what was wanted."""


class NotFound(RatchetError):
    """The caller named something that does not exist."""


class Rejected(RatchetError):
    """The caller's input breaks a rule; retrying cannot help."""


class Conflict(RatchetError):
    """Someone else changed it first; re-read and try again."""


class Unavailable(RatchetError):
    """An outside system failed; the same call may work later."""


def first_line(error: Exception) -> str:
    """What an error of a library says, without the pages of detail that some put below."""
    return str(error).partition("\n")[0]
