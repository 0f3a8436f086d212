"""Viewers over HTTP: the token that one shows, and whether it may watch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mist.stream.token_keys import subject_of

if TYPE_CHECKING:
    from mist.stream.reader import StreamReader
    from mist.stream.services import ConnectionRecord, OutputServices


def viewer_token(request: Any) -> str:
    """Return a viewer's token: the one that stands in place of the stream's name, or the one that the request carries."""
    return str(request.stream if subject_of(request.stream) else request.token)


async def admit(
    services: OutputServices, reader: StreamReader, connector: str, request: Any, record: ConnectionRecord | None
) -> None:
    """Raise AccessDenied when the session that a request belongs to may not watch."""
    if record is not None and request.peer:
        record.set_host(request.peer)
    if services.guarded:
        url = f"http://{request.host}{request.path}" + (f"?{request.query_string.decode('latin-1')}" if request.query_string else "")
        await services.admit(reader.name, request.peer, viewer_token(request), connector, url)
