"""Ogg written: one logical stream for each track, side by side, with the granule positions that its codec wants.

What stands in the header packets comes from the object that the muxer is given (`mist.formats.ogg`).
Specs: RFC 3533, and for times those named in `mist.core.ogg`.
"""

cimport cython
from libc.stdint cimport int64_t, uint8_t, uint32_t
from libc.stdlib cimport calloc, free

from mist.core.buffer cimport ByteBuffer
from mist.core.muxer cimport Muxer
from mist.core.ogg cimport (
    CONTINUED,
    FIRST_PAGE,
    FIXED_RULE,
    FRAME_RULE,
    LAST_PAGE,
    LONG_AGO_US,
    MAX_SEGMENTS,
    NO_GRANULE,
    VORBIS_RULE,
    Clock,
    load_clock,
    packet_ticks,
    seal_page,
    to_ticks,
    to_us,
    write_page,
)
from mist.core.packet cimport KEYFRAME, PacketView
from mist.core.trim cimport trim_of

import struct
from bisect import insort

from mist.core.ogg import serialize_pages
from mist.errors import LimitExceededError, LocalProtocolError

MAX_TRACKS = MAX_OUTPUTS

cdef enum:
    MAX_OUTPUTS = 64
    REMEMBERED_OUTPUTS = 5      # fit into the 128 bytes of state(); others have no memory
    MAX_WAIT_US = 5000000       # of media that pages wait for those of a later stream
    WAITING_BYTES = 4 << 20
    JITTER_HZ = 1000            # times this close to where the last packet ended (1 ms, a common clock) go on exactly there

STATE = struct.Struct("<IBB")
TRACK_STATE = struct.Struct("<Iqqi")

# One logical stream.
cdef struct Output:
    Clock clock
    bint video
    uint32_t serial
    uint32_t next_page
    int64_t end_ticks           # of the last packet; NO_GRANULE before the first
    int64_t key_frame           # Theora: number of the last key frame
    int64_t granule             # of the last packet
    # the page that is being filled
    uint8_t lacing[MAX_SEGMENTS]
    int segments
    bint continued
    int64_t page_granule        # of the last packet that ends in it, -1 if none does
    int64_t begin_us            # dts of its first packet
    int64_t end_us              # of the last packet
    int waiting                 # pages of it that wait


@cython.final
cdef class OggMuxer(Muxer):
    """Muxes tracks into Ogg.

    With page_us 0 each packet is a page (or more) and leaves at once: for live streams, whose viewers may begin at any packet. A viewer
    who joins later sees a gap in the page numbers behind the headers, as with every Ogg stream that is broadcast.
    Otherwise pages are filled up to page_us of media, key frames of video have their own, and all are in order of time; a stream that
    ends early, or is late, holds the others back up to MAX_WAIT_US of media or WAITING_BYTES.

    Times are the packets' own; before 0 (but for Opus's pre-skip) they become 0. Changed tracks begin a new link of the chain.
    """

    cdef object headers
    cdef list infos
    cdef list bodies            # ByteBuffer of the page that is being filled, for each track
    cdef Output* outputs
    cdef int count
    cdef int64_t page_us
    cdef uint32_t link
    cdef bytes head             # header pages of this link
    cdef bint written           # packets of this link were written
    cdef bint heads_next        # the header pages of this link go out with its first packet
    cdef int64_t headed_us      # dts of the packet they went out with, if viewers may begin at it
    cdef list waiting           # pages in order of time: (end_us, number, track, ByteBuffer)
    cdef size_t waiting_bytes

    def __cinit__(self, *args, **kwargs):
        self.outputs = <Output*> calloc(MAX_OUTPUTS, sizeof(Output))
        if self.outputs is NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.outputs)

    def __init__(self, tracks, headers, int64_t page_us=0):
        """Take the tracks (at most MAX_TRACKS).

        headers: has header_packets(track) and timing(track) (`mist.formats.ogg`). page_us: media time in a page.
        Raises UnsupportedError for a codec that Ogg does not carry, RemoteProtocolError for init data that does not parse.
        """
        self.headers = headers
        self.page_us = page_us
        self.headed_us = LONG_AGO_US
        self.link = 0
        self.waiting = []
        self.waiting_bytes = 0
        self.load(list(tracks))

    cdef int load(self, list infos) except -1:
        """Begin a link with these tracks; nothing changes on an error."""
        cdef Clock clock
        cdef Output* output
        cdef int place
        if len(infos) > MAX_OUTPUTS:
            raise LimitExceededError(f"{len(infos)} tracks; at most {MAX_OUTPUTS} go into one Ogg stream")
        packets = [self.headers.header_packets(info) for info in infos]
        timings = [self.headers.timing(info) for info in infos]
        for timing in timings:
            load_clock(&clock, timing)
        self.infos, self.count, self.written = infos, <int> len(infos), False
        self.bodies = [ByteBuffer() for _ in infos]
        for place in range(self.count):
            output = &self.outputs[place]
            load_clock(&output.clock, timings[place])
            output.video = infos[place].type == "video"
            output.serial = (self.link << 8) + <uint32_t> place + 1
            output.end_ticks = output.key_frame = NO_GRANULE
            output.granule = 0
            output.end_us = LONG_AGO_US
            output.waiting = 0
            clear_page(output)
        self.head = self.build_head(packets)
        return 0

    cdef bytes build_head(self, list packets):
        """Return the header pages, video first, and set the number of each track's next page.   Spec: RFC 3533 section 4."""
        cdef int place
        cdef uint32_t pages
        first, others = [], []
        for place in sorted(range(self.count), key=self.comes_late):
            data, _count = serialize_pages(packets[place][:1], self.outputs[place].serial, 0, FIRST_PAGE)
            first.append(data)
            data, pages = serialize_pages(packets[place][1:], self.outputs[place].serial, 1)
            others.append(data)
            self.outputs[place].next_page = pages + 1
        return b"".join(first + others)

    def comes_late(self, int place):
        """Order the streams: video before audio."""
        return not self.outputs[place].video

    def header(self, start_us=0):
        """Return the header pages of all streams; nothing where they are in the output itself, in front of the packet at start_us."""
        return b"" if start_us == self.headed_us else self.head

    def set_tracks(self, tracks):
        """Go on with changed tracks: a new link begins, where anything was written. Raises UnsupportedError, RemoteProtocolError."""
        infos = list(tracks)
        if len(infos) == self.count and all([same_stream(old, new) for old, new in zip(self.infos, infos, strict=True)]):
            self.infos = infos
            return True
        checked = OggMuxer(infos, self.headers, self.page_us)   # refuses here what cannot follow
        if self.written:
            if self.page_us:
                self.end_streams()      # a viewer who begins at the new link must not get the end of the old one
            self.link += 1
            self.heads_next = True
        self.load((<OggMuxer> checked).infos)
        return True

    def state(self):
        """Return link, page numbers and times. Raises LocalProtocolError while a page is being filled (never with page_us 0)."""
        cdef int place
        cdef Output* output
        pieces = [STATE.pack(self.link, self.written, self.heads_next)]
        for place in range(self.count):
            output = &self.outputs[place]
            if output.segments:
                raise LocalProtocolError("a page that is not whole is no state")
            if place < REMEMBERED_OUTPUTS:
                pieces.append(TRACK_STATE.pack(output.next_page, output.end_ticks, output.granule, memory_of(output)))
        return b"".join(pieces)

    def restore(self, state):
        """Go on from what state() returned for the same tracks. Raises LocalProtocolError for anything else."""
        cdef int place
        cdef int remembered = min(self.count, REMEMBERED_OUTPUTS)
        if len(state) != STATE.size + remembered * TRACK_STATE.size:
            raise LocalProtocolError(f"{len(state)} bytes are no state of {self.count} tracks")
        self.link, written, heads_next = STATE.unpack_from(state)
        self.load(self.infos)
        self.written, self.heads_next = written, heads_next
        for place in range(remembered):
            page, end, granule, memory = TRACK_STATE.unpack_from(state, STATE.size + place * TRACK_STATE.size)
            self.outputs[place].next_page, self.outputs[place].end_ticks = page, end
            self.outputs[place].granule = granule
            if self.outputs[place].clock.rule == VORBIS_RULE:
                self.outputs[place].clock.previous_block = self.outputs[place].clock.blocks[1 if memory else 0]
            elif self.outputs[place].clock.rule == FRAME_RULE and end != NO_GRANULE:
                self.outputs[place].key_frame = end - memory

    # -- packets -----------------------------------------------------------------------------------------------------

    cdef int write_view(self, int track, const PacketView* packet) except -1:
        """Append a packet to its stream's page. One that is no packet of its codec is left out.

        Raises LocalProtocolError for a track that is not there.
        """
        cdef Output* output
        cdef int64_t ticks, begin
        cdef bint alone
        if track < 0 or track >= self.count:
            raise LocalProtocolError(f"packet of track {track}; there are {self.count}")
        output = &self.outputs[track]
        ticks = packet_ticks(&output.clock, packet.data, packet.size) if packet.size else -1
        if ticks < 0:
            return 0
        if self.heads_next:
            self.put_heads(track, packet.dts_us)
        begin = begin_of(output, packet.dts_us, ticks)
        alone = self.page_us == 0 or (output.video and packet.flags & KEYFRAME)     # so that its page says what it is
        if output.segments and (
            alone or begin != output.end_ticks or packet.dts_us - output.begin_us >= self.page_us
        ):
            self.end_page(track, 0)
        self.written = True
        if output.clock.rule != FRAME_RULE:
            ticks -= min(ticks, to_ticks(&output.clock, trim_of(packet.flags)))
        set_granule(output, begin, ticks, packet.flags & KEYFRAME != 0)
        self.add(track, packet)
        if alone and output.segments:
            self.end_page(track, 0)
        return 0

    cdef int put_heads(self, int track, int64_t dts_us) except -1:
        """Write the header pages in front of a packet. Viewers begin at packets of the first video track, else of the last track."""
        cdef int place, main = self.count - 1
        for place in range(self.count - 1, -1, -1):
            if self.outputs[place].video:
                main = place
        self.out.write(self.head)
        self.heads_next = False
        self.headed_us = dts_us if track == main else LONG_AGO_US
        return 0

    cdef int add(self, int track, const PacketView* packet) except -1:
        """Add a packet to the page that is being filled, and end the pages that it fills."""
        cdef Output* output = &self.outputs[track]
        cdef ByteBuffer body = <ByteBuffer> self.bodies[track]
        cdef size_t left = packet.size
        cdef size_t length
        cdef const uint8_t* data = packet.data
        if not output.segments:
            output.begin_us = packet.dts_us
        while True:
            length = min(left, <size_t> 255)
            body.append(data, length)
            output.lacing[output.segments] = <uint8_t> length
            output.segments += 1
            data += length
            left -= length
            if length < 255:
                output.page_granule = output.granule
            if output.segments == MAX_SEGMENTS:
                self.end_page(track, 0)
                output.continued = length == 255
                output.begin_us = packet.dts_us
            if length < 255:
                return 0

    # -- pages -------------------------------------------------------------------------------------------------------

    cdef int end_page(self, int track, uint8_t flags) except -1:
        """End the page that is being filled, and write it or let it wait for its turn."""
        cdef Output* output = &self.outputs[track]
        cdef ByteBuffer body = <ByteBuffer> self.bodies[track]
        cdef ByteBuffer page = self.out if self.page_us == 0 else ByteBuffer()
        if output.continued:
            flags |= CONTINUED
        write_page(page, flags, output.page_granule, output.serial, output.next_page, output.lacing, output.segments,
                   body.data, body.size)
        output.next_page += 1
        body.clear()
        clear_page(output)
        if self.page_us:
            output.waiting += 1
            self.waiting_bytes += page.size
            insort(self.waiting, (output.end_us, output.next_page, track, page))
            self.write_waiting()
        return 0

    cdef int write_waiting(self) except -1:
        """Write the pages whose turn has come: every stream is past their end, so that all are in order and none is the last."""
        cdef int track, place
        cdef int64_t end_us, newest_us = LONG_AGO_US
        for place in range(self.count):
            newest_us = max(newest_us, self.outputs[place].end_us)
        while self.waiting:
            end_us, _number, track, _page = self.waiting[0]
            if newest_us - end_us < MAX_WAIT_US and self.waiting_bytes < WAITING_BYTES:
                if self.outputs[track].waiting < 2 and not self.outputs[track].segments:
                    break
                if not self.all_reach(end_us):
                    break
            self.write_first()
        return 0

    cdef bint all_reach(self, int64_t end_us) noexcept:
        cdef int place
        for place in range(self.count):
            if self.outputs[place].end_us < end_us:
                return False
        return True

    cdef int write_first(self) except -1:
        cdef ByteBuffer page
        cdef int track
        _end_us, _number, track, page = self.waiting.pop(0)
        self.outputs[track].waiting -= 1
        self.waiting_bytes -= page.size
        return self.out.append(page.data, page.size)

    cdef int end_streams(self) except -1:
        """Write all pages, the last of every stream marked; an empty one is added where the last one has gone already."""
        cdef int place
        cdef ByteBuffer page
        for place in range(self.count):
            if self.outputs[place].segments or not self.outputs[place].waiting:
                self.end_page(place, LAST_PAGE)
        for place in range(self.count):
            for _end_us, _number, track, page in reversed(self.waiting):
                if track == place:
                    mark_last(page)
                    break
        while self.waiting:
            self.write_first()
        return 0

    def finish(self):
        """Write what is left, and the end of every stream that was begun: FFmpeg sends new FLAC set-up after the last packet."""
        if not self.heads_next:
            self.end_streams()


cdef void clear_page(Output* output) noexcept:
    output.segments = 0
    output.continued = False
    output.page_granule = -1


cdef bint same_stream(object old, object new) except -1:
    """Tell whether a track's stream can go on."""
    return old.codec == new.codec and old.init_data == new.init_data and old.language == new.language


cdef int64_t memory_of(const Output* output) noexcept:
    """Return what else the next packet depends on: Vorbis: whether the last block was long; Theora: frames since the key frame."""
    if output.clock.rule == VORBIS_RULE:
        return output.clock.previous_block != output.clock.blocks[0]
    if output.clock.rule == FRAME_RULE and output.end_ticks != NO_GRANULE:
        return min(output.end_ticks - output.key_frame, <int64_t> 0x7FFFFFFF)
    return 0


cdef int64_t begin_of(const Output* output, int64_t dts_us, int64_t duration) noexcept:
    """Return the ticks at which a packet begins: where the last one ended, if its time is near that."""
    cdef const Clock* clock = &output.clock
    cdef int64_t begin = to_ticks(clock, dts_us)
    cdef int64_t jitter = clock.rate_numerator // (clock.rate_denominator * JITTER_HZ) + 1
    if clock.rule == FRAME_RULE:
        return max(begin, output.end_ticks, <int64_t> 0)
    if output.end_ticks != NO_GRANULE and -jitter <= begin - output.end_ticks <= jitter:
        return output.end_ticks
    # No page may end before 0; those of Opus and FLAC must not begin there either.
    return max(begin, -duration if clock.rule == VORBIS_RULE or clock.rule == FIXED_RULE else -clock.pre_skip)


cdef void set_granule(Output* output, int64_t begin, int64_t duration, bint key) noexcept:
    """Set where a packet ends, and its granule position."""
    cdef Clock* clock = &output.clock
    cdef int64_t since, most
    output.end_ticks = begin + duration
    output.end_us = max(output.end_us, to_us(clock, output.end_ticks))
    if clock.rule != FRAME_RULE:
        output.granule = max(output.granule, output.end_ticks + clock.pre_skip)
        return
    most = (<int64_t> 1 << clock.granule_shift) - 1
    if key:
        output.key_frame = begin
    since = begin - output.key_frame if output.key_frame != NO_GRANULE else begin
    since = min(since, most, begin)     # a shift too small for the distance cannot say it
    output.granule = ((begin - since + clock.first_frame) << clock.granule_shift) | since


cdef int mark_last(ByteBuffer page) except -1:
    """Mark a page as the last of its stream."""
    page.data[5] |= LAST_PAGE
    seal_page(page.data, page.size)
    return 0
