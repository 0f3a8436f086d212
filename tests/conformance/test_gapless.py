"""Sound that begins and ends inside of a frame: what is heard stays what it was, to the sample, through every format that can say it."""

from __future__ import annotations

import struct
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest

from mist.core.packet_log import PacketLog, packed_log
from mist.formats import ogg
from mist.formats.mp4_file import make_layout
from tests.support.format_matrix import convert_file
from tests.support.mp4_boxes_reader import boxes
from tests.support.tools import find_tool, run

pytestmark = pytest.mark.tools("ffmpeg", "ffmpeg-new", "opusenc", "opusdec", "oggenc", "oggdec", "opusinfo", "mkvmerge")

TIMEOUT_S = 60
RATE = 48000
SAMPLES = 2 * RATE + 333


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("gapless")
    tone = f"sine=frequency=440:sample_rate={RATE}:duration=3,atrim=end_sample={SAMPLES},aformat=channel_layouts=stereo"
    run(
        [find_tool("ffmpeg"), "-v", "error", "-f", "lavfi", "-i", tone, "-c:a", "pcm_s16le", str(made / "in.wav")],
        TIMEOUT_S,
    )
    return made


@cache
def encoded(folder: Path, suffix: str) -> Path:
    """Return the tone as another program encodes it."""
    source, target = str(folder / "in.wav"), folder / f"source{suffix}"
    aac = [find_tool("ffmpeg"), "-v", "error", "-i", source, "-c:a", "aac", "-flags", "+bitexact"]
    commands = {
        ".opus": [find_tool("opusenc"), "--quiet", "--serial", "7", source, str(target)],
        ".60.opus": [find_tool("opusenc"), "--quiet", "--serial", "7", "--framesize", "60", source, str(target)],
        ".ogg": [find_tool("oggenc"), "-Q", "-s", "7", "-o", str(target), source],
        ".m4a": [*aac, str(target)],
        ".bare.m4a": [*aac, "-use_editlist", "0", str(target)],
        ".frag.m4a": [*aac, "-movflags", "frag_keyframe+delay_moov", "-frag_duration", "500000", str(target)],
        ".pieces.m4a": [*aac, "-movflags", "frag_every_frame+delay_moov", str(target)],
        ".webm": [find_tool("ffmpeg"), "-v", "error", "-i", source, "-c:a", "libopus", str(target)],
    }
    run(commands[suffix], TIMEOUT_S)
    return target


def converted(folder: Path, source: Path, *formats: str) -> Path:
    """Return what comes out of a chain of conversions. formats: of the source, and of each output."""
    for step, (read, written) in enumerate(pairwise(formats)):
        target = folder / f"{'-'.join(formats)}-{step}.{written}"
        convert_file(source, read, target, written)
        source = target
    return source


def heard(path: Path, tool: str) -> int:
    """Return how many samples a program plays of a file."""
    target = path.with_suffix(path.suffix + ".raw")
    commands = {
        "opusdec": [find_tool("opusdec"), "--quiet", "--rate", str(RATE), str(path), str(target.with_suffix(".wav"))],
        "oggdec": [find_tool("oggdec"), "-Q", "-R", "-o", str(target), str(path)],
    }
    ffmpeg = [find_tool("ffmpeg-new"), "-v", "error", "-y", "-i", str(path), "-f", "s16le", "-ac", "2", str(target)]
    run(commands.get(tool, ffmpeg), TIMEOUT_S)
    if tool == "opusdec":
        data = target.with_suffix(".wav").read_bytes()
        return len(data.partition(b"data")[2][4:]) // 4
    return target.stat().st_size // 4


def tables(path: Path) -> dict[str, bytes]:
    """Return the boxes of a file by the last part of their path."""
    return {box.path.rpartition("/")[2]: box.body for box in boxes(path.read_bytes())}


def media_ticks(found: dict[str, bytes]) -> int:
    """Return the sum of a track's durations."""
    rows = struct.iter_unpack(">II", found["stts"][8:])
    return sum(count * delta for count, delta in rows)


@pytest.mark.parametrize(
    "formats",
    [
        ("ogg", "ogg"),
        ("ogg", "mkv", "ogg"),
        ("ogg", "webm", "ogg"),
        ("ogg", "mp4", "ogg"),
        ("ogg", "dtsc", "ogg"),
        ("ogg", "mp4", "mkv", "dtsc", "mp4", "ogg"),
    ],
)
@pytest.mark.parametrize("suffix", [".opus", ".60.opus"])
def test_opus_has_the_same_samples(folder: Path, suffix: str, formats: tuple[str, ...]) -> None:
    source = encoded(folder, suffix)
    assert heard(source, "opusdec") == SAMPLES
    made = converted(folder, source, *formats)
    assert heard(made, "opusdec") == SAMPLES
    said = run([find_tool("opusinfo"), str(made)], TIMEOUT_S).stdout
    assert b"WARNING" not in said, said


@pytest.mark.parametrize("suffix", [".opus", ".60.opus"])
def test_matroska_says_how_much_of_the_last_block_is_heard(folder: Path, suffix: str) -> None:
    made = converted(folder, encoded(folder, suffix), "ogg", "mkv")
    assert heard(made, "ffmpeg") == SAMPLES
    again = folder / "by-mkvmerge.mkv"
    run([find_tool("mkvmerge"), "-q", "-o", str(again), str(made)], TIMEOUT_S)
    assert heard(converted(folder, again, "mkv", "ogg"), "opusdec") == SAMPLES


def test_matroska_of_others_keeps_its_end(folder: Path) -> None:
    source = encoded(folder, ".webm")
    assert heard(source, "ffmpeg") == SAMPLES
    for formats in (("webm", "webm"), ("webm", "mp4", "mkv"), ("webm", "ogg", "mkv")):
        assert heard(converted(folder, source, *formats), "ffmpeg") == SAMPLES


@pytest.mark.parametrize(
    "formats", [("ogg", "ogg"), ("ogg", "mkv", "ogg"), ("ogg", "dtsc", "ogg"), ("ogg", "webm", "ogg")]
)
def test_vorbis_has_the_same_samples(folder: Path, formats: tuple[str, ...]) -> None:
    source = encoded(folder, ".ogg")
    assert heard(source, "oggdec") == SAMPLES
    assert heard(converted(folder, source, *formats), "oggdec") == SAMPLES


def test_mp4_of_opus_says_where_it_begins_and_ends(folder: Path) -> None:
    """Encapsulation of Opus in ISOBMFF sections 4.3.6.2 and 4.4: edit list, last duration, and roll groups."""
    source = encoded(folder, ".opus")
    skipped = int.from_bytes(source.read_bytes()[28 + 10 : 28 + 12], "little")
    found = tables(converted(folder, source, "ogg", "mp4"))
    assert media_ticks(found) == skipped + SAMPLES
    _, media_time, _ = struct.unpack(">IiI", found["elst"][8:])
    assert media_time == skipped
    assert struct.unpack(">4x4sIIh", found["sgpd"]) == (b"roll", 2, 1, -4)
    assert found["sbgp"][4:8] == b"roll"


@pytest.mark.parametrize(
    "formats",
    [
        ("mp4", "mp4"),
        ("mp4", "dtsc", "mp4"),
        ("mp4", "mkv", "mp4"),
        ("mp4", "mkv", "dtsc", "mkv", "mp4"),
        ("mp4", "dtsc", "mkv", "mp4"),
    ],
)
def test_mp4_of_aac_keeps_its_beginning_and_end(folder: Path, formats: tuple[str, ...]) -> None:
    source = encoded(folder, ".m4a")
    before, after = tables(source), tables(converted(folder, source, *formats))
    assert media_ticks(after) == media_ticks(before) == 1024 + SAMPLES
    assert struct.unpack(">IiI", after["elst"][8:])[1] == struct.unpack(">IiI", before["elst"][8:])[1] == 1024
    assert heard(converted(folder, source, *formats), "ffmpeg") == heard(source, "ffmpeg")


def test_matroska_says_what_of_aac_is_for_the_decoder_alone(folder: Path) -> None:
    """CodecDelay, which mkvmerge hands on."""
    made = converted(folder, encoded(folder, ".m4a"), "mp4", "mkv")
    assert bytes.fromhex("56aa84") + (1024 * 10**9 // RATE).to_bytes(4, "big") in made.read_bytes()
    assert heard(made, "ffmpeg") == heard(encoded(folder, ".m4a"), "ffmpeg")
    again = folder / "aac-by-mkvmerge.mkv"
    run([find_tool("mkvmerge"), "-q", "-o", str(again), str(made)], TIMEOUT_S)
    found = tables(converted(folder, again, "mkv", "mp4"))
    assert struct.unpack(">IiI", found["elst"][8:])[1] == 1024


@pytest.mark.parametrize("suffix", [".frag.m4a", ".pieces.m4a"])
def test_fragments_end_where_the_sound_does(folder: Path, suffix: str) -> None:
    """The last sample's duration in the last fragment, and the edit list, which has no length in a file of fragments."""
    source = encoded(folder, suffix)
    after = tables(converted(folder, source, "mp4", "mp4"))
    skipped = struct.unpack(">IiI", after["elst"][8:])[1]
    assert skipped == 1024
    assert media_ticks(after) == skipped + SAMPLES
    again = tables(converted(folder, source, "mp4", "mkv", "mp4"))
    assert media_ticks(again) == skipped + SAMPLES and struct.unpack(">IiI", again["elst"][8:])[1] == skipped


def test_what_itunes_says_of_gaps_is_followed(folder: Path) -> None:
    """The comment iTunSMPB, where there is no edit list."""
    data = encoded(folder, ".bare.m4a").read_bytes()
    said = f" 00000000 {1024:08X} {500:08X} {SAMPLES - 300:016X}".encode() + b" 00000000" * 8

    def box(kind: bytes, *parts: bytes) -> bytes:
        body = b"".join(parts)
        return struct.pack(">I4s", len(body) + 8, kind) + body

    comment = box(
        b"----",
        box(b"mean", bytes(4), b"com.apple.iTunes"),
        box(b"name", bytes(4), b"iTunSMPB"),
        box(b"data", struct.pack(">II", 1, 0), said),
    )
    extra = box(b"udta", box(b"meta", bytes(4), box(b"hdlr", bytes(8), b"mdirappl", bytes(9)), box(b"ilst", comment)))
    at = data.rindex(b"moov") - 4
    size = int.from_bytes(data[at : at + 4], "big")
    assert at + size == len(data)
    source = folder / "itunes.m4a"
    source.write_bytes(data[:at] + struct.pack(">I", size + len(extra)) + data[at + 4 :] + extra)
    found = tables(converted(folder, source, "mp4", "mp4"))
    assert media_ticks(found) == 1024 + SAMPLES - 300
    assert struct.unpack(">IiI", found["elst"][8:])[1] == 1024


def test_a_file_of_known_length_ends_where_the_sound_does(folder: Path) -> None:
    """The log of packets that lengths are made from keeps what the last one loses."""
    source = encoded(folder, ".opus")
    data = source.read_bytes()
    demuxer, log = ogg.make_demuxer(), PacketLog()
    demuxer.attach(log)
    while (wanted := demuxer.want()) is not None:
        demuxer.feed(data[wanted[0] : wanted[0] + wanted[1]])
    packed = log.pack()
    assert packed_log(packed).pack() == packed
    demuxer, layout = ogg.make_demuxer(), make_layout(demuxer.tracks)
    demuxer.attach(layout)
    while (wanted := demuxer.want()) is not None:
        demuxer.feed(data[wanted[0] : wanted[0] + wanted[1]])
    layout.finish()
    whole = folder / "layout.mp4"
    whole.write_bytes(layout.header())
    header = {
        box.path.rpartition("/")[2]: box.body for box in boxes(layout.header()[: layout.header().rindex(b"mdat") - 4])
    }
    assert media_ticks(header) == int.from_bytes(data[38:40], "little") + SAMPLES
