"""Streams in shared memory, as readers see them: tables, track indexes and data pages.

One writer to a track, any number of readers, no locks. A writer fills a data page, then the packet's record, then
releases the ring's head; a reader acquires the head, copies the record and holds it valid if the ring's tail has not
passed it afterwards. Data pages are append-only; trimming unlinks them, which a reader that has one mapped never
notices.

Names: `<prefix>` stream table, `<prefix>.<track>` track index, `<prefix>.<track>.<page>` data page.
"""

cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from mist.core.doorbell cimport Ringer
from mist.core.muxer cimport Muxer
from mist.core.packet cimport KEYFRAME, Packet, PacketView
from mist.core.shm cimport (
    Segment, and64, cas64, fence, load32, load64, lowest_bit, monotonic_us, or64, store32, store64, swap64
)

import os

from mist.core.shm import create_segment, open_segment
from mist.errors import LimitExceededError, NotFound

TABLE_MAGIC = 0x4D535442
TRACK_MAGIC = 0x4D53544B
LAYOUT_VERSION = 2
MAX_CACHED_PAGES = 64
LOOK_US = 1_000_000           # between two looks for subscribers that are gone
TABLE_RESERVE_BYTES = sizeof(TableHeader)


@cython.final
cdef class Table:
    """A stream's table: state, clocks, track slots and who waits for it."""

    def set_status(self, uint32_t status, uint32_t progress=0):
        """Set the state (see `mist.stream.state.StreamStatus`) and the start-up progress, 0 to 255."""
        store32(&self.header.progress, progress)
        store32(&self.header.status, status)

    def retire(self):
        """Tell readers that this table is gone for good."""
        store32(&self.header.stale, 1)

    @property
    def status(self):
        return load32(&self.header.status)

    @property
    def progress(self):
        return load32(&self.header.progress)

    @property
    def stale(self):
        return load32(&self.header.stale) != 0

    @property
    def on_demand(self):
        """Whether media is loaded span by span (`mist.core.span_index`) instead of lying in the tracks' buffers."""
        return load32(&self.header.on_demand) != 0

    def set_on_demand(self):
        store32(&self.header.on_demand, 1)

    @property
    def track_set_generation(self):
        return load64(&self.header.track_set_generation)

    @property
    def key_generation(self):
        return load64(&self.header.key_generation)

    @property
    def clocks(self):
        """(monotonic us at media time 0, unix us at media time 0, window us, segment us, monotonic us of last packet)."""
        cdef TableHeader* header = self.header
        return header.boot_us, header.wall_us, header.window_us, header.segment_us, header.last_packet_us

    def set_clocks(self, int64_t boot_us, int64_t wall_us):
        self.header.boot_us = boot_us
        self.header.wall_us = wall_us

    def set_window(self, int64_t window_us, int64_t segment_us, uint64_t bytes_limit):
        self.header.window_us = window_us
        self.header.segment_us = segment_us
        self.header.bytes_limit = bytes_limit

    @property
    def bytes_used(self):
        return load64(&self.header.bytes_used)

    @property
    def slots_used(self):
        """How many track slots were in use at some time."""
        return self.header.slots_used

    @property
    def pids(self):
        """(guardian, input) process numbers, 0 when there is none."""
        return self.header.guardian_pid, self.header.input_pid

    def set_pids(self, int guardian=-1, int input=-1):
        """Set process numbers; a negative one stays as it is."""
        if guardian >= 0:
            self.header.guardian_pid = <uint32_t> guardian
        if input >= 0:
            self.header.input_pid = <uint32_t> input

    @property
    def source(self):
        return (<bytes> (<char*> self.header.source)).decode("utf-8", "replace")

    @source.setter
    def source(self, str text not None):
        cdef bytes data = text.encode()[: sizeof(self.header.source) - 1]
        memset(self.header.source, 0, sizeof(self.header.source))
        memcpy(self.header.source, <const char*> data, len(data))

    def valid_tracks(self):
        """Return (index, valid mask) of all tracks that are there now."""
        found = []
        cdef int index
        cdef uint32_t mask
        for index in range(MAX_TRACKS):
            mask = load32(&self.header.tracks[index].valid_mask)
            if mask:
                found.append((index, mask))
        return found

    # -- waiting ---------------------------------------------------------------------------------------------------

    def subscribe(self, uint32_t cookie):
        """Claim a subscriber slot for this process; returns its number.

        Raises LimitExceededError when MAX_SUBSCRIBERS processes wait for this stream.
        """
        cdef int word, bit
        cdef uint64_t free_bits, mask
        for word in range(SUBSCRIBER_WORDS):
            free_bits = ~load64(&self.header.claimed[word])
            while free_bits:
                bit = lowest_bit(free_bits)
                mask = <uint64_t> 1 << bit
                free_bits &= ~mask
                if not or64(&self.header.claimed[word], mask) & mask:
                    store64(self.holder(word * 64 + bit), <uint32_t> os.getpid() | <uint64_t> cookie << 32)
                    return word * 64 + bit
        raise LimitExceededError(f"{MAX_SUBSCRIBERS} processes read this stream already")

    def unsubscribe(self, int slot):
        """Give a slot back."""
        self.release(slot, load64(self.holder(slot)))

    cdef uint64_t* holder(self, int slot) noexcept:
        """Return who holds a slot, in one word: process number, and cookie above it; 0 while it is being claimed or given back."""
        return <uint64_t*> &self.header.subscribers[slot]

    cdef int release(self, int slot, uint64_t held) noexcept:
        """Free a slot, unless it is somebody else's by now: others free those of the dead, and the living claim them at once."""
        cdef uint64_t mask = ~(<uint64_t> 1 << (slot & 63))
        if held and cas64(self.holder(slot), held, 0):
            and64(&self.header.armed[slot >> 6], mask)
            and64(&self.header.claimed[slot >> 6], mask)
        return 0

    def subscribers(self):
        """Return the process numbers of all who hold a slot."""
        cdef int slot
        return [
            self.header.subscribers[slot].pid
            for slot in range(MAX_SUBSCRIBERS)
            if self.header.claimed[slot >> 6] >> (slot & 63) & 1
        ]

    def release_process(self, uint32_t pid):
        """Free the slots that a killed process held."""
        cdef int slot
        cdef uint64_t held
        for slot in range(MAX_SUBSCRIBERS):
            held = load64(self.holder(slot))
            if self.header.claimed[slot >> 6] >> (slot & 63) & 1 and <uint32_t> held == pid:
                self.release(slot, held)

    def arm(self, int slot):
        """Ask for one ring at the next change. Look again for changes after this, before sleeping."""
        or64(&self.header.armed[slot >> 6], <uint64_t> 1 << (slot & 63))
        fence()

    def ring(self, Ringer ringer not None):
        """Wake everybody who is armed."""
        self.ring_armed(ringer)

    def ring_everybody(self, Ringer ringer not None):
        """Wake everybody who reads: a writer that was killed may have disarmed some of them, and not have come to ring them."""
        cdef int word
        for word in range(SUBSCRIBER_WORDS):
            or64(&self.header.armed[word], load64(&self.header.claimed[word]))
        self.ring_armed(ringer)

    cdef int ring_armed(self, Ringer ringer) noexcept:
        cdef int word, slot
        cdef uint64_t bits, held
        fence()
        for word in range(SUBSCRIBER_WORDS):
            if not self.header.armed[word]:
                continue
            bits = swap64(&self.header.armed[word], 0)
            self.silent[word] &= ~bits
            while bits:
                slot = word * 64 + lowest_bit(bits)
                bits &= bits - 1
                held = load64(self.holder(slot))
                if held and ringer.ring(<uint32_t> held, <uint32_t> (held >> 32)) < 0:
                    self.release(slot, held)
        if monotonic_us() >= self.look_at_us:
            self.look_for_gone(ringer)
        return 0

    def release_gone(self, Ringer ringer not None):
        """Free the slots that were held at the last look and whose processes have no doorbell; `ring` does it once a second."""
        self.look_for_gone(ringer)

    cdef int look_for_gone(self, Ringer ringer) noexcept:
        """Free the slots of processes that ended without a word while they were not armed."""
        cdef int word, slot
        cdef uint64_t bits, held
        for word in range(SUBSCRIBER_WORDS):
            bits = self.silent[word] & load64(&self.header.claimed[word])
            while bits:
                slot = word * 64 + lowest_bit(bits)
                bits &= bits - 1
                held = load64(self.holder(slot))
                if held and ringer.is_gone(<uint32_t> held):
                    self.release(slot, held)
            self.silent[word] = load64(&self.header.claimed[word])
        self.look_at_us = monotonic_us() + LOOK_US
        return 0


def create_table(str prefix not None):
    """Create a stream's table, empty and OFF."""
    cdef Table table = Table()
    table.segment = create_segment(prefix, sizeof(TableHeader), sizeof(TableHeader))
    table.segment.settle()
    table.header = <TableHeader*> table.segment.data
    table.prefix = prefix
    table.header.version = LAYOUT_VERSION
    store32(&table.header.magic, TABLE_MAGIC)
    return table


def open_table(str prefix not None):
    """Open a stream's table, writable: readers claim subscriber slots in it.

    Raises NotFound.
    """
    cdef Table table = Table()
    table.segment = open_segment(prefix, True)
    table.prefix = prefix
    table.header = <TableHeader*> table.segment.data
    if (
        table.segment.size < sizeof(TableHeader)
        or load32(&table.header.magic) != TABLE_MAGIC
        or table.header.version != LAYOUT_VERSION
    ):
        raise NotFound(f"shared memory {prefix} is not a stream table of layout {LAYOUT_VERSION}")
    return table


@cython.final
cdef class TrackReader:
    """Reads one track of a stream."""

    def __cinit__(self, Table table not None, int index):
        """Open the track's index. Raises NotFound."""
        self.table = table
        self.index = index
        self.pages = {}
        self.page = None
        self.generation = 0xFFFFFFFF
        self.segment = None
        self.refresh()

    cdef int refresh(self) except -1:
        """Follow the index to its newest generation."""
        cdef TrackHeader* header
        cdef Segment segment
        if self.segment is not None and (self.gone or not load32(&self.header.stale)):
            return 0
        try:
            segment = open_segment(f"{self.table.prefix}.{self.index}")
        except NotFound:
            if self.segment is None or not self.removed():
                raise
            self.gone = True
            return 0
        header = <TrackHeader*> segment.data
        if (
            segment.size < sizeof(TrackHeader)
            or load32(&header.magic) != TRACK_MAGIC
            or header.version != LAYOUT_VERSION
        ):
            raise NotFound(f"track {self.index} has no index of layout {LAYOUT_VERSION}")
        self.segment = segment
        self.header = header
        self.generation = header.generation
        self.keys_ring = <KeyRecord*> (segment.data + sizeof(TrackHeader) + header.init_capacity)
        self.records = <PacketRecord*> (<uint8_t*> self.keys_ring + header.key_capacity * sizeof(KeyRecord))
        return 1

    cdef bint removed(self) noexcept:
        """Tell whether the track, or the whole stream, is no more."""
        return load32(&self.table.header.stale) or not load32(&self.table.header.tracks[self.index].valid_mask)

    def follow(self):
        """Go on with a newer generation of the index if there is one; returns whether."""
        return self.refresh() == 1

    cdef int record(self, uint64_t sequence, PacketRecord* out) except -1:
        """Copy a record; returns 1, or 0 if it is not there yet or not there any more."""
        if sequence >= load64(&self.header.head):
            if not load32(&self.header.stale) or not self.refresh():
                return 0
            if sequence >= load64(&self.header.head):
                return 0
        if self.gone:
            return 0
        out[0] = self.records[sequence & (self.header.record_capacity - 1)]
        fence()
        return 0 if sequence < load64(&self.header.tail) else 1

    cdef const uint8_t* payload(self, const PacketRecord* record) except NULL:
        """Return where a packet's bytes are, valid as long as this reader keeps the page. Raises NotFound."""
        cdef Segment page = self.page
        if page is None or self.page_number != record.page:
            page = <Segment> self.pages.get(record.page)
            if page is None:
                page = open_segment(f"{self.table.prefix}.{self.index}.{record.page}")
                if len(self.pages) >= MAX_CACHED_PAGES:
                    self.pages.pop(next(iter(self.pages)))
                self.pages[record.page] = page
            self.page = page
            self.page_number = record.page
        if <size_t> record.position + record.size > page.size:
            raise NotFound(f"track {self.index}: a record points outside of its data page")
        return page.data + record.position

    def forget_pages(self):
        """Drop mapped pages that the writer has unlinked or that lie behind; called now and then by long readers."""
        cdef uint32_t tail = self.header.page_tail
        cdef uint32_t oldest = self.header.pages[tail % MAX_PAGES].number
        for number in [number for number in self.pages if number < oldest]:
            if number != self.page_number:
                del self.pages[number]

    cdef int fetch(self, uint64_t sequence, PacketRecord* record, PacketView* view) except -1:
        """Fill record and view for a packet; returns 1, or 0 if it is not there (any more)."""
        if not self.record(sequence, record):
            return 0
        try:
            view.data = self.payload(record)
        except NotFound:
            self.refresh()
            if sequence < load64(&self.header.tail):
                return 0
            self.gone = self.removed()
            if self.gone:
                return 0
            raise
        view.dts_us = record.dts_us
        view.offset_us = record.offset_us
        view.flags = record.flags
        view.size = record.size
        return 1

    # -- what Python sees ------------------------------------------------------------------------------------------

    @property
    def first_sequence(self):
        return load64(&self.header.tail)

    @property
    def end_sequence(self):
        self.refresh()
        return load64(&self.header.head)

    def properties(self):
        """Return (type, codec, init_data, track_id, language, width, height, frame_rate_mhz, sample_rate_hz, channels,
        sample_bits, bandwidth_bps), a consistent copy."""
        cdef uint32_t before
        cdef TrackHeader* header
        while True:
            self.refresh()
            header = self.header
            before = load32(&header.properties_lock)
            if before & 1:
                continue
            copied = (
                (<bytes> (<char*> header.type)).decode(),
                (<bytes> (<char*> header.codec)).decode(),
                PyBytes_FromStringAndSize(<char*> self.segment.data + sizeof(TrackHeader), header.init_size),
                header.track_id,
                (<bytes> (<char*> header.language)).decode("ascii", "replace"),
                header.width, header.height, header.frame_rate_mhz,
                header.sample_rate_hz, header.channels, header.sample_bits, header.bandwidth_bps,
            )
            fence()
            if load32(&header.properties_lock) == before:
                return copied

    def measurements(self):
        """Return (first_us, last_us, now_us, bytes_per_second, max_bytes_per_second, jitter_ms,
        measured_frame_rate_mhz, has_bframes, first_sequence, next_sequence, first_fragment,
        longest_fragment_us)."""
        self.refresh()
        cdef TrackHeader* header = self.header
        return (
            header.first_us, header.last_us, header.now_us, header.bytes_per_second, header.max_bytes_per_second,
            header.jitter_ms, header.measured_frame_rate_mhz, header.has_bframes != 0,
            load64(&header.tail), load64(&header.head), header.first_fragment, header.longest_fragment_us,
        )

    cdef bint key_at(self, uint64_t position, KeyRecord* key) noexcept:
        """Copy a key; False when it has left the ring meanwhile."""
        key[0] = self.keys_ring[position & (self.header.key_capacity - 1)]
        fence()
        return position >= load64(&self.header.key_tail)

    def key_records(self):
        """Return [(sequence, dts_us, arrival, fragment, bytes before, breaks, init changes)] of the keys, oldest first.

        Breaks and changes of init data are counted since the track began.
        """
        self.refresh()
        cdef uint64_t position = load64(&self.header.key_tail)
        cdef uint64_t head = load64(&self.header.head)
        cdef KeyRecord key
        found = []
        while position < load64(&self.header.key_head):
            if self.key_at(position, &key) and key.sequence < head and not key.fragment & KEY_SILENT:
                found.append((
                    key.sequence, key.dts_us, key.arrival, key.fragment, key.bytes,
                    key.breaks & KEY_BREAK_MASK, key.breaks // KEY_NEW_INIT,
                ))
            position += 1
        return found

    def fragment_records(self):
        """Return [(number, dts_us, breaks, init changes)] of the beginnings of the fragments, oldest first.

        One may begin without a packet: while the track is silent and others go on.
        """
        self.refresh()
        cdef uint64_t position = load64(&self.header.key_tail)
        cdef uint64_t head = load64(&self.header.head)
        cdef int64_t number = -1
        cdef KeyRecord key
        found = []
        while position < load64(&self.header.key_head):
            if self.key_at(position, &key) and (key.sequence < head or key.fragment & KEY_SILENT):
                if <int64_t> (key.fragment & FRAGMENT_MASK) != number:
                    number = key.fragment & FRAGMENT_MASK
                    found.append((number, key.dts_us, key.breaks & KEY_BREAK_MASK, key.breaks // KEY_NEW_INIT))
            position += 1
        return found

    def newest_key(self):
        """Return the packet number of the newest key, or -1."""
        self.refresh()
        cdef uint64_t position = load64(&self.header.key_head)
        cdef uint64_t head = load64(&self.header.head)
        cdef KeyRecord* key
        while position > load64(&self.header.key_tail):
            key = &self.keys_ring[(position - 1) & (self.header.key_capacity - 1)]
            if key.sequence < head and not key.fragment & KEY_SILENT:  # a packet is published a moment later than its key
                return key.sequence
            position -= 1
        return -1

    def packet_times(self, uint64_t sequence):
        """Return (dts_us, arrival, flags, size, offset_us) of a packet, or None if it is not in the buffer."""
        cdef PacketRecord record
        if not self.record(sequence, &record):
            return None
        return record.dts_us, record.arrival, record.flags, record.size, record.offset_us

    def sequence_at(self, int64_t dts_us):
        """Return the first packet number in the buffer whose dts is not before dts_us (the end if there is none)."""
        self.refresh()
        return self.search(dts_us, False)

    def sequence_after_arrival(self, uint64_t arrival):
        """Return the first packet number in the buffer that arrived at or after `arrival`."""
        self.refresh()
        return self.search(<int64_t> arrival, True)

    cdef uint64_t search(self, int64_t wanted, bint by_arrival) except? 0:
        cdef PacketRecord record
        cdef uint64_t low = load64(&self.header.tail)
        cdef uint64_t high = load64(&self.header.head)
        cdef uint64_t middle
        while low < high:
            middle = low + (high - low) // 2
            if not self.record(middle, &record):
                low = middle + 1
            elif (<int64_t> record.arrival if by_arrival else record.dts_us) < wanted:
                low = middle + 1
            else:
                high = middle
        return low

    def packet(self, uint64_t sequence):
        """Return one packet with a copy of its payload, or None if it is not in the buffer."""
        cdef PacketRecord record
        cdef PacketView view
        if not self.fetch(sequence, &record, &view):
            return None
        return Packet(
            self.index, view.dts_us, view.offset_us, (view.flags & KEYFRAME) != 0,
            PyBytes_FromStringAndSize(<const char*> view.data, <Py_ssize_t> view.size),
        )


def mux_ranges(Muxer muxer not None, list ranges not None):
    """Write ranges of packets to a muxer, merged by decode time (the first named track first when equal).

    ranges: [(TrackReader, first sequence, end sequence)]; the muxer's track number is the place in this list.
    Returns the number of packets written; fewer than asked for when some have left the buffer.
    """
    cdef int count = len(ranges)
    cdef int place, best, written = 0
    cdef uint64_t[MAX_TRACKS] next_sequence
    cdef uint64_t[MAX_TRACKS] end_sequence
    cdef PacketRecord[MAX_TRACKS] records
    cdef bint[MAX_TRACKS] loaded
    cdef PacketView view
    cdef TrackReader reader
    if count > MAX_TRACKS:
        raise LimitExceededError(f"{count} tracks; at most {MAX_TRACKS} go into one output")
    readers = []
    for place in range(count):
        reader, first, end = ranges[place]
        readers.append(reader)
        next_sequence[place] = first
        end_sequence[place] = end
        loaded[place] = False
    while True:
        best = -1
        for place in range(count):
            reader = <TrackReader> readers[place]
            while not loaded[place] and next_sequence[place] < end_sequence[place]:
                loaded[place] = reader.record(next_sequence[place], &records[place])
                if not loaded[place]:
                    next_sequence[place] += 1
            if loaded[place] and (best < 0 or records[place].dts_us < records[best].dts_us):
                best = place
        if best < 0:
            return written
        reader = <TrackReader> readers[best]
        if reader.fetch(next_sequence[best], &records[best], &view):
            muxer.write_view(best, &view)
            written += 1
        next_sequence[best] += 1
        loaded[best] = False
