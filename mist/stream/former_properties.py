"""What tracks were before their init data changed: kept beside their buffers for the packets that were made with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from mist.errors import SharedMemoryFull
from mist.formats.tracks import TrackInfo
from mist.stream.names import SHARED_MEMORY

MARK: Final = "was"  # begins the last part of a name, which is a number for data pages
MAX_KEPT: Final = 16  # of one track


def _path(prefix: str, index: int, number: int) -> Path:
    return SHARED_MEMORY / f"{prefix}.{index}.{MARK}{number}"


def keep(prefix: str, index: int, number: int, info: TrackInfo) -> None:
    """Keep the properties that packets of a track have up to now. Raises SharedMemoryFull.

    number: how often the init data had changed before these. The oldest of more than MAX_KEPT are forgotten.
    """
    path = _path(prefix, index, number)
    fresh = path.with_name(f"{prefix}.{index}.{MARK}")
    try:
        fresh.write_text(json.dumps([info.init_data.hex(), *_others(info)]))
        fresh.replace(path)
    except OSError as error:
        raise SharedMemoryFull(f"{path}: {error.strerror}") from error
    if number >= MAX_KEPT:
        _path(prefix, index, number - MAX_KEPT).unlink(missing_ok=True)


def find(prefix: str, index: int, number: int) -> TrackInfo | None:
    """Return what was kept, None when nothing was."""
    try:
        init_data, kind, codec, *rest = json.loads(_path(prefix, index, number).read_bytes())
    except FileNotFoundError:
        return None
    return TrackInfo(kind, codec, bytes.fromhex(init_data), *rest)


def forget(prefix: str, index: int, before: int, newest: int) -> None:
    """Forget what no packet in the buffer was made with. before: the first number that is still wanted. newest: that was kept."""
    for number in range(max(newest - MAX_KEPT, 0), min(before, newest + 1)):
        _path(prefix, index, number).unlink(missing_ok=True)


def _others(info: TrackInfo) -> list[object]:
    """Return what follows the type, the codec and the init data in TrackInfo, as far as tracks in a buffer have it."""
    size = (info.width, info.height, info.frame_rate_mhz)
    sound = (info.sample_rate_hz, info.channels, info.sample_bits)
    return [info.type, info.codec, info.track_id, info.language, *size, *sound, info.bandwidth_bps]
