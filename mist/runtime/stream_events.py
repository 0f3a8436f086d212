"""What the handlers of triggers are told of a stream by its guardian: how it ends, and inputs that were killed."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Final

from mist.runtime.guardian import Guardian
from mist.runtime.snapshot import Snapshot
from mist.runtime.stream_source import Source
from mist.runtime.trigger_link import TriggerLink
from mist.stream.visits import end_lines

BUFFER: Final = "Buffer"  # the input of a stream that is published to
# Machine words for signals that inputs die of; others have their own name.
REASONS: Final = {signal.SIGSEGV: "SEGFAULT"}
# What handlers of STREAM_UNLOAD are told; other reasons are said in their machine words.
_WORDS: Final = {
    "CLEAN_CONTROLLER_REQ": "controller request",
    "CLEAN_EOF": "end of the source",
    "CLEAN_INACTIVE": "nobody uses the stream",
    "CLEAN_SIGNAL": "the server stops",
    "READ_START_FAILURE": "the source could not be started",
    "TRIGGER": "refused by a handler",
}


class StreamEvents:
    """Fires the triggers of one stream. begun: a source was loaded, which the handlers allowed."""

    def __init__(
        self, guardian: Guardian, name: str, snapshot: Callable[[], Snapshot], *, pulled: bool, begun: bool
    ) -> None:
        self.begun = begun
        self.input_name = "" if pulled else BUFFER
        self._name = name
        self._snapshot = snapshot
        self._guardian = guardian
        self._told = False
        self._triggers = TriggerLink(guardian.instance, guardian.reactor, snapshot)

    def ask_unload(
        self, reason: str, idle: Callable[[], bool], end: Callable[[str], None], stay: Callable[[], None]
    ) -> None:
        """End the stream unless a handler wants it to stay. idle: whether it may still end when they have answered."""

        def decided(allowed: bool) -> None:
            if self._guardian.ending:
                return
            self._told = allowed and idle()
            if self._told:
                end(reason)
            else:
                stay()

        lines = [self._name, self.input_name, f"cancelable{_WORDS.get(reason, reason)}"]
        self._triggers.decide_then("STREAM_UNLOAD", self._name, lines, decided)

    def unloaded(self, reason: str, *, had_media: bool) -> None:
        """Tell that the stream is gone."""
        name = self._name
        if not self._snapshot()["config"].get("triggers"):
            return
        if had_media:
            self._triggers.notify("STREAM_BUFFER", name, [name, "EMPTY"])
            self._triggers.notify("LIVE_TRACK_LIST", name, [name, "", ""])
        if not self._told and self.begun:
            self._triggers.notify(
                "STREAM_UNLOAD", name, [name, self.input_name, f"uncancelable{_WORDS.get(reason, reason)}"]
            )

    def killed(self, source: Source, configured: str, status: int) -> None:
        """Tell of a process of an input that was killed by a signal. status: negative then, else the process has told itself."""
        if status >= 0 or self._guardian.ending:
            return
        number = signal.Signals(-status)
        word, text = REASONS.get(number, number.name), f"killed by {number.name}"
        connector = self.input_name if source.fd < 0 else str(source.start.request.get("input", ""))
        what = [self._name, source.start.source or configured, f"MistIn{connector}", str(source.pid)]
        self._triggers.notify("INPUT_ABORT", self._name, [*what, word, text])

    def publisher_lost(self, source: Source) -> None:
        """Tell the end of a publisher's connection that no process goes on with."""
        visit = source.start.request.get("visit")
        if visit and source.start.admitted:
            self._triggers.notify("CONN_CLOSE", self._name, [str(one) for one in visit])
            text = "its input was killed again and again"
            lines = end_lines(self._name, "", str(visit[2]), 0, source.start.began, "INTERNAL_ERROR", text)
            self._triggers.notify("OUTPUT_END", self._name, lines)
