"""DTSC pushed to another server: plain, over TLS, with passwords that are right and wrong."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.integration.conftest import Publish
from tests.support.media import BFRAMES, Sample
from tests.support.packets import compare, read_media
from tests.support.ports import free_port
from tests.support.processes import wait_until
from tests.support.server import MistServer
from tests.support.tls_front import make_certificate
from tests.support.tools import Running

SAMPLE = Sample("pushed", BFRAMES)
MILLISECOND_US = 1001
SENDS = {
    "live": {"source": "push://127.0.0.1", "inputtimeout": 2}
}  # ends before the other server gives up waiting for more
TAKES = {
    "live": {"source": "push://127.0.0.1", "inputtimeout": 4},
    "copy": {"source": "push://127.0.0.1", "inputtimeout": 4},
    "whole": {"source": "push://127.0.0.1", "inputtimeout": 12},
    "locked": {"source": "push://@secret word", "inputtimeout": 4},
}


@dataclass
class Pair:
    """A server that pushes, and one that takes pushes by DTSC, plain and over TLS. cert: of the latter."""

    here: MistServer
    there: MistServer
    port: int
    tls_port: int


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    folder = tmp_path_factory.mktemp("tls")
    cert, key = make_certificate(folder)
    port, tls_port = free_port(), free_port()
    plain = {"port": port, "interface": "127.0.0.1"}
    with ExitStack() as stack:
        there = MistServer(streams=TAKES, protocols={"DTSC": plain})
        there.config["config"]["protocols"].append(
            {"connector": "DTSC", "port": tls_port, "interface": "127.0.0.1", "cert": str(cert), "key": str(key)}
        )
        stack.enter_context(there)
        here = stack.enter_context(MistServer(streams=SENDS, env={"SSL_CERT_FILE": str(cert)}))
        yield Pair(here, there, port, tls_port)


def end(pair: Pair, publisher: Running, *copies: str) -> None:
    """Stop the publisher, and wait until its stream and those of the other server are over: the next one gets streams of its own."""
    publisher.stop()
    for server, stream in ((pair.here, "live"), *((pair.there, copy) for copy in copies)):
        wait_until(lambda: stream not in (server.api({"active_streams": 1})["active_streams"] or []), 30, "its end")  # noqa: B023


def start_push(server: MistServer, target: str) -> None:
    server.api({"push_start": {"stream": "live", "target": target}})


@pytest.mark.tools("openssl")
@pytest.mark.parametrize("scheme", ["dtsc", "dtscs"])
def test_what_is_published_arrives(pair: Pair, publish: Publish, tmp_path: Path, scheme: str) -> None:
    """With what `sync` holds back until the stream ends here, on a machine that is busy, too: the other server waits for it."""
    publisher = publish(pair.here, SAMPLE)
    pair.here.wait_tracks(2)
    host = f"127.0.0.1:{pair.port}" if scheme == "dtsc" else f"localhost:{pair.tls_port}"
    start_push(pair.here, f"{scheme}://{host}/whole?sync=1")
    pair.there.wait_tracks(2, "whole")
    copied = str(tmp_path / "copied.mkv")
    pair.there.api({"push_start": {"stream": "whole", "target": f"{copied}?start=1"}})
    publisher.wait(30)
    wait_until(lambda: not pair.there.api({"push_list": 1})["push_list"], 60, "the end of the recording")
    missing = compare(read_media(SAMPLE.flv()), read_media(copied), tolerance_us=MILLISECOND_US)
    assert {after for _, after in missing.values()} == {0}


@pytest.mark.tools("openssl")
@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("dtsc://wrong@127.0.0.1:{port}/locked", "The password is wrong"),
        ("dtsc://127.0.0.1:{port}/nothing", "There is no stream nothing"),
        ("dtscs://127.0.0.1:{tls_port}/copy", "the server's certificate is not to be trusted: IP address mismatch"),
        ("dtsc://127.0.0.1:1/copy", "cannot be reached"),
    ],
)
def test_a_refused_push_says_why(pair: Pair, publish: Publish, target: str, says: str) -> None:
    publisher = publish(pair.here, SAMPLE, loop=True)
    pair.here.wait_tracks(2)
    before = len(pair.here.log)
    start_push(pair.here, target.format(port=pair.port, tls_port=pair.tls_port))
    pair.here.wait_log(says, 30, start=before)
    end(pair, publisher)


def test_stopped_pushes_leave_no_descriptor(pair: Pair, publish: Publish) -> None:
    """In a process that goes on, because another push does."""
    publisher = publish(pair.here, SAMPLE, loop=True)
    pair.here.wait_tracks(2)
    start_push(pair.here, f"dtsc://127.0.0.1:{pair.port}/copy")
    pair.there.wait_tracks(2, "copy")
    [stays] = pair.here.api({"push_list": 1})["push_list"]
    counts = []
    for number in range(4):  # each to a name of its own, as one that ends is not free at once
        name = f"live+{number}"
        start_push(pair.here, f"dtsc://127.0.0.1:{pair.port}/{name}")
        pair.there.wait_tracks(2, name)
        pushes = pair.here.api({"push_list": 1})["push_list"]
        pair.here.api({"push_stop": [row[0] for row in pushes if row[0] != stays[0]]})
        wait_until(lambda: len(pair.here.api({"push_list": 1})["push_list"]) == 1, 30, "the end of the push")
        counts.append(_descriptors(pair.here))
    assert counts[-1] == counts[0], counts
    end(pair, publisher, "copy", "live+3")


def _descriptors(server: MistServer) -> int:
    """Return how many descriptors the processes of pushes have open."""
    return sum(len(os.listdir(f"/proc/{one.pid}/fd")) for one in server.processes_titled("mist: push"))


@pytest.mark.parametrize("place", ["user:{}@127.0.0.1:{}/locked", "{}@127.0.0.1:{}/locked"])
def test_the_password_stands_in_the_address(pair: Pair, publish: Publish, place: str) -> None:
    publisher = publish(pair.here, SAMPLE, loop=True)
    pair.here.wait_tracks(2)
    start_push(pair.here, "dtsc://" + place.format("secret%20word", pair.port))
    pair.there.wait_tracks(2, "locked")
    pair.here.api({"push_stop": "live"})
    wait_until(lambda: not pair.here.api({"push_list": 1})["push_list"], 30, "the end of the push")
    end(pair, publisher, "locked")
