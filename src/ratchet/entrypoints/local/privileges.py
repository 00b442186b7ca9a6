"""Run a child as another user without locking it out of its own files.

PostgreSQL refuses to run as root.  A plain change of user would fail wherever a folder above the
state directory is closed to others (/root, a fresh temporary folder).  So the child keeps one
capability, to pass and write folders, and nothing else; outside root nothing is changed.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import signal
import sys
from collections.abc import Callable

from ratchet.kit.processes import die_with_parent

_PR_SET_KEEPCAPS = 8
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_RAISE = 2
_CAP_DAC_OVERRIDE = 1
_VERSION_3 = 0x20080522
_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Data(ctypes.Structure):
    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


def unprivileged_user() -> pwd.struct_passwd | None:
    """Who PostgreSQL runs as when we are root; None when we are not."""
    return pwd.getpwnam("nobody") if os.geteuid() == 0 else None


def become_unprivileged(parent_death: signal.Signals | None) -> Callable[[], None]:
    """A `preexec_fn`: change user when root, and die with the parent if a signal is given."""
    user = unprivileged_user()

    def prepare() -> None:
        if user is not None:
            _change_user(user.pw_uid, user.pw_gid)
        if parent_death is not None:
            # Last: changing the user forgets it.
            die_with_parent(parent_death)

    return prepare


def _change_user(uid: int, gid: int) -> None:
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_KEEPCAPS, 1, 0, 0, 0)
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)
    if _LIBC is not None:
        # A container may lack the capability; then the folders must be open by themselves.
        bit = 1 << _CAP_DAC_OVERRIDE
        header = _Header(_VERSION_3, 0)
        data = (_Data * 2)(_Data(bit, bit, bit), _Data(0, 0, 0))
        if _LIBC.capset(ctypes.byref(header), data) == 0:
            _LIBC.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, _CAP_DAC_OVERRIDE, 0, 0)
