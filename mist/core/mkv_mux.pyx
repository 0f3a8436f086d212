"""Matroska and WebM muxer: packets in, an endless stream or a seekable file out.

A block is written when its packet comes. Clusters have no known size while they grow and begin wherever a viewer may join, so what
comes out is valid at every moment; a file's sizes, duration and seek index are put in afterwards (`finish` and `patches`).
Block times are the packets' presentation times in milliseconds.   Spec: RFC 9559 sections 4.5, 5.1.3, 10.2; WebM container guidelines.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy, memset

from mist.core.ebml cimport (
    BLOCK,
    BLOCK_DURATION,
    BLOCK_GROUP,
    CLUSTER,
    DISCARD_PADDING,
    SIMPLE_BLOCK,
    TIMESTAMP,
    put_id,
    put_size,
)
from mist.core.muxer cimport Muxer
from mist.core.nal cimport type_mask
from mist.core.packet cimport KEYFRAME, PacketView
from mist.core.track_buffer cimport KEY_RECORD
from mist.core.trim cimport trim_of

import struct

from mist.errors import LimitExceededError, LocalProtocolError, UnsupportedError

MAX_TRACKS = PLANS
CLUSTER_MS = LONGEST_MS
CLUSTER_BYTES = LARGEST_BYTES
MAX_CUES = CUE_LIMIT

cdef enum:
    PLANS = 64
    LONGEST_MS = 5000
    SOUND_MS = 120          # no usual packet of sound is longer
    LARGEST_BYTES = 5000000
    REACH_MS = 32000            # between a Cluster's time and a block's, which has 16 bits
    MAX_BLOCK = (1 << 28) - 8   # its size fits 4 bytes
    CUE_LIMIT = 1 << 17
    SIMPLE_KEYFRAME = 0x80
    MAX_HEAD = 64               # of a Cluster and a block
    PADDING_BYTES = 5           # of a DiscardPadding: nanoseconds of what a packet's flags can say

cdef int64_t MAX_TIME_MS = <int64_t> 1 << 50
cdef int64_t LONGEST_TEXT_US = 30000000     # a text that goes away later, or not, is shown as long as reading takes
cdef uint8_t[8] UNKNOWN = [1, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF]

STATE = struct.Struct("<BqQQQ")
TIMES = struct.Struct("<Bqqq")
LAST = struct.Struct("<Bqq")
HELD = struct.Struct("<qI")
COUNTS = struct.Struct("<QQ")


cdef struct Plan:
    bint video
    bint text               # blocks say how long they last
    bint in_band            # parameter sets go in front of keyframes
    bint hevc
    uint64_t set_types
    int64_t delay_us
    int64_t last_ms         # of the block before, for the duration of the file
    int64_t step_ms
    bint has_last
    bint held               # a text waits for what says how long it is shown
    int64_t held_us


cdef struct Cue:
    int64_t time_ms
    int64_t cluster         # bytes of media before its Cluster
    int track


cdef struct ClusterStart:
    int64_t at
    int64_t bytes


@cython.final
cdef class MatroskaMuxer(Muxer):
    """Writes one Segment. Track numbers are places in the list of tracks, from 1.

    The header does not depend on what came before, so every viewer gets the same one, and media from the beginning of a Cluster:
    at video keyframes, without video at listed keys. H.264 and HEVC tracks whose init data changed have their parameter sets in
    front of every keyframe that has none. Other codecs cannot change theirs within one Segment.
    """

    cdef object schema
    cdef bint webm
    cdef bint indexed
    cdef list infos
    cdef list sets              # of each track, its parameter sets as NAL units
    cdef list texts             # of each track, the text that waits
    cdef int held_count
    cdef object layout          # of the header as it was first
    cdef bytes head             # the header as it is now
    cdef bytes tail             # what `finish` queued
    cdef Plan[PLANS] plans
    cdef int count
    cdef bint has_video
    cdef bint open_cluster
    cdef int64_t cluster_ms
    cdef uint64_t cluster_bytes     # of the open Cluster, from its content's first
    cdef uint64_t total             # bytes of media so far
    cdef Cue* cues
    cdef size_t cue_count
    cdef size_t cue_capacity
    cdef int64_t cue_distance_ms
    cdef ClusterStart* clusters
    cdef size_t cluster_count
    cdef size_t cluster_capacity
    cdef int64_t first_ms
    cdef int64_t end_ms
    cdef bint has_times
    cdef bint finished
    cdef uint64_t changes           # of the index

    def __cinit__(self, *args, **kwargs):
        self.cues = NULL
        self.clusters = NULL

    def __dealloc__(self):
        free(self.cues)
        free(self.clusters)

    def __init__(self, tracks, schema, bint webm=False, bint indexed=False):
        """Make a muxer for tracks.

        schema: has header(tracks, webm, indexed), plan(track), parameter_sets(track), follows(old, new), index(layout, points)
        and ends(layout, media bytes, index bytes, milliseconds).
        webm: the document is WebM, which knows few codecs. indexed: keep what `finish` and `patches` need: 24 bytes a Cluster and
        keyframe. Raises UnsupportedError for a track that the document cannot carry; LimitExceededError for more than MAX_TRACKS.
        """
        self.schema = schema
        self.webm = webm
        self.indexed = indexed
        self.infos = []
        self.sets = []
        self.texts = []
        memset(self.plans, 0, sizeof(self.plans))
        if len(tracks) > PLANS:
            raise LimitExceededError(f"{len(tracks)} tracks; at most {PLANS} go into one Segment")
        for info in tracks:
            self.plan(self.count, info)
            self.infos.append(info)
            self.texts.append(b"")
            self.sets.append(schema.parameter_sets(info))
            self.count += 1
        self.layout = schema.header(self.infos, webm, indexed)
        self.head = self.layout.data
        self.tail = b""

    cdef int plan(self, int place, object info) except -1:
        cdef Plan* plan = &self.plans[place]
        found = self.schema.plan(info)
        plan.video = info.type == "video"
        plan.text = found.text
        plan.hevc = info.codec == "HEVC"
        plan.set_types = found.set_types
        plan.delay_us = found.delay_us
        plan.step_ms = found.frame_ms
        self.has_video = self.has_video or plan.video
        return 0

    def header(self, start_us=0):
        """Return EBML header, Segment, Info and Tracks. start_us: not used, times are absolute."""
        return self.head

    def set_tracks(self, tracks):
        """Go on with changed tracks. Returns False for new tracks and for changes that the format cannot tell within a Segment."""
        tracks = list(tracks)
        if len(tracks) != self.count:
            return False
        for old, new in zip(self.infos, tracks, strict=True):
            if not self.schema.follows(old, new):
                return False
        cdef int place
        for place, new in enumerate(tracks):
            if new.init_data != self.infos[place].init_data and self.plans[place].set_types:
                self.plans[place].in_band = True
                self.sets[place] = self.schema.parameter_sets(new)
        self.infos = tracks
        self.head = self.schema.header(tracks, self.webm, self.indexed).data
        return True

    def state(self):
        """Return the open Cluster's time and size, the bytes written, and which tracks have parameter sets in front of keyframes."""
        cdef uint64_t in_band = 0
        cdef int place
        for place in range(self.count):
            in_band |= (<uint64_t> self.plans[place].in_band) << place
        return STATE.pack(self.open_cluster, self.cluster_ms, self.cluster_bytes, self.total, in_band)

    def restore(self, state):
        """Go on from `state()`, in a muxer with the same tracks. Raises LocalProtocolError if it is none."""
        cdef int place
        cdef uint64_t in_band
        if len(state) != STATE.size:
            raise LocalProtocolError(f"muxer state of {len(state)} bytes")
        self.open_cluster, self.cluster_ms, self.cluster_bytes, self.total, in_band = STATE.unpack(state)
        for place in range(self.count):
            self.plans[place].in_band = in_band >> place & 1

    def file_state(self):
        """Return `state()` and what the end of a file needs of times."""
        cdef int place
        pieces = [self.state(), TIMES.pack(self.has_times, self.first_ms, self.end_ms, self.cue_distance_ms)]
        for place in range(self.count):
            pieces.append(LAST.pack(self.plans[place].has_last, self.plans[place].last_ms, self.plans[place].step_ms))
        for place in range(self.count):
            if self.plans[place].held:
                pieces.append(HELD.pack(self.plans[place].held_us, place) + len(self.texts[place]).to_bytes(4, "big") + self.texts[place])
        return b"".join(pieces)

    @property
    def index_number(self):
        return self.changes

    def index(self):
        """Return the Clusters and the places to seek to."""
        return (
            COUNTS.pack(self.cluster_count, self.cue_count)
            + PyBytes_FromStringAndSize(<const char*> self.clusters, self.cluster_count * sizeof(ClusterStart))
            + PyBytes_FromStringAndSize(<const char*> self.cues, self.cue_count * sizeof(Cue))
        )

    def restore_file(self, state, index):
        """Go on with a file. Raises LocalProtocolError for what `file_state` and `index` of the same tracks did not return."""
        cdef int place
        cdef size_t clusters, cues
        cdef bytes text = index
        if len(state) < STATE.size + TIMES.size + self.count * LAST.size or len(text) < COUNTS.size:
            raise LocalProtocolError(f"file state of {len(state)} bytes, index of {len(text)}")
        clusters, cues = COUNTS.unpack_from(text)
        if (
            cues > CUE_LIMIT or clusters > <size_t> len(text)
            or <size_t> len(text) != COUNTS.size + clusters * sizeof(ClusterStart) + cues * sizeof(Cue)
        ):
            raise LocalProtocolError(f"an index of {len(text)} bytes for {clusters} Clusters and {cues} places")
        self.restore(state[:STATE.size])
        self.has_times, self.first_ms, self.end_ms, self.cue_distance_ms = TIMES.unpack_from(state, STATE.size)
        for place in range(self.count):
            has_last, last_ms, step_ms = LAST.unpack_from(state, STATE.size + TIMES.size + place * LAST.size)
            self.plans[place].has_last, self.plans[place].last_ms, self.plans[place].step_ms = has_last, last_ms, step_ms
        self.restore_texts(state[STATE.size + TIMES.size + self.count * LAST.size:])
        self.clusters = <ClusterStart*> realloc(self.clusters, (clusters + 256) * sizeof(ClusterStart))
        self.cues = <Cue*> realloc(self.cues, (cues + 256) * sizeof(Cue))
        if self.clusters is NULL or self.cues is NULL:
            raise MemoryError
        self.cluster_count, self.cluster_capacity = clusters, clusters + 256
        self.cue_count, self.cue_capacity = cues, cues + 256
        memcpy(self.clusters, PyBytes_AS_STRING(text) + <size_t> COUNTS.size, clusters * sizeof(ClusterStart))
        memcpy(
            self.cues, PyBytes_AS_STRING(text) + <size_t> COUNTS.size + clusters * sizeof(ClusterStart), cues * sizeof(Cue)
        )

    def restore_texts(self, state):
        """Let the texts wait again that a file's state has behind its times."""
        cdef Py_ssize_t at = 0
        cdef int place
        while at < len(state):
            try:
                held_us, place = HELD.unpack_from(state, at)
                size = int.from_bytes(state[at + HELD.size:at + HELD.size + 4], "big")
            except struct.error:
                raise LocalProtocolError(f"file state with {len(state)} bytes of texts") from None
            at += HELD.size + 4
            if place >= self.count or not self.plans[place].text or self.plans[place].held or size > len(state) - at:
                raise LocalProtocolError(f"file state with a text of {size} bytes for track {place}")
            self.texts[place] = state[at:at + size]
            self.plans[place].held, self.plans[place].held_us = True, held_us
            self.held_count += 1
            at += size

    # -- blocks ------------------------------------------------------------------------------------------------------

    cdef int write_view(self, int track, const PacketView* packet) except -1:
        cdef Plan* plan
        if track < 0 or track >= self.count:
            raise LocalProtocolError(f"track {track} of {self.count}")
        plan = &self.plans[track]
        if self.held_count:
            self.release(track, packet.dts_us)
        if plan.text and (not packet.size or (packet.size == 1 and packet.data[0] == c" ")):
            return 0    # takes the text before it away, which its duration does
        if plan.text and self.indexed and packet.size <= MAX_BLOCK:
            plan.held, plan.held_us = True, packet.dts_us + packet.offset_us
            self.texts[track] = PyBytes_FromStringAndSize(<const char*> packet.data, <Py_ssize_t> packet.size)
            self.held_count += 1
            return 0
        return self.write_block(plan, track, packet, 0)

    cdef int release(self, int track, int64_t dts_us) except -1:
        """Write the texts that wait and need not any more: that of a track, up to its next packet, and those that waited for long.

        track: -1 for all, whose end is not known.
        """
        cdef int place
        cdef Plan* plan
        cdef PacketView packet
        cdef bytes text
        cdef int64_t shown_us
        for place in range(self.count):
            plan = &self.plans[place]
            if not plan.held:
                continue
            shown_us = dts_us - plan.held_us
            if place != track and track >= 0 and shown_us <= LONGEST_TEXT_US:
                continue
            plan.held = False
            self.held_count -= 1
            text = self.texts[place]
            self.texts[place] = b""
            packet.data, packet.size = <const uint8_t*> PyBytes_AS_STRING(text), <size_t> PyBytes_GET_SIZE(text)
            packet.dts_us, packet.offset_us, packet.flags = plan.held_us, 0, KEYFRAME
            known = place == track and 0 < shown_us <= LONGEST_TEXT_US
            self.write_block(plan, place, &packet, max(to_ms(shown_us), 1) if known else 0)
        return 0

    cdef int write_block(self, Plan* plan, int track, const PacketView* packet, int64_t shown_ms) except -1:
        """Write a packet. shown_ms: of a text, 0 where that is not known."""
        cdef int64_t time_ms, dts_ms
        cdef size_t before = self.out.size
        if packet.size > MAX_BLOCK:
            raise UnsupportedError(f"a packet of {packet.size} bytes is too large for Matroska")
        time_ms = to_ms(packet.dts_us + packet.offset_us + plan.delay_us)
        dts_ms = to_ms(packet.dts_us + plan.delay_us)
        if not -MAX_TIME_MS < time_ms < MAX_TIME_MS or not -MAX_TIME_MS < dts_ms < MAX_TIME_MS:
            raise UnsupportedError(f"a time of {packet.dts_us} microseconds", spec="RFC 9559 section 5.1.3.1")
        if self.must_begin(plan, packet, time_ms, dts_ms):
            self.begin_cluster(dts_ms if -REACH_MS < time_ms - max(dts_ms, 0) < REACH_MS else time_ms)
        if self.indexed:
            self.note(plan, track, packet, time_ms)
        self.put_block(plan, track, packet, max(-REACH_MS, min(REACH_MS, time_ms - self.cluster_ms)), shown_ms)
        self.cluster_bytes += self.out.size - before
        self.total += self.out.size - before
        return 0

    cdef bint must_begin(self, const Plan* plan, const PacketView* packet, int64_t time_ms, int64_t dts_ms) noexcept:
        """Tell whether a packet begins a Cluster: where one may join, and where the open one is long, large or too far away."""
        if not self.open_cluster:
            return True
        if packet.flags & KEYFRAME and plan.video if self.has_video else packet.flags & KEY_RECORD:
            return True
        if not -REACH_MS < time_ms - self.cluster_ms < REACH_MS:
            return True
        return dts_ms > self.cluster_ms and (dts_ms - self.cluster_ms >= LONGEST_MS or self.cluster_bytes >= LARGEST_BYTES)

    cdef int begin_here(self) except -1:
        self.open_cluster = False
        return 0

    cdef int begin_cluster(self, int64_t time_ms) except -1:
        """Append a Cluster's head. Times before zero, which it cannot have, are said by its blocks."""
        cdef uint8_t* begin = self.out.reserve(MAX_HEAD)
        cdef uint8_t* at = put_id(begin, CLUSTER)
        cdef size_t head
        memcpy(at, UNKNOWN, 8)
        at += 8
        head = at - begin
        self.cluster_ms = max(time_ms, 0)
        at = put_unsigned(put_id(at, TIMESTAMP), <uint64_t> self.cluster_ms)
        self.out.commit(at - begin)
        if self.indexed:
            self.note_cluster(head)
        # What write_view adds is the whole head; the content begins behind ID and size.
        self.cluster_bytes = 0
        self.cluster_bytes -= head
        self.open_cluster = True
        return 0

    cdef int put_block(self, const Plan* plan, int track, const PacketView* packet, int64_t relative_ms, int64_t shown_ms) except -1:
        cdef bytes sets
        cdef size_t sets_size = 0
        cdef size_t group_size
        cdef uint64_t size
        cdef uint8_t* begin
        cdef uint8_t* at
        cdef uint64_t duration_ms = 0
        cdef int64_t padding_ns = trim_of(packet.flags) * 1000
        if plan.in_band and packet.flags & KEYFRAME and not type_mask(packet.data, packet.size, 4, plan.hevc) & plan.set_types:
            sets = self.sets[track]
            sets_size = <size_t> PyBytes_GET_SIZE(sets)
        size = 4 + sets_size + packet.size
        begin = self.out.reserve(size + MAX_HEAD)
        at = begin
        if plan.text:
            duration_ms = <uint64_t> shown_ms or 800 + 75 * packet.size
            group_size = 1 + size_length(size) + size + 2 + unsigned_length(duration_ms)
            at = put_size(put_id(at, BLOCK_GROUP), group_size)
            at = put_id(at, BLOCK)
        elif padding_ns:
            at = put_size(put_id(at, BLOCK_GROUP), 1 + size_length(size) + size + 3 + PADDING_BYTES)
            at = put_id(at, BLOCK)
        else:
            at = put_id(at, SIMPLE_BLOCK)
        at = put_size(at, size)
        at[0] = <uint8_t> (0x80 | (track + 1))
        at[1] = <uint8_t> (relative_ms >> 8)
        at[2] = <uint8_t> relative_ms
        at[3] = SIMPLE_KEYFRAME if packet.flags & KEYFRAME and not plan.text and not padding_ns else 0
        at += 4
        if sets_size:
            memcpy(at, PyBytes_AS_STRING(sets), sets_size)
            at += sets_size
        if packet.size:
            memcpy(at, packet.data, packet.size)
            at += packet.size
        if plan.text:
            at = put_unsigned(put_id(at, BLOCK_DURATION), duration_ms)
        elif padding_ns:
            at = put_padding(put_id(at, DISCARD_PADDING), padding_ns)
        self.out.commit(at - begin)
        return 0

    # -- what a file gets at its end ---------------------------------------------------------------------------------

    cdef int note_cluster(self, size_t head) except -1:
        """Keep where a Cluster's content begins, and how long the one before it is."""
        cdef ClusterStart* grown
        if self.cluster_count == self.cluster_capacity:
            self.cluster_capacity = max(<size_t> 256, self.cluster_capacity * 2)
            grown = <ClusterStart*> realloc(self.clusters, self.cluster_capacity * sizeof(ClusterStart))
            if grown is NULL:
                raise MemoryError
            self.clusters = grown
        if self.cluster_count:
            self.clusters[self.cluster_count - 1].bytes = <int64_t> self.cluster_bytes
        self.clusters[self.cluster_count].at = <int64_t> (self.total + head)
        self.clusters[self.cluster_count].bytes = 0
        self.cluster_count += 1
        self.changes += 1
        return 0

    cdef int note(self, Plan* plan, int track, const PacketView* packet, int64_t time_ms) except -1:
        """Keep a packet's time for the duration, and its place if it is one to seek to."""
        cdef int64_t end_ms
        cdef int64_t since_ms = time_ms - plan.last_ms
        if plan.has_last and since_ms > 0 and (
            plan.video or plan.text or plan.step_ms == 0 or since_ms <= max(2 * plan.step_ms + 1, <int64_t> SOUND_MS)
        ):                                                          # else it is silence that is not sent
            plan.step_ms = min(since_ms, <int64_t> LONGEST_MS)
        plan.last_ms = time_ms
        plan.has_last = True
        if not self.has_times or time_ms < self.first_ms:
            self.first_ms = time_ms
        end_ms = time_ms + plan.step_ms - min(plan.step_ms, to_ms(trim_of(packet.flags)))
        if not self.has_times or end_ms > self.end_ms:
            self.end_ms = end_ms
        self.has_times = True
        if packet.flags & KEYFRAME and (plan.video if self.has_video else not plan.text):
            self.note_cue(track, time_ms)
        return 0

    cdef int note_cue(self, int track, int64_t time_ms) except -1:
        """Keep a place to seek to; of very many, every second one. Without video one for each Cluster is enough."""
        cdef Cue* grown
        cdef size_t place
        cdef int64_t cluster = self.clusters[self.cluster_count - 1].at - 12
        if self.cue_count and (
            time_ms - self.cues[self.cue_count - 1].time_ms < self.cue_distance_ms
            or (not self.has_video and self.cues[self.cue_count - 1].cluster == cluster)
        ):
            return 0
        if self.cue_count == CUE_LIMIT:
            for place in range(CUE_LIMIT // 2):
                self.cues[place] = self.cues[2 * place]
            self.cue_count = CUE_LIMIT // 2
            self.cue_distance_ms = 2 * (self.cues[self.cue_count - 1].time_ms - self.cues[0].time_ms) // <int64_t> self.cue_count
        if self.cue_count == self.cue_capacity:
            self.cue_capacity = max(<size_t> 256, self.cue_capacity * 2)
            grown = <Cue*> realloc(self.cues, self.cue_capacity * sizeof(Cue))
            if grown is NULL:
                raise MemoryError
            self.cues = grown
        self.cues[self.cue_count].time_ms = time_ms
        self.cues[self.cue_count].cluster = cluster
        self.cues[self.cue_count].track = track
        self.cue_count += 1
        self.changes += 1
        return 0

    def finish(self):
        """Queue the index of keyframes. A stream that cannot be changed any more is complete with it, and without."""
        cdef size_t place
        if self.finished:
            return
        self.release(-1, 0)
        self.finished = True
        if not self.indexed or not self.cluster_count:
            return
        self.clusters[self.cluster_count - 1].bytes = <int64_t> self.cluster_bytes
        points = [
            (max(self.cues[place].time_ms, 0), self.cues[place].track + 1, self.cues[place].cluster)
            for place in range(self.cue_count)
        ]
        self.tail = self.schema.index(self.layout, points)
        self.out.write(self.tail)

    def patches(self):
        """Return (position, bytes) pairs to be written over the file, after `finish`.

        Positions count from the header's first byte, the header being what `header` returned before any track changed.
        They give sizes to Segment and Clusters, the duration, and where the index is.
        """
        cdef size_t place
        cdef int64_t length_ms = 0
        if not self.indexed:
            return []
        if self.has_times:
            length_ms = max(self.end_ms - self.first_ms, <int64_t> 0)
        base = len(self.layout.data)
        found = self.schema.ends(self.layout, self.total, len(self.tail), length_ms)
        for place in range(self.cluster_count):
            size = int(self.clusters[place].bytes) | 1 << 56
            found.append((base + self.clusters[place].at - 8, size.to_bytes(8, "big")))
        return found


cdef inline int64_t to_ms(int64_t time_us) noexcept:
    """Return milliseconds, rounded to the nearest, halves up."""
    cdef int64_t value
    if time_us > <int64_t> 1 << 62:
        return MAX_TIME_MS
    value = time_us + 500
    return value // 1000 if value >= 0 else -((999 - value) // 1000)


cdef inline int unsigned_length(uint64_t value) noexcept:
    cdef int length = 1
    while length < 8 and value >> (8 * length):
        length += 1
    return length


cdef inline int size_length(uint64_t value) noexcept:
    cdef int length = 1
    while value >= ((<uint64_t> 1) << (7 * length)) - 1:
        length += 1
    return length


cdef uint8_t* put_padding(uint8_t* at, int64_t padding_ns) noexcept:
    """Write size and content of a signed integer element that is positive; returns the place behind it."""
    cdef int place
    at[0] = 0x80 | PADDING_BYTES
    for place in range(PADDING_BYTES):
        at[place + 1] = <uint8_t> (padding_ns >> (8 * (PADDING_BYTES - 1 - place)))
    return at + PADDING_BYTES + 1


cdef uint8_t* put_unsigned(uint8_t* at, uint64_t value) noexcept:
    """Write size and content of an unsigned integer element; returns the place behind it."""
    cdef int length = unsigned_length(value)
    cdef int place
    at[0] = <uint8_t> (0x80 | length)
    for place in range(length):
        at[place + 1] = <uint8_t> (value >> (8 * (length - 1 - place)))
    return at + length + 1
