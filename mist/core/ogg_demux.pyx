"""Ogg streams and files read: pages, packets over several pages, streams side by side and one after the other.

What stands in the header packets is read by the object that the demuxer is given (`mist.formats.ogg`).
Specs: RFC 3533, and for times those named in `mist.core.ogg`.
"""

cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport int64_t, uint8_t, uint32_t
from libc.string cimport memchr, memcmp

from mist.core.buffer cimport ByteBuffer
from mist.core.byte_stream cimport ByteStreamDemuxer
from mist.core.ogg cimport (
    CONTINUED,
    FIRST_PAGE,
    FRAME_RULE,
    LAST_PAGE,
    LONG_AGO_US,
    MAX_SEGMENTS,
    NO_GRANULE,
    PAGE_HEADER_BYTES,
    Clock,
    granule_end,
    load_clock,
    packet_ticks,
    page_checksum,
    to_ticks,
    to_us,
)
from mist.core.packet cimport DISCONTINUITY, KEYFRAME, NEW_INIT, PacketView
from mist.core.trim cimport trim_flags

from mist.errors import LimitExceededError, RemoteProtocolError, TruncatedError, UnsupportedError

MAX_STREAMS = 64                    # of one link
MAX_LINKS = 1000                    # links that can be sought in; older ones are forgotten
MAX_PACKET_BYTES = PACKET_BYTES
MAX_UNFINISHED_BYTES = UNFINISHED_BYTES
MAX_JUNK_BYTES = JUNK_BYTES
MAX_HEADERS_BYTES = HEADERS_BYTES

cdef enum:
    PACKET_BYTES = 16 << 20         # of one packet; pictures in comments are the longest known
    UNFINISHED_BYTES = 32 << 20     # of packets that are not whole yet, all streams together
    JUNK_BYTES = 1 << 20            # before the first page
    HEADERS_BYTES = 16 << 20        # a link this long whose headers are not all there begins without them

# Part of a page: a packet that ends in it.
cdef struct Span:
    const uint8_t* data
    size_t size
    int64_t position        # input byte of the page in which it begins
    int64_t ticks           # how long it lasts, -1: is no media


@cython.final
cdef class OggStream:
    """One logical stream."""

    cdef uint32_t serial
    cdef int track              # number of the track, -1 while the headers are not all there
    cdef bint ignored           # of a codec that is not known, or headers that are broken
    cdef object reader          # of the headers, None when they are done
    cdef object info
    cdef Clock clock
    cdef ByteBuffer partial     # a packet that goes on in the next page
    cdef bint continuing
    cdef int64_t partial_position
    cdef uint32_t next_page
    cdef bint following         # `next_page` is known
    cdef int64_t page_position  # of the page before the one that is being read
    cdef bint counting          # `ticks` is known
    cdef int64_t ticks          # end of the last packet
    cdef int64_t last_us        # dts of the last packet, of the track
    cdef uint32_t flags         # for the next packet

    def __cinit__(self):
        self.partial = ByteBuffer()
        self.track = -1
        self.last_us = LONG_AGO_US

    cdef int lose_place(self) except -1:
        """Forget where in the stream this is, before reading goes on elsewhere."""
        self.continuing = self.following = False
        self.partial.clear()
        self.counting = False
        self.last_us = LONG_AGO_US
        self.clock.previous_block = self.clock.blocks[0]
        return 0


@cython.final
cdef class OggLink:
    """What is between two changes of all streams: a file, or one of several that were put one behind the other."""

    cdef int64_t position       # of its first page
    cdef int64_t data_position  # behind its headers
    cdef int64_t base_us        # what is added to its times
    cdef bint has_base
    cdef int64_t end_us         # of the media read so far, with base_us
    cdef bint has_data          # no more streams begin
    cdef bint complete          # all headers are there
    cdef dict streams           # OggStream by serial number

    def __cinit__(self, int64_t position):
        self.position = self.data_position = position
        self.streams = {}
        self.end_us = LONG_AGO_US


@cython.final
cdef class OggDemuxer(ByteStreamDemuxer):
    """Demuxes Ogg.

    Times are exact: each page says when it ends, each packet how long it is. They begin where the first link begins (Opus and
    Vorbis a little before 0) and go on over the links of a chain, whose tracks replace those of the same codec.
    A page with a wrong checksum is passed over, and packets that lost a part are left out. Packets without bytes (Theora: the
    last frame again) and those that are no media are left out. Streams of other codecs and skeletons are ignored.

    `seek` takes positions in what has been read; packets of a link that was not read before are left out.
    """

    cdef object headers
    cdef list links
    cdef OggLink link
    cdef list placed            # the newest OggStream of each track
    cdef size_t unfinished_bytes
    cdef int64_t sought_us
    cdef object first_error
    cdef int64_t lost_at        # where a page should have begun, until one is found; -1
    cdef str lost_what

    def __init__(self, headers):
        """headers: has identify(first_packet) -> reader of a stream's headers, or None, and continues(track, next) (`mist.formats.ogg`)."""
        self.headers = headers
        self.links = []
        self.placed = []
        self.link = None
        self.sought_us = 0
        self.first_error = None
        self.lost_at = -1

    # -- pages -------------------------------------------------------------------------------------------------------

    cdef size_t parse(self, const uint8_t* data, size_t size, bint over) except? 0xFFFFFFFF:
        cdef size_t at = 0
        cdef size_t total, skipped
        while at + PAGE_HEADER_BYTES <= size:
            total = page_bytes(data + at, size - at)
            if total == 0:
                self.lose(self.base + <int64_t> at, "no Ogg page")
                at = next_capture(data, at + 1, size)
                if self.link is None and self.base + <int64_t> at > JUNK_BYTES:
                    raise RemoteProtocolError("no Ogg page", offset=0, spec="RFC 3533 section 6")
                continue
            if at + total > size:
                if not over:
                    break
                self.lose(self.base + <int64_t> at, "the input ends inside this page")
                at = next_capture(data, at + 1, size)
                continue
            if little(data + at + 22) != page_checksum(data + at, total):
                self.lose(self.base + <int64_t> at, "an Ogg page with a wrong checksum")
                at = next_capture(data, at + 1, size)
                continue
            self.note_lost(self.base + <int64_t> at)
            skipped = self.take_page(data + at, total, self.base + <int64_t> at)
            at += skipped
        if over and at < size:
            self.lose(self.base + <int64_t> at, "the input ends inside this page")
        if over:
            self.note_lost(self.base + <int64_t> size)
        return at

    cdef int lose(self, int64_t position, str what) except -1:
        """Note that no page can be read here, if one was found before."""
        if self.lost_at < 0 and self.link is not None:
            self.lost_at = position
            self.lost_what = what
        return 0

    cdef int note_lost(self, int64_t found) except -1:
        """Write down what was passed over to where a page was found, or the input ends."""
        if 0 <= self.lost_at < found:
            self.note_damage(self.lost_at, found - self.lost_at, self.lost_what)
        self.lost_at = -1
        return 0

    cdef size_t take_page(self, const uint8_t* page, size_t size, int64_t position) except 0:
        """Take a page and return how far to go on, usually its size."""
        cdef uint32_t serial = little(page + 14)
        cdef OggStream stream
        cdef bint first = page[5] & FIRST_PAGE
        if first and (self.link is None or self.link.has_data or position == self.link.position):
            if self.begin_link(position):
                return <size_t> (self.link.data_position - position)
        elif self.link is None:
            return size     # it began before this input
        stream = self.link.streams.get(serial)
        if first and stream is None:
            stream = self.begin_stream(serial)
        if not first and not self.link.has_data:
            self.link.has_data = True
        if stream is not None and not stream.ignored:
            self.take_segments(stream, page, position)
        if not self.link.complete:
            self.check_headers(position + <int64_t> size)
        return size

    cdef bint begin_link(self, int64_t position) except -1:
        """Go on with the link that begins here; True if it was read before, so that its headers can be passed over."""
        cdef OggLink link
        cdef OggLink last = self.link
        for known in reversed(self.links):
            link = <OggLink> known
            if link.position == position:
                self.enter(link)
                return link.complete and link.data_position > position
        link = OggLink(position)
        self.drop_partials()
        if last is None or last.end_us == LONG_AGO_US:
            link.has_base = True
        else:
            link.base_us = link.end_us = last.end_us
        self.links.append(link)
        if len(self.links) > MAX_LINKS:
            del self.links[0]
        self.link = link
        return False

    cdef OggStream begin_stream(self, uint32_t serial):
        cdef OggStream stream = OggStream()
        if len(self.link.streams) >= MAX_STREAMS:
            raise LimitExceededError(f"more than {MAX_STREAMS} Ogg streams side by side", offset=self.base)
        stream.serial = serial
        self.link.streams[serial] = stream
        return stream

    cdef int enter(self, OggLink link) except -1:
        """Make a link that was read before the one that is being read."""
        cdef OggStream stream
        self.drop_partials()
        self.link = link
        for stream in link.streams.values():
            stream.lose_place()
            if stream.track < 0:
                stream.reader = None
            elif self.tracks[stream.track] != stream.info:
                stream.flags |= NEW_INIT
                self.set_track(stream.track, stream.info, True)
        return 0

    cdef int drop_partials(self) except -1:
        cdef OggStream stream
        if self.link is not None:
            for stream in self.link.streams.values():
                stream.continuing = False
                stream.partial.clear()
        self.unfinished_bytes = 0
        return 0

    # -- packets -----------------------------------------------------------------------------------------------------

    cdef int take_segments(self, OggStream stream, const uint8_t* page, int64_t position) except -1:
        """Find the packets that end in a page, and keep what goes on in the next."""
        cdef Span spans[MAX_SEGMENTS]
        cdef int count = 0, segment
        cdef int segments = page[26]
        cdef const uint8_t* lacing = page + PAGE_HEADER_BYTES
        cdef const uint8_t* begin = lacing + segments
        cdef size_t length = 0
        cdef bint broken
        cdef uint32_t missing
        if little(page + 18) != stream.next_page:
            if stream.following and stream.track >= 0:
                missing = <uint32_t> (little(page + 18) - stream.next_page)
                self.note_damage(position, 0, f"{missing} pages of stream {stream.serial} are missing before this one")
            self.drop_partial(stream)
        stream.next_page = little(page + 18) + 1
        stream.following = True
        if not page[5] & CONTINUED:
            self.drop_partial(stream)
        broken = page[5] & CONTINUED and not stream.continuing
        for segment in range(segments):
            length += lacing[segment]
            if lacing[segment] == 255:
                continue
            if broken:
                broken = False      # the rest of a packet whose beginning is lost
            elif stream.continuing:
                self.keep(stream, begin, length)
                spans[count].data, spans[count].size = stream.partial.data, stream.partial.size
                spans[count].position = stream.partial_position
                stream.continuing = False
                count += 1
            else:
                spans[count].data, spans[count].size, spans[count].position = begin, length, position
                count += 1
            begin += length
            length = 0
        self.take_packets(stream, spans, count, signed_little(page + 6), page[5] & LAST_PAGE)
        if segments and lacing[segments - 1] == 255 and not broken:
            if not stream.continuing:
                self.drop_partial(stream)
                stream.continuing = True
                stream.partial_position = position
            self.keep(stream, begin, length)
        elif not stream.continuing:
            self.drop_partial(stream)
        stream.page_position = position
        return 0

    cdef int keep(self, OggStream stream, const uint8_t* data, size_t size) except -1:
        """Keep a part of a packet that is not whole."""
        if stream.partial.size + size > PACKET_BYTES or self.unfinished_bytes + size > UNFINISHED_BYTES:
            raise LimitExceededError(
                f"an Ogg packet of more than {stream.partial.size + size} bytes", offset=stream.partial_position
            )
        stream.partial.append(data, size)
        self.unfinished_bytes += size
        return 0

    cdef int drop_partial(self, OggStream stream) except -1:
        self.unfinished_bytes -= min(self.unfinished_bytes, stream.partial.size)
        stream.partial.clear()
        stream.continuing = False
        return 0

    cdef int take_packets(self, OggStream stream, Span* spans, int count, int64_t granule, bint last) except -1:
        """Take the packets that end in one page, first those that are headers."""
        cdef int done = 0
        while done < count and stream.track < 0 and not stream.ignored:
            if not self.take_header(stream, &spans[done]):
                continue        # the headers are over: it is looked at again
            done += 1
        if stream.ignored or done == count:
            return 0
        return self.deliver(stream, spans + done, count - done, granule_end(&stream.clock, granule), last)

    cdef bint take_header(self, OggStream stream, Span* span) except -1:
        """Take the next header of a stream; False if it is none, the stream is then either known or ignored."""
        packet = PyBytes_FromStringAndSize(<const char*> span.data, <Py_ssize_t> span.size)
        try:
            if stream.reader is None:
                stream.reader = self.headers.identify(packet)
                if stream.reader is None:
                    stream.ignored = True
                    return True
            taken = stream.reader.take(packet)
            if taken and not stream.reader.is_whole():
                return True
            info = stream.reader.track().changed(track_id=stream.serial)
            load_clock(&stream.clock, stream.reader.timing(info))
        except RemoteProtocolError as error:
            self.first_error = self.first_error or error
            stream.ignored = True
            return True
        stream.reader = None
        stream.info = info
        self.place_track(stream)
        return taken

    cdef int place_track(self, OggStream stream) except -1:
        """Give a stream its track: one of the same codec that has no stream in this link, or a new one."""
        cdef OggStream other
        cdef int track
        taken = set()
        for other in self.link.streams.values():
            taken.add(other.track)
        for track in range(<int> len(self.tracks)):
            if track not in taken and self.tracks[track].codec == stream.info.codec:
                stream.track = track
                stream.flags = DISCONTINUITY
                stream.last_us = (<OggStream> self.placed[track]).last_us
                self.placed[track] = stream
                if not self.headers.continues(self.tracks[track], stream.info):
                    stream.flags |= NEW_INIT
                    self.set_track(track, stream.info, True)
                else:
                    stream.info = self.tracks[track]
                return 0
        stream.track = <int> len(self.tracks)
        self.placed.append(stream)
        return self.set_track(stream.track, stream.info, False)

    cdef int check_headers(self, int64_t position) except -1:
        """See whether the headers of the link are over."""
        cdef OggStream stream
        cdef bint waiting = position - self.link.position < HEADERS_BYTES
        if not self.link.has_data:
            return 0
        if waiting:
            for stream in self.link.streams.values():
                if stream.track < 0 and not stream.ignored:
                    return 0
        self.link.complete = True
        self.link.data_position = position
        if not self.ready:
            if not self.tracks:
                raise self.first_error or UnsupportedError("no stream of a known codec in this Ogg input", offset=0)
            self.become_ready()
        return 0

    # -- times -------------------------------------------------------------------------------------------------------

    cdef int deliver(self, OggStream stream, Span* spans, int count, int64_t end, bint last) except -1:
        """Write the packets that end in one page. end: ticks at which the last of them does, or NO_GRANULE."""
        cdef int place
        cdef int64_t start = stream.ticks
        cdef int64_t next_start
        cdef int64_t total = 0
        for place in range(count):
            spans[place].ticks = packet_ticks(&stream.clock, spans[place].data, spans[place].size)
            total += max(spans[place].ticks, <int64_t> 0)
        if end == NO_GRANULE:
            if not stream.counting:
                start = to_ticks(&stream.clock, self.sought_us - self.link.base_us)
        elif not stream.counting and last:
            start = max(end - total, -stream.clock.pre_skip)    # the only page: what it is too short by is cut at its end
        elif not last or end - total > start:
            start = end - total
        stream.counting = True
        if not self.link.has_base:
            self.link.has_base = True
            self.link.base_us -= to_us(&stream.clock, start)
        for place in range(count):
            if last:
                # What a last page says of its end may be cut short: times can only be told from the page before.
                spans[place].position = min(spans[place].position, max(stream.page_position, self.link.data_position))
            next_start = start + max(spans[place].ticks, <int64_t> 0)
            if spans[place].ticks >= 0 and spans[place].size:
                if last and end != NO_GRANULE and next_start > end:
                    # Spec: RFC 7845 section 4.4, Vorbis I appendix A.2.
                    stream.flags |= trim_flags(to_us(&stream.clock, next_start - max(start, end)))
                self.write_packet(stream, &spans[place], to_us(&stream.clock, start) + self.link.base_us)
            start = next_start
        stream.ticks = start if end == NO_GRANULE else end
        self.link.end_us = max(self.link.end_us, to_us(&stream.clock, stream.ticks) + self.link.base_us, stream.last_us + 1)
        return 0

    cdef int write_packet(self, OggStream stream, Span* span, int64_t dts_us) except -1:
        cdef PacketView view
        view.dts_us = max(dts_us, stream.last_us + 1)
        view.offset_us = 0
        view.flags = stream.flags
        if stream.clock.rule != FRAME_RULE or not span.data[0] & 0x40:
            view.flags |= KEYFRAME
        view.data = span.data
        view.size = span.size
        stream.flags = 0
        stream.last_us = view.dts_us
        self.position = span.position
        return self.emit(stream.track, &view)

    # -- begin and end -----------------------------------------------------------------------------------------------

    def seek(self, int64_t dts_us, int64_t position):
        """Go on at a page of what has been read, or behind the headers of its link. Raises TruncatedError before any page was read."""
        cdef OggLink link
        if self.link is None:
            raise TruncatedError("no Ogg page was read yet")
        self.drop_partials()
        link = <OggLink> self.links[0]
        for known in self.links:
            if (<OggLink> known).position <= position:
                link = <OggLink> known
        self.enter(link)
        self.lost_at = -1
        self.sought_us = dts_us
        self.restart(max(position, link.data_position))

    cdef int finish(self) except -1:
        if self.link is None:
            raise TruncatedError("no Ogg page in this input", offset=0, spec="RFC 3533 section 6")
        if not self.ready and not self.tracks:
            raise self.first_error or TruncatedError("an Ogg input that ends in its headers", offset=self.base)
        return 0


cdef uint32_t little(const uint8_t* data) noexcept nogil:
    return data[0] | (<uint32_t> data[1] << 8) | (<uint32_t> data[2] << 16) | (<uint32_t> data[3] << 24)


cdef int64_t signed_little(const uint8_t* data) noexcept nogil:
    return <int64_t> (<unsigned long long> little(data) | (<unsigned long long> little(data + 4) << 32))


cdef size_t page_bytes(const uint8_t* page, size_t size) noexcept nogil:
    """Return the size of the page that begins here, 0 if none does. size: at least PAGE_HEADER_BYTES."""
    cdef size_t total = PAGE_HEADER_BYTES + <size_t> page[26]
    cdef int segment
    if memcmp(page, <const char*> b"OggS", 4) or page[4]:
        return 0
    if total > size:
        return total        # more than there is, which is all the caller asks
    for segment in range(page[26]):
        total += page[PAGE_HEADER_BYTES + segment]
    return total


cdef size_t next_capture(const uint8_t* data, size_t at, size_t size) noexcept nogil:
    """Return where the next "O" of a capture pattern stands, or where looking on must begin when more bytes are there."""
    cdef const uint8_t* found
    while at < size:
        found = <const uint8_t*> memchr(data + at, 79, size - at)
        if found is NULL:
            return size
        at = <size_t> (found - data)
        if size - at < 4 or memcmp(found, <const char*> b"OggS", 4) == 0:
            return at
        at += 1
    return size
