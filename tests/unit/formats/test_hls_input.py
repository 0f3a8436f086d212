"""Following of HLS playlists: what is new, where times belong, what segments say of their times, and keys."""

from __future__ import annotations

import json

import pytest

from mist.core.packet import Packet
from mist.errors import LimitExceededError, RemoteProtocolError, UnsupportedError
from mist.formats.hls_follow import PlaylistFollower, PresentationClock
from mist.formats.hls_segments import (
    WRAP_US,
    NewTexts,
    SegmentMedia,
    check_key,
    decrypt,
    each_once,
    read_segment,
    renditions_of,
    resolve_ranges,
    unix_us,
)
from mist.formats.m3u8 import Key, MasterPlaylist, MediaPlaylist, Segment, Variant, parse_playlist
from mist.formats.tracks import AAC, AUDIO, TrackInfo

SOUND = (TrackInfo(AUDIO, AAC),)


def playlist(first: int, count: int, ended: bool = False) -> MediaPlaylist:
    segments = tuple(Segment(f"{n}.ts", 2_000_000, sequence=n) for n in range(first, first + count))
    return MediaPlaylist(2, segments, media_sequence=first, ended=ended)


def numbers(follower: PlaylistFollower, of: MediaPlaylist | None) -> list[int]:
    return [one.segment.sequence for one in follower.take(of)]


def cues(mpegts: int, local: str, *lines: str) -> tuple[Packet, ...]:
    text = f"WEBVTT\nX-TIMESTAMP-MAP=MPEGTS:{mpegts},LOCAL:{local}\n\n" + "\n\n".join(lines)
    return read_segment(text.encode()).packets


@pytest.mark.parametrize("off_ticks", (0, 1, -1, 45, -45))
def test_a_live_text_that_stands_in_several_segments_comes_once(off_ticks: int) -> None:
    """Also where the segments' time stamps are rounded otherwise."""
    texts = NewTexts(64)
    long = "00:00:02.000 --> 00:00:06.000\nlong"
    first = cues(900_000, "00:00:00.000", "00:00:00.000 --> 00:00:01.000\nfirst", long)
    second = cues(900_000 + 4 * 90_000 + off_ticks, "00:00:04.000", long, "00:00:04.500 --> 00:00:05.000\nbeside")
    third = cues(900_000 + 8 * 90_000, "00:00:08.000", "00:00:08.000 --> 00:00:09.000\nlong")
    found = [(packet.dts_us // 1000, packet.payload) for packet in (*first, *second, *third) if texts.take(packet)]
    assert [text for _, text in found] == [b"first", b"", b"long", b"", b"long\nbeside", b"long", b"long", b""]
    assert [time_ms for time_ms, _ in found[:4]] == [10_000, 11_000, 12_000, 16_000]


def test_live_texts_of_other_tracks_are_new() -> None:
    texts = NewTexts(64)
    assert [texts.take(Packet(track, 0, 0, True, b"text")) for track in (0, 1, 0, 1)] == [True, True, False, False]
    assert not texts.take(Packet(0, 500_000, 0, True, b"text"))  # shown already
    assert not texts.take(Packet(2, 0, 0, True, b""))  # nothing to take away


def test_a_live_playlist_begins_three_targets_before_its_end() -> None:
    follower = PlaylistFollower()
    assert numbers(follower, playlist(10, 8)) == [15, 16, 17]
    assert numbers(follower, None) == []
    assert (follower.reload_s(True), follower.reload_s(False)) == (2.0, 1.0)
    assert numbers(follower, playlist(12, 8)) == [18, 19]


def test_missed_segments_count_and_a_restart_begins_anew() -> None:
    follower = PlaylistFollower()
    follower.take(playlist(0, 3))
    missed = follower.take(playlist(5, 2))
    assert follower.skipped == 2 and missed[0].skipped_us == 4_000_000
    again = follower.take(playlist(0, 1))
    assert follower.restarts == 1 and [one.run for one in again] == [(1, 0)]


def test_a_follower_goes_on_after_another() -> None:
    follower = PlaylistFollower()
    follower.go_on(4, 1)
    assert [(one.segment.sequence, one.run) for one in follower.take(playlist(2, 4))] == [(4, (1, 0)), (5, (1, 0))]
    late = PlaylistFollower()
    late.go_on(1, 0)
    assert [one.skipped_us for one in late.take(playlist(2, 2))] == [2_000_000, 0] and late.skipped == 1


def test_a_clock_goes_on_where_another_was() -> None:
    clock, other = PresentationClock(), PresentationClock()
    first = clock.shift_us(media(5_000_000), (0, 0), None)
    other.restore(json.loads(json.dumps(clock.export_state())))
    assert other.shift_us(media(7_000_000), (0, 0), 2_000_000) == first == -5_000_000


def media(first_us: int) -> SegmentMedia:
    return SegmentMedia(SOUND, (Packet(0, first_us, 0, True, b"x"),))


def test_times_wrap_and_go_on_behind_a_discontinuity() -> None:
    clock = PresentationClock()
    late_us = WRAP_US - 1_000_000
    shift_us = clock.shift_us(media(late_us), (0, 0), None)
    assert late_us + shift_us == 0
    assert 1_000_000 + clock.shift_us(media(1_000_000), (0, 0), 2_000_000) == 2_000_000
    assert 77 + clock.shift_us(media(77), (0, 1), 4_000_000) == 4_000_000
    assert 2_000_077 + clock.shift_us(media(2_000_077), (0, 1), None) == 6_000_000, "another rendition"


def test_texts_have_the_times_of_their_map() -> None:
    text = b"WEBVTT\nX-TIMESTAMP-MAP=LOCAL:00:00:01.000,MPEGTS:900000\n\n00:03.000 --> 00:04.000\nHello\n"
    assert [(one.dts_us, one.payload) for one in read_segment(text).packets] == [
        (12_000_000, b"Hello"),
        (13_000_000, b""),
    ]


def test_every_playlist_is_named_once() -> None:
    twice = MasterPlaylist((Variant("low", 1), Variant("high", 9), Variant("high", 9, audio="other")))
    assert [one.uri for one in renditions_of(twice)] == ["high", "low"]
    with pytest.raises(LimitExceededError):
        renditions_of(MasterPlaylist(tuple(Variant(str(n), n) for n in range(17))))
    with pytest.raises(RemoteProtocolError):
        renditions_of(MasterPlaylist(()))


def test_byte_ranges_go_on() -> None:
    found = resolve_ranges([Segment("a", 1, byte_range=(10, 5)), Segment("a", 1, byte_range=(7, None))])
    assert [one.byte_range for one in found] == [(10, 5), (7, 15)]
    with pytest.raises(RemoteProtocolError):
        resolve_ranges([Segment("a", 1, byte_range=(7, None))])


def test_dates() -> None:
    assert unix_us("2026-01-01T01:00:00.5+0100") == unix_us("2026-01-01T00:00:00.500Z") == 1_767_225_600_500_000
    assert unix_us("") == unix_us("2026-13-01T00:00:00Z") == 0


def test_lenient_reading_takes_what_players_take() -> None:
    text = b"\xef\xbb\xbf#EXTM3U \n#EXT-X-TARGETDURATION:1\n#EXTINF:3.5\na.ts\n"
    found = parse_playlist(text, lenient=True)
    assert isinstance(found, MediaPlaylist) and found.target_duration_s == 4
    with pytest.raises(RemoteProtocolError):
        parse_playlist(text)


def test_keys() -> None:
    ciphers = pytest.importorskip("cryptography.hazmat.primitives.ciphers")
    secret = bytes(range(16))
    sealer = ciphers.Cipher(ciphers.algorithms.AES(secret), ciphers.modes.CBC((7).to_bytes(16, "big"))).encryptor()
    sealed = sealer.update(b"media" + bytes([11]) * 11) + sealer.finalize()
    assert decrypt(sealed, Key("AES-128", "k"), secret, 7) == b"media"
    for bad, key in ((sealed[:-1], secret), (sealed, secret[:-1]), (sealed, bytes(16))):
        with pytest.raises(RemoteProtocolError):
            decrypt(bad, Key("AES-128", "k"), key, 7)
    with pytest.raises(UnsupportedError):
        check_key(Key("SAMPLE-AES", "k"))


def test_texts_of_several_segments_come_once() -> None:
    """A cue stands in each segment in which it is shown, or is cut where a segment ends."""

    def texts(*cues: str) -> list[Packet]:
        return list(read_segment(("WEBVTT\n\n" + "\n\n".join(cues)).encode()).packets)

    long = "00:01.000 --> 00:09.000\nlong"
    first, second = texts(long), texts(long, "00:06.000 --> 00:07.000\nshort")
    cut = texts("00:08.000 --> 00:09.000\nlong", "00:10.000 --> 00:11.000\nlong")
    shown = [(packet.dts_us // 1000, packet.payload.decode()) for packet in each_once([*first, *second, *cut])]
    assert shown == [
        (1000, "long"), (6000, "long\nshort"), (7000, "long"), (9000, ""), (10_000, "long"), (11_000, "")
    ]  # fmt: skip
    cut = [*texts("00:01.000 --> 00:04.000\nlong"), *texts("00:04.000 --> 00:05.000\nlong")]
    assert [(packet.dts_us // 1000, packet.payload) for packet in each_once(cut)] == [(1000, b"long"), (5000, b"")]
