"""Statistics of an input's packets: what `mist info` tells of each track, and what is wrong with its times and payloads.

Specs: ITU-T H.264 clause 7.4.1, H.265 clause 7.4.2 (NAL units), ISO/IEC 11172-3 clause 2.4.1.3, ETSI TS 102 366 clause 4.4.1 (sync words).
"""

cimport cython
from libc.stdint cimport int64_t, uint8_t
from libc.stdlib cimport free, realloc
from libc.string cimport memset

from mist.core.demuxer cimport Demuxer
from mist.core.muxer cimport Muxer
from mist.core.nal cimport NalUnit, next_length_prefixed
from mist.core.packet cimport DISCONTINUITY, KEYFRAME, NEW_INIT, PacketView

MAX_REMARKS = MOST_REMARKS
MAX_DAMAGE = MOST_DAMAGE

cdef enum:
    MOST_REMARKS = 20           # kept for each track and kind
    LEAST_GAP_US = 500_000      # a shorter distance of two packets is never called a gap
    GAP_PACKETS = 3             # nor is one of fewer usual distances
    LEARNING_PACKETS = 8        # before the usual distance is known
    WINDOW_US = 1_000_000       # over which the highest bit rate is measured
    MOST_DAMAGE = 100           # packets that are kept
    LEAST_ZEROS = 16            # bytes of a coded packet that is all zeros; shorter ones may be

    # What a payload is looked at for.
    UNSEEN = 0
    NOTHING = 1
    ANY_CODE = 2
    H264_UNITS = 3
    HEVC_UNITS = 4
    MPEG_SYNC = 5
    AC3_SYNC = 6

LOOKS = {
    "H264": H264_UNITS, "HEVC": HEVC_UNITS, "MP3": MPEG_SYNC, "MP2": MPEG_SYNC, "AC3": AC3_SYNC, "EAC-3": AC3_SYNC,
    **dict.fromkeys(("AAC", "opus", "vorbis", "FLAC", "DTS", "VP8", "VP9", "AV1", "MPEG2", "theora"), ANY_CODE),
}

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
    int look


@cython.final
cdef class TrackSurvey(Muxer):
    """A sink that counts. `remarks` lists what is wrong: (kind, track, decode time, microseconds), up to MAX_REMARKS of each.

    demuxer: what writes into it; without one payloads are not looked at. `damage` lists packets whose payload cannot be what it should,
    as `Demuxer.damage` does, the first MAX_DAMAGE of `damage_count`. Most of what is wrong inside coded media only a decoder can see.
    """

    cdef Tally* tallies
    cdef int count
    cdef readonly list remarks
    cdef readonly int64_t newest_us     # decode time of the newest packet of all
    cdef readonly list damage
    cdef readonly int64_t damage_count
    cdef Demuxer demuxer

    def __cinit__(self, *args, **kwargs):
        self.tallies = NULL

    def __dealloc__(self):
        free(self.tallies)

    def __init__(self, Demuxer demuxer=None):
        self.remarks = []
        self.damage = []
        self.demuxer = demuxer

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
        if self.demuxer is not None:
            self.look_at(track, tally, packet)
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

    cdef int look_at(self, int track, Tally* tally, const PacketView* packet) except -1:
        """Look for damage in a packet's payload."""
        cdef const char* fault
        if tally.look == UNSEEN:
            tally.look = LOOKS.get(self.demuxer.tracks[track].codec, NOTHING)
        fault = fault_of(tally.look, packet.data, packet.size)
        if fault is not NULL:
            self.damage_count += 1
            if len(self.damage) < MOST_DAMAGE:
                what = f"track {track}, the packet at {packet.dts_us / 1e6:.3f} s: {fault.decode('ascii')}"
                self.damage.append((self.demuxer.position, <int64_t> packet.size, what))
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


cdef const char* fault_of(int look, const uint8_t* data, size_t size) noexcept:
    """Return what cannot be in a payload, NULL for nothing."""
    if look == NOTHING or not size:
        return NULL
    if look == H264_UNITS or look == HEVC_UNITS:
        return fault_of_units(data, size, look == HEVC_UNITS)
    if look == MPEG_SYNC and not (size >= 2 and data[0] == 0xFF and data[1] & 0xE0 == 0xE0):
        return "no frame of MPEG audio"
    if look == AC3_SYNC and not (size >= 2 and data[0] == 0x0B and data[1] == 0x77):
        return "no frame of AC-3"
    if size >= LEAST_ZEROS and is_zero(data, size):
        return "nothing but zeros"
    return NULL


cdef const char* fault_of_units(const uint8_t* data, size_t size, bint hevc) noexcept:
    """Return what cannot be in a coded picture: three zeros in a row are escaped, but for those that fill it up at its end."""
    cdef size_t offset = 0
    cdef NalUnit unit
    cdef int found
    while True:
        found = next_length_prefixed(data, size, &offset, 4, &unit)
        if found < 0:
            return "a NAL unit goes past its end"
        if found == 0:
            break
        if unit.data[0] & 0x80:
            return "a NAL unit with a broken header"
        if (unit.data[0] >> 1 < 32 if hevc else 1 <= unit.data[0] & 31 <= 5) and has_zeros(unit.data, unit.size):
            return "zeros in a coded picture"
    if is_zero(data, size):
        return "nothing but zeros"
    return NULL


cdef bint is_zero(const uint8_t* data, size_t size) noexcept:
    cdef size_t at
    for at in range(size):
        if data[at]:
            return False
    return True


cdef bint has_zeros(const uint8_t* data, size_t size) noexcept:
    """Tell whether three zeros in a row are followed by something else. Every third byte tells where to look."""
    cdef size_t at, begin, end
    while size and not data[size - 1]:
        size -= 1
    for at in range(2, size, 3):
        if data[at]:
            continue
        begin = end = at
        while data[begin - 1] == 0 and begin > at - 2:
            begin -= 1
        while data[end] == 0:
            end += 1
        if end - begin >= 3:
            return True
    return False
