"""Times and sizes of all packets of a file: what the exact length of another format's file follows from, without its payload."""

cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport INT64_MAX, INT64_MIN, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, qsort, realloc

from mist.core.buffer cimport ByteBuffer
from mist.core.muxer cimport Muxer
from mist.core.packet cimport KEYFRAME, PacketView
from mist.core.span_index cimport SpanIndex
from mist.core.trim cimport MAX_TRIM_US, trim_flags, trim_of

from array import array

from mist.errors import RemoteProtocolError, TruncatedError

cdef enum:
    LOGGED_LIMIT = 4 << 20       # packets, 24 bytes each: 16 hours of pictures and sound
    MAX_PLACES = 64
    LOGGED_KEY = 0x80            # beside the track, in the lowest byte of a mark and the first one of a packed packet
    PACKED_TRIM = 0x40           # the same: the trim follows the size
    MOST_PACKED_BYTES = 1 + 4 * 10
    STEP_PACKETS = 1 << 16       # a few milliseconds

MAX_LOGGED = LOGGED_LIMIT


cdef int by_time(const void* one, const void* other) noexcept nogil:
    cdef const Logged* first = <const Logged*> one
    cdef const Logged* second = <const Logged*> other
    if first.dts_us != second.dts_us:
        return -1 if first.dts_us < second.dts_us else 1
    return -1 if first.order < second.order else 1


cdef inline int track_of(const Logged* one) noexcept nogil:
    return <int> (one.mark & (MAX_PLACES - 1))


cdef inline uint8_t* put_number(uint8_t* at, uint64_t value) noexcept:
    """Write a number in groups of seven bits, lowest first; the top bit says that more follow."""
    while value >= 0x80:
        at[0] = <uint8_t> (value & 0x7F) | 0x80
        value >>= 7
        at += 1
    at[0] = <uint8_t> value
    return at + 1


cdef inline uint8_t* put_signed(uint8_t* at, int64_t value) noexcept:
    """Write a number whose sign is its lowest bit."""
    return put_number(at, (<uint64_t> value << 1) ^ <uint64_t> (value >> 63))


cdef inline const uint8_t* take_number(const uint8_t* at, const uint8_t* end, uint64_t* value) noexcept nogil:
    """Read a number; returns where it ends. NULL when it has no end in the data, or more than 64 bits."""
    cdef int shift = 0
    value[0] = 0
    while at < end and shift <= 63:
        value[0] |= <uint64_t> (at[0] & 0x7F) << shift
        at += 1
        if at[-1] < 0x80:
            return at
        shift += 7
    return NULL


cdef inline const uint8_t* take_signed(const uint8_t* at, const uint8_t* end, int64_t* value) noexcept nogil:
    cdef uint64_t bits = 0
    at = take_number(at, end, &bits)
    value[0] = <int64_t> (bits >> 1) ^ -<int64_t> (bits & 1)
    return at


cdef inline const uint8_t* take_packet(const uint8_t* at, const uint8_t* end, Logged* one) noexcept nogil:
    """Read a packed packet, whose time is the step from the one before it of its track; returns where it ends.

    NULL when it has no end in the data, or is beyond all bounds.
    """
    cdef uint8_t head = at[0]
    cdef uint64_t size = 0, trim_us = 0
    cdef int64_t offset_us = 0
    at = take_signed(at + 1, end, &one.dts_us)
    at = take_signed(at, end, &offset_us) if at is not NULL else NULL
    at = take_number(at, end, &size) if at is not NULL else NULL
    if at is not NULL and head & PACKED_TRIM:
        at = take_number(at, end, &trim_us)
        if not 0 < trim_us <= MAX_TRIM_US:
            return NULL
    if size >> 32 or offset_us != <int32_t> offset_us:
        return NULL
    one.offset_us, one.size = <int32_t> offset_us, <uint32_t> size
    one.mark = <uint32_t> (head & (MAX_PLACES - 1 | LOGGED_KEY)) | trim_flags(<int64_t> trim_us)
    return at


cdef inline const uint8_t* pass_packet(const uint8_t* at, const uint8_t* end) noexcept nogil:
    """Return where a packed packet ends, NULL when it has no end in the data."""
    cdef int numbers = 4 if at[0] & PACKED_TRIM else 3
    at += 1
    while at < end:
        numbers -= at[0] < 0x80
        at += 1
        if not numbers:
            return at
    return NULL


cdef int refuse(const uint8_t* at, const uint8_t* end, int64_t offset) except -1:
    """Raise TruncatedError for a packet without an end, RemoteProtocolError for one with numbers beyond all bounds."""
    if end - at < MOST_PACKED_BYTES and pass_packet(at, end) is NULL:
        raise TruncatedError("a packed packet has no end", offset=offset)
    raise RemoteProtocolError("a packed packet beyond all bounds", offset=offset)


@cython.final
cdef class PackedPackets:
    """Reads what `PacketLog.pack` wrote, one packet after the other."""

    cdef const uint8_t[::1] data
    cdef const uint8_t* at
    cdef const uint8_t* end
    cdef int64_t[MAX_PLACES] before

    def __init__(self, data):
        cdef int track
        self.data = data
        self.at = &self.data[0] if self.data.shape[0] else NULL
        self.end = self.at + self.data.shape[0]
        for track in range(MAX_PLACES):
            self.before[track] = 0

    cdef bint next(self, Logged* one) except -1:
        """Read a packet; False behind the last one. Raises TruncatedError, RemoteProtocolError."""
        cdef const uint8_t* at
        if self.at == self.end:
            return False
        at = take_packet(self.at, self.end, one)
        if at is NULL:
            refuse(self.at, self.end, self.at - &self.data[0])
        self.at = at
        one.dts_us += self.before[track_of(one)]
        self.before[track_of(one)] = one.dts_us
        return True


# Where the reading of one track has got to.
cdef struct Cursor:
    const uint8_t* at            # behind its packet
    const uint8_t* begin         # of its packet, which `one` is
    int track
    Logged one


@cython.final
cdef class MergedPackets:
    """Reads tracks of a packed log by decode time: each by itself, all at once, so that nothing is sorted or kept.

    Every track must be in the order of its times. Packets of the same time come in the order of the log.
    """

    cdef const uint8_t[::1] data
    cdef const uint8_t* end
    cdef Cursor[MAX_PLACES] cursors
    cdef int count

    def __init__(self, data, list tracks not None):
        cdef int place
        cdef Cursor* cursor
        self.data = data
        self.end = (&self.data[0] if self.data.shape[0] else NULL) + self.data.shape[0]
        for place in range(len(tracks)):
            cursor = &self.cursors[self.count]
            cursor.at = self.end - self.data.shape[0]
            cursor.track, cursor.one.dts_us = tracks[place], INT64_MIN
            self.count += self.advance(cursor)

    cdef bint advance(self, Cursor* cursor) except -1:
        """Go to a track's next packet; False behind the last one. Raises TruncatedError, RemoteProtocolError."""
        cdef int64_t before_us = cursor.one.dts_us
        cdef const uint8_t* at = cursor.at
        cdef const uint8_t* begin = at
        while at is not NULL and at != self.end and at[0] & (MAX_PLACES - 1) != cursor.track:
            begin = at
            at = pass_packet(at, self.end)
        if at == self.end:
            return False
        if at is not NULL:
            begin = at
            at = take_packet(at, self.end, &cursor.one)
        if at is NULL:
            refuse(begin, self.end, begin - &self.data[0])
        cursor.begin, cursor.at = begin, at
        if before_us != INT64_MIN:
            if cursor.one.dts_us < 0:
                raise RemoteProtocolError("a packed track is not in order", offset=begin - &self.data[0])
            cursor.one.dts_us += before_us
        return True

    cdef bint next(self, Logged* one) except -1:
        """Read a packet; False behind the last one. Raises TruncatedError, RemoteProtocolError."""
        cdef Cursor* first = &self.cursors[0]
        cdef Cursor* other
        cdef int place
        if not self.count:
            return False
        for place in range(1, self.count):
            other = &self.cursors[place]
            if other.one.dts_us < first.one.dts_us or (other.one.dts_us == first.one.dts_us and other.begin < first.begin):
                first = other
        one[0] = first.one
        if not self.advance(first):
            self.count -= 1
            first[0] = self.cursors[self.count]
        return True


cdef inline void show(const Logged* one, PacketView* view) noexcept:
    view.dts_us, view.offset_us = one.dts_us, one.offset_us
    view.size, view.flags = one.size, (KEYFRAME if one.mark & LOGGED_KEY else 0) | trim_flags(trim_of(one.mark))


cdef int read_places(list places, int* place_of) except -1:
    cdef int track
    for track in range(MAX_PLACES):
        place_of[track] = places[track] if track < len(places) else -1
    return 0


@cython.final
cdef class PacketLog(Muxer):
    """A sink that keeps of every packet what it is, but not its payload; beyond MAX_LOGGED packets it gives up and is not whole."""

    def __cinit__(self, *args, **kwargs):
        cdef int track
        self.packets = NULL
        self.whole = True
        self.ordered = True
        for track in range(MAX_PLACES):
            self.newest[track] = INT64_MIN

    def __dealloc__(self):
        free(self.packets)

    cdef int write_view(self, int track, const PacketView* packet) except -1:
        cdef Logged one
        if track >= MAX_PLACES or packet.size > <uint64_t> 0xFFFFFFFF or packet.offset_us != <int32_t> packet.offset_us:
            return self.give_up()
        one.dts_us, one.offset_us, one.size = packet.dts_us, <int32_t> packet.offset_us, <uint32_t> packet.size
        one.mark = <uint32_t> track | (LOGGED_KEY if packet.flags & KEYFRAME else 0) | trim_flags(trim_of(packet.flags))
        return self.add(&one)

    cdef int add(self, Logged* one) except -1:
        cdef Logged* grown
        if not self.whole:
            return 0
        if self.count >= LOGGED_LIMIT:
            return self.give_up()
        if self.count == self.capacity:
            self.capacity = self.capacity * 2 if self.capacity else 1024
            grown = <Logged*> realloc(self.packets, self.capacity * sizeof(Logged))
            if grown is NULL:
                raise MemoryError
            self.packets = grown
        if one.dts_us < self.newest[track_of(one)]:
            self.ordered = False
        self.newest[track_of(one)] = one.dts_us
        one.order = <uint32_t> self.count
        self.packets[self.count] = one[0]
        self.count += 1
        return 0

    cdef int give_up(self) except -1:
        self.whole = False
        self.count = self.capacity = 0
        free(self.packets)
        self.packets = NULL
        return 0

    def unpack(self):
        """Read the packets of a log that was kept packed. Raises TruncatedError, RemoteProtocolError."""
        cdef Logged one
        cdef PackedPackets packed
        if self.packed is None:
            return
        packed = PackedPackets(self.packed)
        self.count = 0
        while packed.next(&one):
            self.add(&one)
        self.packed = None

    def pack(self):
        """Return all packets in few bytes each, for `packed_log`."""
        cdef int64_t[MAX_PLACES] before
        cdef ByteBuffer packed = ByteBuffer()
        cdef size_t number
        cdef int track
        cdef Logged* one
        cdef uint8_t* begin
        cdef uint8_t* at
        self.unpack()
        for number in range(MAX_PLACES):
            before[number] = 0
        for number in range(self.count):
            one = &self.packets[number]
            begin = packed.reserve(MOST_PACKED_BYTES)
            track = track_of(one)
            begin[0] = <uint8_t> (one.mark & 0xFF)
            at = put_signed(begin + 1, one.dts_us - before[track])
            at = put_signed(at, one.offset_us)
            at = put_number(at, one.size)
            if trim_of(one.mark):
                begin[0] |= PACKED_TRIM
                at = put_number(at, <uint64_t> trim_of(one.mark))
            packed.commit(at - begin)
            before[track] = one.dts_us
        return PyBytes_FromStringAndSize(<const char*> packed.data, <Py_ssize_t> packed.size)

    def lay_out(self, Muxer layout not None, measure, list places not None, SpanIndex index not None,
                int64_t from_us=INT64_MIN, int64_t to_us=INT64_MAX):
        """Return what writes packets without payload (data is NULL) to a sink, in the order in which the spans have them.

        measure() -> what all packets have taken so far. places, from_us, to_us: as for `Span.mux`.
        """
        return LayingOut(self, layout, measure, places, index, from_us, to_us)

    cdef PacketLog by_times(self):
        """Return another log with all packets in the order of their times, for tracks that are not in order themselves."""
        cdef PacketLog log = packed_log(self.packed if self.packed is not None else self.pack())
        log.unpack()
        qsort(log.packets, log.count, sizeof(Logged), by_time)
        return log

    def span_ends(self, Muxer sizes not None, measure, list places not None, SpanIndex index not None,
                  int64_t from_us=INT64_MIN, int64_t to_us=INT64_MAX):
        """Write packets without payload (data is NULL) to a sink that measures each by itself, in the order of the file.

        measure() -> what all have taken. The rest as for `lay_out`; returns an array: what was taken before each span, and in all.
        """
        cdef int[MAX_PLACES] place_of
        cdef PacketView view
        cdef Logged one
        cdef uint64_t span = 0       # so many begin at the packet or before it
        cdef uint64_t spans = index.header.count
        cdef size_t number = 0
        cdef int64_t taken, before = 0
        cdef int track
        cdef PackedPackets packed = PackedPackets(self.packed if self.packed is not None else b"")
        cdef int64_t[::1] sums
        read_places(places, place_of)
        ends = array("q", bytes(8 * (spans + 1)))
        sums = ends
        view.data = NULL
        while True:
            if self.packed is not None:
                if not packed.next(&one):
                    break
            elif number == self.count:
                break
            else:
                one = self.packets[number]
                number += 1
            track = place_of[track_of(&one)]
            if track < 0 or one.dts_us < from_us or one.dts_us >= to_us:
                continue
            if (span < spans and one.dts_us >= index.records[span].from_us) or (
                span and one.dts_us < index.records[span - 1].from_us
            ):
                taken = measure()
                sums[span] += taken - before
                before = taken
                while span < spans and one.dts_us >= index.records[span].from_us:
                    span += 1
                while span and one.dts_us < index.records[span - 1].from_us:
                    span -= 1
            show(&one, &view)
            sizes.write_view(track, &view)
        sums[span] += <int64_t> measure() - before
        for span in range(1, spans + 1):
            sums[span] += sums[span - 1]
        return ends


def packed_log(data, bint ordered=False):
    """Return the log whose `pack` this is; it is read when it is needed. Raises TruncatedError, RemoteProtocolError then.

    ordered: as the log was, if it is known.
    """
    cdef PacketLog log = PacketLog()
    log.packed = data
    log.ordered = ordered
    return log


@cython.final
cdef class LayingOut:
    """Writes the packets of a log to a sink, some at a time. Made by `PacketLog.lay_out`.

    ends: for each span what was taken before it, and at its end what in all; right once `step` has returned False.
    """

    cdef readonly object ends
    cdef MergedPackets merged
    cdef PacketLog log               # in order, where its tracks cannot be merged; else None
    cdef size_t number
    cdef Muxer layout
    cdef object measure
    cdef SpanIndex index
    cdef int[MAX_PLACES] place_of
    cdef int64_t from_us
    cdef int64_t to_us
    cdef uint64_t span

    def __cinit__(self, PacketLog log not None, Muxer layout not None, measure, list places not None, SpanIndex index not None,
                  int64_t from_us, int64_t to_us):
        self.ends = array("q")
        self.layout, self.measure, self.index, self.from_us, self.to_us = layout, measure, index, from_us, to_us
        read_places(places, self.place_of)
        if log.ordered:
            tracks = [track for track, place in enumerate(places[:MAX_PLACES]) if place >= 0]
            self.merged = MergedPackets(log.packed if log.packed is not None else log.pack(), tracks)
        else:
            self.log = log.by_times()

    cdef bint next(self, Logged* one) except -1:
        if self.log is None:
            return self.merged.next(one)
        if self.number == self.log.count:
            return False
        one[0] = self.log.packets[self.number]
        self.number += 1
        return True

    def step(self, size_t packets=STEP_PACKETS):
        """Write so many packets; returns whether there are more. Raises TruncatedError, RemoteProtocolError, and what the sink raises."""
        cdef PacketView view
        cdef Logged one
        cdef uint64_t spans = self.index.header.count
        cdef int place
        view.data = NULL
        while packets:
            packets -= 1
            if not self.next(&one):
                self.reach(spans + 1)
                return False
            place = self.place_of[track_of(&one)]
            if place < 0 or one.dts_us < self.from_us or one.dts_us >= self.to_us:
                continue
            while self.span < spans and one.dts_us >= self.index.records[self.span].from_us:
                self.reach(self.span + 1)
            show(&one, &view)
            self.layout.write_view(place, &view)
        return True

    cdef int reach(self, uint64_t span) except -1:
        """Say that what comes now is behind the beginning of all spans before a number."""
        taken = self.measure()
        while self.span < span:
            self.ends.append(taken)
            self.span += 1
        return 0


@cython.final
cdef class PayloadSink(Muxer):
    """A muxer of nothing but payload, one packet behind the other."""

    cdef int write_view(self, int track, const PacketView* packet) except -1:
        return self.out.append(packet.data, packet.size)


@cython.final
cdef class FrameSizes(Muxer):
    """Counts what packets of one track take in a file that holds little but their payload.

    before: bytes before each. frame_bytes: what is left of one at the end of a packet is dropped. most: packets beyond it are left out,
    and with it the empty ones; 0 for no limit.
    """

    cdef size_t before
    cdef size_t frame_bytes
    cdef size_t most
    cdef readonly int64_t total_bytes

    def __init__(self, size_t before=0, size_t frame_bytes=1, size_t most=0):
        self.before = before
        self.frame_bytes = max(frame_bytes, <size_t> 1)
        self.most = most

    cdef int write_view(self, int track, const PacketView* packet) except -1:
        if self.most and not 0 < packet.size <= self.most:
            return 0
        self.total_bytes += <int64_t> (self.before + packet.size - packet.size % self.frame_bytes)
        return 0
