"""MPEG transport stream muxer: packets in, 188-byte packets out.

PAT, PMT and SDT go before every video keyframe (without video: before every listed key), which is where a viewer may begin, and
at least every TABLE_INTERVAL_US between. The PCR travels with the first video track's access units, else with those of
the first audio track, and is PCR_LEAD_US behind their decode time: room for the other tracks' packets to arrive.

Spec: ISO/IEC 13818-1 (H.222.0); EN 300 468 (SDT); ETSI TS 103 491 and its Opus profile for Opus; AOM "Carriage of AV1 in
MPEG-2 TS" for AV1.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcpy

from mist.core.buffer cimport ByteBuffer
from mist.core.muxer cimport Muxer
from mist.core.nal cimport NalUnit, next_length_prefixed
from mist.core.packet cimport DISCONTINUITY, KEYFRAME, PacketView
from mist.core.track_buffer cimport KEY_RECORD
from mist.core.ts_packets cimport (
    AF_DISCONTINUITY,
    AF_PCR,
    AF_RANDOM_ACCESS,
    BODY,
    PACKET,
    Elementary,
    Piece,
    clock_90khz,
    packetize,
    put_pcr_packet,
    put_stamp,
    split_packet,
    write_section,
)
from mist.core.ts_tables cimport ADTS, AV1, NAL_H264, NAL_HEVC, OPUS, SECTION, SIZED

import struct

from mist.core.ts_tables import describe_track, pat_section, pmt_section, program_descriptors, sdt_section, stream_loop
from mist.errors import LocalProtocolError

TS_PACKET_BYTES = 188
TABLE_INTERVAL_US = 400_000   # TR 101 290: at most 500 ms between two PATs or PMTs
PCR_LEAD_US = 200_000

cdef enum:
    PAT_PID = 0
    SDT_PID = 0x11
    PMT_PID = 4096
    FIRST_PID = 256           # of the first track; the others follow
    INTERVAL_US = 400000
    LEAD_US = 200000
    SLOW_PCR_US = 90000       # access units further apart than this get PCRs between them
    EXTRA_PCR_US = 60000
    PAUSE_US = 2000000        # a gap of this size in the PCR's track is left as one
    SILENT_US = 700000        # after which other tracks keep the clock going, as far behind them
    PRIVATE_STREAM_1 = 0xBD
    BREAK_US = 1000000        # times that go back by this much start again
    MIN_START_BYTES = 40      # of a PES packet stay together, its header and more
    MAX_ADTS_BYTES = 8191     # the frame length has 13 bits
    PROGRAM_CONFIG = 5        # id_syn_ele of a program config element
    SPLICE_TABLE = 0xFC       # table_id of SCTE 35
    MAX_SECTION_BYTES = 4096
    MAX_PES_BYTES = 65535     # what PES_packet_length can say; longer only for video, as 0

cdef int64_t LONG_AGO_US = -(<int64_t> 1 << 62)
cdef uint8_t[4] START_CODE = [0, 0, 0, 1]
cdef uint8_t[6] H264_DELIMITER = [0, 0, 0, 1, 0x09, 0xF0]
cdef uint8_t[7] HEVC_DELIMITER = [0, 0, 0, 1, 0x46, 0x01, 0x50]

STATE = struct.Struct("<BBBBBqqqq")


# -- AV1 units --------------------------------------------------------------------------------------------------------


cdef int write_obus(ByteBuffer out, const uint8_t* data, size_t size, bint* has_sequence_header) except -1:
    """Append OBUs, each with a start code and escaped; stops at the first that is broken.

    Temporal delimiters are left out. Spec: AOM carriage of AV1 in MPEG-2 TS section 3.2.
    """
    cdef size_t offset = 0
    cdef size_t start, length
    cdef int kind
    while offset < size:
        start = offset
        kind = (data[start] >> 3) & 15
        if not obu_extent(data, size, &offset, &length):
            return 0
        if kind == 1:
            has_sequence_header[0] = True
        if kind != 2:
            escape_unit(out, data + start, length)
    return 0


cdef bytes framed_obus(bytes units):
    """Return OBUs in the form that TS wants."""
    cdef ByteBuffer out = ByteBuffer()
    cdef bint found = False
    write_obus(out, <const uint8_t*> PyBytes_AS_STRING(units), <size_t> PyBytes_GET_SIZE(units), &found)
    return out.take()


cdef bint obu_extent(const uint8_t* data, size_t size, size_t* offset, size_t* length) noexcept:
    """Move offset behind the OBU that begins there and set its length; returns whether it is whole."""
    cdef size_t start = offset[0]
    cdef size_t position = start + 1
    cdef uint64_t body = 0
    cdef int shift = 0
    if data[start] & 0x80:
        return False
    if data[start] & 4:
        position += 1
    if data[start] & 2:
        while True:
            if position >= size or shift > 49:
                return False
            body |= <uint64_t> (data[position] & 127) << shift
            shift += 7
            position += 1
            if not data[position - 1] & 128:
                break
        if position > size or body > size - position:
            return False
        position += body
    else:
        if position > size:
            return False
        position = size
    offset[0] = position
    length[0] = position - start
    return True


cdef int escape_unit(ByteBuffer out, const uint8_t* data, size_t size) except -1:
    """Append 00 00 01 and data with a 03 wherever 00 00 and a byte under 4 would follow each other."""
    cdef uint8_t* target = out.reserve(3 + size + size // 2 + 1)
    cdef size_t count = 3
    cdef size_t position
    cdef int zeros = 0
    target[0], target[1], target[2] = 0, 0, 1
    for position in range(size):
        if zeros >= 2 and data[position] < 4:
            target[count] = 3
            count += 1
            zeros = 0
        target[count] = data[position]
        count += 1
        zeros = zeros + 1 if data[position] == 0 else 0
    out.commit(count)
    return 0


# -- the muxer --------------------------------------------------------------------------------------------------------


@cython.final
cdef class TsMuxer(Muxer):
    """Muxes tracks into one program. PIDs are FIRST_PID + place in the list of tracks.

    `header()` is empty: the tables are in the output itself wherever a viewer may begin.
    """

    def __cinit__(self, *args, **kwargs):
        self.elementary = NULL
        self.pieces = NULL
        self.scratch = ByteBuffer()

    def __dealloc__(self):
        free(self.elementary)
        free(self.pieces)

    def __init__(self, tracks, stream_name="", int start_counter=0, bint repeat_tables=True):
        """Make a muxer for tracks.

        stream_name: what the service is called. start_counter: continuity counter of the first PAT and SDT (the PMT's is as many
        times its packets). repeat_tables: False for a file that needs its tables once, at its start.
        Raises UnsupportedError for a track that a transport stream cannot carry.
        """
        self.stream_name = stream_name
        self.repeat_tables = repeat_tables
        self.sdt = sdt_section(stream_name)
        self.pat = pat_section()
        self.table_counter = start_counter & 15
        self.tables_due = True
        self.load(list(tracks))
        self.pmt_counter = start_counter * ((len(self.pmt) + 1 + BODY - 1) // BODY) & 15

    cdef int load(self, list tracks) except -1:
        """Take a list of tracks, keeping the counters of the places that were there; nothing changes on an error."""
        cdef Elementary* fresh
        cdef Elementary* es
        cdef bytes setup
        cdef bytes adts
        cdef int place, videos = 0, audios = 0, pcr_track = 0
        described = [describe_track(info) for info in tracks]
        streams = stream_loop(described)
        fresh = <Elementary*> calloc(max(len(tracks), 1), sizeof(Elementary))
        if fresh is NULL:
            raise MemoryError
        setups = []
        for place, (form, _stream_type, own_range, _descriptors, setup, adts) in enumerate(described):
            es = &fresh[place]
            es.pid = <uint16_t> (FIRST_PID + place)
            es.form = form
            es.video = tracks[place].type == "video"
            if es.video:
                es.stream_id = 0xE0 | videos & 15
                pcr_track = pcr_track if videos else place
                videos += 1
            else:
                es.stream_id = 0xC0 | audios & 31
                pcr_track = place if not videos and not audios and tracks[place].type == "audio" else pcr_track
                audios += tracks[place].type == "audio"
            if not own_range:
                es.stream_id = PRIVATE_STREAM_1
            if place < self.count:
                es.counter = self.elementary[place].counter
            if es.form == AV1:
                setup = framed_obus(setup)
            setups.append(setup)
            es.setup = <const uint8_t*> PyBytes_AS_STRING(setup)
            es.setup_size = <size_t> PyBytes_GET_SIZE(setup)
            memcpy(es.adts, PyBytes_AS_STRING(adts), 4)
        free(self.elementary)
        self.elementary = fresh
        self.count = len(tracks)
        self.setups = setups
        self.has_video = videos > 0
        if pcr_track != self.pcr_track:
            self.has_pcr = False
        self.pcr_track = pcr_track
        self.pmt_streams = streams
        self.pmt_program = program_descriptors(tracks)
        self.sparse = <int> len([info for info in tracks if info.type == "meta"])
        return self.build_tables()

    cdef int build_tables(self) except -1:
        self.pmt = pmt_section(self.pmt_version, self.pcr_track if self.count else -1, self.pmt_streams, self.pmt_program)
        return 0

    def header(self, start_us=0):
        """Return nothing: PAT, PMT and SDT come before every packet that a viewer may begin with."""
        return b""

    def set_tracks(self, tracks):
        """Go on with other tracks; places that stay keep PID and continuity. Changed tables get the next version.

        More tracks of metadata are not taken: some receivers begin anew whenever the tables change.
        Raises UnsupportedError, and then nothing has changed.
        """
        cdef bytes before = self.pmt
        if len(tracks) > self.count and len([info for info in tracks if info.type == "meta"]) > self.sparse:
            return False
        self.load(list(tracks))
        if self.pmt != before:
            self.pmt_version = (self.pmt_version + 1) & 31
            self.build_tables()
        self.tables_due = True
        return True

    def state(self):
        """Return versions, counters and the times of tables and PCR."""
        cdef int place
        head = STATE.pack(
            self.pmt_version, self.table_counter, self.pmt_counter, self.tables_due | self.has_pcr << 1, self.count,
            self.tables_us, self.pcr_us, self.pcr_track_us, self.pcr_interval_us,
        )
        return head + bytes([self.elementary[place].counter for place in range(self.count)])

    def restore(self, state):
        """Go on from a `state()` of a muxer with the same tracks. Raises LocalProtocolError if it is not one."""
        cdef int place
        if len(state) < STATE.size or len(state) != STATE.size + state[4] or state[4] != self.count:
            raise LocalProtocolError("this is not the state of a transport stream muxer with these tracks")
        (
            self.pmt_version, self.table_counter, self.pmt_counter, flags, _count,
            self.tables_us, self.pcr_us, self.pcr_track_us, self.pcr_interval_us,
        ) = STATE.unpack_from(state)
        self.tables_due = flags & 1
        self.has_pcr = flags >> 1 & 1
        for place in range(self.count):
            self.elementary[place].counter = state[STATE.size + place] & 15
        self.build_tables()

    def pad_counters(self):
        """Spread payload over more packets until every elementary stream's next continuity counter is 0.

        So a segment that begins with counter 0 follows another one without a break, whatever was in that. Works on the
        output that was not taken yet. A stream of next to no bytes may keep its counter.
        """
        cdef int place
        cdef size_t position
        for place in range(self.count):
            position = self.out.size
            while self.elementary[place].counter and position >= PACKET:
                position -= PACKET
                self.spread(&self.elementary[place], position)

    cdef int spread(self, Elementary* es, size_t position) except -1:
        """Split the packet at a position of the output, if it is of this stream, into as many as bring its counter to 0."""
        cdef const uint8_t* packet = self.out.data + position
        cdef size_t field = packet[4] + 1 if packet[3] & 0x20 else 0
        cdef size_t payload = BODY - field
        cdef size_t kept = MIN_START_BYTES if packet[1] & 0x40 else 1
        cdef size_t extra = 16 - es.counter
        if (packet[1] & 0x1F) << 8 | packet[2] != es.pid or not packet[3] & 0x10 or payload <= kept:
            return 0
        extra = min(extra, payload - kept)
        self.out.reserve(extra * PACKET)
        split_packet(self.out.data + position, extra, self.out.size - position - PACKET)
        self.out.commit(extra * PACKET)
        es.counter = (es.counter + extra) & 15
        return 0

    cdef int begin_here(self) except -1:
        self.tables_due = True
        return 0

    # -- one packet --------------------------------------------------------------------------------------------------

    cdef int write_view(self, int track, const PacketView* packet) except -1:
        cdef Elementary* es
        cdef uint8_t flags = 0
        cdef bint start
        if track < 0 or track >= self.count:
            raise LocalProtocolError(f"the muxer has no track {track}")
        es = &self.elementary[track]
        self.piece_count = 0
        self.piece_bytes = 0
        self.add(self.pes_header, 0)
        self.gather(es, packet)
        if not self.piece_bytes or (not es.video and self.piece_bytes > MAX_PES_BYTES - 13):
            return 0  # nothing valid in it
        if es.form == SECTION:
            return self.write_splice(es, packet)
        start = es.video and packet.flags & KEYFRAME if self.has_video else packet.flags & KEY_RECORD
        if self.tables_due or (self.repeat_tables and (start or self.tables_are_old(packet.dts_us))):
            self.write_tables(packet.dts_us)
        if packet.flags & KEYFRAME and (es.video or track == self.pcr_track):
            flags = AF_RANDOM_ACCESS
        return self.write_pes(es, packet, flags | self.choose_pcr(track, packet))

    cdef int write_splice(self, Elementary* es, const PacketView* packet) except -1:
        """Write a section of SCTE 35 as it is; what is none is left out."""
        cdef bytes content = packet.data[:packet.size]
        if packet.data[0] != SPLICE_TABLE or packet.size > MAX_SECTION_BYTES:
            return 0
        if self.tables_due:
            self.write_tables(packet.dts_us)
        es.counter = <uint8_t> write_section(self.out, es.pid, content, es.counter)
        return 0

    cdef bint tables_are_old(self, int64_t dts_us) noexcept:
        return dts_us - self.tables_us >= INTERVAL_US or self.tables_us - dts_us > BREAK_US

    cdef int write_tables(self, int64_t dts_us) except -1:
        write_section(self.out, PAT_PID, self.pat, self.table_counter)
        self.pmt_counter = write_section(self.out, PMT_PID, self.pmt, self.pmt_counter)
        self.table_counter = write_section(self.out, SDT_PID, self.sdt, self.table_counter)
        self.tables_due = False
        self.tables_us = dts_us
        return 0

    cdef int choose_pcr(self, int track, const PacketView* packet) except -1:
        """Return the adaptation field flags for the PCR of this packet; writes a PCR of its own where one is missing.

        A PCR never goes back and is never ahead of a decode time that is still to come on its own track.
        """
        cdef int64_t dts_us = packet.dts_us
        cdef int flags = 0
        if track != self.pcr_track:
            if not self.has_pcr:  # demuxers want one before the first time stamp
                self.has_pcr = True
                self.pcr_us = dts_us - EXTRA_PCR_US
                self.pcr_track_us = LONG_AGO_US
                self.pcr_interval_us = 0
                self.fill_pcr(dts_us)
            elif dts_us - self.pcr_track_us > SILENT_US:  # the track of the PCR pauses or has ended: the clock goes on
                self.pcr_us = max(self.pcr_us, dts_us - SILENT_US - PAUSE_US)
                self.fill_pcr(dts_us - SILENT_US)
            elif self.pcr_interval_us > SLOW_PCR_US:
                self.fill_pcr(min(dts_us, self.pcr_track_us + LEAD_US))
            return 0
        if not self.has_pcr or packet.flags & DISCONTINUITY or dts_us < self.pcr_track_us:
            flags = AF_PCR | AF_DISCONTINUITY if self.has_pcr else AF_PCR
            self.has_pcr = True
            self.pcr_interval_us = 0
        else:
            self.pcr_interval_us = dts_us - self.pcr_track_us if self.pcr_track_us != LONG_AGO_US else 0
            if SLOW_PCR_US < dts_us - self.pcr_us < PAUSE_US:
                self.fill_pcr(dts_us - 1)
            if dts_us > self.pcr_us:
                flags = AF_PCR
        self.pcr_track_us = dts_us
        if flags:
            self.pcr_us = dts_us
        return flags

    cdef int fill_pcr(self, int64_t end_us) except -1:
        """Write packets without payload on the PCR's PID, EXTRA_PCR_US apart, up to the PCR of a decode time."""
        while end_us - self.pcr_us >= EXTRA_PCR_US:
            self.pcr_us += EXTRA_PCR_US
            put_pcr_packet(self.out.reserve(PACKET), &self.elementary[self.pcr_track], self.pcr_us - LEAD_US)
            self.out.commit(PACKET)
        return 0

    cdef int write_pes(self, Elementary* es, const PacketView* packet, uint8_t flags) except -1:
        """Write the gathered pieces as one PES packet (13818-1 section 2.4.3.6)."""
        # A picture is never shown before it is decoded (13818-1 section 2.7.5).
        cdef uint64_t pts = clock_90khz(packet.dts_us + max(packet.offset_us, <int64_t> 0))
        cdef uint64_t dts = clock_90khz(packet.dts_us)
        cdef uint8_t* header = self.pes_header
        cdef uint8_t* place = header + 9
        cdef size_t total
        cdef uint8_t* target
        header[0], header[1], header[2], header[3] = 0, 0, 1, es.stream_id
        header[6] = 0x84  # the payload begins with an access unit
        if pts == dts:
            header[7] = 0x80
            place = put_stamp(place, 2, pts)
        else:
            header[7] = 0xC0
            place = put_stamp(put_stamp(place, 3, pts), 1, dts)
        header[8] = <uint8_t> (place - header - 9)
        self.pieces[0].size = <size_t> (place - header)
        total = self.piece_bytes + self.pieces[0].size
        if total - 6 > MAX_PES_BYTES:
            header[4], header[5] = 0, 0
        else:
            header[4], header[5] = <uint8_t> ((total - 6) >> 8), <uint8_t> (total - 6)
        target = self.out.reserve((total + 8 + BODY - 1) // BODY * PACKET)
        place = packetize(target, self.pieces, total, es, flags, packet.dts_us - LEAD_US)
        self.out.commit(<size_t> (place - target))
        return 0

    # -- payload to elementary stream ---------------------------------------------------------------------------------

    cdef int add(self, const uint8_t* data, size_t size) except -1:
        """Queue bytes of the elementary stream; they must stay where they are until the packet is written."""
        cdef Piece* grown
        cdef size_t capacity
        if self.piece_count == self.piece_capacity:
            capacity = self.piece_capacity * 2 if self.piece_capacity else 64
            grown = <Piece*> realloc(self.pieces, capacity * sizeof(Piece))
            if grown is NULL:
                raise MemoryError
            self.pieces = grown
            self.piece_capacity = capacity
        self.pieces[self.piece_count].data = data
        self.pieces[self.piece_count].size = size
        self.piece_count += 1
        self.piece_bytes += size
        return 0

    cdef int gather(self, Elementary* es, const PacketView* packet) except -1:
        if not packet.size:
            return 0
        if es.form == NAL_H264:
            return self.gather_nal_units(es, packet, False)
        if es.form == ADTS:
            return self.gather_aac(es, packet)
        if es.form == NAL_HEVC:
            return self.gather_nal_units(es, packet, True)
        if es.form == OPUS:
            return self.gather_opus(packet)
        if es.form == SIZED:
            return self.gather_sized(packet)
        if es.form == AV1:
            return self.gather_av1(es, packet)
        return self.add(packet.data, packet.size)

    cdef int gather_nal_units(self, Elementary* es, const PacketView* packet, bint hevc) except -1:
        """Queue NAL units with start codes, a delimiter before them and what a keyframe lacks of parameter sets.

        What follows a broken length is left out. Spec: 13818-1 sections 2.14 (H.264) and 2.17 (HEVC).
        """
        cdef NalUnit unit
        cdef size_t offset = 0
        cdef uint64_t types = 0
        cdef uint64_t sets = <uint64_t> 7 << 32 if hevc else 0x180
        cdef int kind, first = -1
        cdef int delimiter = 35 if hevc else 9
        cdef bint setup
        while next_length_prefixed(packet.data, packet.size, &offset, 4, &unit) == 1:
            kind = unit.data[0] >> 1 & 63 if hevc else unit.data[0] & 31
            types |= <uint64_t> 1 << kind
            if first < 0:
                first = kind
        if first < 0:
            return 0
        setup = packet.flags & KEYFRAME and es.setup_size > 0 and types & sets != sets
        if first != delimiter:
            if hevc:
                self.add(HEVC_DELIMITER, 7)
            else:
                self.add(H264_DELIMITER, 6)
            if setup:
                self.add(es.setup, es.setup_size)
                setup = False
        offset = 0
        while next_length_prefixed(packet.data, packet.size, &offset, 4, &unit) == 1:
            self.add(START_CODE, 4)
            self.add(unit.data, unit.size)
            if setup:
                self.add(es.setup, es.setup_size)
                setup = False
        return 0

    cdef int gather_aac(self, Elementary* es, const PacketView* packet) except -1:
        """Queue a raw AAC frame with its ADTS header (ISO/IEC 14496-3 section 1.A.2.2); too long a frame is left out."""
        cdef bint has_setup = packet.size and packet.data[0] >> 5 == PROGRAM_CONFIG
        cdef size_t setup_size = 0 if has_setup else es.setup_size
        cdef size_t size = packet.size + setup_size + 7
        if size > MAX_ADTS_BYTES:
            return 0
        memcpy(self.prefix, es.adts, 4)
        self.prefix[3] |= <uint8_t> (size >> 11)
        self.prefix[4] = <uint8_t> (size >> 3)
        self.prefix[5] = <uint8_t> ((size & 7) << 5 | 0x1F)
        self.prefix[6] = 0xFC
        self.add(self.prefix, 7)
        if setup_size:
            self.add(es.setup, setup_size)
        return self.add(packet.data, packet.size)

    cdef int gather_opus(self, const PacketView* packet) except -1:
        """Queue an Opus packet with its control header (Opus in MPEG-TS, section 4); too long a packet is left out."""
        cdef size_t left = packet.size
        cdef size_t count = 2
        if left > MAX_PES_BYTES - 512:
            return 0
        self.prefix[0], self.prefix[1] = 0x7F, 0xE0
        while left >= 255:
            self.prefix[count] = 255
            count += 1
            left -= 255
        self.prefix[count] = <uint8_t> left
        self.add(self.prefix, count + 1)
        return self.add(packet.data, packet.size)

    cdef int gather_sized(self, const PacketView* packet) except -1:
        """Queue a document behind its size in two bytes; one that is too long for that is left out."""
        if packet.size > MAX_PES_BYTES - 32:
            return 0
        self.prefix[0], self.prefix[1] = <uint8_t> (packet.size >> 8), <uint8_t> packet.size
        self.add(self.prefix, 2)
        return self.add(packet.data, packet.size)

    cdef int gather_av1(self, Elementary* es, const PacketView* packet) except -1:
        """Queue a temporal unit's OBUs with start codes, and the sequence header where a keyframe lacks it."""
        cdef bint has_sequence_header = False
        self.scratch.clear()
        write_obus(self.scratch, packet.data, packet.size, &has_sequence_header)
        if not self.scratch.size:
            return 0
        if packet.flags & KEYFRAME and not has_sequence_header:
            self.add(es.setup, es.setup_size)
        return self.add(self.scratch.data, self.scratch.size)
