"""Statistics of an input's packets: what `mist info` tells of each track, and what is wrong with its times."""

cimport cython
from libc.stdint cimport int64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memset

from mist.core.muxer cimport Muxer
from mist.core.packet cimport DISCONTINUITY, KEYFRAME, NEW_INIT, PacketView

MAX_REMARKS = MOST_REMARKS

cdef enum:
    MOST_REMARKS = 20           # kept for each track and kind
    LEAST_GAP_US = 500_000      # a shorter distance of two packets is never called a gap
    GAP_PACKETS = 3             # nor is one of fewer usual distances
    LEARNING_PACKETS = 8        # before the usual distance is known
    WINDOW_US = 1_000_000       # over which the highest bit rate is measured

cdef struct Tally:
    int64_t packets, bytes, largest
    int64_t keys, gops
    int64_t gop_us, gop_packets                             # where the open GOP began, and its packets
    int64_t gop_least_us, gop_most_us, gop_sum_us
    int64_t gop_least_packets, gop_most_packets
    int64_t first_dts_us, last_dts_us, first_pts_us, last_pts_us
    int64_t newest_us                                       # decode time, never going back
    int64_t reordered, backward, repeated, gaps, longest_gap_us
    int64_t window_us, window_bytes, most_window_bytes
    int64_t init_changes, discontinuities
    bint first_is_key


@cython.final
cdef class TrackSurvey(Muxer):
    """A sink that counts. `remarks` lists what is wrong: (kind, track, decode time, microseconds), up to MAX_REMARKS of each."""

    cdef Tally* tallies
    cdef int count
    cdef readonly list remarks
    cdef readonly int64_t newest_us     # decode time of the newest packet of all

    def __cinit__(self, *args, **kwargs):
        self.tallies = NULL

    def __dealloc__(self):
        free(self.tallies)

    def __init__(self):
        self.remarks = []

    cdef Tally* tally(self, int track) except NULL:
        cdef Tally* grown
        if track >= self.count:
            grown = <Tally*> realloc(self.tallies, (track + 1) * sizeof(Tally))
            if grown is NULL:
                raise MemoryError
            self.tallies = grown
            memset(grown + self.count, 0, (track + 1 - self.count) * sizeof(Tally))
            self.count = track + 1
        return &self.tallies[track]

    cdef int write_view(self, int track, const PacketView* packet) except -1:
        cdef Tally* tally = self.tally(track)
        cdef int64_t pts_us = packet.dts_us + packet.offset_us
        cdef bint key = packet.flags & KEYFRAME != 0
        if tally.packets == 0:
            tally.first_is_key = key
            tally.first_dts_us = tally.newest_us = tally.window_us = packet.dts_us
            tally.first_pts_us = tally.last_pts_us = pts_us
        else:
            self.compare(track, tally, packet)
        if pts_us < tally.last_pts_us:
            tally.reordered += 1
        tally.first_pts_us = min(tally.first_pts_us, pts_us)
        tally.last_pts_us = max(tally.last_pts_us, pts_us)
        if key:
            self.end_gop(tally, packet.dts_us)
        tally.gop_packets += 1
        self.weigh(tally, packet)
        tally.packets += 1
        tally.init_changes += packet.flags & NEW_INIT != 0
        tally.discontinuities += packet.flags & DISCONTINUITY != 0
        tally.last_dts_us = packet.dts_us
        tally.newest_us = max(tally.newest_us, packet.dts_us)
        self.newest_us = max(self.newest_us, packet.dts_us)
        return 0

    cdef int compare(self, int track, Tally* tally, const PacketView* packet) except -1:
        """Compare a packet's decode time with the one before it."""
        cdef int64_t step_us = packet.dts_us - tally.last_dts_us
        cdef int64_t usual_us = (tally.newest_us - tally.first_dts_us) // tally.packets
        if step_us < 0:
            tally.backward += 1
            self.remark("backward", tally.backward, track, packet.dts_us, step_us)
        elif step_us == 0:
            tally.repeated += 1
            self.remark("repeated", tally.repeated, track, packet.dts_us, 0)
        elif step_us > LEAST_GAP_US and (tally.packets < LEARNING_PACKETS or step_us > GAP_PACKETS * usual_us):
            tally.gaps += 1
            tally.longest_gap_us = max(tally.longest_gap_us, step_us)
            self.remark("gap", tally.gaps, track, tally.last_dts_us, step_us)
        return 0

    cdef int remark(self, str kind, int64_t number, int track, int64_t dts_us, int64_t amount_us) except -1:
        if number <= MOST_REMARKS:
            self.remarks.append((kind, track, dts_us, amount_us))
        return 0

    cdef void end_gop(self, Tally* tally, int64_t dts_us) noexcept:
        """Count a keyframe, and the GOP that it ends."""
        cdef int64_t length_us = dts_us - tally.gop_us
        if tally.keys:
            tally.gops += 1
            tally.gop_sum_us += length_us
            if tally.gops == 1:
                tally.gop_least_us = length_us
                tally.gop_least_packets = tally.gop_packets
            tally.gop_least_us = min(tally.gop_least_us, length_us)
            tally.gop_most_us = max(tally.gop_most_us, length_us)
            tally.gop_least_packets = min(tally.gop_least_packets, tally.gop_packets)
            tally.gop_most_packets = max(tally.gop_most_packets, tally.gop_packets)
        tally.keys += 1
        tally.gop_us = dts_us
        tally.gop_packets = 0

    cdef void weigh(self, Tally* tally, const PacketView* packet) noexcept:
        """Count a packet's bytes, in all and in its second."""
        cdef int64_t size = <int64_t> packet.size
        if packet.dts_us - tally.window_us >= WINDOW_US:
            tally.window_bytes = 0
            tally.window_us = packet.dts_us
        tally.window_bytes += size
        tally.most_window_bytes = max(tally.most_window_bytes, tally.window_bytes)
        tally.bytes += size
        tally.largest = max(tally.largest, size)

    def figures(self, int track):
        """Return the figures of a track by name; all zero for one that has no packets. Times are microseconds.

        keys, gops: keyframes, and whole GOPs between two of them; the last one is open and does not count.
        """
        return self.tally(track)[0]
