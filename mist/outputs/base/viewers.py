"""Viewers over HTTP: the token that one shows, and whether it may watch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from mist.stream.session_identity import record_token

if TYPE_CHECKING:
    from mist.stream.reader import StreamReader
    from mist.stream.services import ConnectionRecord, OutputServices

AGENT_SECONDS: Final = 10.0  # after which a viewer's session is told what it is watched with


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


def describe(
    services: OutputServices,
    record: ConnectionRecord,
    request: Any,
    connector: str,
    stream: str,
    agent_seconds: float = AGENT_SECONDS,
) -> None:
    """Let a connection's record say what is played, and the session what it is watched with, after some seconds."""
    token = record_token(viewer_token(request))
    record.set_connector(connector)
    record.set_host(request.peer)
    record.set_stream(stream)
    record.set_token(token)
    if agent := request.headers.get("user-agent", ""):
        services.tell_agent((stream, connector, request.peer, token), agent, agent_seconds)
