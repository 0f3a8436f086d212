"""The timed piece of media that everything passes on."""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint8_t


@cython.final
@cython.freelist(256)
cdef class Packet:
    """One timed piece of one track: a decodable unit of demuxed media.

    track: number of the track, in whatever list the holder keeps (a demuxer's or a stream's).
    dts_us: decode time in microseconds, signed. offset_us: presentation time minus decode time.
    keyframe: random access point (always True for audio).
    payload: the coded bytes in the project's own form: NAL units with 4-byte lengths, AAC without ADTS,
        AV1 temporal units as OBUs without temporal delimiters, everything else as one frame.
    """

    def __init__(self, int track, int64_t dts_us, int64_t offset_us, bint keyframe, bytes payload not None):
        self.track = track
        self.dts_us = dts_us
        self.offset_us = offset_us
        self.keyframe = keyframe
        self.payload = payload

    @property
    def pts_us(self):
        """Presentation time in microseconds."""
        return self.dts_us + self.offset_us

    cdef void view(self, PacketView* out) noexcept:
        out.dts_us = self.dts_us
        out.offset_us = self.offset_us
        out.flags = KEYFRAME if self.keyframe else 0
        out.data = <const uint8_t*> PyBytes_AS_STRING(self.payload)
        out.size = <size_t> PyBytes_GET_SIZE(self.payload)

    def __repr__(self):
        return (
            f"Packet(track={self.track}, dts_us={self.dts_us}, offset_us={self.offset_us}, "
            f"keyframe={bool(self.keyframe)}, {len(self.payload)} bytes)"
        )

    def __eq__(self, other):
        if not isinstance(other, Packet):
            return NotImplemented
        cdef Packet peer = <Packet> other
        return (
            self.track == peer.track
            and self.dts_us == peer.dts_us
            and self.offset_us == peer.offset_us
            and self.keyframe == peer.keyframe
            and self.payload == peer.payload
        )

    __hash__ = None
