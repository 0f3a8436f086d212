"""How a process whose parent is gone goes on under the next one.

A child whose channel has closed connects to the spawner's socket and hands it one end of a new pair of sockets, a descriptor of its
own process and a note of what it has. The spawner takes the child itself, or passes all that to the guardian that the child
names. The parent's first word on the new channel is "adopted"; "unknown" says that nobody wants the child. It is the same for
parents that were killed, that were replaced by others, and that run newer code.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from mist.errors import TransportError
from mist.runtime.build import running_build
from mist.runtime.channel import Channel, Loop, Message, close_all, pair, write_message
from mist.runtime.instance import Instance
from mist.runtime.spawner_link import connect

log = logging.getLogger(__name__)

# A process looks for a new parent this long, and for nothing of it sooner than that.
REJOIN_SECONDS = float(os.environ.get("MIST_REJOIN_SECONDS", "20"))
RETRY_SECONDS = 0.05

# What a child shows of itself: a JSON-able note, and descriptors that stay its own.
Show = Callable[[], tuple[Message, Sequence[int]]]


class Rejoining:
    """One search for a new parent, from the moment it is made until one of the callbacks is called.

    to: key of the guardian, "" for the spawner itself. name: the child's own key, "" if it has none. joined: given the new channel,
    which is to be attached. failed: told why.
    """

    def __init__(
        self,
        instance: Instance,
        loop: Loop,
        to: str,
        name: str,
        show: Show,
        joined: Callable[[Channel], None],
        failed: Callable[[str], None],
    ) -> None:
        self._instance = instance
        self._loop = loop
        self._to = to
        self._name = name
        self._show = show
        self._joined = joined
        self._failed = failed
        self._until = time.monotonic() + REJOIN_SECONDS
        self._channel: Channel | None = None
        self._try()

    def _try(self) -> None:
        ours, theirs = pair()
        own_pidfd = os.pidfd_open(os.getpid())
        note, fds = self._show()
        message = {
            "do": "rejoin",
            "to": self._to,
            "name": self._name,
            "pid": os.getpid(),
            "build": running_build(),
            "note": note,
        }
        try:
            with connect(self._instance) as visitor:
                visitor.setblocking(False)
                write_message(visitor, message, [theirs.fileno(), own_pidfd, *fds])
        except (TransportError, OSError):
            ours.close()
            self._again()
            return
        finally:
            theirs.close()
            os.close(own_pidfd)
        self._channel = Channel(ours)
        self._channel.attach(self._loop, self._answered, self._again)

    def _again(self) -> None:
        if not self._instance.lock_file.exists():
            self._failed("the server has ended")
        elif time.monotonic() > self._until:
            self._failed(f"no main process in {REJOIN_SECONDS:g} s")
        else:
            # Until a new main process listens there is nothing to wait on but time.
            self._loop.call_later(RETRY_SECONDS, self._try)

    def _answered(self, message: Message, fds: list[int]) -> None:
        close_all(fds)
        assert self._channel is not None
        channel = self._channel
        if message.get("do") == "adopted":
            self._joined(channel)
        else:
            channel.close()
            self._failed(str(message.get("text", "")) or "nobody needs this process any more")


def refuse(fds: list[int], text: str = "") -> None:
    """Tell a child that nobody wants it, and let go of its descriptors."""
    with socket.socket(fileno=fds[0]) as sock, suppress(OSError):
        write_message(sock, {"do": "unknown", "text": text})
    close_all(fds[1:])
