"""The table of file formats: what each is called, told by, read and written with, and which codecs it carries.

One row for each format, sorted by name; a new format is a new row. Engines are imported when they are made, so that looking at
the table costs nothing.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from mist.formats import sniffing
from mist.formats.sniffing import SNIFF_BYTES

if TYPE_CHECKING:
    from mist.core.demuxer import Demuxer
    from mist.core.muxer import Muxer
    from mist.formats.tracks import TrackInfo

CodecMatrix: TypeAlias = Sequence[Sequence[Sequence[str]]]
DemuxerFactory: TypeAlias = "Callable[[], Demuxer]"
MuxerFactory: TypeAlias = "Callable[[list[TrackInfo]], Muxer]"


@dataclass(frozen=True, slots=True)
class Container:
    """One file format.

    name: what it is called on command lines and in configuration. suffixes: of file names, the usual one first.
    make_demuxer, make_muxer: return a new engine; None where mist cannot read or write the format. A muxer is made for the
    tracks it is to carry, and raises UnsupportedError for those it cannot.
    codecs: what the muxer carries, in the form of a capability matrix: combinations of slots of codec names; a slot takes one
    track, with "+" all that match; "*" matches everything.
    sniff: tells the format by the first bytes, up to SNIFF_BYTES of them. weak: other formats may look like it, so they come first.
    negative_times: the muxer keeps decode times before zero; otherwise all times are moved up to zero.
    lead_us: what the muxer adds to a track's times, where only presentation times are written; those alone must not be negative then.
    on_pipe: name of the format to write instead where the output cannot be written twice; "" for the same.
    make_growing: returns the muxer for a file that grows with a live stream, where that is another one: nothing waits in it.
    """

    name: str
    suffixes: tuple[str, ...]
    mime: str
    make_demuxer: DemuxerFactory | None = None
    make_muxer: MuxerFactory | None = None
    codecs: CodecMatrix = ()
    sniff: Callable[[bytes], bool] = sniffing.never
    weak: bool = False
    negative_times: bool = False
    lead_us: Callable[[TrackInfo], int] | None = None
    on_pipe: str = ""
    make_growing: MuxerFactory | None = None


def _engine(module: str, name: str) -> Any:
    return getattr(importlib.import_module(f"mist.{module}" if "." in module else f"mist.core.{module}"), name)


def demuxer(module: str, name: str, **options: object) -> DemuxerFactory:
    """Return what makes a demuxer: a class or function, imported at its first use.

    module: in `mist.core`, or with its layer, such as "formats.flv". options: for each call.
    """

    def make() -> Demuxer:
        made: Demuxer = _engine(module, name)(**options)
        return made

    return make


def muxer(module: str, name: str, **options: object) -> MuxerFactory:
    """Return what makes a muxer for tracks: a class or function, imported at its first use. module, options: as in `demuxer`."""

    def make(tracks: list[TrackInfo]) -> Muxer:
        made: Muxer = _engine(module, name)(tracks, **options)
        return made

    return make


def _fragmented_mp4(tracks: list[TrackInfo]) -> Muxer:
    from mist.core.mp4_mux import Mp4FragmentMuxer
    from mist.formats.mp4_boxes import LiveMovie

    return Mp4FragmentMuxer(tracks, LiveMovie())


def _matroska_lead_us(track: TrackInfo) -> int:
    from mist.formats.matroska.writing import delay_us

    return delay_us(track)


# One row for each format, by name. A row without engines is not in use.
_ROWS: Final = (
    Container(
        name="aac",
        suffixes=(".aac", ".adts"),
        mime="audio/aac",
        make_demuxer=demuxer("formats.audio_files", "AdtsDemuxer"),
        make_muxer=muxer("formats.audio_files", "AdtsMuxer"),
        codecs=((("AAC",),),),
        sniff=sniffing.is_adts,
        weak=True,
    ),
    Container(
        name="ac3",
        suffixes=(".ac3", ".eac3", ".ec3"),
        mime="audio/ac3",
        make_demuxer=demuxer("formats.audio_files", "Ac3Demuxer"),
        make_muxer=muxer("formats.audio_files", "Ac3Muxer"),
        codecs=((("AC3", "EAC-3"),),),
        sniff=sniffing.is_ac3,
        weak=True,
    ),
    Container(
        name="dts",
        suffixes=(".dts",),
        mime="audio/vnd.dts",
        make_demuxer=demuxer("formats.audio_files", "DtsDemuxer"),
        make_muxer=muxer("formats.audio_files", "DtsMuxer"),
        codecs=((("DTS",),),),
        sniff=sniffing.is_dts,
    ),
    Container(
        name="dtsc",
        suffixes=(".dtsc",),
        mime="application/octet-stream",
        make_demuxer=demuxer("formats.dtsc", "DtscDemuxer"),
        make_muxer=muxer("dtsc", "DtscMuxer", live=False, exact=True),
        codecs=((("+*",),),),
        sniff=sniffing.is_dtsc,
        negative_times=True,
    ),
    Container(
        name="flac",
        suffixes=(".flac",),
        mime="audio/flac",
        make_demuxer=demuxer("formats.flac_file", "make_demuxer"),
        make_muxer=muxer("formats.flac_file", "make_muxer"),
        codecs=((("FLAC",),),),
        sniff=sniffing.is_flac,
    ),
    Container(
        name="flv",
        suffixes=(".flv",),
        mime="video/x-flv",
        make_demuxer=demuxer("formats.flv", "FlvDemuxer"),
        make_muxer=muxer("flv", "FlvMuxer"),
        codecs=(
            (
                ("+H264", "+HEVC", "+AV1", "+VP8", "+VP9"),
                ("+AAC", "+MP3", "+opus", "+FLAC", "+AC3", "+EAC-3"),
                ("+JSON",),
            ),
        ),
        sniff=sniffing.is_flv,
    ),
    Container(
        name="fmp4",
        suffixes=(".fmp4", ".m4s"),
        mime="video/mp4",
        make_muxer=_fragmented_mp4,
        codecs=(
            (
                ("+H264", "+HEVC", "+AV1", "+VP8", "+VP9"),
                ("+AAC", "+MP3", "+AC3", "+EAC-3", "+opus", "+FLAC"),
                ("+ID3", "+SCTE35", "+KLV"),
            ),
        ),
    ),
    Container(
        name="h264",
        suffixes=(".h264", ".264", ".avc"),
        mime="video/H264",
        make_demuxer=demuxer("formats.video_files", "H264Demuxer"),
        make_muxer=muxer("annexb", "AnnexBMuxer"),
        codecs=((("H264",),),),
        sniff=sniffing.is_h264,
        weak=True,
    ),
    Container(
        name="hevc",
        suffixes=(".hevc", ".h265", ".265"),
        mime="video/HEVC",
        make_demuxer=demuxer("formats.video_files", "HevcDemuxer"),
        make_muxer=muxer("annexb", "AnnexBMuxer"),
        codecs=((("HEVC",),),),
        sniff=sniffing.is_hevc,
        weak=True,
    ),
    Container(
        name="ivf",
        suffixes=(".ivf",),
        mime="video/x-ivf",
        make_demuxer=demuxer("formats.video_files", "IvfDemuxer"),
        make_muxer=muxer("ivf", "IvfMuxer"),
        codecs=((("VP8", "VP9", "AV1"),),),
        sniff=sniffing.is_ivf,
    ),
    Container(
        name="json",
        suffixes=(".json",),
        mime="application/json",
        make_muxer=muxer("formats.json_tracks", "JsonMuxer"),
        codecs=((("+@meta",),),),
    ),
    Container(
        name="libav",
        suffixes=(
            *(".avi", ".divx", ".wmv", ".wma", ".asf", ".rm", ".rmvb", ".mpg", ".mpeg", ".m2p", ".vob", ".dv"),
            *(".mxf", ".nut", ".caf", ".aif", ".aiff", ".aifc", ".au", ".snd", ".w64", ".tta", ".wv"),
        ),
        mime="application/octet-stream",
        make_demuxer=demuxer("formats.libav", "LibavDemuxer"),
        sniff=sniffing.is_for_libav,
        weak=True,
    ),
    Container(
        name="m2v",
        suffixes=(".m2v", ".mpv"),
        mime="video/mpeg",
        make_demuxer=demuxer("formats.video_files", "MpegVideoDemuxer"),
        make_muxer=muxer("mpeg_video", "MpegVideoMuxer"),
        codecs=((("MPEG2",),),),
        sniff=sniffing.is_mpeg_video,
        weak=True,
    ),
    Container(
        name="mkv",
        suffixes=(".mkv", ".mka", ".mks"),
        mime="video/x-matroska",
        make_demuxer=demuxer("formats.matroska.reading", "demuxer"),
        make_muxer=muxer("formats.matroska.writing", "muxer", indexed=True),
        lead_us=_matroska_lead_us,
        codecs=(
            (
                ("+H264", "+HEVC", "+AV1", "+VP8", "+VP9", "+MPEG2", "+theora", "+JPEG"),
                (
                    *("+AAC", "+MP3", "+opus", "+FLAC", "+vorbis", "+AC3", "+EAC-3", "+MP2", "+DTS"),
                    *("+PCM", "+FLOAT", "+ALAW", "+ULAW"),
                ),
                ("+subtitle", "+JSON"),
            ),
        ),
        sniff=sniffing.is_matroska,
    ),
    Container(
        name="mp3",
        suffixes=(".mp3", ".mp2"),
        mime="audio/mpeg",
        make_demuxer=demuxer("formats.audio_files", "Mp3Demuxer"),
        make_muxer=muxer("formats.audio_files", "Mp3Muxer"),
        codecs=((("MP3", "MP2"),),),
        sniff=sniffing.is_mp3,
        weak=True,
    ),
    Container(
        name="mp4",
        suffixes=(".mp4", ".m4v", ".m4a", ".mov", ".3gp", ".3g2", ".qt", ".f4v"),
        mime="video/mp4",
        make_demuxer=demuxer("formats.mp4_movie", "make_demuxer"),
        make_muxer=muxer("formats.mp4_file", "make_muxer"),
        codecs=(
            (
                ("+H264", "+HEVC", "+AV1", "+VP8", "+VP9", "+MPEG2", "+JPEG"),
                (
                    *("+AAC", "+MP3", "+AC3", "+EAC-3", "+opus", "+FLAC", "+MP2", "+DTS"),
                    *("+PCM", "+FLOAT", "+ALAW", "+ULAW"),
                ),
                ("+subtitle", "+JSON", "+ID3", "+SCTE35", "+KLV"),
            ),
        ),
        sniff=sniffing.is_mp4,
        negative_times=True,
        on_pipe="fmp4",
    ),
    Container(
        name="ogg",
        suffixes=(".ogg", ".oga", ".ogv", ".opus", ".spx"),
        mime="application/ogg",
        make_demuxer=demuxer("formats.ogg", "make_demuxer"),
        make_muxer=muxer("formats.ogg", "make_muxer"),
        make_growing=muxer("formats.ogg", "make_muxer", page_us=0),
        codecs=((("+theora",), ("+vorbis", "+opus", "+FLAC", "+Speex")),),
        sniff=sniffing.is_ogg,
        negative_times=True,
    ),
    Container(
        name="srt",
        suffixes=(".srt",),
        mime="application/x-subrip",
        make_demuxer=demuxer("formats.subtitles", "SubtitleDemuxer"),
        make_muxer=muxer("formats.subtitles", "SubRipMuxer"),
        codecs=((("subtitle",),),),
        sniff=sniffing.is_subrip,
        weak=True,
    ),
    Container(
        name="ts",
        suffixes=(".ts", ".m2ts", ".mts"),
        mime="video/mp2t",
        make_demuxer=demuxer("formats.ts", "TsDemuxer"),
        make_muxer=muxer("ts_mux", "TsMuxer"),
        codecs=(
            (
                ("+H264", "+HEVC", "+AV1", "+MPEG2"),
                ("+AAC", "+MP3", "+AC3", "+EAC-3", "+opus", "+MP2", "+DTS"),
                ("+JSON", "+ID3", "+SCTE35", "+KLV", "+RAW"),
            ),
        ),
        sniff=sniffing.is_mpeg_ts,
    ),
    Container(
        name="vtt",
        suffixes=(".vtt", ".webvtt"),
        mime="text/vtt",
        make_demuxer=demuxer("formats.subtitles", "SubtitleDemuxer", kind="vtt"),
        make_muxer=muxer("formats.subtitles", "WebVttMuxer"),
        codecs=((("subtitle",),),),
        sniff=sniffing.is_web_vtt,
    ),
    Container(
        name="wav",
        suffixes=(".wav", ".wave"),
        mime="audio/wav",
        make_demuxer=demuxer("formats.riff", "make_demuxer"),
        make_muxer=muxer("formats.riff", "make_muxer"),
        codecs=((("PCM", "FLOAT", "ALAW", "ULAW"),),),
        sniff=sniffing.is_wave,
    ),
    Container(
        name="webm",
        suffixes=(".webm",),
        mime="video/webm",
        make_demuxer=demuxer("formats.matroska.reading", "demuxer"),
        make_muxer=muxer("formats.matroska.writing", "muxer", webm=True, indexed=True),
        lead_us=_matroska_lead_us,
        codecs=((("+VP8", "+VP9", "+AV1"), ("+opus", "+vorbis")),),
        sniff=sniffing.is_webm,
    ),
)

CONTAINERS: Final = tuple(row for row in _ROWS if row.make_demuxer or row.make_muxer)
_BY_NAME: Final = {row.name: row for row in CONTAINERS}
_BY_SUFFIX: Final = {suffix: row for row in CONTAINERS for suffix in row.suffixes}


def by_name(name: str) -> Container | None:
    """Return the format of a name, such as "ts"; case does not matter."""
    return _BY_NAME.get(name.lower())


def by_file_name(path: str) -> Container | None:
    """Return the format that a file name's suffix says; case does not matter. A URL's query must be cut off before."""
    return _BY_SUFFIX.get(PurePath(path).suffix.lower())


def by_first_bytes(head: bytes) -> Container | None:
    """Return the format that the first bytes of an input say, of those that mist can read.

    head: the first SNIFF_BYTES, or the whole input if it is shorter; what is more is not looked at.
    """
    head = head[:SNIFF_BYTES]
    readable = [row for row in CONTAINERS if row.make_demuxer is not None]
    return next((row for weak in (False, True) for row in readable if row.weak == weak and row.sniff(head)), None)
