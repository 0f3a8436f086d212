from libc.stdint cimport uint8_t, uint32_t

from mist.core.buffer cimport ByteBuffer

cdef int write_message(ByteBuffer out, uint32_t chunk_stream, uint8_t type_id, uint32_t message_stream, uint32_t time_ms,
                       const uint8_t* head, size_t head_size, const uint8_t* data, size_t size,
                       uint32_t chunk_size) except -1
