"""What was decided about viewers' sessions, kept where the next process that decides finds it.

Every decision is one line at the end of a file in the runtime directory, which is in memory, so what was answered is never asked again
because a process was killed. The last line about a session counts.
"""

from __future__ import annotations

import json
import logging
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from mist.runtime.instance import write_atomically
from mist.stream.session_access import MAX_VERDICTS, Verdict, Viewer

log = logging.getLogger(__name__)

MAX_IDLE_LINES: Final = 1000  # lines that count no more, besides as many as there are that count
MAX_LINE_BYTES: Final = 64 * 1024
MODE: Final = 0o600  # there are tokens in it


class Verdicts:
    """The verdicts by session, and their file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[str, Verdict] = {}
        self._lines = 0
        self._read = (0, 0)  # inode, and bytes of it that were read or written here
        self.catch_up()

    def __iter__(self) -> Iterator[Verdict]:
        return iter(tuple(self._known.values()))

    def __len__(self) -> int:
        return len(self._known)

    def get(self, session: str) -> Verdict | None:
        """Return what was decided about a session, here or by a process that gives way to this one."""
        return self._known.get(session) or (self._known.get(session) if self.catch_up() else None)

    def keep(self, verdict: Verdict) -> None:
        """Note a decision, new or changed."""
        self.catch_up()
        if len(self._known) >= MAX_VERDICTS and verdict.viewer.session not in self._known:
            self.forget(next(iter(self._known)))
        self._known[verdict.viewer.session] = verdict
        self._append(_line(verdict))

    def forget(self, session: str) -> None:
        """Forget what was decided about a session."""
        self.catch_up()
        if self._known.pop(session, None) is not None:
            self._append(_dump([session]))

    def reconsider(self) -> None:
        """Have what a token allowed looked at again, and forget refusals: the keys and handlers are others."""
        self.catch_up()
        if all(one.allowed and not one.by_token for one in self._known.values()):
            return
        self._known = {session: one for session, one in self._known.items() if one.allowed or one.by_token}
        for one in self._known.values():
            if one.by_token:
                one.until = 0.0
        self._rewrite()

    def clear(self) -> None:
        """Forget everything."""
        if self._known or self._lines:
            self._known.clear()
            self._rewrite()

    def _append(self, line: bytes) -> None:
        if len(line) > MAX_LINE_BYTES:
            return
        try:
            fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, MODE)
            try:
                os.write(fd, line)
                found = os.fstat(fd)
                self._read = (found.st_ino, found.st_size)
            finally:
                os.close(fd)
        except OSError as error:
            log.error("Decisions about sessions are not noted: %s", error)
        self._lines += 1
        if self._lines > 2 * len(self._known) + MAX_IDLE_LINES:
            self._rewrite()

    def _rewrite(self) -> None:
        try:
            write_atomically(self._path, b"".join(_line(one) for one in self._known.values()), mode=MODE)
            found = self._path.stat()
            self._read = (found.st_ino, found.st_size)
        except OSError as error:
            log.error("Decisions about sessions are not noted: %s", error)
        self._lines = len(self._known)

    def catch_up(self) -> bool:
        """Read what was noted since the last look; False when there was nothing."""
        try:
            found = self._path.stat()
            inode, at = self._read
            if inode != found.st_ino:
                at = 0
            if at >= found.st_size:
                return False
            with self._path.open("rb") as file:
                file.seek(at)
                data = file.read(found.st_size - at)
        except FileNotFoundError:
            return False
        except OSError as error:
            log.error("Decisions about sessions cannot be read: %s", error)
            return False
        self._read = (found.st_ino, found.st_size)
        now = time.time()
        for line in data.splitlines():
            self._take(line, now)
        return True

    def _take(self, line: bytes, now: float) -> None:
        self._lines += 1
        try:
            session, *rest = json.loads(line)
            if not rest:
                self._known.pop(session, None)
                return
            *viewer, allowed, until, by_token = rest
            self._known[session] = Verdict(
                Viewer(session, *viewer), allowed, math.inf if until is None else float(until), now, by_token=by_token
            )
        except (ValueError, TypeError) as error:
            log.warning("A line about a session cannot be read: %s", error)


def _line(verdict: Verdict) -> bytes:
    viewer = verdict.viewer
    until = None if math.isinf(verdict.until) else verdict.until
    known = [viewer.session, viewer.stream, viewer.host, viewer.token, viewer.connector, viewer.url]
    return _dump([*known, verdict.allowed, until, verdict.by_token])


def _dump(members: list[Any]) -> bytes:
    return json.dumps(members, separators=(",", ":")).encode() + b"\n"
