from typing import Final, final

from mist.core.byte_stream import ByteStreamDemuxer

MAX_PICTURE_BYTES: Final[int]
MAX_WAITING_BYTES: Final[int]
MAX_WAITING_PICTURES: Final[int]
SAMPLED_PICTURES: Final[int]

@final
class Picture: ...

class PictureStreamDemuxer(ByteStreamDemuxer): ...
