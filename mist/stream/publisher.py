"""The writing side of a stream: its table, its tracks, and what remains of it after a crash."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mist.core.doorbell import Ringer
from mist.core.packet import Packet
from mist.core.shm import Segment, create_segment, monotonic_now_us, open_segment, unlink_segment
from mist.core.track_buffer import Table, TrackReader, create_table, open_table
from mist.core.track_writer import (
    TrackWriter,
    adopt_track,
    claim_account,
    create_track,
    read_account,
    release_account,
    set_account_limit,
    show_track,
)
from mist.errors import LimitExceededError, NotFound, SharedMemoryFull, StreamError
from mist.formats.tracks import AUDIO, VIDEO, TrackInfo
from mist.stream import former_properties
from mist.stream.names import SHARED_MEMORY, stream_prefix
from mist.stream.replay import Replay
from mist.stream.state import StreamStatus

MAX_TRACKS: Final = 64
MAX_CHANGES: Final = 1 << 16
ALL_VIEWERS: Final = 255
ACCOUNT_BYTES: Final = 4096
# A picture that comes no more is not waited for after this: segments go on with sound alone.
SILENT_US: Final = 5_000_000
LOOK_US: Final = 500_000  # of media time between two looks for tracks that are silent


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of a stream.

    window_us: the live window. segment_us: shortest fragment. stream_bytes: shared memory of this stream, 0 for no
    bound. packet_bytes: largest packet.
    """

    window_us: int = 50_000_000
    segment_us: int = 1_900_000
    stream_bytes: int = 0
    packet_bytes: int = 32 << 20


def create_account(instance: str, total_bytes: int) -> None:
    """Make the memory account of an instance. total_bytes: bound of all streams together, 0 for none."""
    account = create_segment(f"mist.{instance}", ACCOUNT_BYTES, ACCOUNT_BYTES)
    set_account_limit(account, total_bytes)


def set_account(instance: str, total_bytes: int) -> None:
    """Set the bound of an instance's memory account, or make it."""
    account = open_account(instance)
    if account is None:
        create_account(instance, total_bytes)
    else:
        set_account_limit(account, total_bytes)


def open_account(instance: str) -> Segment | None:
    """Return the memory account of an instance, or None if it keeps none."""
    try:
        return open_segment(f"mist.{instance}", True)
    except NotFound:
        return None


def memory_used(instance: str) -> tuple[int, int]:
    """Return (bytes of shared memory in use by streams, bound), zeros if the instance keeps no account."""
    account = open_account(instance)
    return read_account(account) if account is not None else (0, 0)


def create_stream(instance: str, name: str, limits: Limits, source: str = "") -> Table:
    """Make a stream's table, state INIT. What a killed server left under its name is removed first.

    Raises SharedMemoryFull.
    """
    remove_stream(instance, name)
    table = create_table(stream_prefix(instance, name))
    table.set_window(limits.window_us, limits.segment_us, limits.stream_bytes)
    table.source = source
    table.set_status(StreamStatus.INIT)
    return table


def remove_stream(instance: str, name: str, ringer: Ringer | None = None) -> bool:
    """Remove a stream with all its tracks, and tell whoever waits for it. Returns whether there was anything of it."""
    prefix = stream_prefix(instance, name)
    try:
        table = open_table(prefix)
    except NotFound:
        table = None
    if table is not None:
        table.set_status(StreamStatus.OFF)
        table.retire()
        account = open_account(instance)
        if account is not None:
            release_account(account, table.bytes_used)
        if ringer is not None:
            table.ring(ringer)
    names = [path.name for path in SHARED_MEMORY.iterdir() if path.name == prefix or path.name.startswith(prefix + ".")]
    for one in names:
        unlink_segment(one)
    return bool(names)


def remove_instance(instance: str) -> None:
    """Remove all shared memory of an instance."""
    for path in SHARED_MEMORY.iterdir():
        if path.name == f"mist.{instance}" or path.name.startswith(f"mist.{instance}."):
            unlink_segment(path.name)


class StreamPublisher:
    """Writes a stream's tracks. One process writes a track; its table was made by `create_stream`.

    A publisher that opens a stream with tracks in it adopts them: numbering, pages and times go on.
    """

    def __init__(
        self, instance: str, name: str, bell_folder: str, limits: Limits | None = None, *, resumed: bool = False
    ) -> None:
        """Raise NotFound if the stream has no table. resumed: a writer that plays it was killed, and its clock goes on."""
        self.instance = instance
        self.name = name
        self.limits = limits or Limits()
        self.table = open_table(stream_prefix(instance, name))
        self.table.set_pids(input=os.getpid())
        self._ringer = Ringer(bell_folder)
        self._account = open_account(instance)
        self.on_ready: Callable[[], None] = lambda: None
        self._ready = self._clocks_told = resumed and self.table.status == StreamStatus.READY
        self._replay: Replay | None = None
        self._writers: dict[int, TrackWriter] = {}
        self._infos: dict[int, TrackInfo] = {}
        self._look_at_us: int | None = None
        self._fresh: set[int] = set()  # tracks without a packet yet
        for index, _mask in self.table.valid_tracks():
            self._adopt(index)
        if resumed:
            self._sweep()
            self.count_memory_anew()
            self.table.ring_everybody(self._ringer)

    def _sweep(self) -> None:
        """Remove what a killed writer had made and not yet published, or taken out and not yet removed."""
        prefix = self.table.prefix + "."
        for path in SHARED_MEMORY.iterdir():
            if not path.name.startswith(prefix):
                continue
            track, _, page = path.name.removeprefix(prefix).partition(".")
            if not track.isdigit():
                continue
            writer = self._writers.get(int(track))
            if writer is not None and page.startswith(former_properties.MARK):
                continue
            if writer is None or (page and not (page.isdigit() and int(page) in writer.pages)):
                unlink_segment(path.name)

    def _adopt(self, index: int) -> None:
        writer = adopt_track(self.table, index, self._account)
        self._writers[index] = writer
        self._infos[index] = TrackInfo(*TrackReader(self.table, index).properties())
        if writer.last_us is None:
            self._fresh.add(index)
        self._connect_tracks()

    @property
    def tracks(self) -> dict[int, TrackInfo]:
        """The tracks by index, those that were adopted included."""
        return dict(self._infos)

    def last_us(self) -> int | None:
        """Return the newest decode time of any track, or None if nothing was ever written."""
        times = [writer.last_us for writer in self._writers.values() if writer.last_us is not None]
        return max(times) if times else None

    def track_last_us(self, index: int) -> int | None:
        """Return the newest decode time of one track, or None."""
        return self._writers[index].last_us

    def add_track(self, info: TrackInfo, valid_mask: int = ALL_VIEWERS) -> int:
        """Make a track visible and return its index.

        Raises LimitExceededError after MAX_TRACKS tracks, SharedMemoryFull.
        """
        index = self._free_slot()
        writer = create_track(self.table, index, self._account)
        self._writers[index] = writer
        self._describe(writer, info)
        self._infos[index] = info
        self._fresh.add(index)
        self._connect_tracks()
        show_track(self.table, index, valid_mask)
        self.table.ring(self._ringer)
        return index

    def _free_slot(self) -> int:
        """Return the first slot that was never used; slots of removed tracks only when there is no other."""
        used = {index for index, _mask in self.table.valid_tracks()} | set(self._infos)
        fresh = max(self.table.slots_used, max(used, default=-1) + 1)
        if fresh < MAX_TRACKS:
            return fresh
        for index in range(MAX_TRACKS):
            if index not in used:
                return index
        raise LimitExceededError(f"The stream {self.name} has {MAX_TRACKS} tracks; there is no room for more")

    def _describe(self, writer: TrackWriter, info: TrackInfo) -> None:
        writer.set_properties(
            info.type,
            info.codec,
            info.init_data,
            info.track_id,
            info.language,
            info.width,
            info.height,
            info.frame_rate_mhz,
            info.sample_rate_hz,
            info.channels,
            info.sample_bits,
            info.bandwidth_bps,
        )

    def _connect_tracks(self) -> None:
        """Let the other tracks keep what the first video track keeps, and pictures and sounds know of each other's breaks."""
        pictures, sounds = (
            [one for index, one in sorted(self._writers.items()) if self._infos.get(index, _NONE).type == kind]
            for kind in (VIDEO, AUDIO)
        )
        video = pictures[0] if pictures else None
        for writer in self._writers.values():
            writer.set_anchor(None if writer is video else video)
            writer.set_companions(sounds if writer in pictures else pictures if writer in sounds else ())

    def update_track(self, index: int, info: TrackInfo) -> None:
        """Change what is known of a track; readers see it before the next packet."""
        if self._replay is not None:
            self._replay.infos[index] = info
        elif self._infos[index] != info:
            self._keep_former(index, info)
            self._describe(self._writers[index], info)
            self._infos[index] = info

    def _keep_former(self, index: int, info: TrackInfo) -> None:
        """Keep the properties that others replace, for those who read packets that were made with them."""
        writer = self._writers[index]
        first, last = writer.init_range
        former_properties.forget(self.table.prefix, index, first, last)
        if writer.init_in_use and not writer.has_init(info.codec, info.init_data):
            former_properties.keep(self.table.prefix, index, last, self._infos[index])

    def write(self, packet: Packet) -> None:
        """Append a packet to the track `packet.track` and wake who waits.

        Raises LimitExceededError for a packet over the bound, SharedMemoryFull.
        """
        if self._replay is not None and self._has(packet.track):
            return
        if len(packet.payload) > self.limits.packet_bytes:
            raise LimitExceededError(
                f"a packet of {len(packet.payload)} bytes; the bound is {self.limits.packet_bytes} "
                "(config.memory.packet_bytes)"
            )
        if self._look_at_us is None or packet.dts_us >= self._look_at_us:
            self._look_for_silence(packet)
        if packet.track in self._fresh:
            self._begin_track(packet)
        self._writers[packet.track].write(packet)
        if not self._ready:
            self._become_ready(packet.dts_us)
        self.table.ring(self._ringer)

    def _begin_track(self, packet: Packet) -> None:
        """Let a picture that begins late go on with the fragments that there are of the sound."""
        self._fresh.discard(packet.track)
        writer = self._writers[packet.track]
        sounds = [
            index for index, info in sorted(self._infos.items()) if info.type == AUDIO and index not in self._fresh
        ]
        if writer.video and sounds:
            writer.follow_fragments(self._writers[sounds[0]], packet.dts_us)

    def _look_for_silence(self, packet: Packet) -> None:
        """Let fragments begin for pictures that do not come while sound does, and forget tracks of which nothing is in the window."""
        self._look_at_us = packet.dts_us + LOOK_US
        media = [index for index, info in self._infos.items() if info.type in (VIDEO, AUDIO) and index != packet.track]
        for index in media:
            writer = self._writers[index]
            last_us = writer.last_us
            if last_us is None or packet.dts_us - last_us <= SILENT_US:
                continue
            if writer.video:
                writer.pass_silence(packet.dts_us - SILENT_US)
            elif packet.dts_us - last_us > self.limits.window_us:
                writer.forget_all()

    def begin_replay(self, counts: Mapping[int, int]) -> None:
        """Pass over what comes now and is in the stream already. counts: packets of each track at the place where it begins."""
        self._replay = Replay(counts)

    def packet_counts(self) -> dict[int, int]:
        """Return how many packets each track has ever got."""
        return {index: writer.packets for index, writer in self._writers.items()}

    def _has(self, index: int) -> bool:
        """Tell whether a packet that was parsed again is in the stream; the first that is not ends this."""
        assert self._replay is not None
        writer = self._writers.get(index)
        if self._replay.passes(index, writer.packets if writer is not None else None):
            return True
        replay, self._replay = self._replay, None
        for number, info in replay.infos.items():
            if number in self._infos:
                self.update_track(number, info)
        if replay.marked:
            self.mark_discontinuity()
        return False

    def _become_ready(self, dts_us: int) -> None:
        """Say that the stream plays: its first packet of this publisher is in the buffer."""
        self._ready = True
        if not self._clocks_told:
            self.table.set_clocks(monotonic_now_us() - dts_us, time.time_ns() // 1000 - dts_us)
        self.table.set_status(StreamStatus.READY)
        self.on_ready()

    def play_on_demand(self) -> None:
        """Say that the stream plays, from spans that are loaded when somebody asks; its tracks' rings stay empty."""
        self.table.set_on_demand()
        self._ready = True
        self.table.set_status(StreamStatus.READY)
        self.on_ready()
        self.table.ring(self._ringer)

    def describe_track(
        self,
        index: int,
        packets: int,
        first_us: int,
        last_us: int,
        mean: int,
        highest: int,
        frames: int,
        reorders: bool,
    ) -> None:
        """Set what is known of an on-demand track: decode times, bytes a second, frames in 1000 s."""
        limit = 0xFFFFFFFF
        figures = (min(mean, limit), min(highest, limit), min(frames, limit))
        self._writers[index].set_figures(packets, first_us, last_us, *figures, reorders)

    def claim_memory(self, count: int) -> None:
        """Count memory that the stream takes besides its tracks, or gives back. Raises SharedMemoryFull."""
        bound = claim_account(self.table, self._account, count)
        if bound:
            raise SharedMemoryFull(f"{count} more bytes of the stream {self.name} are over {bound}")

    def count_memory_anew(self) -> None:
        """Let the account forget what a killed predecessor had besides the tracks, or was about to take or to give back."""
        tracks = sum(writer.memory for writer in self._writers.values())
        self.claim_memory(tracks - self.table.bytes_used)

    def ring(self) -> None:
        """Wake who waits for something new in the stream."""
        self.table.ring(self._ringer)

    def mark_discontinuity(self) -> None:
        """Mark the next packet of every track as the first after a jump or a restart of the source."""
        if self._replay is not None:
            self._replay.marked = True
            return
        for writer in self._writers.values():
            writer.mark(4)

    def remove_track(self, index: int) -> None:
        """Take a track out of the stream."""
        if self._replay is not None and index not in self._writers:
            return
        writer = self._writers.pop(index)
        former_properties.forget(self.table.prefix, index, MAX_CHANGES, writer.init_range[1])
        writer.close(True)
        self._fresh.discard(index)
        del self._infos[index]
        self._connect_tracks()
        self.table.ring(self._ringer)

    def set_status(self, status: StreamStatus, progress: int = 0) -> None:
        """Set the stream's state and wake who waits."""
        self.table.set_status(status, progress)
        self.table.ring(self._ringer)

    def set_clocks(self, boot_us: int, wall_us: int) -> None:
        """Set the monotonic and the unix time, microseconds, at media time 0; else both follow from the first packet's arrival."""
        self._clocks_told = True
        self.table.set_clocks(boot_us, wall_us)

    def set_wall_clock(self, wall_us: int) -> None:
        """Set the unix time, microseconds, at media time 0, as the source tells it."""
        self.set_clocks(monotonic_now_us() - (time.time_ns() // 1000 - wall_us), wall_us)

    @property
    def wall_clock_us(self) -> int:
        """Unix time in microseconds at media time 0, 0 when unknown."""
        return int(self.table.clocks[1])

    @property
    def _note_path(self) -> Path:
        return SHARED_MEMORY / f"{self.table.prefix}.note"

    def keep_note(self, data: bytes) -> None:
        """Keep what a successor of this process is to know, as long as the stream lives. Raises SharedMemoryFull."""
        path = self._note_path
        fresh = path.with_name(path.name + ".new")
        try:
            fresh.write_bytes(data)
            fresh.replace(path)
        except OSError as error:
            raise SharedMemoryFull(f"{path}: {error.strerror}") from error

    def note(self) -> bytes:
        """Return what a predecessor kept last, b"" for nothing."""
        try:
            return self._note_path.read_bytes()
        except FileNotFoundError:
            return b""

    def close(self) -> None:
        """Let go of the stream; its tracks stay for the next publisher or the guardian to deal with."""
        for writer in self._writers.values():
            writer.close(False)
        self._writers.clear()
        self.table.set_pids(input=0)


_NONE: Final = TrackInfo(type="", codec="")

__all__ = [
    "Limits",
    "StreamError",
    "StreamPublisher",
    "create_account",
    "create_stream",
    "memory_used",
    "open_account",
    "remove_instance",
    "remove_stream",
]
