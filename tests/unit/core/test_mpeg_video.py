"""MPEG video streams: pictures, fields, order, times."""

from __future__ import annotations

import pytest

from mist.core import mpeg_video as engine
from mist.core.demuxer import PacketList, demux
from mist.core.mpeg_video import MpegVideoMuxer
from mist.core.packet import Packet
from mist.errors import LimitExceededError, LocalProtocolError, RemoteProtocolError, UnsupportedError
from mist.formats.tracks import VIDEO, TrackInfo
from mist.formats.video_files import MpegVideoDemuxer
from tests.support.elementary import GROUP, feed_pieces, mpeg_picture, mpeg_sequence, positions

FRAME_US = 40_000
# I B B P B B in decoding order, with their places in presentation.
PICTURES = [(2, 1), (0, 3), (1, 3), (5, 2), (3, 3), (4, 3)]
GROUP_OF_PICTURES = [
    mpeg_sequence() + GROUP + mpeg_picture(*PICTURES[0]),
    *(mpeg_picture(*picture) for picture in PICTURES[1:]),
]
STREAM = b"".join(GROUP_OF_PICTURES * 3)


def times(packets: list[Packet]) -> list[tuple[int, int]]:
    return [(packet.dts_us // FRAME_US, packet.pts_us // FRAME_US) for packet in packets]


def test_pictures_order_and_times() -> None:
    demuxer = MpegVideoDemuxer()
    packets = demux(demuxer, b"garbage" + mpeg_picture(0, 1) + STREAM + b"\0\0\1\xb7")
    assert [packet.payload for packet in packets[:-1]] == GROUP_OF_PICTURES * 2 + GROUP_OF_PICTURES[:-1]
    assert packets[-1].payload == GROUP_OF_PICTURES[-1] + b"\0\0\1\xb7"
    assert times(packets) == [(n, n // 6 * 6 + PICTURES[n % 6][0] + 1) for n in range(18)]
    assert [packet.keyframe for packet in packets] == [n % 6 == 0 for n in range(18)]
    assert demuxer.tracks == [TrackInfo(VIDEO, "MPEG2", track_id=1, width=320, height=176, frame_rate_mhz=25000)]


def test_every_split_gives_the_same_packets() -> None:
    packets = demux(MpegVideoDemuxer(), STREAM)
    for step in (1, 2, 3, 4, 5, 7, 13, 50, 100, 777):
        assert feed_pieces(MpegVideoDemuxer(), STREAM, step) == packets, step


def test_fields() -> None:
    frames = [mpeg_picture(0, 1, structure=1) + mpeg_picture(0, 2, structure=2)]
    frames += [mpeg_picture(n, 2, structure=1) + mpeg_picture(n, 2, structure=2) for n in range(1, 4)]
    packets = demux(MpegVideoDemuxer(), mpeg_sequence() + GROUP + b"".join(frames))
    assert [packet.payload for packet in packets] == [mpeg_sequence() + GROUP + frames[0], *frames[1:]]
    assert times(packets) == [(n, n + 1) for n in range(4)]


def test_without_groups_references_wrap() -> None:
    head = mpeg_sequence(low_delay=True)
    data = head + b"".join(mpeg_picture(n % 1024, 2 if n else 1) for n in range(1500))
    assert times(demux(MpegVideoDemuxer(), data)) == [(n, n) for n in range(1500)]


def test_a_change_of_size_and_rate() -> None:
    data = STREAM + (mpeg_sequence(640, 352, 6) + STREAM[len(mpeg_sequence()) :])
    demuxer = MpegVideoDemuxer()
    packets = PacketList()
    demuxer.attach(packets)
    seen: list[tuple[int, int, int]] = []
    demuxer.on_tracks = lambda: seen.append(
        (len(packets.take()), demuxer.tracks[0].width, demuxer.tracks[0].frame_rate_mhz)
    )
    demuxer.feed(data)
    demuxer.feed(b"")
    assert seen[0] == (18, 640, 50000)


def test_nothing_in_it_and_bounds() -> None:
    for data in (b"", b"x", bytes(100), mpeg_picture(0, 1), mpeg_sequence(), b"\0\0\1"):
        with pytest.raises(RemoteProtocolError):
            demux(MpegVideoDemuxer(), data)
    with pytest.raises(RemoteProtocolError):
        demux(MpegVideoDemuxer(), b"\xff" * (engine.MAX_GARBAGE_BYTES + (1 << 19)))
    with pytest.raises(LimitExceededError):
        demux(MpegVideoDemuxer(), STREAM + b"\0\0\1\xb2" + b"\xff" * (engine.MAX_UNIT_BYTES + (1 << 19)))


def test_seek_to_every_keyframe() -> None:
    demuxer = MpegVideoDemuxer()
    packets = demux(MpegVideoDemuxer(), STREAM)
    for number, position in enumerate(positions(demuxer, STREAM)):
        if packets[number].keyframe:
            demuxer.seek(packets[number].dts_us, position)
            assert feed_pieces(demuxer, STREAM, 100) == packets[number:]


def test_muxer() -> None:
    demuxer = MpegVideoDemuxer()
    packets = demux(demuxer, STREAM)
    muxer = MpegVideoMuxer(demuxer.tracks)
    for packet in packets:
        muxer.write(packet)
    assert muxer.take_output() == STREAM
    assert muxer.set_tracks(demuxer.tracks)
    with pytest.raises(LocalProtocolError):
        muxer.write(Packet(1, 0, 0, True, b""))
    with pytest.raises(UnsupportedError):
        MpegVideoMuxer([TrackInfo(VIDEO, "H264")])
