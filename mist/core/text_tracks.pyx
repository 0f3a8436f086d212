"""Timed text on the faces of demuxers and muxers. What a format looks like is Python: a cue is rare, and its text a string."""

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport int64_t, uint8_t

from mist.core.byte_stream cimport ByteStreamDemuxer
from mist.core.muxer cimport Muxer
from mist.core.packet cimport KEYFRAME, PacketView

from mist.errors import LimitExceededError, LocalProtocolError

MAX_TEXT_BYTES = TEXT_LIMIT

cdef enum:
    TEXT_LIMIT = 16 << 20       # a day of subtitles has under a tenth of this


cdef class TextDemuxer(ByteStreamDemuxer):
    """Reads a whole file of timed text, then writes its packets. Subclasses implement `describe` and `packets`."""

    cdef int64_t wanted_us      # decode time that was sought

    def __cinit__(self, *args, **kwargs):
        self.wanted_us = -(<int64_t> 1 << 62)

    def describe(self):
        """Return the TrackInfo of the one track."""
        raise NotImplementedError

    def packets(self, data):
        """Return (time in microseconds, payload) of each packet in the order of times. Raises RemoteProtocolError."""
        raise NotImplementedError

    def seek(self, int64_t dts_us, int64_t position):
        """Read the file again, and write what is on screen at a time and what follows. position: any."""
        self.restart(0)
        self.wanted_us = dts_us

    cdef size_t parse(self, const uint8_t* data, size_t size, bint over) except? 0xFFFFFFFF:
        if size > TEXT_LIMIT:
            raise LimitExceededError(f"timed text of over {TEXT_LIMIT} bytes", offset=TEXT_LIMIT)
        if over:
            self.write_packets(PyBytes_FromStringAndSize(<const char*> data, <Py_ssize_t> size) if size else b"")
            return size
        return 0

    cdef int write_packets(self, bytes data) except -1:
        cdef PacketView view
        cdef Py_ssize_t place
        cdef bytes payload
        found = self.packets(data)
        if not self.tracks:
            self.set_track(0, self.describe(), False)
            self.become_ready()
        self.position = 0
        for place in range(len(found)):
            if place + 1 < len(found) and found[place + 1][0] <= self.wanted_us:
                continue
            time_us, payload = found[place]
            view.dts_us = time_us
            view.offset_us = 0
            view.flags = KEYFRAME
            view.data = <const uint8_t*> <const char*> payload
            view.size = <size_t> len(payload)
            self.emit(0, &view)
        return 0


cdef class TextMuxer(Muxer):
    """Writes packets of timed text. Subclasses implement `serialize`, which returns what a packet adds to the output."""

    cdef readonly int count

    def __init__(self, tracks):
        self.count = len(tracks)

    def serialize(self, track, time_us, payload):
        """Return bytes to be written now. payload: bytes. time_us: when it appears, microseconds."""
        raise NotImplementedError

    cdef int write_view(self, int track, const PacketView* packet) except -1:
        if track < 0 or track >= self.count:
            raise LocalProtocolError(f"the muxer has no track {track}")
        payload = PyBytes_FromStringAndSize(<const char*> packet.data, <Py_ssize_t> packet.size)
        self.out.write(self.serialize(track, packet.dts_us + packet.offset_us, payload))
        return 0
