from libc.stdint cimport int16_t, int64_t, uint8_t

from mist.core.access_units cimport Unit
from mist.core.buffer cimport ByteBuffer
from mist.core.demuxer cimport Demuxer
from mist.core.packet cimport PacketView
from mist.core.ts_streams cimport TsStream

cdef enum:
    PID_COUNT = 8192

cdef class TsDemuxer(Demuxer):
    cdef readonly int stride            # bytes from one packet to the next, 0 unknown
    cdef ByteBuffer rest                # bytes that are no whole packet yet, or in which packets are still to be found
    cdef int64_t at                     # input byte that comes next
    cdef int64_t base                   # input byte that `rest` begins with
    cdef size_t gap                     # bytes still to be passed over between two packets
    cdef bint lost                      # where packets begin is not known
    cdef int64_t lost_at                # since which byte
    cdef int64_t garbage                # bytes passed over before the first packet
    cdef int16_t[PID_COUNT] places      # of `entries`, by PID; 0 none
    cdef list entries                   # TsStream of each PID that is listened to
    cdef int wanted                     # program number; 0 the first, -1 all
    cdef dict pat                       # section number: programs
    cdef dict programs                  # program number: PID of its PMT, in the order of the PAT
    cdef dict maps                      # program number: (section, streams) as its PMT says
    cdef dict clocks                    # program number: ProgramClock
    cdef set chosen                     # numbers of the programs that are read
    cdef dict told                      # key of a stream of which the tables do not tell: its description, None where nothing tells
    cdef dict known                     # key of a stream: (track, info), of those that were there before
    cdef dict orders                    # track: its stream's order
    cdef dict numbers                   # key of a stream: its number
    cdef bint settled                   # which programs are read does not change any more
    cdef bint has_first
    cdef int64_t first_us               # first time of all
    cdef int64_t newest_us              # last decode time written
    cdef bint has_newest
    cdef int64_t sought                 # where a seek went to, until its access unit was read; -1 none
    cdef int64_t sought_us              # the decode time there
    cdef int passed                     # access units left out since
    cdef int64_t taken                  # bytes of packets before ready
    cdef int newest_place               # of `entries`: the last packet's
    cdef int64_t quiet_until            # before this byte only tables are read, after a seek
    cdef bint elsewhere                 # reading went on at another place: what is read is not all of the input
    cdef int64_t breaks                 # how often packets of tables were missing, or another recording's came

    cdef int lose(self, int64_t position) except -1
    cdef int note_lost(self, int64_t found) except -1
    cdef int note_missing(self, TsStream stream, int64_t position) except -1
    cdef int find_packets(self, bint final) except -1
    cdef int64_t search(self, const uint8_t* data, size_t size, bint final) noexcept
    cdef int packet(self, const uint8_t* data, int64_t position) except -1
    cdef int listen(self, TsStream stream) except -1
    cdef int unlisten(self, TsStream stream) except -1
    cdef int tables(self, TsStream stream, list sections) except -1
    cdef int on_programs(self, object found) except -1
    cdef int on_streams(self, int number, bytes section, list streams) except -1
    cdef int choose(self, bint late) except -1
    cdef int load(self, int number) except -1
    cdef int find_out(self, TsStream stream, const uint8_t* data, size_t start, int64_t position) except -1
    cdef int media(self, TsStream stream, const uint8_t* data, size_t size, bint start, int64_t position) except -1
    cdef int begin_pes(self, TsStream stream, const uint8_t* data, size_t size, int64_t position) except -1
    cdef int body(self, TsStream stream, const uint8_t* data, size_t size) except -1
    cdef int drain(self, TsStream stream, int state) except -1
    cdef int deliver(self, TsStream stream, const Unit* unit) except -1
    cdef int note_anchor(self, TsStream stream, int64_t position) except -1
    cdef int find_anchor(self, TsStream stream, const Unit* unit) except -1
    cdef int look_for_order(self, TsStream stream, const Unit* unit, int64_t back_us, int64_t dts_us, int64_t offset_us) except -1
    cdef int put_in_order(self, TsStream stream, PacketView* view, int64_t position) except -1
    cdef int settle(self, TsStream stream) except -1
    cdef int place(self, TsStream stream, PacketView* view, int64_t position) except -1
    cdef bint holds_too_much(self, TsStream stream) except -1
    cdef int damaged(self, TsStream stream, bint whole) except -1
    cdef bint find_track(self, TsStream stream, const Unit* unit) except -1
    cdef bint renew_track(self, TsStream stream, const Unit* unit) except -1
    cdef int add_track(self, TsStream stream, object info) except -1
    cdef int splice(self, TsStream stream, list sections, int64_t position) except -1
    cdef int deliver_untimed(
        self, TsStream stream, const uint8_t* data, size_t size, int64_t position
    ) except -1
    cdef int count_packet(self) except -1
    cdef int check_ready(self) except -1
    cdef int be_ready(self) except -1
    cdef int finish(self) except -1
