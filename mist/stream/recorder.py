"""Recording a live stream: its packets, in order of time, into files that are cut at keyframes.

A file holds of every track the packets whose decode time is before the next file's first keyframe, so that files which follow
each other lose and repeat nothing.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Protocol

from mist.core.buffer import ByteBuffer
from mist.core.muxer import Muxer
from mist.core.packet import Packet
from mist.core.packet_filter import KEEP_TIMES, TIMES_FROM_ZERO, PacketFilter
from mist.errors import LimitExceededError, NoSuitableTrack, NotReady, TransportError, UnsupportedError
from mist.formats.containers import Container
from mist.formats.tracks import META, VIDEO, TrackInfo
from mist.stream.playability import UNPLAYABLE, is_playable
from mist.stream.recording import RecordingTarget, next_cut
from mist.stream.selectors import ANY_MASK, PUSHES_MASK, select_tracks
from mist.stream.state import Key, StreamStatus, TrackState

STALLED_US: Final = 1_000_000  # a track this far behind the others is not waited for: what is written is never older
IDLE_US: Final = 1_000_000  # after so long without a packet, what is there is written
STEP_US: Final = (
    1_000_000  # of media at once: what does not fit on a disk is no more than that, nor what is muxed into memory
)
AHEAD_US: Final = 500_000  # of its pace that a recording may be: so seldom is it looked at where nothing happens
DEFAULT_FRAME_US: Final = 40_000
NEVER_US: Final = 1 << 62


class Reader(Protocol):
    """What of `StreamReader` is used here."""

    @property
    def name(self) -> str: ...
    @property
    def wall_clock_offset_us(self) -> int: ...
    def status(self) -> StreamStatus: ...
    def tracks(self) -> list[TrackState]: ...
    def keys(self, index: int) -> list[Key]: ...
    def packets(self, index: int, first_sequence: int, end_sequence: int) -> list[Packet]: ...
    def sequence_at(self, index: int, dts_us: int) -> int: ...
    def mux_range(self, muxer: Muxer, ranges: Sequence[tuple[int, int, int]]) -> object: ...


@dataclass(frozen=True, slots=True)
class Span:
    """The media of one file. begin_us, end_us: media times. date_us: unix time of the beginning, 0 when unknown.

    discontinuity: it does not continue the file before it.
    """

    begin_us: int
    end_us: int
    date_us: int
    discontinuity: bool


class Files(Protocol):
    """Where the bytes go: one file after the other."""

    def choose(self, begin_us: int) -> None: ...
    def open(self) -> None: ...
    def write(self, output: ByteBuffer) -> None: ...
    def close(self, patches: Sequence[tuple[int, bytes]], span: Span) -> None: ...
    def vanished(self) -> bool: ...


class GoneReader:
    """The reader of a stream that is not there any more."""

    wall_clock_offset_us = 0

    def __init__(self, name: str) -> None:
        self.name = name

    def status(self) -> StreamStatus:
        return StreamStatus.OFF

    def tracks(self) -> list[TrackState]:
        return []

    def keys(self, index: int) -> list[Key]:
        return []

    def packets(self, index: int, first_sequence: int, end_sequence: int) -> list[Packet]:
        return []

    def sequence_at(self, index: int, dts_us: int) -> int:
        return 0

    def mux_range(self, muxer: Muxer, ranges: Sequence[tuple[int, int, int]]) -> object:
        return None


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Where another process goes on: the state of a recorder at a moment when all that it muxed was in the file.

    state: small and as JSON has it. index: what is kept for the file's end; another `index_number` means another one.
    """

    state: Mapping[str, Any]
    index: bytes
    index_number: int


class Recorder:
    """Records one stream. The driver calls `step` every moment until it returns False, then `finish`; or `finish` at any time."""

    def __init__(
        self,
        reader: Reader,
        container: Container,
        target: RecordingTarget,
        files: Files,
        *,
        clock_us: Callable[[], int],
        unix_us: Callable[[], int],
        tell: Callable[[str], None] = lambda _text: None,
        keep: Callable[[Checkpoint], None] = lambda _checkpoint: None,
    ) -> None:
        """clock_us: a monotonic clock. unix_us: the time of day. tell: takes warnings, one sentence each.

        keep: takes checkpoints, each after the bytes that it stands for were written, and before a file that it names is made.
        """
        self._reader = reader
        self._container = container
        self._target = target
        self._files = files
        self._clock_us = clock_us
        self._unix_us = unix_us
        self._tell = tell
        self._keep = keep
        self._kept: Checkpoint | None = None
        self._kept_of: Muxer | None = None
        self._opened = False
        self._zero_us = 0
        self._since_us = self._news_us = clock_us()
        self._split_us = target.split_us
        self._window: tuple[int | None, int | None] | None = None
        self._wait_after: int | None = None
        self._stop_us = NEVER_US
        self._paced_from: tuple[int, int] | None = None  # media time, and the clock then
        self._indexes: list[int] = []
        self._wanted: list[int] = []
        self._infos: list[TrackInfo] = []
        self._positions: dict[int, int] = {}
        self._init_changes: dict[int, int] = {}
        self._seen: list[tuple[int, int]] = []
        self._begin: Key | None = None  # of the file
        self._muxer: Muxer | None = None
        self._made_for: list[TrackInfo] = []  # the tracks that the muxer was made with
        self._filter: PacketFilter | None = None
        self._breaks: int | None = None
        self._done_us = 0
        self._first_us = 0
        self.finished = False

    @property
    def recording(self) -> bool:
        """Whether there is something in a file."""
        return self._filter is not None

    @property
    def begun(self) -> bool:
        """Whether there is or was something in a file."""
        return self._begin is not None

    @property
    def caught_up(self) -> bool:
        """Whether all that there is of the stream is recorded."""
        states = (state for state in self._reader.tracks() if state.index in self._positions)
        return self.recording and all(self._positions[state.index] >= state.next_sequence for state in states)

    @property
    def tracks(self) -> list[int]:
        """The indexes of the tracks that are recorded."""
        return list(self._indexes)

    @property
    def first_us(self) -> int:
        """The media time of the recording's beginning."""
        return self._first_us

    @property
    def done_us(self) -> int:
        """The media time up to which everything is recorded."""
        return self._done_us

    @property
    def position_us(self) -> int:
        """How much media is recorded."""
        return max(self._done_us - self._first_us, 0)

    def step(self) -> bool:
        """Record what is new. Returns False when there is nothing more to come.

        Raises NotReady, NoSuitableTrack while nothing is recorded; what the files raise.
        """
        over = self._reader.status() in UNPLAYABLE  # before the tracks: what came before the end is in them
        if self._filter is not None and self._files.vanished():
            self._tell("the file was removed while it was recorded; another one begins")
            self.begin_again()
        states = {state.index: state for state in self._reader.tracks()}
        if self._filter is None and not self._ready(states, over):
            return True
        limit_us = min(NEVER_US if over else min(self._limit_us(states), self._due_us()), self._stop_us)
        self._follow(states)
        self._record_until(states, limit_us)
        if limit_us >= self._stop_us:
            self.finished = True
        return not (over or self.finished)

    def finish(self) -> None:
        """Record what is still there, and close the file."""
        if self._filter is not None:
            if not self.finished:
                limit_us = self._stop_us if self._reader.status() in UNPLAYABLE else min(self._stop_us, self._due_us())
                self._record_until({state.index: state for state in self._reader.tracks()}, limit_us)
            self._close(self._end_us())
        self.finished = True

    def break_off(self) -> None:
        """Close the file as it was when a write last succeeded: what came after that is not in it."""
        if self._filter is not None and self._kept is not None and self._opened:
            self._restore(self._kept.state, self._kept.index)
            try:
                self._close(self._done_us)
            except TransportError:
                self._files.close([], self._span(self._done_us))
            finally:
                self._filter = None
        self._filter = None
        self.finished = True

    # -- another process -------------------------------------------------------------------------------------------

    def _save(self) -> None:
        """Let another process go on from here. Nothing is muxed and not in the file."""
        assert self._muxer is not None
        assert self._filter is not None
        assert self._begin is not None
        state = {
            "split_us": self._split_us,
            "window": self._window,
            "stop_us": self._stop_us,
            "indexes": self._indexes,
            "wanted": self._wanted,
            "infos": [info.export_state() for info in self._infos],
            "made_for": [info.export_state() for info in self._made_for],
            "positions": sorted(self._positions.items()),
            "init_changes": sorted(self._init_changes.items()),
            "begin": asdict(self._begin),
            "muxer": b64encode(self._muxer.file_state()).decode(),
            "passing": self._filter.passing,
            "origin_us": self._filter.origin_us,
            "shift_us": self._filter.shift_us,
            "breaks": self._breaks,
            "done_us": self._done_us,
            "first_us": self._first_us,
            "zero_us": self._zero_us,
        }
        number = self._muxer.index_number
        if self._kept is None or self._kept_of is not self._muxer or self._kept.index_number != number:
            index = self._muxer.index()
        else:
            index = self._kept.index
        self._kept, self._kept_of = Checkpoint(state, index, number), self._muxer
        self._keep(self._kept)

    def go_on(self, state: Mapping[str, Any], index: bytes) -> None:
        """Be where a checkpoint's recorder was, before the first `step`. Raises MistError, KeyError, TypeError, ValueError."""
        self._window = tuple(state["window"])
        self._wanted = list(state["wanted"])
        self._split_us, self._stop_us = int(state["split_us"]), int(state["stop_us"])
        self._first_us = int(state["first_us"])
        self._breaks = state["breaks"]
        self._restore(state, index)
        self._opened = True

    def _restore(self, state: Mapping[str, Any], index: bytes) -> None:
        """Make muxer and positions those of a checkpoint."""
        self._indexes = list(state["indexes"])
        self._infos = [TrackInfo.restore(one) for one in state["infos"]]
        self._made_for = [TrackInfo.restore(one) for one in state["made_for"]]
        self._positions = {int(number): int(sequence) for number, sequence in state["positions"]}
        self._init_changes = {int(number): int(count) for number, count in state["init_changes"]}
        self._begin = Key(**state["begin"])
        self._done_us, self._zero_us = int(state["done_us"]), int(state["zero_us"])
        self._muxer = self._new_muxer()
        if self._infos != self._made_for:
            self._muxer.set_tracks(self._infos)
            self._muxer.take_output()  # is in the file
        if state["muxer"]:
            self._muxer.restore_file(b64decode(state["muxer"]), index)
        self._filter = self._new_filter()
        if state["passing"]:
            self._filter.go_on(int(state["origin_us"]), int(state["shift_us"]))

    def begin_again(self) -> None:
        """Begin another file where a checkpoint's recorder was: its own is gone. Its last GOP is in the new one again."""
        assert self._begin is not None
        self._filter = None
        states = {state.index: state for state in self._reader.tracks()}
        main = self._main(states)
        before = self._positions[main.index] if main is not None else 0
        keys = [key for key in self._reader.keys(main.index) if key.sequence <= before] if main is not None else []
        if keys:
            self._positions.clear()
            self._done_us = keys[-1].dts_us
            self._open(states, keys[-1])

    # -- the beginning ---------------------------------------------------------------------------------------------

    def _select(self, states: list[TrackState]) -> list[int]:
        mask = ANY_MASK if self._target.unmask else PUSHES_MASK
        return select_tracks(states, self._target.playback.selectors, self._container.codecs, mask=mask)

    def _ready(self, states: dict[int, TrackState], over: bool) -> bool:
        """Open the first file if it can begin now; returns whether."""
        playback = self._target.playback
        waited_us = self._clock_us() - self._since_us
        if self._window is None:
            late = waited_us > playback.max_wait_us
            if over:
                raise NotReady(f"The stream {self._reader.name} has ended before there was anything to record")
            if not is_playable(self._reader, playback, self._select) and not late:
                return False
            self._indexes = self._wanted = self._select(list(states.values()))
            if not self._indexes:
                if late and any(state.next_sequence for state in states.values()):
                    raise NoSuitableTrack(
                        f"The stream {self._reader.name} has no track that {self._container.name} can carry and you asked for"
                    )
                if late:
                    raise NotReady(f"The stream {self._reader.name} is waiting for data")
                return False
            zero_us = self._reader.wall_clock_offset_us or None
            self._window = playback.window(self._unix_us(), zero_us, 0)
        key = self._first_key(states)
        if key is None:
            if over:
                raise NotReady(f"The stream {self._reader.name} has ended before the recording's start")
            return False
        start_us, stop_us = self._window
        if playback.duration_us is not None:
            stop_us = (key.dts_us if start_us is None else start_us) + playback.duration_us
        self._stop_us = NEVER_US if stop_us is None else stop_us
        self._first_us = self._done_us = key.dts_us
        self._open(states, key)
        return True

    def _first_key(self, states: dict[int, TrackState]) -> Key | None:
        """Return the keyframe that the recording begins with, None if it is not there yet."""
        assert self._window is not None
        main = self._main(states)
        keys = self._reader.keys(main.index) if main is not None else []
        if main is None or not keys:
            return None
        start_us = self._window[0]
        if self._target.delay_us and not self._target.film:
            if main.last_us - main.first_us < self._target.delay_us:
                return None
            start_us = main.last_us - self._target.delay_us
        if start_us is not None:
            if start_us > main.last_us:
                return None
            return next((key for key in reversed(keys) if key.dts_us <= start_us), keys[0])
        if self._target.playback.wait_key:
            if self._wait_after is None:
                self._wait_after = keys[-1].sequence
            return next((key for key in keys if key.sequence > self._wait_after), None)
        return keys[-1]

    def _main(self, states: dict[int, TrackState]) -> TrackState | None:
        """Return the track whose keyframes decide: the first video track, else the first of all."""
        chosen = [states[index] for index in self._indexes if index in states]
        return next((state for state in chosen if state.info.type == VIDEO), chosen[0] if chosen else None)

    # -- what is there ---------------------------------------------------------------------------------------------

    def _due_us(self) -> int:
        """Return the media time up to which it is time to record, for a target with a pace of its own."""
        rate, now_us = self._target.rate, self._clock_us()
        if not rate:
            return NEVER_US
        if self._paced_from is None:
            self._paced_from = self._done_us, now_us
        media_us, began_us = self._paced_from
        return media_us + AHEAD_US + round((now_us - began_us) * rate)

    def _limit_us(self, states: dict[int, TrackState]) -> int:
        """Return the time before which every track has everything; all there is when the stream is silent."""
        chosen = [states[index] for index in self._indexes if index in states and states[index].next_sequence]
        seen = [(state.index, state.next_sequence) for state in chosen]
        if seen != self._seen:
            self._seen = seen
            self._news_us = self._clock_us()
        elif self._clock_us() - self._news_us >= IDLE_US:
            return max((state.last_us for state in chosen), default=self._done_us) + 1
        sure = [state for state in chosen if state.info.type != META] or chosen
        timed = [max(state.now_us, state.last_us) for state in sure]
        newest_us = max(timed, default=self._done_us)
        return min((one for one in timed if newest_us - one <= STALLED_US), default=newest_us)

    def _follow(self, states: dict[int, TrackState]) -> None:
        """Look whether other tracks are to be recorded from the next keyframe on."""
        wanted = self._select(list(states.values()))
        if wanted:
            self._wanted = wanted
        if not any(index in states for index in self._indexes):
            self._wanted = wanted

    def _record_until(self, states: dict[int, TrackState], limit_us: int) -> None:
        """Write all packets before a time, beginning new files where that is due."""
        while (main := self._main(states)) is not None:
            change = self._next_change(states, limit_us)
            key = self._next_key(main, limit_us if change is None else change.dts_us)
            cut = key if key is not None and (change is None or key.dts_us <= change.dts_us) else change
            self._mux(limit_us if cut is None else cut.dts_us)
            if cut is None:
                return
            self._done_us = max(self._done_us, cut.dts_us)
            states = {state.index: state for state in self._reader.tracks()}
            if cut is key or not self._change_in_place(states):
                self._close(cut.dts_us)
                self._open(states, cut)
        if self._wanted and self._begin is not None:  # all tracks have been replaced
            self._indexes = self._wanted
            main = self._main(states)
            keys = self._reader.keys(main.index) if main is not None else []
            if keys:
                self._close(self._done_us)
                self._open(states, keys[0])

    def _next_key(self, main: TrackState, limit_us: int) -> Key | None:
        """Return where the next file begins by itself."""
        assert self._begin is not None
        keys = self._reader.keys(main.index)
        if self._wanted != self._indexes:
            return next(
                (k for k in keys if k.sequence > self._begin.sequence and self._done_us <= k.dts_us <= limit_us), None
            )
        return next_cut(keys, self._begin, self._split_us, limit_us, at_breaks=bool(self._target.playlist))

    def _next_change(self, states: dict[int, TrackState], limit_us: int) -> Key | None:
        """Return the first key up to a time at which a track has other init data than the file knows."""
        found = [
            key
            for index in self._indexes
            if index in states
            for key in self._reader.keys(index)
            if key.sequence >= self._positions[index]
            and key.init_changes != self._init_changes[index]
            and key.dts_us <= limit_us
        ]
        return min(found, key=lambda key: key.dts_us, default=None)

    def _change_in_place(self, states: dict[int, TrackState]) -> bool:
        """Let the file go on with changed tracks; False if its format cannot."""
        assert self._filter is not None
        infos = [states[index].info if index in states else info for index, info in self._now()]
        self._filter.release()
        try:
            followed = self._filter.set_tracks(infos)
        except (UnsupportedError, LimitExceededError):
            followed = False
        if followed:
            self._infos = infos
            self._note_changes()
        return followed

    def _now(self) -> list[tuple[int, TrackInfo]]:
        return list(zip(self._indexes, self._infos, strict=True))

    def _note_changes(self) -> None:
        """Remember how often each track's init data had changed where the recording is."""
        for index in self._indexes:
            keys = self._reader.keys(index)
            passed = [key for key in keys if key.dts_us <= self._done_us]
            known = passed[-1] if passed else keys[0] if keys else None
            self._init_changes[index] = 0 if known is None else known.init_changes

    def _mux(self, to_us: int) -> None:
        """Write the packets before a time to the file."""
        assert self._filter is not None
        assert self._muxer is not None
        states = {state.index: state for state in self._reader.tracks()}
        last_us = max((states[index].last_us for index in self._indexes if index in states), default=self._done_us)
        while self._done_us < to_us:
            until_us = to_us if last_us < self._done_us + STEP_US else min(to_us, self._done_us + STEP_US)
            ranges = []
            for index in self._indexes:
                if index not in states:
                    ranges.append((index, 0, 0))
                    continue
                first = self._positions[index]
                end = max(self._reader.sequence_at(index, until_us), first)
                lost = min(states[index].first_sequence, end) - first
                if lost > 0:
                    self._tell(f"{lost} packets of track {index} left the stream's buffer before they were recorded")
                ranges.append((index, first, end))
                self._positions[index] = end
            self._mux_ranges(ranges, states)
            self._done_us = min(until_us, max(last_us + 1, self._done_us))
            wrote = len(self._muxer.out) > 0
            self._files.write(self._muxer.out)
            if wrote and self._filter.passing:
                self._save()
            if until_us == to_us:
                return

    def _mux_ranges(self, ranges: list[tuple[int, int, int]], states: dict[int, TrackState]) -> None:
        assert self._filter is not None
        if all(index in states for index, _, _ in ranges):
            self._reader.mux_range(self._filter, ranges)
            return
        for place, (index, first, end) in enumerate(ranges):  # a track has gone: the others keep their places
            for packet in self._reader.packets(index, first, end) if index in states else []:
                self._filter.write(Packet(place, packet.dts_us, packet.offset_us, packet.keyframe, packet.payload))

    # -- files -----------------------------------------------------------------------------------------------------

    def _open(self, states: dict[int, TrackState], key: Key) -> None:
        """Begin a file at a key, with the tracks that are wanted now."""
        self._indexes = [index for index in self._wanted if index in states] or self._indexes
        infos_before, self._infos = self._infos, [states[index].info for index in self._indexes]
        before, self._made_for = self._muxer, self._infos
        self._muxer = self._new_muxer()
        if before is not None and self._container.name == "ts" and self._infos == infos_before:
            self._muxer.restore(before.state())  # counters go on, so that the files can be joined
        self._filter = self._new_filter()
        for index in self._indexes:
            if index not in self._positions:
                self._positions[index] = self._reader.sequence_at(index, key.dts_us)
        self._begin = key
        self._done_us = max(self._done_us, key.dts_us)
        self._note_changes()
        self._zero_us = self._reader.wall_clock_offset_us
        self._files.choose(key.dts_us)
        self._opened = False
        self._save()
        self._files.open()
        self._opened = True

    def _new_muxer(self) -> Muxer:
        make = self._container.make_growing or self._container.make_muxer
        assert make is not None
        return make(list(self._made_for))

    def _new_filter(self) -> PacketFilter:
        assert self._muxer is not None
        keep_times = self._target.playlist or self._container.name == "ts"
        made = PacketFilter(lambda: None)
        made.open(
            self._muxer,
            list(range(len(self._indexes))),
            times=KEEP_TIMES if keep_times else TIMES_FROM_ZERO,
            sparse=[place for place, info in enumerate(self._infos) if info.type == META],
        )
        return made

    def _close(self, end_us: int) -> None:
        """End the file."""
        assert self._filter is not None
        assert self._muxer is not None
        assert self._begin is not None
        self._filter.release()
        end = getattr(self._muxer, "finish", None)
        if end is not None:
            end()
        self._files.write(self._muxer.out)
        patches = getattr(self._muxer, "patches", None)
        span = self._span(end_us)
        self._files.close(list(patches()) if patches is not None else [], span)
        self._breaks = self._begin.discontinuities + self._begin.init_changes
        self._filter = None
        if self._target.adjust and self._split_us:
            self._split_us = max(self._split_us, (span.end_us - span.begin_us) // 2)

    def _span(self, end_us: int) -> Span:
        """Return what the file holds that ends now."""
        assert self._begin is not None
        begin, zero_us = self._begin, self._zero_us
        breaks = begin.discontinuities + begin.init_changes
        return Span(
            begin.dts_us,
            max(end_us, begin.dts_us),
            zero_us and zero_us + begin.dts_us,
            self._breaks not in (None, breaks),
        )

    def _end_us(self) -> int:
        """Return where the recording's media ends, guessing the last packet's duration from the one before."""
        main = self._main({state.index: state for state in self._reader.tracks()})
        if main is None:
            return self._done_us
        end = self._positions[main.index]
        last = self._reader.packets(main.index, max(end - 2, main.first_sequence), end)
        if not last:
            return self._done_us
        length_us = last[-1].dts_us - last[0].dts_us if len(last) > 1 else DEFAULT_FRAME_US
        return min(last[-1].dts_us + length_us, self._stop_us)
