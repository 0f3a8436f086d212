"""Chosen tracks and times of an input, passed on to a muxer: what stands between demuxer and muxer in a conversion."""

cimport cython
from libc.stdint cimport int64_t, uint32_t
from libc.stdlib cimport calloc, free, realloc

from mist.core.muxer cimport Muxer
from mist.core.packet cimport KEYFRAME, Packet, PacketView

from mist.errors import LimitExceededError, UnsupportedError

KEEP_TIMES = KEEP
NO_NEGATIVE_TIMES = NO_NEGATIVE
TIMES_FROM_ZERO = FROM_ZERO
MAX_GOP_BYTES = MAX_HELD

cdef enum:
    KEEP = 0
    NO_NEGATIVE = 1
    FROM_ZERO = 2

    LEFT_OUT = -1
    REFUSED = -2

    FIRST_LOOK = 0              # until every track has begun, which tells the earliest time
    SEARCH = 1                  # for the keyframe to start at
    PASS = 2

    MAX_HELD = 256 << 20        # packets from one keyframe to the next, while the start is searched
    MAX_LOOK_BYTES = 16 << 20
    MAX_LOOK_US = 1_000_000     # a track that begins later than this does not count for the earliest time
    ROUND_US = 1000             # times move by whole milliseconds, so that they round as before
    STRAGGLERS_US = 10_000_000  # so far past the end no track is waited for

cdef int64_t NEVER_US = <int64_t> 1 << 62


@cython.final
cdef class PacketFilter(Muxer):
    """Packets of all tracks in; those of chosen tracks and times go on into a muxer, which has its own numbers for the tracks.

    Start and stop are decode times after the earliest packet. It starts at the last keyframe of the main track that is not
    after the start, with what the other tracks have from there on, and stops for each track at its first packet that is not
    before the stop; `done` says that nothing more can come. The muxer's header goes into its output before the first packet.
    """

    cdef object on_first
    cdef Muxer sink_muxer
    cdef int* places            # of each input track: its number in the muxer, LEFT_OUT or REFUSED
    cdef bint* begun
    cdef bint* over
    cdef int count
    cdef int waiting            # tracks that have not begun, in the first look
    cdef int running            # tracks that have not reached the stop
    cdef int main
    cdef int policy
    cdef int phase
    cdef int64_t start_us, stop_us, cut_us, latest_us
    cdef list held              # (packet, its flags)
    cdef size_t held_bytes
    cdef list leads             # of each track: what the output adds to its times; None: decode times count
    cdef dict refusals          # of each refused track: why
    cdef readonly int64_t origin_us     # decode time of the earliest packet, in the input's times
    cdef readonly int64_t shift_us      # added to all times
    cdef readonly int64_t position_us   # decode time of the newest packet, counted from the origin
    cdef readonly int64_t packets       # passed on
    cdef readonly bint done

    def __cinit__(self, *args, **kwargs):
        self.places = NULL
        self.begun = NULL
        self.over = NULL

    def __dealloc__(self):
        free(self.places)
        free(self.begun)
        free(self.over)

    def __init__(self, on_first):
        """on_first: called before the first packet of all, when the input's tracks are known; it calls `open`."""
        self.on_first = on_first
        self.held = []
        self.refusals = {}

    def open(
        self, Muxer sink not None, places, *, int main=-1, start_us=None, stop_us=None, int times=KEEP, sparse=(), leads=None
    ):
        """Say where packets go.

        places: for each input track its number in the muxer, -1 to leave it out; tracks that appear later are left out.
        main: input track whose keyframes decide the start, -1 if every packet of every track will do. start_us, stop_us:
        microseconds after the earliest packet, None for all. times: KEEP_TIMES, NO_NEGATIVE_TIMES moves all so that none is
        negative, TIMES_FROM_ZERO so that the first is zero. sparse: input tracks that may begin late, such as subtitles.
        leads: microseconds that the output itself adds to each input track's times. Where they are given, it is presentation times
        that must not be negative.
        """
        cdef int track
        self.leads = None if leads is None else list(leads)
        self.main = main
        self.policy = times
        self.start_us = 0 if start_us is None else start_us
        self.stop_us = NEVER_US if stop_us is None else stop_us
        self.phase = FIRST_LOOK
        self.cut_us = -NEVER_US
        self.latest_us = -NEVER_US
        self.count = <int> len(places)
        self.places = <int*> calloc(self.count + 1, sizeof(int))
        self.begun = <bint*> calloc(self.count + 1, sizeof(bint))
        self.over = <bint*> calloc(self.count + 1, sizeof(bint))
        if self.places is NULL or self.begun is NULL or self.over is NULL:
            raise MemoryError
        for track in range(self.count):
            self.places[track] = places[track]
            self.over[track] = places[track] < 0 or track in sparse
            self.begun[track] = self.over[track]
            self.running += not self.over[track]
        self.waiting = self.running
        self.sink_muxer = sink

    cdef int write_view(self, int track, const PacketView* packet) except -1:
        if self.sink_muxer is None:
            self.on_first()
        if track < 0 or track >= self.count or self.places[track] < 0:
            if 0 <= track < self.count and self.places[track] == REFUSED:
                raise UnsupportedError(self.refusals[track])
            return 0
        if self.phase == PASS:
            return self.pass_on(track, packet)
        return self.hold(track, packet)

    cdef int pass_on(self, int track, const PacketView* packet) except -1:
        cdef PacketView view = packet[0]
        cdef int64_t since_us = packet.dts_us - self.origin_us
        if since_us > self.position_us:
            self.position_us = since_us
        if since_us >= self.stop_us:
            return self.end_track(track, since_us)
        if packet.dts_us < self.cut_us:
            return 0
        view.dts_us += self.shift_us
        if self.policy != KEEP and view.dts_us < 0:
            view.offset_us += view.dts_us
            view.dts_us = 0
        self.packets += 1
        return self.sink_muxer.write_view(self.places[track], &view)

    cdef int end_track(self, int track, int64_t since_us) except -1:
        """Note that a track has reached the stop."""
        if not self.over[track]:
            self.over[track] = True
            self.running -= 1
        if self.running == 0 or since_us > self.stop_us + STRAGGLERS_US:
            self.done = True
        return 0

    cdef int hold(self, int track, const PacketView* packet) except -1:
        """Keep a packet until it is known where to start, and what to add to times."""
        cdef bint key = packet.flags & KEYFRAME != 0
        payload = packet.data[:packet.size]
        self.held.append((Packet(track, packet.dts_us, packet.offset_us, key, payload), packet.flags))
        self.held_bytes += packet.size
        self.latest_us = max(self.latest_us, packet.dts_us)
        if self.phase == SEARCH:
            self.search(track, packet.dts_us, key)
            if self.phase == SEARCH and self.held_bytes > MAX_HELD:
                raise LimitExceededError(f"more than {MAX_HELD >> 20} MB from one keyframe to the next")
            return 0
        if not self.begun[track]:
            self.begun[track] = True
            self.waiting -= 1
        if (
            self.waiting <= 0
            or self.latest_us - (<Packet> self.held[0][0]).dts_us > MAX_LOOK_US
            or self.held_bytes > MAX_LOOK_BYTES
        ):
            self.end_look()
        return 0

    cdef int end_look(self) except -1:
        """Go on to the search or to passing: the earliest time is known."""
        cdef Packet packet
        self.origin_us = min([one.dts_us for one, _flags in self.held])
        if self.start_us <= 0:
            return self.let_go()
        self.phase = SEARCH
        held, self.held = self.held, []
        self.held_bytes = 0
        for packet, flags in held:
            if self.phase == PASS:
                self.write_held(packet, flags)
                continue
            self.held.append((packet, flags))
            self.held_bytes += len(packet.payload)
            self.search(packet.track, packet.dts_us, packet.keyframe)
        return 0

    cdef int search(self, int track, int64_t dts_us, bint key) except -1:
        """Look at the packet that was held last: drop what is before a new keyframe, or let go when the start is passed."""
        cdef int64_t since_us = dts_us - self.origin_us
        self.position_us = max(self.position_us, since_us)
        if self.main < 0:
            self.cut_us = self.origin_us + self.start_us
            self.drop()
            return self.let_go() if self.held else 0
        if track != self.main:
            return 0
        if key and (since_us <= self.start_us or self.cut_us == -NEVER_US):
            self.cut_us = dts_us    # or the first one after the start, where there is none before it
            self.drop()
        if since_us >= self.start_us and self.cut_us > -NEVER_US:
            self.let_go()
        return 0

    cdef int drop(self) except -1:
        """Forget what is held and lies before the cut."""
        cdef Packet packet
        cdef list kept = []
        self.held_bytes = 0
        for packet, flags in self.held:
            if packet.dts_us >= self.cut_us:
                kept.append((packet, flags))
                self.held_bytes += len(packet.payload)
        self.held = kept
        return 0

    cdef int let_go(self) except -1:
        """Write the muxer's header and what was held, and pass everything on from now on."""
        cdef Packet packet
        cdef int64_t first_us
        self.phase = PASS
        held, self.held = self.held, []
        self.held_bytes = 0
        if not held:
            return 0
        first_us = min([self.first_of(one) for one, _flags in held])
        if self.policy == FROM_ZERO:
            self.shift_us = -first_us
        elif self.policy == NO_NEGATIVE and first_us < 0:
            self.shift_us = (-first_us + ROUND_US - 1) // ROUND_US * ROUND_US
        self.sink_muxer.out.write(self.sink_muxer.header(first_us + self.shift_us))
        for packet, flags in held:
            self.write_held(packet, flags)
        return 0

    cdef int64_t first_of(self, Packet packet) except? -1:
        """Return the time of a packet that must not be negative in the output."""
        if self.leads is None:
            return packet.dts_us
        return packet.dts_us + packet.offset_us + <int64_t> self.leads[packet.track]

    cdef int write_held(self, Packet packet, uint32_t flags) except -1:
        """Pass on what was held, as it came."""
        cdef PacketView view
        packet.view(&view)
        view.flags = flags
        return self.write_view(packet.track, &view)

    @property
    def passing(self):
        """Whether packets go straight on: nothing is held, and what is to come depends on origin and shift alone."""
        return self.phase == PASS

    def go_on(self, int64_t origin_us, int64_t shift_us):
        """Pass everything on at once, after `open`, like one that had that origin and shift."""
        self.phase = PASS
        self.origin_us, self.shift_us = origin_us, shift_us

    def release(self):
        """Let go of what is still held: the input is over, or its tracks are about to change."""
        if self.phase == FIRST_LOOK and self.held:
            self.end_look()
        if self.phase == SEARCH and self.cut_us > -NEVER_US and self.main >= 0:
            self.let_go()       # the start is within the last GOP

    def add_track(self, int place):
        """Let the packets of one more input track go to a place in the muxer."""
        cdef int* places = <int*> realloc(self.places, (self.count + 2) * sizeof(int))
        cdef bint* flags
        if places is NULL:
            raise MemoryError
        self.places = places
        flags = <bint*> realloc(self.begun, (self.count + 2) * sizeof(bint))
        if flags is NULL:
            raise MemoryError
        self.begun = flags
        flags = <bint*> realloc(self.over, (self.count + 2) * sizeof(bint))
        if flags is NULL:
            raise MemoryError
        self.over = flags
        self.places[self.count] = place
        self.begun[self.count] = self.over[self.count] = True
        self.count += 1

    def refuse(self, int track, str reason not None):
        """Raise UnsupportedError at the next packet of an input track that goes along, if there is one."""
        if self.places[track] >= 0:
            self.places[track] = REFUSED
            self.refusals[track] = reason

    def set_tracks(self, tracks):
        """Pass changed tracks on to the muxer. tracks: of the muxer. Returns False if it cannot go on with them."""
        return self.sink_muxer.set_tracks(tracks)
