"""Video elementary streams that say the order of pictures and no times: times from their rate, offsets from their order."""

cimport cython
from libc.stdint cimport int64_t

from mist.core.buffer cimport ByteBuffer
from mist.core.byte_stream cimport ByteStreamDemuxer
from mist.core.packet cimport KEYFRAME, NEW_INIT, PacketView

from mist.errors import LimitExceededError

MAX_PICTURE_BYTES = PICTURE_LIMIT
MAX_WAITING_PICTURES = WAITING_LIMIT
MAX_WAITING_BYTES = WAITING_BYTES_LIMIT
SAMPLED_PICTURES = SAMPLE

cdef enum:
    PICTURE_LIMIT = 32 << 20
    WAITING_LIMIT = 64          # no coding structure has so many pictures between one and its place in presentation
    WAITING_BYTES_LIMIT = 64 << 20
    SAMPLE = 32                 # pictures looked at where the stream does not say how far they are reordered


@cython.final
cdef class Picture:
    """A coded picture that waits for its place in presentation."""

    def __cinit__(self):
        self.data = ByteBuffer()


cdef class PictureStreamDemuxer(ByteStreamDemuxer):
    """Gathers pictures in decoding order, and gives each its times when its place in presentation is known.

    A picture's place is known once `depth` later ones were decoded, as in a decoder's output by bumping (H.264 clause C.4.5.3). Decode
    time is number / rate, presentation time (place + depth) / rate, so no picture is presented before it is decoded.

    Subclasses fill `current` between `begin_picture` and `close_picture`, and set rate and depth where the stream says them.
    """

    def __cinit__(self, *args, **kwargs):
        self.waiting = []
        self.spare = []
        self.depth = -1
        self.rate = 25
        self.rate_period = 1

    cdef int set_rate(self, int64_t rate, int64_t period) except -1:
        """Go on with another rate: pictures in so many seconds."""
        if rate * self.rate_period != self.rate * period:
            self.flush_pictures()
            self.base_us = self.time_of(self.count)
            self.base_count = self.count
            self.rate, self.rate_period = rate, period
        return 0

    cdef int set_depth(self, int depth) except -1:
        """Say how far pictures are reordered; it never becomes less, so that no two pictures have one time."""
        if depth > self.depth:
            self.flush_pictures()
            self.depth = depth
        return 0

    cdef int64_t time_of(self, int64_t number) noexcept:
        cdef int64_t scaled = (number - self.base_count) * 1000000 * self.rate_period
        return self.base_us + (scaled + self.rate // 2) // self.rate

    def seek(self, int64_t dts_us, int64_t position):
        """Go on with the picture at a position. dts_us: its decode time, microseconds."""
        self.restart(position)
        self.waiting.clear()
        self.waiting_bytes = 0
        self.unranked = 0
        self.current = None
        self.count = self.base_count + ((dts_us - self.base_us) * self.rate + 500000 * self.rate_period) // (
            1000000 * self.rate_period
        )
        if self.count < self.base_count or self.time_of(self.count) != dts_us:
            # The rate was, or will be, another one there.
            self.base_us = dts_us
            self.base_count = self.count = 0
        self.next_rank = self.count

    cdef int begin_picture(self, int64_t position) except -1:
        cdef Picture picture = self.spare.pop() if self.spare else Picture()
        picture.data.clear()
        picture.position = position
        picture.rank = -1
        picture.order = 0
        picture.key = False
        picture.info = None
        self.current = picture
        return 0

    cdef int check_size(self, size_t more) except -1:
        """Raise LimitExceededError where the current picture would have too many bytes."""
        if self.current.data.size + more > PICTURE_LIMIT:
            raise LimitExceededError(f"a picture of over {PICTURE_LIMIT} bytes", offset=self.current.position)
        return 0

    cdef int close_picture(self) except -1:
        """Queue the current picture, and write those that it gives a place to."""
        cdef Picture picture = self.current
        cdef Picture first
        self.current = None
        if picture is None:
            return 0
        picture.number = self.count
        self.count += 1
        self.waiting.append(picture)
        self.waiting_bytes += picture.data.size
        self.unranked += 1
        if self.depth < 0:
            if len(self.waiting) >= SAMPLE or self.waiting_bytes > WAITING_BYTES_LIMIT:
                self.flush_sample()
        while self.depth >= 0 and self.unranked > self.depth:
            self.rank_next()
        self.write_ranked()
        while len(self.waiting) > WAITING_LIMIT or self.waiting_bytes > WAITING_BYTES_LIMIT:
            first = self.waiting[0]
            while first.rank < 0:
                self.rank_next()
            self.write_ranked()
        return 0

    cdef int flush_sample(self) except -1:
        """Find out how far the waiting pictures are reordered."""
        cdef Picture picture, earlier
        cdef int place, before, later
        cdef int deepest = 0
        for place in range(len(self.waiting)):
            picture = self.waiting[place]
            later = 0
            for before in range(place):
                earlier = self.waiting[before]
                later += earlier.order > picture.order
            deepest = max(deepest, later)
        self.depth = deepest
        return 0

    cdef int rank_next(self) except -1:
        """Give the next place in presentation to the picture that comes first of those without one."""
        cdef Picture picture
        cdef Picture best = None
        for picture in self.waiting:
            if picture.rank < 0 and (best is None or picture.order < best.order):
                best = picture
        best.rank = self.next_rank
        self.next_rank += 1
        self.unranked -= 1
        return 0

    cdef int write_ranked(self) except -1:
        cdef Picture picture
        while self.waiting:
            picture = self.waiting[0]
            if picture.rank < 0:
                return 0
            del self.waiting[0]
            self.waiting_bytes -= picture.data.size
            self.write_picture(picture)
            if len(self.spare) < WAITING_LIMIT and picture.data.capacity <= 1 << 20:
                self.spare.append(picture)
        return 0

    cdef int flush_pictures(self) except -1:
        """Write all pictures that wait: none that follows is presented before them."""
        if self.waiting and self.depth < 0:
            self.flush_sample()
        while self.unranked:
            self.rank_next()
        return self.write_ranked()

    cdef int finish(self) except -1:
        self.close_picture()
        return self.flush_pictures()

    cdef int write_picture(self, Picture picture) except -1:
        cdef PacketView packet
        packet.dts_us = self.time_of(picture.number)
        packet.offset_us = self.time_of(picture.rank + self.depth) - packet.dts_us
        packet.flags = KEYFRAME if picture.key else 0
        packet.data = picture.data.data
        packet.size = picture.data.size
        self.position = picture.position
        if picture.info is not None:
            known = len(self.tracks) > 0
            if known:
                packet.flags |= NEW_INIT
            self.set_track(0, picture.info, known)
            if not known:
                self.become_ready()
        return self.emit(0, &packet)
