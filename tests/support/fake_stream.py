"""A stream in ordinary memory with the face of the shared-memory one, for tests without processes.

    stream = FakeStream("live", [TrackInfo(VIDEO, H264, ...), TrackInfo(AUDIO, AAC, ...)])
    stream.write(Packet(track=0, ...))
    reader = stream.reader()

`fake_reader(tracks, packets)` does all three at once. The reader has the methods of `mist.stream.reader.StreamReader`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from mist.core.muxer import Muxer
from mist.core.packet import Packet
from mist.formats.tracks import AUDIO, VIDEO, TrackInfo
from mist.stream.state import FragmentStart, Key, StreamStatus, TrackState

AUDIO_KEY_INTERVAL_US = 1_000_000


@dataclass
class _Track:
    index: int
    info: TrackInfo
    packets: list[Packet] = field(default_factory=list)
    arrivals: list[int] = field(default_factory=list)
    first_sequence: int = 0
    keys: list[Key] = field(default_factory=list)
    fragment: int = -1
    fragment_start_us: int = 0
    longest_fragment_us: int = 0
    discontinuities: int = 0
    init_changes: int = 0
    former: dict[int, TrackInfo] = field(default_factory=dict)
    breaks_due: bool = False
    valid: bool = True
    payload_bytes: int = 0
    first_fragment: int = 0

    @property
    def next_sequence(self) -> int:
        return self.first_sequence + len(self.packets)

    def state(self) -> TrackState:
        first = self.packets[0].dts_us if self.packets else 0
        last = self.packets[-1].dts_us if self.packets else 0
        span = max(last - first, 1)
        rate = self.payload_bytes * 1_000_000 // span if len(self.packets) > 1 else 0
        frames = (len(self.packets) - 1) * 1_000_000_000 // span if len(self.packets) > 1 else 0
        return TrackState(
            index=self.index,
            info=self.info,
            first_us=first,
            last_us=last,
            now_us=last,
            bytes_per_second=rate,
            max_bytes_per_second=rate,
            measured_frame_rate_mhz=frames if self.info.type == VIDEO else 0,
            has_bframes=any(packet.offset_us for packet in self.packets),
            first_sequence=self.first_sequence,
            next_sequence=self.next_sequence,
            first_fragment=self.first_fragment,
            longest_fragment_us=self.longest_fragment_us,
        )


class FakeStream:
    """A stream's buffer; `write` takes packets in order of arrival, `Packet.track` is the track index."""

    def __init__(self, name: str = "live", tracks: Sequence[TrackInfo] = (), *, segment_us: int = 1_900_000) -> None:
        self.name = name
        self.segment_us = segment_us
        self.status = StreamStatus.READY
        self.wall_clock_offset_us = 1_700_000_000_000_000
        self.live = True
        self._tracks: list[_Track] = []
        self.track_set_generation = 0
        self.key_generation = 0
        self.arrival = 0
        self.watchers: list[Callable[[], None]] = []
        for info in tracks:
            self.add_track(info)

    def add_track(self, info: TrackInfo) -> int:
        """Add a track and return its index."""
        self._tracks.append(_Track(len(self._tracks), info))
        self.track_set_generation += 1
        return len(self._tracks) - 1

    def update_track(self, index: int, info: TrackInfo) -> None:
        """Replace a track's properties; other init data begin a new fragment at the next key, those of a sound in the pictures too."""
        track = self._tracks[index]
        if track.packets and (info.init_data, info.codec) != (track.info.init_data, track.info.codec):
            track.breaks_due = True
            track.former[track.init_changes] = track.info
            track.init_changes += 1
            for picture in self._tracks:
                picture.breaks_due |= info.type == AUDIO and picture.info.type == VIDEO and bool(picture.packets)
        track.info = info
        self.track_set_generation += 1

    def mark_discontinuity(self) -> None:
        """Let a new fragment that does not continue the last one begin at the next key of each track."""
        for track in self._tracks:
            track.breaks_due = bool(track.packets)

    def remove_track(self, index: int) -> None:
        self._tracks[index].valid = False
        self.track_set_generation += 1

    def write(self, packet: Packet) -> None:
        """Append one packet, numbering keys and fragments, and call the watchers."""
        track = self._tracks[packet.track]
        if packet.keyframe and self._is_key(track, packet):
            self._add_key(track, packet)
        track.packets.append(packet)
        track.arrivals.append(self.arrival)
        track.payload_bytes += len(packet.payload)
        self.arrival += 1
        self._notify()

    def write_all(self, packets: Iterable[Packet]) -> None:
        for packet in packets:
            self.write(packet)

    def set_status(self, status: StreamStatus) -> None:
        self.status = status
        self.key_generation += 1
        self._notify()

    def trim(self, index: int, keys: int) -> None:
        """Drop the oldest keys of a track with their packets."""
        track = self._tracks[index]
        end = track.keys[keys].sequence
        gone = end - track.first_sequence
        first, last_gone = track.keys[keys], track.keys[keys - 1]
        track.first_fragment = first.fragment + (first.fragment == last_gone.fragment)
        del track.keys[:keys], track.packets[:gone], track.arrivals[:gone]
        track.first_sequence = end
        self.key_generation += 1

    def trim_before(self, index: int, dts_us: int) -> None:
        """Drop packets of a track that are before a time, without regard for keys."""
        track = self._tracks[index]
        gone = sum(1 for packet in track.packets if packet.dts_us < dts_us)
        del track.packets[:gone], track.arrivals[:gone]
        track.first_sequence += gone
        track.keys = [key for key in track.keys if key.sequence >= track.first_sequence]
        self.key_generation += 1

    def reader(self) -> FakeReader:
        return FakeReader(self)

    def track(self, index: int) -> _Track:
        return self._tracks[index]

    def valid_tracks(self) -> list[_Track]:
        return [track for track in self._tracks if track.valid]

    def _is_key(self, track: _Track, packet: Packet) -> bool:
        if track.info.type == VIDEO or not track.keys or track.breaks_due:
            return True
        return packet.dts_us - track.keys[-1].dts_us >= AUDIO_KEY_INTERVAL_US

    def _add_key(self, track: _Track, packet: Packet) -> None:
        track.discontinuities += track.breaks_due
        if track.fragment < 0 or track.breaks_due or packet.dts_us - track.fragment_start_us >= self.segment_us:
            if track.fragment >= 0:
                track.longest_fragment_us = max(track.longest_fragment_us, packet.dts_us - track.fragment_start_us)
            track.fragment += 1
            track.fragment_start_us = packet.dts_us
        track.breaks_due = False
        breaks = (track.discontinuities, track.init_changes)
        track.keys.append(Key(track.next_sequence, packet.dts_us, self.arrival, track.fragment, *breaks))
        self.key_generation += 1

    def _notify(self) -> None:
        for watcher in list(self.watchers):
            watcher()


class FakeReader:
    """What `StreamReader` offers, over a `FakeStream`."""

    def __init__(self, stream: FakeStream) -> None:
        self._stream = stream
        self.name = stream.name

    @property
    def live(self) -> bool:
        return self._stream.live

    @property
    def wall_clock_offset_us(self) -> int:
        return self._stream.wall_clock_offset_us

    @property
    def segment_us(self) -> int:
        return self._stream.segment_us

    def status(self) -> StreamStatus:
        return self._stream.status

    def tracks(self) -> list[TrackState]:
        return [track.state() for track in self._stream.valid_tracks()]

    def track(self, index: int) -> TrackState:
        return self._stream.track(index).state()

    def track_set_generation(self) -> int:
        return self._stream.track_set_generation

    def key_generation(self) -> int:
        return self._stream.key_generation

    def keys(self, index: int) -> list[Key]:
        return list(self._stream.track(index).keys)

    def info_at(self, index: int, init_changes: int) -> TrackInfo | None:
        track = self._stream.track(index)
        return track.info if init_changes == track.init_changes else track.former.get(init_changes)

    def fragment_starts(self, index: int) -> list[FragmentStart]:
        found: list[FragmentStart] = []
        for key in self._stream.track(index).keys:
            if not found or key.fragment != found[-1].number:
                found.append(FragmentStart(key.fragment, key.dts_us, key.discontinuities, key.init_changes))
        return found

    def packets(self, index: int, first_sequence: int, end_sequence: int) -> list[Packet]:
        track = self._stream.track(index)
        start = max(first_sequence - track.first_sequence, 0)
        return track.packets[start : max(end_sequence - track.first_sequence, 0)]

    def sequence_at(self, index: int, dts_us: int) -> int:
        track = self._stream.track(index)
        for place, packet in enumerate(track.packets):
            if packet.dts_us >= dts_us:
                return track.first_sequence + place
        return track.next_sequence

    def mux_range(self, muxer: Muxer, ranges: Sequence[tuple[int, int, int]]) -> int:
        """Write the packets of the ranges to the muxer, merged by decode time (ties in the order of the list); returns how many."""
        merged: list[tuple[int, int, int, Packet]] = []
        for place, (index, first, end) in enumerate(ranges):
            for number, packet in enumerate(self.packets(index, first, end)):
                merged.append((packet.dts_us, place, number, packet))
        for _, place, _, packet in sorted(merged, key=lambda entry: entry[:3]):
            muxer.write(Packet(place, packet.dts_us, packet.offset_us, packet.keyframe, packet.payload))
        return len(merged)


def fake_reader(
    tracks: Sequence[TrackInfo], packets: Iterable[Packet], *, name: str = "live", segment_us: int = 1_900_000
) -> FakeReader:
    """Return a reader of a stream that holds these packets (given in order of arrival)."""
    stream = FakeStream(name, tracks, segment_us=segment_us)
    stream.write_all(packets)
    return stream.reader()
