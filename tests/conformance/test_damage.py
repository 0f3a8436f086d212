"""Files that are damaged in their middle: what cannot be read is told with its byte, and all behind it is played."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from mist.cli import main
from mist.core.packet import Packet
from mist.core.track_survey import TrackSurvey
from mist.formats.containers import by_first_bytes
from mist.formats.tracks import TrackInfo
from tests.support.tools import find_tool, run

pytestmark = pytest.mark.tools("ffmpeg")

PICTURE = ("-f", "lavfi", "-i", "testsrc2=size=160x120:rate=25")
SOUND = ("-f", "lavfi", "-i", "sine=frequency=440:sample_rate=48000")
X264 = ("-c:v", "libx264", "-preset", "veryfast", "-bf", "2", "-g", "25", "-b:v", "400k", "-c:a", "aac")
FRAGMENTED = ("-movflags", "frag_keyframe+empty_moov")
FILES = {
    "film.ts": X264,
    "film.mkv": X264,
    "film.flv": X264,
    "fragments.mp4": (*X264, *FRAGMENTED),
    "based.mp4": (*X264, "-movflags", "frag_keyframe+empty_moov+default_base_moof"),
    "film.ogg": ("-c:v", "libtheora", "-b:v", "400k", "-c:a", "libvorbis"),
}
LOST_BYTES = 3001
NOISE = bytes((place * 7919 >> 3) & 255 for place in range(LOST_BYTES))
DAMAGE: dict[str, Callable[[bytes, int], bytes]] = {
    "cut": lambda data, at: data[:at] + data[at + LOST_BYTES :],
    "zeros": lambda data, at: data[:at] + bytes(LOST_BYTES) + data[at + LOST_BYTES :],
    "noise": lambda data, at: data[:at] + NOISE + data[at:],
}
MOST_LOST_BYTES = 120_000  # two clusters or fragments of a second


@pytest.fixture(scope="module", params=FILES)
def film(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("damage") / request.param
    run([find_tool("ffmpeg"), "-v", "error", *PICTURE, *SOUND, "-t", "12", *FILES[request.param], str(path)], 60)
    return path


def info(path: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    assert main(["info", "--json", str(path)]) == 0
    document: dict[str, object] = json.loads(capsys.readouterr().out)
    return document


def test_what_is_whole_has_no_damage(film: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert info(film, capsys)["damage"] == [] and "nothing is wrong" in table(film, capsys)


def table(path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["info", str(path)]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_told_and_passed_over(
    film: Path, kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = film.read_bytes()
    half = len(data) // 2
    bent = tmp_path / film.name
    bent.write_bytes(DAMAGE[kind](data, half))
    before, after = info(film, capsys), info(bent, capsys)
    places = after["damage"]
    assert isinstance(places, list) and places and after["damage_count"] == len(places)
    assert all(abs(place["offset"] - half) < MOST_LOST_BYTES and place["what"] for place in places)
    assert f"! byte {places[0]['offset']}" in table(bent, capsys)
    tracks = zip(before["tracks"], after["tracks"], strict=True)  # type: ignore[call-overload]
    for whole, rest in tracks:
        assert abs(rest["last_us"] - whole["last_us"]) < 1000  # sound is counted from another stamp
        assert rest["packets"] >= whole["packets"] * 0.8


def test_zeros_and_lies_in_coded_media_are_seen() -> None:
    make = by_first_bytes(b"FLV\x01\x05\0\0\0\x09")
    assert make is not None and make.make_demuxer is not None
    demuxer = make.make_demuxer()
    demuxer.tracks[:] = [TrackInfo("video", "H264"), TrackInfo("audio", "AAC"), TrackInfo("audio", "MP3")]
    survey = TrackSurvey(demuxer)
    picture = b"\x00\x00\x00\x0a\x65\x88" + b"abcdefgh"
    for track, payload in (
        (0, picture),
        (0, picture + bytes(4)),
        (0, b"\x00\x00\x00\x0a\x65\x88ab" + bytes(2) + b"\x03\x00ef"),
        (0, b"\x00\x00\x00\x0a\x65\x88abcd" + bytes(4)),
        (1, b"\x21" + bytes(20)),
        (2, b"\xff\xfb\x90\x64" + bytes(20)),
    ):
        survey.write(Packet(track, 40_000, 0, True, payload))
    assert survey.damage_count == 0
    for track, payload in (
        (0, b"\x00\x00\x00\x0a\x65\x88ab" + bytes(3) + b"def"),
        (0, picture[:-1]),
        (0, bytes(50)),
        (0, b"\x00\x00\x00\x0a\xe5\x88abcdefgh"),
        (1, bytes(50)),
        (2, bytes(50)),
    ):
        survey.write(Packet(track, 80_000, 0, True, payload))
    assert survey.damage_count == len(survey.damage) == 6
