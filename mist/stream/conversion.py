"""One input into one output: which tracks go along, and the pump between a demuxer and a muxer, without any socket or file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from mist.core.buffer import ByteBuffer
from mist.core.demuxer import Demuxer
from mist.core.muxer import Muxer
from mist.core.packet_filter import KEEP_TIMES, NO_NEGATIVE_TIMES, TIMES_FROM_ZERO, PacketFilter
from mist.errors import LimitExceededError, NoSuitableTrack, RemoteProtocolError, UnsupportedError
from mist.formats import codecs
from mist.formats.containers import Container
from mist.formats.tracks import AUDIO, META, VIDEO, TrackInfo
from mist.stream.damage import places_of
from mist.stream.selectors import SUBTITLE, codec_matches, pick_by_selector, select_tracks
from mist.stream.state import TrackState

_NOTHING: Final = ByteBuffer()
SELECTABLE: Final = (VIDEO, AUDIO, SUBTITLE, META)


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the user wants of an input.

    selectors: track selectors by kind; a kind without one goes along as far as the output can carry it. start_us, stop_us:
    decode times after the earliest packet; it begins at the last keyframe that is not after the start. from_zero: the output's
    times begin at zero; otherwise they stay what they are, unless the output knows no negative times.
    """

    selectors: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    start_us: int | None = None
    stop_us: int | None = None
    from_zero: bool = False


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A track that was wanted and cannot go along. index: in the input's list of tracks."""

    index: int
    info: TrackInfo
    reason: str

    def __str__(self) -> str:
        return f"{describe(self.index, self.info)} is left out: {self.reason}"


def describe(index: int, info: TrackInfo) -> str:
    """Return a track's name for messages, such as "track 1 (audio, AAC, deu)"."""
    words = [info.type, info.codec] + ([info.language] if info.language not in ("", "und") else [])
    return f"track {index} ({', '.join(words)})"


def choose_tracks(
    tracks: Sequence[TrackInfo], container: Container, selectors: Mapping[str, str]
) -> tuple[list[int], list[LeftOut]]:
    """Return the tracks that go along, in the input's order, and those that were wanted but cannot.

    Raises NoSuitableTrack, which names the reasons, when none is left.
    """
    states = [_state(index, info) for index, info in enumerate(tracks)]
    wanted = _wanted(states, selectors)
    if not wanted:
        raise NoSuitableTrack("no track fits the selection" if tracks else "there is no track in it")
    picked = set(select_tracks([states[index] for index in wanted], {}, container.codecs, live=False))
    left_out = []
    for index in wanted:
        reason = _obstacle(states[index], container) if index in picked else _missing(states[index], container)
        if reason:
            picked.discard(index)
            left_out.append(LeftOut(index, tracks[index], reason))
    if not picked:
        raise NoSuitableTrack("; ".join(str(one) for one in left_out))
    return sorted(picked), left_out


def _state(index: int, info: TrackInfo) -> TrackState:
    try:
        bframes = bool(codecs.has_bframes(info))
    except RemoteProtocolError:
        bframes = False
    return TrackState(index, info, bytes_per_second=info.bandwidth_bps // 8, next_sequence=1, has_bframes=bframes)


def _wanted(states: Sequence[TrackState], selectors: Mapping[str, str]) -> list[int]:
    """Return the tracks that the selectors pick, and all of the kinds that have no selector."""
    given = {kind: selectors[kind] for kind in SELECTABLE if selectors.get(kind, "auto") not in ("", "auto")}
    picked = {index for kind, selector in given.items() for index in pick_by_selector(selector, kind, states)}
    for state in states:
        kinds = {state.info.type, SUBTITLE if state.info.codec == SUBTITLE else state.info.type}
        if not kinds & given.keys():
            picked.add(state.index)
    return sorted(picked)


def _missing(state: TrackState, container: Container) -> str:
    """Return why the capability matrix does not take a track."""
    slots = [slot for combination in container.codecs for slot in combination]
    if any(codec_matches(entry, state) for slot in slots for entry in slot):
        return f"{container.name} has no room for another {state.info.type} track"
    return f"{container.name} cannot carry {state.info.codec}"


def _obstacle(state: TrackState, container: Container) -> str:
    """Return what a muxer has against a track of a codec that it carries, "" for nothing."""
    assert container.make_muxer is not None
    try:
        container.make_muxer([state.info])
    except RemoteProtocolError as error:
        return str(error)
    return ""


class Conversion:
    """A demuxer, a muxer, and what stands between them. The driver loops over `want()` and `feed()`, then calls `finish()`.

    Packets go from demuxer to muxer without a Python object; `packets` were written, `position_us` is the decode time that was
    reached, counted from the earliest packet. Errors of the input are RemoteProtocolError; NoSuitableTrack when nothing can go along.
    """

    def __init__(
        self,
        demuxer: Demuxer,
        container: Container,
        wishes: Wishes,
        *,
        tell: Callable[[str], None] = lambda _text: None,
    ) -> None:
        """Take a fresh demuxer, the output's format and what is wanted. tell: takes warnings, one sentence each."""
        self._demuxer = demuxer
        self._container = container
        self._wishes = wishes
        self._tell = tell
        self._indexes: list[int] = []
        self._infos: list[TrackInfo] = []
        self._seen_tracks = 0
        self._muxer: Muxer | None = None
        self._filter = PacketFilter(self._begin)
        self.left_out: list[LeftOut] = []
        self._told = 0  # of what the demuxer left out
        self._told_places = 0  # of what it could not read
        self.reading: tuple[int, int] | None = None  # what was wanted last
        demuxer.attach(self._filter)

    @property
    def packets(self) -> int:
        """How many packets went into the output."""
        return self._filter.packets

    @property
    def position_us(self) -> int:
        """How far the input has come, in media time from its beginning."""
        return self._filter.position_us

    def want(self) -> tuple[int, int] | None:
        """Return (position, count) of the input's bytes to feed next; None when the output has all it is to have."""
        if self._filter.done:
            return None
        wanted = self._demuxer.want()
        if wanted is not None:
            self.reading = wanted
        return wanted

    def feed(self, data: bytes | memoryview) -> None:
        """Take bytes of the input; `output` holds what they make."""
        self._demuxer.feed(data)

    @property
    def output(self) -> ByteBuffer:
        """The bytes of the output that nobody has taken yet."""
        return self._muxer.out if self._muxer is not None else _NOTHING

    def finish(self) -> list[tuple[int, bytes]]:
        """Queue the last bytes. Returns what is to be written over earlier ones where the output allows: (position, bytes).

        Call it also after an error, for an output that is whole as far as it goes.
        """
        if self._muxer is None:
            self._begin()
        assert self._muxer is not None
        self._tell_left_out()
        self._filter.release()
        if not self._filter.packets:
            raise NoSuitableTrack("there is no packet in it" + (" after the start" if self._wishes.start_us else ""))
        end = getattr(self._muxer, "finish", None)
        if end is not None:
            end()
        patches = getattr(self._muxer, "patches", None)
        return list(patches()) if patches is not None else []

    def _begin(self) -> None:
        """Choose tracks, make the muxer for them, and let packets flow."""
        assert self._container.make_muxer is not None
        tracks = self._demuxer.tracks
        self._indexes, self.left_out = choose_tracks(tracks, self._container, self._wishes.selectors)
        self._tell_left_out()
        for one in self.left_out:
            self._tell(str(one))
        self._infos = [tracks[index] for index in self._indexes]
        self._seen_tracks = len(tracks)
        places = [self._indexes.index(index) if index in self._indexes else -1 for index in range(len(tracks))]
        videos = [index for index in self._indexes if tracks[index].type == VIDEO]
        self._muxer = self._container.make_muxer(list(self._infos))
        self._filter.open(
            self._muxer,
            places,
            main=videos[0] if videos else -1,
            start_us=self._wishes.start_us,
            stop_us=self._wishes.stop_us,
            times=self._times(),
            sparse=[index for index in self._indexes if tracks[index].type == META],
            leads=[self._container.lead_us(info) for info in tracks] if self._container.lead_us is not None else None,
        )
        self._demuxer.on_tracks = self._change

    def _tell_left_out(self) -> None:
        """Say what the demuxer has left out since it was asked last, and what it could not read."""
        for text in self._demuxer.left_out[self._told :]:
            self._tell(text)
        self._told = len(self._demuxer.left_out)
        for place in places_of(self._demuxer.damage[self._told_places :]):
            self._tell(str(place))
        self._told_places = len(self._demuxer.damage)

    def _add(self, index: int, info: TrackInfo) -> None:
        """Take a track that begins late along, where the output can have one more after its first packets."""
        known = self._demuxer.tracks[: index + 1]
        wanted = index in _wanted([_state(place, one) for place, one in enumerate(known)], self._wishes.selectors)
        if wanted and info.type == META:
            self._filter.release()
            picked = select_tracks([_state(0, info)], {}, self._container.codecs, live=False)
            if picked and self._filter.set_tracks([*self._infos, info]):
                self._filter.add_track(len(self._indexes))
                self._indexes.append(index)
                self._infos = [*self._infos, info]
                return
        self._filter.add_track(-1)
        if wanted:
            self._tell(str(LeftOut(index, info, f"it begins only after {self.position_us / 1e6:.1f} s")))

    def _times(self) -> int:
        if self._wishes.from_zero:
            return TIMES_FROM_ZERO
        return KEEP_TIMES if self._container.negative_times else NO_NEGATIVE_TIMES

    def _change(self) -> None:
        """Follow a change of the input's tracks."""
        tracks = self._demuxer.tracks
        for index in range(self._seen_tracks, len(tracks)):
            self._add(index, tracks[index])
        self._seen_tracks = len(tracks)
        infos = [tracks[index] for index in self._indexes]
        if infos == self._infos:
            return
        self._filter.release()
        before, self._infos = self._infos, infos
        try:
            followed = self._filter.set_tracks(list(infos))
        except (UnsupportedError, LimitExceededError):
            followed = False
        if followed:
            return
        for place, index in enumerate(self._indexes):  # files may end with new init data that nothing follows
            if infos[place] != before[place]:
                self._filter.refuse(
                    index,
                    f"{describe(index, before[place])} changes after {self.position_us / 1e6:.3f} s in a way that "
                    f"{self._container.name} cannot follow; stop there, and start anew from there into another file",
                )
