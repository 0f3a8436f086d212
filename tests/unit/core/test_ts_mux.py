"""The transport stream muxer: golden bytes, state at every cut, times, bad payloads."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mist.core.crc import crc32_mpeg2
from mist.core.packet import Packet
from mist.core.ts_mux import PCR_LEAD_US, TABLE_INTERVAL_US, TsMuxer
from mist.core.ts_tables import adts_header, parameter_sets_h264, parameter_sets_hevc
from mist.errors import LocalProtocolError, UnsupportedError
from mist.formats import aac
from mist.formats.tracks import AUDIO, VIDEO, TrackInfo
from tests.support.ts_check import WRAP, check_ts, crc32, signed

SPS = bytes.fromhex("6764000aacd9")
PPS = bytes.fromhex("68ebe3cb22c0")
AVCC = bytes.fromhex("0164000affe10006") + SPS + b"\x01\x00\x06" + PPS
HVCC = bytes(22) + b"\x02" + b"\x20\x00\x01\x00\x02\x40\x01" + b"\x21\x00\x01\x00\x03\x42\x01\x01"
OPUS_HEAD = b"OpusHead\x01\x02\x38\x01\x80\xbb\x00\x00\x00\x00\x00"
VIDEO_TRACK = TrackInfo(VIDEO, "H264", AVCC, width=64, height=64)
AUDIO_TRACK = TrackInfo(AUDIO, "AAC", b"\x12\x10", sample_rate_hz=44100, channels=2)
AUD = b"\x00\x00\x00\x01\x09\xf0"
START = b"\x00\x00\x00\x01"


def unit(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


def video(number: int, *, size: int = 3000, gop: int = 25, frame_us: int = 40_000, offset_us: int = 0) -> Packet:
    key = number % gop == 0
    return Packet(
        0, number * frame_us, offset_us, key, unit((b"\x65" if key else b"\x41") + bytes([number & 255]) * size)
    )


def audio(number: int, track: int = 1, size: int = 300) -> Packet:
    return Packet(track, number * 1024 * 1_000_000 // 44100, 0, True, bytes([number & 255]) * size)


def interleaved(seconds: float = 3) -> list[Packet]:
    packets = [video(number) for number in range(int(seconds * 25))]
    packets += [audio(number) for number in range(int(seconds * 44100 / 1024))]
    return sorted(packets, key=lambda packet: packet.dts_us)


def mux(tracks: list[TrackInfo], packets: list[Packet], **options: object) -> bytes:
    muxer = TsMuxer(tracks, **options)  # type: ignore[arg-type]
    for packet in packets:
        muxer.write(packet)
    return muxer.take_output()


def test_crc() -> None:
    assert crc32_mpeg2(b"123456789") == 0x0376E6E7
    assert crc32_mpeg2(b"") == 0xFFFFFFFF
    for size in range(20):
        data = bytes(range(200, 200 + size))
        assert crc32_mpeg2(data) == crc32(data) == crc32_mpeg2(data[size // 2 :], crc32_mpeg2(data[: size // 2]))


def test_golden_tables() -> None:
    data = mux([VIDEO_TRACK, replace(AUDIO_TRACK, language="nld")], [video(0, size=10)], stream_name="live")
    pat, pmt, sdt = data[:188], data[188:376], data[376:564]
    assert pat == bytes.fromhex("474000100000b00d0001c100000001f0002ab104b2").ljust(188, b"\xff")
    section = bytes.fromhex("02b0210001c10000e100f0001be100f0000fe101f00a7c0251000a046e6c6400")
    assert pmt[:5] == bytes.fromhex("4750001000")
    assert pmt[5:] == (section + crc32(section).to_bytes(4, "big")).ljust(183, b"\xff")
    service = bytes.fromhex("42f01e0001c10000ff01ff0001fc800d480b01046d697374046c697665")
    assert sdt == bytes.fromhex("4740111000") + (service + crc32(service).to_bytes(4, "big")).ljust(183, b"\xff")


def test_golden_video_packet() -> None:
    data = mux([VIDEO_TRACK], [Packet(0, 1_000_000, 40_000, True, unit(b"\x65\x88"))])
    packet = data[564:]
    pcr = (1_000_000 - PCR_LEAD_US) * 27 // 300
    pcr_bytes = bytes((pcr >> 25, pcr >> 17 & 255, pcr >> 9 & 255, pcr >> 1 & 255, (pcr & 1) << 7 | 0x7E, 0))
    stream = AUD + START + SPS + START + PPS + START + b"\x65\x88"
    # PTS 93600 = 0x16da0 and DTS 90000 = 0x15f90, in 3, 15 and 15 bits with marker bits between.
    pes = bytes.fromhex("000001e0") + (len(stream) + 13).to_bytes(2, "big") + bytes.fromhex("84c00a")
    pes += bytes.fromhex("310005db41110005bf21")
    field = 184 - len(pes) - len(stream)
    assert packet[:4] == bytes.fromhex("47410030")
    assert packet[4 : 4 + field] == (bytes((field - 1, 0x50)) + pcr_bytes).ljust(field, b"\xff")
    assert packet[4 + field :] == pes + stream
    report = check_ts(data)
    assert report.errors == []
    assert [(pes.pts, pes.dts, pes.random_access) for pes in report.pes] == [(93600, 90000, True)]
    assert len(data) == 4 * 188


@pytest.mark.parametrize(
    ("init", "channels", "expected"),
    [
        ("1210", 2, "fff15080"),  # LC, 44.1 kHz, stereo
        ("1190", 2, "fff14c80"),  # LC, 48 kHz, stereo
        ("11b0", 6, "fff14d80"),  # LC, 48 kHz, 5.1
        ("1390", 2, "fff15c80"),  # LC, 22.05 kHz
        ("2b920800", 2, "fff15c80"),  # SBR signalled explicitly: the core is LC at 22.05 kHz
        ("eb8a0800", 1, "fff15c40"),  # parametric stereo: the core is mono
        ("1780bb8010", 2, "fff14c80"),  # rate written out: 24000 * 4 = 96000 / 2
        ("", 1, "fff15040"),  # none: from the properties
    ],
)
def test_adts(init: str, channels: int, expected: str) -> None:
    if init == "1780bb8010":
        bits = "00010" + "1111" + f"{48000:024b}" + "0010" + "000"
        init = int(bits, 2).to_bytes(5, "big").hex()
    info = TrackInfo(AUDIO, "AAC", bytes.fromhex(init), sample_rate_hz=44100, channels=channels)
    assert adts_header(info).hex() == expected


def test_aac_frames() -> None:
    report = check_ts(mux([AUDIO_TRACK], [audio(number, 0, 290 + number) for number in range(60)]))
    assert report.errors == []
    for number, payload in enumerate(report.payloads(256)):
        size = 290 + number
        assert payload[:7] == bytes((0xFF, 0xF1, 0x50, 0x80 | (size + 7) >> 11, (size + 7) >> 3 & 255)) + bytes(
            ((size + 7 & 7) << 5 | 0x1F, 0xFC)
        )
        assert payload[7:] == bytes([number]) * size


def test_aac_of_channels_that_have_no_number() -> None:
    """ADTS says 0 then; without the element of the configuration in front of the frame nobody could decode it."""
    init = bytes.fromhex("118004c4010020000d4c61766335392e33372e31303056e500")  # 2.1, by ffmpeg
    track = replace(AUDIO_TRACK, init_data=init, channels=3)
    prefix = aac.adts_prefix(aac.parse_config(init))
    frames = [audio(number, 0, 100) for number in range(20)]
    payloads = check_ts(mux([track], frames)).payloads(256)
    assert payloads == [aac.set_adts_length(prefix, 100) + frame.payload for frame in frames]
    with_element = [Packet(0, frame.dts_us, 0, True, prefix[7:] + frame.payload) for frame in frames]
    assert check_ts(mux([track], with_element)).payloads(256) == payloads  # of those that bring it with them


@pytest.mark.parametrize(
    ("track", "stream_type", "descriptors", "stream_id"),
    [
        (VIDEO_TRACK, 0x1B, "", 0xE0),
        (TrackInfo(VIDEO, "HEVC", HVCC), 0x24, "050448455643", 0xE0),
        (AUDIO_TRACK, 0x0F, "7c025100", 0xC0),
        (TrackInfo(VIDEO, "MPEG2"), 0x02, "", 0xE0),
        (TrackInfo(AUDIO, "MP3"), 0x03, "", 0xC0),
        (TrackInfo(AUDIO, "MP2"), 0x03, "", 0xC0),
        (TrackInfo(AUDIO, "DTS"), 0x82, "050444545332", 0xBD),
        (TrackInfo(AUDIO, "AC3"), 0x81, "050441432d336a0100", 0xBD),
        (TrackInfo(AUDIO, "EAC-3", language="eng"), 0x87, "0504454143337a01000a04656e6700", 0xBD),
        (TrackInfo(AUDIO, "opus", OPUS_HEAD), 0x06, "05044f7075737f028002", 0xBD),
        (TrackInfo(VIDEO, "AV1", b"\x81\x08\x0c\x10"), 0x06, "050441563031800481080cd0", 0xBD),
    ],
    ids=lambda value: value.codec if isinstance(value, TrackInfo) else "",
)
def test_stream_types(track: TrackInfo, stream_type: int, descriptors: str, stream_id: int) -> None:
    payload = {"H264": unit(b"\x65x"), "HEVC": unit(b"\x26\x01x"), "AV1": b"\x32\x01\x10"}.get(track.codec, b"frame")
    report = check_ts(mux([track], [Packet(0, 0, 0, True, payload)]))
    assert report.errors == []
    assert report.pids == {256: stream_type}
    assert report.descriptors[256].hex() == descriptors
    assert [pes.stream_id for pes in report.pes] == [stream_id]


@pytest.mark.parametrize(
    "track",
    [
        TrackInfo(AUDIO, "FLAC", bytes(34)),
        TrackInfo(VIDEO, "VP9", bytes(12)),
        TrackInfo(VIDEO, "VP8"),
        TrackInfo(AUDIO, "ALAW"),
        TrackInfo(AUDIO, "AAC", b"\xb9\x88"),  # ER AAC LD
        TrackInfo(AUDIO, "AAC"),
        TrackInfo(AUDIO, "opus", OPUS_HEAD[:18] + b"\xff"),
        TrackInfo(VIDEO, "AV1"),
    ],
    ids=lambda track: track.codec,
)
def test_refuses_what_does_not_fit(track: TrackInfo) -> None:
    with pytest.raises(UnsupportedError):
        TsMuxer([track])
    muxer = TsMuxer([VIDEO_TRACK])
    before = muxer.state()
    with pytest.raises(UnsupportedError):
        muxer.set_tracks([VIDEO_TRACK, track])
    assert muxer.state() == before


def test_refuses_too_many_tracks() -> None:
    TsMuxer([AUDIO_TRACK] * 64)
    with pytest.raises(UnsupportedError):
        TsMuxer([AUDIO_TRACK] * 65)
    with pytest.raises(UnsupportedError):
        TsMuxer([TrackInfo(AUDIO, "opus", OPUS_HEAD, language="eng")] * 60)


def test_many_tracks_need_a_long_pmt() -> None:
    tracks = [TrackInfo(AUDIO, "opus", OPUS_HEAD)] * 30
    packets = [Packet(track, time * 20_000, 0, True, b"x" * 50) for time in range(50) for track in range(30)]
    report = check_ts(mux(tracks, packets))
    assert report.errors == []
    assert len(report.pids) == 30


def test_interleaved_stream() -> None:
    packets = interleaved()
    report = check_ts(mux([VIDEO_TRACK, AUDIO_TRACK], packets, stream_name="café"))
    assert report.errors == []
    assert report.service_name == "café"
    assert report.pcr_pid == 256
    for pid, place in ((256, 0), (257, 1)):
        own = [packet for packet in packets if packet.track == place]
        found = [pes for pes in report.pes if pes.pid == pid]
        assert [pes.dts for pes in found] == [(packet.dts_us * 9 + 50) // 100 for packet in own]
    assert [pes.random_access for pes in report.pes if pes.pid == 256] == [
        packet.keyframe for packet in packets if packet.track == 0
    ]
    assert all(pes.pcr is not None for pes in report.pes if pes.pid == 256)


def test_tables_before_keyframes_and_in_time() -> None:
    packets = interleaved(4)
    muxer = TsMuxer([VIDEO_TRACK, AUDIO_TRACK])
    last_us = -(1 << 60)
    for packet in packets:
        muxer.write(packet)
        data = muxer.take_output()
        if data[1] & 0x5F == 0x40 and data[2] == 0:
            last_us = packet.dts_us
        else:
            assert not (packet.track == 0 and packet.keyframe)
        assert packet.dts_us - last_us <= TABLE_INTERVAL_US


def test_joiner_at_every_keyframe_sees_no_break() -> None:
    packets = interleaved(4)
    muxer = TsMuxer([VIDEO_TRACK, AUDIO_TRACK])
    output = b""
    starts = []
    for packet in packets:
        if packet.track == 0 and packet.keyframe:
            starts.append(len(output))
        muxer.write(packet)
        output += muxer.take_output()
    for start in starts:
        assert check_ts(muxer.header(0) + output[start:]).errors == []


@pytest.mark.parametrize("tracks", [[VIDEO_TRACK, AUDIO_TRACK], [AUDIO_TRACK, VIDEO_TRACK]])
def test_state_at_every_cut(tracks: list[TrackInfo]) -> None:
    swap = tracks[0] is AUDIO_TRACK
    packets = [
        Packet(1 - p.track if swap else p.track, p.dts_us, p.offset_us, p.keyframe, p.payload) for p in interleaved(2)
    ]
    muxer = TsMuxer(tracks, "live")
    states, outputs = [], []
    for packet in packets:
        states.append(muxer.state())
        muxer.write(packet)
        outputs.append(muxer.take_output())
    assert max(len(state) for state in states) <= 128
    other = TsMuxer(tracks, "live")
    for state, packet, output in zip(states, packets, outputs, strict=True):
        other.restore(state)
        other.write(packet)
        assert other.take_output() == output
    with pytest.raises(LocalProtocolError):
        other.restore(states[0][:-1])
    with pytest.raises(LocalProtocolError):
        TsMuxer([AUDIO_TRACK]).restore(states[0])


def test_times_wrap_at_33_bits() -> None:
    wrap_us = WRAP * 100 // 9
    start = wrap_us - 1_000_000
    packets = [Packet(p.track, p.dts_us + start, p.offset_us, p.keyframe, p.payload) for p in interleaved(2)]
    report = check_ts(mux([VIDEO_TRACK, AUDIO_TRACK], packets))
    assert report.errors == []
    times = [pes.dts for pes in report.pes if pes.pid == 256]
    assert min(time for time in times if time is not None) < 90_000
    assert max(time for time in times if time is not None) > WRAP - 90_000


def test_negative_times() -> None:
    packets = [Packet(p.track, p.dts_us - 500_000, p.offset_us, p.keyframe, p.payload) for p in interleaved(1)]
    report = check_ts(mux([VIDEO_TRACK, AUDIO_TRACK], packets))
    assert report.errors == []
    assert report.pes[0].dts == WRAP - 45_000
    assert signed(report.pcrs[0] - (WRAP - 45_000 - PCR_LEAD_US * 9 // 100) * 300, WRAP * 300) == 0


@pytest.mark.parametrize("frame_us", [33_367, 41_708, 100_000, 200_000, 1_000_000])
@pytest.mark.parametrize("audio_lead_us", [-150_000, 0, 150_000])
def test_pcr_at_any_frame_rate(frame_us: int, audio_lead_us: int) -> None:
    packets = [(p.dts_us, p) for p in (video(n, frame_us=frame_us, size=500) for n in range(6_000_000 // frame_us))]
    packets += [(p.dts_us - audio_lead_us, p) for p in (audio(n) for n in range(258))]
    ordered = [p for _, p in sorted(packets, key=lambda entry: entry[0])]
    report = check_ts(mux([VIDEO_TRACK, AUDIO_TRACK], ordered))
    assert report.errors == []


def test_discontinuous_times_are_marked() -> None:
    packets = [video(number) for number in range(10)]
    packets += [Packet(0, p.dts_us - 5_000_000, 0, p.keyframe, p.payload) for p in packets]
    data = mux([VIDEO_TRACK], packets)
    marked = [
        offset
        for offset in range(0, len(data), 188)
        if data[offset + 3] & 0x20 and data[offset + 4] and data[offset + 5] & 0x80
    ]
    assert len(marked) == 1
    assert data[marked[0] + 5] & 0x10


def test_delimiter_and_parameter_sets() -> None:
    cases = [
        ([b"\x65key"], [SPS, PPS, b"\x65key"]),
        ([b"\x41not a key"], [b"\x41not a key"]),
        ([SPS, PPS, b"\x65own sets"], [SPS, PPS, b"\x65own sets"]),
        ([b"\x67other", b"\x65no PPS"], [SPS, PPS, b"\x67other", b"\x65no PPS"]),
        ([b"\x09\x10", b"\x65delimited"], [SPS, PPS, b"\x65delimited"]),
        ([b"\x06sei", b"\x65key"], [SPS, PPS, b"\x06sei", b"\x65key"]),
    ]
    for units, expected in cases:
        key = not units[0].startswith(b"\x41")
        report = check_ts(mux([VIDEO_TRACK], [Packet(0, 0, 0, key, b"".join(map(unit, units)))]))
        delimiter = b"\x09\x10" if units[0] == b"\x09\x10" else b"\x09\xf0"
        assert report.payloads(256) == [START + delimiter + b"".join(START + data for data in expected)]


def test_hevc_delimiter_and_parameter_sets() -> None:
    track = TrackInfo(VIDEO, "HEVC", HVCC)
    report = check_ts(
        mux([track], [Packet(0, 0, 0, True, unit(b"\x26\x01key")), Packet(0, 1, 0, False, unit(b"\x02\x01p"))])
    )
    sets = START + b"\x40\x01" + START + b"\x42\x01\x01"
    assert report.payloads(256) == [
        START + b"\x46\x01\x50" + sets + START + b"\x26\x01key",
        START + b"\x46\x01\x50" + START + b"\x02\x01p",
    ]


def test_av1_start_codes_and_escapes() -> None:
    sequence = b"\x0a\x02\x00\x10"
    track = TrackInfo(VIDEO, "AV1", b"\x81\x08\x0c\x00" + sequence)
    frame = b"\x32\x07" + b"\x00\x00\x01\x00\x00\x00\x00"
    delimiter = b"\x12\x00"
    report = check_ts(mux([track], [Packet(0, 0, 0, True, delimiter + frame), Packet(0, 1, 0, True, sequence + frame)]))
    escaped = b"\x00\x00\x01" + b"\x32\x07" + b"\x00\x00\x03\x01\x00\x00\x03\x00\x00"
    assert report.payloads(256) == [b"\x00\x00\x01" + sequence + escaped] * 2


@pytest.mark.parametrize("size", [1, 3, 254, 255, 256, 509, 510, 1275])
def test_opus_control_header(size: int) -> None:
    report = check_ts(mux([TrackInfo(AUDIO, "opus", OPUS_HEAD)], [Packet(0, 0, 0, True, b"x" * size)]))
    expected = b"\x7f\xe0" + b"\xff" * (size // 255) + bytes([size % 255])
    assert report.payloads(256) == [expected + b"x" * size]


@pytest.mark.parametrize("size", [*range(1, 400, 7), 65_000, 65_510, 65_525, 65_530, 70_000, 300_000])
def test_every_size_of_access_unit(size: int) -> None:
    packets = [
        Packet(0, number * 40_000, offset, False, unit(b"\x41" + b"z" * size))
        for number, offset in enumerate((0, 80_000))
    ]
    report = check_ts(mux([VIDEO_TRACK], packets))
    assert report.errors == []
    assert report.payloads(256) == [AUD + START + b"\x41" + b"z" * size] * 2


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\x00",
        b"\x00\x00\x00\x09abc",
        bytes(4),
        bytes(400),
        b"\xff\xff\xff\xff" + bytes(20),
        b"\x00\x00\x00\x00\x00\x00\x00\x20x",
    ],
)
def test_broken_video_payloads_write_nothing(payload: bytes) -> None:
    assert mux([VIDEO_TRACK], [Packet(0, 0, 0, True, payload)]) == b""


def test_what_is_valid_of_a_broken_payload_is_written() -> None:
    report = check_ts(mux([VIDEO_TRACK], [Packet(0, 0, 0, False, unit(b"\x41good") + b"\x00\x00\x99\x99bad")]))
    assert report.payloads(256) == [AUD + START + b"\x41good"]


def test_oversized_audio_is_left_out() -> None:
    assert mux([AUDIO_TRACK], [Packet(0, 0, 0, True, bytes(8185))]) == b""
    assert mux([AUDIO_TRACK], [Packet(0, 0, 0, True, bytes(8184))]) != b""
    assert mux([TrackInfo(AUDIO, "MP3")], [Packet(0, 0, 0, True, bytes(70_000))]) == b""
    assert mux([TrackInfo(AUDIO, "opus", OPUS_HEAD)], [Packet(0, 0, 0, True, bytes(70_000))]) == b""


def test_unknown_track() -> None:
    with pytest.raises(LocalProtocolError):
        TsMuxer([VIDEO_TRACK]).write(audio(0))


def test_broken_set_up_bytes() -> None:
    for size in range(len(AVCC)):
        assert len(parameter_sets_h264(AVCC[:size])) <= len(AVCC) + 8
    for size in range(len(HVCC)):
        assert len(parameter_sets_hevc(HVCC[:size])) <= len(HVCC) + 8
    assert parameter_sets_h264(AVCC) == START + SPS + START + PPS


def test_tracks_that_change() -> None:
    muxer = TsMuxer([VIDEO_TRACK], "live")
    output = b""
    for number in range(10):
        muxer.write(video(number))
    assert muxer.set_tracks([VIDEO_TRACK, AUDIO_TRACK])
    for packet in interleaved(2)[20:]:
        muxer.write(Packet(packet.track, packet.dts_us + 400_000, 0, packet.keyframe, packet.payload))
    output = muxer.take_output()
    report = check_ts(output)
    assert report.errors == []
    assert report.versions == [0, 1]
    assert report.pids == {256: 0x1B, 257: 0x0F}


def test_new_init_data_only_changes_keyframes() -> None:
    muxer = TsMuxer([VIDEO_TRACK], "live")
    muxer.write(video(0))
    muxer.set_tracks([replace(VIDEO_TRACK, init_data=AVCC.replace(SPS, b"\x67other"))])
    muxer.write(video(25))
    report = check_ts(muxer.take_output())
    assert report.errors == []
    assert report.versions == [0]
    assert b"\x67other" in report.payloads(256)[1]


def test_segments_follow_each_other() -> None:
    packets = interleaved(6)
    counters: dict[int, int] = {}
    for number in range(3):
        part = [p for p in packets if number * 2_000_000 <= p.dts_us < (number + 1) * 2_000_000]
        muxer = TsMuxer([VIDEO_TRACK, AUDIO_TRACK], "live", number, repeat_tables=False)
        for packet in part:
            muxer.write(packet)
        muxer.pad_counters()
        data = muxer.take_output()
        report = check_ts(data, counters)
        assert report.errors == []
        assert report.table_places == [1]
        assert len([pes for pes in report.pes if pes.payload]) == len(part)
        counters = report.last_counters
    assert counters[256] == counters[257] == 15


@pytest.mark.parametrize("count", range(1, 20))
@pytest.mark.parametrize("size", [100, 150, 184, 400, 5000])
def test_padding_brings_every_counter_to_zero(count: int, size: int) -> None:
    packets = [video(number, size=size) for number in range(count)] + [
        audio(number, size=size) for number in range(count)
    ]
    packets.sort(key=lambda packet: packet.dts_us)
    muxer = TsMuxer([VIDEO_TRACK, AUDIO_TRACK], repeat_tables=False)
    for packet in packets:
        muxer.write(packet)
    plain = check_ts(mux([VIDEO_TRACK, AUDIO_TRACK], packets, repeat_tables=False))
    muxer.pad_counters()
    report = check_ts(muxer.take_output())
    assert report.errors == []
    assert [report.last_counters[pid] for pid in (256, 257)] == [15, 15]
    assert report.pes == plain.pes
    assert report.pcrs == plain.pcrs
