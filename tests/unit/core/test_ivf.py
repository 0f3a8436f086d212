"""IVF files."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from mist.core.demuxer import demux
from mist.core.ivf import MAX_FRAME_BYTES, IvfMuxer
from mist.core.packet import Packet
from mist.errors import LimitExceededError, LocalProtocolError, RemoteProtocolError, UnsupportedError
from mist.formats.tracks import AUDIO, VIDEO, TrackInfo
from mist.formats.video_files import IvfDemuxer
from tests.support.elementary import feed_pieces, positions

CORPUS = Path(__file__).parents[2] / "data/ivf/corpus"
FILES = {path.stem: path.read_bytes() for path in sorted(CORPUS.glob("*.ivf"))}


@pytest.mark.parametrize("name", FILES)
def test_files(name: str) -> None:
    data = FILES[name]
    demuxer = IvfDemuxer()
    packets = demux(demuxer, data)
    [track] = demuxer.tracks
    assert (track.type, track.codec.lower(), track.width, track.height) == (VIDEO, name, 64, 64)
    assert [packet.dts_us for packet in packets] == [n * 40_000 for n in range(len(packets))]
    assert packets[0].keyframe
    assert not all(packet.keyframe for packet in packets)
    assert all(not packet.payload.startswith(b"\x12\0") for packet in packets)
    for step in (1, 2, 11, 12, 13, 100, 1000):
        assert feed_pieces(IvfDemuxer(), data, step) == packets, step
    for number, position in enumerate(positions(IvfDemuxer(), data)):
        demuxer.seek(packets[number].dts_us, position)
        assert feed_pieces(demuxer, data, 100) == packets[number:]


@pytest.mark.parametrize("name", FILES)
def test_what_was_read_is_written_again(name: str) -> None:
    demuxer = IvfDemuxer()
    packets = demux(demuxer, FILES[name])
    muxer = IvfMuxer(demuxer.tracks)
    for packet in packets:
        muxer.write(packet)
    output = bytearray(muxer.header() + muxer.take_output())
    muxer.finish()
    again = IvfDemuxer()
    assert demux(again, bytes(output)) == packets
    assert again.tracks == demuxer.tracks
    for position, patch in muxer.patches():
        output[position : position + len(patch)] = patch
    assert struct.unpack_from("<I", output, 24) == (len(packets),)
    other = IvfMuxer(demuxer.tracks)
    other.restore(muxer.state())
    assert other.patches() == muxer.patches()


def test_bad_files() -> None:
    good = FILES["vp8"]
    frame = struct.pack("<IQ", 4, 0) + bytes(4)
    for data in (b"", good[:31], good[:32], good[:43], b"DKIX" + good[4:], good[:8] + b"H264" + good[12:], bytes(100)):
        with pytest.raises(RemoteProtocolError):
            demux(IvfDemuxer(), data)
    with pytest.raises(LimitExceededError):
        demux(IvfDemuxer(), good[:32] + struct.pack("<IQ", MAX_FRAME_BYTES + 1, 0))
    with pytest.raises(LimitExceededError):
        demux(IvfDemuxer(), good[:32] + struct.pack("<IQ", 4, 1 << 63) + bytes(4))
    with pytest.raises(LimitExceededError):
        demux(IvfDemuxer(), good[:16] + b"\xff" * 8 + good[24:])
    # A clock of 0 Hz is 30 pictures a second; a frame that is cut is left out.
    packets = demux(
        IvfDemuxer(), good[:16] + bytes(8) + good[24:32] + frame + struct.pack("<IQ", 4, 3) + bytes(4) + frame[:-1]
    )
    assert [packet.dts_us for packet in packets] == [0, 100_000]


def test_muxer_refuses() -> None:
    for tracks in ([], [TrackInfo(AUDIO, "AAC")], [TrackInfo(VIDEO, "VP8")] * 2):
        with pytest.raises(UnsupportedError):
            IvfMuxer(tracks)
    muxer = IvfMuxer([TrackInfo(VIDEO, "VP8")])
    assert muxer.set_tracks([TrackInfo(VIDEO, "VP8", width=640)])
    assert not muxer.set_tracks([TrackInfo(VIDEO, "VP9")])
    with pytest.raises(LocalProtocolError):
        muxer.write(Packet(1, 0, 0, True, b""))
