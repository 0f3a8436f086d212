"""MPEG program streams, as far as libav must be told what is in them: it does not know H.264 and HEVC in them for certain by itself.

Spec: ISO/IEC 13818-1 sections 2.5.3 (packs), 2.5.4 (program stream map), 2.4.3.6 (PES packets); ISO/IEC 11172-1 section 2.4.3.3.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

from mist.core.crc import crc32_mpeg2
from mist.core.nal import split_annexb
from mist.errors import RemoteProtocolError
from mist.formats import h264, hevc

HEAD_BYTES: Final = 256 << 10  # by which streams are told
MAX_SAMPLE_BYTES: Final = 64 << 10  # of each stream
PACK: Final = b"\x00\x00\x01\xba"
_PREFIX: Final = b"\x00\x00\x01"
_PACK_ID: Final = 0xBA
_END_ID: Final = 0xB9
_MAP_ID: Final = 0xBC
_VIDEO_IDS: Final = range(0xE0, 0xF0)
_H264_TYPE: Final = 0x1B
_HEVC_TYPE: Final = 0x24


def stream_map(head: bytes) -> bytes:
    """Return a program stream map to put in front of a stream that has none, b"" where none is needed.

    head: its first bytes, up to HEAD_BYTES. The map names the streams of H.264 and HEVC that have a keyframe there.
    """
    samples: dict[int, bytearray] = {}
    for stream_id, payload in _packets(head):
        if stream_id == _MAP_ID:
            return b""
        sample = samples.setdefault(stream_id, bytearray())
        if len(sample) < MAX_SAMPLE_BYTES:
            sample += payload
    types = {stream_id: _stream_type(bytes(sample)) for stream_id, sample in samples.items()}
    entries = b"".join(struct.pack(">BBH", kind, stream_id, 0) for stream_id, kind in types.items() if kind)
    return _serialize(entries) if entries else b""


def _serialize(entries: bytes) -> bytes:
    """Return the map, which applies now and describes nothing but streams."""
    body = struct.pack(">BBHH", 0xE0, 0xFF, 0, len(entries)) + entries
    content = _PREFIX + struct.pack(">BH", _MAP_ID, len(body) + 4) + body
    return content + struct.pack(">I", crc32_mpeg2(content))


def _packets(head: bytes) -> Iterator[tuple[int, bytes]]:
    """Give out the payload of each video PES packet, and a map without any."""
    at = 0
    while at + 14 <= len(head) and head[at : at + 3] == _PREFIX:
        stream_id = head[at + 3]
        if stream_id == _PACK_ID:
            at += 14 + (head[at + 13] & 7) if head[at + 4] >> 6 == 1 else 12
            continue
        if stream_id <= _END_ID:
            return
        end = at + 6 + int.from_bytes(head[at + 4 : at + 6], "big")
        if stream_id == _MAP_ID:
            yield stream_id, b""
        elif stream_id in _VIDEO_IDS:
            yield stream_id, head[_payload_begin(head, at + 6) : end]
        at = end


def _payload_begin(head: bytes, at: int) -> int:
    """Return where the payload of a PES packet begins. at: behind its length."""
    if head[at] >> 6 == 2:
        return at + 3 + head[at + 2]
    while at < len(head) and head[at] == 0xFF:
        at += 1
    at += 2 if head[at : at + 1] and head[at] >> 6 == 1 else 0
    return at + {2: 5, 3: 10}.get(head[at] >> 4, 1) if at < len(head) else at


def _stream_type(sample: bytes) -> int:
    """Return the stream type of H.264 or HEVC, 0 where there are no parameter sets of either."""
    units = split_annexb(sample)[:-1]  # the last one may go on
    if any(unit[0] & 0x80 for unit in units):
        return 0  # the start codes of MPEG-1 and MPEG-2
    for kind, update in ((_H264_TYPE, h264.updated_avcc), (_HEVC_TYPE, hevc.updated_hvcc)):
        try:
            if update(b"", units) is not None:
                return kind
        except RemoteProtocolError:
            continue
    return 0
