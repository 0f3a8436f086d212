"""Fuzz target: track selectors and the common parameters of a URL's query."""

from __future__ import annotations

from urllib.parse import parse_qsl

from mist.formats.tracks import TrackInfo
from mist.stream.parameters import parse_parameters
from mist.stream.selectors import select_tracks
from mist.stream.state import TrackState

_TRACKS = [
    TrackState(0, TrackInfo("video", "H264", width=1920, height=1080), bytes_per_second=500_000, next_sequence=9),
    TrackState(1, TrackInfo("video", "HEVC", width=640, height=360), bytes_per_second=90_000, next_sequence=9),
    TrackState(2, TrackInfo("audio", "AAC", language="eng", channels=2), bytes_per_second=16_000, next_sequence=9),
    TrackState(3, TrackInfo("audio", "opus", language="ger", channels=6), bytes_per_second=9_000, next_sequence=9),
    TrackState(4, TrackInfo("meta", "subtitle", language="nld"), next_sequence=9),
]
_MATRIX = [[["H264", "HEVC"], ["+AAC", "opus"], ["+@meta"]], [["*"]]]


def fuzz(data: bytes) -> None:
    """Read data as a query; any text selects some of the tracks, each once."""
    query = dict(parse_qsl(data[:65536].decode("utf-8", "replace"), keep_blank_values=True))
    parameters = parse_parameters(query, rate_header=query.get("header", ""))
    chosen = select_tracks(_TRACKS, parameters.selectors, _MATRIX, sorting=query.get("sorting", ""))
    if len(set(chosen)) != len(chosen) or not set(chosen) <= set(range(len(_TRACKS))):
        raise RuntimeError(f"{query!r} selects {chosen!r}")
    for time in parameters.window(1_700_000_000_000_000, 1_600_000_000_000_000, 0):
        if time is not None and not -(1 << 63) < time < 1 << 63:
            raise RuntimeError(f"{query!r} gives the time {time}")
