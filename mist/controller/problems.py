"""What went wrong while a command of the API ran: what the log is told of it, for the operator who sent the command."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

REFUSED = "API call "  # how a line begins that says why a call was not run


@dataclass(slots=True)
class Problems:
    """Lines that the log was told. refused: of what was not done. warnings: of what was."""

    refused: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def document(self) -> dict[str, list[str]]:
        """Return those that there are."""
        return {name: lines for name in ("refused", "warnings") if (lines := getattr(self, name))}


_FOUND: ContextVar[Problems | None] = ContextVar("problems", default=None)


class _Collector(logging.Handler):
    """Takes the lines of one command: those of its own context, and of no other that runs meanwhile."""

    def __init__(self, problems: Problems) -> None:
        super().__init__(logging.WARNING)
        self._problems = problems

    def emit(self, record: logging.LogRecord) -> None:
        """Take a line. One that has a kind of its own tells what was done."""
        if _FOUND.get() is not self._problems or hasattr(record, "kind"):
            return
        text = record.getMessage()
        refused = record.levelno >= logging.ERROR or text.startswith(REFUSED)
        (self._problems.refused if refused else self._problems.warnings).append(text)


@contextmanager
def collected(log: logging.Logger) -> Iterator[Problems]:
    """Collect what a log is told here and in what is begun here."""
    problems = Problems()
    collector = _Collector(problems)
    token = _FOUND.set(problems)
    log.addHandler(collector)
    try:
        yield problems
    finally:
        log.removeHandler(collector)
        _FOUND.reset(token)
