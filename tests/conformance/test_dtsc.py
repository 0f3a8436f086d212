"""DTSC between programs: what FFmpeg has demuxed comes back from a DTSC file as it was, and again from a format that FFmpeg reads."""

from __future__ import annotations

from pathlib import Path

import pytest

from mist.core.demuxer import PacketList, demux
from mist.core.dtsc import DtscMuxer
from mist.core.dtsc_index import IndexBuilder
from mist.core.flv import FlvMuxer
from mist.formats.dtsc import DtscDemuxer
from mist.formats.dtsh import built, parse_dtsh, serialize_dtsh
from tests.support.packets import compare, read_media
from tests.support.samples import encode, picture, picture_and_tone, read_sample, tone

MEDIA = {
    "B-frames": (picture_and_tone(seconds=4), "mp4"),
    "film": (picture(seconds=3, rate="24000/1001"), "matroska"),
    "HEVC": (picture(seconds=2, codec="libx265", options="-preset ultrafast -x265-params log-level=error"), "mp4"),
    "sound": (tone(seconds=5), "mp4"),
}
pytestmark = pytest.mark.tools("ffmpeg", "ffprobe")


@pytest.mark.parametrize("name", MEDIA)
def test_everything_comes_back_as_it_was(name: str) -> None:
    tracks, packets = read_sample(encode(*MEDIA[name]))
    tracks = [info.changed(track_id=number + 1) for number, info in enumerate(tracks)]
    for exact in (True, False):
        muxer = DtscMuxer(tracks, live=False, exact=exact)
        data = muxer.header(packets[0].dts_us)
        for one in packets:
            muxer.write(one)
        data += muxer.take_output()
        demuxer = DtscDemuxer()
        found = demux(demuxer, data)
        assert [info.init_data for info in demuxer.tracks] == [info.init_data for info in tracks]
        assert [(one.track, one.payload, one.keyframe) for one in found] == [
            (one.track, one.payload, one.keyframe) for one in packets
        ]
        tolerance_us = 0 if exact else 500
        for source, got in zip(packets, found, strict=True):
            assert abs(got.dts_us - source.dts_us) <= tolerance_us or source.dts_us < 0
            assert abs(got.pts_us - source.pts_us) <= tolerance_us or source.pts_us < 0


def test_ffmpeg_reads_what_went_through(tmp_path: Path) -> None:
    """FLV to DTSC to FLV: FFmpeg finds the same in both."""
    source = tmp_path / "source.flv"
    source.write_bytes(encode(picture_and_tone(seconds=4), "flv"))
    tracks, packets = read_sample(source.read_bytes())
    muxer = DtscMuxer(tracks, live=False)
    data = muxer.header()
    for one in packets:
        muxer.write(one)
    demuxer = DtscDemuxer()
    found = demux(demuxer, data + muxer.take_output())
    writer = FlvMuxer(demuxer.tracks)
    result = tmp_path / "result.flv"
    out = bytearray(writer.header())
    for one in found:
        writer.write(one)
    result.write_bytes(bytes(out) + writer.take_output())
    compare(read_media(source), read_media(result), tolerance_us=0)


def test_seeking_by_the_index() -> None:
    """Every key's position in the index leads to that keyframe."""
    tracks, packets = read_sample(encode(picture_and_tone(seconds=4, gop=10)))
    muxer = DtscMuxer(tracks, live=False)
    data = muxer.header()
    for one in packets:
        muxer.write(one)
    data += muxer.take_output()
    demuxer = DtscDemuxer()
    builder = IndexBuilder(demuxer)
    demuxer.attach(builder)
    demuxer.feed(data)
    index = parse_dtsh(serialize_dtsh(built(demuxer, builder)))
    keys = index.tracks[0].keys()
    assert len(keys.positions) == 10
    for position, time_ms in zip(keys.positions, keys.times_ms, strict=True):
        sink = PacketList()
        demuxer.attach(sink)
        demuxer.seek(time_ms * 1000, position)
        wanted = demuxer.want()
        assert wanted is not None and wanted[0] == position
        demuxer.feed(data[position:])
        first = sink.take()[0]
        assert (first.track, first.keyframe, first.dts_us) == (0, True, time_ms * 1000)
