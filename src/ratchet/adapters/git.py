"""Git repositories: bare copies that are fetched into, and folders with the files of one commit.

`git` itself does the work, so whatever it can reach is reached: https, ssh, a path.
"""

from __future__ import annotations

import asyncio
import base64
import os
import re
import shutil
from collections.abc import Collection, Mapping
from datetime import datetime
from pathlib import Path

from ratchet.core.errors import NotFound, Rejected, Unavailable
from ratchet.core.triggers import Triggers
from ratchet.kit.digest import digest_bytes

FETCH_SECONDS = 300.0
KEEP_SECONDS = 86_400.0
_COMMIT = re.compile(r"^[0-9a-f]{40}([0-9a-f]{24})?$")
# What a url in a file may make git run: nothing but transports.
PROTOCOLS = "file:https:http:ssh:git"


class GitRepositories:
    """`folder` holds everything; tokens are variables of `env`."""

    def __init__(self, folder: Path, env: Mapping[str, str]) -> None:
        self._folder, self._env = folder, env
        self._locks: dict[Path, asyncio.Lock] = {}

    async def newest(self, triggers: Triggers) -> str:
        branch = triggers.branch
        copy = await self._fetched(triggers)
        found = await self._git(
            copy, triggers, "rev-parse", "--verify", "-q", f"refs/heads/{branch}"
        )
        if found is None:
            raise Rejected(f"triggers.merge.branch: {triggers.repository} has no branch {branch!r}")
        return found.strip()

    async def changed(self, triggers: Triggers, before: str, after: str) -> tuple[str, ...] | None:
        if not _COMMIT.match(before) or not _COMMIT.match(after):
            return None
        copy = self._copy(triggers)
        found = await self._git(
            copy, triggers, "diff", "--name-only", "-z", "--no-renames", before, after, "--"
        )
        return None if found is None else tuple(path for path in found.split("\0") if path)

    async def checkout(self, triggers: Triggers, commit: str) -> Path:
        if not _COMMIT.match(commit):
            raise NotFound(f"{commit!r} is no commit")
        copy = self._copy(triggers)
        folder = self._folder / "checkouts" / f"{copy.stem}-{commit}"
        if folder.exists():
            await asyncio.to_thread(os.utime, folder)
            return folder
        beside = folder.with_name(f".{folder.name}.{os.getpid()}")
        async with self._lock(copy):
            await asyncio.to_thread(_empty, beside)
            arguments = (f"--work-tree={beside}", "checkout", "-q", "-f", commit, "--", ".")
            index = {"GIT_INDEX_FILE": str(beside.with_suffix(".index"))}
            found = await self._git(copy, triggers, *arguments, **index)
            beside.with_suffix(".index").unlink(missing_ok=True)
            if found is None:
                await asyncio.to_thread(shutil.rmtree, beside, True)
                raise NotFound(f"{triggers.repository} has no commit {commit}")
            if not folder.exists():
                beside.rename(folder)
        return folder

    async def forget(self, keep: Collection[Path], now: datetime) -> int:
        oldest = now.timestamp() - KEEP_SECONDS
        return await asyncio.to_thread(_forget, self._folder / "checkouts", keep, oldest)

    async def _fetched(self, triggers: Triggers) -> Path:
        copy = self._copy(triggers)
        async with self._lock(copy):
            if not (copy / "HEAD").exists():
                copy.mkdir(parents=True, exist_ok=True)
                await self._must(copy, triggers, "init", "-q", "--bare", ".")
            # Everything of the branches, forced: a branch may be written anew.
            await self._must(
                copy, triggers, "fetch", "-q", "--prune", "--no-tags", "--",
                triggers.repository, "+refs/heads/*:refs/heads/*",
            )  # fmt: skip
        return copy

    def _copy(self, triggers: Triggers) -> Path:
        return self._folder / f"{digest_bytes(triggers.repository.encode())[:16]}.git"

    def _lock(self, copy: Path) -> asyncio.Lock:
        return self._locks.setdefault(copy, asyncio.Lock())

    async def _must(self, copy: Path, triggers: Triggers, *arguments: str) -> None:
        """Raises `Unavailable` with git's last words."""
        code, _, said = await self._call(copy, triggers, arguments, {})
        if code:
            words = said.strip().splitlines()[-1] if said.strip() else f"code {code}"
            raise Unavailable(f"repository {triggers.repository}: git says: {words}")

    async def _git(
        self, copy: Path, triggers: Triggers, *arguments: str, **more: str
    ) -> str | None:
        """What it printed; None when it failed."""
        if not await asyncio.to_thread(copy.exists):
            return None
        code, printed, _ = await self._call(copy, triggers, arguments, more)
        return None if code else printed

    async def _call(
        self, copy: Path, triggers: Triggers, arguments: tuple[str, ...], more: dict[str, str]
    ) -> tuple[int, str, str]:
        process = await asyncio.create_subprocess_exec(
            "git", f"--git-dir={copy}", *arguments,
            cwd=copy,
            env={**_for_git(self._env), **self._credentials(triggers), **more},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            out, err = await asyncio.wait_for(process.communicate(), FETCH_SECONDS)
        except TimeoutError:
            process.kill()
            await process.wait()
            raise Unavailable(
                f"repository {triggers.repository}: no answer for {FETCH_SECONDS:.0f} s"
            ) from None
        assert process.returncode is not None
        return process.returncode, out.decode(errors="replace"), err.decode(errors="replace")

    def _credentials(self, triggers: Triggers) -> dict[str, str]:
        """By the environment: arguments can be read by everybody on a machine."""
        token = self._env.get(triggers.token_variable)
        if not token or not triggers.repository.startswith("https://"):
            return {}
        basic = base64.b64encode(f"x-access-token:{token}".encode()).decode()
        return {
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": "http.extraHeader",
            "GIT_CONFIG_VALUE_0": f"Authorization: Basic {basic}",
        }


def _for_git(env: Mapping[str, str]) -> dict[str, str]:
    """What git needs of ours, and nothing that points it to another repository."""
    known = ("PATH", "HOME", "SSH_AUTH_SOCK", "SSL_CERT_FILE", "https_proxy", "http_proxy")
    return {
        **{name: env[name] for name in known if name in env},
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ALLOW_PROTOCOL": PROTOCOLS,
        "GIT_SSH_COMMAND": "ssh -o BatchMode=yes",
        "LC_ALL": "C",
    }


def _empty(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)


def _forget(folder: Path, keep: Collection[Path], oldest: float) -> int:
    dropped = 0
    if not folder.exists():
        return 0
    for each in folder.iterdir():
        if each not in keep and each.stat().st_mtime < oldest:
            if each.is_dir():
                shutil.rmtree(each, ignore_errors=True)
            else:
                each.unlink(missing_ok=True)  # an index that a kill left
            dropped += 1
    return dropped
