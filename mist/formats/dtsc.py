"""DTSC read: what the members of its headers say of tracks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, final

from mist.core.dtsc import DtscMuxer, DtscReader
from mist.errors import LimitExceededError, RemoteProtocolError
from mist.formats.codecs import complete
from mist.formats.tracks import TrackInfo

MAX_TEXT_BYTES: Final = 31  # of type and codec
MAX_INIT_BYTES: Final = 1 << 16
MAX_NUMBER: Final = 1 << 31
MAX_DELAY_US: Final = 10**9


def text(members: Mapping[str, Any], name: str, default: str = "") -> str:
    """Return a string member as text; numbers as their digits, anything else as the default."""
    value = members.get(name)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return str(value) if isinstance(value, int | float) else default


def number(members: Mapping[str, Any], name: str, high: int = MAX_NUMBER) -> int:
    """Return a number from 0 to high: an integer member, or one in digits; 0 for anything else."""
    value = members.get(name)
    if isinstance(value, bytes):
        try:
            value = int(value[:32], 0)
        except ValueError:
            return 0
    return max(0, min(value, high)) if isinstance(value, int) else 0


def track_info(members: Mapping[str, Any], *, completed: bool = True) -> TrackInfo:
    """Return the track that members of a header describe. completed: with what its init data says.

    The rates in a header are measured ones and differ in each, so they are left out. What is wrong with a number makes it 0; init
    data that does not parse is kept. Raises LimitExceededError for init data that no stream could keep.
    """
    init = members.get("init")
    init = init if isinstance(init, bytes) else b""
    if len(init) > MAX_INIT_BYTES:
        raise LimitExceededError(f"init data of {len(init)} bytes; the limit is {MAX_INIT_BYTES}", spec="DTSC")
    info = TrackInfo(
        type=text(members, "type")[:7],
        codec=text(members, "codec")[:MAX_TEXT_BYTES],
        init_data=init,
        track_id=number(members, "trackid"),
        language=text(members, "lang", "und")[:7] or "und",
        width=number(members, "width"),
        height=number(members, "height"),
        frame_rate_mhz=number(members, "fpks") if "width" in members else 0,
        sample_rate_hz=number(members, "rate"),
        channels=number(members, "channels"),
        sample_bits=number(members, "size"),
        rotation_degrees=number(members, "rotation") if number(members, "rotation") in (90, 180, 270) else 0,
        delay_us=number(members, "delay", MAX_DELAY_US),
    )
    try:
        return complete(info) if completed else info
    except RemoteProtocolError:
        return info


@final
class DtscDemuxer(DtscReader):
    """DTSC files, pipes and connections in, packets out. See `mist.core.dtsc.DtscReader` for the parameters."""

    def describe(self, name: str, members: Mapping[str, Any]) -> TrackInfo:
        return track_info(members)


__all__ = ["DtscDemuxer", "DtscMuxer", "number", "text", "track_info"]
