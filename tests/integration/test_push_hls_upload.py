"""HLS sent to a server that takes each file with its name in a parameter of the URL, as YouTube does."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from mist.formats.m3u8 import MediaPlaylist, parse_playlist
from tests.support.media import BFRAMES, Sample
from tests.support.packets import compare, read_media
from tests.support.processes import wait_until
from tests.support.put_sink import PutSink
from tests.support.server import MistServer
from tests.support.tls_front import TlsFront, make_certificate

pytestmark = pytest.mark.tools("ffmpeg", "openssl")
FILM = Sample("pushed", BFRAMES)


@pytest.mark.parametrize("tail", ["", "&backup=1"])
def test_segments_are_named_in_a_parameter(tmp_path: Path, tail: str) -> None:
    cert, key = make_certificate(tmp_path)
    with (
        PutSink() as sink,
        TlsFront(sink.port, cert, key) as front,
        MistServer(streams={"film": {"source": str(FILM.flv())}}, env={"SSL_CERT_FILE": str(cert)}) as server,
    ):
        server.api(
            {"push_start": ["film", f"https://localhost:{front.port}/http_upload_hls?cid=a-b&copy=0&file={tail}"]}
        )
        wait_until(lambda: len(sink.files) > 10, 20, "the segments")
        wait_until(lambda: not server.api({"push_list": 1})["push_list"], 20, "the end of the push")
        files = dict(sink.files)
    assert {urlsplit(path).path for path in files} == {"/http_upload_hls"}
    assert all(path.startswith("/http_upload_hls?cid=a-b&copy=0&file=") and path.endswith(tail) for path in files)
    named = {parse_qs(urlsplit(path).query)["file"][0]: data for path, data in files.items()}
    assert sorted(named) == sorted([*(f"{number}.ts" for number in range(10)), "index.m3u8"])
    listed = parse_playlist(named["index.m3u8"])
    assert isinstance(listed, MediaPlaylist)
    assert [one.uri for one in listed.segments] == ["7.ts", "8.ts", "9.ts"]
    assert listed.media_sequence == 7
    joined = tmp_path / "joined.ts"
    joined.write_bytes(b"".join(named[f"{number}.ts"] for number in range(10)))
    missing = compare(read_media(FILM.flv()), read_media(joined), tolerance_us=1001)
    assert set(missing.values()) == {(0, 0)}
