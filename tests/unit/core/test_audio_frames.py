"""Audio elementary streams: frames found, joined, split, timed, and written again."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mist.core.audio_frames import MAX_GARBAGE_BYTES, AudioFrameDemuxer
from mist.core.demuxer import Demuxer, PacketList, demux
from mist.core.muxer import Muxer
from mist.core.packet import Packet
from mist.errors import LocalProtocolError, RemoteProtocolError, UnsupportedError
from mist.formats.audio_files import (
    Ac3Demuxer,
    Ac3Muxer,
    AdtsDemuxer,
    AdtsMuxer,
    DtsDemuxer,
    DtsMuxer,
    Mp3Demuxer,
    Mp3Muxer,
)
from mist.formats.tracks import AUDIO, TrackInfo
from tests.support.elementary import (
    ac3_frame,
    adts_blocks,
    adts_frame,
    dts_extension,
    dts_frame,
    eac3_frame,
    feed_pieces,
    mpeg_frame,
    positions,
)

AAC_PAYLOADS = [b"\x21" + bytes((number,)) * (40 + number) for number in range(6)]
MP3_FRAMES = [mpeg_frame(number) for number in range(6)]

Make = Callable[[], Demuxer]
STREAMS: dict[str, tuple[Make, bytes]] = {
    "mp3": (Mp3Demuxer, b"".join(MP3_FRAMES)),
    "tags": (Mp3Demuxer, b"ID3\4\0\0\0\0\0\x14" + bytes(20) + b"".join(MP3_FRAMES) + b"TAG" + bytes(125)),
    "garbage": (Mp3Demuxer, b"\xff\xfb\x90" + b"".join(MP3_FRAMES[:3]) + b"?" * 99 + b"".join(MP3_FRAMES[3:])),
    "adts": (AdtsDemuxer, b"".join(map(adts_frame, AAC_PAYLOADS))),
    "blocks": (AdtsDemuxer, adts_blocks(AAC_PAYLOADS[:3]) + adts_blocks(AAC_PAYLOADS[3:])),
    "change": (
        AdtsDemuxer,
        b"".join(map(adts_frame, AAC_PAYLOADS)) + b"".join(adts_frame(p, index=4, channels=1) for p in AAC_PAYLOADS),
    ),
    "ac3": (Ac3Demuxer, b"".join(map(ac3_frame, range(6)))),
    "eac3": (Ac3Demuxer, b"".join(eac3_frame(n) + eac3_frame(n, kind=1) for n in range(6))),
    "dts": (DtsDemuxer, b"".join(dts_frame(n) + dts_extension(n) for n in range(6))),
}


@pytest.mark.parametrize("name", STREAMS)
def test_every_split_gives_the_same_packets(name: str) -> None:
    make, data = STREAMS[name]
    whole = make()
    packets = feed_pieces(whole, data, len(data))
    assert packets
    for step in (*range(1, 40), 64, 417, 418, 1000):
        demuxer = make()
        assert feed_pieces(demuxer, data, step) == packets, step
        assert demuxer.tracks == whole.tracks


@pytest.mark.parametrize("name", STREAMS)
def test_every_cut_gives_the_first_packets(name: str) -> None:
    make, data = STREAMS[name]
    packets = demux(make(), data)
    for cut in range(0, len(data), 7):
        try:
            found = demux(make(), data[:cut])
        except RemoteProtocolError:
            continue
        assert found[:-1] == packets[: len(found) - 1], cut
        # Where the input ends between a frame and what belongs to it, nobody can tell.
        assert packets[len(found) - 1].payload.startswith(found[-1].payload), cut


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mp3", TrackInfo(AUDIO, "MP3", track_id=1, sample_rate_hz=44100, channels=2, sample_bits=16)),
        ("ac3", TrackInfo(AUDIO, "AC3", track_id=1, sample_rate_hz=48000, channels=2, sample_bits=16)),
        ("eac3", TrackInfo(AUDIO, "EAC-3", track_id=1, sample_rate_hz=48000, channels=2, sample_bits=16)),
        ("dts", TrackInfo(AUDIO, "DTS", track_id=1, sample_rate_hz=48000, channels=2, sample_bits=24)),
        ("adts", TrackInfo(AUDIO, "AAC", b"\x11\x90", 1, sample_rate_hz=48000, channels=2, sample_bits=16)),
    ],
)
def test_tracks(name: str, expected: TrackInfo) -> None:
    make, data = STREAMS[name]
    demuxer = make()
    packets = demux(demuxer, data)
    assert demuxer.tracks == [expected]
    assert len(packets) == 6
    assert all(packet.keyframe and not packet.offset_us for packet in packets)


def test_layers_and_refusals() -> None:
    layer_two = b"".join(mpeg_frame(n, "fffdc404", 768) for n in range(3))
    demuxer = Mp3Demuxer()
    demux(demuxer, layer_two)
    assert demuxer.tracks[0].codec == "MP2"
    for data in (b"\xff\xfb\x00\x64" + bytes(900), b"\xff\xff\xc4\x00" + bytes(900)):
        with pytest.raises(UnsupportedError):
            demux(Mp3Demuxer(), data)
    # Behind garbage it may be garbage itself.
    assert len(demux(Mp3Demuxer(), b"x\xff\xfb\x00\x64" + b"".join(MP3_FRAMES))) == 6
    with pytest.raises(UnsupportedError):
        demux(AdtsDemuxer(), adts_frame(bytes(60), blocks=2) * 3)
    for sync in (0xFE7F0180, 0x1FFFE800, 0xFF1F00E8):
        with pytest.raises(UnsupportedError):
            demux(DtsDemuxer(), dts_frame(sync=sync) * 2)


@pytest.mark.parametrize("make", [Mp3Demuxer, AdtsDemuxer, Ac3Demuxer, DtsDemuxer])
def test_nothing_in_it(make: Make) -> None:
    for data in (b"", b"x", bytes(5000), b"\xff" * 5000, b"\x0b\x77" * 100, b"ID3\4\0\0\0\0\0\x14" + bytes(20)):
        with pytest.raises(RemoteProtocolError):
            demux(make(), data)
    with pytest.raises(RemoteProtocolError) as caught:
        demux(make(), bytes(MAX_GARBAGE_BYTES + (1 << 19)))
    assert caught.value.offset is not None
    with pytest.raises(LocalProtocolError):
        AudioFrameDemuxer("flac")


@pytest.mark.parametrize("mark", [b"Xing", b"Info"])
def test_the_frame_about_the_file_is_no_packet(mark: bytes) -> None:
    head = bytearray(mpeg_frame(9))
    head[36:40] = mark
    packets = demux(Mp3Demuxer(), bytes(head) + b"".join(MP3_FRAMES))
    assert [packet.payload for packet in packets] == MP3_FRAMES
    assert packets[0].dts_us == 0
    demuxer = Mp3Demuxer()
    demux(demuxer, bytes(head) + b"".join(MP3_FRAMES))
    demuxer.seek(0, 0)
    assert feed_pieces(demuxer, bytes(head) + b"".join(MP3_FRAMES), 999) == packets


def test_other_tags() -> None:
    head = bytearray(mpeg_frame(9))
    head[36:40] = b"VBRI"
    ape_header = b"APETAGEX" + bytes.fromhex("d0070000 40000000 01000000 000000a0") + bytes(8)
    ape_footer = b"APETAGEX" + bytes.fromhex("d0070000 40000000 01000000 00000080") + bytes(8)
    ape = ape_header + b"\xff\xfb\x90\x64" + bytes(28) + ape_footer
    id3_with_footer = b"ID3\4\0\x10\0\0\0\x05" + bytes(5) + b"3DI\4\0\x10\0\0\0\x05"
    data = ape + bytes(head) + b"".join(MP3_FRAMES[:3]) + id3_with_footer + b"".join(MP3_FRAMES[3:]) + ape
    assert [packet.payload for packet in demux(Mp3Demuxer(), data)] == MP3_FRAMES


def test_a_long_tag_is_passed_over_without_keeping_it() -> None:
    size = 3 << 20
    tag = (
        b"ID3\3\0\0"
        + bytes((size >> 21 & 127, size >> 14 & 127, size >> 7 & 127, size & 127))
        + b"\xff\xfb" * (size // 2)
    )
    assert [packet.payload for packet in demux(Mp3Demuxer(), tag + b"".join(MP3_FRAMES))] == MP3_FRAMES


def test_times_are_exact_after_hours() -> None:
    demuxer = Mp3Demuxer()
    packets = demux(demuxer, mpeg_frame() * 30_000)
    assert [packet.dts_us for packet in packets] == [
        (number * 1152 * 1_000_000 + 22050) // 44100 for number in range(30_000)
    ]


def test_a_change_of_format() -> None:
    make, data = STREAMS["change"]
    demuxer = make()
    seen: list[tuple[int, int]] = []
    packets = PacketList()
    demuxer.attach(packets)
    demuxer.on_tracks = lambda: seen.append((len(packets.take()), demuxer.tracks[0].sample_rate_hz))
    demuxer.feed(data)
    demuxer.feed(b"")
    assert seen == [(6, 44100)]
    assert demuxer.tracks[0].channels == 1
    found = demux(make(), data)
    assert found[6].dts_us == 6 * 1024 * 1_000_000 // 48000
    assert found[7].dts_us - found[6].dts_us in (23219, 23220)


def test_blocks_of_an_adts_frame() -> None:
    make, data = STREAMS["blocks"]
    packets = demux(make(), data)
    assert [packet.payload for packet in packets] == AAC_PAYLOADS
    assert [packet.dts_us for packet in packets] == [(n * 1024 * 1_000_000 + 24000) // 48000 for n in range(6)]
    lying = bytearray(data)
    lying[7:9] = b"\xff\xff"
    assert [packet.payload for packet in demux(make(), bytes(lying))] == AAC_PAYLOADS[3:]


def test_adts_with_crc() -> None:
    data = b"".join(adts_frame(b"\xcc\xcc" + payload, crc=True) for payload in AAC_PAYLOADS)
    assert [packet.payload for packet in demux(AdtsDemuxer(), data)] == AAC_PAYLOADS


def test_substreams_and_extensions_join_their_frame() -> None:
    parts = [eac3_frame(n) + eac3_frame(n, kind=1) + eac3_frame(n, substream=1) for n in range(4)]
    assert [packet.payload for packet in demux(Ac3Demuxer(), b"".join(parts))] == parts
    assert demux(Ac3Demuxer(), b"".join(parts))[1].dts_us == 32_000
    core = [ac3_frame(n) + eac3_frame(n, kind=1) for n in range(3)]
    demuxer = Ac3Demuxer()
    assert [packet.payload for packet in demux(demuxer, b"".join(core))] == core
    assert demuxer.tracks[0].codec == "EAC-3"
    mixed = [dts_frame(n) + dts_extension(n) + dts_extension(n, size=300, long=True) for n in range(3)]
    assert [packet.payload for packet in demux(DtsDemuxer(), b"".join(mixed))] == mixed
    # What belongs to a frame that is not there is passed over.
    assert [packet.payload for packet in demux(DtsDemuxer(), dts_extension() + b"".join(mixed))] == mixed


@pytest.mark.parametrize("name", ["mp3", "tags", "adts", "change", "eac3", "dts", "ac3"])
def test_seek_to_every_packet(name: str) -> None:
    make, data = STREAMS[name]
    demuxer = make()
    packets = demux(make(), data)
    for number, position in enumerate(positions(demuxer, data)):
        for one in (demuxer, make()):
            one.seek(packets[number].dts_us, position)
            found = feed_pieces(one, data, 100)
            assert [packet.payload for packet in found] == [packet.payload for packet in packets[number:]]
            for ours, packet in zip(found, packets[number:], strict=True):
                assert abs(ours.dts_us - packet.dts_us) <= 1
        if name != "change":
            demuxer.seek(packets[number].dts_us, position)
            assert feed_pieces(demuxer, data, 100) == packets[number:]


@pytest.mark.parametrize(
    ("make", "muxer", "data"),
    [
        (Mp3Demuxer, Mp3Muxer, STREAMS["mp3"][1]),
        (AdtsDemuxer, AdtsMuxer, STREAMS["adts"][1]),
        (Ac3Demuxer, Ac3Muxer, STREAMS["eac3"][1]),
        (DtsDemuxer, DtsMuxer, STREAMS["dts"][1]),
    ],
)
def test_what_was_read_is_written_again(make: Make, muxer: Callable[[list[TrackInfo]], Muxer], data: bytes) -> None:
    demuxer = make()
    packets = demux(demuxer, data)
    writer = muxer(demuxer.tracks)
    assert writer.header(0) == b""
    for packet in packets:
        writer.write(packet)
    assert writer.take_output() == data
    with pytest.raises(LocalProtocolError):
        writer.write(Packet(1, 0, 0, True, b"x"))
    assert writer.set_tracks(demuxer.tracks)
    for tracks in ([], [*demuxer.tracks, *demuxer.tracks], [TrackInfo(AUDIO, "opus")]):
        with pytest.raises(UnsupportedError):
            muxer(tracks)
        with pytest.raises(UnsupportedError):
            writer.set_tracks(tracks)


def test_adts_muxer() -> None:
    bare = AdtsMuxer([TrackInfo(AUDIO, "AAC", sample_rate_hz=44100, channels=1)])
    bare.write(Packet(0, 0, 0, True, b"abc"))
    assert bare.take_output() == bytes.fromhex("fff15040015ffc") + b"abc"
    bare.set_tracks([TrackInfo(AUDIO, "AAC", b"\x11\x90")])
    bare.write(Packet(0, 0, 0, True, b"abc"))
    assert bare.take_output() == bytes.fromhex("fff14c80015ffc") + b"abc"
    for size in (0, 8185):
        bare.write(Packet(0, 0, 0, True, bytes(size)))
    assert bare.take_output() == b""
    bare.write(Packet(0, 0, 0, True, bytes(8184)))
    assert len(bare.take_output()) == 8191
