"""The index of an on-demand file on disk: `FILE.dtsh` beside the file, or in a cache directory when its folder is not writable.

The layout is the DTSC header that MistServer keeps in such files, whose times are milliseconds. What mist needs to go on exactly where
it was stands in a further member of the header, `mist`, which other readers pass over: the spans with their byte positions and
microseconds, and times and sizes of all packets. An index without it was made by another program: it is not used, and left alone as
long as it is sound.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import mmap
import os
import re
import secrets
import struct
import sys
import zlib
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final

import mist
from mist.core.dtsc import MAX_HEADER_BYTES, packet_bytes
from mist.core.dtsc_objects import parse_object, serialize_object
from mist.core.span_index import MAX_TRACKS, PACKED_SPAN_BYTES, SpanIndex, check_spans
from mist.errors import MistError, RemoteProtocolError, UnsupportedError
from mist.formats.dtsh import HEAD_BYTES, Index, header_members, index_of
from mist.stream.index_reader import IndexReader, PacketsOnDisk, large_room
from mist.stream.layouts import Outline
from mist.stream.on_demand import unpack_tracks

SUFFIX: Final = ".dtsh"
LAYOUT: Final = 4  # of the member that only mist reads
MARGIN_S: Final = 15  # an index must be this much newer than what it describes
DEFAULT_CACHE_BYTES: Final = 1 << 30
DISK_BLOCK_BYTES: Final = 512  # what `st_blocks` counts
NUMBER_BYTES: Final = 8
LONG_BYTES: Final = 4096  # of a member: longer ones are looked at where they are
ALWAYS_READ: Final = ("about", "spans", "ends", "outline")  # parts of the member
ANCHOR_NUMBERS: Final = 3  # of each anchor
FIGURES: Final = 8  # of each track, as `SpanIndexer.figures` returns them
_CACHED_NAME: Final = re.compile(r"[0-9a-f]{40}\.(?:dtsh|asset)")


@dataclass(frozen=True, slots=True)
class KeptIndex:
    """What of an index is not in the layout of others.

    source: size and mtime (nanoseconds) of the file, and a stamp of the subtitles beside it. versions: the tracks as text, for each version
    of the init data. figures: of each track. spans, shifts: as `SpanIndex` packs and has them. packets: the log of all packets, packed.
    ordered: as the log was. ends: of tracks in FLV files, as `mist.stream.layouts.track_ends` returns them. outline: of the usual MP4 file.
    anchors: as `mist.core.demuxer.Demuxer` has them.
    """

    source: tuple[int, int, int]
    main: int
    versions: list[str]
    sizes_are_exact: bool
    figures: list[tuple[int, ...]]
    spans: bytes | memoryview
    packets: bytes | memoryview | PacketsOnDisk
    shifts: list[tuple[int, int]]
    ends: Mapping[int, array[int] | memoryview] = field(default_factory=dict)
    ordered: bool = False
    outline: Outline | None = None
    anchors: dict[int, array[int]] = field(default_factory=dict)

    def fill(self, index: SpanIndex) -> None:
        """Publish the spans in an empty index. Raises LimitExceededError, SharedMemoryFull."""
        index.fill(self.spans, self.shifts)

    def close(self) -> None:
        """Let go of what stayed on disk."""
        if isinstance(self.packets, PacketsOnDisk):
            self.packets.close()


def serialize_index(index: Index, kept: KeptIndex) -> bytes:
    """Return the content of a `.dtsh` file."""
    assert not isinstance(kept.packets, PacketsOnDisk)
    outline = kept.outline
    about = {
        "layout": LAYOUT,
        "program": mist.__version__,
        "source": kept.source,
        "main": kept.main,
        "versions": kept.versions,
        "sizes_are_exact": kept.sizes_are_exact,
        "figures": kept.figures,
        "shifts": kept.shifts,
        "packets_check": zlib.crc32(kept.packets),
        "ordered": kept.ordered,
        "ends": list(kept.ends),
        "outline": None if outline is None else (outline.indexes, outline.header_bytes, len(outline.positions)),
        "anchors": [(stream, rows.tolist()) for stream, rows in kept.anchors.items()],
    }
    parts = {
        "about": json.dumps(about, separators=(",", ":")).encode(),
        "packets": kept.packets,
        "spans": kept.spans,
        "ends": b"".join(_big_endian(one) for one in kept.ends.values()),
        "outline": b"" if outline is None else _big_endian(outline.positions) + outline.beginning,
    }
    members = header_members(index)
    members["mist"] = {"check": _checksum(parts), **parts}
    return packet_bytes(b"DTSC", serialize_object(members))


def _checksum(parts: Mapping[str, bytes | memoryview]) -> int:
    """Return the checksum of what is always read: the packets have their own."""
    return zlib.crc32(b"".join(parts[name] for name in ALWAYS_READ))


def _big_endian(numbers: array[int] | memoryview) -> bytes:
    """Return numbers of 64 bits as they are kept."""
    swapped = array("q", numbers)
    if sys.byteorder == "little":
        swapped.byteswap()
    return swapped.tobytes()


def _numbers(data: memoryview) -> memoryview:
    """Return numbers of 64 bits that are kept. Raises ValueError."""
    numbers = array("q", bytes(data))
    if sys.byteorder == "little":
        numbers.byteswap()
    return memoryview(numbers)


def _parse_outline(data: memoryview, about: Sequence[Any] | None, spans: int) -> Outline | None:
    """Return the outline of a layout. Raises ValueError."""
    if about is None:
        return None
    indexes, header_bytes, count = about
    if count != spans + 1:
        raise ValueError(f"an outline with {count} places of {spans} spans")
    split = count * NUMBER_BYTES
    return Outline(list(indexes), int(header_bytes), _numbers(data[:split]), bytes(data[split:]))


def _parse_ends(data: memoryview, tracks: list[int], spans: int) -> dict[int, memoryview]:
    """Return the ends of tracks, of which each has one for each span and one more. Raises ValueError."""
    view = _numbers(data)
    each = spans + 1
    if len(view) != each * len(tracks):
        raise ValueError(f"{len(view)} ends of {len(tracks)} tracks and {spans} spans")
    return {track: view[place * each : (place + 1) * each] for place, track in enumerate(tracks)}


def parse_index(data: bytes | mmap.mmap, size: int, packets: PacketsOnDisk | None = None) -> KeptIndex | None:
    """Read the content of a `.dtsh` file; None for a sound one that another program made.

    size: of the file that it describes. packets: those that are not in `data`; they are checked when they are read.
    Raises RemoteProtocolError, UnsupportedError for another version of the layout.
    """
    if data[:4] != b"DTSC" or len(data) < HEAD_BYTES or len(data) != HEAD_BYTES + int.from_bytes(data[4:8], "big"):
        raise RemoteProtocolError(f"{len(data)} bytes that are not one whole index", offset=0, spec="DTSC")
    members = parse_object(data, HEAD_BYTES, LONG_BYTES)
    index_of(members)
    if "mist" not in members:
        return None
    own = members["mist"]
    try:
        parts = {name: memoryview(own[name]) for name in ("packets", *ALWAYS_READ)}
        if own["check"] != _checksum(parts):
            raise RemoteProtocolError("its checksum is wrong", spec="DTSC")
        about = json.loads(bytes(parts["about"]))
        if (about["layout"], about["program"]) != (LAYOUT, mist.__version__):
            raise UnsupportedError(f"mist {about['program']!r} made it; this is {mist.__version__}")
        kept = KeptIndex(
            source=(about["source"][0], about["source"][1], about["source"][2]),
            main=int(about["main"]),
            versions=list(about["versions"]),
            sizes_are_exact=bool(about["sizes_are_exact"]),
            figures=[tuple(one) for one in about["figures"]],
            spans=parts["spans"],
            packets=_checked(parts["packets"], about["packets_check"]) if packets is None else packets,
            shifts=[(int(number), int(shift_us)) for number, shift_us in about["shifts"]],
            ends=_parse_ends(parts["ends"], list(about["ends"]), len(parts["spans"]) // PACKED_SPAN_BYTES),
            ordered=bool(about["ordered"]),
            outline=_parse_outline(parts["outline"], about["outline"], len(parts["spans"]) // PACKED_SPAN_BYTES),
            anchors={int(stream): array("q", rows) for stream, rows in about["anchors"]},
        )
        if packets is not None:
            packets.check = int(about["packets_check"])
        _check(kept, size)
    except (KeyError, IndexError, TypeError, ValueError, OverflowError, struct.error) as error:
        raise RemoteProtocolError(f"a member is damaged: {error!r}", spec="DTSC") from None
    return kept


def _check(kept: KeptIndex, size: int) -> None:
    """Raise RemoteProtocolError, or one of the errors of damaged members, unless the parts fit each other and the file."""
    tracks = [unpack_tracks(version) for version in kept.versions]
    if not tracks or not 0 < len(kept.figures) <= MAX_TRACKS or len(tracks[-1]) != len(kept.figures):
        raise RemoteProtocolError("its tracks do not fit each other")
    if any(len(one) != FIGURES for one in kept.figures) or not 0 <= kept.main < len(kept.figures):
        raise RemoteProtocolError("its figures do not fit the tracks")
    if any(len(rows) % ANCHOR_NUMBERS for rows in kept.anchors.values()):
        raise RemoteProtocolError("its anchors are not whole")
    check_spans(kept.spans, len(tracks), size)


def cache_settings(server: Mapping[str, Any]) -> tuple[str, int]:
    """Return path ("" for none) and size of the stream cache. server: the member `config` of the configuration."""
    section = server.get("streamcache") or {}
    return str(section.get("path") or ""), int(section.get("size_bytes", DEFAULT_CACHE_BYTES))


def keeps_assets(server: Mapping[str, Any]) -> bool:
    """Tell whether the stream cache is for remote files as well as for indexes. server: as in `cache_settings`."""
    return bool((server.get("streamcache") or {}).get("assets"))


class IndexFile:
    """Where a file's index is kept. Nothing here raises: an index that cannot be kept or read is made anew."""

    def __init__(self, path: str, cache: tuple[str, int], log: logging.Logger, *, local: bool = True) -> None:
        """path: of the media file, or its URL if it is not local. cache: directory, "" for none, and the bytes that it may have."""
        self.beside = Path(path + SUFFIX) if local else None
        self.folder = Path(cache[0]) if cache[0] else None
        self.cache_bytes = cache[1]
        self.log = log
        self.written: Path | None = None
        name = hashlib.sha256(os.fsencode(Path(path).absolute() if local else path)).hexdigest()[:40]
        self.cached = self.folder / (name + SUFFIX) if self.folder else None

    def load(self, source: tuple[int, int, int]) -> KeptIndex | None:
        """Return the index if one is kept that describes the file as it is now. A stale or damaged one is deleted, whoever made it.

        source: as in `KeptIndex`.
        """
        for path in (self.beside, self.cached):
            kept = self._load(path, source) if path is not None else None
            if kept is not None:
                return kept
        return None

    def _load(self, path: Path, source: tuple[int, int, int]) -> KeptIndex | None:
        try:
            status = path.stat()
        except (OSError, ValueError):
            return None
        reason = ""
        try:
            kept = _read(path, status, source[0])
        except (MistError, OSError) as error:
            reason, kept = f"cannot be used: {error}", None
        else:
            stale = status.st_mtime_ns < source[1] + MARGIN_S * 10**9
            if kept is None and not stale:
                return None  # of another program, which may go on using it
            if kept is None or stale or kept.source != source:
                reason = "is older than the file"
        if reason:
            if kept is not None:
                kept.close()
            self._refuse(path, reason)
            return None
        if path == self.cached:
            with contextlib.suppress(OSError):
                os.utime(path)  # used now
        self.written = path
        return kept

    def refuse(self, error: Exception) -> None:
        """Delete the index that was loaded, whose packets cannot be used: it is made anew at the next start."""
        if self.written is not None:
            self._refuse(self.written, f"cannot be used: {error}")
            self.written = None

    def _refuse(self, path: Path, reason: str) -> None:
        self.log.info("the index %s %s; it is made anew", path, reason)
        try:
            path.unlink()
        except OSError as error:
            self.log.info("the index %s cannot be deleted: %s", path, error.strerror)

    def save(self, data: bytes) -> bool:
        """Keep an index beside the file, else in the cache; False when it can be in neither."""
        failure = f"{len(data)} bytes are more than an index may have" if len(data) > MAX_HEADER_BYTES else ""
        if not failure and self.beside is not None and not self.beside.exists():
            failure = _write(self.beside, data)
            if not failure:
                self.written = self.beside
                return True
        if self.cached is None or self.folder is None or len(data) > min(self.cache_bytes, MAX_HEADER_BYTES):
            if failure:
                self.log.info("the index %s is not kept: %s", self.beside, failure)
            return False
        with contextlib.suppress(OSError):
            self.folder.mkdir(parents=True, exist_ok=True)
        trim(self.folder, self.cache_bytes - len(data))
        failure = _write(self.cached, data)
        if failure:
            self.log.info("the index %s is not kept: %s", self.cached, failure)
            return False
        self.written = self.cached
        return True

    def confirm(self) -> None:
        """Say that the file is still the one that was indexed, when it was new at that time."""
        if self.written is not None:
            with contextlib.suppress(OSError):
                os.utime(self.written)


def _checked(data: memoryview, check: int) -> memoryview:
    """Return a copy of the packets, which outlive the rest of an index. Raises RemoteProtocolError."""
    if zlib.crc32(data) != check:
        raise RemoteProtocolError("the checksum of its packets is wrong", spec="DTSC")
    room = memoryview(large_room(len(data)))[: len(data)]
    room[:] = data
    return room


def _read(path: Path, status: os.stat_result, size: int) -> KeptIndex | None:
    reader = IndexReader(path, status)
    packets = reader.take_packets()
    kept = None
    try:
        kept = parse_index(reader.data, size, packets)
    finally:
        if kept is None and packets is not None:
            packets.close()
    return kept


def _write(path: Path, data: bytes) -> str:
    """Replace a file as a whole; returns what went wrong."""
    new = path.with_name(f".mist-{secrets.token_hex(8)}{SUFFIX}")
    try:
        with _new_file(new) as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            if not new.exists():
                # Any descriptor of a directory makes it linkat(2), which follows the link in /proc; the path is absolute.
                os.link(f"/proc/self/fd/{file.fileno()}", new, src_dir_fd=file.fileno())
        new.rename(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            new.unlink()
        return error.strerror or str(error)
    return ""


def _new_file(path: Path) -> BinaryIO:
    """Open a file to write, which gets a name only once it is whole, where the file system has such: nothing of it is left by a kill."""
    try:
        return os.fdopen(os.open(path.parent, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o644), "wb")
    except OSError:
        return path.open("xb")


def trim(folder: Path, size_bytes: int) -> bool:
    """Delete what of a cache was not used for the longest time, until the rest takes no more than so many bytes.

    What a process has open for reading and writing it locks, and that stays. Returns whether the rest is as small as that.
    """
    found: list[tuple[int, int, Path]] = []
    try:
        for path in folder.iterdir():
            if _CACHED_NAME.fullmatch(path.name):
                with contextlib.suppress(FileNotFoundError):  # another process makes room as well
                    status = path.stat()
                    size = min(status.st_size, status.st_blocks * DISK_BLOCK_BYTES)  # files of blocks have holes
                    found.append((status.st_mtime_ns, size, path))
    except OSError:
        return size_bytes >= 0  # whatever it is, nothing can be written either
    total = sum(size for _, size, _ in found)
    for _, size, path in sorted(found):
        if total <= size_bytes:
            break
        if _delete_unused(path):
            total -= size
    return total <= size_bytes


def _delete_unused(path: Path) -> bool:
    """Delete a file that no process has locked, and tell whether it is gone."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink(missing_ok=True)
    except OSError:
        return False
    finally:
        os.close(fd)
    return True


def figures_of(figures: Sequence[tuple[Any, ...]]) -> list[tuple[int, ...]]:
    """Return the figures of tracks as numbers that JSON keeps."""
    return [tuple(int(value) for value in one) for one in figures]
