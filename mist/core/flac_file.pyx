"""FLAC files and streams (not in another container) read and written.

Spec: RFC 9639 sections 8 (metadata blocks) and 9 (frames).
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memchr, memcmp

from mist.core.byte_stream cimport ByteStreamDemuxer
from mist.core.flac_frames cimport FlacHeader, flac_crc16, parse_flac_header
from mist.core.muxer cimport Muxer
from mist.core.packet cimport KEYFRAME, PacketView

import struct

from mist.errors import LimitExceededError, LocalProtocolError, RemoteProtocolError, TruncatedError, UnsupportedError

MAX_METADATA_BLOCKS = BLOCKS
MAX_COMMENT_BYTES = COMMENT_BYTES

cdef enum:
    STREAM_INFO_BYTES = 34
    BLOCKS = 1000               # before the first frame
    COMMENT_BYTES = 65536       # a longer one holds a picture and is passed over
    COMMENT_BLOCK = 4
    ID3_HEADER_BYTES = 10
    ID3V1_BYTES = 128           # at the end of some files
    MIN_FRAME_BYTES = 8
    SUBFRAME_SLACK_BYTES = 64   # a frame is at most this much longer than its samples, headers and checksum included

cdef int64_t MILLION = 1000000


@cython.final
cdef class FlacDemuxer(ByteStreamDemuxer):
    """Demuxes a FLAC stream: finds frames by their headers and checks each by both checksums.

    A frame ends where another header follows and its checksum fits. Damage costs the frame it is in; where it hides that a header begins,
    the frame before too. Times come from the numbers in
    the frame headers; `seek` may go to any position behind the metadata.
    """

    cdef object describe
    cdef bytes stream_info
    cdef bytes comments
    cdef int blocks
    cdef bint begun             # "fLaC" was read
    cdef bint in_frames
    cdef int64_t first_frame    # position
    cdef int64_t rate_hz
    cdef uint32_t fixed_block   # samples of each frame but the last, where frames are numbered
    cdef size_t longest         # bytes that a frame can have
    cdef size_t searched        # bytes of the frame being read in which its end was looked for
    cdef uint16_t crc           # over them
    cdef size_t end_at_damage   # where its checksum fits and something like a header begins
    cdef int64_t last_us

    def __init__(self, describe):
        """describe: called with stream information (34 bytes) and the comment block; returns the track (`mist.formats.flac`)."""
        self.describe = describe
        self.last_us = -(<int64_t> 1 << 62)
        self.comments = b""

    cdef size_t parse(self, const uint8_t* data, size_t size, bint over) except? 0xFFFFFFFF:
        cdef size_t at = 0
        cdef size_t used
        while not self.in_frames:
            used = self.take_block(data + at, size - at, self.base + <int64_t> at)
            if not used:
                return at
            at += used
            if at > size:
                return at
        return at + self.take_frames(data + at, size - at, self.base + <int64_t> at, over)

    # -- metadata ----------------------------------------------------------------------------------------------------

    cdef size_t take_block(self, const uint8_t* data, size_t size, int64_t position) except? 0xFFFFFFFF:
        """Take a metadata block and return its size, which may be more than what is there; 0: more bytes are needed.

        Spec: RFC 9639 section 8.1.
        """
        cdef size_t body
        cdef int kind
        if size < ID3_HEADER_BYTES:
            return 0
        if not self.begun:
            if memcmp(data, <const char*> b"ID3", 3) == 0:
                return ID3_HEADER_BYTES + (
                    (<size_t> data[6] & 127) << 21 | (<size_t> data[7] & 127) << 14 | (data[8] & 127) << 7 | data[9] & 127
                )
            if memcmp(data, <const char*> b"fLaC", 4):
                raise RemoteProtocolError("no FLAC file", offset=position, spec="RFC 9639 section 6")
            self.begun = True
            return 4
        kind = data[0] & 0x7F
        body = (<size_t> data[1] << 16) | (<size_t> data[2] << 8) | data[3]
        self.blocks += 1
        if kind == 127 or (self.blocks == 1) != (kind == 0) or (kind == 0 and body != STREAM_INFO_BYTES):
            raise RemoteProtocolError("a broken FLAC metadata block", offset=position, spec="RFC 9639 section 8.1")
        if self.blocks > BLOCKS:
            raise LimitExceededError(f"more than {BLOCKS} FLAC metadata blocks", offset=position)
        if kind == 0 or (kind == COMMENT_BLOCK and body <= COMMENT_BYTES):
            if size < 4 + body:
                self.blocks -= 1
                return 0
            if kind == 0:
                self.stream_info = PyBytes_FromStringAndSize(<const char*> data + 4, STREAM_INFO_BYTES)
            else:
                self.comments = PyBytes_FromStringAndSize(<const char*> data + 4, <Py_ssize_t> body)
        if data[0] & 0x80:
            self.begin_frames(position + 4 + <int64_t> body)
        return 4 + body

    cdef int begin_frames(self, int64_t position) except -1:
        cdef const uint8_t* info = <const uint8_t*> PyBytes_AS_STRING(self.stream_info)
        cdef size_t largest
        track = self.describe(self.stream_info, self.comments)
        self.rate_hz = track.sample_rate_hz
        self.fixed_block = (<uint32_t> info[2] << 8) | info[3]
        largest = (<size_t> info[7] << 16) | (<size_t> info[8] << 8) | info[9]
        self.longest = self.fixed_block * <size_t> track.channels * ((track.sample_bits + 8) // 8) + (
            SUBFRAME_SLACK_BYTES * <size_t> (track.channels + 1)
        )
        self.longest = max(self.longest, largest)
        self.in_frames = True
        self.first_frame = position
        self.set_track(0, track, False)
        self.become_ready()
        return 0

    # -- frames ------------------------------------------------------------------------------------------------------

    cdef size_t take_frames(self, const uint8_t* data, size_t size, int64_t position, bint over) except? 0xFFFFFFFF:
        """Write the frames that are whole. The first byte of the next one is data[0] from then on, or that of what is passed over."""
        cdef size_t at = 0
        cdef size_t length
        cdef int found
        cdef FlacHeader header
        while True:
            found = parse_flac_header(data + at, size - at, &header) if self.searched == 0 else 1
            if found < 0 and not over:
                return at
            if found <= 0:
                if at >= size:
                    return size
                at = next_sync(data, at + 1, size)
                continue
            length = self.frame_bytes(data + at, size - at, over)
            if length:
                parse_flac_header(data + at, length, &header)
                self.searched = 0
                self.write_frame(data + at, length, &header, position + <int64_t> at)
                at += length
            elif self.searched:
                return at           # more bytes are needed
            else:
                at = next_sync(data, at + 1, size)

    cdef size_t frame_bytes(self, const uint8_t* data, size_t size, bint over) except? 0xFFFFFFFF:
        """Return the size of the frame that begins here; 0 if more bytes are needed (`searched` is set then) or it is damaged.

        It ends where its checksum fits and another header begins; failing that where a damaged header does.
        """
        cdef FlacHeader header
        cdef size_t following
        cdef size_t at = self.searched
        cdef int found
        if at == 0:
            self.crc = 0
            self.end_at_damage = 0
        while True:
            if at > self.longest:
                self.searched = 0
                return self.end_at_damage
            if self.crc == 0 and at >= MIN_FRAME_BYTES:
                found = parse_flac_header(data + at, size - at, &header)
                if found > 0:
                    return at
                if found < 0 and not over:
                    self.searched = at
                    return 0
                if at + 1 < size and not self.end_at_damage and data[at] == 0xFF and data[at + 1] & 0xFE == 0xF8:
                    self.end_at_damage = at
            if at >= size:
                break
            following = next_sync(data, at + 1, size)
            self.crc = flac_crc16(data + at, following - at, self.crc)
            at = following
        self.searched = 0 if over else at
        return self.last_frame_bytes(data, size) or self.end_at_damage if over else 0

    cdef size_t last_frame_bytes(self, const uint8_t* data, size_t size) noexcept:
        """Return the size of the frame that the input ends with, which an ID3v1 tag may follow; 0 if it is damaged."""
        if size > MIN_FRAME_BYTES and flac_crc16(data, size, 0) == 0:
            return size
        if size > ID3V1_BYTES + MIN_FRAME_BYTES and memcmp(data + size - ID3V1_BYTES, <const char*> b"TAG", 3) == 0:
            if flac_crc16(data, size - ID3V1_BYTES, 0) == 0:
                return size - ID3V1_BYTES
        return 0

    cdef int write_frame(self, const uint8_t* data, size_t size, const FlacHeader* header, int64_t position) except -1:
        cdef PacketView view
        cdef int64_t number = header.number if header.variable_block else header.number * self.fixed_block
        view.dts_us = number // self.rate_hz * MILLION + (number % self.rate_hz * MILLION + self.rate_hz // 2) // self.rate_hz
        view.dts_us = max(view.dts_us, self.last_us + 1)
        view.offset_us = 0
        view.flags = KEYFRAME
        view.data = data
        view.size = size
        self.last_us = view.dts_us
        self.position = position
        return self.emit(0, &view)

    def seek(self, int64_t dts_us, int64_t position):
        """Go on at the first frame behind a position. Raises LocalProtocolError before the tracks are known."""
        if not self.in_frames:
            raise LocalProtocolError("the frames were not reached yet")
        self.searched = 0
        self.last_us = -(<int64_t> 1 << 62)
        self.restart(max(position, self.first_frame))

    cdef int finish(self) except -1:
        if not self.in_frames:
            raise TruncatedError("a FLAC file that ends in its metadata", offset=self.base, spec="RFC 9639 section 8")
        return 0


cdef size_t next_sync(const uint8_t* data, size_t at, size_t size) noexcept nogil:
    """Return where the next sync code may begin, size if nowhere."""
    cdef const uint8_t* found
    while at < size:
        found = <const uint8_t*> memchr(data + at, 0xFF, size - at)
        if found is NULL:
            return size
        at = <size_t> (found - data)
        if at + 1 >= size or data[at + 1] & 0xFE == 0xF8:
            return at
        at += 1
    return size


@cython.final
cdef class FlacMuxer(Muxer):
    """Muxes one FLAC track into a FLAC stream.

    The stream information says nothing of size and length, for they are not known; `patches()` puts them in, and the checksum of all
    samples where those are all there.   Spec: RFC 9639 sections 6, 8.
    """

    cdef object info
    cdef uint64_t samples
    cdef int64_t first_number   # of the first frame, -1: none was written
    cdef uint32_t least_bytes
    cdef uint32_t most_bytes

    def __init__(self, tracks):
        """Take one track with stream information. Raises UnsupportedError."""
        if len(tracks) != 1 or tracks[0].codec != "FLAC":
            raise UnsupportedError("a FLAC stream carries one FLAC track")
        if len(tracks[0].init_data) != STREAM_INFO_BYTES:
            raise UnsupportedError("a FLAC track without stream information cannot be written")
        self.info = tracks[0]
        self.first_number = -1

    def header(self, start_us=0):
        """Return the signature and the stream information. start_us: not used, frames have numbers."""
        info = self.info.init_data
        return b"fLaC\x80\0\0\x22" + info[:4] + bytes(6) + info[10:13] + bytes((info[13] & 0xF0,)) + bytes(20)

    def set_tracks(self, tracks):
        """Go on with changed tracks. False where the stream information differs in more than lengths and checksum."""
        if len(tracks) != 1 or tracks[0].codec != "FLAC" or len(tracks[0].init_data) != STREAM_INFO_BYTES:
            return False
        old, new = self.info.init_data, tracks[0].init_data
        if old[:4] + old[10:13] != new[:4] + new[10:13] or (old[13] ^ new[13]) & 0xF0:
            return False
        self.info = tracks[0]
        return True

    def state(self):
        """Return the lengths so far."""
        return struct.pack("<QqII", self.samples, self.first_number, self.least_bytes, self.most_bytes)

    def restore(self, state):
        """Go on from what state() returned. Raises LocalProtocolError for anything else."""
        if len(state) != 24:
            raise LocalProtocolError(f"{len(state)} bytes are no state of a FLAC muxer")
        self.samples, self.first_number, self.least_bytes, self.most_bytes = struct.unpack("<QqII", state)

    cdef int write_view(self, int track, const PacketView* packet) except -1:
        """Append a frame. What is none is left out."""
        cdef FlacHeader header
        cdef uint32_t size = <uint32_t> min(packet.size, <size_t> 0xFFFFFF)
        if track:
            raise LocalProtocolError(f"packet of track {track}; there is one")
        if parse_flac_header(packet.data, packet.size, &header) <= 0:
            return 0
        if self.first_number < 0:
            self.first_number = header.number
            self.least_bytes = size
        self.samples += header.block_samples
        self.least_bytes, self.most_bytes = min(self.least_bytes, size), max(self.most_bytes, size)
        return self.out.append(packet.data, packet.size)

    def finish(self):
        """Write nothing: a FLAC stream has no end."""

    def patches(self):
        """Return the stream information with all lengths, as [(position, bytes)] to overwrite."""
        info = self.info.init_data
        if self.first_number < 0:
            return []
        total = self.samples if self.samples < <uint64_t> 1 << 36 else 0
        known = (info[13] & 15) << 32 | int.from_bytes(info[14:18], "big")
        checksum = info[18:] if self.first_number == 0 and total == known else bytes(16)
        sizes = self.least_bytes.to_bytes(3, "big") + self.most_bytes.to_bytes(3, "big")
        counts = bytes((info[13] & 0xF0 | total >> 32,)) + (total & 0xFFFFFFFF).to_bytes(4, "big")
        return [(8, info[:4] + sizes + info[10:13] + counts + checksum)]
