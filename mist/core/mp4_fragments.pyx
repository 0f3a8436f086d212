"""Movie fragments of MP4: `moof` boxes read into queues of samples.

Spec: ISO/IEC 14496-12 (2022) clauses 8.8.4 to 8.8.8 and 8.8.12; [MS-SSTR] section 2.2.4.4 for the absolute time of Smooth Streaming.
"""

cimport cython
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcmp, memmove, memset

from mist.core.mp4_tables cimport be32, be64

import os
import struct

from mist.errors import LimitExceededError, RemoteProtocolError

cdef enum:
    # tfhd, clause 8.8.7.1
    BASE_DATA_OFFSET = 0x000001
    DESCRIPTION_PRESENT = 0x000002
    DEFAULT_DURATION_PRESENT = 0x000008
    DEFAULT_SIZE_PRESENT = 0x000010
    DEFAULT_FLAGS_PRESENT = 0x000020
    DEFAULT_BASE_IS_MOOF = 0x020000
    # trun, clause 8.8.8.1
    DATA_OFFSET_PRESENT = 0x000001
    FIRST_FLAGS_PRESENT = 0x000004
    DURATION_PRESENT = 0x000100
    SIZE_PRESENT = 0x000200
    FLAGS_PRESENT = 0x000400
    OFFSET_PRESENT = 0x000800
    # sample flags, clause 8.8.3.1: no sync sample, or depends on others
    NO_KEY = 0x01010000

cdef int64_t MAX_TICKS = <int64_t> 1 << 61
cdef int64_t MAX_POSITION = <int64_t> 1 << 60
cdef const uint8_t* SMOOTH_TIME = b"\x6d\x1d\x9b\x05\x42\xd5\x44\xe6\x80\xe2\x14\x1d\xaf\xf7\x57\xb2"


cdef object wrong(str what, int64_t position, str clause):
    return RemoteProtocolError(what, offset=position, spec=f"ISO/IEC 14496-12 clause {clause}")


cdef size_t box_size(const uint8_t* box, size_t left, size_t* header) noexcept:
    """Return the bytes of a box of which at least 8 are there, and those of its header; 0 where it does not fit.

    Spec: ISO/IEC 14496-12 clause 4.2.
    """
    cdef uint64_t size = be32(box)
    header[0] = 8
    if size == 1 and left >= 16:
        header[0] = 16
        size = <uint64_t> be64(box + 8)
    return <size_t> size if header[0] <= size <= left else 0


def event_boxes(int fd, int64_t most):
    """Yield the content of each emsg box of an open file, of those up to so many bytes.

    Cost: a read of some bytes for each box on the top level.   Spec: ISO/IEC 14496-12 clause 4.2; ISO/IEC 23009-1 clause 5.10.3.3.
    """
    at = 0
    while len(head := os.pread(fd, 16, at)) >= 8:
        size, kind = struct.unpack_from(">I4s", head)
        begin = 8
        if size == 1 and len(head) == 16:
            size, begin = struct.unpack_from(">Q", head, 8)[0], 16
        if size < begin or at + size > MAX_POSITION:
            return
        if kind == b"emsg" and size <= most:
            yield os.pread(fd, size - begin, at + begin)
        at += size


@cython.final
cdef class FragmentReader:
    """Queues of the samples of each track, filled by `moof` boxes and emptied from the front.

    tracks: (track id, (description from 1, duration, size, flags) of trex) of each track. others: the same of tracks that are passed
    over; where their media ends that of the next track may begin. At most MAX_FRAGMENT_TRACKS together.
    """

    def __cinit__(self, tracks, others=()):
        cdef int place
        memset(self.tracks, 0, sizeof(self.tracks))
        self.count = <int> len(tracks)
        self.named = self.count + <int> len(others)
        if self.named > MAX_FRAGMENT_TRACKS:
            raise LimitExceededError(f"{self.named} tracks; at most {MAX_FRAGMENT_TRACKS} are read")
        for place, (track_id, defaults) in enumerate([*tracks, *others]):
            self.tracks[place].track_id = track_id
            self.tracks[place].defaults.description = defaults[0]
            self.tracks[place].defaults.duration = defaults[1]
            self.tracks[place].defaults.size = defaults[2]
            self.tracks[place].defaults.flags = defaults[3]
            self.tracks[place].unread = place >= self.count
        self.resume = self.own_base = -1

    def __dealloc__(self):
        cdef int place
        for place in range(MAX_FRAGMENT_TRACKS):
            free(self.tracks[place].samples)

    cdef FragmentSample* head(self, int track) noexcept:
        """Return the next sample of a track, NULL where none is known yet; valid until the next change."""
        cdef FragmentTrack* one = &self.tracks[track]
        return &one.samples[one.first] if one.first < one.end else NULL

    cdef void drop(self, int track) noexcept:
        cdef FragmentTrack* one = &self.tracks[track]
        self.queued -= 1
        self.queued_bytes -= one.samples[one.first].size
        one.first += 1
        if one.first == one.end:
            one.first = 0
            one.end = 0

    cdef void clear(self) noexcept:
        cdef int place
        for place in range(self.count):
            self.tracks[place].first = 0
            self.tracks[place].end = 0
        self.queued = 0
        self.queued_bytes = 0

    cdef int append(self, FragmentTrack* track, const FragmentSample* sample) except -1:
        cdef size_t capacity
        cdef void* grown
        if self.queued >= MAX_QUEUED_SAMPLES:
            raise LimitExceededError(
                f"over {MAX_QUEUED_SAMPLES} samples in fragments whose media has not come", offset=sample.fragment
            )
        if track.end == track.capacity and track.first > track.capacity // 2:
            track.end -= track.first
            memmove(track.samples, track.samples + track.first, track.end * sizeof(FragmentSample))
            track.first = 0
        if track.end == track.capacity:
            capacity = track.capacity * 2 if track.capacity else 64
            grown = realloc(track.samples, capacity * sizeof(FragmentSample))
            if grown is NULL:
                raise MemoryError
            track.samples = <FragmentSample*> grown
            track.capacity = capacity
        track.samples[track.end] = sample[0]
        track.end += 1
        self.queued += 1
        self.queued_bytes += sample.size
        return 0

    cdef int read(self, const uint8_t* moof, size_t size, int64_t position) except -1:
        """Queue the samples of a fragment.

        moof, size: the whole box with its header. position: byte of the file where it begins.
        Raises RemoteProtocolError, with offset, for boxes that do not fit into each other; LimitExceededError.
        """
        cdef size_t at = 16 if be32(moof) == 1 else 8
        cdef size_t box, header = 0
        cdef int64_t data_end = position
        self.is_placed = False
        self.moved = 0
        while at + 8 <= size:
            box = box_size(moof + at, size - at, &header)
            if not box:
                raise wrong(f"a box of {be32(moof + at)} bytes in a moof of {size}", position + <int64_t> at, "8.8.4")
            if memcmp(moof + at + 4, b"traf", 4) == 0:
                self.read_track(moof + at + header, box - header, position + <int64_t> (at + header), position, &data_end)
            at += box
        return 0

    cdef int read_track(self, const uint8_t* body, size_t size, int64_t position, int64_t fragment, int64_t* data_end) except -1:
        """Queue the samples of a traf box. Smooth Streaming has its time behind the samples, so times are looked for first."""
        cdef FragmentTrack* track = NULL
        cdef Defaults defaults
        cdef int64_t base = data_end[0]
        cdef size_t at = 0
        cdef size_t box, header = 0
        memset(&defaults, 0, sizeof(defaults))
        while at + 8 <= size:
            box = box_size(body + at, size - at, &header)
            if not box:
                raise wrong(f"a box of {be32(body + at)} bytes in a traf of {size}", position + <int64_t> at, "8.8.6")
            if memcmp(body + at + 4, b"tfhd", 4) == 0:
                track = self.read_header(body + at + header, box - header, position + <int64_t> at, fragment, &defaults, &base)
                if track is NULL:
                    return 0
                data_end[0] = base
            elif track is not NULL and not track.unread:
                self.read_time(track, body + at + 4, body + at + header, box - header, position + <int64_t> at)
            at += box
        if track is NULL:
            return 0
        if track.next_ticks < 0 or track.next_ticks > MAX_TICKS:
            raise wrong(f"a decode time of {track.next_ticks}", position, "8.8.12")
        track.timed = True
        at = 0
        while at + 8 <= size:
            box = box_size(body + at, size - at, &header)
            if memcmp(body + at + 4, b"trun", 4) == 0:
                self.read_run(track, body + at + header, box - header, position + <int64_t> at, fragment, &defaults, base, data_end)
            at += box
        return 0

    cdef int read_time(self, FragmentTrack* track, const uint8_t* kind, const uint8_t* inner, size_t size, int64_t position) except -1:
        """Read tfdt, or the time of a Smooth Streaming fragment if nothing else is known."""
        if memcmp(kind, b"tfdt", 4) == 0 and size >= 8:
            if inner[0] and size < 12:
                raise wrong("a tfdt box that is cut off", position, "8.8.12")
            track.next_ticks = be64(inner + 4) if inner[0] else be32(inner + 4)
            track.timed = True
        elif memcmp(kind, b"uuid", 4) == 0 and size >= 28 and not track.timed and memcmp(inner, SMOOTH_TIME, 16) == 0:
            if size >= 36 or not inner[16]:
                track.next_ticks = be64(inner + 20) if inner[16] else be32(inner + 20)
        return 0

    cdef FragmentTrack* read_header(
        self, const uint8_t* body, size_t size, int64_t position, int64_t fragment, Defaults* defaults, int64_t* base
    ) except? NULL:
        """Read tfhd: return its track, NULL for one that is not read.   Spec: ISO/IEC 14496-12 clause 8.8.7."""
        cdef FragmentTrack* track = NULL
        cdef uint32_t flags
        cdef size_t needed
        cdef size_t at = 8
        cdef int place
        if size < 8:
            raise wrong("a tfhd box that is cut off", position, "8.8.7")
        flags = be32(body) & 0xFFFFFF
        needed = 8 + (8 if flags & BASE_DATA_OFFSET else 0) + 4 * (
            <size_t> (flags & DESCRIPTION_PRESENT != 0) + (flags & DEFAULT_DURATION_PRESENT != 0)
            + (flags & DEFAULT_SIZE_PRESENT != 0) + (flags & DEFAULT_FLAGS_PRESENT != 0)
        )
        if size < needed:
            raise wrong("a tfhd box that is cut off", position, "8.8.7")
        for place in range(self.named):
            if self.tracks[place].track_id == be32(body + 4):
                track = &self.tracks[place]
        if track is NULL:
            return NULL
        defaults[0] = track.defaults
        if flags & BASE_DATA_OFFSET:
            base[0] = be64(body + at)
            if self.own_base < 0:
                self.own_base = base[0] == fragment
            if self.own_base and not self.is_placed:
                self.moved = fragment - base[0]
            self.is_placed = True
            base[0] += self.moved
            at += 8
        elif flags & DEFAULT_BASE_IS_MOOF:
            base[0] = fragment
        if base[0] < 0 or base[0] > MAX_POSITION:
            raise wrong(f"data at byte {base[0]}", position, "8.8.7")
        if flags & DESCRIPTION_PRESENT:
            defaults.description = be32(body + at)
            at += 4
        if flags & DEFAULT_DURATION_PRESENT:
            defaults.duration = be32(body + at)
            at += 4
        if flags & DEFAULT_SIZE_PRESENT:
            defaults.size = be32(body + at)
            at += 4
        if flags & DEFAULT_FLAGS_PRESENT:
            defaults.flags = be32(body + at)
        return track

    cdef int read_run(
        self, FragmentTrack* track, const uint8_t* body, size_t size, int64_t position, int64_t fragment,
        const Defaults* defaults, int64_t base, int64_t* data_end
    ) except -1:
        """Queue the samples of a trun box.   Spec: ISO/IEC 14496-12 clause 8.8.8."""
        cdef FragmentSample sample
        cdef uint32_t flags
        cdef uint32_t count
        cdef uint32_t number
        cdef uint32_t duration
        cdef uint32_t sample_flags
        cdef uint32_t first_flags = 0
        cdef size_t at = 8
        cdef size_t row
        if size < 8:
            raise wrong("a trun box that is cut off", position, "8.8.8")
        flags, count = be32(body) & 0xFFFFFF, be32(body + 4)
        at += (4 if flags & DATA_OFFSET_PRESENT else 0) + (4 if flags & FIRST_FLAGS_PRESENT else 0)
        row = 4 * (
            <size_t> (flags & DURATION_PRESENT != 0) + (flags & SIZE_PRESENT != 0) + (flags & FLAGS_PRESENT != 0)
            + (flags & OFFSET_PRESENT != 0)
        )
        if at > size or count * <uint64_t> row > size - at:
            raise wrong(f"{count} samples in a trun box of {size + 8} bytes", position, "8.8.8")
        if flags & FIRST_FLAGS_PRESENT:
            first_flags = be32(body + at - 4)
        sample.fragment = self.resume if self.resume >= 0 else fragment
        sample.description = defaults.description - 1
        sample.position = data_end[0]
        if flags & DATA_OFFSET_PRESENT:
            sample.position = base + <int32_t> be32(body + 8)
        if track.unread and not row:
            sample.position += <int64_t> count * defaults.size
            count = 0
        for number in range(count):
            duration, sample.size, sample_flags = defaults.duration, defaults.size, defaults.flags
            sample.offset_ticks = 0
            if flags & DURATION_PRESENT:
                duration = be32(body + at)
                at += 4
            if flags & SIZE_PRESENT:
                sample.size = be32(body + at)
                at += 4
            if number == 0 and flags & FIRST_FLAGS_PRESENT:
                sample_flags = first_flags
            if flags & FLAGS_PRESENT:
                if number or not flags & FIRST_FLAGS_PRESENT:
                    sample_flags = be32(body + at)
                at += 4
            if flags & OFFSET_PRESENT:
                sample.offset_ticks = <int32_t> be32(body + at)
                at += 4
            if sample.position < 0 or sample.position > MAX_POSITION or track.next_ticks > MAX_TICKS:
                raise wrong(f"a sample at byte {sample.position}, time {track.next_ticks}", position, "8.8.8")
            sample.key = not sample_flags & NO_KEY
            sample.dts_ticks = track.next_ticks
            track.negative_ticks = max(track.negative_ticks, -sample.offset_ticks)
            sample.duration = duration
            if not track.unread:
                track.next_ticks += duration
                self.append(track, &sample)
            sample.position += sample.size
        data_end[0] = sample.position
        return 0
