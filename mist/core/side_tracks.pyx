"""Tracks of timed text from files beside a media file, put between the packets of that file.

A text is written just before the first packet of the media that is not earlier, so one that begins after the media's end never is. Wherever
reading begins, the same texts come between the same packets.
"""

cimport cython
from libc.stdint cimport int64_t, uint8_t

from mist.core.demuxer cimport Demuxer
from mist.core.muxer cimport Muxer
from mist.core.packet cimport KEYFRAME, PacketView


@cython.final
cdef class Relay(Muxer):
    """The sink of the media's demuxer."""

    cdef SideTracks owner

    cdef int write_view(self, int track, const PacketView* packet) except -1:
        return self.owner.relay(track, packet)


@cython.final
cdef class SideTracks(Demuxer):
    """A demuxer of media whose tracks are known, with further tracks. Driven as the one of the media.

    infos: of the further tracks; they come behind those that the media has now, and before any that it shows later. texts: (time in
    microseconds, number in infos, payload), sorted.
    """

    cdef readonly Demuxer media
    cdef Relay link
    cdef list infos
    cdef list texts
    cdef int first              # number of the first further track
    cdef Py_ssize_t next        # text to write

    def __init__(self, Demuxer media not None, list infos not None, list texts not None):
        self.media = media
        self.infos = infos
        self.texts = texts
        self.first = <int> len(media.tracks)
        self.link = Relay()
        self.link.owner = self
        self.follow()
        media.on_tracks = self.tracks_changed
        self.become_ready()

    def follow(self):
        """Take over the tracks of the media."""
        self.tracks = self.media.tracks[:self.first] + self.infos + self.media.tracks[self.first:]

    def tracks_changed(self):
        """Pass on that the media has other tracks."""
        self.follow()
        if self.on_tracks is not None:
            self.on_tracks()

    def want(self):
        return self.media.want()

    def feed(self, data):
        self.media.feed(data)

    def seek(self, int64_t dts_us, int64_t position):
        """Go on reading elsewhere, with the texts from that time on."""
        cdef Py_ssize_t low = 0
        cdef Py_ssize_t high = len(self.texts)
        cdef Py_ssize_t middle
        while low < high:
            middle = (low + high) // 2
            if self.texts[middle][0] < dts_us:
                low = middle + 1
            else:
                high = middle
        self.next = low
        self.media.bases = self.bases
        self.media.seek(dts_us, position)

    def attach(self, Muxer sink):
        Demuxer.attach(self, sink)
        self.media.attach(None if sink is None else self.link)

    def index_into(self, Muxer sink not None):
        """Write packets for an index: those of the media without payload if its demuxer can do that."""
        Demuxer.attach(self, sink)
        index_into = getattr(self.media, "index_into", self.media.attach)
        index_into(self.link)

    @property
    def sizes_are_exact(self):
        """Whether the sizes for an index are those of the payload."""
        return getattr(self.media, "sizes_are_exact", True)

    cdef int relay(self, int track, const PacketView* packet) except -1:
        """Write a packet of the media, and before it the texts whose time has come."""
        cdef PacketView view
        cdef bytes payload
        self.position = self.media.position
        self.shift_us = self.media.shift_us
        while self.next < len(self.texts):
            time_us, number, payload = self.texts[self.next]
            if time_us > packet.dts_us:
                break
            self.next += 1
            view.dts_us, view.offset_us, view.flags = time_us, 0, KEYFRAME
            view.data, view.size = <const uint8_t*> <const char*> payload, <size_t> len(payload)
            self.emit(self.first + <int> number, &view)
        if track >= self.first:
            track += <int> len(self.infos)
        return self.emit(track, packet)
