"""Every pair of input and output format: what sources there are, what must come out of each, and the document that says so.

`python -m tests.support.format_matrix` prints docs/formats.md anew.
"""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mist.core.crc import crc32_mpeg2
from mist.core.demuxer import demux
from mist.core.packet import Packet
from mist.formats.containers import CONTAINERS, Container, by_name
from mist.formats.tracks import AUDIO, META, VIDEO, TrackInfo
from mist.stream.conversion import Conversion, Wishes
from tests.support.demuxing import mux, patched
from tests.support.media import CACHE, cached
from tests.support.tools import find_tool

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "formats.md"

PICTURE = ("-f", "lavfi", "-i", "testsrc2=size=128x96:rate=25")
SOUND = (
    "-f", "lavfi", "-i", "sine=frequency=440:sample_rate=48000:beep_factor=4[a];"
    "anoisesrc=amplitude=0.1:seed=7:sample_rate=48000[b];[a][b]amix,aformat=channel_layouts=stereo",
)  # fmt: skip
SECONDS = "2"
SUBTITLES = """\
1
00:00:00,200 --> 00:00:00,900
Hello

2
00:00:00,900 --> 00:00:01,700
two lines
of text
"""

X264 = ("-c:v", "libx264", "-preset", "ultrafast", "-bf", "2", "-b_strategy", "0", "-g", "25", "-pix_fmt", "yuv420p")
X265 = (
    "-c:v", "libx265", "-preset", "ultrafast", "-pix_fmt", "yuv420p",
    "-x265-params", "log-level=error:info=0:keyint=25:min-keyint=25:bframes=2:b-adapt=0",
)  # fmt: skip
ENCODERS: dict[str, tuple[str, ...]] = {
    "H264": X264,
    "HEVC": X265,
    "AV1": ("-c:v", "libsvtav1", "-preset", "12", "-g", "25", "-svtav1-params", "rc=0", "-pix_fmt", "yuv420p"),
    "VP8": ("-c:v", "libvpx", "-deadline", "realtime", "-cpu-used", "8", "-g", "25", "-auto-alt-ref", "0"),
    "VP9": ("-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8", "-g", "25", "-pix_fmt", "yuv420p"),
    "MPEG2": ("-c:v", "mpeg2video", "-bf", "2", "-g", "12"),
    "theora": ("-c:v", "libtheora", "-g", "25"),
    "JPEG": ("-c:v", "mjpeg", "-pix_fmt", "yuvj420p"),
    "AAC": ("-c:a", "aac", "-b:a", "96k"),
    "MP3": ("-c:a", "libmp3lame", "-b:a", "96k"),
    "opus": ("-c:a", "libopus", "-b:a", "64k"),
    "FLAC": ("-c:a", "flac"),
    "AC3": ("-c:a", "ac3", "-b:a", "128k"),
    "EAC-3": ("-c:a", "eac3", "-b:a", "128k"),
    "vorbis": ("-c:a", "libvorbis"),
    "MP2": ("-c:a", "mp2", "-b:a", "128k"),
    "DTS": ("-c:a", "dca"),
    "PCM": ("-c:a", "pcm_s16le"),
    "FLOAT": ("-c:a", "pcm_f32le"),
    "ALAW": ("-c:a", "pcm_alaw", "-ar", "8000", "-ac", "1"),
    "ULAW": ("-c:a", "pcm_mulaw", "-ar", "8000", "-ac", "1"),
    "Speex": ("-c:a", "libspeex", "-ar", "16000", "-ac", "1"),
    "subtitle": ("-c:s", "srt"),
}
# Metadata is made here, and put between the packets of a film: no program at hand writes it into every format.
METADATA: dict[str, tuple[bytes, ...]] = {
    "JSON": (b'["onTextData",{"text":"one"}]', b'["onTextData",{"text":"two"}]'),
    "ID3": tuple(b"ID3\4\0\0\0\0\0\x10TIT2\0\0\0\6\0\0\3" + title for title in (b"first", b"other")),
    "SCTE35": tuple(
        cue + crc32_mpeg2(cue).to_bytes(4, "big")
        for cue in (bytes.fromhex(f"fc302000000000000000fff00f050000000{n}7fcfffffffff00000000000000") for n in (1, 2))
    ),
    "KLV": tuple(bytes.fromhex("060e2b34020b01010e01030101000000") + b"\2\1" + bytes((n,)) for n in (1, 2)),
}
METADATA_TIMES_US = (440_000, 1_240_000)
TYPES = {codec: (VIDEO if "-c:v" in args else META if "-c:s" in args else AUDIO) for codec, args in ENCODERS.items()}
TYPES |= dict.fromkeys(METADATA, META)

# Which sources are made for each input: sets of codecs, ffmpeg's name of the format, and which ffmpeg makes it.
_ANY_AUDIO = ("AAC", "MP3", "opus", "FLAC", "AC3", "EAC-3", "vorbis", "MP2", "DTS", "PCM", "FLOAT", "ALAW", "ULAW")
_FILM_AND_METADATA = tuple(f"H264+{codec}" for codec in METADATA)
_ANY_VIDEO = ("H264", "HEVC", "AV1", "VP8", "VP9", "MPEG2", "theora", "JPEG")
SOURCES: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "aac": ("adts", "ffmpeg", ("AAC",)),
    "ac3": ("ac3", "ffmpeg", ("AC3", "EAC-3")),
    "dts": ("dts", "ffmpeg", ("DTS",)),
    "flac": ("flac", "ffmpeg", ("FLAC",)),
    "flv": ("flv", "ffmpeg-new", ("H264+AAC", "H264+JSON", "H264", "HEVC", "AV1", "VP9", "AAC", "MP3", "opus", "FLAC", "AC3")),
    "h264": ("h264", "ffmpeg", ("H264",)),
    "hevc": ("hevc", "ffmpeg", ("HEVC",)),
    "ivf": ("ivf", "ffmpeg", ("VP8", "VP9", "AV1")),
    "libav": ("avi", "ffmpeg", ("H264", "MPEG2", "JPEG", "MP3", "MP2", "AC3", "PCM", "ULAW")),
    "m2v": ("mpeg2video", "ffmpeg", ("MPEG2",)),
    "mkv": ("matroska", "ffmpeg", ("H264+AAC", "VP9+opus", "H264+AAC+subtitle", "H264+JSON", *_ANY_VIDEO, *_ANY_AUDIO, "subtitle")),
    "mp3": ("mp3", "ffmpeg", ("MP3",)),
    "mp4": (
        "mp4", "ffmpeg",
        ("H264+AAC", "HEVC+AC3", *_FILM_AND_METADATA, "H264", "HEVC", "AV1", "VP9", "AAC", "MP3", "opus", "FLAC", "AC3", "EAC-3"),
    ),
    "ogg": ("ogg", "ffmpeg", ("theora+vorbis", "theora", "vorbis", "opus", "FLAC", "Speex")),
    "srt": ("srt", "ffmpeg", ("subtitle",)),
    "ts": (
        "mpegts", "ffmpeg",
        ("H264+AAC", *_FILM_AND_METADATA, "H264", "HEVC", "MPEG2", "AAC", "MP3", "MP2", "AC3", "EAC-3", "opus", "DTS"),
    ),
    "vtt": ("webvtt", "ffmpeg", ("subtitle",)),
    "wav": ("wav", "ffmpeg", ("PCM", "FLOAT", "ALAW", "ULAW")),
    "webm": ("webm", "ffmpeg", ("VP9+opus", "VP8", "VP9", "AV1", "opus", "vorbis")),
}  # fmt: skip
# Inputs that only mist writes are made by mist, from Matroska.
OWN_SOURCES: dict[str, tuple[str, ...]] = {
    "dtsc": ("H264+AAC", "VP9+opus", *_FILM_AND_METADATA, *_ANY_VIDEO, *_ANY_AUDIO, "subtitle"),
    "fmp4": (),
}

# What a format keeps of times. None: it has none, they are counted.
CLOCK_US: dict[str, float | None] = {
    "aac": None,
    "ac3": None,
    "dts": None,
    "dtsc": 1000,
    "flac": None,
    "flv": 1000,
    "fmp4": 1e6 / 44100,
    "h264": None,
    "hevc": None,
    "ivf": 1e6 / 25,
    "json": 1000,
    "libav": None,
    "m2v": None,
    "mkv": 1000,
    "mp3": None,
    "mp4": 1e6 / 44100,
    "ogg": 1e6 / 48000,
    "srt": 1000,
    "ts": 1e6 / 90000,
    "vtt": 1000,
    "wav": None,
    "webm": 1000,
}
KEEPS_DECODE_TIMES = frozenset({"dtsc", "flv", "fmp4", "mp4", "ts"})
BEGINS_AT_ZERO = frozenset({"mp4"})  # whatever the times of the source
KEEPS_LANGUAGE = frozenset({"dtsc", "fmp4", "mkv", "mp4", "ts", "webm"})


@dataclass(frozen=True, slots=True)
class Source:
    """One input file. container: its format's name. codecs: of its tracks, in order."""

    container: str
    codecs: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.container}-{'+'.join(self.codecs)}"

    @property
    def tracks(self) -> list[TrackInfo]:
        """What the tracks are, as far as the choice of tracks needs it."""
        return [TrackInfo(TYPES[codec], codec) for codec in self.codecs]

    def carried_by(self, container: Container) -> tuple[str, ...]:
        """Return the codecs of the tracks that an output takes, by the table."""
        matrix = [entry.lstrip("+") for group in container.codecs for slot in group for entry in slot]
        fitting = [c for c in self.codecs if {c, "*", f"@{TYPES[c]}"} & set(matrix)]
        several = any(entry.startswith("+") for group in container.codecs for slot in group for entry in slot)
        return tuple(fitting if several else fitting[:1])

    def file(self) -> Path:
        """Return the path of the file, made when it is not there yet."""
        row = by_name(self.container)
        assert row is not None
        if self.container in OWN_SOURCES or set(self.codecs) & set(METADATA):
            return self._made_by_mist(row)
        return cached(self._command(Path("target")), row.suffixes[0], self._command)

    def _command(self, target: Path) -> list[str]:
        name, tool, _ = SOURCES[self.container]
        kinds = [TYPES[codec] for codec in self.codecs]
        inputs: list[str] = [*(PICTURE if VIDEO in kinds else ()), *(SOUND if AUDIO in kinds else ())]
        if META in kinds:
            text = target.with_name(f".{target.name}.srt") if target.is_absolute() else Path("text.srt")
            if target.is_absolute():
                text.write_text(SUBTITLES)
            inputs += ["-f", "srt", "-i", str(text)]
        encoders = [word for codec in self.codecs for word in self._encoder(codec)]
        words = ("-metadata:s:a:0", "language=deu") if AUDIO in kinds else ()
        fixed = ("-flags", "+bitexact", "-fflags", "+bitexact", "-strict", "-2", "-t", SECONDS)
        return [find_tool(tool), "-v", "error", "-y", *inputs, *encoders, *words, *fixed, "-f", name, str(target)]

    def _encoder(self, codec: str) -> Sequence[str]:
        return ("-c:s", "webvtt") if self.container == "vtt" else ENCODERS[codec]

    def _made_by_mist(self, row: Container) -> Path:
        """Return the source in a format of our own, made anew in each run of the tests."""
        CACHE.mkdir(parents=True, exist_ok=True)
        target = CACHE / f"own-{os.getpid()}-{self}{row.suffixes[0]}"
        if target not in _MADE:
            film = tuple(codec for codec in self.codecs if codec not in METADATA)
            if film == self.codecs:
                convert_file(Source("mkv", film).file(), "mkv", target, row.name)
            else:
                target.write_bytes(_with_metadata(Source("mkv", film).file(), self.codecs[len(film) :], row))
            _MADE.add(target)
            atexit.register(target.unlink, missing_ok=True)
        return target


def _with_metadata(film: Path, codecs: Sequence[str], row: Container) -> bytes:
    """Return a film, in another format, with tracks of metadata behind its own."""
    mkv = by_name("mkv")
    assert mkv is not None and mkv.make_demuxer is not None and row.make_muxer is not None
    demuxer = mkv.make_demuxer()
    packets = demux(demuxer, film.read_bytes())
    begin_us = 1_000_000 - packets[0].dts_us
    for place, codec in enumerate(codecs, len(demuxer.tracks)):
        packets += [
            Packet(place, packets[0].dts_us + time_us, 0, True, payload)
            for time_us, payload in zip(METADATA_TIMES_US, METADATA[codec], strict=True)
        ]
    infos = [*demuxer.tracks, *(TrackInfo(META, codec) for codec in codecs)]
    packets = [Packet(one.track, one.dts_us + begin_us, one.offset_us, one.keyframe, one.payload) for one in packets]
    packets.sort(key=lambda packet: (packet.dts_us, -packet.track))
    muxer: Any = row.make_muxer(infos)
    data = mux(muxer, packets, finish=hasattr(muxer, "finish"))
    return patched(data, muxer.patches() if hasattr(muxer, "patches") else [])


def convert_file(source: Path, read: str, target: Path, written: str) -> Conversion:
    """Convert a file, as `mist convert` does."""
    origin, row = by_name(read), by_name(written)
    assert origin is not None and origin.make_demuxer is not None and row is not None
    demuxer = origin.make_demuxer()
    if hasattr(demuxer, "look_ahead"):
        with source.open("rb") as file:
            demuxer.look_ahead(file.fileno())
    conversion = Conversion(demuxer, row, Wishes())
    data = memoryview(source.read_bytes())
    while (wanted := conversion.want()) is not None:
        conversion.feed(data[wanted[0] : wanted[0] + wanted[1]])
    patches = conversion.finish()
    made = bytearray(conversion.output.take())
    for position, patch in patches:
        made[position : position + len(patch)] = patch
    target.write_bytes(made)
    return conversion


def sources(container: Container) -> list[Source]:
    """Return the sources of an input format."""
    if container.name in OWN_SOURCES:
        sets: Sequence[str] = OWN_SOURCES[container.name]
    else:
        sets = SOURCES.get(container.name, ("", "", ()))[2]
    return [Source(container.name, tuple(codecs.split("+"))) for codecs in sets]


_MADE: set[Path] = set()
INPUTS = [row for row in CONTAINERS if row.make_demuxer is not None]
OUTPUTS = [row for row in CONTAINERS if row.make_muxer is not None]


def cells(read: Container, written: Container) -> list[Source]:
    """Return the sources of an input that an output carries at least one track of."""
    return [source for source in sources(read) if source.carried_by(written)]


# --- the document ---------------------------------------------------------------------------------------------------

_HEAD = """\
# Formats

What mist reads and writes as files, over pipes and on command lines. Generated from the table of formats and the test that converts
every pair (`tests/integration/test_convert.py`); `python -m tests.support.format_matrix` prints it anew.

Packets are copied as they are, never encoded anew. Each pair in the last table is converted and compared: payloads, times (to the
coarser clock of the two formats), keyframes, languages and init data, by FFmpeg's demuxers and by our own.
"""


_METADATA_NOTES = """
Metadata, where a format has a place for it:

* mp4: tracks of their own, `mett` with `application/json`, and `urim` with `https://aomedia.org/emsg/ID3`, `urn:scte:scte35:2013:bin` or
  `urn:misb:KLV:bin:1910.1`. Fragmented files, read as mp4, have events (`emsg` of either version) of these URIs instead, each of which is
  read once. JSON has no URI that anybody else knows, so fmp4 does not carry it.
* mkv: JSON as `M_JSON`. The codec mappings of Matroska, and the programs that write it, have nothing for ID3, SCTE-35, KLV; WebM has none.
* flv: script data, which is JSON here; ID3, SCTE-35 and KLV have no form in it.
* ts: ID3, SCTE-35 and KLV as their specifications say, JSON as private data with a registration. Cues have no time but where they stand.
* json: a document for each packet; what is no text is in base64.
* ogg, wav and the formats of one track: none.
"""


def document() -> str:
    """Return docs/formats.md."""
    parts = [_HEAD, _formats_table(), _codecs_table(), _pairs_table()]
    return "\n".join(parts)


def _formats_table() -> str:
    lines = ["## Formats", "", "| name | files | read | written | clock |", "|---|---|---|---|---|"]
    for row in CONTAINERS:
        files = " ".join(f"`{suffix}`" for suffix in row.suffixes)
        clock = CLOCK_US.get(row.name)
        text = "counted" if clock is None else f"{clock:.4g} µs"
        lines.append(
            f"| {row.name} | {files} | {'yes' if row.make_demuxer else '–'} | {'yes' if row.make_muxer else '–'} | {text} |"
        )
    return "\n".join(lines) + "\n"


def _codecs_table() -> str:
    names = [row.name for row in CONTAINERS]
    lines = [
        "## Codecs",
        "",
        "r: read; w: written; –: the format cannot carry it, or mist does not read or write it there. Every mark has a test: what is read "
        "comes from other programs, or is what mist has written itself. Rarer files (DVD, MXF, CAF, AIFF, ASF, QuickTime with other "
        "codecs, WAV with compressed sound) are read in `tests/conformance/test_odd_files.py`; of a track that cannot be read, the log "
        "and `mist convert` tell the codec.",
        "",
        f"| codec | {' | '.join(names)} |",
        "|---|" + "---|" * len(names),
    ]
    for codec in (*ENCODERS, *METADATA):
        marks = []
        for row in CONTAINERS:
            written = row.make_muxer is not None and bool(Source(row.name, (codec,)).carried_by(row))
            held = sources(row) if row.make_demuxer is not None else []
            held += [source for other in INPUTS for source in cells(other, row)] if written and held else []
            read = any(codec in source.codecs for source in held)
            marks.append(("r" if read else "") + ("w" if written else "") or "–")
        lines.append(f"| {codec} | {' | '.join(marks)} |")
    return "\n".join(lines) + "\n" + _METADATA_NOTES


def _pairs_table() -> str:
    lines = [
        "## Pairs",
        "",
        "Rows are inputs, columns outputs. The number says how many of the input's test sources an output carries; – is none.",
        "",
        f"| | {' | '.join(row.name for row in OUTPUTS)} | of |",
        "|---|" + "---|" * (len(OUTPUTS) + 1),
    ]
    for read in INPUTS:
        marks = [str(len(cells(read, written)) or "–") for written in OUTPUTS]
        lines.append(f"| **{read.name}** | {' | '.join(marks)} | {len(sources(read))} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(document())
