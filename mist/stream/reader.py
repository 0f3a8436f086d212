"""The reading side of a stream: tracks, keys and packets out of shared memory."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import unquote

from mist.core.muxer import Muxer
from mist.core.packet import Packet
from mist.core.track_buffer import Table, TrackReader, mux_ranges, open_table
from mist.errors import NotFound
from mist.formats.tracks import TrackInfo
from mist.stream import former_properties
from mist.stream.names import SHARED_MEMORY, stream_prefix
from mist.stream.state import STATES, FragmentStart, Key, StreamStatus, TrackState


def list_streams(instance: str) -> list[str]:
    """Return the full names of all streams of an instance that have a table, sorted.

    Names that were too long to be kept whole in the file name are left out.
    """
    prefix = f"mist.{instance}."
    found = []
    for path in SHARED_MEMORY.iterdir():
        rest = path.name.removeprefix(prefix)
        if rest != path.name and "." not in rest and "~" not in rest and not rest.startswith("#"):
            found.append(unquote(rest))
    return sorted(found)


def track_info(table: Table, index: int) -> TrackInfo:
    """Return the properties of one track. Raises NotFound."""
    return TrackInfo(*TrackReader(table, index).properties())


class StreamReader:
    """Reads a stream; shared by everything in a process that plays it."""

    def __init__(self, instance: str, name: str) -> None:
        """Open the stream's table. Raises NotFound."""
        self.instance = instance
        self.name = name
        self.table = open_table(stream_prefix(instance, name))
        self._readers: dict[int, TrackReader] = {}
        self._former: dict[tuple[int, int], TrackInfo] = {}
        self._states_at = -1

    def status(self) -> StreamStatus:
        """Return the state of the stream; OFF once its table is retired."""
        if self.table.stale:
            return StreamStatus.OFF
        return STATES[self.table.status]

    @property
    def live(self) -> bool:
        """Whether its media lies in the tracks' buffers; that of an on-demand stream is loaded by `mist.stream.on_demand`."""
        return not self.table.on_demand

    def track_set_generation(self) -> int:
        """Return a number that rises with each track that comes, goes or changes."""
        return self.table.track_set_generation

    def key_generation(self) -> int:
        """Return a number that rises with each key that comes or leaves, in any track."""
        return self.table.key_generation

    @property
    def wall_clock_offset_us(self) -> int:
        """Unix time in microseconds at media time 0, 0 when unknown."""
        return self.table.clocks[1]

    @property
    def window_us(self) -> int:
        """The live window, microseconds."""
        return self.table.clocks[2]

    @property
    def segment_us(self) -> int:
        """The shortest fragment, microseconds."""
        return self.table.clocks[3]

    def track_reader(self, index: int) -> TrackReader:
        """Return the reader of one track. Raises NotFound."""
        reader = self._readers.get(index)
        if reader is None:
            reader = self._readers[index] = TrackReader(self.table, index)
        return reader

    def tracks(self) -> list[TrackState]:
        """Return a fresh snapshot of all valid tracks, by index."""
        if self._states_at != self.table.track_set_generation:
            self._states_at = self.table.track_set_generation
            valid = {index for index, _mask in self.table.valid_tracks()}
            for index in [index for index in self._readers if index not in valid]:
                del self._readers[index]
                self._former = {key: info for key, info in self._former.items() if key[0] != index}
        states = []
        for index, mask in self.table.valid_tracks():
            try:
                states.append(self._state(index, mask))
            except NotFound:
                continue  # removed between the two looks
        return states

    def track(self, index: int) -> TrackState:
        """Return a fresh snapshot of one track. Raises NotFound."""
        for number, mask in self.table.valid_tracks():
            if number == index:
                return self._state(index, mask)
        raise NotFound(f"The stream {self.name} has no track {index}")

    def _state(self, index: int, mask: int) -> TrackState:
        reader = self.track_reader(index)
        first, last, now, mean, peak, jitter, rate, bframes, tail, head, fragment, longest = reader.measurements()
        return TrackState(
            index=index,
            info=TrackInfo(*reader.properties()),
            valid_mask=mask,
            first_us=first,
            last_us=last,
            now_us=now,
            bytes_per_second=mean,
            max_bytes_per_second=peak,
            jitter_ms=jitter,
            measured_frame_rate_mhz=rate,
            has_bframes=bframes,
            first_sequence=tail,
            next_sequence=head,
            first_fragment=fragment,
            longest_fragment_us=longest,
        )

    def keys(self, index: int) -> list[Key]:
        """Return the keys of a track that are in the buffer, oldest first."""
        return [
            Key(sequence, dts, arrival, number, breaks, changes)
            for sequence, dts, arrival, number, _, breaks, changes in self.track_reader(index).key_records()
        ]

    def info_at(self, index: int, init_changes: int) -> TrackInfo | None:
        """Return a track's properties after so many changes of its init data, None if they are not kept any more. Raises NotFound."""
        known = self._former.get((index, init_changes))
        if known is not None:
            return known
        keys = self.keys(index)
        now = self.track(index).info
        former = former_properties.find(self.table.prefix, index, init_changes)  # kept before others are told
        if former is None:
            return now if not keys or init_changes >= keys[-1].init_changes else None
        self._former[index, init_changes] = former
        return former

    def fragment_starts(self, index: int) -> list[FragmentStart]:
        """Return where the fragments of a track begin that are in the buffer, oldest first."""
        return [FragmentStart(*one) for one in self.track_reader(index).fragment_records()]

    def sequence_at(self, index: int, dts_us: int) -> int:
        """Return the first packet number whose decode time is not before dts_us."""
        return self.track_reader(index).sequence_at(dts_us)

    def packets(self, index: int, first_sequence: int, end_sequence: int) -> list[Packet]:
        """Return packets with copies of their payload; those that have left the buffer are missing."""
        reader = self.track_reader(index)
        found = (reader.packet(sequence) for sequence in range(first_sequence, min(end_sequence, reader.end_sequence)))
        return [packet for packet in found if packet is not None]

    def mux_range(self, muxer: Muxer, ranges: Sequence[tuple[int, int, int]]) -> int:
        """Write packets to a muxer, merged by decode time; returns how many.

        ranges: (track index, first packet number, end); the muxer's track number is the place in this list.
        """
        return mux_ranges(muxer, [(self.track_reader(index), first, end) for index, first, end in ranges])

    def forget_pages(self) -> None:
        """Let go of data pages that have left the buffer; those who read for long call this now and then."""
        for reader in self._readers.values():
            reader.forget_pages()

    def close(self) -> None:
        """Let go of the mappings."""
        self._readers.clear()
