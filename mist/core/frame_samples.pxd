from libc.stdint cimport uint64_t

from mist.core.packet cimport PacketView

# Each returns the samples of one channel in a frame, 0 where the frame is broken.
cdef uint64_t opus_samples(const PacketView* packet) noexcept
cdef uint64_t mpeg_audio_samples(const PacketView* packet) noexcept
cdef uint64_t eac3_samples(const PacketView* packet) noexcept
cdef uint64_t flac_samples(const PacketView* packet) noexcept
