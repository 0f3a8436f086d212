"""The end of a push: how it went, and telling the handlers of triggers, once.

A push's process says how it went and leaves the same in the push's note; its guardian tells the handlers. For a process that was
killed the guardian says it, with the figures that were heard last. Whoever comes after either finds in the note what was said, and one
that tells it again is not heard: see `once` of `TriggerLink.notify`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any, Final

from mist.runtime.channel import Loop, Message
from mist.runtime.program import Server
from mist.runtime.snapshot import SnapshotReader
from mist.runtime.trigger_link import TriggerLink
from mist.stream.push import PushPlan, runs_program
from mist.stream.push_note import PushNote

log = logging.getLogger(__name__)

NOTHING_SENT_MS: Final = 2**64 - 1
_RESULT: Final = "result"


def make_result(
    number: int, reason: str, text: str, *, status: Mapping[str, Any], began: float, first_ms: int | None
) -> Message:
    """Return how a push ended. status: of `PushStatus.document`. began: unix time. first_ms: time stamp, None when nothing was sent."""
    return {
        "event": "result",
        "number": number,
        "reason": reason,
        "text": text,
        "status": status,
        "began": began,
        "ended": time.time(),
        "first_ms": NOTHING_SENT_MS if first_ms is None else first_ms,
    }


def first_sent_ms(status: Mapping[str, Any]) -> int | None:
    """Return the first time stamp that was sent, as figures of a push tell it; None when nothing was."""
    return status["mediatime"] - status["media_tx"] if status.get("media_tx") else None


def former_result(note: PushNote) -> Message | None:
    """Return what a process before this one said at the push's end, if it did: nobody may have heard it."""
    try:
        left = note.read()
    except (OSError, ValueError):
        return None
    return None if left is None else left[0].get(_RESULT)


def leave_result(note: PushNote, result: Message) -> None:
    """Leave how a push ended for the process that comes after. A note that cannot be written is one that nobody finds."""
    try:
        note.write({_RESULT: result}, _RESULT, dict)
    except OSError as error:
        log.warning("If this process dies now, the end of push %d may be told twice: %s", result["number"], error)


def end_lines(plan: PushPlan, result: Message) -> list[str]:
    """Return the payload of OUTPUT_END and RECORDING_END."""
    status, began, ended = result["status"], result["began"], result["ended"]
    return [
        plan.stream,
        status.get("current_target") or plan.target,
        plan.connector,
        str(status.get("bytes", 0)),
        str(int(ended - began)),
        str(int(began)),
        str(int(ended)),
        str(status.get("media_tx", 0)),
        str(result["first_ms"]),
        str(status.get("mediatime", 0)),
        result["reason"],
        result["text"],
        "",
    ]


class PushEnds:
    """Tells the handlers of triggers of pushes that have ended."""

    def __init__(self, server: Server, loop: Loop) -> None:
        self._triggers = TriggerLink(server.instance, loop, SnapshotReader(server.instance).newest)

    def tell(self, plan: PushPlan, result: Message, *, shared: bool) -> None:
        """Tell of an end. shared: as of `PushRole.shares`; what does not share a process and is no program is a recording."""
        if "ended" not in result:
            return  # of a process of a former version, which has told them itself
        lines, once = end_lines(plan, result), f"push {plan.number} {result['ended']}"
        if result["status"].get("current_target") or not (shared or runs_program(plan.target)):
            self._triggers.notify("RECORDING_END", plan.stream, lines, once=once)
        self._triggers.notify("OUTPUT_END", plan.stream, lines, once=once)
