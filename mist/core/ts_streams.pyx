"""One PID of a transport stream, the clock of its program, and the times of its access units.

Spec: ISO/IEC 13818-1 sections 2.4.3.3 (continuity), 2.4.3.6 and 2.4.3.7 (PES packets and their time stamps).
"""

cimport cython
from libc.stdint cimport int64_t, uint8_t
from libc.string cimport memcmp, memcpy

from mist.core.access_units cimport Av1Reader, AudioReader, LatmStreamReader, Unit, WholeReader
from mist.core.buffer cimport ByteBuffer
from mist.core.picture_readers cimport Mpeg2Reader, NalReader
from mist.core.timeline cimport Timeline
from mist.core.ts_sections cimport SectionReader

cdef enum:
    NEAR_WRAP_TICKS = 5400000       # a first time this close below 2^33 is meant to be negative: 60 s
    DRIFT_US = 1000                 # how far counted samples may be from the time stamps; other formats round to milliseconds
    USUAL_STEP_US = 40000
    MAX_STEP_US = 2000000

cdef int64_t WRAP_TICKS = <int64_t> 1 << 33

# Samples of which every frame has a multiple, where frames of a stream may differ in length. Each takes longer than twice DRIFT_US.
FRAME_SAMPLES = {"AAC": 1024, "AC3": 256, "EAC-3": 256, "opus": 120}

AUDIO_FORMS = {
    "AAC": "adts", "MP3": "mpeg", "MP2": "mpeg", "AC3": "ac3", "EAC-3": "ac3", "DTS": "dts", "opus": "opus", "JSON": "sized",
}


cdef inline int64_t signed_ticks(int64_t ticks) noexcept nogil:
    """Return a difference of two 33-bit times as a signed number."""
    ticks &= WRAP_TICKS - 1
    return ticks - WRAP_TICKS if ticks >= WRAP_TICKS >> 1 else ticks


cdef inline int64_t microseconds(int64_t ticks) noexcept nogil:
    """Return 90 kHz ticks as microseconds, rounded."""
    cdef int64_t wide = ticks * 100 + 4
    return wide // 9 if wide >= 0 else -((8 - wide) // 9)


cdef int64_t read_stamp(const uint8_t* data, int prefix) noexcept nogil:
    """Return a PTS or DTS; -1 for one that is broken."""
    if data[0] >> 4 != prefix or not data[0] & data[2] & data[4] & 1:
        return -1
    return <int64_t> (data[0] >> 1 & 7) << 30 | data[1] << 22 | (data[2] >> 1) << 15 | data[3] << 7 | data[4] >> 1


cdef int read_pes_header(const uint8_t* data, size_t size, PesHeader* header) noexcept nogil:
    """Read the header of a PES packet as far as it is there."""
    cdef int length, flags
    if size < 9:
        return HEADER_MORE
    # Without this header: program stream map and directory, padding, private_stream_2, ECM, EMM, DSM-CC, H.222.1 type E.
    if data[0] or data[1] or data[2] != 1 or data[3] in (0xBC, 0xBE, 0xBF, 0xF0, 0xF1, 0xF2, 0xF8, 0xFF):
        return HEADER_USELESS
    if data[6] & 0xF0 != 0x80:
        return HEADER_USELESS
    header.size = 9 + data[8]
    if size < header.size:
        return HEADER_MORE
    length = data[4] << 8 | data[5]
    header.body_bytes = -1
    if length:
        header.body_bytes = length - 3 - data[8]
        if header.body_bytes < 0:
            return HEADER_USELESS
    header.aligned = data[6] & 4 != 0
    header.stamped = False
    header.pts = header.dts = 0
    flags = data[7] >> 6
    if flags & 2 and data[8] >= (10 if flags & 1 else 5):
        header.pts = header.dts = read_stamp(data + 9, flags)
        if flags & 1:
            header.dts = read_stamp(data + 14, 1)
        header.stamped = header.pts >= 0 and header.dts >= 0
    return HEADER_GOOD


@cython.final
cdef class ProgramClock:
    """The time base of a program: 33-bit times made endless, and put on a timeline without jumps."""

    def __cinit__(self):
        self.timeline = Timeline()

    cdef int64_t unwrap(self, int64_t ticks) noexcept:
        """Return a time as the one that is nearest to the last one."""
        if self.has_ticks:
            self.ticks += signed_ticks(ticks - self.ticks)
        else:
            self.ticks = ticks - WRAP_TICKS if ticks >= WRAP_TICKS - NEAR_WRAP_TICKS else ticks
            self.has_ticks = True
        return self.ticks

    cdef int resume(self, int64_t dts_us) except -1:
        """Go on near a time of the output."""
        self.ticks = (dts_us - self.timeline.shift_us) * 9 // 100
        self.has_ticks = True
        self.timeline.resume(dts_us)
        return 0


@cython.final
cdef class TsStream:
    """What is known of one PID."""

    def __init__(self, int pid, int role, ProgramClock clock=None, description=None, int number=0, tuple order=()):
        self.pid = pid
        self.role = role
        self.clock = clock
        self.description = description
        self.number = number
        self.order = order
        self.counter = -1
        self.track = -1
        self.aligned = True
        self.head = ByteBuffer()
        self.step_us = USUAL_STEP_US
        self.sparse = description is not None and description.type == "meta"
        if role != MEDIA:
            self.sections = SectionReader(role != SECTIONS)
        else:
            self.video = description.type == "video"
            self.frame_samples = FRAME_SAMPLES.get(description.codec, 0)
            self.reader = make_reader(description.codec)

    cdef void reset(self) noexcept:
        """Forget what came last: what comes next is from another place."""
        self.counter = -1
        if self.sections is not None:
            self.sections.open = False
            self.sections.counter = -1
            return
        self.reader.reset()
        self.listening = self.in_header = self.has_time = self.has_anchor = False
        self.asked = self.told = False
        self.times = None
        self.waiting = None

    cdef int set_rate(self, int rate_mhz) except -1:
        """Take the distance of pictures from a frame rate, frames per 1000 s; 0 unknown."""
        if rate_mhz > 0:
            self.step_us = (1000000000 + rate_mhz // 2) // rate_mhz
        return 0

    cdef bint continues(self, int counter, bint broken) noexcept:
        """Tell whether nothing is missing before a packet with this counter."""
        cdef bint follows = self.counter < 0 or broken or counter == (self.counter + 1) & 15
        self.counter = counter
        return follows

    cdef bint repeats(self, int counter, const uint8_t* data, size_t size) noexcept:
        """Tell whether a packet is the last one once more, and not one of another stream behind it whose counter is the same by chance.

        data, size: its payload, which is remembered.   Spec: ISO/IEC 13818-1 section 2.4.3.3 (duplicate packets).
        """
        cdef size_t sampled = min(size, <size_t> SAMPLED)
        cdef bint equal = counter == self.counter and sampled == self.sampled and memcmp(self.sample, data, sampled) == 0
        memcpy(self.sample, data, sampled)
        self.sampled = sampled
        return equal

    cdef bint time_unit(self, const Unit* unit, int64_t* dts_us, int64_t* offset_us) noexcept:
        """Set the times of an access unit, before the timeline; False: nothing tells them."""
        cdef bint stamped = unit.mark.stamped
        cdef int64_t stamp_us = 0
        if stamped:
            stamp_us = microseconds(self.clock.unwrap(unit.mark.dts))
        elif not self.has_time:
            return False
        if unit.samples:
            dts_us[0] = self.sample_time(unit, stamped, stamp_us)
            offset_us[0] = 0
        elif stamped:
            dts_us[0] = stamp_us
            offset_us[0] = microseconds(self.clock.ticks + signed_ticks(unit.mark.pts - unit.mark.dts)) - stamp_us
            if self.has_time and 0 < stamp_us - self.stamp_us <= MAX_STEP_US * self.units:
                self.step_us = (stamp_us - self.stamp_us) // self.units
            self.stamp_us = stamp_us
            self.units = 0
        else:
            dts_us[0] = self.dts_us + (self.step_us if self.video else 0)
            offset_us[0] = self.offset_us
            if unit.ordered:
                offset_us[0] = max(<int64_t> 0, self.offset_us + (unit.lead - self.lead) * self.step_us)
        self.units += 1
        self.lead = unit.lead
        self.has_time = True
        self.dts_us = dts_us[0]
        self.offset_us = offset_us[0]
        return True

    cdef int64_t sample_time(self, const Unit* unit, bint stamped, int64_t stamp_us) noexcept:
        """Return the time of an audio frame: counted in samples from a time stamp, as long as later ones agree."""
        cdef int64_t time_us = stamp_us
        if self.has_anchor:
            time_us = self.anchor_us + (self.samples * 1000000 + self.rate_hz // 2) // self.rate_hz
        if not self.has_anchor or self.rate_hz != unit.rate_hz or (
            stamped and not -DRIFT_US <= stamp_us - time_us <= DRIFT_US
        ):
            if stamped:
                time_us = stamp_us
            self.anchor_us = time_us
            self.samples = 0
            self.rate_hz = unit.rate_hz
            self.has_anchor = self.anchored = unit.rate_hz > 0
        self.samples += unit.samples
        return time_us

    cdef void count_from(self, const Unit* unit, int64_t anchor_us, uint32_t rate_hz) noexcept:
        """Go on counting at a unit with a time stamp as if all had been read since an anchor."""
        cdef int64_t since_us = microseconds(self.clock.unwrap(unit.mark.dts)) - anchor_us
        cdef int64_t step = self.frame_samples or unit.samples
        if since_us < 0 or rate_hz != unit.rate_hz:
            return
        self.anchor_us = anchor_us
        self.rate_hz = rate_hz
        self.samples = (since_us * rate_hz // 1000000 + step // 2) // step * step
        self.has_anchor = True


cdef object make_reader(str codec):
    if codec == "H264" or codec == "HEVC":
        return NalReader(codec == "HEVC")
    if codec == "MPEG2":
        return Mpeg2Reader()
    if codec == "AV1":
        return Av1Reader()
    if codec == "LATM":
        return LatmStreamReader()
    if codec in AUDIO_FORMS:
        return AudioReader(AUDIO_FORMS[codec])
    return WholeReader(codec == "KLV")
