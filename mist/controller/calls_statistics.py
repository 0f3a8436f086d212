"""API calls that show who is connected and what streams do."""

from __future__ import annotations

from typing import Any

from mist.controller.state import Command, Controller

MAX_QUERIES = 64


def clients(controller: Controller, command: Command) -> None:
    """Return the sessions that went on at a time; one reply for each of several questions."""
    now = int(controller.clock())
    command.reply["clients"] = _each(command["clients"], lambda query: controller.reports.clients(query, now))


def totals(controller: Controller, command: Command) -> None:
    """Return the sums of sessions over time; one reply for each of several questions."""
    now = int(controller.clock())
    command.reply["totals"] = _each(command["totals"], lambda query: controller.reports.totals(query, now))


def _each(value: object, answer: Any) -> Any:
    if isinstance(value, list):
        return [answer(query if isinstance(query, dict) else {}) for query in value[:MAX_QUERIES]] or None
    return answer(value if isinstance(value, dict) else {})


def active_streams(controller: Controller, command: Command) -> None:
    """Return the streams that anything is connected to."""
    command.reply["active_streams"] = controller.reports.active_streams(command["active_streams"])


def stats_streams(controller: Controller, command: Command) -> None:
    """Return the streams that are remembered."""
    command.reply["stats_streams"] = controller.reports.stats_streams(command["stats_streams"])
