"""The MPEG transport stream demuxer: bytes of a file or stream in, packets out.

Transport packets of 188, 192 (discs, cameras) or 204 bytes, found again after damage. What is damaged is left out, the rest is read.
What the first packet and the parameter sets of a stream mean is told by `describe`, `refresh` and `slice_coding`, in Python.
Spec: ISO/IEC 13818-1 section 2.4.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int16_t, int64_t, uint8_t, uint32_t
from libc.string cimport memmove, memset

from mist.core.access_units cimport CLOSED, FINAL, OPEN, LatmStreamReader, Mark, Unit
from mist.core.buffer cimport ByteBuffer
from mist.core.decode_times cimport DecodeTimes
from mist.core.demuxer cimport Demuxer
from mist.core.packet cimport DISCONTINUITY, KEYFRAME, NEW_INIT, Packet, PacketView
from mist.core.picture_readers cimport NalReader
from mist.core.ts_streams cimport (
    FULL_PES_BYTES,
    HEADER_GOOD,
    HEADER_MORE,
    MEDIA,
    PROGRAM,
    PROGRAMS,
    SECTIONS,
    UNTOLD,
    PesHeader,
    ProgramClock,
    TsStream,
    read_pes_header,
)

from array import array

from mist.core.demuxer import READ_BYTES
from mist.core.ts_sections import UNTOLD as UNTOLD_CODEC
from mist.core.ts_sections import parse_programs, parse_streams
from mist.errors import RemoteProtocolError

MAX_PES_BYTES = PES_LIMIT
MAX_HELD_BYTES = HELD_LIMIT
MAX_STREAMS = STREAM_LIMIT
MAX_GARBAGE_BYTES = GARBAGE_LIMIT
EVERY_PROGRAM = ALL_PROGRAMS

cdef enum:
    PACKET = 188
    SYNC = 0x47
    PAT_PID = 0
    NULL_PID = 0x1FFF
    SURE_PACKETS = 5            # sync bytes in their places that make a transport stream
    AGAIN_PACKETS = 3           # that are enough where the distance is known
    PES_LIMIT = 32 << 20
    HELD_LIMIT = 192 << 20      # of all streams together
    STREAM_LIMIT = 64
    MAX_PROGRAMS = 256
    GARBAGE_LIMIT = 1 << 20     # before the first packet
    WAIT_US = 5000000           # how much media may pass before announced tracks are given up
    WAIT_BYTES = 24 << 20
    CHOOSE_BYTES = 4 << 20      # how much may pass before a program whose table does not come is given up
    SPLICE_TABLE = 0xFC
    ORDER_US = 2000000          # how far a picture may be shown before the one that is decoded before it
    MAX_PASSED = 100            # access units of other streams, after a seek behind a jump
    ANCHOR_LIMIT = 1 << 13      # of a stream whose clock drifts by 20 ppm that is four days; 24 bytes each
    TABLES_BACK = 192 << 10     # how far before a place the tables that count there are looked for
    ALL_PROGRAMS = -1

cdef int[3] STRIDES = [188, 192, 204]


cdef class TsDemuxer(Demuxer):
    """Demuxes a transport stream. A subclass says what set-ups mean.

    program: number of the program to read, 0 for the first of the PAT that has streams which are understood, EVERY_PROGRAM for all.
    Tracks have their PIDs as track ids and stand in the order of the PMT. Decode times are increasing and without jumps; an audio frame's
    time is counted in samples from a time stamp, as long as later ones agree.
    Raises RemoteProtocolError where the first MAX_GARBAGE_BYTES hold no transport stream.
    Bound: MAX_PES_BYTES for each of at most MAX_STREAMS streams, MAX_HELD_BYTES for all, and what `Demuxer` holds back.
    """

    def __init__(self, int program=0):
        self.wanted = program
        self.rest = ByteBuffer()
        self.lost = True
        self.lost_at = -1
        self.sought = -1
        self.entries = [None]
        self.pat = {}
        self.programs = {}
        self.maps = {}
        self.clocks = {}
        self.chosen = set()
        self.known = {}
        self.told = {}
        self.numbers = {}
        self.orders = {}
        memset(self.places, 0, sizeof(self.places))
        self.listen(TsStream(PAT_PID, PROGRAMS))

    # -- what the formats say --------------------------------------------------------------------------------------------

    def describe(self, description, bytes sample):
        """Return the TrackInfo of a stream from its first unit; None while it does not tell enough.

        sample: H.264 and HEVC with lengths, AAC with its header, of LATM the AudioSpecificConfig, of data nothing.
        """
        raise NotImplementedError

    def refresh(self, description, info, bytes sample):
        """Return the TrackInfo as a unit with set-up changes it; None where nothing changes."""
        raise NotImplementedError

    def slice_coding(self, bytes sps):
        """Return what slice headers need of an SPS of H.264.

        That is: there may be fields, log2_max_frame_num, separate colour planes, and log2_max_pic_order_cnt_lsb, which is 0 where the
        picture order count type is not 0.
        """
        raise NotImplementedError

    def reordering(self, info):
        """Return how many pictures of a track may be decoded before one that is shown before them; -1: nothing tells."""
        raise NotImplementedError

    # -- bytes into packets ----------------------------------------------------------------------------------------------

    def want(self):
        """Return what comes next in the input, or None at its end."""
        if self.ended:
            return None
        if not self.stride:
            return self.at, READ_BYTES
        return self.at, READ_BYTES // self.stride * self.stride + self.gap - self.rest.size % self.stride

    def feed(self, data):
        """Take the bytes that follow; none: the input ends."""
        cdef const uint8_t[::1] view = data
        cdef const uint8_t* source
        cdef size_t size = <size_t> view.shape[0]
        cdef size_t place = 0
        cdef size_t count
        if not size:
            self.finish()
            return
        source = &view[0]
        while place < size and not self.lost:
            if self.gap:
                count = min(self.gap, size - place)
                self.gap -= count
                place += count
            elif self.rest.size or size - place < PACKET:
                if not self.rest.size:
                    self.base = self.at + <int64_t> place
                count = min(PACKET - self.rest.size, size - place)
                self.rest.append(source + place, count)
                place += count
                if self.rest.size == PACKET:
                    if self.rest.data[0] != SYNC:
                        self.lose(self.base)
                        break
                    self.packet(self.rest.data, self.base)
                    self.rest.clear()
                    self.gap = self.stride - PACKET
            elif source[place] == SYNC:
                self.packet(source + place, self.at + <int64_t> place)
                place += PACKET
                self.gap = self.stride - PACKET
            else:
                self.lose(self.at + <int64_t> place)
        if self.lost and place < size:
            if not self.rest.size:
                self.base = self.at + <int64_t> place
            self.rest.append(source + place, size - place)
        self.at += <int64_t> size
        if self.lost:
            self.find_packets(False)

    cdef int lose(self, int64_t position) except -1:
        """Note that a packet does not begin where it should: the one before it is not to be trusted either."""
        cdef TsStream stream
        self.lost = True
        self.lost_at = position
        if self.entries[self.newest_place] is not None:
            stream = <TsStream> self.entries[self.newest_place]
            if stream.role == MEDIA and stream.left:
                self.damaged(stream, False)
        self.newest_place = 0
        return 0

    cdef int note_lost(self, int64_t found) except -1:
        """Write down what was passed over to where packets were found; what is before the first is none of the stream."""
        if self.lost_at >= 0 and found > self.lost_at:
            self.note_damage(self.lost_at, found - self.lost_at, "no transport packets; passed over up to the next one")
        self.lost_at = -1
        return 0

    cdef int note_missing(self, TsStream stream, int64_t position) except -1:
        """Write down that packets of a stream are missing, of which the counter does not tell how many."""
        codec = stream.description.codec
        return self.note_damage(position, 0, f"packets of PID {stream.pid} ({codec}) are missing before this one")

    cdef int find_packets(self, bint final) except -1:
        """Read on in `rest`, where packets must be found first. final: nothing follows."""
        cdef const uint8_t* data = self.rest.data
        cdef size_t size = self.rest.size
        cdef size_t place = 0
        cdef int64_t found
        while True:
            found = self.search(data + place, size - place, final)
            if found < 0:
                place += <size_t> (-1 - found)
                break
            place += <size_t> found
            self.note_lost(self.base + <int64_t> place)
            while place + PACKET <= size and data[place] == SYNC:
                self.packet(data + place, self.base + <int64_t> place)
                place += self.stride
            if place + PACKET > size:
                self.lost = False
                break
            self.lose(self.base + <int64_t> place)
        if not self.stride:
            self.garbage += <int64_t> min(place, size)
            if self.garbage > GARBAGE_LIMIT:
                raise RemoteProtocolError("no transport stream packets", offset=self.base, spec="ISO/IEC 13818-1 section 2.4.3.2")
        self.gap = place - size if place > size else 0
        place = min(place, size)
        memmove(self.rest.data, self.rest.data + place, size - place)
        self.rest.size = size - place
        self.base += <int64_t> place
        return 0

    cdef int64_t search(self, const uint8_t* data, size_t size, bint final) noexcept:
        """Return where a packet begins, and set the stride if it is not known; -1 - n where none does in the first n bytes."""
        cdef size_t place, next_place, stride
        cdef int number, count
        cdef int sure = AGAIN_PACKETS if self.stride else SURE_PACKETS
        for place in range(size):
            if data[place] != SYNC:
                continue
            for number in range(3):
                stride = STRIDES[number]
                if self.stride and self.stride != <int> stride:
                    continue
                count = 0
                next_place = place
                while next_place < size and count < sure and data[next_place] == SYNC:
                    count += 1
                    next_place += stride
                if count < sure and next_place >= size and not final:
                    return -1 - <int64_t> place     # more bytes tell
                if count == sure or (next_place >= size and place + PACKET <= size):
                    self.stride = <int> stride
                    return <int64_t> place
        return -1 - <int64_t> size

    cdef int packet(self, const uint8_t* data, int64_t position) except -1:
        """Take one transport packet (section 2.4.3.2)."""
        cdef int pid = (data[1] & 0x1F) << 8 | data[2]
        cdef int place = self.places[pid]
        cdef TsStream stream
        cdef size_t start = 4
        cdef bint broken = False
        cdef bint begins = data[1] & 0x40 != 0
        cdef bint whole
        cdef int counter = data[3] & 15
        if not self.ready:
            self.count_packet()
        self.newest_place = place
        if data[1] & 0x80:
            return self.note_damage(position, PACKET, "a transport packet that is marked as damaged")
        if not place or data[3] & 0xC0:
            return 0
        stream = <TsStream> self.entries[place]
        if data[3] & 0x20:
            start = 5 + data[4]
            broken = data[4] and data[5] & 0x80
            if broken:
                stream.counter = -1
        if not data[3] & 0x10 or start >= PACKET:
            return 0
        if position < self.quiet_until and (stream.role == MEDIA or stream.role == SECTIONS):
            return 0
        if stream.role == UNTOLD:
            return self.find_out(stream, data, start, position) if begins else 0
        if stream.role != MEDIA:
            if counter != stream.counter and not stream.continues(counter, broken):
                self.breaks += 1
            sections = stream.sections.feed(data + start, PACKET - start, begins, counter, broken)
            if sections:
                if stream.role == SECTIONS:
                    self.splice(stream, sections, position)
                else:
                    self.tables(stream, sections)
            return 0
        if stream.repeats(counter, data + start, PACKET - start) and not broken:
            return 0    # sent twice
        if not stream.continues(counter, broken):
            whole = begins and (stream.stuffed or stream.breaks != self.breaks)
            if not whole:
                self.note_missing(stream, position)
            self.damaged(stream, whole)
        stream.stuffed = start > 4 and is_stuffed(data + 4)
        stream.breaks = self.breaks
        return self.media(stream, data + start, PACKET - start, begins, position)

    # -- programs and streams ----------------------------------------------------------------------------------------------

    cdef int listen(self, TsStream stream) except -1:
        """Hear a PID from now on."""
        cdef int place
        for place in range(1, len(self.entries)):
            if self.entries[place] is None:
                self.entries[place] = stream
                break
        else:
            place = <int> len(self.entries)
            self.entries.append(stream)
        self.places[stream.pid] = <int16_t> place
        return 0

    cdef int unlisten(self, TsStream stream) except -1:
        """Hear a PID no more; what it has is read to its end."""
        if stream.role == MEDIA:
            self.drain(stream, FINAL)
            self.settle(stream)
        self.entries[self.places[stream.pid]] = None
        self.places[stream.pid] = 0
        return 0

    cdef int tables(self, TsStream stream, list sections) except -1:
        """Take sections of the PAT, or of a PID of PMTs."""
        for section in sections:
            if stream.role == PROGRAMS:
                self.on_programs(parse_programs(section))
            else:
                found = parse_streams(section)
                if found is not None and self.programs.get(found[0]) == stream.pid:
                    self.on_streams(found[0], section, found[2])
        return 0

    cdef int on_programs(self, object found) except -1:
        """Take a section of the PAT: listen to the PMTs that it names."""
        if found is None:
            return 0
        number, last, programs = found
        self.pat[number] = programs
        merged = {}
        for part in sorted(self.pat):
            if part <= last:
                merged.update(self.pat[part])
        merged = dict(list(merged.items())[:MAX_PROGRAMS])
        self.programs = merged
        self.maps = {number: found for number, found in self.maps.items() if number in merged}
        pids = set(merged.values())
        for stream in [entry for entry in self.entries if entry is not None and entry.role == PROGRAM]:
            if stream.pid not in pids:
                self.unlisten(stream)
        for pid in pids:
            if pid != PAT_PID and pid != NULL_PID:
                place = self.places[pid]
                if place and self.entries[place].role != PROGRAM:
                    self.unlisten(self.entries[place])
                if not self.places[pid]:
                    self.listen(TsStream(pid, PROGRAM))
        for program in [program for program in self.chosen if program not in merged]:
            self.maps[program] = (b"", [])
            self.load(program)
            del self.maps[program], self.clocks[program]
            self.chosen.discard(program)
            self.settled = False
        return self.choose(False)

    cdef int on_streams(self, int number, bytes section, list streams) except -1:
        """Take a program's PMT."""
        before = self.maps.get(number)
        if before is not None and before[0] == section:
            return 0
        self.maps[number] = (section, streams)
        if number in self.chosen:
            self.load(number)
        return self.choose(False)

    cdef int choose(self, bint late) except -1:
        """Begin to read programs that are wanted and known. late: take what is known, whatever may still come."""
        if self.wanted == 0 and self.settled:
            return 0
        for number in self.programs:
            found = self.maps.get(number)
            if self.wanted > 0 and number != self.wanted:
                continue
            if found is None and self.wanted == 0 and not late:
                return 0    # one that comes before the others is not known yet
            if found is None or number in self.chosen or (
                self.wanted == 0 and all(one.codec == UNTOLD_CODEC for one in found[1]) and not late
            ):
                continue
            self.chosen.add(number)
            self.load(number)
            if self.wanted >= 0:
                self.settled = True
                return 0
        return 0

    cdef int load(self, int number) except -1:
        """Listen to the streams of a program as its PMT says, and no more to those that it does not name."""
        cdef ProgramClock clock = self.clocks.get(number)
        cdef TsStream stream
        cdef list streams = [self.told.get(description.key(), description) for description in self.maps[number][1]]
        cdef dict wanted = {description.pid: description for description in streams if description is not None}
        if clock is None:
            clock = self.clocks[number] = ProgramClock()
        for entry in list(self.entries):
            if entry is None or entry.role == PROGRAMS or entry.role == PROGRAM:
                continue
            stream = entry
            if stream.clock is clock:
                description = wanted.get(stream.pid)
                if description is not None and description.key() == stream.description.key():
                    del wanted[stream.pid]
                else:
                    self.unlisten(stream)
        count = sum(1 for entry in self.entries if entry is not None and entry.description is not None)
        for place, description in enumerate(streams):
            if description is not None and description.pid in wanted and not self.places[description.pid] and count < STREAM_LIMIT:
                self.open_stream(description, clock, (list(self.programs).index(number), place))
                count += 1
        return 0

    def open_stream(self, description, ProgramClock clock, order):
        """Begin with a stream that a PMT names."""
        cdef TsStream stream = TsStream(
            description.pid,
            SECTIONS if description.sections else UNTOLD if description.codec == UNTOLD_CODEC else MEDIA,
            clock,
            description,
            self.numbers.setdefault(description.key(), len(self.numbers)),
            order,
        )
        if description.codec == "H264":
            (<NalReader> stream.reader).slice_coding = self.slice_coding
        self.listen(stream)
        known = self.known.get(description.key())
        if known is not None:
            stream.track, stream.info = known
        elif description.type == "meta":
            info = self.describe(description, b"")
            if info is not None:
                self.add_track(stream, info)

    cdef int find_out(self, TsStream stream, const uint8_t* data, size_t start, int64_t position) except -1:
        """See by the first PES packet what a stream is of which the tables do not tell, and read it as that from there on."""
        cdef PesHeader header
        cdef const uint8_t* payload
        cdef int found = read_pes_header(data + start, PACKET - start, &header)
        if found == HEADER_MORE or (found == HEADER_GOOD and start + header.size == PACKET):
            return 0
        description = None
        if found == HEADER_GOOD:
            payload = data + start + header.size
            description = stream.description.told(
                PyBytes_FromStringAndSize(<const char*> payload, <Py_ssize_t> (PACKET - start - header.size))
            )
        self.told[stream.description.key()] = description
        self.unlisten(stream)
        if description is None:
            return 0
        self.open_stream(description, stream.clock, stream.order)
        return self.packet(data, position)

    # -- PES packets -------------------------------------------------------------------------------------------------------

    cdef int media(self, TsStream stream, const uint8_t* data, size_t size, bint start, int64_t position) except -1:
        """Take the payload of a transport packet with a piece of a PES packet."""
        if start:
            stream.head.clear()
            stream.position = position
            stream.in_header = True
        elif not stream.in_header:
            return self.body(stream, data, size) if stream.listening else 0
        if stream.head.size or not start:
            stream.head.append(data, size)
            return self.begin_pes(stream, stream.head.data, stream.head.size, stream.position)
        return self.begin_pes(stream, data, size, position)

    cdef int begin_pes(self, TsStream stream, const uint8_t* data, size_t size, int64_t position) except -1:
        """Take the start of a PES packet; what came before it ends."""
        cdef PesHeader header
        cdef Mark mark
        cdef bint aligned
        cdef int found = read_pes_header(data, size, &header)
        if found == HEADER_MORE and size <= PACKET + 9 + 255:
            if not stream.head.size:
                stream.head.append(data, size)
            return 0
        stream.in_header = False
        if found != HEADER_GOOD:
            self.drain(stream, OPEN)
            stream.listening = False
            return 0
        aligned = stream.reader.begins(data + header.size, size - header.size)
        if not aligned:
            stream.aligned = False
        if stream.listening:
            self.drain(stream, CLOSED if aligned else OPEN)
        mark.stamped = header.stamped
        mark.pts = header.pts
        mark.dts = header.dts
        mark.position = position
        stream.reader.add_mark(&mark)
        stream.listening = True
        stream.left = header.body_bytes
        stream.prompt = not stream.video or (stream.aligned and header.aligned and header.body_bytes < FULL_PES_BYTES)
        return self.body(stream, data + header.size, size - header.size)

    cdef int body(self, TsStream stream, const uint8_t* data, size_t size) except -1:
        """Take a piece of a PES packet's payload."""
        if stream.left >= 0:
            size = min(size, <size_t> stream.left)
            if not size:
                return 0
            stream.left -= <int64_t> size
        stream.reader.append(data, size)
        if stream.reader.raw.size >> 20 != (stream.reader.raw.size - size) >> 20 and self.holds_too_much(stream):
            stream.reader.reset()
            stream.reader.shrink()
            stream.listening = False
        elif not stream.left:
            self.drain(stream, CLOSED if stream.prompt else OPEN)
        return 0

    cdef bint holds_too_much(self, TsStream stream) except -1:
        """Tell whether a stream must not grow; asked once for each MiB."""
        cdef size_t held = 0
        for entry in self.entries:
            if entry is not None and entry.role == MEDIA:
                held += (<TsStream> entry).reader.held()
        return stream.reader.raw.size > PES_LIMIT or held > HELD_LIMIT

    cdef int damaged(self, TsStream stream, bint whole) except -1:
        """Leave out the access unit of which something is missing, and go on with the next PES packet.

        whole: nothing is, as where one recording follows another: the last packet was filled up, or tables came between that do not
        continue those before, and another PES packet begins.
        """
        if stream.listening:
            self.drain(stream, CLOSED if stream.aligned and (whole or not stream.left) else OPEN)
        stream.reader.reset()
        stream.listening = stream.in_header = stream.has_time = False
        return 0

    cdef int drain(self, TsStream stream, int state) except -1:
        """Write the access units that are complete."""
        cdef Unit unit
        while stream.reader.next(state, &unit):
            self.deliver(stream, &unit)
        return stream.reader.shrink()

    # -- access units --------------------------------------------------------------------------------------------------------

    cdef int deliver(self, TsStream stream, const Unit* unit) except -1:
        """Write one access unit."""
        cdef PacketView view
        cdef int64_t dts_us, offset_us
        cdef int64_t before_us = stream.dts_us if stream.has_time else -ORDER_US
        if not unit.size:
            return 0
        if stream.sparse and not unit.mark.stamped:
            return self.deliver_untimed(stream, unit.data, unit.size, unit.mark.position)
        if unit.samples and self.elsewhere and not stream.has_anchor:
            self.find_anchor(stream, unit)
        stream.anchored = False
        if not stream.time_unit(unit, &dts_us, &offset_us):
            return 0
        if stream.anchored and not self.elsewhere:
            self.note_anchor(stream, unit.mark.position)
        view.flags = KEYFRAME if unit.keyframe else 0
        if stream.track < 0:
            if not unit.keyframe or not self.find_track(stream, unit):
                return 0
        elif unit.setup and self.renew_track(stream, unit):
            view.flags |= NEW_INIT
        view.dts_us = dts_us
        view.offset_us = offset_us
        view.data = unit.data
        view.size = unit.size
        if stream.video and not stream.told:
            self.look_for_order(stream, unit, before_us - dts_us, dts_us, offset_us)
            if stream.times is not None:
                return self.put_in_order(stream, &view, unit.mark.position)
        return self.place(stream, &view, unit.mark.position)

    cdef int note_anchor(self, TsStream stream, int64_t position) except -1:
        """Write down where a stream's times are counted from on."""
        cdef object rows = self.anchors.setdefault(stream.pid, array("q"))
        if len(rows) < 3 * ANCHOR_LIMIT:
            rows.extend((position, stream.anchor_us, stream.rate_hz))
        return 0

    cdef int find_anchor(self, TsStream stream, const Unit* unit) except -1:
        """Count on behind a seek from where those did who read all of the input."""
        cdef const int64_t[::1] rows
        cdef Py_ssize_t middle
        cdef Py_ssize_t low = 0
        cdef Py_ssize_t high
        if not unit.mark.stamped or stream.pid not in self.anchors:
            return 0
        rows = self.anchors[stream.pid]
        high = rows.shape[0] // 3
        while low < high:
            middle = (low + high) // 2
            if rows[3 * middle] <= unit.mark.position:
                low = middle + 1
            else:
                high = middle
        if low:
            stream.count_from(unit, rows[3 * low - 2], <uint32_t> rows[3 * low - 1])
        return 0

    cdef int look_for_order(self, TsStream stream, const Unit* unit, int64_t back_us, int64_t dts_us, int64_t offset_us) except -1:
        """See whether a stream of pictures that are reordered says when they are decoded.

        A keyframe that is shown when it is decoded, and one that goes back by back_us, say that it does not: GStreamer writes such ones.
        """
        if offset_us:
            stream.told = True
            self.settle(stream)
            stream.times = None
        elif not stream.asked and unit.keyframe:
            stream.asked = True
            depth = self.reordering(stream.info)
            if depth > 0:
                stream.times = DecodeTimes(depth)
                stream.waiting = []
                stream.waiting_bytes = 0
        elif stream.times is None and stream.asked and 0 < back_us < ORDER_US:
            stream.times = DecodeTimes(max(self.reordering(stream.info), 1), stream.step_us)
            stream.times.running = True
            stream.times.rising(dts_us + back_us)
        return 0

    cdef int put_in_order(self, TsStream stream, PacketView* view, int64_t position) except -1:
        """Give a picture its decode time and write it, or keep it until that is known. view: has the time at which it is shown."""
        cdef DecodeTimes times = stream.times
        cdef int64_t pts_us = view.dts_us
        if times.running and not -ORDER_US <= pts_us - times.last_us <= ORDER_US:
            times.reset()
            times.has_last = False
            stream.waiting = []
            stream.waiting_bytes = 0
        if times.running:
            view.dts_us = times.advance(pts_us)
            view.offset_us = pts_us - view.dts_us
            return self.place(stream, view, position)
        payload = PyBytes_FromStringAndSize(<const char*> view.data, <Py_ssize_t> view.size)
        stream.waiting.append((Packet(0, pts_us, 0, view.flags & KEYFRAME != 0, payload), view.flags, position))
        stream.waiting_bytes += view.size
        if times.add(pts_us) or stream.waiting_bytes > PES_LIMIT:
            self.settle(stream)
        return 0

    cdef int settle(self, TsStream stream) except -1:
        """Write the pictures that wait for their decode times: those at which they are shown where none of them goes back."""
        cdef list waiting = stream.waiting
        cdef DecodeTimes times = stream.times
        cdef PacketView view
        cdef Packet packet
        cdef int number
        stream.waiting = None
        if not waiting:
            return 0
        if stream.told or not times.observed():
            stream.times = None
        else:
            times.settle()
            if self.sought >= 0 and waiting[0][2] == self.sought:
                times.agree(0, self.sought_us - stream.clock.timeline.shift_us)
        for number, (packet, flags, position) in enumerate(waiting):
            packet.view(&view)
            view.flags = flags
            if stream.times is not None:
                view.dts_us = times.decoded[number]
                view.offset_us = packet.dts_us - view.dts_us
            self.place(stream, &view, position)
        times.waiting = 0
        return 0

    cdef int place(self, TsStream stream, PacketView* view, int64_t position) except -1:
        """Put a packet on the timeline and write it."""
        cdef ProgramClock clock = stream.clock
        cdef int64_t dts_us = view.dts_us
        if self.sought >= 0:
            if position != self.sought and clock.timeline.is_far(dts_us) and self.passed < MAX_PASSED:
                self.passed += 1    # only the access unit at the place itself tells the time base there
                return 0
            self.sought = -1
        if not clock.begun and self.has_newest:
            clock.timeline.resume(self.newest_us)
        clock.begun = True
        if stream.sparse:
            view.dts_us = clock.timeline.follow(stream.number, dts_us)
        else:
            view.dts_us = clock.timeline.place(stream.number, dts_us)
        self.shift_us = clock.timeline.shift_us
        if clock.timeline.jumped:
            view.flags |= DISCONTINUITY
        if clock.timeline.moved_us and view.offset_us > 0:
            view.offset_us = max(<int64_t> 0, view.offset_us - clock.timeline.moved_us)
        self.newest_us = view.dts_us
        self.has_newest = True
        self.position = position if position >= 0 else stream.position
        self.emit(stream.track, view)
        if not self.ready:
            self.check_ready()
        return 0

    cdef bint find_track(self, TsStream stream, const Unit* unit) except -1:
        """Make a track of a stream's first unit, if that tells enough."""
        info = self.describe(stream.description, sample_of(stream, unit))
        if info is None:
            return False
        self.add_track(stream, info)
        return True

    cdef bint renew_track(self, TsStream stream, const Unit* unit) except -1:
        """Take over what a unit with set-up changes; False: nothing."""
        info = self.refresh(stream.description, stream.info, sample_of(stream, unit))
        if info is None or info == stream.info:
            return False
        stream.info = info
        stream.set_rate(info.frame_rate_mhz)
        self.known[stream.description.key()] = (stream.track, info)
        self.set_track(stream.track, info, True)
        return True

    cdef int add_track(self, TsStream stream, object info) except -1:
        stream.info = info
        stream.track = <int> len(self.tracks)
        stream.set_rate(info.frame_rate_mhz)
        self.known[stream.description.key()] = (stream.track, info)
        self.orders[stream.track] = stream.order
        return self.set_track(stream.track, info, False)

    cdef int splice(self, TsStream stream, list sections, int64_t position) except -1:
        """Write SCTE 35 sections."""
        for section in sections:
            if section[0] == SPLICE_TABLE:
                data = <bytes> section
                self.deliver_untimed(
                    stream, <const uint8_t*> PyBytes_AS_STRING(data), <size_t> PyBytes_GET_SIZE(data), position
                )
        return 0

    cdef int deliver_untimed(self, TsStream stream, const uint8_t* data, size_t size, int64_t position) except -1:
        """Write metadata that has no time, at the time of the packet before it; none before the first."""
        cdef PacketView view
        cdef ProgramClock clock = stream.clock
        if not self.has_newest or not clock.begun or self.sought >= 0:
            return 0
        view.dts_us = clock.timeline.follow(stream.number, self.newest_us - clock.timeline.shift_us)
        view.offset_us = 0
        view.flags = KEYFRAME
        view.data = data
        view.size = size
        self.position = position if position >= 0 else stream.position
        return self.emit(stream.track, &view)

    # -- the beginning, the end, and elsewhere -------------------------------------------------------------------------------

    cdef int count_packet(self) except -1:
        """Give up waiting for tables and tracks after so many bytes."""
        self.taken += PACKET
        if self.taken > CHOOSE_BYTES and not self.chosen:
            self.choose(True)
        if self.taken > WAIT_BYTES:
            self.be_ready()
        return 0

    cdef int check_ready(self) except -1:
        """Say that the tracks are known: all that the tables announced, or all that came in WAIT_US."""
        if not self.has_first:
            self.has_first = True
            self.first_us = self.newest_us
        if -WAIT_US <= self.newest_us - self.first_us <= WAIT_US:
            if self.wanted == ALL_PROGRAMS and any(number not in self.maps for number in self.programs):
                return 0
            for entry in self.entries:
                if entry is not None and (entry.role == MEDIA or entry.role == UNTOLD) and entry.track < 0:
                    return 0
        return self.be_ready()

    cdef int be_ready(self) except -1:
        """Bring the tracks in the order of the tables, and let go."""
        cdef list order = sorted(range(len(self.tracks)), key=self.orders.__getitem__)
        cdef dict moved = {before: now for now, before in enumerate(order)}
        self.tracks[:] = [self.tracks[before] for before in order]
        self.orders = {moved[before]: value for before, value in self.orders.items()}
        self.known = {key: (moved[before], info) for key, (before, info) in self.known.items()}
        for packet, _position in self.held:
            (<Packet> packet).track = moved[(<Packet> packet).track]
        for entry in self.entries:
            if entry is not None and entry.track >= 0:
                (<TsStream> entry).track = moved[entry.track]
        return self.become_ready()

    cdef int finish(self) except -1:
        """End the input; an access unit that was cut is left out where that can be seen."""
        if self.lost and self.rest.size:
            self.find_packets(True)
        if not self.stride:
            raise RemoteProtocolError("no transport stream packets", offset=self.at, spec="ISO/IEC 13818-1 section 2.4.3.2")
        if self.lost:
            self.note_lost(self.at)
        elif self.rest.size:
            self.note_damage(self.base, <int64_t> self.rest.size, "the input ends inside this transport packet")
        for entry in list(self.entries):
            if entry is not None and entry.role == MEDIA and (<TsStream> entry).listening:
                self.drain(entry, OPEN if (<TsStream> entry).video and (<TsStream> entry).left > 0 else FINAL)
            if entry is not None and entry.role == MEDIA:
                self.settle(entry)
        self.ended = True
        if not self.ready:
            self.be_ready()
        return 0

    def seek(self, int64_t dts_us, int64_t position):
        """Go on at the transport packet at position, with the access unit whose decode time is about dts_us.

        Reading begins before it, where the tables are that count there: other ones may have been read last.
        """
        cdef ProgramClock clock
        self.elsewhere = True
        self.quiet_until = position
        if self.stride:
            position -= min(position, <int64_t> TABLES_BACK) // self.stride * self.stride
        self.at = self.base = position
        self.rest.clear()
        self.gap = 0
        self.lost = not self.stride
        self.lost_at = -1
        self.ended = False
        for entry in self.entries:
            if entry is not None:
                (<TsStream> entry).reset()
        for clock in self.clocks.values():
            clock.timeline.know(self.bases if len(self.clocks) == 1 else ())
            clock.resume(dts_us)
        self.newest_us = dts_us
        self.sought = self.quiet_until
        self.sought_us = dts_us
        self.passed = 0


cdef bint is_stuffed(const uint8_t* field) noexcept:
    """Tell whether an adaptation field, which is whole, has more bytes than it says something with.   Spec: section 2.4.3.4."""
    cdef size_t size = field[0]
    cdef size_t used = 1
    if not size:
        return True
    if field[1] & 0x10:
        used += 6
    if field[1] & 0x08:
        used += 6
    if field[1] & 0x04:
        used += 1
    if field[1] & 0x02 and used < size:
        used += 1 + <size_t> field[1 + used]
    if field[1] & 0x01 and used < size:
        used += 1 + <size_t> field[1 + used]
    return used < size


cdef bytes sample_of(TsStream stream, const Unit* unit):
    """Return what the formats need to see of a unit."""
    if stream.description.codec == "LATM":
        return (<LatmStreamReader> stream.reader).latm.config
    if stream.description.codec == "AAC":
        return PyBytes_FromStringAndSize(<const char*> unit.whole, <Py_ssize_t> unit.whole_size)
    return PyBytes_FromStringAndSize(<const char*> unit.data, <Py_ssize_t> unit.size)
