"""Byte streams of H.264 and HEVC: access units, their order and times, parameter sets; and what is written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from mist.core import annexb as engine
from mist.core.annexb import AnnexBMuxer
from mist.core.demuxer import Demuxer, PacketList, demux
from mist.core.nal import join_length_prefixed, split_annexb, split_length_prefixed
from mist.core.packet import Packet
from mist.errors import LimitExceededError, LocalProtocolError, RemoteProtocolError, UnsupportedError
from mist.formats import h264
from mist.formats.tracks import AUDIO, VIDEO, TrackInfo
from mist.formats.video_files import H264Demuxer, HevcDemuxer
from tests.support.elementary import DELIMITER, RECOVERY_SEI, H264Shape, annexb, feed_pieces, positions

HEVC_STREAM = (Path(__file__).parents[2] / "data/annexb/corpus/bframes.hevc").read_bytes()
FRAME_US = 40_000

# (frame number, order count, reference) in decoding order: I P B B P B B.
REORDERED = [(0, 0, True), (1, 6, True), (2, 2, False), (2, 4, False), (2, 12, True), (3, 8, False), (3, 10, False)]
PLACES = [0, 3, 1, 2, 6, 4, 5]


def stream(shape: H264Shape, pictures: Sequence[tuple[int, int, bool]] = REORDERED, repeat: int = 1) -> bytes:
    """Return groups of pictures that begin with parameter sets and an IDR picture."""
    data = b""
    for number in range(repeat):
        units = [DELIMITER, shape.sps(), shape.pps(), shape.slice(0, 0, idr=True, idr_number=number % 2)]
        units += [shape.slice(frame, order, reference=reference) for frame, order, reference in pictures[1:]]
        data += annexb(*units)
    return data


STREAMS: dict[str, tuple[Callable[[], Demuxer], bytes]] = {
    "h264": (H264Demuxer, stream(H264Shape(reorder=1), repeat=3)),
    "depth unknown": (H264Demuxer, stream(H264Shape(), repeat=8)),
    "hevc": (HevcDemuxer, HEVC_STREAM),
}


def times(packets: Sequence[Packet]) -> list[tuple[int, int]]:
    return [(packet.dts_us // FRAME_US, packet.pts_us // FRAME_US) for packet in packets]


@pytest.mark.parametrize("name", STREAMS)
def test_every_split_gives_the_same_packets(name: str) -> None:
    make, data = STREAMS[name]
    whole = make()
    packets = feed_pieces(whole, data, len(data))
    assert packets
    for step in (1, 2, 3, 4, 5, 7, 13, 50, 100, 777):
        demuxer = make()
        assert feed_pieces(demuxer, data, step) == packets, step
        assert demuxer.tracks == whole.tracks


def test_reordered_pictures() -> None:
    demuxer = H264Demuxer()
    packets = demux(demuxer, stream(H264Shape(reorder=1), repeat=2))
    assert times(packets) == [(n, n - n % 7 + PLACES[n % 7] + 1) for n in range(14)]
    assert [packet.keyframe for packet in packets] == [n % 7 == 0 for n in range(14)]
    [track] = demuxer.tracks
    assert (track.codec, track.width, track.height, track.frame_rate_mhz, track.track_id) == (
        "H264",
        320,
        192,
        25000,
        1,
    )
    assert h264.parse_avcc(track.init_data).sps == (H264Shape(reorder=1).sps(),)
    # Delimiters and parameter sets are not in the payload.
    assert all(len(split_length_prefixed(packet.payload)) == 1 for packet in packets)


@pytest.mark.parametrize("repeat", [1, 10])
def test_the_depth_is_found_where_nothing_says_it(repeat: int) -> None:
    packets = demux(H264Demuxer(), stream(H264Shape(), repeat=repeat))
    assert times(packets) == [(n, n - n % 7 + PLACES[n % 7] + 1) for n in range(7 * repeat)]


def test_order_counts_that_wrap() -> None:
    shape = H264Shape(reorder=1)
    units = [shape.sps(), shape.pps(), shape.slice(0, 0, idr=True)]
    expected = [(0, 1)]
    for number in range(1, 100):
        units += [shape.slice(number, number * 4), shape.slice(number + 1, number * 4 - 2, reference=False)]
        expected += [(number * 2 - 1, number * 2 + 1), (number * 2, number * 2)]
    assert times(demux(H264Demuxer(), annexb(*units))) == expected


def test_order_that_is_that_of_decoding() -> None:
    shape = H264Shape(order=2)
    units = [shape.sps(), shape.pps(), shape.slice(0, idr=True), *(shape.slice(n) for n in range(1, 40))]
    assert times(demux(H264Demuxer(), annexb(*units))) == [(n, n) for n in range(40)]


def test_order_by_cycle() -> None:
    """References are 4 apart, what is not referred to stands 2 before the next one."""
    shape = H264Shape(order=1, reorder=1)
    units = [shape.sps(), shape.pps(), shape.slice(0, idr=True)]
    for number in range(1, 20):
        units += [shape.slice(number), shape.slice(number + 1, reference=False, delta=0)]
    packets = demux(H264Demuxer(), annexb(*units))
    assert sorted(pts for _, pts in times(packets)) == list(range(1, 40))
    assert times(packets)[:5] == [(0, 1), (1, 3), (2, 2), (3, 5), (4, 4)]


def test_slices_and_fields_of_one_picture() -> None:
    shape = H264Shape(reorder=0)
    parts = [
        [shape.slice(0, 0, idr=True), shape.slice(0, 0, idr=True, first=40)],
        [shape.slice(1, 2), shape.slice(1, 2, first=40), shape.slice(1, 2, first=80)],
        [RECOVERY_SEI, shape.slice(2, 4)],
    ]
    data = annexb(shape.sps(), shape.pps(), *(unit for part in parts for unit in part), start=b"\0\0\1")
    assert [packet.payload for packet in demux(H264Demuxer(), data)] == [join_length_prefixed(part) for part in parts]
    fields = H264Shape(reorder=0, frames_only=False)
    parts = [
        [fields.slice(0, 0, idr=True, field=0), fields.slice(0, 1, field=1)],
        [fields.slice(1, 2, field=0), fields.slice(1, 2, field=0, first=40), fields.slice(1, 3, field=1)],
        [fields.slice(2, 4, field=1), fields.slice(2, 5, field=0)],
        [fields.slice(3, 6)],
    ]
    data = annexb(fields.sps(), fields.pps(), *(unit for part in parts for unit in part))
    packets = demux(H264Demuxer(), data)
    assert [packet.payload for packet in packets] == [join_length_prefixed(part) for part in parts]
    assert times(packets) == [(n, n) for n in range(4)]


def test_all_intra_without_any_difference() -> None:
    """Encoders of cameras number neither frames nor IDR pictures."""
    shape = H264Shape(reorder=0)
    packets = demux(H264Demuxer(), annexb(shape.sps(), shape.pps(), *[shape.slice(0, 0, idr=True)] * 5))
    assert [packet.keyframe for packet in packets] == [True] * 5


def test_other_random_access_points() -> None:
    shape = H264Shape(reorder=0)
    sei_without = b"\x06\x05\x03abc\x80"
    data = annexb(
        shape.sps(), shape.pps(), shape.slice(0, 0, kind=7), shape.slice(1, 2),
        RECOVERY_SEI, shape.slice(2, 4), sei_without, shape.slice(3, 6),
        sei_without[:-1] + RECOVERY_SEI[1:], shape.slice(4, 8),
        shape.slice(5, 10, kind=7),
    )  # fmt: skip
    assert [packet.keyframe for packet in demux(H264Demuxer(), data)] == [True, False, True, False, True, False]


def test_rates() -> None:
    for rate, mhz in (((30000, 1001), 29970), ((60, 1), 60000), ((1, 1), 1000)):
        shape = H264Shape(reorder=0, rate=rate)
        demuxer = H264Demuxer()
        packets = demux(demuxer, stream(shape, [(n, 2 * n, True) for n in range(50)]))
        assert demuxer.tracks[0].frame_rate_mhz == mhz
        over, under = rate
        assert [packet.dts_us for packet in packets] == [(n * 1_000_000 * under + over // 2) // over for n in range(50)]
    absurd = H264Shape(reorder=0, rate=(1_000_000, 1))
    assert demux(H264Demuxer(), stream(absurd))[1].dts_us == FRAME_US


def test_a_change_of_size_and_rate() -> None:
    first, second = H264Shape(reorder=1), H264Shape(reorder=1, rate=(50, 1), width_blocks=40)
    demuxer = H264Demuxer()
    packets = PacketList()
    demuxer.attach(packets)
    seen: list[tuple[int, int]] = []
    demuxer.on_tracks = lambda: seen.append((len(packets.take()), demuxer.tracks[0].width))
    data = stream(first, repeat=2) + stream(second) + stream(second)
    demuxer.feed(data)
    demuxer.feed(b"")
    assert seen == [(14, 640)]
    found = demux(H264Demuxer(), data)
    assert [packet.dts_us for packet in found[12:17]] == [480_000, 520_000, 560_000, 580_000, 600_000]
    assert len({packet.pts_us for packet in found}) == 28


def test_picture_sets_are_kept_by_their_numbers() -> None:
    shape = H264Shape(reorder=0)
    demuxer = H264Demuxer()
    demux(demuxer, annexb(shape.sps(), shape.pps(), shape.slice(0, 0, idr=True), shape.pps(3), shape.slice(1, 2)))
    assert h264.parse_avcc(demuxer.tracks[0].init_data).pps == (shape.pps(), shape.pps(3))


def test_what_has_no_parameter_sets_is_dropped() -> None:
    shape = H264Shape(reorder=0)
    data = annexb(shape.slice(0, 0), shape.slice(1, 2)) + stream(shape)
    assert len(demux(H264Demuxer(), b"garbage" + data)) == 7
    for empty in (b"", b"x", bytes(100), annexb(shape.slice(0, 0)), annexb(shape.sps(), shape.pps()), b"\0\0\1"):
        with pytest.raises(RemoteProtocolError):
            demux(H264Demuxer(), empty)
        with pytest.raises(RemoteProtocolError):
            demux(HevcDemuxer(), empty)


def test_bounds() -> None:
    for make in (H264Demuxer, HevcDemuxer):
        with pytest.raises(RemoteProtocolError):
            demux(make(), b"\xff" * (engine.MAX_GARBAGE_BYTES + (1 << 19)))
        with pytest.raises(LimitExceededError):
            demux(make(), b"\0\0\1\x41" + b"\xff" * (engine.MAX_UNIT_BYTES + (1 << 19)))
    shape = H264Shape(reorder=0)
    with pytest.raises(LimitExceededError):
        demux(H264Demuxer(), annexb(shape.sps(), shape.pps(), *[b"\x06\x05" + b"\xff" * (1 << 20)] * 40))


@pytest.mark.parametrize("name", ["h264", "hevc"])
def test_seek_to_every_keyframe(name: str) -> None:
    make, data = STREAMS[name]
    whole = demux(make(), data)
    demuxer = make()
    keys = [(n, at) for n, at in enumerate(positions(demuxer, data)) if whole[n].keyframe]
    assert len(keys) > 1
    for number, position in keys:
        demuxer.seek(whole[number].dts_us, position)
        assert feed_pieces(demuxer, data, 100) == whole[number:]
        fresh = make()
        fresh.seek(whole[number].dts_us, position)
        assert feed_pieces(fresh, data, 100) == whole[number:]


def test_seek_where_the_rate_is_another() -> None:
    data = stream(H264Shape(reorder=1), repeat=2) + stream(H264Shape(reorder=1, rate=(30000, 1001)), repeat=3)
    whole = demux(H264Demuxer(), data)
    demuxer = H264Demuxer()
    for number, position in enumerate(positions(demuxer, data)):
        if whole[number].keyframe:
            for one in (demuxer, H264Demuxer()):
                one.seek(whole[number].dts_us, position)
                for ours, packet in zip(feed_pieces(one, data, 100), whole[number:], strict=True):
                    assert abs(ours.dts_us - packet.dts_us) <= 1
                    assert abs(ours.pts_us - packet.pts_us) <= 1


def test_hevc() -> None:
    demuxer = HevcDemuxer()
    packets = demux(demuxer, HEVC_STREAM)
    [track] = demuxer.tracks
    assert (track.codec, track.width, track.height, track.frame_rate_mhz) == ("HEVC", 64, 64, 25000)
    assert sorted(pts for _, pts in times(packets)) == list(range(2, 17))
    assert [dts for dts, _ in times(packets)] == list(range(15))
    assert [number for number, packet in enumerate(packets) if packet.keyframe] == [0, 7]


@pytest.mark.parametrize("name", STREAMS)
def test_what_was_read_is_written_again(name: str) -> None:
    make, data = STREAMS[name]
    demuxer = make()
    packets = demux(demuxer, data)
    muxer = AnnexBMuxer(demuxer.tracks)
    for packet in packets:
        muxer.write(packet)
    output = muxer.take_output()
    again = make()
    assert demux(again, output) == packets
    assert again.tracks == demuxer.tracks


def test_muxer() -> None:
    shape = H264Shape()
    track = TrackInfo(VIDEO, "H264", h264.build_avcc([shape.sps()], [shape.pps()]))
    key, other = shape.slice(0, 0, idr=True), shape.slice(1, 2)

    def written(muxer: AnnexBMuxer, *packets: tuple[bool, list[bytes]]) -> list[bytes]:
        for number, (keyframe, units) in enumerate(packets):
            muxer.write(Packet(0, number * FRAME_US, 0, keyframe, join_length_prefixed(units)))
        return split_annexb(muxer.take_output())

    assert written(AnnexBMuxer([track]), (True, [key]), (False, [other])) == [shape.sps(), shape.pps(), key, other]
    own = (True, [DELIMITER, shape.sps(), shape.pps(), key])
    assert written(AnnexBMuxer([track]), own) == own[1]
    assert written(AnnexBMuxer([track]), (True, [DELIMITER, key])) == [DELIMITER, shape.sps(), shape.pps(), key]
    assert written(AnnexBMuxer([track], True), (False, [other]), (True, [key])) == [shape.sps(), shape.pps(), key]
    muxer = AnnexBMuxer([track.changed(init_data=b"")])
    assert written(muxer, (True, [key])) == [key]
    assert muxer.set_tracks([track])
    assert written(muxer, (True, [key])) == [shape.sps(), shape.pps(), key]
    muxer.write(Packet(0, 0, 0, True, b"\0\0\0\xffx"))
    assert muxer.take_output() == b""
    with pytest.raises(LocalProtocolError):
        muxer.write(Packet(1, 0, 0, True, b""))
    for tracks in ([], [track, track], [TrackInfo(AUDIO, "AAC")]):
        with pytest.raises(UnsupportedError):
            AnnexBMuxer(tracks)
