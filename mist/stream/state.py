"""Snapshots of a stream's tracks, and the words for its states."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from mist.formats.tracks import TrackInfo


class StreamStatus(IntEnum):
    """State of a stream; the numbers are those that the control API shows."""

    OFF = 0
    INIT = 1
    BOOT = 2
    WAIT = 3
    READY = 4
    SHUTDOWN = 5
    INVALID = 255


# Looking a state up costs a tenth of what making one of its number does.
STATES: Final[Mapping[int, StreamStatus]] = {int(status): status for status in StreamStatus}


@dataclass(frozen=True, slots=True)
class TrackState:
    """One track of a stream at one moment.

    index: the track's slot, never reused while the stream lives. valid_mask: who sees it (1 viewers, 2 pushes,
    4 processes). first_us, last_us: decode times of the first and last buffered packet; now_us: known complete up to.
    bytes_per_second, max_bytes_per_second: mean over the buffered fragments, and highest fragment so far.
    measured_frame_rate_mhz: frames per 1000 s, 0 when unknown. first_sequence, next_sequence: packet numbers in the buffer.
    first_fragment: fragments that have left the buffer, which is the number of the oldest whole one.
    longest_fragment_us: longest closed fragment since the stream began.
    """

    index: int
    info: TrackInfo
    valid_mask: int = 255
    first_us: int = 0
    last_us: int = 0
    now_us: int = 0
    bytes_per_second: int = 0
    max_bytes_per_second: int = 0
    jitter_ms: int = 0
    measured_frame_rate_mhz: int = 0
    has_bframes: bool = False
    first_sequence: int = 0
    next_sequence: int = 0
    first_fragment: int = 0
    longest_fragment_us: int = 0


@dataclass(frozen=True, slots=True)
class Key:
    """A random access point in a track's buffer.

    sequence: packet number of the keyframe. dts_us: its decode time. arrival: its place in the stream-wide order of
    arrival. fragment: number of the fragment it belongs to; a fragment is one or more GOPs that together last at least
    the stream's segment size, and is what an HLS segment holds. Numbers rise by one and are the same in every process.
    discontinuities: how many keys of this track, up to and with this one, do not continue what was before: its times broke or
    its init data changed. init_changes: at how many of those the init data (or the codec) changed.
    """

    sequence: int
    dts_us: int
    arrival: int
    fragment: int
    discontinuities: int = 0
    init_changes: int = 0


@dataclass(frozen=True, slots=True)
class FragmentStart:
    """Where a fragment begins: with a key, or without one while the track is silent and others go on. Members as those of `Key`."""

    number: int
    dts_us: int
    discontinuities: int = 0
    init_changes: int = 0
