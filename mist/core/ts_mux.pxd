from libc.stdint cimport int64_t, uint8_t

from mist.core.buffer cimport ByteBuffer
from mist.core.muxer cimport Muxer
from mist.core.packet cimport PacketView
from mist.core.ts_packets cimport Elementary, Piece

cdef class TsMuxer(Muxer):
    cdef Elementary* elementary
    cdef int count
    cdef int pcr_track               # place of the track that carries the PCR
    cdef bint has_video
    cdef bint repeat_tables
    cdef list setups                 # keeps what elementary[].setup points at
    cdef object stream_name
    cdef bytes pmt_streams           # the PMT's elementary stream loop
    cdef bytes pmt_program           # its descriptors of the program
    cdef int sparse                  # tracks of metadata
    cdef bytes pat
    cdef bytes pmt
    cdef bytes sdt
    # What the next byte depends on besides the continuity counters.
    cdef int pmt_version
    cdef int table_counter           # continuity counter of the next PAT and SDT
    cdef int pmt_counter
    cdef bint tables_due
    cdef bint has_pcr
    cdef int64_t tables_us           # decode time at the last tables
    cdef int64_t pcr_us              # decode time that the last PCR stood for
    cdef int64_t pcr_track_us        # decode time of the PCR track's last access unit
    cdef int64_t pcr_interval_us     # between its last two
    # Room for one packet's pieces.
    cdef Piece* pieces
    cdef size_t piece_count
    cdef size_t piece_capacity
    cdef size_t piece_bytes
    cdef uint8_t[32] pes_header
    cdef uint8_t[512] prefix
    cdef ByteBuffer scratch

    cdef int load(self, list tracks) except -1
    cdef int spread(self, Elementary* es, size_t position) except -1
    cdef int build_tables(self) except -1
    cdef bint tables_are_old(self, int64_t dts_us) noexcept
    cdef int write_tables(self, int64_t dts_us) except -1
    cdef int fill_pcr(self, int64_t end_us) except -1
    cdef int write_splice(self, Elementary* es, const PacketView* packet) except -1
    cdef int write_pes(self, Elementary* es, const PacketView* packet, uint8_t flags) except -1
    cdef int choose_pcr(self, int track, const PacketView* packet) except -1
    cdef int add(self, const uint8_t* data, size_t size) except -1
    cdef int gather(self, Elementary* es, const PacketView* packet) except -1
    cdef int gather_nal_units(self, Elementary* es, const PacketView* packet, bint hevc) except -1
    cdef int gather_aac(self, Elementary* es, const PacketView* packet) except -1
    cdef int gather_opus(self, const PacketView* packet) except -1
    cdef int gather_sized(self, const PacketView* packet) except -1
    cdef int gather_av1(self, Elementary* es, const PacketView* packet) except -1
