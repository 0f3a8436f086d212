"""Indexes of files in the .dtsh layout: byte for byte, and refused when stale or damaged."""

from __future__ import annotations

from array import array

import pytest

from mist.core.demuxer import demux
from mist.core.dtsc import DtscMuxer, packet_bytes
from mist.core.dtsc_index import IndexBuilder
from mist.core.dtsc_objects import parse_object, serialize_object
from mist.core.packet import Packet
from mist.errors import RemoteProtocolError, TruncatedError, UnsupportedError
from mist.formats.dtsc import DtscDemuxer
from mist.formats.dtsh import Fragments, Index, IndexTrack, Keys, Parts, built, parse_dtsh, serialize_dtsh
from mist.formats.tracks import AAC, AUDIO, H264, VIDEO, TrackInfo
from tests.support.dtsc_peer import write_value

PICTURE = TrackInfo(VIDEO, H264, b"avcC", track_id=256, width=640, height=360, frame_rate_mhz=25000)
SOUND = TrackInfo(AUDIO, AAC, b"\x11\x90", 257, "deu", sample_rate_hz=48000, channels=2, sample_bits=16)

# The members of a header with an index, in the order in which the original writes them.
MEMBERS = {
    "vod": 1,
    "version": 4,
    "unixzero": 1_700_000_000_000,
    "inputLocalVars": b'{"a":1}',
    "tracks": {
        "video_H264_640x360_25fps_0": {
            "fragments": bytes.fromhex("00000000 01 00000001 00000003"),
            "keys": bytes.fromhex("0000000000000030 000000 00000000 0001 0000000000000064"),
            "keysizes": bytes.fromhex("00000059"),
            "parts": bytes.fromhex("000003 000028 000028"),
            "trackid": 256, "missed_frags": 2, "firstms": 100, "lastms": 100, "bps": 10, "maxbps": 20,
            "init": b"avcC", "codec": b"H264", "type": b"video", "width": 640, "height": 360, "fpks": 25000, "efpks": 24990,
        },
        "audio_AAC_2ch_48000hz_deu_1": {
            "fragments": b"", "keys": b"", "keysizes": b"", "parts": b"",
            "trackid": 257, "firstms": 0, "lastms": 0, "bps": 0, "maxbps": 0, "init": b"\x11\x90", "codec": b"AAC",
            "lang": b"deu", "type": b"audio", "rate": 48000, "size": 16, "channels": 2,
        },
    },
}  # fmt: skip


def _file(**changes: object) -> bytes:
    return packet_bytes(b"DTSC", write_value({**MEMBERS, **changes}))


def test_golden_both_ways() -> None:
    data = _file()
    index = parse_dtsh(data)
    assert [track.info for track in index.tracks] == [PICTURE, SOUND]
    assert (index.unix_zero_ms, index.input_variables, index.live) == (1_700_000_000_000, '{"a":1}', False)
    first = index.tracks[0]
    assert first.keys() == Keys(array("Q", [48]), array("I", [0]), array("I", [0]), array("I", [1]), array("Q", [100]))
    assert first.fragments() == Fragments(*(array("I", [n]) for n in (0, 1, 0, 3)))
    assert first.parts() == Parts(array("I", [3]), array("I", [40]), array("i", [40]))
    assert list(first.key_sizes()) == [0x59]
    assert (first.missed_fragments, first.bytes_per_second, first.max_bytes_per_second) == (2, 10, 20)
    assert serialize_dtsh(index) == data


def test_size_is_what_the_layout_says() -> None:
    """34 bytes, 14 for "vod", 19 for "unixzero", 21 and the text for the input's variables, and so on for each track."""
    data = serialize_dtsh(parse_dtsh(_file()))
    names = [len(name) for name in MEMBERS["tracks"]]  # type: ignore[attr-defined]
    track = 124 + 16 + 11 + 15 + 12
    video = track + 4 + 4 + 5 + names[0] + 64 + 13 + 25 + 4 + 9 + 23
    audio = track + 2 + 3 + 5 + names[1] + 11 + 3 + 49
    assert len(data) - 8 == 34 + 14 + 19 + 21 + 7 + video + audio


def test_records_from_arrays() -> None:
    track = IndexTrack(PICTURE)
    keys = Keys(array("Q", [0]), array("I", [0]), array("I", [0]), array("I", [1]), array("Q", [0]))
    parts = Parts(array("I", [3]), array("I", [40]), array("i", [0]))
    track.set_records(Fragments(*(array("I", [n]) for n in (0, 1, 0, 3))), keys, array("I", [54]), parts)
    assert parse_dtsh(serialize_dtsh(Index([track]))).tracks[0].keys() == keys


def test_built_from_a_file() -> None:
    muxer = DtscMuxer([PICTURE, SOUND], live=False)
    data = muxer.header()
    for number in range(100):
        muxer.write(Packet(0, number * 40_000, 0, number % 25 == 0, bytes(50)))
    data += muxer.take_output()
    demuxer = DtscDemuxer()
    builder = IndexBuilder(demuxer)
    demuxer.attach(builder)
    demuxer.feed(data)
    index = built(demuxer, builder)
    assert [track.info.codec for track in index.tracks] == [H264], "a track without packets is left out"
    assert index.tracks[0].measured_frame_rate_mhz == 25_000
    again = parse_dtsh(serialize_dtsh(index))
    assert again.tracks[0].keys() == index.tracks[0].keys()
    # A key's position is where reading goes on.
    position = again.tracks[0].keys().positions[2]
    assert demux(_at(demuxer, position), data)[0].dts_us == 2_000_000


def _at(demuxer: DtscDemuxer, position: int) -> DtscDemuxer:
    demuxer.seek(0, position)
    return demuxer


def test_another_version_is_refused() -> None:
    for version in (3, 5, b"4", None):
        with pytest.raises(UnsupportedError):
            parse_dtsh(_file(version=version))


def test_a_track_without_all_records_has_none() -> None:
    members = parse_object(_file(), 8)
    del members["tracks"]["video_H264_640x360_25fps_0"]["keysizes"]
    index = parse_dtsh(packet_bytes(b"DTSC", serialize_object(members)))
    assert index.tracks[0].part_records == b"" and len(index.tracks[0].keys().numbers) == 0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("keys", b"short"),
        ("keysizes", bytes(8)),
        ("parts", b""),
        ("fragments", bytes(13 * 2) + b"x"),
        ("parts", bytes(10)),
    ],
)
def test_records_that_do_not_fit(name: str, value: bytes) -> None:
    members = parse_object(_file(), 8)
    members["tracks"]["video_H264_640x360_25fps_0"][name] = value
    with pytest.raises(RemoteProtocolError):
        parse_dtsh(packet_bytes(b"DTSC", serialize_object(members)))


def test_every_cut_is_noticed() -> None:
    data = _file()
    for size in range(len(data)):
        with pytest.raises((TruncatedError, RemoteProtocolError)):
            parse_dtsh(data[:size])


@pytest.mark.parametrize("tracks", [None, {"a": 1}, {str(n): {} for n in range(65)}])
def test_no_tracks_or_too_many(tracks: object) -> None:
    with pytest.raises(RemoteProtocolError):
        parse_dtsh(_file(tracks=tracks))
