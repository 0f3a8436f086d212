"""RTMP chunk streams: bytes to messages, messages to bytes, and the muxer that play connections share.

Spec: Adobe RTMP 1.0 section 5.3 (chunking) and 5.4 (protocol control messages).
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcmp, memcpy

from mist.core.buffer cimport ByteBuffer
from mist.core.flv cimport SCRIPT_TAG, VIDEO_TAG, TagMuxer, to_ms
from mist.core.flv_bodies cimport u24, u32

import struct

from mist.errors import LimitExceededError, LocalProtocolError, RemoteProtocolError

MAX_CHUNK_STREAMS = 128                 # open at once; the format has 65598 ids (section 5.3.1.1)
MAX_MEMORY_BYTES = 48 * 1024 * 1024     # of incomplete messages, all chunk streams of a connection together
MAX_MESSAGE_BYTES = 0xFFFFFF            # what the 24 bits of section 5.3.1.2.1 can say
PLAY_CHUNK_SIZE = 65536
DEFAULT_CHUNK_SIZE = 128
_STATE_VERSION = 1

cdef enum:
    EXTENDED = 0xFFFFFF
    MAX_HEADER_BYTES = 18               # 3 basic, 11 message, 4 extended time
    KEPT_BYTES = 262144                 # a chunk stream keeps a buffer up to this size for its next message
    FIRST_BUFFER_BYTES = 4096

    SET_CHUNK_SIZE = 1
    ABORT = 2
    AUDIO_MESSAGE = 8
    VIDEO_MESSAGE = 9
    AGGREGATE_MESSAGE = 22

    AUDIO_CHUNK_STREAM = 4
    DATA_CHUNK_STREAM = 5
    VIDEO_CHUNK_STREAM = 6
    MEDIA_MESSAGE_STREAM = 1


@cython.final
@cython.freelist(64)
cdef class Message:
    """One RTMP message. time_ms: unwrapped to 64 bits, so that it goes on after 2^32 ms."""

    cdef readonly uint32_t chunk_stream
    cdef readonly int type_id
    cdef readonly uint32_t message_stream
    cdef readonly int64_t time_ms
    cdef readonly bytes payload

    def __init__(self, uint32_t chunk_stream, int type_id, uint32_t message_stream, int64_t time_ms,
                 bytes payload not None):
        self.chunk_stream = chunk_stream
        self.type_id = type_id
        self.message_stream = message_stream
        self.time_ms = time_ms
        self.payload = payload

    def __repr__(self):
        return (
            f"Message(chunk_stream={self.chunk_stream}, type_id={self.type_id}, "
            f"message_stream={self.message_stream}, time_ms={self.time_ms}, {len(self.payload)} bytes)"
        )


@cython.final
cdef class _ChunkStream:
    """What is remembered of one chunk stream: the last header, and the message that is being put together."""

    cdef uint32_t number
    cdef uint32_t time_ms           # absolute, of the last message
    cdef uint32_t field             # last time field as sent: absolute (type 0) or delta
    cdef bint extended              # the last time field was the extended one
    cdef uint32_t length
    cdef uint8_t type_id
    cdef uint32_t message_stream
    cdef bint known                 # length and type have been seen
    cdef bint partial               # a message has begun and is not complete
    cdef uint8_t* data
    cdef size_t have
    cdef size_t capacity

    def __cinit__(self):
        self.data = NULL

    def __dealloc__(self):
        free(self.data)


@cython.final
cdef class ChunkReader:
    """Bytes of a connection (after the handshake) in, messages out.

    Set Chunk Size and Abort are obeyed here and returned as well. `discarded` counts messages that were begun and
    never finished. Raises RemoteProtocolError and LimitExceededError; it is dead afterwards.
    Bound: `max_memory_bytes` of incomplete messages, whatever lengths the peer announces.
    """

    cdef readonly uint32_t chunk_size
    cdef readonly int discarded
    cdef size_t _max_message_bytes
    cdef size_t _max_memory_bytes
    cdef size_t _memory_bytes
    cdef dict _streams
    cdef uint8_t _head[MAX_HEADER_BYTES]
    cdef size_t _head_size
    cdef _ChunkStream _current      # the one whose chunk is being read
    cdef size_t _chunk_left         # bytes of it still to come
    cdef bint _timed                # a media message has been seen
    cdef int64_t _time_ms           # its time, unwrapped

    def __init__(self, size_t max_message_bytes=0xFFFFFF, size_t max_memory_bytes=48 * 1024 * 1024):
        self.chunk_size = 128
        self._max_message_bytes = max_message_bytes
        self._max_memory_bytes = max_memory_bytes
        self._streams = {}

    def set_limits(self, size_t max_memory_bytes):
        """Change the bound of incomplete messages."""
        self._max_memory_bytes = max_memory_bytes

    @property
    def memory_bytes(self):
        """Memory held for incomplete messages."""
        return self._memory_bytes

    def feed(self, const uint8_t[::1] data not None):
        """Take bytes, any split, and return the messages they complete, in the order of their last bytes."""
        cdef list messages = []
        if data.shape[0]:
            self._feed_span(&data[0], <size_t> data.shape[0], messages)
        return messages

    cdef int _feed_span(self, const uint8_t* at, size_t left, list messages) except -1:
        cdef size_t step
        while left:
            if self._current is not None:
                step = self._take_payload(at, left, messages)
            elif self._head_size == 0 and left >= MAX_HEADER_BYTES:
                step = <size_t> self._parse_header(at, left)
                self._finish_empty_chunk(messages)
            else:
                step = self._gather_header(at, left, messages)
            at += step
            left -= step
        return 0

    cdef size_t _gather_header(self, const uint8_t* data, size_t size, list messages) except? 0:
        """Put together a header that came in pieces; return how many bytes of data belong to it."""
        cdef uint8_t payload[MAX_HEADER_BYTES]
        cdef size_t before = self._head_size
        cdef size_t step = min(size, MAX_HEADER_BYTES - before)
        cdef size_t used
        memcpy(self._head + before, data, step)
        used = <size_t> self._parse_header(self._head, before + step)
        if used == 0:
            self._head_size = before + step     # at most 17: 18 bytes are a whole header
            return step
        self._head_size = 0
        self._finish_empty_chunk(messages)
        if used >= before:
            return used - before
        # What looked like the beginning of a repeated time was payload.
        memcpy(payload, self._head + used, before - used)
        self._feed_span(payload, before - used, messages)
        return 0

    cdef int _finish_empty_chunk(self, list messages) except -1:
        if self._chunk_left == 0:
            self._finish_chunk(messages)
        return 0

    cdef size_t _take_payload(self, const uint8_t* data, size_t size, list messages) except? 0:
        """Move bytes of the current chunk into its message; return how many."""
        cdef _ChunkStream stream = self._current
        cdef size_t step = min(size, self._chunk_left)
        if stream.have == 0 and step == stream.length:
            self._current = None
            stream.partial = False
            self._deliver(stream, data, messages)
            return step
        self._grow(stream, stream.have + step)
        memcpy(stream.data + stream.have, data, step)
        stream.have += step
        self._chunk_left -= step
        if self._chunk_left == 0:
            self._finish_chunk(messages)
        return step

    cdef int _finish_chunk(self, list messages) except -1:
        cdef _ChunkStream stream = self._current
        self._current = None
        if stream.have == stream.length:
            stream.partial = False
            self._deliver(stream, stream.data, messages)
            self._drop_payload(stream)
        return 0

    cdef int _grow(self, _ChunkStream stream, size_t wanted) except -1:
        cdef size_t capacity = stream.capacity
        cdef uint8_t* grown
        if wanted <= capacity:
            return 0
        if not capacity:
            capacity = FIRST_BUFFER_BYTES
        while capacity < wanted:
            capacity *= 2
        if self._memory_bytes - stream.capacity + capacity > self._max_memory_bytes:
            raise LimitExceededError(
                f"incomplete messages of more than {self._max_memory_bytes} bytes", spec="RTMP 1.0 section 5.3"
            )
        grown = <uint8_t*> realloc(stream.data, capacity)
        if grown is NULL:
            raise MemoryError
        self._memory_bytes += capacity - stream.capacity
        stream.data = grown
        stream.capacity = capacity
        return 0

    cdef int _drop_payload(self, _ChunkStream stream) except -1:
        stream.have = 0
        stream.partial = False
        if stream.capacity > KEPT_BYTES:
            self._memory_bytes -= stream.capacity
            free(stream.data)
            stream.data = NULL
            stream.capacity = 0
        return 0

    cdef int _parse_header(self, const uint8_t* data, size_t size) except -1:
        """Parse a chunk header; return its length and set the current chunk, or return 0 if it is incomplete."""
        cdef uint8_t form = data[0] >> 6
        cdef uint32_t number = data[0] & 63
        cdef size_t at = 1
        cdef size_t fields
        cdef bint extended
        cdef uint32_t field
        cdef _ChunkStream stream
        if number < 2:
            at = 2 + number
            if size < at:
                return 0
            number = 64 + data[1] + (<uint32_t> data[2] * 256 if number else 0)
        stream = self._streams.get(number)
        if stream is None:
            self._check_new_stream(form, number)
        fields = (11, 7, 3, 0)[form]
        if size < at + fields:
            return 0
        if form < 3:
            field = u24(data + at)
            extended = field == EXTENDED
            if extended:
                if size < at + fields + 4:
                    return 0
                field = u32(data + at + fields)
            if stream is None:
                stream = self._new_stream(number)
            self._set_header(stream, form, field, extended, data + at)
            at += fields + (4 if extended else 0)
        else:
            if stream.extended:
                fields = self._repeated_time(stream, data + at, size - at)
                if fields == 1:
                    return 0
                at += fields
            if not stream.partial:
                self._begin(stream, stream.time_ms + stream.field)
        self._current = stream
        self._chunk_left = min(<size_t> self.chunk_size, stream.length - stream.have)
        return <int> at

    cdef int _check_new_stream(self, uint8_t form, uint32_t number) except -1:
        if form >= 2:
            raise RemoteProtocolError(
                f"chunk stream {number} begins with a type {form} chunk", spec="RTMP 1.0 section 5.3.1.2"
            )
        if len(self._streams) >= MAX_CHUNK_STREAMS:
            raise LimitExceededError(f"more than {MAX_CHUNK_STREAMS} chunk streams", spec="RTMP 1.0 section 5.3.1.1")
        return 0

    cdef _ChunkStream _new_stream(self, uint32_t number):
        cdef _ChunkStream stream = _ChunkStream.__new__(_ChunkStream)
        stream.number = number
        self._streams[number] = stream
        return stream

    cdef int _set_header(self, _ChunkStream stream, uint8_t form, uint32_t field, bint extended,
                         const uint8_t* data) except -1:
        """Take the message header of a type 0, 1 or 2 chunk, which begins a message.

        A type 1 chunk may be the first of its chunk stream: librtmp begins chunk stream 2 so.
        """
        if stream.partial:
            self.discarded += 1
            self._drop_payload(stream)
        stream.field = field
        stream.extended = extended
        if form < 2:
            stream.length = u24(data + 3)
            stream.type_id = data[6]
            if stream.length > self._max_message_bytes:
                raise LimitExceededError(
                    f"message of {stream.length} bytes, at most {self._max_message_bytes}",
                    spec="RTMP 1.0 section 5.3.1.2",
                )
        if form == 0:
            stream.message_stream = (
                data[7] | (<uint32_t> data[8] << 8) | (<uint32_t> data[9] << 16) | (<uint32_t> data[10] << 24)
            )
            return self._begin(stream, field)
        return self._begin(stream, stream.time_ms + field)

    cdef int _begin(self, _ChunkStream stream, uint32_t time_ms) except -1:
        stream.time_ms = time_ms
        stream.have = 0
        stream.partial = True
        return 0

    cdef int _repeated_time(self, _ChunkStream stream, const uint8_t* data, size_t size) except -1:
        """Return 4 if the extended time is repeated in this type 3 chunk, 0 if not, 1 if more bytes must tell.

        Section 5.3.1.3 wants it repeated; librtmp before 2.4 and encoders made from it leave it out. Payload that
        happens to equal the time would be taken for it; nothing can tell the two apart.
        """
        cdef uint8_t expected[4]
        cdef uint8_t absolute[4]
        cdef size_t count = min(size, <size_t> 4)
        structu32(expected, stream.field)
        structu32(absolute, stream.time_ms)
        if memcmp(expected, data, count) != 0 and memcmp(absolute, data, count) != 0:
            return 0
        return 4 if count == 4 else 1

    cdef int _deliver(self, _ChunkStream stream, const uint8_t* data, list messages) except -1:
        cdef Message message
        cdef uint32_t value
        if stream.length == 0:
            return 0    # says nothing, and a flood of them would cost much more memory than bytes
        message = Message.__new__(Message)
        message.chunk_stream = stream.number
        message.type_id = stream.type_id
        message.message_stream = stream.message_stream
        message.time_ms = self._unwrap(stream.time_ms, stream.type_id)
        message.payload = PyBytes_FromStringAndSize(<const char*> data, <Py_ssize_t> stream.length)
        messages.append(message)
        if stream.type_id == SET_CHUNK_SIZE or stream.type_id == ABORT:
            if stream.length < 4:
                raise RemoteProtocolError(f"control message of {stream.length} bytes", spec="RTMP 1.0 section 5.4")
            value = u32(<const uint8_t*> PyBytes_AS_STRING(message.payload))
            if stream.type_id == ABORT:
                self._abort(value)
            elif 1 <= value <= 0x7FFFFFFF:
                self.chunk_size = value
            else:
                raise RemoteProtocolError(f"chunk size {value}", spec="RTMP 1.0 section 5.4.1")
        return 0

    cdef int _abort(self, uint32_t number) except -1:
        cdef _ChunkStream stream = self._streams.get(number)
        if stream is not None and stream.partial:
            self.discarded += 1
            self._drop_payload(stream)
        return 0

    cdef int64_t _unwrap(self, uint32_t time_ms, uint8_t type_id) noexcept:
        """Return a 32-bit time as the 64-bit time that is nearest to the connection's last media message."""
        cdef int64_t full
        if self._timed:
            full = self._time_ms + <int32_t> (time_ms - <uint32_t> self._time_ms)
        elif time_ms >= 0xFFFF0000U:
            full = <int64_t> time_ms - (<int64_t> 1 << 32)     # an encoder's first frames may lie below its zero
        else:
            full = time_ms
        if type_id == AUDIO_MESSAGE or type_id == VIDEO_MESSAGE or type_id == AGGREGATE_MESSAGE:
            self._timed = True
            self._time_ms = full
        return full

    # -- State for another process

    def export_state(self):
        """Return everything the next byte depends on, incomplete messages included."""
        cdef _ChunkStream stream
        current = self._current.number if self._current is not None else 0
        parts = [
            struct.pack(
                "<BIIQ?qB", _STATE_VERSION, self.chunk_size, current, self._chunk_left, self._timed, self._time_ms,
                self._head_size,
            ),
            self._head[:self._head_size],
        ]
        for stream in self._streams.values():
            have = stream.have if stream.partial else 0
            parts.append(
                struct.pack(
                    "<III?IBI?I", stream.number, stream.time_ms, stream.field, stream.extended, stream.length,
                    stream.type_id, stream.message_stream, stream.partial, have,
                )
            )
            if have:
                parts.append(PyBytes_FromStringAndSize(<char*> stream.data, <Py_ssize_t> have))
        return b"".join(parts)

    def restore(self, bytes state not None):
        """Go on from what `export_state` returned. Raises LocalProtocolError if it is not of this version."""
        cdef size_t at
        try:
            version, self.chunk_size, current, self._chunk_left, self._timed, self._time_ms, head = struct.unpack_from(
                "<BIIQ?qB", state
            )
            at = struct.calcsize("<BIIQ?qB")
            if version != _STATE_VERSION or head >= MAX_HEADER_BYTES or at + head > <size_t> len(state):
                raise LocalProtocolError("state of another version")
            memcpy(self._head, <const uint8_t*> PyBytes_AS_STRING(state) + at, head)
            self._head_size = head
            at += head
            self._streams = {}
            while at < <size_t> len(state):
                at = self._restore_stream(state, at)
            self._current = self._streams[current] if current else None
        except (struct.error, KeyError) as error:
            raise LocalProtocolError(f"damaged chunk reader state: {error}") from error

    cdef size_t _restore_stream(self, bytes state, size_t at) except 0:
        cdef _ChunkStream stream
        number, time_ms, field, extended, length, type_id, message_stream, partial, have = struct.unpack_from(
            "<III?IBI?I", state, at
        )
        at += struct.calcsize("<III?IBI?I")
        if at + have > <size_t> len(state) or have > length:
            raise LocalProtocolError("damaged chunk reader state")
        stream = self._new_stream(number)
        stream.time_ms = time_ms
        stream.field = field
        stream.extended = extended
        stream.length = length
        stream.type_id = type_id
        stream.message_stream = message_stream
        stream.partial = partial
        if have:
            self._grow(stream, have)
            memcpy(stream.data, <const uint8_t*> PyBytes_AS_STRING(state) + at, have)
            stream.have = have
        return at + have


cdef inline void structu32(uint8_t* to, uint32_t value) noexcept:
    to[0] = value >> 24
    to[1] = (value >> 16) & 0xFF
    to[2] = (value >> 8) & 0xFF
    to[3] = value & 0xFF


# -- Writing

cdef size_t _basic_header(uint8_t* to, uint8_t form, uint32_t chunk_stream) noexcept:
    """Write the 1, 2 or 3 bytes of a basic header; return how many.   Spec: RTMP 1.0 section 5.3.1.1."""
    if chunk_stream < 64:
        to[0] = (form << 6) | <uint8_t> chunk_stream
        return 1
    if chunk_stream < 320:
        to[0] = form << 6
        to[1] = <uint8_t> (chunk_stream - 64)
        return 2
    to[0] = (form << 6) | 1
    to[1] = (chunk_stream - 64) & 0xFF
    to[2] = <uint8_t> ((chunk_stream - 64) >> 8)
    return 3


cdef int write_message(ByteBuffer out, uint32_t chunk_stream, uint8_t type_id, uint32_t message_stream, uint32_t time_ms,
                       const uint8_t* head, size_t head_size, const uint8_t* data, size_t size,
                       uint32_t chunk_size) except -1:
    """Append one message made of head and data, as a type 0 chunk and type 3 chunks after it."""
    cdef size_t total = head_size + size
    cdef size_t chunks, step, part, done
    cdef bint extended = time_ms >= EXTENDED
    cdef uint32_t field = EXTENDED if extended else time_ms
    cdef uint8_t* start
    cdef uint8_t* to
    if total > 0xFFFFFF:
        raise LocalProtocolError(f"a message of {total} bytes does not fit RTMP")
    chunks = total // chunk_size + 1
    start = to = out.reserve(total + 18 + 7 * chunks)
    to += _basic_header(to, 0, chunk_stream)
    structu32(to, field << 8)
    structu32(to + 3, <uint32_t> total << 8)
    to[6] = type_id
    to[7] = message_stream & 0xFF
    to[8] = (message_stream >> 8) & 0xFF
    to[9] = (message_stream >> 16) & 0xFF
    to[10] = message_stream >> 24
    to += 11
    if extended:
        structu32(to, time_ms)
        to += 4
    done = 0
    while True:
        step = min(total - done, <size_t> chunk_size)
        if done < head_size and step:
            part = min(step, head_size - done)
            memcpy(to, head + done, part)
            to += part
            done += part
            step -= part
        if step:
            memcpy(to, data + (done - head_size), step)
            to += step
            done += step
        if done >= total:
            break
        to += _basic_header(to, 3, chunk_stream)
        if extended:
            structu32(to, time_ms)
            to += 4
    out.commit(<size_t> (to - start))
    return 0


@cython.final
cdef class ChunkWriter:
    """Messages in, bytes out; every message begins with a type 0 chunk."""

    cdef readonly uint32_t chunk_size
    cdef ByteBuffer _out

    def __init__(self, uint32_t chunk_size=128):
        self.chunk_size = chunk_size
        self._out = ByteBuffer()

    def write(self, uint32_t chunk_stream, int type_id, uint32_t message_stream, int64_t time_ms,
              bytes payload not None):
        """Append one message. time_ms is sent modulo 2^32. Raises LocalProtocolError if it does not fit."""
        if chunk_stream < 2 or chunk_stream > 65599:
            raise LocalProtocolError(f"chunk stream id {chunk_stream}")
        write_message(
            self._out, chunk_stream, <uint8_t> type_id, message_stream, <uint32_t> time_ms, NULL, 0,
            <const uint8_t*> PyBytes_AS_STRING(payload), <size_t> PyBytes_GET_SIZE(payload), self.chunk_size,
        )

    def write_chunk_size(self, uint32_t chunk_size):
        """Announce a chunk size and use it from the next message on.   Spec: RTMP 1.0 section 5.4.1."""
        if not 1 <= chunk_size <= 0x7FFFFFFF:
            raise LocalProtocolError(f"chunk size {chunk_size}")
        self.write(2, SET_CHUNK_SIZE, 0, 0, struct.pack(">I", chunk_size))
        self.chunk_size = chunk_size

    def take_output(self):
        """Return all bytes queued since the last call, and forget them."""
        return self._out.take()


cdef bytes SET_DATA_FRAME = b"\x02\x00\x0d@setDataFrame"  # an AMF 0 string


@cython.final
cdef class RtmpPlayMuxer(TagMuxer):
    """Packets in, the media part of an RTMP play connection out: the same bytes for every viewer.

    Each message begins with a type 0 chunk, on fixed chunk streams and message stream 1; the session must have
    announced a chunk size of PLAY_CHUNK_SIZE before. Times are the packets' own, in milliseconds modulo 2^32.
    """

    cdef int put(self, ByteBuffer out, uint8_t tag_type, uint32_t time_ms, const uint8_t* head, size_t head_size,
                 const uint8_t* data, size_t size) except -1:
        cdef uint32_t chunk_stream = AUDIO_CHUNK_STREAM
        if tag_type == VIDEO_TAG:
            chunk_stream = VIDEO_CHUNK_STREAM
        elif tag_type == SCRIPT_TAG:
            chunk_stream = DATA_CHUNK_STREAM
        return write_message(
            out, chunk_stream, tag_type, MEDIA_MESSAGE_STREAM, time_ms, head, head_size, data, size, 65536
        )

    def header(self, start_us=0):
        """Return onMetaData, and all sequence headers at the time of the first packet."""
        cdef ByteBuffer out = ByteBuffer()
        self.put_setup(out, <uint32_t> to_ms(start_us))
        return out.take()


@cython.final
cdef class RtmpPublishMuxer(TagMuxer):
    """Packets in, the media part of an RTMP publish connection out, for one server.

    As in `RtmpPlayMuxer`, but on the message stream that the server gave, and with the first packet at time 0 unless keep_times.
    """

    cdef uint32_t message_stream
    cdef uint32_t origin_ms
    cdef bint begun                     # origin_ms is known: the times of a connection never begin anew
    cdef bint keep_times

    def __init__(self, tracks, bint enhanced=True, uint32_t message_stream=1, bint keep_times=False):
        TagMuxer.__init__(self, tracks, enhanced)
        self.message_stream = message_stream
        self.keep_times = keep_times

    cdef void begin(self, uint32_t time_ms) noexcept:
        if not self.begun and not self.keep_times:
            self.origin_ms = time_ms
        self.begun = True

    cdef int put(self, ByteBuffer out, uint8_t tag_type, uint32_t time_ms, const uint8_t* head, size_t head_size,
                 const uint8_t* data, size_t size) except -1:
        cdef uint32_t chunk_stream = AUDIO_CHUNK_STREAM
        cdef uint32_t since_ms
        self.begin(time_ms)             # a group muxes its first packet before it asks for what goes before it
        since_ms = time_ms - self.origin_ms
        if since_ms > 0x7FFFFFFF and not self.keep_times:
            since_ms = 0                # of another track, from just before the first keyframe
        if tag_type == VIDEO_TAG:
            chunk_stream = VIDEO_CHUNK_STREAM
        elif tag_type == SCRIPT_TAG:
            chunk_stream = DATA_CHUNK_STREAM
        return write_message(
            out, chunk_stream, tag_type, self.message_stream, since_ms, head, head_size, data, size, 65536
        )

    cdef int put_metadata(self, ByteBuffer out, bytes body) except -1:
        """Append onMetaData as a server wants it from a publisher."""
        return write_message(
            out, DATA_CHUNK_STREAM, SCRIPT_TAG, self.message_stream, 0,
            <const uint8_t*> PyBytes_AS_STRING(SET_DATA_FRAME), <size_t> PyBytes_GET_SIZE(SET_DATA_FRAME),
            <const uint8_t*> PyBytes_AS_STRING(body), <size_t> PyBytes_GET_SIZE(body), 65536,
        )

    def header(self, start_us=0):
        """Return onMetaData, and all sequence headers at the time of the first packet."""
        cdef ByteBuffer out = ByteBuffer()
        self.put_setup(out, <uint32_t> to_ms(start_us))
        return out.take()

    def state(self):
        """Return the time of the first packet, and what the set-up of each track needs."""
        return struct.pack(">?I", self.begun, self.origin_ms) + TagMuxer.state(self)

    def restore(self, state):
        """Go on from `state()`. Raises LocalProtocolError if it is of other tracks."""
        if len(state) < 5:
            raise LocalProtocolError(f"muxer state of {len(state)} bytes")
        self.begun, self.origin_ms = struct.unpack_from(">?I", state)
        TagMuxer.restore(self, state[5:])
