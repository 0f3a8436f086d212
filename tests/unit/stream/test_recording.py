"""Targets of recordings, names, cuts and playlists."""

from __future__ import annotations

from datetime import datetime

import pytest

from mist.errors import ConfigError
from mist.formats.m3u8 import MediaPlaylist, parse_playlist
from mist.stream.recording import (
    Entry,
    RecordingPlaylist,
    file_name,
    iso_date,
    local_files,
    next_cut,
    other_name,
    parse_target,
    relative_uri,
)
from mist.stream.state import Key

NOW = datetime(2026, 11, 21, 8, 30, 1)
SECOND_US = 1_000_000


def key(sequence: int, seconds: float, breaks: int = 0) -> Key:
    return Key(sequence, round(seconds * SECOND_US), sequence, 0, breaks)


# -- targets


def test_a_plain_target() -> None:
    target = parse_target("/media/a.ts")
    assert (target.files, target.playlist, target.split_us, target.append) == ("/media/a.ts", "", 0, False)
    assert not target.prunes
    assert target.unlink
    assert target.end_list


@pytest.mark.parametrize(
    ("text", "upload"),
    [
        ("https://a.b/http_upload_hls?cid=x&copy=0&file=", ("https://a.b/http_upload_hls?cid=x&copy=0&file=", "")),
        ("https://a.b/c/http_upload_hls?file=&cid=x", ("https://a.b/c/http_upload_hls?file=", "&cid=x")),
    ],
)
def test_names_may_be_a_parameter_of_the_url(text: str, upload: tuple[str, str]) -> None:
    target = parse_target(text, ("https",))
    base = text.partition("/http_upload_hls")[0]
    assert target.upload == upload
    assert (target.files, target.playlist) == (f"{base}/$segmentCounter.ts", f"{base}/index.m3u8")
    assert (target.split_us, target.max_entries, target.unlink) == (SECOND_US, 3, False)


@pytest.mark.parametrize(
    "text", ["https://a.b/http_upload_hls?cid=x", "https://a.b/other.ts?file=", "/http_upload_hls?file="]
)
def test_other_names_are_in_the_path(text: str) -> None:
    assert parse_target(text, ("https",)).upload is None


def test_parameters_follow_the_last_question_mark() -> None:
    target = parse_target(
        "/m/a?b.ts?split=1.5&append&nounlink&noendlist&maxEntries=3&targetAge=60&adjustSplit&unmask&x=1"
    )
    assert target.files == "/m/a?b.ts"
    assert target.split_us == 1_500_000
    assert (target.append, target.unlink, target.end_list, target.adjust, target.unmask) == (
        True,
        False,
        False,
        True,
        True,
    )
    assert (target.max_entries, target.target_age_us) == (3, 60 * SECOND_US)
    assert target.prunes
    assert target.unknown == ("x",)


def test_a_playlist_and_segments_lie_beside_the_target() -> None:
    target = parse_target("/m/x/a.ts?m3u8=../list.m3u8&segment=seg/$segmentCounter.ts")
    assert target.files == "/m/x/seg/$segmentCounter.ts"
    assert target.playlist == "/m/x/../list.m3u8"
    assert target.split_us == 60 * SECOND_US
    assert parse_target("/m/${currentMediaTime}.ts?m3u8=l").playlist == "/m/l"


@pytest.mark.parametrize(
    "text", ["", "/m/a.ts?m3u8=list.m3u8", "/m/", "rtmp://a/b.ts", "a" * 5000, "/m/\0.ts", "/m/?split=1"]
)
def test_targets_that_cannot_be(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_target(text)


def test_file_urls_and_plus_signs() -> None:
    assert parse_target("file:///m/a%20b.ts").files == "/m/a b.ts"
    assert parse_target("/m/a.ts?m3u8=x&segment=live+a%26b$segmentCounter.ts").files == "/m/live+a&b$segmentCounter.ts"


def test_what_is_recorded() -> None:
    playback = parse_target("a.ts?start=1&recstart=2000&stop=5000&audio=deu&waitkey").playback
    assert (playback.start_us, playback.stop_us) == (2 * SECOND_US, 5 * SECOND_US)
    assert dict(playback.selectors) == {"audio": "deu"}
    assert playback.wait_key
    playback = parse_target("a.ts?recstartunix=-1&unixstart=-2&startunix=-3&unixstop=60&recstopunix=9").playback
    assert (playback.start_unix_s, playback.stop_unix_s) == (-3, 60)
    assert parse_target("a.ts?passthrough&audio=none").playback.selectors["audio"] == "none"
    assert parse_target("a.ts?passthrough").playback.selectors["video"] == "all"


# -- names


def test_names() -> None:
    pattern = "/m/$stream_$datetime/$segmentCounter-$currentMediaTime.ts"
    assert file_name(pattern, "live", NOW, counter=7, media_us=1_500_900) == "/m/live_2026.11.21.08.30.01/7-1500.ts"


def test_a_stream_name_stays_inside_the_folder() -> None:
    assert file_name("/m/$wildcard/a.ts", "live+..", NOW, counter=0, media_us=0) == "/m/_/a.ts"
    assert file_name("/m/$stream.ts", "live+../../etc/x", NOW, counter=0, media_us=0) == "/m/live+.._.._etc_x.ts"


def test_a_name_that_is_taken() -> None:
    assert other_name("/m.x/a.b.ts", 2) == "/m.x/a.b_2.ts"


# -- cuts


def test_a_cut_is_at_the_first_key_at_or_after_the_split() -> None:
    keys = [key(n * 10, n) for n in range(6)]
    assert next_cut(keys, keys[0], 2 * SECOND_US, 99 * SECOND_US) == keys[2]
    assert next_cut(keys, keys[0], 2 * SECOND_US + 1, 99 * SECOND_US) == keys[3]
    assert next_cut(keys, keys[2], 2 * SECOND_US, 99 * SECOND_US) == keys[4]
    assert next_cut(keys, keys[4], 2 * SECOND_US, 99 * SECOND_US) is None
    assert next_cut(keys, keys[0], 2 * SECOND_US, 2 * SECOND_US) == keys[2]
    assert next_cut(keys, keys[0], 2 * SECOND_US, 2 * SECOND_US - 1) is None
    assert next_cut(keys, keys[0], 0, 99 * SECOND_US) is None


def test_a_cut_where_times_broke() -> None:
    keys = [key(0, 0), key(1, 1), key(2, 2, 1), key(3, 3, 1)]
    assert next_cut(keys, keys[0], 10 * SECOND_US, 99 * SECOND_US, at_breaks=True) == keys[2]
    assert next_cut(keys, keys[0], 10 * SECOND_US, 99 * SECOND_US) is None
    assert next_cut(keys, keys[2], 10 * SECOND_US, 99 * SECOND_US, at_breaks=True) is None


# -- playlists


def filled(query: str, durations_s: list[float]) -> tuple[RecordingPlaylist, list[Entry]]:
    made = RecordingPlaylist(parse_target(f"/m/$segmentCounter.ts?m3u8=list.m3u8{query}"))
    gone: list[Entry] = []
    for number, duration_s in enumerate(durations_s):
        gone += made.add(
            Entry(f"{number}.ts", round(duration_s * SECOND_US), iso_date((1_700_000_000 + number) * SECOND_US))
        )
    return made, gone


def test_the_text_of_a_list() -> None:
    made, gone = filled("&split=2", [2, 2.0004])
    assert not gone
    assert made.text(ended=True) == (
        "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-PLAYLIST-TYPE:EVENT\n#EXT-X-TARGETDURATION:3\n#EXT-X-MEDIA-SEQUENCE:0\n"
        "#EXT-X-PROGRAM-DATE-TIME:2023-11-14T22:13:20.000Z\n#EXTINF:2.000,\n0.ts\n"
        "#EXT-X-PROGRAM-DATE-TIME:2023-11-14T22:13:21.000Z\n#EXTINF:2.000,\n1.ts\n#EXT-X-ENDLIST\n"
    )
    assert "ENDLIST" not in made.text(ended=False)
    assert "ENDLIST" not in filled("&noendlist", [1])[0].text(ended=True)


def test_a_list_with_a_number_of_entries() -> None:
    made, gone = filled("&split=2&maxEntries=2", [2] * 5)
    assert [one.uri for one in gone] == ["0.ts", "1.ts", "2.ts"]
    text = made.text(ended=True)
    assert "#EXT-X-MEDIA-SEQUENCE:3\n" in text
    assert "PLAYLIST-TYPE" not in text
    assert "ENDLIST" not in text


def test_a_list_with_an_age() -> None:
    made, gone = filled("&targetAge=5", [2] * 5)
    assert [one.uri for one in gone] == ["0.ts", "1.ts"]
    assert [one.uri for one in made.entries] == ["2.ts", "3.ts", "4.ts"]
    assert [one.uri for one in filled("&targetAge=1", [9, 9])[0].entries] == ["1.ts"]


def test_a_list_is_continued() -> None:
    first, _ = filled("&split=2&maxEntries=3", [2, 2, 7, 2])
    old = parse_playlist(first.text(ended=True).encode())
    assert isinstance(old, MediaPlaylist)
    second = RecordingPlaylist(parse_target("/m/$segmentCounter.ts?m3u8=list.m3u8&append&split=2"))
    second.continue_from(old)
    assert second.next_number == 4
    second.add(Entry("4.ts", 2 * SECOND_US))
    second.add(Entry("5.ts", 2 * SECOND_US))
    found = parse_playlist(second.text(ended=True).encode())
    assert isinstance(found, MediaPlaylist)
    assert [one.uri for one in found.segments] == ["1.ts", "2.ts", "3.ts", "4.ts", "5.ts"]
    assert [one.discontinuity for one in found.segments] == [False, False, False, True, False]
    assert found.target_duration_s == 8
    assert found.media_sequence == 1


def test_addresses_in_lists() -> None:
    assert relative_uri("/m/list.m3u8", "/m/x/a b#1.ts") == "x/a%20b%231.ts"
    assert relative_uri("/m/l/list.m3u8", "/m/live+a.ts") == "../live+a.ts"
    assert iso_date(0) == ""


def test_only_files_of_the_recording_are_deleted() -> None:
    uris = ["a.ts", "x/b%20c.ts", "../up.ts", "/etc/passwd", "http://example.org/a.ts", "../seg/0.ts"]
    found = local_files("/m/l/list.m3u8", [Entry(uri, 1) for uri in uris], "/m/seg/$segmentCounter.ts")
    assert found == ["/m/l/a.ts", "/m/l/x/b c.ts", "/m/seg/0.ts"]
