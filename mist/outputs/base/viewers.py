"""Viewers over HTTP: the token that one shows, and whether it may watch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mist.stream.reader import StreamReader
    from mist.stream.services import OutputServices


def viewer_token(request: Any) -> str:
    """Return a viewer's token: the one that stands in place of the stream's name, or the one that the request carries."""
    return str(request.named_token or request.token)


async def admit(services: OutputServices, reader: StreamReader, connector: str, request: Any) -> None:
    """Raise AccessDenied when the session that a request belongs to may not watch; asks once for a request."""
    if services.guarded and request.admitted != reader.name:
        query = request.query_string.decode("latin-1")
        url = f"http://{request.host}{request.path}" + (f"?{query}" if query else "")
        await services.admit(reader.name, request.peer, viewer_token(request), connector, url)
        request.admitted = reader.name
