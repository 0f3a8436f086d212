"""Firing triggers, from any process: the process that runs the handlers is asked, and only if there are handlers."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from mist.errors import MistError
from mist.runtime.instance import Instance
from mist.runtime.spawner_link import Link
from mist.stream.triggers import Handler, decide, handlers, replace_value

log = logging.getLogger(__name__)

# Longer than the longest that one handler may take (5 attempts of 5 s), so that it is the handlers' process that gives up.
ANSWER_SECONDS: Final = 60.0


class TriggerLink:
    """Fires triggers for one process with an asyncio loop."""

    def __init__(
        self, instance: Instance, loop: asyncio.AbstractEventLoop, snapshot: Callable[[], Mapping[str, Any]]
    ) -> None:
        """Take a function that returns the whole configuration as it is now."""
        self._link = Link(instance.trigger_socket, "The process of the triggers", loop, ANSWER_SECONDS)
        self._snapshot = snapshot

    def wanted(self, name: str, stream: str = "") -> list[Handler]:
        """Return the handlers of a trigger, so that a payload that is dear to make is only made for somebody."""
        snapshot = self._snapshot()
        return handlers(snapshot.get("config") or {}, name, stream, tags_of(snapshot, stream))

    def notify(self, name: str, stream: str, lines: Sequence[str]) -> None:
        """Tell the handlers of a trigger whose answer does not matter."""
        if self.wanted(name, stream):
            try:
                self._link.tell(message(name, stream, lines))
            except MistError as error:
                log.warning("The trigger %s was not fired: %s", name, error)

    async def allows(self, name: str, stream: str, lines: Sequence[str]) -> bool:
        """Fire a trigger and return whether all its handlers allow."""
        found = self.wanted(name, stream)
        return not found or decide(await self._results(found, name, stream, lines))

    async def replace(self, name: str, stream: str, lines: Sequence[str], value: str) -> str:
        """Fire a trigger and return what its handlers make of a value."""
        found = self.wanted(name, stream)
        return replace_value(value, await self._results(found, name, stream, lines)) if found else value

    async def _results(
        self, found: Sequence[Handler], name: str, stream: str, lines: Sequence[str]
    ) -> list[tuple[Handler, str | None]]:
        event = message(name, stream, lines)
        for last in (False, True):
            try:
                answer = await self._link.ask(event)
                break
            except MistError as error:  # the process may have been killed: the next one is asked again
                if last:
                    log.error("The handlers of %s gave no answer, their defaults count: %s", name, error)
                    return [(handler, None) for handler in found]
        return [
            (Handler(one["target"], one["blocking"], default=one["default"]), one["answer"])
            for one in answer["results"]
        ]

    async def statistics(self) -> Mapping[str, Mapping[str, int]]:
        """Return what became of the calls of each trigger's handlers; see `Triggers`."""
        if not (self._snapshot().get("config") or {}).get("triggers"):
            return {}
        try:
            found: Mapping[str, Mapping[str, int]] = (await self._link.ask({"do": "statistics"}))["triggers"]
        except MistError as error:
            log.warning("The counts of triggers are not known: %s", error)
            return {}
        return found

    def close(self) -> None:
        self._link.close()


def message(name: str, stream: str, lines: Sequence[str]) -> dict[str, Any]:
    """Return what the process of the triggers is told."""
    return {
        "do": "fire",
        "trigger": name,
        "stream": stream,
        "payload": "\n".join(lines),
        "pid": os.getpid(),
        "unix_ms": time.time_ns() // 1_000_000,
    }


def tags_of(snapshot: Mapping[str, Any], stream: str) -> Sequence[str]:
    """Return the tags that are configured for a stream."""
    streams = snapshot.get("streams") or {}
    settings = streams.get(stream) or streams.get(stream.partition("+")[0]) or {}
    return settings.get("tags") or ()
