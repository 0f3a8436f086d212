"""Which tracks go along, and the pump between demuxer and muxer."""

from __future__ import annotations

import pytest

from mist.core.demuxer import demux
from mist.core.flv import FlvMuxer
from mist.core.packet import Packet
from mist.errors import NoSuitableTrack, RemoteProtocolError, UnsupportedError
from mist.formats import h264
from mist.formats.containers import Container, by_name
from mist.formats.tracks import AUDIO, META, VIDEO, TrackInfo
from mist.stream.conversion import Conversion, Wishes, choose_tracks

SPS = bytes.fromhex("6742c01fd9005005bb0110000003001000000303c0f1832480")  # 1280x720
LARGER_SPS = bytes.fromhex("67640028acd940780227e5c05a808080a0000003002000000791e30632c0")  # 1920x1080
PPS = bytes.fromhex("68cb83cb20")
VIDEO_TRACK = TrackInfo(VIDEO, "H264", h264.build_avcc([SPS], [PPS]), width=1280, height=720)
AUDIO_TRACK = TrackInfo(AUDIO, "AAC", b"\x12\x10", sample_rate_hz=44100, channels=2)
MPEG_AUDIO = TrackInfo(AUDIO, "MP3", language="deu", sample_rate_hz=44100, channels=2)
OTHER_AUDIO = TrackInfo(AUDIO, "AAC", b"\x12\x10", language="eng", sample_rate_hz=44100, channels=2, bandwidth_bps=9)
SUBTITLE = TrackInfo(META, "subtitle")
ANY = Container("any", (".any",), "x/x", make_muxer=lambda tracks: FlvMuxer([]), codecs=((("+*",),),))
ONE = Container("one", (".one",), "x/x", make_muxer=lambda tracks: FlvMuxer([]), codecs=((("AAC", "MP3"),),))


def video(number: int) -> Packet:
    key = number % 25 == 0
    unit = (b"\x65\x88" if key else b"\x41\x9a") + bytes([number & 255]) * 300
    return Packet(0, number * 40_000, 0, key, len(unit).to_bytes(4, "big") + unit)


def audio(number: int) -> Packet:
    return Packet(1, number * 1024 * 1_000_000 // 44100, 0, True, bytes([number & 255]) * 50)


ALL = [VIDEO_TRACK, AUDIO_TRACK, MPEG_AUDIO, SUBTITLE, OTHER_AUDIO]


def format_of(name: str) -> Container:
    found = by_name(name)
    assert found is not None
    return found


def source(seconds: float = 3) -> tuple[list[Packet], bytes]:
    """Return packets, and the FLV file of them."""
    packets = [video(number) for number in range(int(seconds * 25))]
    packets += [audio(number) for number in range(int(seconds * 44100 / 1024))]
    packets.sort(key=lambda packet: packet.dts_us)
    muxer = FlvMuxer([VIDEO_TRACK, AUDIO_TRACK])
    head = muxer.header(0)
    for packet in packets:
        muxer.write(packet)
    return packets, head + muxer.take_output()


def convert(data: bytes, name: str = "flv", wishes: Wishes | None = None, *, step: int = 1 << 18) -> bytes:
    make = format_of("flv").make_demuxer
    assert make is not None
    conversion = Conversion(make(), format_of(name), wishes or Wishes())
    made = b""
    while (wanted := conversion.want()) is not None:
        position, count = wanted
        conversion.feed(data[position : position + min(count, step)])
        made += conversion.output.take()
    conversion.finish()
    return made + conversion.output.take()


def read(data: bytes, name: str = "flv") -> list[Packet]:
    make = format_of(name).make_demuxer
    assert make is not None
    return demux(make(), data)


# --- choosing tracks ------------------------------------------------------------------------------------------------


def test_every_track_goes_along_where_there_is_room() -> None:
    assert choose_tracks(ALL, ANY, {}) == ([0, 1, 2, 3, 4], [])


def test_what_a_format_cannot_carry_is_left_out_and_told() -> None:
    picked, left_out = choose_tracks(ALL, format_of("flv"), {})
    assert picked == [0, 1, 2, 4]
    assert [str(one) for one in left_out] == ["track 3 (meta, subtitle) is left out: flv cannot carry subtitle"]


def test_a_format_of_one_track_takes_the_first_and_tells_of_the_others() -> None:
    picked, left_out = choose_tracks(ALL, ONE, {"video": "none", "meta": "none"})
    assert picked == [1]
    assert [(one.index, one.reason) for one in left_out] == [
        (2, "one has no room for another audio track"),
        (4, "one has no room for another audio track"),
    ]


@pytest.mark.parametrize(
    ("selectors", "picked"),
    [
        ({"audio": "deu"}, [0, 2, 3]),
        ({"audio": "2,1"}, [0, 1, 2, 3]),
        ({"audio": "none", "subtitle": "none"}, [0]),
        ({"video": "none"}, [1, 2, 3, 4]),
        ({"audio": "!AAC", "video": "auto"}, [0, 2, 3]),
        ({"meta": "none", "audio": "maxbps"}, [0, 4]),
    ],
)
def test_selectors(selectors: dict[str, str], picked: list[int]) -> None:
    assert choose_tracks(ALL, ANY, selectors) == (picked, [])


def test_no_track_at_all_is_an_error_that_says_why() -> None:
    with pytest.raises(NoSuitableTrack, match="there is no track in it"):
        choose_tracks([], ANY, {})
    with pytest.raises(NoSuitableTrack, match="no track fits the selection"):
        choose_tracks([VIDEO_TRACK], ANY, {"video": "none"})
    with pytest.raises(NoSuitableTrack, match=r"track 0 \(meta, subtitle\) is left out: flv cannot carry subtitle"):
        choose_tracks([SUBTITLE], format_of("flv"), {})


def test_a_track_that_the_muxer_refuses_is_left_out() -> None:
    broken = TrackInfo(VIDEO, "H264")
    picked, left_out = choose_tracks([broken, AUDIO_TRACK], format_of("fmp4"), {})
    assert picked == [1] and left_out[0].index == 0 and left_out[0].reason


# --- the pump -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [1 << 18, 1000, 7])
def test_packets_come_out_as_they_went_in(step: int) -> None:
    packets, data = source()
    again = convert(data, step=step)
    assert again == convert(data)
    assert read(again) == read(data)
    assert len(read(data)) == len(packets)


def test_a_conversion_to_itself_is_the_same_file() -> None:
    data = convert(source()[1])
    assert convert(data) == data


def test_start_and_stop() -> None:
    data = source()[1]
    whole = read(data)
    part = read(convert(data, wishes=Wishes(start_us=1_500_000, stop_us=2_000_000)))
    assert part == [p for p in whole if 1_000_000 <= p.dts_us < 2_000_000]
    moved = read(convert(data, wishes=Wishes(start_us=1_500_000, from_zero=True)))
    assert moved[0].dts_us == 0 and len(moved) == len([p for p in whole if p.dts_us >= 1_000_000])


def test_a_conversion_stops_reading_where_it_stops() -> None:
    data = source(20)[1]
    make = format_of("flv").make_demuxer
    assert make is not None
    conversion = Conversion(make(), format_of("ts"), Wishes(stop_us=2_000_000))
    fed = 0
    while (wanted := conversion.want()) is not None:
        conversion.feed(data[wanted[0] : wanted[0] + 10_000])
        fed += 10_000
    assert fed < len(data) / 5
    assert 2_000_000 <= conversion.position_us < 3_000_000
    assert conversion.packets > 50
    conversion.finish()


def test_a_start_after_the_end_is_an_error() -> None:
    with pytest.raises(NoSuitableTrack, match="there is no packet in it after the start"):
        convert(source()[1], wishes=Wishes(selectors={"video": "none"}, start_us=10_000_000))


def test_an_empty_input_is_an_error() -> None:
    with pytest.raises((NoSuitableTrack, RemoteProtocolError)):
        convert(b"FLV\1\5\0\0\0\x09\0\0\0\0")


def test_new_init_data_on_the_way_goes_on() -> None:
    first, second = source(1)[0], source(1)[0]
    muxer = FlvMuxer([VIDEO_TRACK, AUDIO_TRACK])
    head = muxer.header(0)
    for packet in first:
        muxer.write(packet)
    changed = VIDEO_TRACK.changed(init_data=h264.build_avcc([LARGER_SPS], [PPS]))
    muxer.set_tracks([changed, AUDIO_TRACK])
    for packet in second:
        muxer.write(Packet(packet.track, packet.dts_us + 1_000_000, packet.offset_us, packet.keyframe, packet.payload))
    data = head + muxer.take_output()
    assert read(convert(data)) == read(data)
    assert len(read(data)) == len(first) + len(second)


def test_a_muxer_that_cannot_follow_a_change_says_where() -> None:
    first = source(1)[0]
    muxer = FlvMuxer([VIDEO_TRACK, AUDIO_TRACK])
    data = muxer.header(0)
    for packet in first:
        muxer.write(packet)
    muxer.set_tracks([VIDEO_TRACK, AUDIO_TRACK.changed(init_data=b"\x12\x08", channels=1)])
    muxer.write(audio(50))
    data += muxer.take_output()
    with pytest.raises(UnsupportedError, match=r"track 1 \(audio, AAC\) changes after 0\.9\d+ s .* fmp4 cannot follow"):
        convert(data, "fmp4")


def test_damage_far_behind_the_beginning_is_told() -> None:
    packets, data = source()
    told: list[str] = []
    make = format_of("flv").make_demuxer
    assert make is not None
    conversion = Conversion(make(), format_of("ts"), Wishes(), tell=told.append)
    place = data.index(b"\x09", len(data) // 2)
    while int.from_bytes(data[place - 4 : place], "big") > 400 or any(data[place + 8 : place + 11]):
        place = data.index(b"\x09", place + 1)
    bent = data[:place] + bytes(100) + data[place:]
    while (wanted := conversion.want()) is not None:
        conversion.feed(bent[wanted[0] : wanted[0] + 4096])
    conversion.finish()
    assert conversion.packets in (len(packets), len(packets) - 1)
    assert (
        len(told) == 1 and told[0].startswith(f"byte {place + 15} (") and "no FLV tag" in told[0]
    )  # the first zeros are an empty tag
