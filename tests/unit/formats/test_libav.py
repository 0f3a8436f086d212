"""Files that libav reads: the same packets as from ffmpeg's own look at them, anywhere in the file, from pieces of any size."""

from __future__ import annotations

import gc
import sys
import threading
from pathlib import Path

import pytest

from mist.core.demuxer import PacketList, demux
from mist.errors import MistError, RemoteProtocolError, UnsupportedError
from mist.formats.containers import by_first_bytes
from mist.formats.libav import LibavDemuxer
from tests.support.packets import read_media
from tests.support.tools import find_tool, run

pytestmark = pytest.mark.tools("ffmpeg")

CASES = {
    "avi": ("avi", ("-c:v", "libx264", "-bf", "0", "-g", "12", "-c:a", "mp3"), ["H264", "MP3"]),
    "mpg": ("mpg", ("-c:v", "mpeg2video", "-g", "12", "-c:a", "mp2"), ["MPEG2", "MP2"]),
    "b-mpg": ("mpg", ("-c:v", "mpeg2video", "-bf", "2", "-g", "15", "-c:a", "mp2"), ["MPEG2", "MP2"]),
    "wma": ("asf", ("-c:v", "mjpeg", "-pix_fmt", "yuvj420p", "-c:a", "aac"), ["JPEG", "AAC"]),
    "pcm": ("avi", ("-c:v", "mjpeg", "-pix_fmt", "yuvj420p", "-c:a", "pcm_s16le"), ["JPEG", "PCM"]),
}


@pytest.fixture(scope="module", params=CASES)
def film(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    suffix, arguments, names = CASES[request.param]
    path = tmp_path_factory.mktemp("libav") / f"film.{suffix}"
    inputs = [
        "-f",
        "lavfi",
        "-i",
        "testsrc2=size=128x96:rate=25",
        "-f",
        "lavfi",
        "-i",
        "sine=frequency=440:sample_rate=48000",
    ]
    run([find_tool("ffmpeg"), "-v", "error", *inputs, "-t", "4", *arguments, str(path)], 60)
    return path, names


def opened(data: bytes) -> LibavDemuxer:
    demuxer = LibavDemuxer()
    demuxer.size = len(data)
    return demuxer


def test_packets_are_those_of_the_file(film: tuple[Path, list[str]]) -> None:
    path, names = film
    data = path.read_bytes()
    found = by_first_bytes(data)
    assert found is not None and found.name == "libav"
    demuxer = opened(data)
    packets = demux(demuxer, data)
    assert sorted(info.codec for info in demuxer.tracks) == sorted(names)
    seen = read_media(path)
    for number, info in enumerate(demuxer.tracks):
        times = [packet.dts_us for packet in packets if packet.track == number]
        assert times == sorted(times) and len(times) == len(seen.of(info.type))


def test_reading_goes_on_elsewhere(film: tuple[Path, list[str]]) -> None:
    path, _ = film
    data = path.read_bytes()
    whole = demux(opened(data), data)
    demuxer = opened(data)
    packets = PacketList()
    demuxer.attach(packets)
    for target in (2_500_000, 0, 3_500_000):
        while not demuxer.ready and (wanted := demuxer.want()) is not None:
            demuxer.feed(data[wanted[0] : wanted[0] + wanted[1]])
        demuxer.seek(target, 0)
        packets.take()
        while (wanted := demuxer.want()) is not None:
            demuxer.feed(data[wanted[0] : wanted[0] + wanted[1]])
        found = packets.take()
        rest = [packet for packet in whole if packet.dts_us >= target]
        keys = {(packet.track, packet.dts_us, packet.payload) for packet in found}
        assert rest and all((packet.track, packet.dts_us, packet.payload) in keys for packet in rest)


def test_who_goes_back_to_the_beginning_gets_all(film: tuple[Path, list[str]]) -> None:
    path, _ = film
    data = path.read_bytes()
    whole = demux(opened(data), data)
    demuxer, packets = opened(data), PacketList()
    demuxer.attach(packets)
    for _ in range(3):
        while not demuxer.ready and (wanted := demuxer.want()) is not None:
            demuxer.feed(data[wanted[0] : wanted[0] + wanted[1]])
        demuxer.seek(whole[0].dts_us, 0)
        packets.take()
        while (wanted := demuxer.want()) is not None:
            demuxer.feed(data[wanted[0] : wanted[0] + wanted[1]])
        assert packets.take() == whole


def test_cut_files_end_or_say_why(film: tuple[Path, list[str]]) -> None:
    data = film[0].read_bytes()
    for cut in (0, 1, 100, 1000, 5000, len(data) // 2, len(data) - 1):
        try:
            demux(opened(data[:cut]), data[:cut])
        except MistError as error:
            assert isinstance(error, RemoteProtocolError)


def test_nothing_is_left_behind(film: tuple[Path, list[str]]) -> None:
    demuxer: LibavDemuxer | None = LibavDemuxer()
    assert demuxer is not None
    demuxer.want()
    thread = demuxer._source._thread
    assert thread in threading.enumerate()
    del demuxer
    gc.collect()
    thread.join(10)
    assert not thread.is_alive()


def test_without_pyav_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(UnsupportedError, match=r"pip install 'mist\[libav\]'"):
        LibavDemuxer()
