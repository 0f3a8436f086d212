"""IVF: the plain file of VP8, VP9 and AV1 frames that libvpx and libaom write.   Spec: as documented with libvpx's ivfenc.c."""

cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from mist.core.byte_stream cimport ByteStreamDemuxer
from mist.core.muxer cimport Muxer
from mist.core.packet cimport KEYFRAME, NEW_INIT, PacketView

import struct

from mist.errors import LimitExceededError, LocalProtocolError, RemoteProtocolError, TruncatedError, UnsupportedError

MAX_FRAME_BYTES = FRAME_LIMIT
FOURCCS = {"VP8": b"VP80", "VP9": b"VP90", "AV1": b"AV01"}
CODECS = {fourcc: codec for codec, fourcc in FOURCCS.items()}

cdef enum:
    FRAME_LIMIT = 32 << 20
    FILE_HEADER_BYTES = 32
    FRAME_HEADER_BYTES = 12
    CLOCK_HZ = 1000000          # of what is written

cdef uint64_t MAX_CLOCK = 10000000000000        # rate times scale: sums stay within 64 bits
cdef int64_t LAST_STAMP = <int64_t> 1 << 52     # more is no time, but damage


cdef inline uint32_t le32(const uint8_t* data) noexcept:
    return data[0] | <uint32_t> data[1] << 8 | <uint32_t> data[2] << 16 | <uint32_t> data[3] << 24


cdef class IvfStreamDemuxer(ByteStreamDemuxer):
    """Reads an IVF file. Subclasses implement `describe`."""

    cdef uint64_t rate
    cdef uint64_t scale
    cdef object info

    def describe(self, codec, width, height, frame, info):
        """Return (TrackInfo, whether the frame is a keyframe, the packet's payload).

        info: the track as it is; None before the first frame. Raises RemoteProtocolError.
        """
        raise NotImplementedError

    def seek(self, int64_t dts_us, int64_t position):
        """Go on with the frame at a position; frames say their times."""
        self.restart(position)

    cdef int finish(self) except -1:
        if not self.tracks:
            raise TruncatedError("the input holds no IVF frame", offset=self.next_read)
        return 0

    cdef size_t parse(self, const uint8_t* data, size_t size, bint over) except? 0xFFFFFFFF:
        cdef size_t at = 0
        cdef size_t length
        if not self.rate:
            if size < FILE_HEADER_BYTES:
                return 0
            at = self.read_header(data)
        while at + FRAME_HEADER_BYTES <= size:
            length = le32(data + at)
            if length > FRAME_LIMIT:
                raise LimitExceededError(f"a frame of {length} bytes", offset=self.base + <int64_t> at)
            if size - at - FRAME_HEADER_BYTES < length:
                break
            self.position = self.base + <int64_t> at
            if length:
                self.write_frame(data + at, length)
            at += FRAME_HEADER_BYTES + length
        return at

    cdef size_t read_header(self, const uint8_t* data) except 0:
        head = PyBytes_FromStringAndSize(<const char*> data, FILE_HEADER_BYTES)
        size = head[6] | head[7] << 8
        if head[:4] != b"DKIF" or size < FILE_HEADER_BYTES or head[8:12] not in CODECS:
            raise RemoteProtocolError("no IVF header of VP8, VP9 or AV1", offset=0)
        self.rate, self.scale = le32(data + 16), le32(data + 20)
        if not self.rate or not self.scale:
            self.rate, self.scale = 30, 1
        if self.rate * self.scale > MAX_CLOCK:
            raise LimitExceededError(f"a clock of {self.rate} / {self.scale} Hz", offset=16)
        self.info = (CODECS[head[8:12]], head[12] | head[13] << 8, head[14] | head[15] << 8)
        return size

    cdef int write_frame(self, const uint8_t* data, size_t size) except -1:
        cdef PacketView packet
        cdef uint64_t stamp = le32(data + 4) | <uint64_t> le32(data + 8) << 32
        cdef bint known = len(self.tracks) > 0
        if stamp > <uint64_t> LAST_STAMP // 1000000 // self.scale * self.rate + self.rate:
            raise LimitExceededError(f"a time stamp of {stamp}", offset=self.position + 4)
        frame = PyBytes_FromStringAndSize(<const char*> data + FRAME_HEADER_BYTES, <Py_ssize_t> size)
        info, key, payload = self.describe(*self.info, frame, self.tracks[0] if known else None)
        packet.dts_us = (stamp // self.rate) * self.scale * 1000000 + (
            (stamp % self.rate) * self.scale * 1000000 + self.rate // 2
        ) // self.rate
        packet.offset_us = 0
        packet.flags = KEYFRAME if key else 0
        packet.data = <const uint8_t*> <const char*> payload
        packet.size = <size_t> len(payload)
        if not known or info != self.tracks[0]:
            if known:
                packet.flags |= NEW_INIT
            self.set_track(0, info, known)
            if not known:
                self.become_ready()
        return self.emit(0, &packet) if packet.size else 0


@cython.final
cdef class IvfMuxer(Muxer):
    """Writes IVF with time stamps in microseconds. Raises UnsupportedError for anything but one track of VP8, VP9 or AV1."""

    cdef object info
    cdef bint av1
    cdef uint32_t frames

    def __init__(self, tracks):
        self.load(tracks)

    cdef int load(self, object tracks) except -1:
        if len(tracks) != 1 or tracks[0].codec not in FOURCCS:
            told = ", ".join(info.codec for info in tracks) or "nothing"
            raise UnsupportedError(f"IVF holds one track of {', '.join(FOURCCS)}, not {told}")
        self.info = tracks[0]
        self.av1 = self.info.codec == "AV1"
        return 0

    def set_tracks(self, tracks):
        """Go on with a changed track of the same codec; returns False for another codec."""
        if len(tracks) != 1 or tracks[0].codec != self.info.codec:
            return False
        self.load(tracks)
        return True

    def header(self, start_us=0):
        """Return the file header, with 0 for the number of frames."""
        return struct.pack(
            "<4sHH4sHHIIII", b"DKIF", 0, FILE_HEADER_BYTES, FOURCCS[self.info.codec], self.info.width & 0xFFFF,
            self.info.height & 0xFFFF, CLOCK_HZ, 1, 0, 0,
        )

    def finish(self):
        """Nothing is missing but the number of frames: see `patches`."""

    def patches(self):
        """Return [(position, bytes)] to be written over the file."""
        return [(24, struct.pack("<I", self.frames))]

    def state(self):
        """Return the number of frames."""
        return struct.pack("<I", self.frames)

    def restore(self, state):
        """Go on from a state."""
        self.frames = struct.unpack("<I", state)[0]

    cdef int write_view(self, int track, const PacketView* packet) except -1:
        cdef int64_t stamp = packet.dts_us + packet.offset_us
        cdef size_t size = packet.size + (2 if self.av1 else 0)
        cdef uint8_t* place
        cdef int number
        if track != 0:
            raise LocalProtocolError(f"the muxer has no track {track}")
        place = self.out.reserve(FRAME_HEADER_BYTES + 2)
        for number in range(4):
            place[number] = <uint8_t> (size >> 8 * number)
        for number in range(8):
            place[4 + number] = <uint8_t> (stamp >> 8 * number)
        place[12], place[13] = 0x12, 0      # a temporal delimiter, which begins every temporal unit of AV1
        self.out.commit(FRAME_HEADER_BYTES + (2 if self.av1 else 0))
        self.frames += 1
        return self.out.append(packet.data, packet.size)
