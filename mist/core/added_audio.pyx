"""Audio that a stream does not have, added between its packets: frames of equal length, again and again."""

from struct import error as struct_error
from struct import pack, unpack

cimport cython
from libc.stdint cimport int64_t, uint8_t

from mist.core.muxer cimport Muxer
from mist.core.packet cimport KEYFRAME, PacketView

from mist.errors import LocalProtocolError

MAX_FRAME_BYTES = 8191  # of an ADTS frame

cdef int64_t JUMP_US = 10_000_000   # a stream that goes on so much later has jumped: the audio jumps with it


@cython.final
cdef class AddedAudio(Muxer):
    """A muxer for a stream's tracks and, as the last one, a track of which this makes the packets.

    The audio begins with the stream's first packet. Before each packet of the stream that is written come the frames whose time is not
    after it.
    """

    cdef Muxer sink
    cdef object info
    cdef list frames
    cdef int64_t samples, rate_hz       # of a frame; in a second
    cdef int64_t origin_us, count       # time of frame 0, and number of the next one
    cdef bint begun
    cdef int place

    def __init__(self, Muxer sink not None, int place, info, frames, int samples=1024):
        """Take a muxer that was made for `place` tracks of the stream and this one.

        info: of the track. frames: payloads, which are repeated. samples: of each.
        """
        self.sink = sink
        self.out = sink.out
        self.place = place
        self.info = info
        self.frames = list(frames)
        self.samples, self.rate_hz = samples, info.sample_rate_hz
        if not self.frames or self.rate_hz <= 0 or samples <= 0:
            raise LocalProtocolError("added audio needs frames and a sample rate")

    cdef int write_view(self, int track, const PacketView* packet) except -1:
        cdef PacketView view
        cdef bytes frame
        cdef int64_t due_us
        if not self.begun:
            self.begun = True
            self.origin_us = packet.dts_us
        due_us = self.origin_us + self.count * self.samples * 1000000 // self.rate_hz
        if packet.dts_us - due_us > JUMP_US or due_us - packet.dts_us > JUMP_US:
            self.origin_us, self.count, due_us = packet.dts_us, 0, packet.dts_us
        while due_us <= packet.dts_us:
            frame = <bytes> self.frames[self.count % len(self.frames)]
            view.dts_us, view.offset_us, view.flags = due_us, 0, KEYFRAME
            view.data, view.size = <const uint8_t*> <const char*> frame, <size_t> len(frame)
            self.sink.write_view(self.place, &view)
            self.count += 1
            due_us = self.origin_us + self.count * self.samples * 1000000 // self.rate_hz
        return self.sink.write_view(track, packet)

    def header(self, start_us=0):
        return self.sink.header(start_us)

    def set_tracks(self, tracks):
        """Go on with changed tracks of the stream; a number of them that has changed needs another muxer."""
        return len(tracks) == self.place and self.sink.set_tracks([*tracks, self.info])

    def state(self):
        return pack("<?qq", self.begun, self.origin_us, self.count) + self.sink.state()

    def restore(self, state):
        try:
            self.begun, self.origin_us, self.count = unpack("<?qq", state[:17])
        except struct_error:
            raise LocalProtocolError("the state of added audio is damaged") from None
        self.sink.restore(state[17:])
