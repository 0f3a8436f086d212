"""Matroska and WebM over HTTP: `/STREAM.mkv` and `/STREAM.webm`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from mist.core.muxer import Muxer
from mist.formats.matroska.writing import (
    AUDIO_CODECS,
    VIDEO_CODECS,
    WEBM_AUDIO_CODECS,
    WEBM_VIDEO_CODECS,
    delay_us,
    muxer,
)
from mist.formats.tracks import VIDEO, TrackInfo
from mist.outputs.base import Capability, Choice, ProgressiveOutput
from mist.outputs.base.on_demand import Beginning
from mist.outputs.base.program_push import ProgramPush
from mist.outputs.base.recording_push import RecordingPush
from mist.stream.on_demand import OnDemandReader
from mist.stream.parameters import PlaybackParameters
from mist.stream.reader import StreamReader
from mist.stream.selectors import configured_sorting, select_tracks
from mist.stream.services import OutputServices
from mist.stream.state import TrackState

_WEBM: Final = frozenset((*WEBM_VIDEO_CODECS, *WEBM_AUDIO_CODECS))
_WEBM_MATRIX: Final = ((WEBM_VIDEO_CODECS, WEBM_AUDIO_CODECS),)
# What browsers play in Matroska beyond WebM's codecs: nothing, but for Chromium, and that not on Android.
_BROWSERS: Final = (
    ("blacklist", ("Mozilla",)),
    ("whitelist", ("Chrome", "Chromium")),
    ("blacklist", ("Edge", "Edg/", "OPR/", "Android")),
)
_CAPABILITY: Final = Capability(
    name="EBML",
    push_urls=("/*.mkv", "/*.webm", "mkv-exec:*"),
    friendly="WebM/Matroska over HTTP",
    desc="Pseudostreaming in Matroska and WebM format over HTTP",
    deps="HTTP",
    url_rel="/$.webm",
    url_match=("/$.mkv", "/$.webm"),
    codecs=((VIDEO_CODECS, AUDIO_CODECS, ("+JSON", "+subtitle")),),
    methods=({"handler": "http", "type": "html5/video/webm", "hrn": "MKV progressive", "priority": 9},),
    exceptions={f"codec:{codec}": _BROWSERS for codec in (*VIDEO_CODECS, *AUDIO_CODECS) if codec not in _WEBM},
)


def is_webm(tracks: list[TrackInfo]) -> bool:
    """Tell whether WebM can carry all tracks."""
    return all(track.codec in _WEBM for track in tracks)


def _matroska(_stream: str, tracks: list[TrackInfo]) -> Muxer:
    return muxer(tracks)


def _webm(_stream: str, tracks: list[TrackInfo]) -> Muxer:
    return muxer(tracks, webm=is_webm(tracks))


class _Matroska(ProgressiveOutput):
    """`/STREAM.mkv`: any codec."""

    def __init__(self) -> None:
        super().__init__(_CAPABILITY, "video/x-matroska", _matroska)
        self.suffix = "mkv"

    def media_type(self, choice: Choice) -> str:
        """Return the type for video, or the one for sound alone."""
        return self._kind([choice.reader.track(index).info for index in choice.indexes]) + "/x-matroska"

    def timed_header(self, tracks: list[TrackInfo], length_us: int) -> bytes:
        """Return a header with the Segment's duration."""
        return muxer(tracks, webm=self._as_webm(tracks), length_us=length_us).header()

    async def film_muxer(
        self, media: OnDemandReader, indexes: list[int], beginning: Beginning
    ) -> Callable[[list[TrackInfo]], Muxer]:
        """Return what makes a muxer that moves all times up to zero: Matroska has none before it."""
        first_us = await media.first_shown_us(indexes)
        infos = [beginning.loaded.infos[index] for index in indexes]
        before_us = max(-time_us - delay_us(info) for time_us, info in zip(first_us, infos, strict=True))
        shift_us = max(before_us + 499, 0) // 1000 * 1000  # as the muxer rounds
        return lambda tracks: muxer(tracks, webm=self._as_webm(tracks), shift_us=shift_us)

    def _as_webm(self, tracks: list[TrackInfo]) -> bool:
        return False

    def _kind(self, tracks: list[TrackInfo]) -> str:
        return "video" if any(track.type == VIDEO for track in tracks) else "audio"


class _WebM(_Matroska):
    """`/STREAM.webm`: WebM wherever its codecs give the viewer the same kinds of tracks; else Matroska, which some browsers play."""

    def __init__(self) -> None:
        super().__init__()
        self.suffix = "webm"
        self.make_muxer = _webm

    def _as_webm(self, tracks: list[TrackInfo]) -> bool:
        return is_webm(tracks)

    async def choose(
        self, services: OutputServices, reader: StreamReader, parameters: PlaybackParameters, user_agent: str
    ) -> Choice:
        """Choose among WebM's codecs first."""
        choice = await super().choose(services, reader, parameters, user_agent)
        sorting = configured_sorting(services.config, self.capability.name)

        def select(states: list[TrackState]) -> list[int]:
            return select_tracks(states, parameters.selectors, _WEBM_MATRIX, live=reader.live, sorting=sorting)

        indexes = select(reader.tracks())
        if _kinds(reader, indexes) >= _kinds(reader, choice.indexes):
            return Choice(reader, indexes, select)
        return choice

    def media_type(self, choice: Choice) -> str:
        """Return WebM's type where it is WebM."""
        tracks = [choice.reader.track(index).info for index in choice.indexes]
        return f"{self._kind(tracks)}/webm" if is_webm(tracks) else super().media_type(choice)


def _kinds(reader: StreamReader, indexes: list[int]) -> set[str]:
    """Return the types of tracks that are seen or heard."""
    return {reader.track(index).info.type for index in indexes} - {"meta"}


class EbmlOutput:
    """The connector: one form for each of its two URLs."""

    capability = _CAPABILITY

    def __init__(self) -> None:
        self._matroska = _Matroska()
        self._webm = _WebM()

    async def handle(self, services: OutputServices, request: Any, response: Any) -> None:
        """Answer a request with the stream; returns when the fan-out has the connection."""
        form = self._webm if request.path.endswith(".webm") else self._matroska
        await form.handle(services, request, response)


OUTPUT = EbmlOutput()
PUSH: Final = ProgramPush("mkv-exec:", _Matroska(), RecordingPush("EBML"))
