"""Fragmented MP4 for live viewers: one `moof` and `mdat` for each packet, the moment it is there.

Spec: ISO/IEC 14496-12 (2022) clause 8.8. A fragment of a packet costs 96 bytes of boxes, 100 to 112 with what differs from
sample to sample or past 2^32 ticks. `ftyp` and `moov` come from the movie description that the muxer is given
(`mist.formats.mp4_boxes.LiveMovie`).
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from mist.core.frame_samples cimport eac3_samples, flac_samples, mpeg_audio_samples, opus_samples
from mist.core.muxer cimport Muxer
from mist.core.packet cimport KEYFRAME, PacketView
from mist.core.track_buffer cimport KEY_RECORD
from mist.core.trim cimport trim_of

import struct

from mist.errors import LimitExceededError, LocalProtocolError, UnsupportedError

MAX_TRACKS = MAX_PLANS
MAX_PACKET_BYTES = MAX_SAMPLE_BYTES

_DESCRIBED_BY_PACKETS = frozenset({"AC3", "EAC-3"})

cdef enum:
    MAX_PLANS = 64
    REMEMBERED_TRACKS = 9           # their recent times fit into the 128 bytes of state(); others have no memory
    JUMP_DUE = 0x80000000           # in a duration of state()
    ALL_TRACKS = 0x1FF              # the remembered ones
    MAX_SAMPLE_BYTES = 0x7FFFFF00   # keeps mdat's size and the box sizes inside 32 bits

    VIDEO_RULE = 0                  # how to learn a packet's duration
    FIXED_RULE = 1
    OPUS_RULE = 2
    MPEG_AUDIO_RULE = 3
    EAC3_RULE = 4
    FLAC_RULE = 5
    UNKNOWN_RULE = 6
    EVENT_RULE = 7                  # no sample, but an event beside the fragments

    # tfhd, trun and sample flags, clauses 8.8.7, 8.8.8 and 8.8.3.1
    DEFAULT_BASE_IS_MOOF = 0x020000
    DATA_OFFSET_PRESENT = 0x000001
    FIRST_SAMPLE_FLAGS_PRESENT = 0x000004
    DURATION_PRESENT = 0x000100
    SIZE_PRESENT = 0x000200
    OFFSET_PRESENT = 0x000800
    TRUN_VERSION_1 = 0x01000000     # signed composition offsets
    TFDT_VERSION_1 = 0x01000000     # 64-bit decode time
    SYNC_SAMPLE = 0x02000000

    EVENT_VERSION_1 = 0x01000000    # emsg with a time of its own
    UNKNOWN_DURATION = 0xFFFFFFFF
    EVENT_HEAD_BYTES = 33           # of the box with its header, without its scheme's text and the message

    LONGEST_GUESS_S = 10            # no frame is taken to last longer than this

cdef int64_t MAX_TIME_US = <int64_t> 1 << 62
cdef int64_t MAX_OFFSET_US = <int64_t> 1 << 40

_RULES = {
    "AAC": FIXED_RULE,
    "AC3": FIXED_RULE,
    "opus": OPUS_RULE,
    "MP3": MPEG_AUDIO_RULE,
    "EAC-3": EAC3_RULE,
    "FLAC": FLAC_RULE,
}

# What is remembered of a track's last packet. duration: audio: what was written; video: distance to the packet before.
cdef struct History:
    int64_t dts_ticks
    uint32_t duration_ticks
    bint known

cdef struct Plan:
    int rule
    uint32_t timescale
    uint32_t default_ticks      # what trex says
    uint32_t frame_ticks        # usual duration of a video frame
    bint in_band                # parameter sets go in front of keyframes
    History history


@cython.final
cdef class Mp4FragmentMuxer(Muxer):
    """Packets in, movie fragments out; the header is an init segment, the same for all who join.

    Decode times are the stream's own, so a viewer's clock begins where the stream is when it joins. They are rounded from
    the packet's microseconds and not summed up, so that no error grows; only audio that is within the rounding of a
    millisecond clock of where the last packet ended goes on exactly there. Composition times are exact to a tick. Times
    before zero, which the format cannot write, become zero.

    H.264 and HEVC tracks are avc1 and hvc1. After their init data has changed, their parameter sets stand in front of
    every keyframe that has none, which all demuxers tried play (avc3 and hev1 would say so, but Apple's players refuse them).

    Packets of metadata are events, `emsg` of version 1, between the fragments.   Spec: ISO/IEC 23009-1 clause 5.10.3.3.
    """

    cdef object movie
    cdef list infos
    cdef list parameter_sets        # of each track, as they stand in front of a keyframe
    cdef list schemes               # of each track of events, b"" for others
    cdef dict payloads              # a packet of each track that is described by one
    cdef int track_count
    cdef uint32_t sequence
    cdef uint32_t jumps             # tracks whose next fragment's number leaves one out, bit by bit
    cdef bint has_video
    cdef Plan[MAX_PLANS] plans

    def __init__(self, tracks, movie):
        """Take the tracks and the description of their boxes.

        tracks: up to 64 TrackInfo. movie: has init_segment(tracks, payloads), timing(track),
        parameter_sets(track), event_scheme(track) and follows(old, new).
        Raises UnsupportedError for a codec without a place in MP4, RemoteProtocolError for init data that does not parse.
        """
        self.movie = movie
        self.infos = []
        self.parameter_sets = []
        self.schemes = []
        self.payloads = {}
        self.track_count = 0
        self.sequence = 0
        memset(self.plans, 0, sizeof(self.plans))
        if len(tracks) > MAX_PLANS:
            raise LimitExceededError(f"{len(tracks)} tracks; at most {MAX_PLANS} go into one movie")
        for info in tracks:
            self.plan(self.track_count, info)
            self.has_video = self.has_video or info.type == "video"
            self.infos.append(info)
            self.parameter_sets.append(movie.parameter_sets(info))
            self.schemes.append(movie.event_scheme(info))
            self.track_count += 1
        movie.init_segment(self.infos, None)   # refuses here what it cannot describe, not when a viewer waits for it

    cdef int plan(self, int place, object info) except -1:
        cdef Plan* plan = &self.plans[place]
        timing = self.movie.timing(info)
        plan.timescale = timing.timescale
        plan.default_ticks = timing.default_ticks
        plan.frame_ticks = min(timing.frame_ticks, plan.timescale * LONGEST_GUESS_S)
        plan.rule = VIDEO_RULE if info.type == "video" else _RULES.get(info.codec, UNKNOWN_RULE)
        if info.type == "meta":
            plan.rule = EVENT_RULE
        return 0

    def header(self, start_us=0):
        """Return the init segment. start_us: not used, times are absolute."""
        return self.movie.init_segment(self.infos, self.payloads)

    def set_tracks(self, tracks):
        """Go on with changed tracks.

        Returns False, and changes nothing, where viewers would need another `moov`: for a new track that is no metadata, a change of
        codec, sample rate or channels, or of the set-up of AAC or Opus.
        """
        added = tracks[self.track_count:]
        if not self.track_count <= len(tracks) <= MAX_PLANS or [info for info in added if not self.movie.event_scheme(info)]:
            return False
        for old, new in zip(self.infos, tracks):
            if old.type != new.type or not self.movie.follows(old, new):
                return False
        sets = [self.movie.parameter_sets(info) for info in tracks]
        for place, info in enumerate(tracks):
            self.plan(place, info)
            if place < self.track_count and sets[place] != self.parameter_sets[place]:
                self.plans[place].in_band = True
        self.infos = list(tracks)
        self.parameter_sets = sets
        self.schemes = [self.movie.event_scheme(info) for info in tracks]
        self.track_count = <int> len(tracks)
        return True

    def state(self):
        """Return the fragment counter, which tracks have parameter sets in band, and the tracks' last times."""
        cdef int place
        cdef uint64_t in_band = 0
        for place in range(self.track_count):
            if self.plans[place].in_band:
                in_band |= <uint64_t> 1 << place
        pieces = [struct.pack(">IQ", self.sequence, in_band)]
        for place in range(min(self.track_count, REMEMBERED_TRACKS)):
            jump = JUMP_DUE if self.jumps >> place & 1 else 0
            if not self.plans[place].history.known:
                pieces.append(struct.pack(">qI", -1, jump))
            else:
                duration = self.plans[place].history.duration_ticks
                pieces.append(struct.pack(">qI", self.plans[place].history.dts_ticks, duration | jump))
        return b"".join(pieces)

    def restore(self, state):
        """Go on from what state() returned for the same tracks. Raises LocalProtocolError for anything else."""
        cdef int place
        cdef Plan* plan
        cdef int remembered = min(self.track_count, REMEMBERED_TRACKS)
        if len(state) != 12 + 12 * remembered:
            raise LocalProtocolError(f"{len(state)} bytes are no state of {self.track_count} tracks")
        sequence, in_band = struct.unpack_from(">IQ", state)
        self.sequence = sequence
        for place in range(self.track_count):
            self.plans[place].in_band = (in_band >> place) & 1
            self.plans[place].history.known = False
        self.jumps = 0
        for place in range(remembered):
            dts_ticks, duration_ticks = struct.unpack_from(">qI", state, 12 + 12 * place)
            plan = &self.plans[place]
            plan.history.known = dts_ticks >= 0
            plan.history.dts_ticks = dts_ticks
            plan.history.duration_ticks = duration_ticks & ~<uint32_t> JUMP_DUE
            if duration_ticks & JUMP_DUE:
                self.jumps |= <uint32_t> 1 << place

    cdef int write_view(self, int track, const PacketView* packet) except -1:
        """Append one fragment. A packet without payload is left out: an empty sample is an error to decoders.

        Raises LocalProtocolError for a track that is not there, UnsupportedError for a packet over 2 GiB.
        """
        cdef Plan* plan
        cdef int64_t dts_us
        cdef int64_t dts_ticks
        cdef int64_t offset_ticks = 0
        cdef uint32_t duration
        cdef bytes sets = None
        if track < 0 or track >= self.track_count:
            raise LocalProtocolError(f"packet of track {track}; there are {self.track_count}")
        if not packet.size:
            return 0
        plan = &self.plans[track]
        if plan.rule == EVENT_RULE:
            return self.write_event(track, packet)
        if plan.in_band and packet.flags & KEYFRAME:
            sets = self.parameter_sets[track]
            if has_parameter_set(packet, self.infos[track].codec == "HEVC"):
                sets = None
        if packet.size + (PyBytes_GET_SIZE(sets) if sets is not None else 0) > MAX_SAMPLE_BYTES:
            raise UnsupportedError(f"a packet of {packet.size} bytes is too large for MP4")
        if plan.rule == FIXED_RULE or plan.rule == EAC3_RULE:
            self.keep_description(track, packet)
        dts_us = max(-MAX_TIME_US, min(MAX_TIME_US, packet.dts_us))
        dts_ticks = decode_time(plan, dts_us)
        duration = packet_duration(plan, packet, dts_ticks)
        if packet.offset_us or plan.rule == VIDEO_RULE:
            offset_ticks = (
                to_ticks(dts_us + max(-MAX_OFFSET_US, min(MAX_OFFSET_US, packet.offset_us)), plan.timescale) - dts_ticks
            )
            offset_ticks = max(-0x7FFFFFFF, min(0x7FFFFFFF, offset_ticks))
        if track < REMEMBERED_TRACKS:
            remember(plan, dts_ticks, duration)
        if plan.rule == VIDEO_RULE and packet.flags & KEYFRAME if self.has_video else packet.flags & KEY_RECORD:
            self.begin_here()
        if track < REMEMBERED_TRACKS and self.jumps >> track & 1:
            self.jumps &= ~(<uint32_t> 1 << track)
            self.sequence += self.sequence != 0
        self.write_fragment(track, packet, sets, dts_ticks, duration, <int32_t> offset_ticks)
        return 0

    cdef int write_event(self, int track, const PacketView* packet) except -1:
        """Append one event. Its number follows from time and message, so that it is the same wherever it is written again."""
        cdef bytes scheme = self.schemes[track]
        cdef size_t scheme_size = <size_t> PyBytes_GET_SIZE(scheme)
        cdef size_t size = EVENT_HEAD_BYTES + scheme_size + packet.size + 1
        cdef int64_t time_us = packet.dts_us + max(-MAX_OFFSET_US, min(MAX_OFFSET_US, packet.offset_us))
        cdef int64_t ticks = to_ticks(max(<int64_t> 0, min(MAX_TIME_US, time_us)), self.plans[track].timescale)
        cdef uint8_t* at
        if packet.size > MAX_SAMPLE_BYTES:
            raise UnsupportedError(f"a packet of {packet.size} bytes is too large for MP4")
        at = put32(put_box(self.out.reserve(size), <uint32_t> size, b"emsg"), EVENT_VERSION_1)
        at = put32(at, self.plans[track].timescale)
        at = put32(put32(at, <uint32_t> (<uint64_t> ticks >> 32)), <uint32_t> ticks)
        at = put32(put32(at, UNKNOWN_DURATION), event_number(packet, ticks))
        memcpy(at, PyBytes_AS_STRING(scheme), scheme_size)
        at += scheme_size
        at[0], at[1] = 0, 0     # ends the scheme; an empty value
        memcpy(at + 2, packet.data, packet.size)
        self.out.commit(size)
        return 0

    cdef int begin_here(self) except -1:
        """Leave a number out before the next fragment of each track.

        Numbers need only rise (ISO/IEC 14496-12 section 8.8.5). VLC looks at a fragment's decode time only where one is missing, and
        takes the first sound after the picture that a viewer begins with for one of time 0 otherwise: too late to be played.
        """
        self.jumps = ALL_TRACKS
        return 0

    cdef int keep_description(self, int track, const PacketView* packet) except -1:
        """Keep the first packet of a track whose set-up box is made from one."""
        if track not in self.payloads and self.infos[track].codec in _DESCRIBED_BY_PACKETS:
            self.payloads[track] = PyBytes_FromStringAndSize(<const char*> packet.data, <Py_ssize_t> packet.size)
        return 0

    cdef int write_fragment(
        self, int track, const PacketView* packet, bytes sets, int64_t dts_ticks, uint32_t duration, int32_t offset_ticks
    ) except -1:
        cdef Plan* plan = &self.plans[track]
        cdef size_t sets_size = <size_t> PyBytes_GET_SIZE(sets) if sets is not None else 0
        cdef uint32_t size = <uint32_t> (packet.size + sets_size)
        cdef uint32_t flags = DATA_OFFSET_PRESENT | SIZE_PRESENT
        cdef uint32_t tfdt_size = 16 if dts_ticks < <int64_t> 1 << 32 else 20
        cdef uint32_t trun_size = 24
        cdef uint32_t moof_size
        cdef uint8_t* begin
        cdef uint8_t* at
        if duration != plan.default_ticks:
            flags |= DURATION_PRESENT
            trun_size += 4
        if plan.rule == VIDEO_RULE and packet.flags & KEYFRAME:
            flags |= FIRST_SAMPLE_FLAGS_PRESENT
            trun_size += 4
        if offset_ticks:
            flags |= OFFSET_PRESENT
            trun_size += 4
        moof_size = 8 + 16 + 8 + 16 + tfdt_size + trun_size
        self.sequence += 1
        begin = self.out.reserve(<size_t> moof_size + 8 + size)
        at = begin
        at = put_box(at, moof_size, b"moof")
        at = put32(put32(put_box(at, 16, b"mfhd"), 0), self.sequence)
        at = put_box(at, moof_size - 24, b"traf")
        at = put32(put32(put_box(at, 16, b"tfhd"), DEFAULT_BASE_IS_MOOF), <uint32_t> track + 1)
        at = put_box(at, tfdt_size, b"tfdt")
        if tfdt_size == 20:
            at = put32(put32(at, TFDT_VERSION_1), <uint32_t> (<uint64_t> dts_ticks >> 32))
        else:
            at = put32(at, 0)
        at = put32(at, <uint32_t> dts_ticks)
        at = put32(put_box(at, trun_size, b"trun"), TRUN_VERSION_1 | flags)
        at = put32(put32(at, 1), moof_size + 8)
        if flags & FIRST_SAMPLE_FLAGS_PRESENT:
            at = put32(at, SYNC_SAMPLE)
        if flags & DURATION_PRESENT:
            at = put32(at, duration)
        at = put32(at, size)
        if flags & OFFSET_PRESENT:
            at = put32(at, <uint32_t> offset_ticks)
        at = put_box(at, 8 + size, b"mdat")
        if sets_size:
            memcpy(at, PyBytes_AS_STRING(sets), sets_size)
        memcpy(at + sets_size, packet.data, packet.size)
        self.out.commit(<size_t> (at - begin) + size)
        return 0


cdef inline uint8_t* put32(uint8_t* at, uint32_t value) noexcept:
    at[0] = <uint8_t> (value >> 24)
    at[1] = <uint8_t> (value >> 16)
    at[2] = <uint8_t> (value >> 8)
    at[3] = <uint8_t> value
    return at + 4


cdef inline uint8_t* put_box(uint8_t* at, uint32_t size, const char* kind) noexcept:
    memcpy(put32(at, size), kind, 4)
    return at + 8


cdef uint32_t event_number(const PacketView* packet, int64_t ticks) noexcept:
    """Return what differs from event to event: FNV-1a of the message, begun with the time."""
    cdef uint32_t number = <uint32_t> 2166136261 ^ <uint32_t> ticks
    cdef size_t place
    for place in range(packet.size):
        number = (number ^ packet.data[place]) * <uint32_t> 16777619
    return number


cdef inline int64_t to_ticks(int64_t time_us, int64_t timescale) noexcept:
    """Return ticks, rounded once, halves up. |time_us| <= 2^62, timescale < 10^6, so nothing overflows."""
    cdef int64_t seconds = time_us // 1000000
    cdef int64_t rest = time_us - seconds * 1000000
    if rest < 0:    # C divides towards zero
        rest += 1000000
        seconds -= 1
    return seconds * timescale + (rest * timescale + 500000) // 1000000


cdef int64_t decode_time(const Plan* plan, int64_t dts_us) noexcept:
    """Return the decode time to write: never negative, rising, and for audio exactly where the last packet ended if the
    difference is no more than two roundings to milliseconds make."""
    cdef int64_t exact = to_ticks(dts_us, plan.timescale)
    cdef int64_t follow
    cdef int64_t tolerance
    cdef int64_t last = plan.history.dts_ticks
    if not plan.history.known:
        return max(exact, 0)
    if plan.rule != VIDEO_RULE:
        follow = last + plan.history.duration_ticks
        tolerance = plan.timescale // 1000 + 1
        if follow - tolerance <= exact <= follow + tolerance:
            return follow
    if exact <= last and last - exact < plan.timescale:
        return last + 1
    return max(exact, 0)


cdef void remember(Plan* plan, int64_t dts_ticks, uint32_t duration) noexcept:
    cdef int64_t distance = dts_ticks - plan.history.dts_ticks
    cdef int64_t longest = <int64_t> plan.timescale * LONGEST_GUESS_S
    if plan.rule == VIDEO_RULE:
        plan.history.duration_ticks = (
            <uint32_t> distance if plan.history.known and 0 < distance <= longest else plan.frame_ticks
        )
    else:
        plan.history.duration_ticks = duration
    plan.history.dts_ticks = dts_ticks
    plan.history.known = True


cdef uint32_t packet_duration(const Plan* plan, const PacketView* packet, int64_t dts_ticks) noexcept:
    """Return how long a packet will last: what its codec says; else, for video, the usual frame or, where the last frame
    lasted longer, as long as that one (players that wait for a gap of two frames to call it one must not do so when the frame
    rate drops)."""
    cdef uint64_t samples = 0
    cdef int64_t distance = 0
    cdef uint32_t longest = plan.timescale * LONGEST_GUESS_S
    if plan.rule == VIDEO_RULE:
        if plan.history.known and 0 < dts_ticks - plan.history.dts_ticks <= longest:
            distance = dts_ticks - plan.history.dts_ticks
        if plan.frame_ticks == 0 and distance == 0:
            return plan.timescale // 25
        return max(<uint32_t> distance, plan.frame_ticks)
    if plan.rule == FIXED_RULE:
        samples = plan.default_ticks
    elif plan.rule == OPUS_RULE:
        samples = opus_samples(packet) * plan.timescale // 48000
    elif plan.rule == MPEG_AUDIO_RULE:
        samples = mpeg_audio_samples(packet)
    elif plan.rule == EAC3_RULE:
        samples = eac3_samples(packet)
    elif plan.rule == FLAC_RULE:
        samples = flac_samples(packet)
    if samples:
        return <uint32_t> max(<int64_t> 1, <int64_t> samples - to_ticks(trim_of(packet.flags), plan.timescale))
    return plan.history.duration_ticks if plan.history.known else plan.timescale // 50


cdef bint has_parameter_set(const PacketView* packet, bint hevc) noexcept:
    """Return whether one of the NAL units before the first slice is a sequence parameter set."""
    cdef size_t at = 0
    cdef size_t length
    cdef int kind
    while at + 5 <= packet.size:
        length = (
            <size_t> packet.data[at] << 24
            | <size_t> packet.data[at + 1] << 16
            | <size_t> packet.data[at + 2] << 8
            | packet.data[at + 3]
        )
        kind = packet.data[at + 4] >> 1 & 63 if hevc else packet.data[at + 4] & 31
        if kind == (33 if hevc else 7):
            return True
        if kind < 32 if hevc else 1 <= kind <= 5:
            return False
        at += 4 + length
    return False
