"""One log for all processes: lines for people on stderr, and the same as datagrams to the controller.

Human form: `[YYYY-MM-DD HH:MM:SS] program:stream (pid) KIND: message (file:line)`; a service manager gets a syslog
priority in place of the time. Where standard error is systemd's journal, records go there with their fields instead.
"""

from __future__ import annotations

import json
import logging
import os
import re
import socket
import sys
import time
from contextvars import ContextVar
from dataclasses import dataclass, field

from mist.runtime.journal import Journal, is_journal
from mist.runtime.process import own

KINDS = (
    (logging.CRITICAL, "FAIL", 0),
    (logging.ERROR, "ERROR", 1),
    (logging.WARNING, "WARN", 2),
    (logging.INFO, "INFO", 5),
    (0, "MEDIUM", 7),
)
ALWAYS_SHOWN = {"CONF": 5, "AUTH": 5, "ACCS": 5, "STRM": 5, "BUFF": 5}
LEVELS = {"none": 0, "fail": 1, "error": 2, "warn": 3, "info": 4, "medium": 5, "high": 6, "debug": 6}
_PYTHON_LEVELS = (logging.CRITICAL + 10, logging.CRITICAL, logging.ERROR, logging.WARNING, logging.INFO, logging.DEBUG)
_COLOURS = {"FAIL": "41;1", "ERROR": "31;1", "WARN": "33;1", "INFO": "32", "MEDIUM": "2"}
_OTHER_COLOUR = "36"

# Controls (C0 but for the tab, C1), ends of lines of Unicode, marks that turn the direction of text, halves of surrogates.
_UNSEEN = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")

REPEAT_WINDOW_SECONDS = 10.0
REPEATS_ALLOWED = 5
MAX_REMEMBERED_LINES = 256
MAX_DATAGRAM_BYTES = 60_000


def python_level(debug: int) -> int:
    """Return the logging level for a configured level, 0 (nothing) to 10 (everything)."""
    return _PYTHON_LEVELS[max(0, min(debug, len(_PYTHON_LEVELS) - 1))]


def parse_level(text: str) -> int:
    """Return the configured level for a word or number. Raises ValueError."""
    if text.isdigit() and int(text) <= 10:
        return int(text)
    if text.lower() in LEVELS:
        return LEVELS[text.lower()]
    raise ValueError(f'"{text}" is not a log level: 0 to 10, or one of {", ".join(LEVELS)}')


def legible(text: str) -> str:
    """Return a message as a log shows it: what peers send may be in it, and must neither look like a line of its own nor
    command a terminal. Further lines begin with a tab, and what cannot be seen is written as Python writes it.
    """
    if _UNSEEN.search(text) is None:
        return text
    return _UNSEEN.sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    return "\n\t" if found[0] == "\n" else found[0].encode("unicode_escape").decode()


@dataclass(slots=True)
class _Repeats:
    since: float
    count: int = 0
    dropped: int = 0


@dataclass(slots=True)
class RepeatLimit:
    """Lets the first few equal lines of each window through and counts the rest."""

    _lines: dict[str, _Repeats] = field(default_factory=dict)

    def admit(self, line: str, now: float) -> int | None:
        """Return how many equal lines were left out before this one, or None when this one is left out."""
        seen = self._lines.get(line)
        if seen is None or now - seen.since > REPEAT_WINDOW_SECONDS:
            dropped = seen.dropped if seen else 0
            self._lines.pop(line, None)
            while len(self._lines) >= MAX_REMEMBERED_LINES:
                del self._lines[next(iter(self._lines))]
            self._lines[line] = _Repeats(now, 1)
            return dropped
        seen.count += 1
        if seen.count <= REPEATS_ALLOWED:
            return 0
        seen.dropped += 1
        return None


class LogHandler(logging.Handler):
    """Writes records to stderr and to the controller's log socket.

    program: what this process is. stream: the stream it works for, when it is one only. Both may be changed at any time;
    a record's own `stream` and `kind` (passed by `extra`) come first.
    """

    def __init__(self, program: str = "mist", socket_path: str | None = None) -> None:
        super().__init__()
        self.program = program
        self.stream = ""
        self.socket_path = socket_path
        self._socket: socket.socket | None = None
        self._limit = RepeatLimit()
        self._journal = Journal() if is_journal(os.environ.get("JOURNAL_STREAM", "")) else None
        service = bool(os.environ.get("JOURNAL_STREAM") and os.environ.get("INVOCATION_ID"))
        self._priorities = service
        self._colours = not service and (sys.stderr.isatty() or bool(os.environ.get("MIST_COLOR")))

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._emit(record)
        except Exception:  # noqa: BLE001  (what logging itself prescribes for handlers)
            self.handleError(record)

    def _emit(self, record: logging.LogRecord) -> None:
        text = legible(record.getMessage())
        if record.exc_info and record.exc_info[0] is not None:
            text += "\n" + logging.Formatter().formatException(record.exc_info)
        program, own_stream = _matter.get() or (self.program, self.stream)
        stream = str(getattr(record, "stream", "") or own_stream)
        kind, priority = self._kind(record)
        dropped = self._limit.admit(f"{kind}|{program}|{stream}|{text}", time.monotonic())
        if dropped is None:
            return
        if dropped:
            text += f" ({dropped} equal lines left out)"
        where = f"{record.filename}:{record.lineno}"
        if self._journal is None or not self._journal.send(self._fields(record, program, kind, priority, stream, text)):
            sys.stderr.write(self._line(record.created, program, kind, priority, stream, text, where))
            sys.stderr.flush()
        self._send(
            {
                "time": record.created,
                "kind": kind,
                "program": program,
                "pid": os.getpid(),
                "where": where,
                "stream": stream,
                "message": text,
            }
        )

    @staticmethod
    def _fields(
        record: logging.LogRecord, program: str, kind: str, priority: int, stream: str, text: str
    ) -> dict[str, object]:
        fields: dict[str, object] = {
            "MESSAGE": text,
            "PRIORITY": priority,
            "SYSLOG_IDENTIFIER": "mist",
            "MIST_PROCESS": program,
            "MIST_KIND": kind,
            "CODE_FILE": record.pathname,
            "CODE_LINE": record.lineno,
            "CODE_FUNC": record.funcName,
        }
        if stream:
            fields["STREAM"] = stream
        return fields

    @staticmethod
    def _kind(record: logging.LogRecord) -> tuple[str, int]:
        given = str(getattr(record, "kind", ""))
        if given in ALWAYS_SHOWN:
            return given, ALWAYS_SHOWN[given]
        return next((kind, priority) for level, kind, priority in KINDS if record.levelno >= level)

    def _line(self, created: float, program: str, kind: str, priority: int, stream: str, text: str, where: str) -> str:
        who = f"{program}:{stream}" if stream else program
        shown = kind
        if self._colours:
            shown = f"\x1b[{_COLOURS.get(kind, _OTHER_COLOUR)}m{kind}\x1b[0m"
        if self._priorities:
            text = text.replace("\n", f"\n<{priority}>")
            start = f"<{priority}>"
        else:
            start = time.strftime("[%Y-%m-%d %H:%M:%S] ", time.localtime(created))
        return f"{start}{who} ({os.getpid()}) {shown}: {text} ({where})\n"

    def _send(self, entry: dict[str, object]) -> None:
        """Pass a line to the controller; without a reader it is on stderr only."""
        if self.socket_path is None:
            return
        if self._socket is None:
            self._socket = own(
                socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
            )
        data = json.dumps(entry, separators=(",", ":")).encode()
        if len(data) > MAX_DATAGRAM_BYTES:
            entry["message"] = str(entry["message"])[:1000]
            data = json.dumps(entry, separators=(",", ":")).encode()
        try:
            self._socket.sendto(data, self.socket_path)
        except OSError:
            return

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if self._journal is not None:
            self._journal.close()
        super().close()

    def reopen(self) -> None:
        """Forget the sockets of the parent in a forked child."""
        self._socket = None
        if self._journal is not None:
            self._journal.reopen()


_handler: LogHandler | None = None
_matter: ContextVar[tuple[str, str] | None] = ContextVar("matter", default=None)


def start_log(debug: int, socket_path: str | None = None) -> LogHandler:
    """Make the root logger write through a LogHandler; returns the process's one handler."""
    global _handler
    root = logging.getLogger()
    if _handler is None:
        _handler = LogHandler()
        root.addHandler(_handler)
    _handler.socket_path = socket_path
    root.setLevel(python_level(debug))
    return _handler


def become(program: str, stream: str = "") -> None:
    """Name this process in its log lines, after a fork."""
    if _handler is not None:
        _handler.program = program
        _handler.stream = stream
        _handler.reopen()


def speak_for(program: str, stream: str) -> None:
    """Name what the current context works for in its log lines, in a process that does many things of a kind at once."""
    _matter.set((program, stream))
