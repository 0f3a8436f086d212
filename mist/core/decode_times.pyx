"""Decode times of a track whose container tells only when its pictures are shown (Matroska).

Pictures come in decode order. With a reordering depth of n, the decode times are the presentation times in rising order, n
pictures later: picture i is decoded when the (i - n)-th picture is shown. So the smallest of the last n + 1 presentation times
that has not been used is the next decode time, and nothing need be held back; only the first n have no such time, and are
spread before the first one.   Spec: H.264 clause C.4.5.2 and HEVC clause C.5.2.2 (bumping), RFC 9559 section 5.1.3.5.
"""

cimport cython
from libc.stdint cimport int64_t

cdef int64_t GUESS_US = 40000       # distance of pictures where nothing tells
cdef enum:
    SAMPLE = 8                      # more pictures that wait to tell their distance, where the container does not


@cython.final
cdef class DecodeTimes:
    """The decode times of one track.

    depth: how many pictures may be decoded before one that is shown before them, 0 to 16; -1 where it is to be learnt from the
    first MAX_WAITING - 1 pictures. frame_us: usual distance of pictures, 0 where not known.

    Either `running`, then `advance` gives a packet's time; or not, then packets wait: `add` each until it says that times can be
    told, `settle`, and take `decoded`.
    """

    def __init__(self, int depth, int64_t frame_us=0):
        self.depth = min(max(depth, -1), MAX_DEPTH)
        self.frame_us = frame_us
        self.reset()

    cdef void reset(self) noexcept:
        """Begin again, after a jump in the input; what was learnt stays. Times go on rising unless `has_last` is taken away."""
        self.running = self.depth == 0
        self.waiting = 0
        self.filled = 0

    cdef bint add(self, int64_t pts_us) noexcept:
        """Take the presentation time of a packet that waits; returns whether `settle` can tell the times."""
        self.presented[self.waiting] = pts_us
        self.waiting += 1
        if self.depth < 0:
            return self.waiting > MAX_WAITING - 2
        return self.waiting > self.depth + (0 if self.frame_us else SAMPLE)

    cdef void settle(self) noexcept:
        """Tell the decode times of the packets that wait, and run from then on."""
        cdef int place
        cdef int64_t step
        if self.depth < 0:
            self.depth = self.observed()
        self.filled = 0
        for place in range(min(self.depth, self.waiting)):
            self.insert(self.presented[place])
        if self.waiting > self.depth:
            self.insert(self.presented[self.depth])
        if not self.frame_us:
            self.frame_us = self.usual_us()
        step = self.step_us()
        for place in range(self.waiting):
            if place < self.depth:
                self.decoded[place] = self.rising(self.window[0] - (self.depth - place) * step)
        for place in range(self.depth, self.waiting):
            if place > self.depth:
                self.insert(self.presented[place])
            self.decoded[place] = self.rising(self.take())
        self.running = True

    cdef bint learn(self) noexcept:
        """Settle, and if that tells enough to be known from then on, begin again with the packets that wait; returns whether."""
        cdef int64_t last_us = self.last_us
        cdef bint has_last = self.has_last
        self.settle()
        if not self.known():
            return False
        self.reset()
        self.last_us, self.has_last = last_us, has_last
        return True

    cdef void agree(self, int place, int64_t dts_us) noexcept:
        """Move the times that were made up so that a waiting packet gets the one it had when the input was first read."""
        cdef int64_t difference = dts_us - self.decoded[place]
        cdef int64_t slack = (self.depth + 1) * self.step_us()
        cdef int other
        if place >= self.depth or dts_us > self.presented[place] or not -slack <= difference <= slack:
            return
        for other in range(place + 1):
            self.decoded[other] += difference
        for other in range(place + 1, self.waiting):
            if self.decoded[other] <= self.decoded[other - 1]:
                self.decoded[other] = self.decoded[other - 1] + 1
        self.last_us = self.decoded[self.waiting - 1]

    cdef int64_t advance(self, int64_t pts_us) noexcept:
        """Return the next packet's decode time, later than the last one's."""
        cdef int64_t dts_us
        if not self.depth:
            return self.rising(pts_us)
        self.insert(pts_us)
        if self.filled <= self.depth:
            dts_us = self.last_us + self.step_us()
        elif self.has_last and self.window[0] < self.last_us and self.depth < MAX_DEPTH:
            self.depth += 1     # this picture should have been shown before: there is more reordering than was known
            dts_us = self.last_us + 1
        else:
            dts_us = self.take()
        return self.rising(dts_us)

    cdef int64_t rising(self, int64_t dts_us) noexcept:
        if self.has_last and dts_us <= self.last_us:
            dts_us = self.last_us + 1
        self.last_us = dts_us
        self.has_last = True
        return dts_us

    cdef void insert(self, int64_t pts_us) noexcept:
        cdef int place = self.filled
        while place and self.window[place - 1] > pts_us:
            self.window[place] = self.window[place - 1]
            place -= 1
        self.window[place] = pts_us
        self.filled += 1

    cdef int64_t take(self) noexcept:
        cdef int64_t smallest = self.window[0]
        cdef int place
        self.filled -= 1
        for place in range(self.filled):
            self.window[place] = self.window[place + 1]
        return smallest

    cdef int64_t step_us(self) noexcept:
        return self.frame_us if self.frame_us else GUESS_US

    cdef int64_t usual_us(self) noexcept:
        """Return the distance of the pictures that wait: the mean of those that are like the smallest one; 0 where there is none."""
        cdef int64_t[33] rising
        cdef int64_t gap, total = 0
        cdef int64_t smallest = 0
        cdef int place, at, count = 0
        for place in range(self.waiting):
            at = place
            while at and rising[at - 1] > self.presented[place]:
                rising[at] = rising[at - 1]
                at -= 1
            rising[at] = self.presented[place]
        for place in range(1, self.waiting):
            gap = rising[place] - rising[place - 1]
            if gap > 0 and (not smallest or gap < smallest):
                smallest = gap
        for place in range(1, self.waiting):
            gap = rising[place] - rising[place - 1]
            if gap > 0 and gap <= smallest + smallest // 2:
                total += gap
                count += 1
        return total // count if count else 0

    cdef bint known(self) noexcept:
        """Whether a jump in the input makes no difference to the times that follow."""
        return self.depth == 0 or (self.depth > 0 and self.frame_us != 0)

    cdef int observed(self) noexcept:
        """Return the depth of reordering of the packets that wait."""
        cdef int place, before, count
        cdef int most = 0
        for place in range(self.waiting):
            count = 0
            for before in range(place):
                count += self.presented[before] > self.presented[place]
            most = max(most, count)
        return min(most, MAX_DEPTH)


def decode_times(presented_us, int depth=-1, int64_t frame_us=0):
    """Return the decode times of pictures with these presentation times, in microseconds and decode order."""
    cdef DecodeTimes times = DecodeTimes(depth, frame_us)
    cdef list found = []
    cdef int64_t pts_us
    cdef int place
    for pts_us in presented_us:
        if times.running:
            found.append(times.advance(pts_us))
        elif times.add(pts_us):
            times.settle()
            found += [times.decoded[place] for place in range(times.waiting)]
    if not times.running:
        times.settle()
        found += [times.decoded[place] for place in range(times.waiting)]
    return found
