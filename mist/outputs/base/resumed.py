"""Going on with a viewer that another process served: what its record says, and the group that its bytes come from."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Mapping
from typing import Any

from mist.core.muxer import Muxer
from mist.core.subscription import Subscription
from mist.errors import LocalProtocolError, MistError
from mist.formats.tracks import TrackInfo
from mist.stream.reader import StreamReader
from mist.stream.services import OutputServices
from mist.stream.state import TrackState


def pack_saved(members: Mapping[str, Any], rest: bytes = b"") -> bytes:
    """Return a connection's state for its record."""
    return json.dumps(members).encode() + b"\n" + rest


def unpack_saved(state: bytes) -> tuple[dict[str, Any], bytes]:
    """Return what `pack_saved` was given. Raises LocalProtocolError."""
    head, newline, rest = state.partition(b"\n")
    try:
        members = json.loads(head)
    except ValueError as error:
        raise LocalProtocolError(f"the state of a connection is damaged: {error}") from None
    if not newline or not isinstance(members, dict):
        raise LocalProtocolError("the state of a connection is damaged")
    return members, rest


def resume_viewer(
    services: OutputServices,
    sock: socket.socket,
    record: Any,
    saved: Mapping[str, Any],
    make_muxer: Callable[[StreamReader | None, list[TrackInfo]], Muxer],
    reselect: Callable[[StreamReader, list[TrackState]], list[int]],
    *,
    on_close: Callable[[str], None],
    on_readable: Callable[[], None] | None = None,
) -> tuple[Subscription, StreamReader | None]:
    """Let the fan-out go on with a viewer; the socket is the fan-out's then.

    saved: has "stream", "key" and "indexes" of the group. on_close: called with the reason; the stream is given back here.
    Returns the subscription, and the stream's reader, None when the stream has gone. Raises MistError, OSError.
    """
    fanout = services.fanout
    number = record.progress()[5]
    reader = services.reopen_stream(str(saved["stream"]))

    def closed(reason: str) -> None:
        on_close(reason)
        if reader is not None:
            services.close_stream(reader)

    try:
        if not fanout.has_adopted(number):
            fd = services.take_arena(number)
            if fd is None:
                raise MistError("the memory of its group was lost")
            fanout.adopt_arena(
                reader,
                fd,
                str(saved["key"]),
                saved["indexes"],
                lambda tracks: make_muxer(reader, tracks),
                TrackInfo,
                (lambda states: reselect(reader, states)) if reader is not None else None,
            )
        viewer = fanout.adopt(sock.fileno(), record, on_close=closed, on_readable=on_readable)
    except BaseException:
        if reader is not None:
            services.close_stream(reader)
        raise
    sock.detach()
    return viewer, reader
