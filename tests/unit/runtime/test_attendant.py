"""Processes that are started when somebody first knocks."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path
from typing import Any, cast

from mist.runtime.attendant import Attendant
from mist.runtime.family import Child, Family
from mist.runtime.reactor import Reactor
from mist.runtime.succession import Succession


class FullFamily:
    """Starts nobody for want of descriptors, at first."""

    def __init__(self, reactor: Reactor) -> None:
        self.reactor = reactor
        self.failures = 0

    def start(self, *_: object, **__: object) -> Child:
        if not self.failures:
            self.failures += 1
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        self.reactor.stop()
        return cast(Child, type("Started", (), {"pid": 12}))


def test_one_that_could_not_be_started_is_started_again(tmp_path: Path) -> None:
    reactor = Reactor()
    family = FullFamily(reactor)
    made: Any = lambda fd: lambda channel: 0  # noqa: E731
    succession = Succession(reactor, lambda: None)
    attendant = Attendant("It", tmp_path / "door", made, cast(Family, family), reactor, lambda: None, succession)
    attendant.open()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as visitor:
        visitor.connect(str(tmp_path / "door"))
        reactor.call_later(10, reactor.stop)
        reactor.run()
    assert (family.failures, attendant.pid) == (1, 12)
    attendant.close()
    reactor.abandon()
