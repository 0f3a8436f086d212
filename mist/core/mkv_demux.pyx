"""Matroska and WebM demuxer: bytes of a file or a live stream in, packets out.

Elements are told apart by their IDs alone, which differ between the levels that matter: so Segments and Clusters of known and of
unknown size are read alike, and after damage reading goes on at the next Cluster.   Spec: RFC 8794, RFC 9559.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int16_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memchr, memcmp, memmove, memset

from mist.core.buffer cimport ByteBuffer
from mist.core.decode_times cimport DecodeTimes
from mist.core.demuxer cimport Demuxer
from mist.core.ebml cimport (
    ATTACHMENTS,
    BLOCK_GROUP,
    BROKEN,
    CHAPTERS,
    CLUSTER,
    CUES,
    EBML_HEADER,
    INFO,
    MORE,
    SEGMENT,
    SIMPLE_BLOCK,
    TAGS,
    TIMESTAMP,
    TRACKS,
    VOID,
    is_unknown,
    read_header,
    read_size,
    read_unsigned,
)
from mist.core.mkv_blocks cimport LACING, MAX_LACES, Group, lace_sizes, read_group
from mist.core.mkv_frames cimport FIXED, MAX_MODES, TrackPlan, exact_ns, frame_ns, inflate, is_formed, put_frame
from mist.core.nal cimport type_mask
from mist.core.packet cimport DISCONTINUITY, KEYFRAME, NEW_INIT, Packet, PacketView
from mist.core.trim cimport trim_flags

from mist.core.demuxer import READ_BYTES
from mist.errors import LimitExceededError, RemoteProtocolError, TruncatedError, UnsupportedError

MAX_TRACKS = PLANS
MAX_BLOCK_BYTES = BLOCK_LIMIT
MAX_HEADER_BYTES = HEADER_LIMIT
NEVER, IN_PARAMETER_SETS, AT_KEYFRAMES = range(3)

cdef enum:
    PLANS = 64
    BLOCK_LIMIT = 64 << 20              # a raw 4K picture has 50 MB
    HEADER_LIMIT = 16 << 20             # of EBML header, Info and Tracks
    READY_BYTES = 32 << 20              # packets that are held until tracks are ready, whatever is missing then
    SIMPLE_KEYFRAME = 0x80
    WHEN_SETS = 1
    WHEN_KEYFRAME = 2
    LEVEL_1 = 0x10000000                # IDs of four bytes: those of a Segment's own elements
    CRC = 0xBF

cdef int64_t LONG_LIMIT = <int64_t> 1 << 56     # of what may be skipped
cdef int64_t READY_NS = 10000000000     # … the same as time
cdef int64_t BACK_US = 5000000          # a Cluster that is earlier than the last one by this much begins a new time line
cdef int64_t MAX_TIME_NS = <int64_t> 1 << 62
cdef uint8_t[4] CLUSTER_ID = [0x1F, 0x43, 0xB6, 0x75]


@cython.final
cdef class MatroskaDemuxer(Demuxer):
    """Reads Matroska and WebM, from files and endless streams.

    Packets are in the order of the file. `position` is where the packet's Cluster begins. Decode times of codecs that reorder are
    made from the presentation times (`mist.core.decode_times`). Tracks of codecs that are not known, and encrypted ones, are passed
    over. A Cluster whose time lies far before the last one's, as in files one behind the other, goes on behind it.

    duration_us: what the file says of its length, 0 where it does not. unix_us: its date, None where it has none.
    """

    cdef object schema
    cdef TrackPlan[PLANS] plans
    cdef int plan_count
    cdef list entries               # what the schema said of each plan; keeps the bytes that plans point to
    cdef list times                 # DecodeTimes of each plan that reorders
    cdef list waiting               # of each plan: (packet, position, flags, presentation time) without a decode time yet
    cdef ByteBuffer pending         # an element that is not whole yet
    cdef ByteBuffer joined          # a frame with what was stripped from it
    cdef ByteBuffer formed          # a frame in the project's form
    cdef size_t needed              # bytes of `pending` that are worth a look
    cdef int64_t parsed             # position of what is parsed next
    cdef uint64_t skip              # bytes from there that nobody wants
    cdef bint begun                 # the EBML header was there
    cdef bint lost                  # after damage: looking for a Cluster
    cdef int64_t lost_at            # since which byte
    cdef int64_t segment_end        # -1 where not known
    cdef int64_t scale_ns           # of a tick
    cdef int64_t cluster_position
    cdef int64_t cluster_end        # -1 where not known
    cdef int64_t cluster_ns
    cdef bint has_cluster_time
    cdef int64_t length_ns          # how long a laced frame lasts; -1 where nobody asks
    cdef int64_t padding_ns         # of the block that is being read
    cdef int64_t shown_ns           # how long its text is shown, 0 where that is not said
    cdef int clearing               # texts that are to go away
    cdef int64_t first_ns
    cdef bint has_first
    cdef int64_t newest_us          # latest presentation time written
    cdef bint has_newest
    cdef int64_t last_cluster_us    # time of the Cluster before, as its packets have it
    cdef size_t waiting_bytes       # in `waiting`
    cdef int64_t hint_us            # decode time of the keyframe that was sought
    cdef int64_t first_cluster      # its position; 0 before it
    cdef readonly int64_t duration_us
    cdef readonly object unix_us

    def __init__(self, schema):
        """Take what reads Info and Tracks: has info(content), tracks(content), complete(track, payload), refreshed(track, payload)."""
        self.schema = schema
        self.entries = []
        self.times = []
        self.waiting = []
        self.pending = ByteBuffer()
        self.joined = ByteBuffer()
        self.formed = ByteBuffer()
        self.scale_ns = 1000000
        self.cluster_end = self.segment_end = -1

    def want(self):
        """Return (position, count) of the bytes to feed next, or None at the end. What can be skipped is skipped."""
        if self.ended:
            return None
        if self.skip and not self.pending.size:
            self.parsed += self.skip
            self.skip = 0
        return self.parsed + <int64_t> self.pending.size, READ_BYTES

    def feed(self, data):
        """Take the bytes at the position that `want()` named. Empty: the input ends there, if need be inside an element.

        Raises RemoteProtocolError where this is no Matroska, or nothing in it can be read.
        """
        cdef const uint8_t[::1] view
        if self.ended:
            return
        if not len(data):
            self.finish()
            return
        view = data
        self.take(&view[0], <size_t> view.shape[0])

    def seek(self, int64_t dts_us, int64_t position):
        """Go on at a Cluster. The keyframe that is sought keeps the decode time it had, if it is the first of its track there."""
        cdef int place
        cdef DecodeTimes times
        self.pending.clear()
        self.waiting_bytes = 0
        self.skip = 0
        self.lost = False
        self.ended = False
        self.parsed = position
        self.cluster_end = -1
        self.has_cluster_time = False
        self.shift_us = self.bases[0] if self.bases else 0
        self.has_newest = False
        self.hint_us = dts_us
        self.clearing = 0
        for place in range(self.plan_count):
            self.plans[place].has_last = False
            self.plans[place].sought = position > self.first_cluster    # from the beginning times are made as they were
            self.plans[place].previous_block = 0
            self.plans[place].clears = False
            self.waiting[place] = []
            if self.times[place] is not None:
                times = <DecodeTimes> self.times[place]
                times.reset()
                times.has_last = False

    # -- bytes to elements -------------------------------------------------------------------------------------------

    cdef int take(self, const uint8_t* data, size_t size) except -1:
        """Parse what is whole where it lies, and keep the rest. Cost: one copy of an element that goes past the end."""
        cdef size_t at = 0
        cdef size_t used, skipped
        while at < size:
            if self.skip:
                used = <size_t> min(self.skip, <uint64_t> (size - at))
                self.skip -= used
                self.parsed += used
                at += used
            elif self.pending.size:
                used = min(self.needed - self.pending.size, size - at)
                self.pending.append(data + at, used)
                at += used
                if self.pending.size < self.needed:
                    return 0
                used = self.parse(self.pending.data, self.pending.size)
                if self.skip and used < self.pending.size:
                    skipped = <size_t> min(self.skip, <uint64_t> (self.pending.size - used))
                    self.skip -= skipped
                    self.parsed += skipped
                    used += skipped
                memmove(self.pending.data, self.pending.data + used, self.pending.size - used)
                self.pending.size -= used
            else:
                at += self.parse(data + at, size - at)
                if at < size and not self.skip:
                    self.pending.append(data + at, size - at)
                    at = size
        return 0

    cdef size_t parse(self, const uint8_t* data, size_t size) except? 0xFFFFFFFF:
        """Take whole elements off data, and return how many bytes they had; where that is not all, `needed` or `skip` is set."""
        cdef size_t at = 0
        cdef size_t used
        while at < size and not self.skip:
            used = self.find_cluster(data + at, size - at) if self.lost else self.one(data + at, size - at)
            if not used:
                break
            at += used
            self.parsed += used
        return at

    cdef size_t one(self, const uint8_t* data, size_t size) except? 0xFFFFFFFF:
        """Take one element, or the head of one that is entered or skipped; 0 with `needed` set if it is not all there."""
        cdef uint32_t element = 0
        cdef uint64_t body = 0
        cdef int head = read_header(data, size, &element, &body)
        if head == MORE:
            self.needed = size + 1
            return 0
        if not self.begun and (head == BROKEN or element != EBML_HEADER):
            raise RemoteProtocolError("no EBML header", offset=self.parsed, spec="RFC 8794 section 11.2.1")
        if head == BROKEN:
            return self.lose()
        if element == SEGMENT or element == CLUSTER:
            self.enter(element, head, body)
            return head
        if 0 <= self.cluster_end <= self.parsed and not follows_clusters(element):
            return self.lose()
        if element == EBML_HEADER or element == INFO or element == TRACKS:
            return self.header_element(element, data, size, head, body)
        if self.parsed < self.cluster_end and body > <uint64_t> (self.cluster_end - self.parsed):
            return self.lose()
        if element == SIMPLE_BLOCK or element == BLOCK_GROUP:
            if body > BLOCK_LIMIT:
                return self.lose()
            return self.block_element(element, data, size, head, body)
        if element == TIMESTAMP:
            if body > 8:
                return self.lose()
            if size < head + body:
                self.needed = <size_t> (head + body)
                return 0
            self.begin_cluster(read_unsigned(data + head, <size_t> body))
            return <size_t> (head + body)
        if is_unknown(body) or body > <uint64_t> (LONG_LIMIT if may_be_long(element) else HEADER_LIMIT):
            return self.lose()
        if self.parsed < self.segment_end and body > <uint64_t> (self.segment_end - self.parsed):
            return self.lose()
        self.skip = body
        return head

    cdef size_t lose(self) except? 0xFFFFFFFF:
        """Begin to look for the next Cluster. Sizes are not trusted any more: where bytes are missing that of the Cluster lies, too."""
        if not self.plan_count:
            raise RemoteProtocolError("damage before the tracks are known", offset=self.parsed, spec="RFC 8794 section 5")
        self.lost = True
        self.lost_at = self.parsed
        return 1

    cdef int note_lost(self, int64_t found) except -1:
        """Write down what was passed over to where a Cluster was found, or the input ends."""
        return self.note_damage(self.lost_at, found - self.lost_at, "no element of a Cluster; passed over up to the next one")

    cdef size_t find_cluster(self, const uint8_t* data, size_t size) except? 0xFFFFFFFF:
        """Pass over what is no Cluster's ID; all but the last three bytes where there is none, which may be its beginning."""
        cdef size_t at = 0
        cdef const void* found
        while at < size:
            found = memchr(data + at, CLUSTER_ID[0], size - at)
            if found is NULL:
                return size
            at = <size_t> (<const uint8_t*> found - data)
            if size - at < 4:
                break
            if memcmp(found, CLUSTER_ID, 4) == 0:
                self.lost = False
                self.note_lost(self.parsed + <int64_t> at)
                self.cluster_end = -1
                return at if at else self.one(data, size)
            at += 1
        if not at:
            self.needed = size + 1
        return at

    cdef int enter(self, uint32_t element, int head, uint64_t body) except -1:
        if element == SEGMENT:
            self.cluster_end = self.segment_end = -1
            if body <= <uint64_t> MAX_TIME_NS:
                self.segment_end = self.parsed + head + <int64_t> body
            return 0
        if not self.plan_count:
            raise RemoteProtocolError("media before Tracks", offset=self.parsed, spec="RFC 9559 section 4.5")
        self.cluster_position = self.parsed
        self.first_cluster = self.first_cluster or self.parsed
        self.cluster_end = -1
        if body <= <uint64_t> MAX_TIME_NS:
            self.cluster_end = self.parsed + head + <int64_t> body
        self.has_cluster_time = False
        return 0

    cdef size_t header_element(
        self, uint32_t element, const uint8_t* data, size_t size, int head, uint64_t body
    ) except? 0xFFFFFFFF:
        """Read an element of the header whole."""
        cdef bytes content
        if body > HEADER_LIMIT:
            if self.plan_count:
                return self.lose()
            raise LimitExceededError(f"a header element of {body} bytes", offset=self.parsed)
        if size < head + body:
            self.needed = <size_t> (head + body)
            return 0
        content = PyBytes_FromStringAndSize(<const char*> data + head, <Py_ssize_t> body)
        if element == EBML_HEADER:
            self.schema.check(content)
            self.begun = True
        elif element == INFO:
            self.scale_ns, self.duration_us, self.unix_us = self.schema.info(content)
        else:
            entries = list(self.schema.tracks(content))
            self.left_out += [text for text in self.schema.left_out if text not in self.left_out]
            self.load(entries)
        return <size_t> (head + body)

    # -- tracks ------------------------------------------------------------------------------------------------------

    cdef int load(self, list entries) except -1:
        """Take the tracks of a Segment; those of a further one take the places of equal codecs."""
        cdef int place
        cdef int known = self.plan_count
        if not entries and not known:
            raise UnsupportedError(self.schema.none_carried(), offset=self.parsed)
        for entry in entries:
            place = self.place_of(entry, known)
            if place >= PLANS:
                raise LimitExceededError(f"more than {PLANS} tracks", offset=self.parsed)
            if place == self.plan_count:
                self.entries.append(entry)
                self.waiting.append([])
                self.times.append(None)
                self.plan_count += 1
                self.plan(place, entry)
                self.set_track(place, entry.info, self.ready)
            elif entry != self.entries[place]:
                self.flush_track(place)
                self.entries[place] = entry
                self.plan(place, entry)
                self.plans[place].fresh = self.tracks[place] != entry.info
                self.set_track(place, entry.info, True)
        return self.check_ready(False)

    cdef int place_of(self, object entry, int known) except -1:
        cdef int place
        for place in range(known):
            if self.plans[place].number == entry.number and self.entries[place].info.codec == entry.info.codec:
                return place
        return self.plan_count

    cdef int plan(self, int place, object entry) except -1:
        """Note what every packet of a track needs. Times of a track that is planned anew go on behind its last one."""
        cdef TrackPlan* plan = &self.plans[place]
        cdef TrackPlan before = plan[0]
        cdef DecodeTimes times = <DecodeTimes> self.times[place]
        cdef bytes stripped = entry.stripped
        cdef int mode
        memset(plan, 0, sizeof(TrackPlan))
        plan.number = entry.number
        plan.index = place
        plan.video = entry.info.type == "video"
        plan.audio = entry.info.type == "audio"
        plan.form = entry.form
        plan.unit_bytes = entry.unit_bytes
        plan.rule = entry.rule
        plan.rule_value = entry.rule_value
        plan.rate_hz = entry.rate_hz
        plan.default_ns = entry.default_ns
        plan.delay_ns = entry.delay_ns
        if plan.rule == FIXED and plan.rate_hz > 0 and plan.delay_ns % self.scale_ns:
            plan.grid_samples = plan.rule_value
        plan.stripped = <const uint8_t*> PyBytes_AS_STRING(stripped)
        plan.stripped_size = <size_t> PyBytes_GET_SIZE(stripped)
        plan.inflate = entry.inflate
        plan.probe = entry.probe
        plan.refresh = entry.refresh
        plan.set_types = entry.set_types
        plan.hevc = entry.info.codec == "HEVC"
        plan.modes = min(<int> len(entry.blocks), MAX_MODES)
        for mode in range(plan.modes):
            plan.blocks[mode] = entry.blocks[mode]
        frame_us = entry.default_ns // 1000
        if not frame_us and entry.info.frame_rate_mhz:
            frame_us = 1000000000 // entry.info.frame_rate_mhz
        plan.last_us, plan.has_last = before.last_us, before.has_last
        if times is not None:
            plan.last_us, plan.has_last = times.last_us, times.has_last
        self.times[place] = None
        if entry.depth:
            times = DecodeTimes(entry.depth, frame_us)
            times.last_us, times.has_last = plan.last_us, plan.has_last
            self.times[place] = times
        return 0

    cdef int check_ready(self, bint anyway) except -1:
        """Become ready once all first packets were seen and the reordering is known."""
        cdef int place
        cdef DecodeTimes times
        if self.ready:
            return 0
        for place in range(self.plan_count):
            times = <DecodeTimes> self.times[place]
            if not anyway and (self.plans[place].probe or (times is not None and not times.known())):
                return 0
        for place in range(self.plan_count):
            times = <DecodeTimes> self.times[place]
            if times is not None and not times.known():
                self.flush_track(place)
        return self.become_ready()

    # -- elements to frames ------------------------------------------------------------------------------------------

    cdef int begin_cluster(self, uint64_t ticks) except -1:
        """Take a Cluster's time; one that cannot be told makes its blocks unreadable."""
        cdef int64_t time_us
        if ticks > <uint64_t> (MAX_TIME_NS // self.scale_ns):
            self.has_cluster_time = False
            return 0
        self.cluster_ns = <int64_t> ticks * self.scale_ns
        self.has_cluster_time = True
        if not self.has_first:
            self.first_ns = self.cluster_ns
            self.has_first = True
        time_us = self.cluster_ns // 1000 + self.shift_us
        if self.has_newest and time_us < self.last_cluster_us - BACK_US:
            self.begin_time_line(self.newest_us - time_us)
            time_us = self.newest_us
        self.last_cluster_us = time_us
        if not self.ready and (self.cluster_ns - self.first_ns > READY_NS or self.held_bytes > READY_BYTES):
            self.check_ready(True)
        return 0

    cdef int begin_time_line(self, int64_t difference_us) except -1:
        """Let all times from here on be later, so that they go on behind the last ones."""
        cdef int place
        self.clear_texts(MAX_TIME_NS)
        for place in range(self.plan_count):
            self.flush_track(place)
            self.plans[place].broken = True
            if self.times[place] is not None:
                (<DecodeTimes> self.times[place]).reset()
        self.shift_us += difference_us
        return 0

    cdef size_t block_element(
        self, uint32_t element, const uint8_t* data, size_t size, int head, uint64_t body
    ) except? 0xFFFFFFFF:
        if size < head + body:
            self.needed = <size_t> (head + body)
            return 0
        if self.has_cluster_time:
            if element == SIMPLE_BLOCK:
                self.padding_ns = 0
                self.block(data + head, <size_t> body, True, False, -1)
            else:
                self.group(data + head, <size_t> body)
        return <size_t> (head + body)

    cdef int group(self, const uint8_t* data, size_t size) except -1:
        cdef Group group
        read_group(data, size, &group)
        if group.block is NULL:
            return 0
        if group.ticks > MAX_TIME_NS // self.scale_ns:
            group.ticks = -1
        self.padding_ns = group.padding_ns
        return self.block(
            group.block, group.size, False, group.keyframe, group.ticks * self.scale_ns if group.ticks >= 0 else -1
        )

    cdef int block(self, const uint8_t* data, size_t size, bint simple, bint keyframe, int64_t duration_ns) except -1:
        """Read a block and write its frames. What is broken in it ends it.   Spec: RFC 9559 section 10."""
        cdef uint64_t number = 0
        cdef int head = read_size(data, size, &number)
        cdef TrackPlan* plan
        cdef size_t[MAX_LACES] sizes
        cdef int64_t time_ns
        cdef int count, place
        cdef size_t at
        if head <= 0 or size < <size_t> head + 3:
            return 0
        plan = self.find_plan(number)
        if plan is NULL:
            return 0
        time_ns = self.cluster_ns + <int16_t> (data[head] << 8 | data[head + 1]) * self.scale_ns
        time_ns = exact_ns(plan, time_ns, self.scale_ns) - plan.delay_ns
        self.shown_ns = duration_ns if duration_ns > 0 else plan.default_ns
        if simple:
            keyframe = data[head + 2] & SIMPLE_KEYFRAME != 0
        if not data[head + 2] & LACING:
            self.length_ns = -1
            return self.frame(plan, data + head + 3, size - head - 3, time_ns, keyframe, True)
        at = <size_t> head + 3
        count = lace_sizes(data, size, data[head + 2] & LACING, &at, sizes)
        for place in range(count):
            self.length_ns = duration_ns // count if duration_ns > 0 else 0
            self.frame(plan, data + at, sizes[place], time_ns, keyframe, place + 1 == count)
            time_ns += self.length_ns
            at += sizes[place]
        return 0

    cdef TrackPlan* find_plan(self, uint64_t number) noexcept:
        cdef int place
        for place in range(self.plan_count):
            if self.plans[place].number == number:
                return &self.plans[place]
        return NULL

    # -- frames to packets -------------------------------------------------------------------------------------------

    cdef int frame(
        self, TrackPlan* plan, const uint8_t* data, size_t size, int64_t time_ns, bint keyframe, bint last
    ) except -1:
        """Write a frame as a packet, in the project's form. last: of its block."""
        cdef PacketView view
        cdef bytes inflated
        if plan.inflate:
            inflated = inflate(data, size, BLOCK_LIMIT)
            data = <const uint8_t*> PyBytes_AS_STRING(inflated)
            size = <size_t> PyBytes_GET_SIZE(inflated)
        elif plan.stripped_size:
            self.joined.clear()
            self.joined.append(plan.stripped, plan.stripped_size)
            self.joined.append(data, size)
            data, size = self.joined.data, self.joined.size
        if self.length_ns >= 0:
            self.length_ns = frame_ns(plan, data, size) or self.length_ns
        if not is_formed(plan, data, size):
            self.formed.clear()
            put_frame(plan, data, size, self.formed)
            data, size = self.formed.data, self.formed.size
        if not size:
            return 0
        view.data = data
        view.size = size
        view.offset_us = 0
        view.flags = KEYFRAME if keyframe or not plan.video else 0
        if last and plan.audio:
            view.flags |= trim_flags(round_us(self.padding_ns))
        self.position = self.cluster_position
        if plan.video and keyframe:
            self.look(plan, &view)
        elif plan.probe and not plan.video:
            self.look(plan, &view)
        if plan.fresh:
            view.flags |= NEW_INIT
            plan.fresh = False
        if plan.broken:
            view.flags |= DISCONTINUITY
            plan.broken = False
        return self.timed(plan, &view, round_us(time_ns) + self.shift_us)

    cdef int look(self, TrackPlan* plan, const PacketView* view) except -1:
        """See what a first packet or keyframe says of its track."""
        cdef bytes payload
        if plan.probe:
            payload = PyBytes_FromStringAndSize(<const char*> view.data, <Py_ssize_t> view.size)
            plan.probe = False
            info = self.schema.complete(self.tracks[plan.index], payload)
            self.change(plan, info)
            return self.check_ready(False)
        if plan.refresh == WHEN_KEYFRAME or (
            plan.refresh == WHEN_SETS and type_mask(view.data, view.size, 4, plan.hevc) & plan.set_types
        ):
            payload = PyBytes_FromStringAndSize(<const char*> view.data, <Py_ssize_t> view.size)
            info = self.schema.refreshed(self.tracks[plan.index], payload)
            if info is not None:
                self.change(plan, info)
        return 0

    cdef int change(self, TrackPlan* plan, object info) except -1:
        if info == self.tracks[plan.index]:
            return 0
        plan.fresh = self.ready
        return self.set_track(plan.index, info, True)

    cdef int timed(self, TrackPlan* plan, PacketView* view, int64_t pts_us) except -1:
        """Give a packet its decode time and write it, or keep it until that is known."""
        cdef DecodeTimes times = <DecodeTimes> self.times[plan.index]
        if not self.has_newest or pts_us > self.newest_us:
            self.newest_us = pts_us
            self.has_newest = True
        if self.clearing:
            self.clear_texts(pts_us)
        if times is None:
            if plan.clears:
                self.clearing -= 1      # the new text takes the place of the one before
                plan.clears = False
            if plan.has_last and pts_us <= plan.last_us:
                pts_us = plan.last_us + 1
            plan.last_us = pts_us
            plan.has_last = True
            view.dts_us = pts_us
            if not plan.video and not plan.audio and self.shown_ns > 0:
                plan.clear_us, plan.clear_position, plan.clears = pts_us + self.shown_ns // 1000, self.cluster_position, True
                self.clearing += 1
            return self.emit(plan.index, view)
        return self.put_in_order(plan.index, times, view, pts_us)

    cdef int put_in_order(self, int place, DecodeTimes times, PacketView* view, int64_t pts_us) except -1:
        """Give a picture its decode time and write it, or keep it until that is known."""
        if self.from_places and view.flags & KEYFRAME and times.known():
            self.flush_track(place)
            times.reset()
        if times.running:
            view.dts_us = times.advance(pts_us)
            view.offset_us = pts_us - view.dts_us
            return self.emit(place, view)
        payload = PyBytes_FromStringAndSize(<const char*> view.data, <Py_ssize_t> view.size)
        self.waiting[place].append((Packet(place, pts_us, 0, view.flags & KEYFRAME != 0, payload), self.position, view.flags))
        self.waiting_bytes += view.size
        if times.add(pts_us) or self.waiting_bytes > READY_BYTES:
            self.flush_track(place)
            self.check_ready(False)
        return 0

    cdef int clear_texts(self, int64_t until_us) except -1:
        """Write an empty packet for each text that goes away up to a time, in their order."""
        cdef PacketView view
        cdef TrackPlan* first
        cdef int64_t position = self.position
        cdef int place
        while self.clearing:
            first = NULL
            for place in range(self.plan_count):
                if self.plans[place].clears and (first is NULL or self.plans[place].clear_us < first.clear_us):
                    first = &self.plans[place]
            if first is NULL or first.clear_us > until_us:
                break
            first.clears = False
            self.clearing -= 1
            view.data, view.size, view.offset_us, view.flags = CLUSTER_ID, 0, 0, KEYFRAME
            view.dts_us = first.last_us = first.clear_us
            self.position = first.clear_position
            self.emit(first.index, &view)
        self.position = position
        return 0

    cdef int flush_track(self, int place) except -1:
        """Write the packets of a track that wait for their decode times."""
        cdef DecodeTimes times = <DecodeTimes> self.times[place]
        cdef Packet packet
        cdef PacketView view
        cdef int number
        cdef int64_t position = self.position
        cdef list waiting = self.waiting[place]
        if times is None or not waiting:
            return 0
        self.waiting[place] = []
        if not self.from_places or times.known():
            times.settle()
        elif times.learn():
            for packet, self.position, flags in waiting:  # the same as when they are read another time
                packet.view(&view)
                view.flags = flags
                self.waiting_bytes -= view.size
                self.put_in_order(place, times, &view, packet.dts_us)
            self.position = position
            return 0
        if self.plans[place].sought:
            for number, (packet, _, _) in enumerate(waiting):
                if packet.keyframe:
                    times.agree(number, self.hint_us)
                    self.plans[place].sought = False
                    break
        for number, (packet, self.position, flags) in enumerate(waiting):
            packet.view(&view)
            view.dts_us = times.decoded[number]
            view.offset_us = packet.dts_us - view.dts_us
            view.flags = flags
            self.waiting_bytes -= view.size
            self.emit(place, &view)
        times.waiting = 0
        self.position = position
        return 0

    cdef int finish(self) except -1:
        """Write what waits. An element that is not whole is dropped: recordings end so when their writer is killed."""
        cdef int place
        self.ended = True
        if not self.plan_count:
            raise TruncatedError("the input ends before its tracks", offset=self.parsed, spec="RFC 9559 section 4.5")
        if self.lost:
            self.note_lost(self.parsed + <int64_t> self.pending.size)
        elif self.pending.size:
            self.note_damage(self.parsed, <int64_t> self.pending.size, "the input ends inside this element")
        for place in range(self.plan_count):
            while self.waiting[place]:
                self.flush_track(place)
        self.clear_texts(MAX_TIME_NS)
        return self.check_ready(True)


cdef inline bint follows_clusters(uint32_t element) noexcept:
    """Tell whether an element may stand behind a Cluster that says where it ends.   Spec: RFC 9559 section 5.1."""
    return element >= LEVEL_1 or element == VOID or element == CRC


cdef inline bint may_be_long(uint32_t element) noexcept:
    """Tell whether an element is known to be skipped at any length: attachments, pictures in tags, indexes. Others are damage then."""
    return element == ATTACHMENTS or element == TAGS or element == CUES or element == CHAPTERS or element == VOID


cdef inline int64_t round_us(int64_t time_ns) noexcept:
    """Return microseconds, rounded to the nearest, halves up."""
    time_ns += 500
    return time_ns // 1000 if time_ns >= 0 else -((999 - time_ns) // 1000)
