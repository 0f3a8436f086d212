"""Writes one track of a stream into shared memory: pages, records, keys, fragments, the live window and its bounds."""

cimport cython
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from mist.core.packet cimport DISCONTINUITY, KEYFRAME, NEW_INIT, Packet, PacketView
from mist.core.shm cimport Segment, add64, load64, monotonic_us, store32, store64
from mist.core.track_buffer cimport (
    FRAGMENT_MASK,
    KEY_BREAK,
    KEY_BREAK_MASK,
    KEY_NEW_INIT,
    KEY_RECORD,
    KEY_SILENT,
    MAX_INIT_BYTES,
    MAX_PAGES,
    KeyRecord,
    PacketRecord,
    PageRecord,
    Table,
    TrackHeader,
)

from mist.core.shm import create_segment, open_segment, rename_segment, unlink_segment
from mist.core.track_buffer import LAYOUT_VERSION, TRACK_MAGIC
from mist.errors import LimitExceededError, NotFound, SharedMemoryFull

PAGE_BYTES = 8 << 20             # mapped; memory is reserved in steps as it is used
PAGE_STEP_BYTES = 64 << 10
PAGE_FLIP_BYTES = 4 << 20        # a keyframe opens a new page when the old one holds this much
PAGE_FLIP_SMALL_BYTES = 256 << 10  # ... or this much and an eighth of the window
FIRST_RECORDS = 1024
FIRST_KEYS = 64
FIRST_INIT_BYTES = 1024
MAX_RECORDS = 1 << 22
AUDIO_KEY_INTERVAL_US = 2_047_000
MIN_FRAGMENTS = 5                # kept in the buffer however short the window is
LONG_GOP_US = 120_000_000        # a picture without a keyframe for so long is cut like sound from then on, until one comes
LONGEST_CUT = 16                 # fragments that the end of a silence is cut into at most
GROWING = ".growing"            # name of an index's next generation until it is complete
JITTER_WINDOW_US = 2_500_000
FIRST_JITTER_MS = 120


cdef uint32_t power_of_two(uint64_t wanted) noexcept:
    cdef uint32_t size = 1
    while size < wanted:
        size <<= 1
    return size


@cython.final
cdef class TrackWriter:
    """The one writer of a track.

    Made by `create_track` or, after the death of the process that wrote before, by `adopt_track`.
    """

    def __cinit__(self):
        self.companions = []

    cdef int map_rings(self) except -1:
        self.header = <TrackHeader*> self.segment.data
        self.keys_ring = <KeyRecord*> (self.segment.data + sizeof(TrackHeader) + self.header.init_capacity)
        self.records = <PacketRecord*> (<uint8_t*> self.keys_ring + self.header.key_capacity * sizeof(KeyRecord))
        return 0

    cdef int grow(self, uint32_t records, uint32_t keys, uint32_t init) except -1:
        """Publish a new generation of the index with other capacities, same content."""
        cdef TrackWriter old = TrackWriter()
        cdef uint64_t number
        if records > MAX_RECORDS:
            raise LimitExceededError(f"track {self.index}: more than {MAX_RECORDS} packets in the live window")
        old.segment = self.segment
        old.map_rings()
        cdef size_t size = (
            sizeof(TrackHeader) + init + keys * sizeof(KeyRecord) + <size_t> records * sizeof(PacketRecord)
        )
        self.claim_memory(size)
        self.segment = create_segment(old.segment.name + GROWING, size, size)
        self.segment.settle()
        memcpy(self.segment.data, old.segment.data, sizeof(TrackHeader) + old.header.init_size)
        self.header = <TrackHeader*> self.segment.data
        self.header.record_capacity = records
        self.header.key_capacity = keys
        self.header.init_capacity = init
        self.header.generation += 1
        self.map_rings()
        for number in range(old.header.key_tail, old.header.key_head):
            self.keys_ring[number & (keys - 1)] = old.keys_ring[number & (old.header.key_capacity - 1)]
        for number in range(old.header.tail, old.header.head):
            self.records[number & (records - 1)] = old.records[number & (old.header.record_capacity - 1)]
        self.claim_memory_back(old.segment.size)
        store32(&old.header.stale, 1)   # first: a reader that missed it would stay with the old one
        rename_segment(self.segment, old.segment.name)
        store32(&self.table.header.tracks[self.index].generation, self.header.generation)
        return 0

    def set_properties(self, str type, str codec, bytes init_data, uint32_t track_id, str language, uint32_t width,
                       uint32_t height, uint32_t frame_rate_mhz, uint32_t sample_rate_hz, uint32_t channels,
                       uint32_t sample_bits, uint32_t bandwidth_bps):
        """Set what is known of the track; the next packet carries the mark NEW_INIT if packets came before.

        Raises LimitExceededError for init data over MAX_INIT_BYTES.
        """
        cdef TrackHeader* header
        if len(init_data) > MAX_INIT_BYTES:
            raise LimitExceededError(f"init data of {len(init_data)} bytes; the limit is {MAX_INIT_BYTES}")
        if <uint32_t> len(init_data) > self.header.init_capacity:
            self.grow(self.header.record_capacity, self.header.key_capacity, power_of_two(len(init_data)))
        header = self.header
        if header.head:
            self.put_marks(NEW_INIT, 0 if self.has_init(codec, init_data) else KEY_NEW_INIT)
        store32(&header.properties_lock, header.properties_lock + 1)
        set_text(header.type, sizeof(header.type), type)
        set_text(header.codec, sizeof(header.codec), codec)
        set_text(header.language, sizeof(header.language), language)
        memcpy(self.segment.data + sizeof(TrackHeader), <const char*> init_data, len(init_data))
        header.init_size = <uint32_t> len(init_data)
        header.track_id, header.width, header.height = track_id, width, height
        header.frame_rate_mhz, header.sample_rate_hz, header.channels = frame_rate_mhz, sample_rate_hz, channels
        header.sample_bits, header.bandwidth_bps = sample_bits, bandwidth_bps
        store32(&header.properties_lock, header.properties_lock + 1)
        self.video = type == "video"
        add64(&self.table.header.track_set_generation, 1)

    def has_init(self, str codec, bytes init_data not None):
        """Return whether these are the codec and init data that the index holds."""
        cdef const char* held = <const char*> self.segment.data + sizeof(TrackHeader)
        return self.header.codec.decode() == codec and held[:self.header.init_size] == init_data

    def set_anchor(self, TrackWriter anchor):
        """Keep this track's keys until they are older than the first key of `anchor`."""
        self.anchor = anchor

    def set_companions(self, companions):
        """Set the pictures that play with this sound, or the sounds that play with this picture.

        Where a sound's init data change, the pictures' next fragment whose sound is all of the new kind breaks off.
        """
        self.companions = list(companions)

    def set_account(self, Segment account):
        """Count memory in the instance's account as well (two words: used, limit)."""
        self.account = account

    def set_figures(self, uint64_t packets, int64_t first_us, int64_t last_us, uint32_t mean, uint32_t highest,
                    uint32_t frames, bint reorders):
        """Set what is known of an on-demand track, whose packets are elsewhere.

        first_us, last_us: decode times of its first and last packet. mean, highest: bytes a second. frames: in 1000 s.
        """
        cdef TrackHeader* header = self.header
        header.head = packets
        header.first_us, header.last_us, header.now_us = first_us, last_us, last_us
        header.bytes_per_second, header.max_bytes_per_second = mean, highest
        header.measured_frame_rate_mhz = frames if self.video else 0
        header.has_bframes = reorders
        header.jitter_ms = 0

    def mark(self, uint32_t flags):
        """Put flags on the next packet; a DISCONTINUITY is a break at the next key."""
        self.put_marks(flags, KEY_BREAK if flags & DISCONTINUITY and self.header.head else 0)

    cdef int put_marks(self, uint32_t flags, uint32_t breaks) noexcept:
        """Keep flags for the next packet and breaks for the next key where a writer after this one finds them."""
        cdef TrackHeader* header = self.header
        if header.marked != header.head:
            header.marks = 0
            store64(&header.marked, header.head)
        if header.breaks_for != header.key_head:
            header.breaks = 0
            store64(&header.breaks_for, header.key_head)
        header.marks |= flags
        header.breaks |= breaks
        return 0

    cdef uint32_t due_breaks(self) noexcept:
        return self.header.breaks if self.header.breaks_for == self.header.key_head else 0

    @property
    def last_us(self):
        """Decode time of the newest packet, or None."""
        return self.header.last_us if self.header.head else None

    @property
    def memory(self):
        """Bytes of the track's index and data pages."""
        cdef uint32_t number
        cdef size_t count = self.segment.size
        for number in range(self.header.page_tail, self.header.page_head):
            count += self.header.pages[number % MAX_PAGES].size
        return count

    @property
    def packets(self):
        return self.header.head

    @property
    def init_range(self):
        """Return how often the init data had changed before the oldest key in the buffer, how often before the newest one."""
        cdef uint32_t first = self.oldest_key().breaks // KEY_NEW_INIT if self.header.key_head else 0
        return first, self.newest_breaks() // KEY_NEW_INIT

    @property
    def init_in_use(self):
        """Whether packets were made with the init data that the index holds."""
        return self.header.head > 0 and not self.due_breaks() & KEY_NEW_INIT

    @property
    def pages(self):
        """Numbers of the data pages that hold the track's packets."""
        cdef uint32_t number
        return {self.header.pages[number % MAX_PAGES].number for number in range(self.header.page_tail, self.header.page_head)}

    def advance(self, int64_t now_us):
        """State that the track is complete up to now_us, though no packet says so."""
        if now_us > self.header.now_us:
            self.header.now_us = now_us

    def write(self, Packet packet not None):
        """Append a packet. A decode time before the last one's is raised to it, the presentation time kept.

        Raises SharedMemoryFull.
        """
        cdef PacketView view
        packet.view(&view)
        self.write_view(&view, monotonic_us())

    cdef int write_view(self, const PacketView* packet, int64_t clock_us) except -1:
        cdef TrackHeader* header = self.header
        cdef PacketView fixed = packet[0]
        cdef PacketRecord* record
        cdef uint64_t sequence = header.head
        cdef bint keyframe
        if sequence and fixed.dts_us < header.last_us:
            fixed.offset_us += fixed.dts_us - header.last_us
            fixed.dts_us = header.last_us
        if self.video:
            keyframe = (fixed.flags & KEYFRAME) != 0 or self.lacks_keys(fixed.dts_us)
            self.end_silence(fixed.dts_us)
            header = self.header
        else:
            fixed.flags |= KEYFRAME
            keyframe = self.due_breaks() or header.key_head == header.key_tail or fixed.dts_us - self.keys_ring[
                (header.key_head - 1) & (header.key_capacity - 1)].dts_us >= AUDIO_KEY_INTERVAL_US
        if sequence - header.tail == header.record_capacity:
            self.grow(header.record_capacity * 2, header.key_capacity, header.init_capacity)
        if keyframe and self.header.key_head - self.header.key_tail == self.header.key_capacity:
            self.grow(self.header.record_capacity, self.header.key_capacity * 2, self.header.init_capacity)
        header = self.header
        self.place(&fixed, keyframe)
        record = &self.records[sequence & (header.record_capacity - 1)]
        record.dts_us, record.offset_us = fixed.dts_us, fixed.offset_us
        record.arrival = add64(&self.table.header.arrival, 1)
        record.size = <uint32_t> fixed.size
        record.page = header.page_number
        record.position = self.page_used - record.size
        record.flags = fixed.flags | (KEY_RECORD if keyframe else 0)
        if header.marked == sequence:
            record.flags |= header.marks
        if keyframe:
            self.add_key(&fixed, sequence, record.arrival)
            header = self.header
        header.total_bytes += fixed.size
        if sequence == 0:  # later, too, what is before an only packet is a silence and not something that has left the buffer
            header.first_us = fixed.dts_us
        header.last_us = header.now_us = fixed.dts_us
        self.measure(&fixed, clock_us)
        store64(&header.head, sequence + 1)
        if sequence == header.tail:
            add64(&self.table.header.track_set_generation, 1)   # who chose tracks before passed over the empty one
        self.table.header.last_packet_us = clock_us
        if keyframe:
            add64(&self.table.header.key_generation, 1)
            self.trim_window()
        return 0

    cdef bint lacks_keys(self, int64_t dts_us) noexcept:
        """Return whether so much has come without a keyframe that viewers and segments begin without one."""
        cdef TrackHeader* header = self.header
        cdef KeyRecord* newest
        cdef int64_t waited_us
        if header.key_head == header.key_tail:
            return False
        newest = &self.keys_ring[(header.key_head - 1) & (header.key_capacity - 1)]
        waited_us = dts_us - newest.dts_us
        if waited_us < self.table.header.segment_us or newest.fragment & KEY_SILENT or newest.sequence < header.tail:
            return False
        return waited_us >= LONG_GOP_US or not self.records[newest.sequence & (header.record_capacity - 1)].flags & KEYFRAME

    cdef int place(self, const PacketView* packet, bint keyframe) except -1:
        """Copy the payload into the current data page, or a new one."""
        cdef TrackHeader* header = self.header
        cdef int64_t age
        if self.page is not None and self.page_used + packet.size <= self.page.size:
            age = packet.dts_us - header.page_start_us
            if not keyframe or not (
                self.page_used >= self.flip_bytes()
                or age >= self.table.header.window_us
                or (self.page_used >= PAGE_FLIP_SMALL_BYTES and age * 8 >= self.table.header.window_us)
            ):
                self.reserve(self.page_used + packet.size)
                memcpy(self.page.data + self.page_used, packet.data, packet.size)
                self.page_used += <uint32_t> packet.size
                header.pages[(header.page_head - 1) % MAX_PAGES].end_sequence = header.head + 1
                return 0
        self.close_page()
        self.open_page(packet.size if packet.size > PAGE_BYTES else PAGE_BYTES)
        header.page_start_us = packet.dts_us
        self.reserve(packet.size)
        memcpy(self.page.data, packet.data, packet.size)
        self.page_used = <uint32_t> packet.size
        header.pages[(header.page_head - 1) % MAX_PAGES].end_sequence = header.head + 1
        return 0

    cdef uint64_t flip_bytes(self) noexcept:
        """Return the fill at which a keyframe opens a new page: small where bounds are tight, for pages go as a whole."""
        cdef uint64_t flip = PAGE_FLIP_BYTES
        if self.table.header.bytes_limit:
            flip = min(flip, self.table.header.bytes_limit // 8)
        if self.account is not None and (<uint64_t*> self.account.data)[1]:
            flip = min(flip, (<uint64_t*> self.account.data)[1] // 64)
        return flip

    cdef int open_page(self, size_t size) except -1:
        cdef TrackHeader* header = self.header
        cdef PageRecord* page
        while header.page_head - header.page_tail >= MAX_PAGES:
            self.drop_oldest_key()
        self.page = create_segment(f"{self.segment.name}.{header.page_number + 1}", size, 0)
        page = &header.pages[header.page_head % MAX_PAGES]
        page.number = header.page_number + 1
        page.size = 0
        page.end_sequence = header.head
        header.page_number += 1
        header.page_head += 1
        self.page_used = 0
        return 0

    cdef int close_page(self) except -1:
        if self.page is not None:
            self.page.settle()
            self.page = None
        return 0

    cdef int reserve(self, size_t upto) except -1:
        """Have memory behind the first `upto` bytes of the page."""
        cdef size_t wanted
        cdef size_t before = self.page.allocated
        if upto <= before:
            return 0
        wanted = (upto + PAGE_STEP_BYTES - 1) // PAGE_STEP_BYTES * PAGE_STEP_BYTES
        if wanted > self.page.size:
            wanted = self.page.size
        self.claim_memory(wanted - before)
        try:
            self.page.allocate(wanted)
        except SharedMemoryFull:
            self.claim_memory_back(wanted - before)
            raise
        self.header.pages[(self.header.page_head - 1) % MAX_PAGES].size = <uint32_t> self.page.allocated
        return 0

    cdef int claim_memory(self, size_t count) except -1:
        """Count `count` bytes against the bounds; over one of them, the oldest media goes first."""
        cdef uint64_t* account = NULL
        if self.account is not None:
            account = <uint64_t*> self.account.data
        while True:
            if self.table.header.bytes_limit and (
                load64(&self.table.header.bytes_used) + count > self.table.header.bytes_limit
            ):
                which = f"the stream's bound of {self.table.header.bytes_limit} bytes (config.memory.per_stream_bytes)"
            elif account is not NULL and account[1] and load64(account) + count > account[1]:
                which = f"the server's bound of {account[1]} bytes (config.memory.total_bytes)"
            else:
                break
            if self.header.key_head - self.header.key_tail <= 2:
                raise SharedMemoryFull(f"track {self.index} of {self.table.prefix}: {count} more bytes are over {which}")
            self.drop_oldest_key()
        add64(&self.table.header.bytes_used, count)
        if account is not NULL:
            add64(account, count)
        return 0

    def claim_memory_back(self, size_t count):
        """Take `count` bytes off the bounds again."""
        add64(&self.table.header.bytes_used, <uint64_t> -<int64_t> count)
        if self.account is not None:
            add64(<uint64_t*> self.account.data, <uint64_t> -<int64_t> count)

    cdef int add_key(self, const PacketView* packet, uint64_t sequence, uint64_t arrival) except -1:
        cdef TrackHeader* header = self.header
        cdef KeyRecord* key
        cdef int64_t length_us = packet.dts_us - header.fragment_start_us
        cdef bint new_sound = self.has_new_sound(packet.dts_us)
        cdef uint32_t breaks = self.count_breaks(new_sound)
        if header.key_head == 0:
            header.fragment_start_us = packet.dts_us
        elif length_us >= self.table.header.segment_us or self.due_breaks() or new_sound or (
            length_us > 0 and self.was_silent()
        ):
            self.begin_fragment(packet.dts_us)
        if not self.video and self.due_breaks() & KEY_NEW_INIT:
            self.break_pictures()
        key = &self.keys_ring[header.key_head & (header.key_capacity - 1)]
        key.sequence, key.dts_us, key.arrival = sequence, packet.dts_us, arrival
        key.bytes = header.total_bytes
        key.fragment = header.fragment
        key.breaks = breaks
        store64(&header.key_head, header.key_head + 1)
        return 0

    cdef int begin_fragment(self, int64_t dts_us) noexcept:
        cdef int64_t length_us = dts_us - self.header.fragment_start_us
        self.header.fragment += 1
        self.header.fragment_start_us = dts_us
        if length_us > self.header.longest_fragment_us:
            self.header.longest_fragment_us = <uint32_t> min(length_us, 0xFFFFFFFF)
        return 0

    cdef bint was_silent(self) noexcept:
        """Return whether the newest key has no packet."""
        cdef TrackHeader* header = self.header
        return header.key_head > header.key_tail and (
            self.keys_ring[(header.key_head - 1) & (header.key_capacity - 1)].fragment & KEY_SILENT) != 0

    def pass_silence(self, int64_t now_us):
        """Let a fragment begin at a decode time though the track has no packet for it, and keep the live window: the others go on.

        Nothing happens while the open fragment is short. Raises SharedMemoryFull.
        """
        cdef TrackHeader* header = self.header
        if header.key_head == 0 or now_us - header.fragment_start_us < self.table.header.segment_us or now_us <= header.last_us:
            return
        self.begin_silent_fragment(now_us)
        add64(&self.table.header.key_generation, 1)
        self.trim_window()

    cdef int end_silence(self, int64_t now_us) except -1:
        """Cut what is left of a silence into fragments of the usual length, before the first packet after it."""
        cdef int64_t step_us = max(<int64_t> 1, self.table.header.segment_us)
        cdef KeyRecord* newest = &self.keys_ring[(self.header.key_head - 1) & (self.header.key_capacity - 1)]
        if not self.was_silent() or newest.sequence != self.header.head:
            return 0
        if now_us - self.header.fragment_start_us > LONGEST_CUT * step_us:
            return 0
        while now_us - self.header.fragment_start_us >= step_us + step_us // 4:
            self.begin_silent_fragment(self.header.fragment_start_us + step_us)
        return 0

    cdef int begin_silent_fragment(self, int64_t dts_us) except -1:
        cdef uint32_t breaks = self.newest_breaks()
        if self.has_new_sound(dts_us):
            breaks = add_break(breaks)
        self.begin_fragment(dts_us)
        return self.put_silent_key(dts_us, self.header.fragment, breaks)

    cdef int put_silent_key(self, int64_t dts_us, uint32_t fragment, uint32_t breaks) except -1:
        cdef KeyRecord* key
        if self.header.key_head - self.header.key_tail == self.header.key_capacity:
            self.grow(self.header.record_capacity, self.header.key_capacity * 2, self.header.init_capacity)
        key = &self.keys_ring[self.header.key_head & (self.header.key_capacity - 1)]
        key.sequence, key.dts_us, key.arrival = self.header.head, dts_us, load64(&self.table.header.arrival)
        key.bytes, key.breaks = self.header.total_bytes, breaks
        key.fragment = fragment | <uint32_t> KEY_SILENT
        store64(&self.header.key_head, self.header.key_head + 1)
        return 0

    def follow_fragments(self, TrackWriter other not None, int64_t now_us):
        """Take the fragments of another track as those of this one, which begins late: at now_us. Numbers go on."""
        cdef uint64_t number
        cdef uint32_t fragment = 0
        cdef KeyRecord* key
        if self.header.key_head or other.header.key_head == other.header.key_tail:
            return
        if now_us - other.header.first_us < self.table.header.segment_us:
            return
        for number in range(other.header.key_tail, other.header.key_head):
            key = &other.keys_ring[number & (other.header.key_capacity - 1)]
            if key.dts_us < now_us and (number == other.header.key_tail or key.fragment & FRAGMENT_MASK != fragment):
                fragment = key.fragment & FRAGMENT_MASK
                self.put_silent_key(key.dts_us, fragment, key.breaks & KEY_BREAK_MASK)
                self.header.fragment, self.header.fragment_start_us = fragment, key.dts_us
        self.header.first_fragment = other.header.first_fragment
        self.header.longest_fragment_us = other.header.longest_fragment_us

    def forget_all(self):
        """Drop all packets of a track that has ended while others go on."""
        cdef TrackHeader* header = self.header
        if header.tail == header.head:
            return
        header.first_fragment = header.fragment + 1
        header.first_us = header.last_us
        store64(&header.tail, header.head)
        store64(&header.key_tail, header.key_head)
        self.drop_pages()
        add64(&self.table.header.key_generation, 1)
        add64(&self.table.header.track_set_generation, 1)

    cdef uint32_t newest_breaks(self) noexcept:
        """Return the counters of the newest key."""
        if self.header.key_head == 0:
            return 0
        return self.keys_ring[(self.header.key_head - 1) & (self.header.key_capacity - 1)].breaks

    cdef uint32_t count_breaks(self, bint new_sound) noexcept:
        """Return the counters of the next key."""
        cdef uint32_t breaks = self.newest_breaks()
        if self.header.key_head and (self.due_breaks() or new_sound):
            breaks = add_break(breaks)
        if self.header.key_head and self.due_breaks() & KEY_NEW_INIT:
            breaks += KEY_NEW_INIT
        return breaks

    cdef bint has_new_sound(self, int64_t dts_us) except -1:
        """Return whether a sound's init data changed after the open fragment of this picture began, and before a time."""
        cdef TrackWriter sound
        if not self.video or self.header.key_head == 0:
            return False
        for sound in self.companions:
            if sound.init_changes_before(dts_us) != sound.init_changes_before(self.header.fragment_start_us):
                return True
        return False

    cdef uint32_t init_changes_before(self, int64_t dts_us) noexcept:
        """Return how often the init data had changed where all packets are that are not before a time."""
        cdef uint64_t number = self.header.key_head
        cdef KeyRecord* key
        cdef uint32_t changes = 0
        while number > self.header.key_tail:
            number -= 1
            key = &self.keys_ring[number & (self.header.key_capacity - 1)]
            changes = key.breaks // KEY_NEW_INIT
            if self.begins_after(key.sequence) < dts_us:
                break
        return changes

    cdef int64_t begins_after(self, uint64_t sequence) noexcept:
        """Return the decode time of the packet before this one, or just before its own where that is gone."""
        cdef TrackHeader* header = self.header
        if sequence > header.tail:
            return self.records[(sequence - 1) & (header.record_capacity - 1)].dts_us
        return self.records[sequence & (header.record_capacity - 1)].dts_us - 1

    cdef int break_pictures(self) except -1:
        """Let the pictures' first fragment break off that is there and has none of the sound up to now."""
        cdef TrackWriter picture
        for picture in self.companions:
            picture.break_behind(self.header.last_us)
        return 0

    cdef int break_behind(self, int64_t dts_us) noexcept:
        """Count a break for the first fragment that begins after a time, unless it breaks off as it is."""
        cdef TrackHeader* header = self.header
        cdef KeyRecord* key
        cdef KeyRecord* before
        cdef uint64_t first = header.key_head
        cdef uint64_t number = header.key_head
        while number > header.key_tail + 1:
            number -= 1
            key = &self.keys_ring[number & (header.key_capacity - 1)]
            before = &self.keys_ring[(number - 1) & (header.key_capacity - 1)]
            if key.dts_us <= dts_us:
                break
            if (key.fragment ^ before.fragment) & FRAGMENT_MASK:
                first = number
        if first == header.key_head:
            return 0  # the next one sees it
        key = &self.keys_ring[first & (header.key_capacity - 1)]
        before = &self.keys_ring[(first - 1) & (header.key_capacity - 1)]
        if (key.breaks ^ before.breaks) & KEY_BREAK_MASK:
            return 0
        for number in range(first, header.key_head):
            key = &self.keys_ring[number & (header.key_capacity - 1)]
            key.breaks = add_break(key.breaks)
        return 0

    cdef int trim_window(self) except -1:
        """Drop keys that have left the live window."""
        cdef TrackHeader* header = self.header
        cdef KeyRecord* second
        while header.key_head - header.key_tail > 1:
            second = &self.keys_ring[(header.key_tail + 1) & (header.key_capacity - 1)]
            if max(header.last_us, header.fragment_start_us) - second.dts_us < self.table.header.window_us:
                return 0
            if header.fragment - (second.fragment & FRAGMENT_MASK) < MIN_FRAGMENTS:
                return 0
            if self.anchor is not None and self.anchor.header.head and second.dts_us > self.anchor.header.first_us:
                return 0
            self.drop_oldest_key()
        return 0

    cdef KeyRecord* oldest_key(self) noexcept:
        return &self.keys_ring[self.header.key_tail & (self.header.key_capacity - 1)]

    cdef int drop_oldest_key(self) except -1:
        """Forget the oldest key and its packets."""
        cdef TrackHeader* header = self.header
        cdef KeyRecord* second
        if header.key_head - header.key_tail < 2:
            raise SharedMemoryFull(f"track {self.index} of {self.table.prefix}: one GOP is over the bounds")
        second = &self.keys_ring[(header.key_tail + 1) & (header.key_capacity - 1)]
        header.first_fragment = first_whole(self.oldest_key(), second)
        if second.sequence == header.head and header.tail < header.head:
            add64(&self.table.header.track_set_generation, 1)   # nothing is left of it: it has been silent for the whole window
        store64(&header.tail, second.sequence)
        header.first_us = second.dts_us
        store64(&header.key_tail, header.key_tail + 1)
        self.drop_pages()
        add64(&self.table.header.key_generation, 1)
        return 0

    cdef int drop_pages(self) except -1:
        cdef TrackHeader* header = self.header
        cdef PageRecord* page
        while header.page_tail + 1 < header.page_head:
            page = &header.pages[header.page_tail % MAX_PAGES]
            if page.end_sequence > header.tail:
                return 0
            unlink_segment(f"{self.segment.name}.{page.number}")
            self.claim_memory_back(page.size)
            header.page_tail += 1
        return 0

    cdef void measure(self, const PacketView* packet, int64_t clock_us) noexcept:
        """Keep rates, jitter and the B-frame mark up to date."""
        cdef TrackHeader* header = self.header
        cdef KeyRecord* first
        cdef int64_t span, lateness
        cdef uint64_t count, rate
        if self.video and packet.offset_us != self.records[header.tail & (header.record_capacity - 1)].offset_us:
            header.has_bframes = 1
        if packet.dts_us - self.jitter_start_media > JITTER_WINDOW_US or self.jitter_start_clock == 0:
            if self.jitter_start_clock:
                if self.jitter_peak // 1000 + 1 > header.jitter_ms:
                    header.jitter_ms = <uint32_t> (self.jitter_peak // 1000 + 1)
                else:
                    header.jitter_ms = <uint32_t> ((header.jitter_ms * 7 + self.jitter_peak // 1000 + 1) // 8)
            self.jitter_start_media, self.jitter_start_clock = packet.dts_us, clock_us
            self.jitter_peak = 0
        lateness = (clock_us - self.jitter_start_clock) - (packet.dts_us - self.jitter_start_media)
        if lateness > self.jitter_peak:
            self.jitter_peak = lateness
        span = packet.dts_us - header.first_us
        count = header.head - header.tail
        if span > 0 and (self.video or count % 16 == 0):
            if self.video:
                header.measured_frame_rate_mhz = <uint32_t> ((count * 1000000000 + span // 2) // span)
            first = &self.keys_ring[header.key_tail & (header.key_capacity - 1)]
            rate = (header.total_bytes - first.bytes) * 1000000 // <uint64_t> span
            header.bytes_per_second = <uint32_t> rate
            if span > 1000000 and rate > header.max_bytes_per_second:
                header.max_bytes_per_second = <uint32_t> rate

    cdef int repair(self) except -1:
        """Take back what a killed writer had begun: the packet whose number it did not publish was never there."""
        cdef TrackHeader* header = self.header
        store32(&header.stale, 0)
        store32(&self.table.header.tracks[self.index].generation, header.generation)
        if header.properties_lock & 1:
            store32(&header.properties_lock, header.properties_lock + 1)
        if header.page_head == 0:
            return 0
        self.repair_rings()
        self.drop_pages()
        self.repair_counts()
        self.reopen_page()
        add64(&self.table.header.key_generation, 1)
        return 0

    cdef int repair_rings(self) noexcept:
        """Bring keys and packets together again: a key is listed before its packet, and leaves after it."""
        cdef TrackHeader* header = self.header
        cdef KeyRecord* oldest
        cdef KeyRecord* second
        while header.key_head > header.key_tail and (
            self.keys_ring[(header.key_head - 1) & (header.key_capacity - 1)].sequence >= header.head
            and not self.was_silent()
        ):
            store64(&header.key_head, header.key_head - 1)
        while header.key_head - header.key_tail > 1:
            oldest = self.oldest_key()
            if oldest.sequence >= header.tail:
                break
            second = &self.keys_ring[(header.key_tail + 1) & (header.key_capacity - 1)]
            header.first_fragment = first_whole(oldest, second)
            store64(&header.key_tail, header.key_tail + 1)
        return 0

    cdef int repair_counts(self) noexcept:
        """Work out anew what is added up packet by packet, from the newest key on."""
        cdef TrackHeader* header = self.header
        cdef KeyRecord* key
        cdef uint64_t number = header.key_head - 1
        cdef uint64_t sequence = header.tail
        header.total_bytes = 0
        if header.key_head > header.key_tail:
            key = &self.keys_ring[number & (header.key_capacity - 1)]
            sequence, header.total_bytes, header.fragment = key.sequence, key.bytes, key.fragment & FRAGMENT_MASK
            while number > header.key_tail and (
                self.keys_ring[(number - 1) & (header.key_capacity - 1)].fragment & FRAGMENT_MASK == header.fragment
            ):
                number -= 1
            header.fragment_start_us = self.keys_ring[number & (header.key_capacity - 1)].dts_us
        while sequence < header.head:
            header.total_bytes += self.records[sequence & (header.record_capacity - 1)].size
            sequence += 1
        if header.tail < header.head:
            header.first_us = self.records[header.tail & (header.record_capacity - 1)].dts_us
            header.last_us = self.records[(header.head - 1) & (header.record_capacity - 1)].dts_us
        return 0

    cdef int reopen_page(self) except -1:
        """Go on in the last data page, behind its last packet."""
        cdef TrackHeader* header = self.header
        cdef PacketRecord* record = &self.records[(header.head - 1) & (header.record_capacity - 1)]
        if header.page_head == header.page_tail:
            return 0
        header.page_number = header.pages[(header.page_head - 1) % MAX_PAGES].number
        if header.tail == header.head or record.page != header.page_number:
            return 0
        try:
            self.page = open_segment(f"{self.segment.name}.{header.page_number}", True, True)
        except NotFound:
            return 0
        self.page.allocated = header.pages[(header.page_head - 1) % MAX_PAGES].size
        self.page_used = record.position + record.size
        return 0

    def close(self, bint unlink):
        """Let go of the track; with `unlink`, remove it and everything in its buffer."""
        cdef uint32_t number
        self.close_page()
        if not unlink:
            return
        store32(&self.table.header.tracks[self.index].valid_mask, 0)
        add64(&self.table.header.track_set_generation, 1)
        for number in range(self.header.page_tail, self.header.page_head):
            unlink_segment(f"{self.segment.name}.{self.header.pages[number % MAX_PAGES].number}")
            self.claim_memory_back(self.header.pages[number % MAX_PAGES].size)
        self.header.page_tail = self.header.page_head
        unlink_segment(self.segment.name)
        self.claim_memory_back(self.segment.size)


cdef inline uint32_t first_whole(const KeyRecord* oldest, const KeyRecord* second) noexcept:
    # Return the number of the oldest fragment that is left without a key: one that has lost its first key is not whole any more.
    return (second.fragment & FRAGMENT_MASK) + (second.fragment & FRAGMENT_MASK == oldest.fragment & FRAGMENT_MASK)


cdef inline uint32_t add_break(uint32_t breaks) noexcept:
    return (breaks & ~<uint32_t> KEY_BREAK_MASK) | ((breaks + KEY_BREAK) & KEY_BREAK_MASK)


cdef void set_text(char* target, size_t size, str text) noexcept:
    cdef bytes data = text.encode()[: size - 1]
    memset(target, 0, size)
    memcpy(target, <const char*> data, len(data))


def create_track(Table table not None, int index, Segment account=None):
    """Make the index of a new track; it becomes visible with `show_track`."""
    cdef TrackWriter writer = TrackWriter()
    cdef size_t size = (
        sizeof(TrackHeader) + FIRST_INIT_BYTES + FIRST_KEYS * sizeof(KeyRecord) + FIRST_RECORDS * sizeof(PacketRecord)
    )
    cdef TrackHeader* header
    writer.table = table
    writer.index = index
    writer.account = account
    writer.segment = create_segment(f"{table.prefix}.{index}", size, size)
    writer.segment.settle()
    header = writer.header = <TrackHeader*> writer.segment.data
    header.version = LAYOUT_VERSION
    header.record_capacity, header.key_capacity = FIRST_RECORDS, FIRST_KEYS
    header.init_capacity = FIRST_INIT_BYTES
    header.jitter_ms = FIRST_JITTER_MS
    writer.map_rings()
    add64(&table.header.bytes_used, size)
    if account is not None:
        add64(<uint64_t*> account.data, size)
    store32(&header.magic, TRACK_MAGIC)
    return writer


def show_track(Table table not None, int index, uint32_t valid_mask):
    """Set who sees a track (0 hides it)."""
    table.header.slots_used = max(table.header.slots_used, <uint64_t> index + 1)
    store32(&table.header.tracks[index].valid_mask, valid_mask)
    add64(&table.header.track_set_generation, 1)


def adopt_track(Table table not None, int index, Segment account=None):
    """Go on with a track whose writer has ended, at whatever instruction it was killed: at its next packet number.

    Raises NotFound.
    """
    cdef TrackWriter writer = TrackWriter()
    cdef TrackHeader* header
    writer.table = table
    writer.index = index
    writer.account = account
    writer.segment = open_segment(f"{table.prefix}.{index}", True)
    writer.map_rings()
    header = writer.header
    if writer.segment.size < sizeof(TrackHeader) or header.magic != TRACK_MAGIC or header.version != LAYOUT_VERSION:
        raise LimitExceededError(f"track {index} has another layout than {LAYOUT_VERSION}")
    writer.video = (<bytes> (<char*> header.type)) == b"video"
    writer.repair()
    return writer


def read_account(Segment account not None):
    """Return (bytes used, limit) of an instance's memory account."""
    return load64(<uint64_t*> account.data), (<uint64_t*> account.data)[1]


def set_account_limit(Segment account not None, uint64_t limit):
    (<uint64_t*> account.data)[1] = limit


def claim_account(Table table not None, Segment account, int64_t count):
    """Count memory that a stream takes besides its tracks (or, below zero, gives back) against the bounds.

    account: the instance's, or None. Returns the bound that it would break, and then counts nothing; "" when all is well.
    """
    cdef uint64_t* total = <uint64_t*> account.data if account is not None else NULL
    cdef uint64_t used = load64(&table.header.bytes_used)
    if count > 0 and table.header.bytes_limit and used + <uint64_t> count > table.header.bytes_limit:
        return f"the stream's bound of {table.header.bytes_limit} bytes (config.memory.per_stream_bytes)"
    if count > 0 and total is not NULL and total[1] and load64(total) + <uint64_t> count > total[1]:
        return f"the server's bound of {total[1]} bytes (config.memory.total_bytes)"
    add64(&table.header.bytes_used, <uint64_t> count)
    if total is not NULL:
        add64(total, <uint64_t> count)
    return ""


def release_account(Segment account not None, uint64_t count):
    """Take a dead stream's bytes off the account."""
    add64(<uint64_t*> account.data, <uint64_t> -<int64_t> count)
