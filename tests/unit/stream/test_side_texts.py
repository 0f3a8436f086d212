"""Subtitles beside a file: which files count, and where their texts come between the packets of the media."""

from __future__ import annotations

from pathlib import Path

from mist.core.demuxer import PacketList, demux
from mist.core.side_tracks import SideTracks
from mist.formats.flv import FlvDemuxer
from mist.formats.tracks import META, SUBTITLE, TrackInfo
from mist.stream.side_texts import SideTexts, read_side_texts, side_files
from tests.support.flv_files import flv_file, interleaved

SUBRIP = "1\n00:00:01,000 --> 00:00:02,000\n{}\n\n2\n00:10:00,000 --> 00:10:01,000\nNever\n"
WEBVTT = "WEBVTT\n\n00:00.500 --> 00:01.500\n{}\n"


def write(folder: Path, *names: str) -> str:
    for name in names:
        (folder / name).write_text((WEBVTT if name.endswith("vtt") else SUBRIP).format(name))
    return str(folder / "film[1].flv")


def test_which_files_count(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "film[1].flv.srt",
        "film[1].flv.vtt",
        "film[1].flv.ger.srt",
        "film[1].flv.ENG.vtt",
        "film[1].flv.e.srt",
        "film[1].flv.eng.txt",
        "film[1].flv.12a.srt",
        "film1.flv.srt",
        "film[1].srt",
    )
    (tmp_path / "film[1].flv.fre.srt").mkdir()
    found = [(file.name, language) for file, language in side_files(path)]
    assert found == [
        ("film[1].flv.srt", "und"),
        ("film[1].flv.vtt", "und"),
        ("film[1].flv.ENG.vtt", "eng"),
        ("film[1].flv.ger.srt", "ger"),
    ]


def test_one_that_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    path = write(tmp_path, "film[1].flv.srt", "film[1].flv.ger.srt")
    Path(path + ".srt").write_bytes(bytes(17 << 20))
    warnings: list[str] = []
    texts = read_side_texts(path, warnings.append)
    assert [info.language for info in texts.infos] == ["ger"]
    assert len(warnings) == 1 and "film[1].flv.srt" in warnings[0]


def test_the_stamp_follows_the_files(tmp_path: Path) -> None:
    path = write(tmp_path, "film[1].flv.srt")
    first = read_side_texts(path, print).stamp
    assert first == read_side_texts(path, print).stamp != 0
    write(tmp_path, "film[1].flv.ger.srt")
    assert read_side_texts(path, print).stamp not in (0, first)
    assert read_side_texts(str(tmp_path / "other.flv"), print) == SideTexts()


def ready(data: bytes) -> FlvDemuxer:
    demuxer = FlvDemuxer()
    demuxer.feed(data[: 1 << 14])
    assert demuxer.ready
    return demuxer


def test_texts_come_between_the_packets(tmp_path: Path) -> None:
    data = flv_file(interleaved(3.0))
    texts = read_side_texts(write(tmp_path, "film[1].flv.srt", "film[1].flv.ger.vtt"), print)
    media = ready(data)
    plain = len(demux(FlvDemuxer(), data))
    demuxer = texts.around(media)
    assert isinstance(demuxer, SideTracks) and demuxer.ready
    assert [(info.type, info.codec, info.language) for info in demuxer.tracks[2:]] == [
        (META, SUBTITLE, "und"),
        (META, SUBTITLE, "ger"),
    ]
    assert len({info.track_id for info in demuxer.tracks}) == 4
    packets = demux(demuxer, data)
    assert [(one.track, one.dts_us, one.payload) for one in packets if one.track > 1] == [
        (3, 500_000, b"film[1].flv.ger.vtt"),
        (2, 1_000_000, b"film[1].flv.srt"),
        (3, 1_500_000, b""),
        (2, 2_000_000, b""),
    ]
    assert len(packets) == plain + 4
    for place, packet in enumerate(packets):
        if packet.track > 1:
            following = next(one for one in packets[place:] if one.track < 2)
            assert following.dts_us >= packet.dts_us


def test_reading_elsewhere_gives_the_texts_from_there(tmp_path: Path) -> None:
    data = flv_file(interleaved(3.0))
    texts = read_side_texts(write(tmp_path, "film[1].flv.srt"), print)
    demuxer = texts.around(ready(data))
    demuxer.attach(PacketList())
    demuxer.seek(1_500_000, 0)
    found = PacketList()
    demuxer.attach(found)
    while (wanted := demuxer.want()) is not None:
        demuxer.feed(data[wanted[0] : wanted[0] + 1000])
    assert [one.dts_us for one in found.take() if one.track == 2] == [2_000_000]


def test_without_texts_the_demuxer_is_the_media_s_own() -> None:
    media = FlvDemuxer()
    assert SideTexts().around(media) is media


def test_tracks_that_come_late_are_behind() -> None:
    info = TrackInfo(META, SUBTITLE)
    media = ready(flv_file(interleaved(1.0)))
    demuxer = SideTracks(media, [info], [])
    seen: list[int] = []
    demuxer.on_tracks = lambda: seen.append(len(demuxer.tracks))
    media.tracks.append(media.tracks[1])
    assert media.on_tracks is not None
    media.on_tracks()
    assert seen == [4]
    assert demuxer.tracks[2] is info and demuxer.tracks[3] is media.tracks[1]
