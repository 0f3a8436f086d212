"""RTMP over TLS: a listener with a certificate takes publishers and players, and nobody who speaks plainly."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import StartProgram
from tests.support.media import BFRAMES, Sample
from tests.support.packets import compare, read_media
from tests.support.processes import wait_until
from tests.support.server import MistServer
from tests.support.tls_front import make_certificate
from tests.support.tools import find_tool

pytestmark = pytest.mark.tools("ffmpeg", "openssl")
SAMPLE = Sample("bframes", BFRAMES)
LONG = Sample("tls", BFRAMES, seconds=15)


@dataclass
class Secure:
    """A server whose only RTMP listener has a certificate; a stream on its HTTP port."""

    mist: MistServer
    url: str
    trusting: dict[str, str]  # the environment of programs that trust its certificate


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secure]:
    cert, key = make_certificate(tmp_path_factory.mktemp("tls"))
    streams = {name: {"source": "push://127.0.0.1", "inputtimeout": 4} for name in ("live", "old", "new")}
    with MistServer(streams=streams, protocols={"RTMP": {"cert": str(cert), "key": str(key)}}) as server:
        trusting = {**os.environ, "SSL_CERT_FILE": str(cert)}
        yield Secure(server, f"rtmps://localhost:{server.rtmp_port}", trusting)


@pytest.mark.parametrize(("tool", "stream"), [("ffmpeg", "old"), ("ffmpeg-new", "new")])
def test_ffmpeg_publishes_and_plays(
    secure: Secure, start_program: StartProgram, tmp_path: Path, tool: str, stream: str
) -> None:
    command = [find_tool(tool), "-v", "error", "-re", "-i", str(SAMPLE.flv()), "-c", "copy", "-f", "flv"]
    publisher = start_program([*command, f"{secure.url}/live/{stream}"], env=secure.trusting)
    secure.mist.wait_tracks(2, stream)
    target = tmp_path / "out.flv"
    player = start_program(
        [find_tool(tool), "-v", "warning", "-xerror", "-i", f"{secure.url}/play/{stream}", "-t", "4", "-c", "copy"]
        + [str(target)],
        env=secure.trusting,
    )
    assert player.wait(30) == 0 and player.output == ""
    compare(read_media(SAMPLE.flv()), read_media(target), tolerance_us=1000)
    assert publisher.wait(30) == 0, publisher.output


def test_an_upgrade_closes_neither_publisher_nor_player(
    secure: Secure, start_program: StartProgram, tmp_path: Path
) -> None:
    """The keys cannot go to another process: the former workers stay for those that they have."""
    ffmpeg = [find_tool("ffmpeg"), "-v", "error"]
    source = [*ffmpeg, "-re", "-i", str(LONG.flv()), "-c", "copy", "-f", "flv", f"{secure.url}/live/live"]
    publisher = start_program(source, env=secure.trusting)
    secure.mist.wait_tracks(2, "live")
    target = tmp_path / "out.flv"
    play = [*ffmpeg, "-xerror", "-i", f"{secure.url}/play/live", "-t", "9", "-c", "copy", str(target)]
    player = start_program(play, env=secure.trusting)
    wait_until(lambda: target.exists() and target.stat().st_size, 20, "media at the player")
    command = [sys.executable, "-m", "mist", "upgrade", "--instance", secure.mist.instance]
    subprocess.run(
        command, env={**os.environ, "MIST_RUNTIME_DIR": str(secure.mist.runtime_base)}, timeout=120, check=True
    )
    assert player.wait(30) == 0 and player.output == ""
    compare(read_media(LONG.flv()), read_media(target), tolerance_us=1000)
    assert publisher.wait(30) == 0, publisher.output


def closed_without_an_answer(port: int) -> None:
    """Say what a client of plain RTMP says first, and check that the server has nothing to say to that."""
    heard = b""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as plain, suppress(ConnectionResetError):
        plain.sendall(b"\x03" + bytes(1536))
        while part := plain.recv(4096):
            heard += part
    assert len(heard) < 100  # an alert of TLS at most


def test_who_speaks_plainly_gets_no_further(secure: Secure) -> None:
    closed_without_an_answer(secure.mist.rtmp_port)
    secure.mist.wait_log("TLS with")


def test_a_certificate_that_is_not_there_is_named(tmp_path: Path) -> None:
    with MistServer(protocols={"RTMP": {"cert": str(tmp_path / "none.pem")}}) as server:
        closed_without_an_answer(server.rtmp_port)
        server.wait_log("none.pem is not possible")
        assert server.get("/")
