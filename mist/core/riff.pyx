"""RIFF/WAVE files and streams read and written: sample after sample, or frames of an audio codec, with sizes of 32 or 64 bits, or none.

What stands in the header is read and written by the object that the engines are given (`mist.formats.riff`).
Specs: Microsoft Multimedia Programming Interface 1.0, EBU Tech 3306 (RF64).
"""

cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

from mist.core.audio_frames cimport AudioFrameDemuxer
from mist.core.buffer cimport ByteBuffer
from mist.core.muxer cimport Muxer
from mist.core.packet cimport KEYFRAME, PacketView

import struct

from mist.errors import LimitExceededError, LocalProtocolError, RemoteProtocolError, TruncatedError, UnsupportedError

MAX_FORMAT_BYTES = FORMAT_BYTES
MAX_CHUNKS = CHUNKS

cdef enum:
    FORMAT_BYTES = 65536        # of a `fmt ` or `ds64` chunk
    CHUNKS = 10000              # before the samples
    PACKETS_HZ = 25             # 40 ms of samples are a packet
    DS64_POSITION = 12          # of the chunk that keeps room for 64-bit sizes

cdef int64_t UNKNOWN = (<int64_t> 1 << 62)
cdef uint32_t NO_SIZE = 0xFFFFFFFF
cdef int64_t MILLION = 1000000


cdef uint32_t little(const uint8_t* data) noexcept nogil:
    return data[0] | (<uint32_t> data[1] << 8) | (<uint32_t> data[2] << 16) | (<uint32_t> data[3] << 24)


cdef void swap_samples(uint8_t* to, const uint8_t* data, size_t size, int sample_bytes) noexcept nogil:
    """Copy samples with their bytes in the other order. size: of whole samples."""
    cdef size_t at = 0
    if sample_bytes == 2:
        while at < size:
            to[at], to[at + 1] = data[at + 1], data[at]
            at += 2
    elif sample_bytes == 3:
        while at < size:
            to[at], to[at + 1], to[at + 2] = data[at + 2], data[at + 1], data[at]
            at += 3
    elif sample_bytes == 4:
        while at < size:
            to[at], to[at + 1], to[at + 2], to[at + 3] = data[at + 3], data[at + 2], data[at + 1], data[at]
            at += 4
    else:
        memcpy(to, data, size)


@cython.final
cdef class RiffDemuxer(AudioFrameDemuxer):
    """Demuxes WAV: packets of 40 ms, whose times are those of their samples; or the frames of an audio codec in the samples' place.

    The samples go on to the end of the input where their size is unknown (0 or the largest number, as in a pipe) or too large.
    `seek` goes by the time, in frames by the position.
    """

    cdef object reader
    cdef bint framed            # there are frames in the place of samples
    cdef int chunks
    cdef bint begun             # the file's name was read
    cdef int64_t data_size_64   # from `ds64`, -1: there is none
    cdef int64_t data_position  # of the first sample, 0: not reached
    cdef int64_t data_end
    cdef size_t frame_bytes
    cdef size_t packet_bytes
    cdef int sample_bytes       # that are swapped; 1: none
    cdef int64_t sample_rate_hz
    cdef ByteBuffer swapped

    def __init__(self, reader):
        """reader: has parse_format(chunk) and describe(form, frame) (`mist.formats.riff`)."""
        self.reader = reader
        self.data_size_64 = -1
        self.swapped = ByteBuffer()

    cdef size_t parse(self, const uint8_t* data, size_t size, bint over) except? 0xFFFFFFFF:
        cdef size_t at = 0
        cdef size_t used
        if self.framed and self.data_position:
            return self.take_frames(data, size, over)
        while not self.data_position:
            used = self.take_chunk(data + at, size - at, self.base + <int64_t> at)
            if not used:
                return at
            at += used
            if self.framed and self.data_position:
                return at
            if at >= size and not self.data_position:
                return at
        return at + self.take_samples(data + at, size - at, self.base + <int64_t> at, over)

    cdef size_t take_frames(self, const uint8_t* data, size_t size, bint over) except? 0xFFFFFFFF:
        """Write the whole frames; behind the last one there may be other chunks."""
        if self.base + <int64_t> size < self.data_end:
            return AudioFrameDemuxer.parse(self, data, size, over)
        AudioFrameDemuxer.parse(self, data, <size_t> max(self.data_end - self.base, <int64_t> 0), True)
        self.finish()
        self.ended = True
        return size

    cdef size_t take_chunk(self, const uint8_t* data, size_t size, int64_t position) except? 0xFFFFFFFF:
        """Take a chunk before the samples and return its size, which may be more than what is there; 0: more bytes are needed."""
        cdef size_t body
        if not self.begun:
            if size < 12:
                return 0
            if (memcmp(data, <const char*> b"RIFF", 4) and memcmp(data, <const char*> b"RF64", 4)
                    and memcmp(data, <const char*> b"BW64", 4)) or memcmp(data + 8, <const char*> b"WAVE", 4):
                raise RemoteProtocolError("no WAV file", offset=position, spec="RIFF WAVE, chapter 3")
            self.begun = True
            return 12
        if size < 8:
            return 0
        body = little(data + 4)
        self.chunks += 1
        if self.chunks > CHUNKS:
            raise LimitExceededError(f"more than {CHUNKS} chunks before the samples", offset=position)
        if memcmp(data, <const char*> b"data", 4) == 0:
            return self.begin_samples(body, position + 8)
        if memcmp(data, <const char*> b"fmt ", 4) == 0 or memcmp(data, <const char*> b"ds64", 4) == 0:
            if body > FORMAT_BYTES:
                raise LimitExceededError(f"a WAV header chunk of {body} bytes", offset=position)
            if size < 8 + body:
                self.chunks -= 1
                return 0
            self.take_format(data, body, position)
        return 8 + body + (body & 1)

    cdef int take_format(self, const uint8_t* chunk, size_t size, int64_t position) except -1:
        """Take the body of `fmt ` or `ds64`."""
        cdef bytes body = PyBytes_FromStringAndSize(<const char*> chunk + 8, <Py_ssize_t> size)
        if chunk[0] == 100:     # "d"
            if size < 24:
                raise TruncatedError("a ds64 chunk of under 24 bytes", offset=position, spec="EBU Tech 3306")
            wide_size = int.from_bytes(body[8:16], "little")
            self.data_size_64 = wide_size if wide_size < UNKNOWN else -1
            return 0
        if self.frame_bytes:
            return 0            # only the first counts
        found = self.reader.parse_format(body)
        self.frame_bytes = found.frame_bytes
        if found.frames:
            self.framed = True
            return self.set_form(found.frames)
        self.sample_rate_hz = found.track.sample_rate_hz
        self.packet_bytes = self.frame_bytes * <size_t> max(self.sample_rate_hz // PACKETS_HZ, 1)
        self.sample_bytes = found.sample_bytes if found.track.codec == "PCM" else 1
        return self.set_track(0, found.track, False)

    cdef size_t begin_samples(self, size_t size, int64_t position) except? 0xFFFFFFFF:
        if not self.frame_bytes:
            raise RemoteProtocolError("samples before their format", offset=position, spec="RIFF WAVE, chapter 3")
        self.data_position = position
        if size == NO_SIZE and self.data_size_64 > 0:
            self.data_end = position + self.data_size_64
        elif size == NO_SIZE or size == 0:
            self.data_end = UNKNOWN
        else:
            self.data_end = position + <int64_t> size
        if not self.framed:
            self.become_ready()
        return 8

    def describe(self, frame):
        """Return the track that a frame tells."""
        return self.reader.describe(self.format, frame)

    cdef size_t take_samples(self, const uint8_t* data, size_t size, int64_t position, bint over) except? 0xFFFFFFFF:
        """Write the whole packets, at the end a shorter one too."""
        cdef size_t at = 0
        cdef size_t count
        if position + <int64_t> size >= self.data_end:
            size = <size_t> max(self.data_end - position, <int64_t> 0)
            over = True
        while size - at >= self.packet_bytes or over:
            count = min(self.packet_bytes, size - at)
            count -= count % self.frame_bytes
            if not count:
                break
            self.write_samples(data + at, count, position + <int64_t> at)
            at += count
        if over:
            self.ended = True
            return size
        return at

    cdef int write_samples(self, const uint8_t* data, size_t size, int64_t position) except -1:
        cdef PacketView view
        cdef int64_t number = (position - self.data_position) // <int64_t> self.frame_bytes
        view.data = data
        if self.sample_bytes > 1:
            self.swapped.clear()
            view.data = self.swapped.reserve(size)
            swap_samples(<uint8_t*> view.data, data, size, self.sample_bytes)
        view.size = size
        view.dts_us = number // self.sample_rate_hz * MILLION + (
            number % self.sample_rate_hz * MILLION + self.sample_rate_hz // 2
        ) // self.sample_rate_hz
        view.offset_us = 0
        view.flags = KEYFRAME
        self.position = position
        return self.emit(0, &view)

    def seek(self, int64_t dts_us, int64_t position):
        """Go on at the packet that holds a time. position: not used, samples are found by their number.

        Raises LocalProtocolError before the tracks are known.
        """
        cdef int64_t number, place
        if not self.data_position:
            raise LocalProtocolError("the samples were not reached yet")
        if self.framed:
            AudioFrameDemuxer.seek(self, dts_us, max(position, self.data_position))
            return
        dts_us = max(dts_us, <int64_t> 0)
        number = dts_us // MILLION * self.sample_rate_hz + (
            dts_us % MILLION * self.sample_rate_hz + MILLION // 2
        ) // MILLION
        number -= number % <int64_t> (self.packet_bytes // self.frame_bytes)
        place = min(number, (self.data_end - self.data_position) // <int64_t> self.frame_bytes)
        self.restart(self.data_position + place * <int64_t> self.frame_bytes)

    cdef int finish(self) except -1:
        if not self.data_position:
            raise TruncatedError("a WAV file that ends in its header", offset=self.base, spec="RIFF WAVE, chapter 3")
        return AudioFrameDemuxer.finish(self) if self.framed else 0


@cython.final
cdef class RiffMuxer(Muxer):
    """Muxes one track into WAV. Its sizes are unknown until `patches()`, as RIFF to 4 GiB and RF64 beyond."""

    cdef object format
    cdef object info
    cdef bytes head
    cdef size_t frame_bytes
    cdef int sample_bytes
    cdef uint64_t data_bytes

    def __init__(self, tracks, format):
        """Take one track. format: has format_of(track), build_header(track) (`mist.formats.riff`). Raises UnsupportedError."""
        if len(tracks) != 1:
            raise UnsupportedError(f"WAV carries one track, not {len(tracks)}")
        self.format = format
        self.info = tracks[0]
        self.head = format.build_header(self.info)
        found = format.format_of(self.info)
        self.frame_bytes = found.frame_bytes
        self.sample_bytes = found.sample_bytes if self.info.codec == "PCM" else 1
        self.data_bytes = 0

    def header(self, start_us=0):
        """Return the header. start_us: not used, WAV has no times."""
        return self.head

    def set_tracks(self, tracks):
        """Go on with changed tracks. False where the header would be another one."""
        if len(tracks) != 1:
            return False
        try:
            head = self.format.build_header(tracks[0])
        except UnsupportedError:
            return False
        return head == self.head

    def state(self):
        """Return how many bytes of samples were written."""
        return struct.pack("<Q", self.data_bytes)

    def restore(self, state):
        """Go on from what state() returned. Raises LocalProtocolError for anything else."""
        if len(state) != 8:
            raise LocalProtocolError(f"{len(state)} bytes are no state of a WAV muxer")
        [self.data_bytes] = struct.unpack("<Q", state)

    cdef int write_view(self, int track, const PacketView* packet) except -1:
        """Append samples; what is left of a frame at the end of a packet is dropped."""
        cdef size_t size = packet.size
        if track:
            raise LocalProtocolError(f"packet of track {track}; there is one")
        if self.frame_bytes:
            size -= size % self.frame_bytes
        if self.sample_bytes > 1:
            swap_samples(self.out.reserve(size), packet.data, size, self.sample_bytes)
            self.out.commit(size)
        else:
            self.out.append(packet.data, size)
        self.data_bytes += size
        return 0

    def finish(self):
        """Fill the samples up to an even size."""
        if self.data_bytes & 1:
            self.out.write(b"\0")

    def patches(self):
        """Return the sizes, as [(position, bytes)] to overwrite in the file whose first byte is the header's."""
        cdef uint64_t head = <uint64_t> len(self.head)
        cdef uint64_t riff_bytes = head - 8 + self.data_bytes + (self.data_bytes & 1)
        fact = self.head.find(b"fact\x04\0\0\0")
        frames = self.data_bytes // self.frame_bytes if self.frame_bytes else 0
        if riff_bytes < NO_SIZE:
            found = [(4, struct.pack("<I", riff_bytes)), (head - 4, struct.pack("<I", self.data_bytes))]
        else:
            sizes = struct.pack("<4sIQQQI", b"ds64", 28, riff_bytes, self.data_bytes, frames, 0)
            found = [(0, b"RF64"), (DS64_POSITION, sizes)]
        if fact >= 0 and self.frame_bytes:
            found.append((fact + 8, struct.pack("<I", min(frames, NO_SIZE))))
        return found
