"""FLAC frame headers and frame checksums, for what looks at every frame.   Spec: RFC 9639 sections 9.1, 9.3."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t

cdef enum:
    CRC8_POLYNOMIAL = 0x07
    CRC16_POLYNOMIAL = 0x8005

cdef uint32_t[12] RATES_HZ = [0, 88200, 176400, 192000, 8000, 16000, 22050, 24000, 32000, 44100, 48000, 96000]
cdef uint32_t[8] SAMPLE_BITS = [0, 8, 12, 0, 16, 20, 24, 32]
cdef uint8_t[256] crc8_table
cdef uint16_t[4][256] crc16_table


cdef void fill_tables() noexcept:
    """Fill the tables: crc16_table[k][b] is the CRC of byte b followed by k zero bytes."""
    cdef uint32_t eight, sixteen
    cdef int number, _bit, place
    for number in range(256):
        eight = <uint32_t> number
        sixteen = <uint32_t> number << 8
        for _bit in range(8):
            eight = ((eight << 1) ^ (CRC8_POLYNOMIAL if eight & 0x80 else 0)) & 0xFF
            sixteen = ((sixteen << 1) ^ (CRC16_POLYNOMIAL if sixteen & 0x8000 else 0)) & 0xFFFF
        crc8_table[number] = <uint8_t> eight
        crc16_table[0][number] = <uint16_t> sixteen
    for place in range(1, 4):
        for number in range(256):
            sixteen = crc16_table[place - 1][number]
            crc16_table[place][number] = <uint16_t> (((sixteen << 8) & 0xFFFF) ^ crc16_table[0][sixteen >> 8])


fill_tables()


cdef uint16_t flac_crc16(const uint8_t* data, size_t size, uint16_t crc) noexcept nogil:
    cdef uint32_t value = crc
    while size >= 4:
        value ^= (<uint32_t> data[0] << 8) | data[1]
        value = (
            crc16_table[3][value >> 8] ^ crc16_table[2][value & 255] ^ crc16_table[1][data[2]] ^ crc16_table[0][data[3]]
        )
        data += 4
        size -= 4
    while size:
        value = ((value << 8) & 0xFFFF) ^ crc16_table[0][(value >> 8) ^ data[0]]
        data += 1
        size -= 1
    return <uint16_t> value


cdef int parse_flac_header(const uint8_t* data, size_t size, FlacHeader* header) noexcept nogil:
    """Parse a frame header and check its checksum.   Spec: RFC 9639 section 9.1."""
    cdef int block_code, rate_code, channel_code, extra
    cdef size_t place
    cdef uint8_t crc = 0
    if size < 6:
        return -1
    block_code, rate_code = data[2] >> 4, data[2] & 15
    channel_code = data[3] >> 4
    if data[0] != 0xFF or data[1] & 0xFE != 0xF8 or not block_code or rate_code == 15 or channel_code > 10:
        return 0
    if data[3] & 1 or (data[3] >> 1) & 7 == 3:
        return 0
    place = 4
    extra = read_coded_number(data, size, &place, &header.number)
    if extra <= 0:
        return extra
    extra = (1 if block_code == 6 else 2 if block_code == 7 else 0) + (1 if rate_code == 12 else 2 if rate_code > 12 else 0)
    if size < place + extra + 1:
        return -1
    header.size = place + extra + 1
    for extra in range(<int> header.size):
        crc = crc8_table[crc ^ data[extra]]
    if crc:
        return 0
    header.variable_block = data[1] & 1
    header.block_samples = block_samples(data, block_code, &place)
    header.sample_rate_hz = sample_rate(data, rate_code, place)
    header.channels = channel_code + 1 if channel_code < 8 else 2
    header.sample_bits = SAMPLE_BITS[(data[3] >> 1) & 7]
    return 1


cdef int read_coded_number(const uint8_t* data, size_t size, size_t* place, int64_t* number) noexcept nogil:
    """Read a number of up to 36 bits coded like UTF-8; 1, 0 or -1 as `parse_flac_header`.   Spec: RFC 9639 section 9.1.5."""
    cdef uint8_t first = data[place[0]]
    cdef int length = 0
    place[0] += 1
    if first < 0x80:
        number[0] = first
        return 1
    while length < 8 and first & (0x80 >> length):
        length += 1
    if length < 2 or length > 7:
        return 0
    number[0] = first & (0x7F >> length)
    while length > 1:
        if place[0] >= size:
            return -1
        if data[place[0]] & 0xC0 != 0x80:
            return 0
        number[0] = (number[0] << 6) | (data[place[0]] & 0x3F)
        place[0] += 1
        length -= 1
    return 1


cdef uint32_t block_samples(const uint8_t* data, int code, size_t* place) noexcept nogil:
    if code == 6:
        place[0] += 1
        return <uint32_t> data[place[0] - 1] + 1
    if code == 7:
        place[0] += 2
        return ((<uint32_t> data[place[0] - 2] << 8) | data[place[0] - 1]) + 1
    if code == 1:
        return 192
    return <uint32_t> 576 << (code - 2) if code < 6 else <uint32_t> 256 << (code - 8)


cdef uint32_t sample_rate(const uint8_t* data, int code, size_t place) noexcept nogil:
    if code < 12:
        return RATES_HZ[code]
    if code == 12:
        return <uint32_t> data[place] * 1000
    return ((<uint32_t> data[place] << 8) | data[place + 1]) * <uint32_t> (1 if code == 13 else 10)


def crc16(bytes data not None, uint16_t crc=0):
    """Return the checksum of a frame: polynomial x^16 + x^15 + x^2 + 1, going on from crc.   Spec: RFC 9639 section 9.3."""
    return flac_crc16(<const uint8_t*> PyBytes_AS_STRING(data), <size_t> PyBytes_GET_SIZE(data), crc)


def frame_header(bytes data not None):
    """Return block size and number in the frame header at the start of data; None if there is none, or not all of it."""
    cdef FlacHeader header
    if parse_flac_header(<const uint8_t*> PyBytes_AS_STRING(data), <size_t> PyBytes_GET_SIZE(data), &header) <= 0:
        return None
    return header.block_samples, header.number
