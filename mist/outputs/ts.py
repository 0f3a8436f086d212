"""MPEG transport stream over HTTP: `/STREAM.ts`."""

from __future__ import annotations

from typing import Final

from mist.core.muxer import Muxer
from mist.core.ts_mux import TsMuxer
from mist.formats.tracks import TrackInfo
from mist.outputs.base import Capability, ProgressiveOutput
from mist.outputs.base.program_push import ProgramPush
from mist.outputs.base.recording_push import RecordingPush


def make_muxer(stream: str, tracks: list[TrackInfo]) -> Muxer:
    """Return a transport stream muxer whose service carries the stream's name."""
    return TsMuxer(tracks, stream_name=stream)


OUTPUT = ProgressiveOutput(
    Capability(
        name="HTTPTS",
        push_urls=("/*.ts", "https://*/http_upload_hls?", "ts-exec:*"),
        friendly="TS over HTTP",
        desc="Pseudostreaming in MPEG2/TS format over HTTP",
        deps="HTTP",
        url_rel="/$.ts",
        url_match=("/$.ts",),
        codecs=(
            (
                ("+H264", "+HEVC", "+AV1", "+MPEG2"),
                ("+AAC", "+MP3", "+AC3", "+EAC-3", "+opus", "+MP2", "+DTS"),
                ("+JSON", "+ID3", "+SCTE35", "+KLV", "+RAW"),
            ),
        ),
        methods=({"handler": "http", "type": "html5/video/mpeg", "hrn": "TS HTTP progressive", "priority": 1},),
    ),
    "video/mp2t",
    make_muxer,
)
PUSH: Final = ProgramPush("ts-exec:", OUTPUT, RecordingPush("HTTPTS"))
