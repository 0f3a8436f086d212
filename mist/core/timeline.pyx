"""The times of a file or byte stream made increasing: jumps of the whole input and steps back within a track.

The same rules as for a live publisher's times (`mist.formats.rtmp.timeline`), at the price of a few comparisons for each packet.
"""

cimport cython
from libc.stdint cimport int64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memset

from mist.errors import LimitExceededError

MAX_TIMELINE_TRACKS = TRACK_LIMIT

cdef enum:
    TRACK_LIMIT = 1024
    JUMP_US = 600000000         # forward steps over this are repaired; shorter ones are gaps in the source
    BACK_US = 500000            # steps back over this are a new time base; shorter ones are disorder
    DISORDER_STEP_US = 1000     # the least distance after a repaired step back
    USUAL_US = 10000000         # distances within a track that need no second look
    JOIN_US = 40000             # between the last time before a jump and the first after it, where no step is known
    MAX_STEP_US = 2000000


@cython.final
cdef class Timeline:
    """Maps the decode times of an input to increasing ones.

    All tracks share one shift, so that they stay together. After a jump the shift before it is remembered: packets of other tracks
    that were under way still have the old time base.
    """

    def __cinit__(self):
        self.tracks = NULL
        self.capacity = 0

    def __dealloc__(self):
        free(self.tracks)

    cdef int grow(self, int track) except -1:
        cdef TrackTime* grown
        cdef int capacity = max(8, track + 1, 2 * self.capacity)
        if track < 0 or track >= TRACK_LIMIT:
            raise LimitExceededError(f"more than {TRACK_LIMIT} tracks")
        grown = <TrackTime*> realloc(self.tracks, capacity * sizeof(TrackTime))
        if grown is NULL:
            raise MemoryError
        memset(grown + self.capacity, 0, (capacity - self.capacity) * sizeof(TrackTime))
        self.tracks = grown
        self.capacity = capacity
        return 0

    cdef int64_t place(self, int track, int64_t dts_us) except? -1:
        """Return the time of a packet: higher than that of the packet before it in its track. Times are microseconds."""
        cdef TrackTime* known
        cdef int64_t placed, asked
        if track >= self.capacity or track < 0:
            self.grow(track)
        known = &self.tracks[track]
        self.led = True
        self.jumped = False
        self.moved_us = 0
        placed = self.choose(known, dts_us)
        asked = placed
        if known.known:
            if placed <= known.last_us:
                self.moved_us = known.last_us + DISORDER_STEP_US - placed
                placed = known.last_us + DISORDER_STEP_US
            elif placed - known.last_us <= MAX_STEP_US:
                known.step_us = placed - known.last_us
                known.has_step = True
        known.known = True
        known.last_us = placed
        known.asked_us = asked
        if not self.begun or placed > self.newest_us:
            self.newest_us = placed
            self.begun = True
        return placed

    cdef int64_t follow(self, int track, int64_t dts_us) except? -1:
        """Return the time of a packet of a track that may be silent for hours, and whose times may mean nothing.

        It never changes the shift: a time that is far from the newest packet of the other tracks is taken for that packet's.
        Where there are no others it is a track like any.
        """
        cdef TrackTime* known
        cdef int64_t placed
        if not self.led:
            placed = self.place(track, dts_us)
            self.led = False
            return placed
        if track >= self.capacity or track < 0:
            self.grow(track)
        known = &self.tracks[track]
        self.jumped = False
        self.moved_us = 0
        placed = dts_us + (self.known_base(dts_us, self.newest_us) if self.base_count else self.shift_us)
        if self.has_previous and abs_of(dts_us + self.previous_us - self.newest_us) < abs_of(placed - self.newest_us):
            placed = dts_us + self.previous_us
        if abs_of(placed - self.newest_us) > USUAL_US:
            placed = self.newest_us
        if known.known and placed <= known.last_us:
            placed = known.last_us + DISORDER_STEP_US
        known.known = True
        known.last_us = known.asked_us = placed
        return placed

    cdef int64_t choose(self, TrackTime* known, int64_t dts_us) noexcept:
        """Return the time by the shift that fits best; by a new shift if none does."""
        cdef int64_t placed = dts_us + self.shift_us
        cdef int64_t reference = known.last_us if known.known else self.newest_us
        cdef int64_t before, anchor, target
        if not self.begun:
            return placed
        if self.base_count:
            anchor = self.known_base(dts_us, reference)
            if self.resuming or abs_of(dts_us + anchor - reference) <= USUAL_US:
                if not self.resuming and anchor != self.shift_us and not (self.has_previous and anchor == self.previous_us):
                    self.previous_us = self.shift_us
                    self.has_previous = True
                    self.jumped = True
                if self.resuming or self.jumped:
                    self.shift_us = anchor
                self.resuming = False
                return dts_us + anchor
        if self.resuming:
            self.resuming = False
            if abs_of(placed - reference) > USUAL_US:
                self.shift_us = reference - dts_us
                self.has_previous = False
            return dts_us + self.shift_us
        if self.has_previous:
            before = dts_us + self.previous_us
            if abs_of(before - reference) < abs_of(placed - reference) and -BACK_US <= before - reference <= USUAL_US:
                return before
        if 0 <= placed - reference <= USUAL_US:
            return placed
        if (-BACK_US if known.known else -USUAL_US) <= placed - reference <= (JUMP_US if known.known else USUAL_US):
            return placed
        anchor = reference if placed > reference else max(reference, self.newest_us)
        target = anchor + (known.step_us if known.has_step else JOIN_US)
        self.previous_us = self.shift_us
        self.has_previous = True
        self.shift_us = target - dts_us
        self.jumped = True
        return target

    cdef void resume(self, int64_t dts_us) noexcept:
        """Go on elsewhere in the input: the next packet has about this time, and every track may go back to it."""
        if self.capacity:
            memset(self.tracks, 0, self.capacity * sizeof(TrackTime))
        self.newest_us = dts_us
        self.begun = True
        self.resuming = True

    cdef int know(self, tuple bases) except -1:
        """Take the shifts that hold around the place that is resumed, the likeliest first; with none they are guessed."""
        cdef int number
        self.base_count = min(<int> len(bases), 3)
        for number in range(self.base_count):
            self.bases[number] = bases[number]
        if self.base_count:
            self.shift_us = self.bases[0]
            self.has_previous = False
        return 0

    cdef int64_t known_base(self, int64_t dts_us, int64_t reference) noexcept:
        """Return the known shift that brings a packet nearest to a time."""
        cdef int number
        cdef int64_t best = self.bases[0]
        for number in range(1, self.base_count):
            if abs_of(dts_us + self.bases[number] - reference) < abs_of(dts_us + best - reference):
                best = self.bases[number]
        return best

    cdef bint is_far(self, int64_t dts_us) noexcept:
        """Tell whether the next packet, the first one elsewhere, would change the shift."""
        cdef int64_t shift = self.known_base(dts_us, self.newest_us) if self.base_count else self.shift_us
        return self.resuming and abs_of(dts_us + shift - self.newest_us) > USUAL_US

    def placed(self, int track, int64_t dts_us):
        """Return the time of a packet of a track, microseconds; raise LimitExceededError for more than MAX_TIMELINE_TRACKS."""
        return self.place(track, dts_us)

    def followed(self, int track, int64_t dts_us):
        """Return the time of a packet of a track whose times change nothing; errors as of `placed`."""
        return self.follow(track, dts_us)

    def resumed(self, int64_t dts_us, tuple bases=()):
        """Go on after a seek to a packet of about this time, microseconds. bases: what `shift_us` may be there."""
        self.know(bases)
        self.resume(dts_us)


cdef inline int64_t abs_of(int64_t value) noexcept:
    return value if value >= 0 else -value
