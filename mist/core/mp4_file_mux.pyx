"""Whole MP4 files: written as packets come, with the index at the end, or laid out beforehand with the index in front.

Spec: ISO/IEC 14496-12 (2022). The boxes of `moov` come from the movie that a muxer is given (`mist.formats.mp4_file.FileMovie`).
"""

cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport int64_t, uint8_t, uint32_t
from libc.string cimport memcpy

from mist.core.buffer cimport ByteBuffer
from mist.core.mp4_table_writer cimport ChunkPlaces, TrackTables
from mist.core.muxer cimport Muxer
from mist.core.packet cimport KEYFRAME, PacketView

import struct

from mist.errors import LimitExceededError, LocalProtocolError

MAX_TRACKS = 64
_DESCRIBED_BY_PACKETS = frozenset({"AC3", "EAC-3"})

cdef enum:
    GROUP_BYTES = 1 << 22           # packets that are held until they are written
    MAX_GROUP_BYTES = 0xFFFFFF00
    CHUNK_BYTES = 1 << 20
    CHUNK_US = 500000               # packets of a track that lie together
    MARK_STRIDE = 256

# One packet of a layout. Its place in the file is counted from the mark before it.
cdef struct Laid:
    int64_t dts_us
    uint32_t size
    uint32_t track


cdef list tables_of(object movie, object tracks):
    if len(tracks) > MAX_TRACKS:
        raise LimitExceededError(f"{len(tracks)} tracks; at most {MAX_TRACKS} go into one movie")
    for info in tracks:
        movie.sample_entry(info, b"")   # refuses here what it cannot describe
    return [TrackTables(info, movie.timing(info)) for info in tracks]


cdef list placed(list pieces, int64_t base):
    """Return pieces of a movie as bytes. base: what is added to every place in the file."""
    return [(<ChunkPlaces> one).at(base) if isinstance(one, ChunkPlaces) else one for one in pieces]


cdef bint can_follow(object movie, list tables, object tracks) except -1:
    """Tell whether changed tracks can go on as further sample entries of the same tracks."""
    if len(tables) != len(tracks):
        return False
    for table, info in zip(tables, tracks, strict=True):
        old = table.info
        if old.type != info.type or old.codec != info.codec or movie.timing(old) != movie.timing(info):
            return False
    return True


@cython.final
cdef class Mp4FileMuxer(Muxer):
    """Packets in, a plain MP4 file out, whose index `finish` writes at its end.

    Packets are held until a track has CHUNK_US of them, then written as one chunk for each track in an `mdat` of its own: so the
    output is valid wherever it goes. In a file, `patches` joins all of them into one `mdat`.
    Memory: what is held, and about 8 bytes a packet.

    tracks: up to 64 TrackInfo. movie: has file_type(tracks), timing(track), sample_entry(track, payload) and
    moov(tables, wide, origin_us), which returns pieces: bytes, and a `ChunkPlaces` of each track.
    origin_us: the time that is zero in the file; None: that of the first presentation, or zero where that is near it.
    Raises UnsupportedError for a codec without a place in MP4, RemoteProtocolError for init data that does not parse.
    """

    cdef object movie
    cdef object origin_us
    cdef list tables
    cdef list waiting               # ByteBuffer of each track's packets that are not written yet
    cdef bytes head
    cdef int count
    cdef int64_t position           # in the file, of the next byte
    cdef int64_t media_end
    cdef int64_t group_us           # of the first packet that waits
    cdef size_t group_bytes
    cdef bint finished

    def __init__(self, tracks, movie, origin_us=None):
        self.movie = movie
        self.origin_us = origin_us
        self.tables = tables_of(movie, tracks)
        self.waiting = [ByteBuffer() for _ in tracks]
        self.count = <int> len(self.tables)
        self.head = movie.file_type(list(tracks)) + struct.pack(">I4s", 8, b"free")
        self.position = len(self.head)

    def header(self, start_us=0):
        """Return what the file begins with: its type, and room to make the first mdat box a large one."""
        return self.head

    cdef int write_view(self, int track, const PacketView* packet) except -1:
        """Take one packet; one without payload is left out, and so are those after `finish`.

        Raises LocalProtocolError for a track that is not there, UnsupportedError for a packet over 2 GiB.
        """
        cdef TrackTables table
        cdef ByteBuffer waiting
        cdef size_t size
        if track < 0 or track >= self.count or self.finished:
            raise LocalProtocolError(f"packet of track {track}; there are {self.count}, finished: {self.finished}")
        table = <TrackTables> self.tables[track]
        size = table.stored_size(packet)
        if size == 0:
            return 0
        if self.group_bytes and (
            packet.dts_us - self.group_us >= CHUNK_US or self.group_bytes + size > GROUP_BYTES
        ):
            self.write_group()
        if not table.samples and table.infos[0].codec in _DESCRIBED_BY_PACKETS:
            table.payload = PyBytes_FromStringAndSize(<const char*> packet.data, <Py_ssize_t> packet.size)
        table.add(packet)
        if not self.group_bytes:
            self.group_us = packet.dts_us
        self.group_bytes += size
        waiting = <ByteBuffer> self.waiting[track]
        if table.text:
            return put_text(waiting, packet.data, size - 4)
        return waiting.append(packet.data, size)

    cdef int write_group(self) except -1:
        """Write what waits as one mdat box, each track's part in one piece."""
        cdef ByteBuffer waiting
        cdef uint8_t* at
        cdef uint32_t size = <uint32_t> self.group_bytes + 8
        cdef int track
        if not self.group_bytes:
            return 0
        at = self.out.reserve(size)
        at[0], at[1], at[2], at[3] = <uint8_t> (size >> 24), <uint8_t> (size >> 16), <uint8_t> (size >> 8), <uint8_t> size
        memcpy(at + 4, b"mdat", 4)
        at += 8
        self.position += 8
        for track in range(self.count):
            waiting = <ByteBuffer> self.waiting[track]
            if waiting.size:
                (<TrackTables> self.tables[track]).end_chunk(self.position)
                memcpy(at, waiting.data, waiting.size)
                at += waiting.size
                self.position += <int64_t> waiting.size
                waiting.clear()
        self.out.commit(size)
        self.media_end = self.position
        self.group_bytes = 0
        return 0

    def set_tracks(self, tracks):
        """Go on with changed tracks, as further sample entries. Returns False, and changes nothing, where codec or clock differ."""
        if self.finished or not can_follow(self.movie, self.tables, tracks):
            return False
        self.write_group()
        for table, info in zip(self.tables, tracks, strict=True):
            if table.info != info:
                table.infos.append(info)
        return True

    def finish(self):
        """Write what is held and the index. Nothing can be written afterwards."""
        cdef TrackTables table
        if self.finished:
            return
        self.write_group()
        self.finished = True
        for table in self.tables:
            table.close()
        wide = self.position > 0xFFFFFFFF
        self.out.write(b"".join(placed(self.movie.moov(self.tables, wide, self.origin_us), 0)))

    def patches(self):
        """Return [(position, bytes)] to write over the file after `finish`, so that all media is in one box."""
        begin = len(self.head)
        size = self.media_end - begin
        if not self.finished or size <= 0:
            return []
        if size <= 0xFFFFFFFF:
            return [(begin, struct.pack(">I", size))]
        return [(begin - 8, struct.pack(">I4sQ", 1, b"mdat", size + 8))]


cdef int put_text(ByteBuffer out, const uint8_t* data, size_t size) except -1:
    """Append a text with its length, and an empty one.   Spec: 3GPP TS 26.245 section 5.17."""
    cdef uint8_t* at = out.reserve(size + 4)
    at[0], at[1] = <uint8_t> (size >> 8), <uint8_t> size
    memcpy(at + 2, data, size)
    at[size + 2], at[size + 3] = 0, 0
    out.commit(size + 4)
    return 0


@cython.final
cdef class Mp4FileLayout(Muxer):
    """The exact form of a plain MP4 file with its index in front, known from the sizes and times of its packets alone.

    Add all packets in the order in which they are to lie in the file (by decode time, say), call `finish`, then: the file is `header()` and
    after it each packet's `stored()` bytes in the order they were added. It is also a Muxer: what is written to it is only counted.
    Packets without payload have a number and no bytes. Memory: about 12 bytes a packet, twice with the header.

    tracks, movie, origin_us, errors: as of Mp4FileMuxer. payloads: a packet of each AC-3 and E-AC-3 track by its place.
    located: keep for `locate` and `packet_at` where each packet lies, in 16 bytes more.
    """

    cdef object movie
    cdef object origin_us
    cdef list tables
    cdef ByteBuffer laid            # Laid of each packet
    cdef ByteBuffer marks           # int64: media bytes before every MARK_STRIDE-th packet
    cdef list head                  # bytes, one behind the other; None before `finish`
    cdef int count
    cdef int last_track
    cdef bint located
    cdef int64_t chunk_begin
    cdef readonly int64_t media_bytes
    cdef readonly int64_t header_bytes
    cdef readonly int64_t total_bytes
    cdef readonly int64_t packets

    def __init__(self, tracks, movie, payloads=None, origin_us=None, located=True):
        self.movie = movie
        self.located = located
        self.origin_us = origin_us
        self.tables = tables_of(movie, tracks)
        for place, payload in (payloads or {}).items():
            self.tables[place].payload = payload
        self.count = <int> len(self.tables)
        self.laid = ByteBuffer()
        self.marks = ByteBuffer()
        self.last_track = -1

    def add(self, int track, int64_t dts_us, int64_t offset_us, size_t size, bint keyframe):
        """Add one packet of size bytes.

        Raises LocalProtocolError for a track that is not there or after `finish`, UnsupportedError for one over 2 GiB.
        """
        cdef PacketView view
        view.dts_us, view.offset_us, view.size, view.data = dts_us, offset_us, size, NULL
        view.flags = KEYFRAME if keyframe else 0
        self.write_view(track, &view)

    cdef int write_view(self, int track, const PacketView* packet) except -1:
        cdef TrackTables table
        cdef size_t size
        cdef int64_t ticks
        if track < 0 or track >= self.count or self.head is not None:
            raise LocalProtocolError(f"packet of track {track}; there are {self.count}, finished: {self.head is not None}")
        table = <TrackTables> self.tables[track]
        size = table.stored_size(packet)
        if size:
            ticks = table.decode_ticks(packet.dts_us)
            if (
                track != self.last_track or self.media_bytes - self.chunk_begin >= CHUNK_BYTES
                or ticks - table.chunk_ticks >= table.chunk_length_ticks
            ):
                self.end_chunk()
                self.last_track = track
            table.add_at(packet, ticks, size)
        if self.located:
            self.keep_place(track, packet.dts_us, <uint32_t> size)
        self.packets += 1
        self.media_bytes += <int64_t> size
        return 0

    cdef int keep_place(self, int track, int64_t dts_us, uint32_t size) except -1:
        cdef Laid* one
        if self.packets % MARK_STRIDE == 0:
            (<int64_t*> self.marks.reserve(8))[0] = self.media_bytes
            self.marks.commit(8)
        one = <Laid*> self.laid.reserve(sizeof(Laid))
        one.dts_us, one.size, one.track = dts_us, size, track
        self.laid.commit(sizeof(Laid))
        return 0

    cdef int end_chunk(self) except -1:
        if self.last_track >= 0:
            (<TrackTables> self.tables[self.last_track]).end_chunk(self.chunk_begin)
        self.chunk_begin = self.media_bytes
        return 0

    def set_tracks(self, tracks):
        """Go on with changed tracks, as further sample entries. Returns False, and changes nothing, where codec or clock differ."""
        if self.head is not None or not can_follow(self.movie, self.tables, tracks):
            return False
        self.end_chunk()
        for table, info in zip(self.tables, tracks, strict=True):
            if table.info != info:
                table.infos.append(info)
        return True

    def finish(self):
        """Compute the header and the length. Nothing can be added afterwards."""
        cdef TrackTables table
        if self.head is not None:
            return
        self.end_chunk()
        for table in self.tables:
            table.close()
        tracks = [table.infos[0] for table in self.tables]
        begin = self.movie.file_type(tracks)
        wide = large = self.media_bytes + 8 > 0xFFFFFFFF
        media = struct.pack(">I4sQ", 1, b"mdat", self.media_bytes + 16) if large else struct.pack(">I4s", self.media_bytes + 8, b"mdat")
        pieces = [begin, *self.movie.moov(self.tables, wide, self.origin_us), media]
        if sum(map(len, pieces)) + self.media_bytes > 0xFFFFFFFF and not wide:
            wide = True
            pieces[1:-1] = self.movie.moov(self.tables, wide, self.origin_us)
        size = sum(map(len, pieces))
        self.head = placed(pieces, size)
        self.header_bytes = size
        self.total_bytes = size + self.media_bytes

    def header_pieces(self):
        """Return everything before the first packet, as bytes one behind the other. Raises LocalProtocolError before `finish`."""
        self.need_finished()
        return self.head

    def header(self, start_us=0):
        """Return everything before the first packet. start_us: not used. Raises LocalProtocolError before `finish`."""
        return b"".join(self.header_pieces())

    cdef int need_finished(self) except -1:
        if self.head is None:
            raise LocalProtocolError("the layout is not finished")
        return 0

    cdef int need_located(self) except -1:
        self.need_finished()
        if not self.located:
            raise LocalProtocolError("the layout does not know where each packet lies")
        return 0

    def locate(self, int64_t number):
        """Return (track, dts_us, byte position in the file) of a packet, by its number in the order of adding.

        Raises LocalProtocolError before `finish` and for a number that is not there.   Cost: up to MARK_STRIDE steps.
        """
        self.need_located()
        if not 0 <= number < self.packets:
            raise LocalProtocolError(f"packet {number} of {self.packets}")
        cdef const Laid* one = (<const Laid*> self.laid.data) + number
        return one.track, one.dts_us, self.header_bytes + self.bytes_before(number)

    cdef int64_t bytes_before(self, int64_t number) noexcept:
        cdef int64_t at = number - number % MARK_STRIDE
        cdef int64_t total = (<const int64_t*> self.marks.data)[at // MARK_STRIDE]
        while at < number:
            total += (<const Laid*> self.laid.data)[at].size
            at += 1
        return total

    def packet_at(self, int64_t byte_offset):
        """Return (packet number, offset inside its stored bytes) of a byte of the file; (-1, byte_offset) inside the header.

        The end of the file is (packets, 0). Raises LocalProtocolError before `finish` and for a byte that is not there.
        Cost: a binary search.
        """
        cdef int64_t low = 0
        cdef int64_t high
        cdef int64_t middle
        cdef int64_t rest
        self.need_located()
        if byte_offset < 0 or byte_offset > self.total_bytes:
            raise LocalProtocolError(f"byte {byte_offset} of {self.total_bytes}")
        if byte_offset < self.header_bytes:
            return -1, byte_offset
        if byte_offset == self.total_bytes:
            return self.packets, 0
        rest = byte_offset - self.header_bytes
        high = <int64_t> self.marks.size // 8
        while high - low > 1:
            middle = (low + high) // 2
            if (<const int64_t*> self.marks.data)[middle] <= rest:
                low = middle
            else:
                high = middle
        rest -= (<const int64_t*> self.marks.data)[low]
        low *= MARK_STRIDE
        while rest >= (<const Laid*> self.laid.data)[low].size:
            rest -= (<const Laid*> self.laid.data)[low].size
            low += 1
        return low, rest

    def stored(self, int track, bytes payload not None):
        """Return the bytes that a packet has in the file: its payload, but text with its length and an empty text behind it."""
        cdef PacketView view
        cdef TrackTables table = <TrackTables> self.tables[track]
        cdef ByteBuffer out
        view.size = <size_t> len(payload)
        cdef size_t size = table.stored_size(&view)
        if not table.text or not size:
            return payload[:size]
        out = ByteBuffer()
        put_text(out, <const uint8_t*> <const char*> payload, size - 4)
        return out.take()
