"""The index of a file in the `.dtsh` layout: one DTSC header that also has fragments, keys and parts of each track.

The records stay in their written form, 9 bytes a packet; `keys()` and its like give them as arrays.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from mist.core import dtsc_index
from mist.core.demuxer import Demuxer
from mist.core.dtsc import DTSH_VERSION, MAX_TRACKS, packet_bytes, track_members, track_name
from mist.core.dtsc_index import IndexBuilder
from mist.core.dtsc_objects import parse_object, serialize_object
from mist.errors import LimitExceededError, RemoteProtocolError, TruncatedError, UnsupportedError
from mist.formats.dtsc import number, text, track_info
from mist.formats.tracks import VIDEO, TrackInfo

HEAD_BYTES: Final = 8
MAX_TIME_MS: Final = 1 << 52
_RECORDS: Final = ("fragments", "keys", "keysizes", "parts")


class Fragments(NamedTuple):
    """Groups of keys. first_keys: number of the first key of each. bytes: of payload. The last one's duration is 0."""

    durations_ms: array[int]
    key_counts: array[int]
    first_keys: array[int]
    payload_bytes: array[int]


class Keys(NamedTuple):
    """Random access points. positions: bytes in the file. part_counts: packets up to the next key. The last one's duration is 0."""

    positions: array[int]
    durations_ms: array[int]
    numbers: array[int]
    part_counts: array[int]
    times_ms: array[int]


class Parts(NamedTuple):
    """Packets. offsets_ms: presentation minus decode time."""

    payload_bytes: array[int]
    durations_ms: array[int]
    offsets_ms: array[int]


@dataclass(slots=True)
class IndexTrack:
    """One track of an index.

    first_ms, last_ms: times of the first and last packet. bytes_per_second, max_bytes_per_second: mean of all fragments and greatest.
    measured_frame_rate_mhz: frames in 1000 s. missed_fragments: that left before the first one. name: in the header, "" for the usual one.
    *_records: as they are written; all four are there, or none.
    """

    info: TrackInfo
    first_ms: int = 0
    last_ms: int = 0
    bytes_per_second: int = 0
    max_bytes_per_second: int = 0
    measured_frame_rate_mhz: int = 0
    missed_fragments: int = 0
    fragment_records: bytes = b""
    key_records: bytes = b""
    key_size_records: bytes = b""
    part_records: bytes = b""
    name: str = ""

    def fragments(self) -> Fragments:
        """Return the fragments. Raises RemoteProtocolError for damaged records, as the others do."""
        return Fragments(*dtsc_index.parse_fragments(self.fragment_records))

    def keys(self) -> Keys:
        """Return the keys."""
        return Keys(*dtsc_index.parse_keys(self.key_records))

    def key_sizes(self) -> array[int]:
        """Return the bytes of each key's packets, framing included."""
        return dtsc_index.parse_key_sizes(self.key_size_records)

    def parts(self) -> Parts:
        """Return the packets."""
        return Parts(*dtsc_index.parse_parts(self.part_records))

    def set_records(self, fragments: Fragments, keys: Keys, key_sizes: array[int], parts: Parts) -> None:
        """Take the records from arrays."""
        self.fragment_records = dtsc_index.serialize_fragments(*fragments)
        self.key_records = dtsc_index.serialize_keys(*keys)
        self.key_size_records = dtsc_index.serialize_key_sizes(key_sizes)
        self.part_records = dtsc_index.serialize_parts(*parts)


@dataclass(slots=True)
class Index:
    """The index of a file. unix_zero_ms: unix time at media time 0, None when unknown. input_variables: JSON text of the input's own."""

    tracks: list[IndexTrack] = field(default_factory=list)
    live: bool = False
    unix_zero_ms: int | None = None
    input_variables: str = ""


def parse_dtsh(data: bytes) -> Index:
    """Read the content of a `.dtsh` file.

    Raises UnsupportedError for another version of the layout (the index must be made again), RemoteProtocolError for damage.
    """
    if data[:4] != b"DTSC":
        raise RemoteProtocolError("not an index: it does not begin with DTSC", offset=0, spec="DTSC")
    if len(data) < HEAD_BYTES or len(data) - HEAD_BYTES < int.from_bytes(data[4:8], "big"):
        raise TruncatedError(f"the index has only {len(data)} bytes", offset=len(data), spec="DTSC")
    return index_of(parse_object(data, HEAD_BYTES))


def index_of(members: dict[str, Any]) -> Index:
    """Return the index that a header's members describe. Errors as `parse_dtsh`."""
    version = members.get("version")
    if version != DTSH_VERSION:
        raise UnsupportedError(f"an index of version {version!r}; this is version {DTSH_VERSION}", spec="DTSC")
    tracks = members.get("tracks")
    if not isinstance(tracks, dict):
        raise RemoteProtocolError("an index without tracks", spec="DTSC")
    if len(tracks) > MAX_TRACKS:
        raise LimitExceededError(f"{len(tracks)} tracks; the limit is {MAX_TRACKS}", spec="DTSC")
    zero = members.get("unixzero")
    return Index(
        tracks=[_parse_track(name, entry) for name, entry in tracks.items()],
        live=bool(members.get("live")),
        unix_zero_ms=zero if isinstance(zero, int) else None,
        input_variables=text(members, "inputLocalVars"),
    )


def _parse_track(name: str, members: Any) -> IndexTrack:
    if not isinstance(members, dict):
        raise RemoteProtocolError(f"the track {name[:64]!r} of an index is no object", spec="DTSC")
    records = [members.get(key) for key in _RECORDS]
    if not all(isinstance(one, bytes | memoryview) for one in records):
        records = [b""] * len(_RECORDS)
    fragments, keys, key_sizes, parts = (one or b"" for one in records)
    track = IndexTrack(
        track_info(members, completed=False),
        first_ms=number(members, "firstms", MAX_TIME_MS),
        last_ms=number(members, "lastms", MAX_TIME_MS),
        bytes_per_second=number(members, "bps"),
        max_bytes_per_second=number(members, "maxbps"),
        measured_frame_rate_mhz=number(members, "efpks"),
        missed_fragments=number(members, "missed_frags"),
        fragment_records=fragments,
        key_records=keys,
        key_size_records=key_sizes,
        part_records=parts,
        name=name,
    )
    _check(track)
    return track


def _check(track: IndexTrack) -> None:
    """Raise RemoteProtocolError unless the records fit each other."""
    keys = track.keys()
    sizes = len(track.key_size_records) // dtsc_index.KEY_SIZE_BYTES
    if len(track.key_size_records) % dtsc_index.KEY_SIZE_BYTES or sizes != len(keys.numbers):
        raise RemoteProtocolError(f"{sizes} sizes of {len(keys.numbers)} keys", spec="DTSC")
    parts, rest = divmod(len(track.part_records), dtsc_index.PART_BYTES)
    if rest or sum(keys.part_counts) > parts:
        raise RemoteProtocolError(f"the keys have {sum(keys.part_counts)} parts, the track {parts}", spec="DTSC")
    fragments = track.fragments()
    if sum(fragments.key_counts) > len(keys.numbers):
        raise RemoteProtocolError(
            f"the fragments have more keys than the {len(keys.numbers)} of the track", spec="DTSC"
        )


def serialize_dtsh(index: Index) -> bytes:
    """Return the content of a `.dtsh` file."""
    return packet_bytes(b"DTSC", serialize_object(header_members(index)))


def header_members(index: Index) -> dict[str, Any]:
    """Return the members of the header that describes an index."""
    members: dict[str, Any] = {"live": 1} if index.live else {"vod": 1}
    members["version"] = DTSH_VERSION
    if index.unix_zero_ms is not None:
        members["unixzero"] = index.unix_zero_ms
    if index.input_variables:
        members["inputLocalVars"] = index.input_variables
    members["tracks"] = {
        track.name or track_name(track.info, place): _track_object(track) for place, track in enumerate(index.tracks)
    }
    return members


def _track_object(track: IndexTrack) -> dict[str, Any]:
    records = (track.fragment_records, track.key_records, track.key_size_records, track.part_records)
    members: dict[str, Any] = dict(zip(_RECORDS, records, strict=True))
    members["trackid"] = track.info.track_id
    if track.missed_fragments:
        members["missed_frags"] = track.missed_fragments
    rates = (track.bytes_per_second, track.max_bytes_per_second)
    return members | track_members(track.info, track.first_ms, track.last_ms, rates, track.measured_frame_rate_mhz)


def built(demuxer: Demuxer, builder: IndexBuilder, *, input_variables: str = "") -> Index:
    """Return the index that a builder made of a demuxer's packets. Tracks without packets are left out."""
    index = Index(input_variables=input_variables)
    for info, made in zip(demuxer.tracks, builder.tracks, strict=False):
        if not made.part_count:
            continue
        fragments, keys, sizes, parts = made.records()
        length_ms = made.last_ms - made.first_ms
        rate = 0
        if info.type == VIDEO and length_ms:
            rate = round((made.part_count - 1) * 1_000_000 / length_ms)
        index.tracks.append(
            IndexTrack(
                info,
                max(made.first_ms, 0),
                max(made.last_ms, 0),
                made.bytes_per_second,
                made.max_bytes_per_second,
                rate,
                0,
                fragments,
                keys,
                sizes,
                parts,
            )
        )
    return index
