"""The records of a DTSC index: fragments, keys, the sizes of keys, and parts, between arrays and bytes.

Columns are `array.array` of type "I" (32 bits), "Q" (64 bits) or "i" (signed 32 bits). All records are big-endian, without gaps.
What does not fit its field is written as the field's greatest value.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t

from mist.core.buffer cimport ByteBuffer
from mist.core.demuxer cimport Demuxer
from mist.core.dtsc_objects cimport be16, be32, be64, put_be32, put_be64, to_ms
from mist.core.muxer cimport Muxer
from mist.core.packet cimport KEYFRAME, PacketView

from array import array

from mist.errors import LocalProtocolError, RemoteProtocolError

FRAGMENT_BYTES = 13     # duration 32 bits, keys 8, number of the first key plus 1 32, payload bytes 32
KEY_BYTES = 25          # position 64 bits, duration 24, number 32, parts 16, time 64
KEY_SIZE_BYTES = 4      # bytes of the key's packets 32 bits
PART_BYTES = 9          # payload bytes 24 bits, duration 24, offset 24 signed


cdef inline uint32_t be24(const uint8_t* at) noexcept:
    return <uint32_t> at[0] << 16 | <uint32_t> at[1] << 8 | at[2]


cdef inline uint8_t* put_be24(uint8_t* at, uint32_t value) noexcept:
    if value > 0xFFFFFF:
        value = 0xFFFFFF
    at[0] = value >> 16
    at[1] = (value >> 8) & 0xFF
    at[2] = value & 0xFF
    return at + 3


cdef inline uint8_t* put_offset(uint8_t* at, int32_t value) noexcept:
    """Write a signed 24-bit number."""
    if value > 0x7FFFFF:
        value = 0x7FFFFF
    elif value < -0x800000:
        value = -0x800000
    return put_be24(at, <uint32_t> value & 0xFFFFFF)


cdef Py_ssize_t records_in(const uint8_t[::1] data, int size, str what) except -1:
    """Return how many records there are. Raises RemoteProtocolError for a part of one."""
    cdef Py_ssize_t count = data.shape[0]
    if count % size:
        raise RemoteProtocolError(f"{count} bytes of {what} are no whole number of records of {size}", spec="DTSC")
    return count // size


cdef int same_length(columns) except -1:
    lengths = {len(column) for column in columns}
    if len(lengths) > 1:
        raise LocalProtocolError(f"columns of different lengths: {sorted(lengths)}")
    return 0


def column(str kind not None, Py_ssize_t count):
    """Return an array of zeros."""
    return array(kind, bytes(count * (8 if kind == "Q" else 4)))


def parse_fragments(const uint8_t[::1] data not None):
    """Return (durations ms, key counts, numbers of first keys, payload bytes), each array("I")."""
    cdef Py_ssize_t count = records_in(data, FRAGMENT_BYTES, "fragments")
    cdef Py_ssize_t i
    cdef const uint8_t* at = &data[0] if count else NULL
    result = tuple([column("I", count) for _ in range(4)])
    cdef uint32_t[::1] durations = result[0]
    cdef uint32_t[::1] keys = result[1]
    cdef uint32_t[::1] firsts = result[2]
    cdef uint32_t[::1] sizes = result[3]
    for i in range(count):
        durations[i], keys[i], firsts[i], sizes[i] = be32(at), at[4], be32(at + 5) - 1, be32(at + 9)
        at += 13
    return result


def serialize_fragments(const uint32_t[::1] durations, const uint32_t[::1] keys, const uint32_t[::1] firsts, const uint32_t[::1] sizes):
    """Return the records of fragments; parameters as `parse_fragments` returns them."""
    cdef Py_ssize_t i
    same_length((durations, keys, firsts, sizes))
    data = PyBytes_FromStringAndSize(NULL, durations.shape[0] * 13)
    cdef uint8_t* at = <uint8_t*> PyBytes_AS_STRING(data)
    for i in range(durations.shape[0]):
        at = put_be32(at, durations[i])
        at[0] = keys[i] if keys[i] < 255 else 255
        at = put_be32(at + 1, firsts[i] + 1)
        at = put_be32(at, sizes[i])
    return data


def parse_keys(const uint8_t[::1] data not None):
    """Return (positions "Q", durations ms "I", numbers "I", part counts "I", times ms "Q")."""
    cdef Py_ssize_t count = records_in(data, KEY_BYTES, "keys")
    cdef Py_ssize_t i
    cdef const uint8_t* at = &data[0] if count else NULL
    result = tuple([column(kind, count) for kind in "QIIIQ"])
    cdef uint64_t[::1] positions = result[0]
    cdef uint32_t[::1] durations = result[1]
    cdef uint32_t[::1] numbers = result[2]
    cdef uint32_t[::1] parts = result[3]
    cdef uint64_t[::1] times = result[4]
    for i in range(count):
        positions[i], durations[i], numbers[i] = be64(at), be24(at + 8), be32(at + 11)
        parts[i], times[i] = be16(at + 15), be64(at + 17)
        at += 25
    return result


def serialize_keys(const uint64_t[::1] positions, const uint32_t[::1] durations, const uint32_t[::1] numbers,
                   const uint32_t[::1] parts, const uint64_t[::1] times):
    """Return the records of keys; parameters as `parse_keys` returns them."""
    cdef Py_ssize_t i
    cdef uint32_t count
    same_length((positions, durations, numbers, parts, times))
    data = PyBytes_FromStringAndSize(NULL, positions.shape[0] * 25)
    cdef uint8_t* at = <uint8_t*> PyBytes_AS_STRING(data)
    for i in range(positions.shape[0]):
        at = put_be64(at, positions[i])
        at = put_be24(at, durations[i])
        at = put_be32(at, numbers[i])
        count = parts[i] if parts[i] < 0xFFFF else 0xFFFF
        at[0] = count >> 8
        at[1] = count & 0xFF
        at = put_be64(at + 2, times[i])
    return data


def parse_key_sizes(const uint8_t[::1] data not None):
    """Return the bytes of each key's packets, array("I")."""
    cdef Py_ssize_t count = records_in(data, KEY_SIZE_BYTES, "key sizes")
    cdef Py_ssize_t i
    cdef const uint8_t* at = &data[0] if count else NULL
    result = column("I", count)
    cdef uint32_t[::1] sizes = result
    for i in range(count):
        sizes[i] = be32(at + 4 * i)
    return result


def serialize_key_sizes(const uint32_t[::1] sizes):
    """Return the records of the sizes of keys."""
    cdef Py_ssize_t i
    data = PyBytes_FromStringAndSize(NULL, sizes.shape[0] * 4)
    cdef uint8_t* at = <uint8_t*> PyBytes_AS_STRING(data)
    for i in range(sizes.shape[0]):
        at = put_be32(at, sizes[i])
    return data


def parse_parts(const uint8_t[::1] data not None):
    """Return (payload bytes "I", durations ms "I", offsets ms "i")."""
    cdef Py_ssize_t count = records_in(data, PART_BYTES, "parts")
    cdef Py_ssize_t i
    cdef const uint8_t* at = &data[0] if count else NULL
    cdef uint32_t offset
    result = tuple([column(kind, count) for kind in "IIi"])
    cdef uint32_t[::1] sizes = result[0]
    cdef uint32_t[::1] durations = result[1]
    cdef int32_t[::1] offsets = result[2]
    for i in range(count):
        sizes[i], durations[i], offset = be24(at), be24(at + 3), be24(at + 6)
        offsets[i] = <int32_t> offset - (0x1000000 if offset & 0x800000 else 0)
        at += 9
    return result


def serialize_parts(const uint32_t[::1] sizes, const uint32_t[::1] durations, const int32_t[::1] offsets):
    """Return the records of parts; parameters as `parse_parts` returns them."""
    cdef Py_ssize_t i
    same_length((sizes, durations, offsets))
    data = PyBytes_FromStringAndSize(NULL, sizes.shape[0] * 9)
    cdef uint8_t* at = <uint8_t*> PyBytes_AS_STRING(data)
    for i in range(sizes.shape[0]):
        at = put_be24(at, sizes[i])
        at = put_be24(at, durations[i])
        at = put_offset(at, offsets[i])
    return data


# -- building

cdef enum:
    AUDIO_KEY_MS = 2047         # other tracks than video have a key at least this often
    FRAGMENT_MS = 1900          # a key begins a new fragment when the last one is this long
    MEDIA_BYTES = 24 + 11       # of a DTP2 packet with nothing but its payload
    OFFSET_MEMBER_BYTES = 17
    POSITION_MEMBER_BYTES = 15
    KEYFRAME_MEMBER_BYTES = 19


@cython.final
cdef class TrackIndex:
    """The records of one track while its packets come, in their written form."""

    cdef bint video
    cdef readonly int64_t first_ms
    cdef readonly int64_t last_ms
    cdef readonly uint64_t part_count
    cdef readonly uint64_t max_bytes_per_second
    cdef uint64_t closed_bytes          # payload of fragments that have ended
    cdef uint64_t closed_ms
    cdef uint32_t key_count
    cdef uint32_t key_parts
    cdef uint32_t key_bytes
    cdef int64_t key_ms
    cdef uint32_t fragment_keys
    cdef uint32_t fragment_bytes
    cdef int64_t fragment_ms
    cdef ByteBuffer fragment_records
    cdef ByteBuffer key_records
    cdef ByteBuffer size_records
    cdef ByteBuffer part_records

    def __cinit__(self):
        self.fragment_records, self.key_records = ByteBuffer(), ByteBuffer()
        self.size_records, self.part_records = ByteBuffer(), ByteBuffer()

    cdef int add(self, const PacketView* packet, int64_t position) except -1:
        """Take note of a packet. position: byte in the input where reading must begin for it."""
        cdef int64_t time_ms = max(to_ms(packet.dts_us), self.last_ms)
        cdef int64_t offset_ms = to_ms(packet.dts_us + packet.offset_us) - time_ms
        cdef int64_t passed = 0
        cdef bint flagged = self.video and packet.flags & KEYFRAME
        cdef uint8_t* at
        if self.part_count:
            passed = time_ms - self.last_ms
            put_be24(self.part_records.data + self.part_records.size - 6, <uint32_t> min(passed, 0xFFFFFF))
        else:
            self.first_ms = time_ms
        if flagged or not self.part_count or (not self.video and time_ms - self.key_ms >= AUDIO_KEY_MS):
            self.add_key(time_ms, position)
        at = self.part_records.reserve(9)
        at = put_be24(at, <uint32_t> min(packet.size, 0xFFFFFF))
        at = put_be24(at, <uint32_t> min(passed, 0xFFFFFF))
        put_offset(at, <int32_t> max(-0x800000, min(offset_ms, 0x7FFFFF)))
        self.part_records.commit(9)
        self.part_count += 1
        self.last_ms = time_ms
        self.key_parts += 1
        self.key_bytes += <uint32_t> packet.size + MEDIA_BYTES + (OFFSET_MEMBER_BYTES if offset_ms else 0)
        self.key_bytes += (POSITION_MEMBER_BYTES if position else 0) + (KEYFRAME_MEMBER_BYTES if flagged else 0)
        self.fragment_bytes += <uint32_t> packet.size
        self.settle()
        return 0

    cdef int add_key(self, int64_t time_ms, int64_t position) except -1:
        cdef uint8_t* at
        if self.key_count:
            put_be24(self.key_records.data + self.key_records.size - 17, <uint32_t> min(time_ms - self.key_ms, 0xFFFFFF))
        if not self.key_count or time_ms - self.fragment_ms >= FRAGMENT_MS:
            self.add_fragment(time_ms)
        self.fragment_keys += 1
        at = self.key_records.reserve(25)
        at = put_be64(at, <uint64_t> position)
        at = put_be24(at, 0)
        at = put_be32(at, self.key_count)
        put_be64(at + 2, <uint64_t> max(time_ms, 0))
        self.key_records.commit(25)
        self.size_records.reserve(4)
        self.size_records.commit(4)
        self.key_count += 1
        self.key_parts = self.key_bytes = 0
        self.key_ms = time_ms
        return 0

    cdef int add_fragment(self, int64_t time_ms) except -1:
        cdef uint8_t* at
        cdef int64_t passed = time_ms - self.fragment_ms
        if self.key_count and passed > 0:
            put_be32(self.fragment_records.data + self.fragment_records.size - 13, <uint32_t> min(passed, 0xFFFFFFFF))
            self.closed_bytes += self.fragment_bytes
            self.closed_ms += <uint64_t> passed
            self.max_bytes_per_second = max(
                self.max_bytes_per_second, <uint64_t> self.fragment_bytes * 1000 // <uint64_t> passed
            )
        at = put_be32(self.fragment_records.reserve(13), 0)
        put_be32(at + 1, self.key_count + 1)
        self.fragment_records.commit(13)
        self.fragment_keys = self.fragment_bytes = 0
        self.fragment_ms = time_ms
        return 0

    cdef int settle(self) noexcept:
        """Write the counters of the open key and fragment into their records."""
        cdef uint8_t* key = self.key_records.data + self.key_records.size - 10
        cdef uint8_t* fragment = self.fragment_records.data + self.fragment_records.size - 9
        cdef uint32_t parts = self.key_parts if self.key_parts < 0xFFFF else 0xFFFF
        key[0] = parts >> 8
        key[1] = parts & 0xFF
        put_be32(self.size_records.data + self.size_records.size - 4, self.key_bytes)
        fragment[0] = self.fragment_keys if self.fragment_keys < 255 else 255
        put_be32(fragment + 5, self.fragment_bytes)
        return 0

    @property
    def bytes_per_second(self):
        """Mean of the fragments that have ended."""
        return self.closed_bytes * 1000 // self.closed_ms if self.closed_ms else 0

    def records(self):
        """Return (fragments, keys, key sizes, parts) as they are written. A copy."""
        return (
            copied(self.fragment_records), copied(self.key_records), copied(self.size_records), copied(self.part_records)
        )


cdef bytes copied(ByteBuffer records):
    return PyBytes_FromStringAndSize(<const char*> records.data, <Py_ssize_t> records.size)


@cython.final
cdef class IndexBuilder(Muxer):
    """A sink that makes the index of an input while a demuxer reads it.

    demuxer: its tracks are those of the index, its `position` is what a key refers to. log: gets every packet as well.
    """

    cdef readonly list tracks       # of TrackIndex, by number
    cdef Demuxer demuxer
    cdef Muxer log

    def __init__(self, Demuxer demuxer not None, Muxer log=None):
        self.demuxer = demuxer
        self.log = log
        self.tracks = []

    cdef int write_view(self, int track, const PacketView* packet) except -1:
        cdef TrackIndex index
        if self.log is not None:
            self.log.write_view(track, packet)
        while len(self.tracks) <= track:
            index = TrackIndex()
            index.video = self.demuxer.tracks[len(self.tracks)].type == "video"
            self.tracks.append(index)
        return (<TrackIndex> self.tracks[track]).add(packet, self.demuxer.position)
