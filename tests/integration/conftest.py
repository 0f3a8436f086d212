"""A whole server, and publishers for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.conftest import StartProgram
from tests.support.footage import Footage
from tests.support.live import Sender
from tests.support.media import CACHE, Sample
from tests.support.server import MistServer
from tests.support.tools import Running
from tests.support.trigger_service import Service

MakeServer = Callable[..., MistServer]
Publish = Callable[..., Running]
SendTo = Callable[..., Sender]


@pytest.fixture(autouse=True, scope="session")
def fresh_indexes() -> None:
    """Remove the indexes that servers of an earlier run kept beside the samples: they may be of other code."""
    for index in CACHE.glob("*.dtsh"):
        index.unlink(missing_ok=True)


@pytest.fixture
def make_server() -> Iterator[MakeServer]:
    """Start servers with the given configuration (arguments of MistServer); each must end well and leave nothing."""
    with ExitStack() as stack:

        def make(**options: object) -> MistServer:
            return stack.enter_context(MistServer(**options))  # type: ignore[arg-type]

        yield make


@pytest.fixture
def server(make_server: MakeServer) -> MistServer:
    """Start a server with the stream `live`, that anyone here may publish to, and the wildcard streams below it."""
    return make_server()


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    """Start an HTTP service that is told of triggers."""
    service = Service()
    yield service
    service.close()


@pytest.fixture
def publish(start_program: StartProgram) -> Publish:
    """Start ffmpeg sending a sample to a stream of a server in real time."""

    def start(server: MistServer, sample: Sample | Footage, stream: str = "live", *, loop: bool = False) -> Running:
        return start_program(sample.publish_command(server.publish_url(stream), loop=loop))

    return start


@pytest.fixture
def send_to(make_server: MakeServer) -> Iterator[SendTo]:
    """Connect publishers of numbered packets; what is still open at the end is closed, before the servers are stopped."""
    with ExitStack() as stack:

        def start(server: MistServer, stream: str = "live") -> Sender:
            sender = Sender(server, stream)
            stack.callback(sender.close)
            return sender

        yield start
