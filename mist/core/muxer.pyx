"""What every muxer is: the face that the fan-out, the recorders and the pipes write to."""

from mist.core.buffer cimport ByteBuffer
from mist.core.packet cimport Packet, PacketView


cdef class Muxer:
    """Packets in, bytes of one format out.

    A muxer is made for a list of tracks (`mist.formats.tracks.TrackInfo`); packets name a track by its place in that
    list. Output is a function of the tracks, the packets and `state()` alone, so that another process can make the
    same bytes again.

    Subclasses implement `header`, `write_view` and where they have state `state`, `restore` and `set_tracks`.
    """

    def __cinit__(self, *args, **kwargs):
        self.out = ByteBuffer()

    cdef int write_view(self, int track, const PacketView* packet) except -1:
        raise NotImplementedError

    cdef int begin_here(self) except -1:
        """Let a receiver begin with the next packet, though that is not a keyframe of a picture."""
        return 0

    def write(self, Packet packet not None):
        """Append one packet to the output.

        packet: its track is a place in the muxer's track list.
        """
        cdef PacketView view
        packet.view(&view)
        self.write_view(packet.track, &view)

    def take_output(self):
        """Return all bytes queued since the last call, and forget them."""
        return self.out.take()

    def header(self, start_us=0):
        """Return the bytes a receiver needs before its first packet.

        start_us: decode time of the first packet it will get, microseconds.
        """
        return b""

    def set_tracks(self, tracks):
        """Go on with changed tracks: new ones at the end, or new init data. May queue output.

        Returns False if the format cannot do this inside one output.
        """
        return False

    def state(self):
        """Return what the next byte depends on, at most 128 bytes."""
        return b""

    def restore(self, state):
        """Go on from what `state()` returned, here or in another process."""

    # -- files that another process goes on writing --------------------------------------------------------------------

    def file_state(self):
        """Return what the rest of a file depends on, but for `index`; of any size."""
        return self.state()

    def index(self):
        """Return what is kept for the end of the file alone, which grows with it."""
        return b""

    @property
    def index_number(self):
        """A number that changes whenever what `index` returns does."""
        return 0

    def restore_file(self, state, index):
        """Go on with a file from what `file_state` and `index` returned, in a muxer with the same tracks."""
        self.restore(state)
