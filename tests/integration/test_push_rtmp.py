"""RTMP and RTMPS pushes to nginx, and audio that takes the place of the stream's own."""

from __future__ import annotations

import itertools
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.integration.conftest import Publish
from tests.support.media import BFRAMES, Sample
from tests.support.nginx import Nginx, rtmp_module
from tests.support.packets import compare, read_media
from tests.support.processes import wait_until
from tests.support.server import MistServer
from tests.support.tls_front import TlsFront, make_certificate
from tests.support.tools import find_tool

pytestmark = [
    pytest.mark.tools("nginx", "ffmpeg", "openssl"),
    pytest.mark.skipif(rtmp_module() is None, reason="nginx has no RTMP module"),
]
SAMPLE = Sample("pushed", BFRAMES)
MILLISECOND_US = 1001


@dataclass
class Sink:
    """nginx, which records what it is sent; TLS in front of it with a certificate that is trusted, and with one that is not."""

    nginx: Nginx
    folder: Path
    trusted: TlsFront
    untrusted: TlsFront

    def recorded(self, name: str) -> Path:
        """Return the recording of a stream, once it is over."""
        path = self.folder / f"{name}.flv"
        size = -1

        def whole() -> bool:
            nonlocal size
            before, size = size, path.stat().st_size if path.exists() else -1
            return size > 0 and size == before and not self._busy(path)

        wait_until(whole, 20, f"the recording of {name}")
        return path

    def _busy(self, path: Path) -> bool:
        return subprocess.run(["fuser", "-s", str(path)], check=False).returncode == 0


@pytest.fixture(scope="module")
def sink(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sink]:
    folder = tmp_path_factory.mktemp("nginx")
    recordings = folder / "recordings"
    recordings.mkdir()
    good, bad = make_certificate(folder), make_certificate(folder, "elsewhere")
    with (
        Nginx(folder, rtmp=f"record all; record_path {recordings};") as nginx,
        TlsFront(nginx.rtmp_port, *good) as trusted,
        TlsFront(nginx.rtmp_port, *bad) as untrusted,
    ):
        yield Sink(nginx, recordings, trusted, untrusted)


@pytest.fixture(scope="module")
def server(sink: Sink) -> Iterator[MistServer]:
    trust = str(sink.folder.parent / "localhost.pem")
    with MistServer(
        streams={"live": {"source": "push://127.0.0.1", "inputtimeout": 1}}, env={"SSL_CERT_FILE": trust}
    ) as started:
        yield started


def push(server: MistServer, publish: Publish, target: str) -> None:
    """Publish the sample once, and push it until it ends."""
    publisher = publish(server, SAMPLE)
    server.wait_tracks(2)
    server.api({"push_start": ["live", target]})
    publisher.wait(30)
    wait_until(lambda: not server.api({"push_list": 1})["push_list"], 20, "the end of the push")
    wait_until(lambda: "live" not in (server.api({"active_streams": 1})["active_streams"] or []), 15, "its end")


def test_nginx_takes_rtmp(server: MistServer, publish: Publish, sink: Sink) -> None:
    push(server, publish, sink.nginx.url("plain") + "?start=1")
    missing = compare(read_media(SAMPLE.flv()), read_media(sink.recorded("plain")), tolerance_us=MILLISECOND_US)
    assert {after for _, after in missing.values()} == {0}


def test_nginx_takes_rtmps(server: MistServer, publish: Publish, sink: Sink) -> None:
    push(server, publish, f"rtmps://localhost:{sink.trusted.port}/live/secure?start=1")
    missing = compare(read_media(SAMPLE.flv()), read_media(sink.recorded("secure")), tolerance_us=MILLISECOND_US)
    assert {after for _, after in missing.values()} == {0}


def test_a_certificate_that_nobody_signed_is_refused(server: MistServer, publish: Publish, sink: Sink) -> None:
    publisher = publish(server, SAMPLE, loop=True)
    server.wait_tracks(2)
    server.api({"push_start": ["live", f"rtmps://localhost:{sink.untrusted.port}/live/never"]})
    server.wait_log("TLS failed: the server's certificate is not to be trusted: self-signed certificate", 10)
    server.api({"push_start": ["live", f"rtmps://127.0.0.1:{sink.trusted.port}/live/never"]})
    server.wait_log("is not to be trusted: IP address mismatch", 10)
    server.api({"push_start": ["live", f"rtmps://127.0.0.1:{sink.untrusted.port}/live/unchecked?verify=0"]})
    wait_until(lambda: (sink.folder / "unchecked.flv").exists(), 10, "the push that does not look at certificates")
    publisher.stop()
    assert not (sink.folder / "never.flv").exists()


@pytest.mark.parametrize("kind", ["silence", "file"])
def test_other_audio(server: MistServer, publish: Publish, sink: Sink, tmp_path: Path, kind: str) -> None:
    """Silence, and a file that is repeated, last as long as the picture."""
    item = "silence"
    if kind == "file":
        item = str(tmp_path / "tone.aac")
        tone = ["-f", "lavfi", "-i", "sine=440:sample_rate=32000:duration=0.7", "-c:a", "aac", "-ac", "1", item]
        subprocess.run([find_tool("ffmpeg"), "-v", "error", *tone], check=True)
    push(server, publish, sink.nginx.url(kind) + f"?audio={item}&start=1")
    recorded = sink.recorded(kind)
    media = read_media(recorded)
    assert sorted(media.codecs.values()) == ["aac", "h264"]
    video, audio = media.of("video"), media.of("audio")
    assert abs(audio[-1].dts_us - video[-1].dts_us) < 100_000
    assert abs(audio[0].dts_us - video[0].dts_us) < 100_000
    gaps = [after.dts_us - before.dts_us for before, after in itertools.pairwise(audio)]
    assert max(gaps) < 40_000
    loudest = loudness(recorded)
    assert loudest < -80 if kind == "silence" else loudest > -40


def loudness(path: Path) -> float:
    """Return the highest level of a file's audio, in decibels, after decoding it without an error."""
    command = [find_tool("ffmpeg"), "-xerror", "-i", str(path), "-vn", "-af", "volumedetect", "-f", "null", "-"]
    found = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(re.findall(r"max_volume: (\S+) dB", found.stderr)[0])


def test_audio_that_is_not_there_ends_the_push(server: MistServer, publish: Publish, sink: Sink) -> None:
    publisher = publish(server, SAMPLE, loop=True)
    server.wait_tracks(2)
    server.api({"push_start": ["live", sink.nginx.url("nothing") + "?audio=/no/such.aac"]})
    server.wait_log("the audio /no/such.aac: /no/such.aac: No such file", 10)
    publisher.stop()
