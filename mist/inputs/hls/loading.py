"""Fetching of playlists, keys and segments; what blocks runs in threads."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import Final

from mist.core.packet import Packet
from mist.errors import MistError, RemoteProtocolError, TransportError
from mist.formats.hls_segments import (
    KEY_BYTES,
    MAX_SEGMENT_BYTES,
    RenditionPlace,
    SegmentMedia,
    check_key,
    decrypt,
    moved,
    read_segment,
    renditions_of,
    resolve_ranges,
)
from mist.formats.m3u8 import MAX_PLAYLIST_BYTES, MasterPlaylist, MediaPlaylist, Segment, parse_playlist
from mist.formats.tracks import TrackInfo
from mist.net.documents import Document, fetch, place_of
from mist.stream.services import InputServices

MAX_SECONDS: Final = 25.0  # for one document
KEPT_SMALL: Final = 16  # keys and initialization sections
MAX_INITIALIZATION_BYTES: Final = 8 << 20
MAX_TRACKS: Final = 16  # of one rendition


@dataclass(slots=True)
class Rendition:
    """A media playlist that is open. number: in the presentation, the main one first."""

    number: int
    info: RenditionPlace
    place: str
    playlist: MediaPlaylist
    validators: tuple[str, str] = ("", "")

    def track(self, number: int) -> int:
        """Return the number by which a track of this rendition is known among all."""
        return self.number * MAX_TRACKS + number

    def describe(self, info: TrackInfo) -> TrackInfo:
        """Return a track with what the master playlist says of it."""
        if self.info.language and info.language in ("", "und"):
            return replace(info, language=self.info.language)
        return info

    def shifted(self, media: SegmentMedia, shift_us: int) -> list[Packet]:
        """Return the packets of a segment with the numbers and times of the presentation."""
        return [moved(packet, self.track(packet.track), shift_us) for packet in media.packets]


class Loader:
    """Fetches what a presentation consists of."""

    def __init__(self, services: InputServices) -> None:
        self._services = services
        self._small: OrderedDict[tuple[str, tuple[int, int] | None], bytes] = OrderedDict()

    async def open(self, place: str) -> list[Rendition]:
        """Return all renditions of a presentation. Raises MistError."""
        document = await self._fetch(place, MAX_PLAYLIST_BYTES)
        assert document is not None
        playlist = parse_playlist(document.data, lenient=True)
        if isinstance(playlist, MediaPlaylist):
            return [Rendition(0, RenditionPlace(place), document.place, ranged(playlist), document.validators)]
        return await self._open_all(playlist, document.place)

    async def _open_all(self, master: MasterPlaylist, base: str) -> list[Rendition]:
        places = renditions_of(master)
        opened = await asyncio.gather(*(self._open_one(one, base) for one in places), return_exceptions=True)
        found: list[Rendition] = []
        failure: BaseException | None = None
        for one in opened:
            if isinstance(one, Rendition):
                one.number = len(found)
                found.append(one)
            elif not isinstance(one, MistError):
                raise one
            else:
                self._services.log.warning("A rendition is left out: %s", one)
                failure = one
        if not found:
            raise failure or RemoteProtocolError("the master playlist names no media")
        return found

    async def _open_one(self, info: RenditionPlace, base: str) -> Rendition:
        document = await self._fetch(place_of(base, info.uri), MAX_PLAYLIST_BYTES)
        assert document is not None
        playlist = parse_playlist(document.data, lenient=True)
        if not isinstance(playlist, MediaPlaylist):
            raise RemoteProtocolError(f"{document.place} is a master playlist, and should list segments")
        return Rendition(0, info, document.place, ranged(playlist), document.validators)

    async def reload(self, rendition: Rendition) -> MediaPlaylist | None:
        """Return a playlist again, None when it has not changed. Raises MistError."""
        document = await self._fetch(rendition.place, MAX_PLAYLIST_BYTES, known=rendition.validators)
        if document is None:
            return None
        rendition.validators = document.validators
        playlist = parse_playlist(document.data, lenient=True)
        if not isinstance(playlist, MediaPlaylist):
            raise RemoteProtocolError(f"{document.place} has become a master playlist")
        playlist = ranged(playlist)
        if playlist == rendition.playlist:
            return None
        rendition.playlist = playlist
        return playlist

    async def segment(self, rendition: Rendition, segment: Segment) -> SegmentMedia:
        """Return a segment, clear and demuxed. Raises MistError that names it."""
        place = place_of(rendition.place, segment.uri)
        part = None if segment.byte_range is None else (segment.byte_range[0], segment.byte_range[1] or 0)
        document = await self._fetch(place, MAX_SEGMENT_BYTES, byte_range=part)
        assert document is not None
        data = document.data
        initialization = b""
        if segment.initialization is not None:
            length = segment.initialization.byte_range
            section = None if length is None else (length[0], length[1] or 0)
            initialization = await self._kept(
                place_of(rendition.place, segment.initialization.uri), MAX_INITIALIZATION_BYTES, section
            )
        secret = b""
        if segment.key is not None:
            check_key(segment.key)
            secret = await self._kept(place_of(rendition.place, segment.key.uri), KEY_BYTES, None)

        def demux() -> SegmentMedia:
            clear = data if segment.key is None else decrypt(data, segment.key, secret, segment.sequence)
            return read_segment(clear, initialization)

        try:
            media = await asyncio.to_thread(demux)
        except RemoteProtocolError as error:
            raise type(error)(f"{place}: {error}", offset=error.offset, spec=error.spec, reason=error.reason) from None
        if len(media.infos) > MAX_TRACKS:
            raise RemoteProtocolError(f"{place} has {len(media.infos)} tracks; the limit is {MAX_TRACKS}")
        return media

    async def _kept(self, place: str, limit_bytes: int, part: tuple[int, int] | None) -> bytes:
        """Return a small document that is used again and again."""
        found = self._small.get((place, part))
        if found is None:
            document = await self._fetch(place, limit_bytes, byte_range=part)
            assert document is not None
            found = self._small[place, part] = document.data
            while len(self._small) > KEPT_SMALL:
                self._small.popitem(last=False)
        return found

    async def _fetch(
        self,
        place: str,
        limit_bytes: int,
        byte_range: tuple[int, int] | None = None,
        known: tuple[str, str] = ("", ""),
    ) -> Document | None:
        try:
            document = await asyncio.to_thread(
                fetch, place, limit_bytes, byte_range=byte_range, known=known, seconds=MAX_SECONDS
            )
        except OSError as error:
            raise error if isinstance(error, TransportError) else TransportError(f"{place}: {error}") from error
        if document is not None:
            self._services.record.add_bytes(0, len(document.data))
        return document


def ranged(playlist: MediaPlaylist) -> MediaPlaylist:
    """Return a playlist whose byte ranges all say where they begin. Raises RemoteProtocolError."""
    return replace(playlist, segments=tuple(resolve_ranges(playlist.segments)))
