cdef enum:          # how a payload becomes an elementary stream
    WHOLE = 0
    NAL_H264 = 1
    NAL_HEVC = 2
    ADTS = 3
    OPUS = 4
    AV1 = 5
    SIZED = 6
    SECTION = 7
