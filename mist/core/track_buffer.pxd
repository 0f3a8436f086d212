from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t

from mist.core.doorbell cimport Ringer
from mist.core.packet cimport PacketView
from mist.core.shm cimport Segment

cdef enum:
    MAX_TRACKS = 64          # track slots of a stream
    MAX_SUBSCRIBERS = 4096   # processes that may wait for one stream
    SUBSCRIBER_WORDS = 64
    MAX_PAGES = 256          # data pages of one track in the buffer
    MAX_INIT_BYTES = 65536

cdef enum:
    KEY_RECORD = 8           # packet flag: the writer listed this packet in the key ring

cdef enum:                   # the counters in KeyRecord.breaks: one of each, and where they are
    KEY_BREAK = 1
    KEY_NEW_INIT = 0x10000
    KEY_BREAK_MASK = 0xFFFF

cdef enum:                   # in KeyRecord.fragment: the fragment begins without a packet, while the track is silent and others go on
    KEY_SILENT = 0x80000000
    FRAGMENT_MASK = 0x7FFFFFFF

ctypedef struct Subscriber:
    uint32_t pid
    uint32_t cookie

ctypedef struct TrackSlot:
    uint32_t valid_mask
    uint32_t generation

ctypedef struct TableHeader:
    uint32_t magic
    uint32_t version
    uint32_t status
    uint32_t progress
    uint32_t stale
    uint32_t guardian_pid
    uint32_t input_pid
    uint32_t on_demand       # packets are in spans (span_index), not in the tracks' rings
    uint64_t track_set_generation
    uint64_t key_generation
    uint64_t arrival
    int64_t boot_us          # monotonic clock at media time 0
    int64_t wall_us          # unix time at media time 0
    int64_t window_us
    int64_t segment_us
    int64_t last_packet_us   # monotonic clock at the newest packet
    uint64_t bytes_used
    uint64_t bytes_limit
    uint64_t slots_used      # tracks up to here were there at some time; a new one gets the next slot
    char source[512]
    uint64_t armed[64]
    uint64_t claimed[64]
    Subscriber subscribers[4096]
    TrackSlot tracks[64]

ctypedef struct PacketRecord:
    int64_t dts_us
    uint64_t arrival
    int64_t offset_us
    uint32_t size
    uint32_t page
    uint32_t position
    uint32_t flags

ctypedef struct KeyRecord:
    uint64_t sequence
    int64_t dts_us
    uint64_t arrival
    uint64_t bytes           # payload bytes of the whole track before this key
    uint32_t fragment
    uint32_t breaks          # how often times broke or init data changed, up to here, as KEY_BREAK and KEY_NEW_INIT

ctypedef struct PageRecord:
    uint32_t number
    uint32_t size
    uint64_t end_sequence    # one past the last packet on it

ctypedef struct TrackHeader:
    uint32_t magic
    uint32_t version
    uint32_t stale           # a later generation of this index exists
    uint32_t generation
    uint32_t record_capacity
    uint32_t key_capacity
    uint32_t init_capacity
    uint32_t properties_lock  # sequence lock: odd while being written
    char type[8]
    char codec[32]
    char language[8]
    uint32_t track_id
    uint32_t width
    uint32_t height
    uint32_t frame_rate_mhz
    uint32_t sample_rate_hz
    uint32_t channels
    uint32_t sample_bits
    uint32_t bandwidth_bps
    uint32_t init_size
    uint32_t has_bframes
    uint64_t head            # next packet number
    uint64_t tail            # first packet number in the buffer
    uint64_t key_head
    uint64_t key_tail
    uint64_t total_bytes     # payload bytes ever written
    int64_t first_us
    int64_t last_us
    int64_t now_us
    int64_t fragment_start_us
    uint32_t fragment        # number of the open fragment
    uint32_t first_fragment  # number of the oldest fragment
    uint32_t bytes_per_second
    uint32_t max_bytes_per_second
    uint32_t jitter_ms
    uint32_t measured_frame_rate_mhz
    uint32_t page_number     # of the page being written
    uint32_t page_head
    uint32_t page_tail
    uint32_t longest_fragment_us
    int64_t page_start_us
    uint64_t marked          # the packet number that the marks are for; they mean nothing for another one
    uint64_t breaks_for      # the key number that the breaks are for
    uint32_t marks           # flags of that packet
    uint32_t breaks          # what that key begins with, as KEY_BREAK and KEY_NEW_INIT
    PageRecord pages[256]

cdef class Table:
    cdef Segment segment
    cdef TableHeader* header
    cdef readonly str prefix
    cdef uint64_t* holder(self, int slot) noexcept
    cdef int release(self, int slot, uint64_t held) noexcept
    cdef uint64_t[64] silent   # of the slots: claimed at the last look, and not rung since
    cdef int64_t look_at_us
    cdef int ring_armed(self, Ringer ringer) noexcept
    cdef int look_for_gone(self, Ringer ringer) noexcept

cdef class TrackReader:
    cdef readonly int index
    cdef Table table
    cdef Segment segment
    cdef TrackHeader* header
    cdef PacketRecord* records
    cdef KeyRecord* keys_ring
    cdef uint32_t generation
    cdef dict pages
    cdef Segment page
    cdef uint32_t page_number
    cdef bint gone                   # the track was removed, and what is not read yet cannot be read any more
    cdef bint removed(self) noexcept
    cdef int refresh(self) except -1
    cdef int record(self, uint64_t sequence, PacketRecord* out) except -1
    cdef bint key_at(self, uint64_t position, KeyRecord* key) noexcept
    cdef const uint8_t* payload(self, const PacketRecord* record) except NULL
    cdef uint64_t search(self, int64_t wanted, bint by_arrival) except? 0
    cdef int fetch(self, uint64_t sequence, PacketRecord* record, PacketView* view) except -1

    cdef inline uint64_t next_sequence(self) noexcept:
        return self.header.head
