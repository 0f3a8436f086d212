"""The guardian of one stream: its names in shared memory, its input process, its publisher."""

from __future__ import annotations

import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from mist.core.checkpoint import create_checkpoints
from mist.core.doorbell import Ringer
from mist.core.shm import monotonic_now_us, unlink_segment
from mist.runtime.backoff import Backoff
from mist.runtime.channel import Channel, Message, close_all, pair, read_memory_file
from mist.runtime.guardian import Guardian, clear_doorbell
from mist.runtime.instance import Instance
from mist.runtime.process import describe_exit, fork, send_signal
from mist.runtime.program import Program
from mist.stream.publisher import Limits, create_stream, remove_stream
from mist.stream.state import StreamStatus

log = logging.getLogger(__name__)

DEFAULT_INPUT_TIMEOUT_S: Final = 30
STALE_PUBLISHER_US: Final = 2_000_000  # a publisher that is silent for this long may be replaced
VIEWER_CHECK_S: Final = 5.0


class StreamGuardian(Guardian):
    """Keeps a stream alive between its publishers and through the death of its input."""

    def __init__(
        self,
        instance: Instance,
        program: Program,
        channel_socket: socket.socket,
        stream: str,
        source: str,
        input_name: str,
        settings: Mapping[str, Any],
        limits: Limits,
        run_input: Callable[..., int],
    ) -> None:
        super().__init__(instance, program, channel_socket, f"guardian of {stream}")
        self.stream = stream
        self.source = source
        self.pull = input_name  # "" for a stream that is published to
        self.settings = settings
        self.limits = limits
        self.run_input = run_input
        self.timeout_s = float(settings.get("inputtimeout") or DEFAULT_INPUT_TIMEOUT_S)
        self.child = 0
        self.child_started = 0.0
        self.child_channel: Channel | None = None
        self.next_publish: tuple[Message, list[int]] | None = None
        self.backoff = Backoff()
        self.generation = 0
        self.viewers_seen = time.monotonic()
        self.ringer = Ringer(str(instance.bells))
        self.checkpoints = f"mist.{instance.name}.#{os.getpid()}-0"
        create_checkpoints(self.checkpoints, 8)
        self.table = create_stream(instance.name, stream, limits, source)
        self.table.set_pids(guardian=os.getpid())
        if self.pull:
            self._start_input(self.pull, {}, -1, b"")
            self.reactor.call_later(VIEWER_CHECK_S, self._check_viewers)
        else:
            self._wait_for_publisher()

    # -- publishers ------------------------------------------------------------------------------------------------

    def on_message(self, message: Message, fds: list[int]) -> None:
        if message.get("do") == "publish" and len(fds) == 2:
            self._publish(message, fds)
            return
        close_all(fds)
        if message.get("do") == "settings":
            self.settings = message["settings"]

    def _publish(self, message: Message, fds: list[int]) -> None:
        """Give a publisher's socket to a new input, or say why not."""
        if self.child:
            silent_us = monotonic_now_us() - self.table.clocks[4]
            if self.settings.get("publisher") != "takeover" and silent_us < STALE_PUBLISHER_US:
                close_all(fds)
                self._answer(message, error=f"The stream {self.stream} has a publisher already", reason="Busy")
                return
            if self.next_publish is not None:
                close_all(self.next_publish[1])
                self._answer(self.next_publish[0], error="Another publisher came after you", reason="Busy")
            self.next_publish = (message, fds)
            log.info("a new publisher takes over")
            send_signal(self.child, signal.SIGTERM)
            return
        self._accept_publisher(message, fds)

    def _accept_publisher(self, message: Message, fds: list[int]) -> None:
        sock, state_file = fds
        state = read_memory_file(state_file)
        os.close(state_file)
        request = message["request"]
        self._start_input(str(request["input"]), request, sock, state)
        os.close(sock)
        self._answer(message)

    def _answer(self, message: Message, **outcome: str) -> None:
        self.channel.send({"done": message["number"], **outcome})

    # -- the input -------------------------------------------------------------------------------------------------

    def _start_input(self, name: str, request: Mapping[str, Any], sock: int, state: bytes) -> None:
        ours, theirs = pair()
        self.child_started = time.monotonic()
        self.generation += 1
        keep = [theirs.fileno()] + ([sock] if sock >= 0 else [])
        self.child = fork(
            lambda: self.run_input(
                self.instance, self.program, name, self.stream, self.source, self.settings, self.limits,
                theirs, self.checkpoints, request, sock, state,
            ),
            keep=keep,
            abandon=self.reactor.abandon,
        )  # fmt: skip
        theirs.close()
        self.child_channel = Channel(ours)
        self.child_channel.attach(self.reactor, self._from_input, lambda: None)

    def _from_input(self, message: Message, fds: list[int]) -> None:
        close_all(fds)
        if message.get("ready"):
            self.channel.send({"state": "ready"})

    def on_child_end(self, pid: int, status: int) -> None:
        if pid != self.child:
            return
        self.child = 0
        if self.child_channel is not None:
            self.child_channel.close()
        self.table.release_process(pid)
        clear_doorbell(self.instance, pid)
        if self.stopping:
            self._finish()
            return
        if status:
            log.warning("the input of %s %s", self.stream, describe_exit(status))
        if self.next_publish is not None:
            message, fds = self.next_publish
            self.next_publish = None
            self._accept_publisher(message, fds)
        elif self.pull and status:
            self.table.set_status(StreamStatus.WAIT)
            self.table.ring(self.ringer)
            delay = self.backoff.next_delay(time.monotonic() - self.child_started)
            self.reactor.call_later(delay, lambda: self._start_input(self.pull, {}, -1, b""))
        elif self.pull:
            self.stop()
        else:
            self._wait_for_publisher()

    def _wait_for_publisher(self) -> None:
        """Keep the stream for its viewers until the next publisher comes, or the time is up."""
        self.table.set_status(StreamStatus.WAIT)
        self.table.ring(self.ringer)
        generation = self.generation

        def expire() -> None:
            if self.generation == generation and not self.child:
                log.info("no publisher for %g s: the stream %s ends", self.timeout_s, self.stream)
                self.stop()

        self.reactor.call_later(self.timeout_s, expire)

    def _check_viewers(self) -> None:
        """End a stream that was started for viewers when the last one left long enough ago."""
        now = time.monotonic()
        if self.table.subscribers() or self.settings.get("always_on"):
            self.viewers_seen = now
        if now - self.viewers_seen >= self.timeout_s:
            log.info("nobody watched %s for %g s", self.stream, self.timeout_s)
            self.stop()
            return
        self.reactor.call_later(VIEWER_CHECK_S, self._check_viewers)

    # -- the end ---------------------------------------------------------------------------------------------------

    def stop(self) -> None:
        if self.stopping:
            return
        self.stopping = True
        self.table.set_status(StreamStatus.SHUTDOWN)
        self.table.ring(self.ringer)
        if self.child:
            send_signal(self.child, signal.SIGTERM)
        else:
            self._finish()

    def _finish(self) -> None:
        remove_stream(self.instance.name, self.stream, self.ringer)
        unlink_segment(self.checkpoints)
        self.reactor.stop()
