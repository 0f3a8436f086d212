"""Taking connections from a listening socket without spinning while there is no descriptor for them."""

from __future__ import annotations

import errno
import logging
import socket
from collections.abc import Callable
from typing import Any, Final

from mist.runtime.channel import Loop

log = logging.getLogger(__name__)

PAUSE_SECONDS: Final = 0.5  # no event tells of a descriptor that is free again
SHORTAGES: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class Acceptor:
    """Gives the connections that come to a socket, which is not closed here, to `taken`, from the beginning until `close`.

    A connection that cannot be taken for want of descriptors or memory waits in the kernel, and meanwhile nobody looks at the socket,
    which stays readable all the time.
    """

    def __init__(self, door: socket.socket, loop: Loop, taken: Callable[[socket.socket], None]) -> None:
        door.setblocking(False)
        self._door = door
        self._loop = loop
        self._taken = taken
        self._pause: Any = None
        self._listen()

    def _listen(self) -> None:
        self._pause = None
        self._loop.add_reader(self._door.fileno(), self._accept)

    def _accept(self) -> None:
        try:
            sock, _ = self._door.accept()
        except OSError as error:
            if error.errno in SHORTAGES:
                log.error("Visitors of %s have to wait: %s", self._door.getsockname(), error.strerror)
                self._loop.remove_reader(self._door.fileno())
                self._pause = self._loop.call_later(PAUSE_SECONDS, self._listen)
            return
        self._taken(sock)

    def close(self) -> None:
        """Take nobody any more."""
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        else:
            self._loop.remove_reader(self._door.fileno())
