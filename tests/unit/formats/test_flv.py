"""The FLV demuxer, against our own muxer."""

from __future__ import annotations

import pytest

from mist.core.flv import FlvMuxer
from mist.core.packet import Packet
from mist.errors import TruncatedError
from mist.formats.flv import FlvDemuxer
from mist.formats.rtmp.media import Oddity, TrackChanged, TrackFound
from mist.formats.tracks import AAC, AUDIO, HEVC, MP3, OPUS, VIDEO, TrackInfo

WRAP_US = (1 << 32) * 1000
STEREO = TrackInfo(AUDIO, AAC, b"\x11\x90", track_id=1, sample_rate_hz=48000, channels=2, sample_bits=16)
OPUS_TRACK = TrackInfo(
    AUDIO,
    OPUS,
    b"OpusHead\x01\x02\x38\x01\x80\xbb\x00\x00\x00\x00\x00",
    track_id=2,
    sample_rate_hz=48000,
    channels=2,
    sample_bits=16,
)


def _stream(start_us: int = 0) -> tuple[bytes, list[Packet]]:
    packets = [Packet(number % 2, start_us + number * 10_000, 0, True, bytes([number]) * 20) for number in range(20)]
    muxer = FlvMuxer([STEREO, OPUS_TRACK])
    data = muxer.header(start_us)
    for packet in packets:
        muxer.write(packet)
    return data + muxer.take_output(), packets


def test_what_goes_in_comes_out() -> None:
    data, packets = _stream()
    demuxer = FlvDemuxer()
    events = demuxer.feed(data) + demuxer.end_of_input()
    assert events == [TrackFound(0, STEREO), TrackFound(1, OPUS_TRACK), *packets]


def test_every_split() -> None:
    data, packets = _stream()
    for cut in range(len(data)):
        demuxer = FlvDemuxer()
        assert (demuxer.feed(data[:cut]) + demuxer.feed(data[cut:]))[2:] == packets


@pytest.mark.parametrize("start_us", [WRAP_US - 50_000, -50_000])
def test_times_go_on_after_32_bits(start_us: int) -> None:
    data, packets = _stream(start_us)
    times = [event.dts_us for event in FlvDemuxer().feed(data) if isinstance(event, Packet)]
    assert [time - times[0] for time in times] == [packet.dts_us - start_us for packet in packets]
    assert times[0] == -50_000


def test_changed_setup() -> None:
    muxer = FlvMuxer([STEREO])
    data = muxer.header(0)
    muxer.set_tracks([STEREO.changed(init_data=b"\x12\x10")])
    muxer.write(Packet(0, 0, 0, True, b"a"))
    events = FlvDemuxer().feed(data + muxer.take_output())
    assert isinstance(events[1], TrackChanged) and events[1].info.sample_rate_hz == 44100


def test_script_data_that_cannot_be_read() -> None:
    body = b"\x02\x00\x0aonMetaData\x08\xff"
    tag = b"\x12" + len(body).to_bytes(3, "big") + bytes(7) + body + (11 + len(body)).to_bytes(4, "big")
    (event,) = FlvDemuxer().feed(b"FLV\x01\x05\x00\x00\x00\x09\x00\x00\x00\x00" + tag)
    assert isinstance(event, Oddity)


def test_truncated_input() -> None:
    demuxer = FlvDemuxer()
    demuxer.feed(_stream()[0][:-10])
    with pytest.raises(TruncatedError):
        demuxer.end_of_input()


def test_codecs_without_set_up_begin_with_their_first_frame() -> None:
    muxer = FlvMuxer([TrackInfo(AUDIO, MP3, sample_rate_hz=44100, channels=2), TrackInfo(VIDEO, HEVC)])
    muxer.write(Packet(0, 0, 0, True, bytes.fromhex("fffb9064") + bytes(413)))
    found, packet = FlvDemuxer().feed(muxer.header() + muxer.take_output())
    assert isinstance(found, TrackFound) and found.info.sample_rate_hz == 44100 and isinstance(packet, Packet)
