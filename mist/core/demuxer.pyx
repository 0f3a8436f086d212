"""What every demuxer of a file or byte stream is: the face that inputs, pipes and the indexer read from."""

cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport int64_t, uint8_t

from mist.core.muxer cimport Muxer
from mist.core.packet cimport KEYFRAME, Packet, PacketView

from mist.errors import LimitExceededError

READ_BYTES = 1 << 18                # what a demuxer of a byte stream asks for at a time
MAX_HELD_BYTES = 64 << 20           # packets kept until the tracks are known
MAX_DAMAGE = MOST_DAMAGE

cdef enum:
    MOST_DAMAGE = 100               # places that are kept


cdef class Demuxer:
    """Bytes of one format in, packets into a muxer.

    The driver loops: `want()` says which bytes come next, `feed()` takes them (fewer is fine, none means the input is over),
    and packets go straight into the attached sink, which is any `Muxer`. A demuxer of a byte stream wants positions that only
    rise, so it can read from a pipe; one of a file that must be looked up (MP4 with its index at the end) jumps.

    `ready` becomes True when every announced track is known with what a muxer must know of it (init data, size), or waiting
    longer makes no sense. Until then, and while no sink is attached, packets are held back; so a driver feeds until `ready`,
    makes its muxer for `tracks` and calls `attach`.

    `anchors` says where times that are counted were counted from, for demuxers that count them: three numbers for each such place of a
    stream, which are the byte, the time in microseconds and the rate. One that reads all of an input writes it down. Another one of the
    same input that is given this before it seeks has the same times behind the seek, to the microsecond.

    `from_places`, set before anything is fed: the input will be read from its keyframes, too, so times that the format does not say must
    not depend on what was before a keyframe, but for the decode time of the keyframe itself, which `seek` is told.

    `damage` says what of the input cannot be read, the first MAX_DAMAGE places of `damage_count`: the byte where it begins, how many
    bytes are lost there (0 where some are missing, or that is not known), and in words what is wrong. Behind a seek it may say too much.

    Subclasses implement `want`, `feed` and `seek`, and call `set_track`, `become_ready` and `emit`. A demuxer that raised
    RemoteProtocolError is dead.
    """

    def __cinit__(self, *args, **kwargs):
        self.tracks = []
        self.left_out = []
        self.damage = []
        self.on_tracks = None
        self.held = []
        self.bases = ()
        self.anchors = {}

    def want(self):
        """Return (position, count) of the bytes to feed next, or None at the end.

        position: byte in the input. count: at most this many; one more `feed` of fewer bytes is always fine.
        """
        raise NotImplementedError

    def feed(self, data):
        """Take the bytes at the position that `want()` named. Empty: the input ends there.

        Raises RemoteProtocolError. Damage after which the format can be read on (a lost TS packet) is skipped instead.
        """
        raise NotImplementedError

    def seek(self, int64_t dts_us, int64_t position):
        """Go on reading elsewhere, in an input whose tracks are known; packets before that place may be written again.

        dts_us: decode time wanted, microseconds. position: what `position` was for a keyframe at or before it. A format with an
        index of its own uses the time, a byte stream the position.
        """
        raise NotImplementedError

    def foresee(self, list infos not None):
        """Take over tracks that are known from elsewhere, as of an index, behind those that the input announces at its beginning."""

    def attach(self, Muxer sink):
        """Write packets into this muxer from now on, those held back first. None: hold back."""
        self.sink = sink
        if sink is None:
            return
        held, self.held = self.held, []
        self.held_bytes = 0
        for packet, position in held:
            self.position = position
            sink.write(packet)

    cdef int emit(self, int track, const PacketView* packet) except -1:
        """Write a packet, whose input position is in `self.position`."""
        if self.sink is not None and self.ready:
            return self.sink.write_view(track, packet)
        self.held_bytes += packet.size
        if self.held_bytes > MAX_HELD_BYTES:
            raise LimitExceededError(f"more than {MAX_HELD_BYTES} bytes of packets before the tracks were known")
        payload = PyBytes_FromStringAndSize(<const char*> packet.data, <Py_ssize_t> packet.size)
        self.held.append((Packet(track, packet.dts_us, packet.offset_us, packet.flags & KEYFRAME != 0, payload), self.position))
        return 0

    def put_packet(self, Packet packet not None, int64_t position):
        """Write a packet, for demuxers that are written in Python. position: byte in the input where reading resumes for it."""
        cdef PacketView view
        cdef const uint8_t[::1] payload = packet.payload
        view.dts_us = packet.dts_us
        view.offset_us = packet.offset_us
        view.flags = KEYFRAME if packet.keyframe else 0
        view.size = <size_t> payload.shape[0]
        view.data = &payload[0] if payload.shape[0] else NULL
        self.position = position
        self.emit(packet.track, &view)

    def put_ready(self, list tracks not None):
        """Make all tracks known, for demuxers that are written in Python."""
        self.tracks = tracks
        self.become_ready()

    def put_end(self):
        """Say that nothing more is wanted, for demuxers that are written in Python."""
        self.ended = True

    cdef int set_track(self, int track, object info, bint changed) except -1:
        """Make known what a track is. changed: a known track differs from here on."""
        if track == len(self.tracks):
            self.tracks.append(info)
        else:
            self.tracks[track] = info
        if self.ready and self.on_tracks is not None:
            self.on_tracks()
        return 0

    cdef int become_ready(self) except -1:
        """Say that the tracks are known, and let go of what was held back if somebody listens."""
        self.ready = True
        if self.sink is not None:
            self.attach(self.sink)
        return 0

    cdef int note_damage(self, int64_t position, int64_t size, str what) except -1:
        """Write down what cannot be read."""
        self.damage_count += 1
        if len(self.damage) < MOST_DAMAGE:
            self.damage.append((position, size, what))
        return 0


@cython.final
cdef class PacketList(Muxer):
    """A sink that keeps packets as Python objects."""

    def __cinit__(self):
        self.packets = []

    cdef int write_view(self, int track, const PacketView* packet) except -1:
        payload = PyBytes_FromStringAndSize(<const char*> packet.data, <Py_ssize_t> packet.size)
        self.packets.append(Packet(track, packet.dts_us, packet.offset_us, packet.flags & KEYFRAME != 0, payload))
        return 0

    def take(self):
        """Return the packets written since the last call, in their order."""
        packets, self.packets = self.packets, []
        return packets


def demux(Demuxer demuxer, data):
    """Return all packets of a whole input in memory, for tests and small files."""
    packets = PacketList()
    demuxer.attach(packets)
    view = memoryview(data)
    while (wanted := demuxer.want()) is not None:
        position, count = wanted
        demuxer.feed(view[position:position + count])
    return packets.take()
