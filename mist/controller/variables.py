"""Custom variables: keeps the values up to date that commands and URLs give."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from mist.errors import MistError

if TYPE_CHECKING:
    from mist.controller.state import Controller

MAX_WAIT_SECONDS: Final = 3600.0
MAX_AT_ONCE: Final = 500  # a source that hangs must not keep others waiting


class Variables:
    """Runs what is due; no two runs of one variable overlap, and nobody waits for any."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self._running: dict[str, asyncio.Task[None]] = {}
        self._ran: dict[str, tuple[str, float]] = {}  # target and monotonic second of the last run

    def check(self) -> None:
        """Start the runs that are due."""
        settings: Mapping[str, Mapping[str, Any]] = self._controller.store.document.get("variables") or {}
        for gone in [name for name in self._ran if name not in settings]:
            del self._ran[gone]
        now = self._controller.monotonic()
        for name, entry in settings.items():
            if len(self._running) >= MAX_AT_ONCE:
                return
            if name not in self._running and self._is_due(name, entry, now):
                target = str(entry["target"])
                self._ran[name] = (target, now)
                task = self._controller.services.loop.create_task(self._run(name, target, _wait_seconds(entry)))
                self._running[name] = task
                task.add_done_callback(partial(self._ended, name))

    def _ended(self, name: str, task: asyncio.Task[None]) -> None:
        self._running.pop(name, None)

    def _is_due(self, name: str, entry: Mapping[str, Any], now: float) -> bool:
        target = str(entry.get("target") or "")
        before, at = self._ran.get(name, ("", 0.0))
        interval = float(entry.get("interval") or 0)
        return bool(target) and (target != before or (interval > 0 and now - at >= interval))

    async def _run(self, name: str, target: str, seconds: float) -> None:
        controller = self._controller
        value: str | None = None
        try:
            value = await controller.services.triggers.variable(name, target, seconds)
        except MistError as error:
            controller.log.warning("The variable %s keeps its value: %s", name, error)
        entry = (controller.store.document.get("variables") or {}).get(name)
        if entry is None or entry.get("target") != target:
            return  # it was removed or changed meanwhile
        told = {**entry, "lastunix": int(controller.clock())}
        if value is not None:
            told["value"] = value
        controller.store.set_variable(name, told, controller.monotonic())

    async def close(self) -> None:
        """Stop what runs."""
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _wait_seconds(entry: Mapping[str, Any]) -> float:
    wait = float(entry.get("waitTime") or entry.get("interval") or 0)
    return min(max(wait, 1.0), MAX_WAIT_SECONDS)
