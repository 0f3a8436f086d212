"""One track of an MP4 file: its samples in order with their times on the movie's clock.

Spec: ISO/IEC 14496-12 (2022) clauses 8.6.5, 8.6.6 (edit lists).
"""

cimport cython
from libc.stdint cimport INT64_MIN, int64_t, uint32_t
from libc.stdlib cimport calloc, free

from mist.core.frame_samples cimport opus_samples
from mist.core.mp4_fragments cimport FragmentSample
from mist.core.mp4_payloads cimport CUES, LENGTH_AND_TEXT, NAL_UNITS, SKIPPED, size_without_reading
from mist.core.mp4_tables cimport Cursor, Sample
from mist.core.packet cimport PacketView

from mist.errors import LimitExceededError, RemoteProtocolError

cdef enum:
    WALKED_SAMPLES = 4096           # an edit that begins within so many is looked for without marks

cdef int64_t MAX_SECONDS = <int64_t> 1 << 40
cdef int64_t FOREVER = <int64_t> 1 << 61


@cython.final
cdef class TrackReader:
    """Steps through the packets of one track.

    source: the track as `mist.formats.mp4_movie` describes it. movie_timescale: of the durations of its edits.

    An edit list is followed: empty edits shift, media before and after an edit is left out as far as it is not needed for decoding,
    several edits come one after the other. Decode times never go back.
    """

    def __cinit__(self, source, int64_t movie_timescale):
        self.spans = NULL
        self.source = source
        self.table = source.table
        self.timescale = source.timescale
        self.video = source.info.type == "video"
        self.sparse = source.info.type == "meta"
        self.opus = source.info.codec == "opus"
        self.pending = source.pending
        self.late_ticks = self.table.negative_ticks
        self.form_count = <uint32_t> len(source.descriptions)
        if self.form_count > MAX_DESCRIPTIONS or len(source.edits) > MAX_EDITS:
            raise LimitExceededError(f"{self.form_count} sample entries and {len(source.edits)} edits in a track")
        for place, description in enumerate(source.descriptions):
            self.forms[place].kind = description.form
            self.forms[place].width = description.width
            self.altered |= self.forms[place].kind in (NAL_UNITS, LENGTH_AND_TEXT, CUES)
        self.announced = source.first_description
        self.frame_ticks = source.frame_ticks
        self.spans = <Span*> calloc(len(source.edits) + 1, sizeof(Span))
        if self.spans is NULL:
            raise MemoryError
        self.follow_edits(movie_timescale)
        self.rewind()

    def __dealloc__(self):
        free(self.spans)

    # -- Edits

    def follow_edits(self, movie_timescale):
        """Make the spans of the media that are presented."""
        at = 0
        found = False
        self.edit_ticks = self.timescale // movie_timescale + 1
        for duration, media_time, rate in self.source.edits:
            ticks = (duration * self.timescale + movie_timescale // 2) // movie_timescale
            if abs(at) + ticks + abs(media_time) > FOREVER:
                raise RemoteProtocolError(
                    "an elst box with an edit past 2^61 ticks", offset=self.table.base, spec="ISO/IEC 14496-12 clause 8.6.6"
                )
            if media_time < 0 or not rate:
                at += ticks
                continue
            if not found:
                self.fragment_shift_ticks = at - media_time
            if not self.table.count or media_time < self.table.duration_ticks:
                found = True
                self.make_span(media_time, media_time + ticks if duration else FOREVER, at - media_time)
            at += ticks
        if not found:
            self.fragment_shift_ticks = at
            self.make_span(0, FOREVER, at)

    cdef int make_span(self, int64_t media_time, int64_t end_time, int64_t shift) except -1:
        cdef Span* span = &self.spans[self.span_count]
        cdef Cursor cursor
        cdef Sample sample
        cdef int64_t last_time = self.source.media_end or FOREVER
        cdef int64_t end_ticks = min(self.table.duration_ticks, last_time)
        if end_time + self.edit_ticks < end_ticks:    # edits count in the movie's ticks, which may be coarse
            end_ticks = end_time
        end_time = min(end_time, last_time)
        span.end_ticks = end_ticks
        span.first = self.first_for(media_time)
        span.end = self.table.count
        span.shift_ticks = shift
        if end_time < self.table.duration_ticks:
            self.table.go_to_time(&cursor, end_time)
            if self.table.next(&cursor, &sample) > 0:
                span.end = sample.number + (sample.count if sample.dts_ticks < end_time else 0)
        if self.span_count and self.spans[self.span_count - 1].shift_ticks == shift:
            self.spans[self.span_count - 1].end = max(span.end, self.spans[self.span_count - 1].end)
            self.spans[self.span_count - 1].end_ticks = max(span.end_ticks, self.spans[self.span_count - 1].end_ticks)
            return 0
        self.span_count += 1
        return 0

    cdef uint32_t first_for(self, int64_t media_time) except? 0xFFFFFFFF:
        """Return the sample that decoding must begin with to present what is at a media time.

        For video the last sync sample presented up to there, for audio the sample there; AAC decoders need up to a second more.
        """
        cdef Cursor cursor
        cdef Sample sample
        cdef uint32_t found = 0
        cdef uint32_t steps = 0
        cdef int64_t wanted = media_time
        if not self.video and self.source.info.codec == "AAC":
            wanted -= self.timescale
        if wanted <= 0 or not self.table.count:
            return 0
        self.table.rewind(&cursor)
        while steps < WALKED_SAMPLES and self.table.next(&cursor, &sample) > 0 and sample.dts_ticks <= wanted:
            if sample.key and sample.dts_ticks + sample.offset_ticks <= wanted:
                found = sample.number
            steps += 1
        if steps < WALKED_SAMPLES:
            return found
        self.table.go_to_time(&cursor, wanted)
        found = self.table.key_before(cursor.sample)
        while found:
            self.table.go_to_sample(&cursor, found)
            if self.table.next(&cursor, &sample) <= 0 or sample.dts_ticks + sample.offset_ticks <= wanted:
                break
            found = self.table.key_before(found - 1)
        return found

    # -- Stepping

    cdef int64_t us_of(self, int64_t ticks) except? -1:
        """Return microseconds, rounded once, halves up. A clock of under a million ticks a second comes back exactly."""
        cdef int64_t seconds = ticks // self.timescale
        cdef int64_t rest = ticks - seconds * self.timescale
        if rest < 0:    # C divides towards zero
            rest += self.timescale
            seconds -= 1
        if seconds > MAX_SECONDS or seconds < -MAX_SECONDS:
            raise RemoteProtocolError(
                f"a time of {seconds} seconds", offset=self.head.position, spec="ISO/IEC 14496-12 clause 8.6"
            )
        return seconds * 1000000 + (rest * 1000000 + self.timescale // 2) // self.timescale

    cdef int set_head(self, int64_t dts_ticks, int64_t offset_ticks, int64_t shift) except -1:
        cdef int64_t presented = self.us_of(dts_ticks + offset_ticks + shift)
        self.head.dts_us = self.us_of(dts_ticks + shift - self.late_ticks)
        if self.head.dts_us < self.last_us:
            self.head.dts_us = self.last_us
        self.last_us = self.head.dts_us
        self.head.offset_us = presented - self.head.dts_us
        self.has_head = True
        return 1

    cdef int rewind(self) except -1:
        """Go to the first packet."""
        self.span = 0
        self.has_head = False
        self.over = False
        self.last_us = INT64_MIN
        if self.spans[0].first:
            self.table.go_to_sample(&self.cursor, self.spans[0].first)
        else:
            self.table.rewind(&self.cursor)
        return 0

    cdef int load(self) except -1:
        """Make `head` the next packet of the tables and return 1, or 0 at the end."""
        cdef Sample sample
        cdef int found
        if self.has_head:
            return 1
        while True:
            found = 0
            if self.cursor.sample < self.spans[self.span].end:
                found = self.table.next(&self.cursor, &sample)
            if found < 0:
                raise self.table.broken()
            if found == 0:
                if self.span + 1 >= self.span_count:
                    return 0
                self.span += 1
                self.table.go_to_sample(&self.cursor, self.spans[self.span].first)
                continue
            if not self.is_carried(sample.description, sample.size):
                continue
            self.head.position = sample.position
            self.head.resume = sample.position
            self.head.size = sample.size
            self.head.number = sample.number
            self.head.description = sample.description
            self.head.key = sample.key or not self.video
            self.head.rest_ticks = 0
            if sample.number + 1 == self.spans[self.span].end:
                self.head.rest_ticks = max(<int64_t> 0, self.spans[self.span].end_ticks - sample.dts_ticks)
            return self.set_head(sample.dts_ticks, sample.offset_ticks, self.spans[self.span].shift_ticks)

    cdef bint is_carried(self, uint32_t description, size_t size) noexcept:
        """Tell whether a sample has a packet: not when it is empty, or of a codec that is not carried."""
        return (
            description < self.form_count
            and self.forms[description].kind != SKIPPED
            and size_without_reading(&self.forms[description], size) > 0
        )

    cdef int load_fragment(self, const FragmentSample* sample, int64_t negative_ticks) except -1:
        """Make `head` a packet of a fragment and return 1; 0 where the sample is none."""
        if not self.is_carried(sample.description, sample.size):
            return 0
        self.late_ticks = max(self.late_ticks, negative_ticks)
        self.head.position = sample.position
        self.head.resume = sample.fragment
        self.head.size = sample.size
        self.head.number = 0
        if self.head.rest_ticks:
            self.usual_ticks = self.head.rest_ticks
        self.head.rest_ticks = sample.duration
        self.head.description = sample.description
        self.head.key = sample.key or not self.video
        return self.set_head(sample.dts_ticks, sample.offset_ticks, self.fragment_shift_ticks)

    cdef bint may_end(self) noexcept:
        """Tell whether the packet at `head`, of a fragment, lasts less than a frame, as the last one of a track may."""
        cdef int64_t whole = self.usual_ticks if self.opus else self.frame_ticks
        return 0 < self.head.rest_ticks < whole

    def lead_us(self):
        """Return how much of the media lies before what is presented, or 0."""
        cdef int64_t first_us = 0
        if self.table.count:
            if self.load():
                first_us = self.head.dts_us + self.head.offset_us
            self.rewind()
        else:
            first_us = self.us_of(self.fragment_shift_ticks)
        return max(-first_us, 0)

    cdef int64_t trim_us(self, const PacketView* view) except -1:
        """Return how much of the packet at `head` is not to be heard: what is behind the track's end.

        Spec: ISO/IEC 14496-12 clause 8.6.1.2 (the last duration), Encapsulation of Opus in ISOBMFF section 4.4.
        """
        cdef int64_t frame = self.frame_ticks
        if not self.head.rest_ticks:
            return 0    # before the packet is looked at: an index has none but where there is a rest
        if self.opus:
            frame = <int64_t> opus_samples(view) * self.timescale // 48000
        if self.head.rest_ticks >= frame:
            return 0
        return self.us_of(frame - self.head.rest_ticks)

    cdef int go_to_us(self, int64_t dts_us, bint key) except -1:
        """Go before the last packet whose decode time is not after dts_us, or to the first; key: before its keyframe."""
        cdef Sample sample
        cdef int64_t ticks = self.ticks_until(dts_us) + self.late_ticks
        cdef int span = self.span_count - 1
        cdef uint32_t number
        self.rewind()
        while span > 0:
            self.table.go_to_sample(&self.cursor, self.spans[span].first)
            if self.table.next(&self.cursor, &sample) > 0 and sample.dts_ticks + self.spans[span].shift_ticks <= ticks:
                break
            span -= 1
        self.span = span
        self.table.go_to_time(&self.cursor, ticks - self.spans[span].shift_ticks)
        number = self.cursor.sample
        if key and self.video:
            number = self.table.key_before(number)
        if number >= self.spans[span].end:
            number = self.spans[span].end - 1 if self.spans[span].end else 0
            if key and self.video:
                number = self.table.key_before(number)
        if number < self.spans[span].first:
            number = self.spans[span].first
        if number != self.cursor.sample:
            self.table.go_to_sample(&self.cursor, number)
        return 0

    def ticks_until(self, dts_us):
        """Return the last tick that is not after a time."""
        return -((-(2 * dts_us + 1) * self.timescale) // 2000000) - 1
