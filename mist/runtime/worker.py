"""What every process with an event loop has in common: uvloop, its guardian's channel, configuration, records, its end."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any

import setproctitle
import uvloop

from mist.core.checkpoint import CheckpointTable, Record, create_checkpoints
from mist.core.time_slice import ask_for_slice
from mist.errors import MistError, is_out_of_memory
from mist.runtime import log as runtime_log
from mist.runtime.channel import Channel, Message, close_all
from mist.runtime.leftovers import records_name
from mist.runtime.program import Server
from mist.runtime.rejoin import Rejoining
from mist.runtime.snapshot import Snapshot, SnapshotReader
from mist.runtime.trigger_link import TriggerLink

log = logging.getLogger(__name__)

TITLE_SECONDS = 1.0
# Of processes that frames go through: work of a tenth of a millisecond that must not wait for the turn of what runs. The least there is.
SLICE_US = 100
NO_MEMORY_STATUS = 1
IGNORED_SIGNALS = (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGPIPE)


class Worker:
    """A forked process with an event loop. Subclasses say what arrives from the guardian and how to end."""

    program = "worker"
    key = ""  # of a process that is known to the main process by a name of its own
    forwards_media = False

    def __init__(self, server: Server, channel: Channel, stream: str = "") -> None:
        runtime_log.become(self.program, stream)
        self.server = server
        self.instance = server.instance.name
        self.channel = channel
        self.loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
        asyncio.set_event_loop(self.loop)
        self.loop.set_exception_handler(self._loop_error)
        self.log = logging.getLogger(f"mist.{self.program.replace(' ', '.')}")
        self.exit_status = 0
        self.homeless = False
        self._records_name = records_name(server.instance, os.getpid())
        self._records: CheckpointTable | None = None
        self._triggers: TriggerLink | None = None
        self._snapshot_reader = SnapshotReader(server.instance)
        self._snapshot: Snapshot | None = None
        self._title = ""
        self._title_planned = False
        self._stopping = False

    # -- what is given to connections and inputs -------------------------------------------------------------------

    @property
    def snapshot(self) -> Snapshot:
        """The configuration, read again at its first use after a change, even if this process was not told of that yet."""
        if self._snapshot is None:
            self._snapshot = self._snapshot_reader.newest()
            # What arrived together may share it: whoever knows of a change arrives later than that.
            self.loop.call_soon(self._forget_snapshot)
        return self._snapshot

    def _forget_snapshot(self) -> None:
        self._snapshot = None

    @property
    def triggers(self) -> TriggerLink:
        """What fires triggers, made when it is first needed."""
        if self._triggers is None:
            self._triggers = TriggerLink(self.server.instance, self.loop, lambda: self.snapshot)
        return self._triggers

    def open_record(self, connector: str, host: str) -> Record:
        """Return a record in this process's table of connections. Raises LimitExceededError."""
        return self.make_records().claim(connector, host)

    def make_records(self) -> CheckpointTable:
        """Return this process's table of connections, which is made at the first call."""
        if self._records is None:
            self._records = create_checkpoints(self._records_name)
        return self._records

    # -- life ------------------------------------------------------------------------------------------------------

    def run(self) -> int:
        """Run until `finish`; returns the exit status."""
        for number in IGNORED_SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        self.loop.add_signal_handler(signal.SIGTERM, self.stop, "CLEAN_SIGNAL")
        self.channel.attach(self.loop, self._received, self.guardian_gone)
        self.show_title()
        if self.forwards_media:
            ask_for_slice(SLICE_US)
        self.started()
        try:
            self.loop.run_forever()
        finally:
            self.ended()
            self.channel.send({"event": "ends", "status": self.exit_status})
            self.channel.close()
        return self.exit_status

    def started(self) -> None:
        """Begin to work: the loop is about to run."""

    def ended(self) -> None:
        """Let go of what others would find: the loop has stopped."""

    def finish(self, status: int = 0) -> None:
        """End this process."""
        self.exit_status = self.exit_status or status
        self.loop.stop()

    def stop(self, reason: str) -> None:
        """End what this process does, then the process."""
        if not self._stopping:
            self._stopping = True
            self.stopping(reason)

    def stopping(self, reason: str) -> None:
        """End what this process does and call `finish`."""
        self.finish()

    # -- a guardian that is gone -----------------------------------------------------------------------------------

    def guardian_gone(self) -> None:
        """Look for the next guardian of the same name, and go on meanwhile."""
        if not self._stopping:
            Rejoining(
                self.server.instance, self.loop, self.channel.peer, self.key, self.show, self._adopted, self.deserted
            )

    def show(self) -> tuple[Message, Sequence[int]]:
        """Return what the next guardian must know of this process: a note, and descriptors that stay this one's."""
        return {}, ()

    def _adopted(self, channel: Channel) -> None:
        channel.peer = self.channel.peer
        self.channel = channel
        channel.attach(self.loop, self._received, self.guardian_gone)
        log.info("Goes on under another guardian")
        self.rejoined()

    def rejoined(self) -> None:
        """Tell the next guardian, on the channel, what its note did not hold."""

    def deserted(self, why: str) -> None:
        """Go on without a guardian: serve what there is to its end, take nothing new."""
        log.warning("Serving to the end without a guardian: %s", why)
        self.homeless = True

    # -- messages --------------------------------------------------------------------------------------------------

    def _received(self, message: Message, fds: list[int]) -> None:
        what = message.get("do")
        if what == "config":
            close_all(fds)
            self._snapshot = None
            self.reconfigured()
        elif what == "stop":
            close_all(fds)
            self.stop(str(message.get("reason", "CLEAN_CONTROLLER_REQ")))
        elif what == "ping":
            close_all(fds)
            self.channel.send({"pong": message["ping"]})
        else:
            self.command(message, fds)

    def command(self, message: Message, fds: list[int]) -> None:
        """Do what the guardian asks; the descriptors are this method's."""
        close_all(fds)

    def reconfigured(self) -> None:
        """Apply a changed configuration."""

    # -- showing what goes on --------------------------------------------------------------------------------------

    def title(self) -> str:
        """Return what `ps` shows of this process after "mist: "."""
        return self.program

    def show_title(self) -> None:
        """Set the process title, at most once a second."""
        if self._title_planned:
            return
        self._title_planned = True
        self._set_title()
        self.loop.call_later(TITLE_SECONDS, self._title_again)

    def _set_title(self) -> None:
        title = self.title()
        if title != self._title:
            self._title = title
            setproctitle.setproctitle(f"mist: {title}")

    def _title_again(self) -> None:
        self._title_planned = False
        self._set_title()

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run a coroutine as a task of this process."""
        return self.loop.create_task(work)

    def _loop_error(self, loop: asyncio.AbstractEventLoop, context: Mapping[str, Any]) -> None:
        error = context.get("exception")
        if is_out_of_memory(error):
            log.error("This process has no memory left, so it ends for another one to go on: %s", error)
            logging.shutdown()
            os._exit(NO_MEMORY_STATUS)
        if isinstance(error, (MistError, ConnectionError)):
            log.info("%s: %s", context.get("message", ""), error)
        else:
            log.error("%s", context.get("message", "the event loop failed"), exc_info=error)
