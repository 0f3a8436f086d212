"""Checksums of formats whose polynomial or bit order zlib does not have."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint32_t

cdef enum:
    POLYNOMIAL = 0x04C11DB7

cdef uint32_t[8][256] table


cdef void fill_table() noexcept:
    """Fill the tables: table[k][b] is the CRC of byte b followed by k zero bytes."""
    cdef uint32_t value, number
    cdef int _bit, place
    for number in range(256):
        value = number << 24
        for _bit in range(8):
            value = (value << 1) ^ <uint32_t> POLYNOMIAL if value & <uint32_t> 0x80000000 else value << 1
        table[0][number] = value
    for place in range(1, 8):
        for number in range(256):
            value = table[place - 1][number]
            table[place][number] = (value << 8) ^ table[0][value >> 24]


fill_table()


cdef uint32_t crc32_mpeg2_of(const uint8_t* data, size_t size, uint32_t crc) noexcept nogil:
    cdef uint32_t next_four
    while size >= 8:
        crc ^= (<uint32_t> data[0] << 24) | (<uint32_t> data[1] << 16) | (<uint32_t> data[2] << 8) | data[3]
        next_four = (<uint32_t> data[4] << 24) | (<uint32_t> data[5] << 16) | (<uint32_t> data[6] << 8) | data[7]
        crc = (
            table[7][crc >> 24] ^ table[6][(crc >> 16) & 255] ^ table[5][(crc >> 8) & 255] ^ table[4][crc & 255]
            ^ table[3][next_four >> 24] ^ table[2][(next_four >> 16) & 255]
            ^ table[1][(next_four >> 8) & 255] ^ table[0][next_four & 255]
        )
        data += 8
        size -= 8
    while size:
        crc = (crc << 8) ^ table[0][(crc >> 24) ^ data[0]]
        data += 1
        size -= 1
    return crc


def crc32_mpeg2(bytes data not None, uint32_t crc=0xFFFFFFFF):
    """Return the CRC-32/MPEG-2 of data: polynomial 04C11DB7, most significant bit first, not inverted.

    crc: result over the bytes before. Over a PSI section with its CRC the result is 0.
    Spec: ISO/IEC 13818-1 annex A.
    """
    return crc32_mpeg2_of(<const uint8_t*> PyBytes_AS_STRING(data), <size_t> PyBytes_GET_SIZE(data), crc)
