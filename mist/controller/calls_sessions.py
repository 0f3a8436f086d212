"""API calls about sessions, and about the tags of streams."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from mist.controller.reports import words
from mist.controller.sessions import MAX_TAG_CHARACTERS, Session, clean_tag
from mist.controller.state import Command, Controller
from mist.stream.names import base_name

MAX_DEPTH = 4


def _end(controller: Controller, fits: Callable[[Session], bool]) -> None:
    sessions = [session for session in controller.statistics.live.values() if fits(session)]
    if sessions:
        controller.services.end_connections(controller.statistics.stop(sessions))


# -- sessions ----------------------------------------------------------------------------------------------------------


def invalidate_sessions(controller: Controller, command: Command) -> None:
    """Let whoever decides about the viewers of streams do so again: tokens are checked, and USER_NEW is fired."""
    names = command.names("invalidate_sessions")
    controller.services.invalidate_sessions(names)
    controller.log.info("Sessions of %s are to be checked again", ", ".join(names))


def stop_sessions(controller: Controller, command: Command) -> None:
    """End the sessions of a stream, or of a protocol of it: `{STREAM: PROTOCOL}`."""
    wanted = list(_pairs(controller, command["stop_sessions"], "", 0))

    def fits(session: Session) -> bool:
        names = session.protocol.split(",")
        return any(
            stream in ("", session.stream, base_name(session.stream))
            and (not protocol or any(protocol in (name, name.partition(":")[0]) for name in names))
            for stream, protocol in wanted
        )

    _end(controller, fits)


def _pairs(controller: Controller, value: Any, stream: str, depth: int) -> Iterator[tuple[str, str]]:
    """Yield (stream, protocol), either of them "" for all but never both. A word in a list is a stream if there is one."""
    if depth > MAX_DEPTH:
        return
    if isinstance(value, str):
        if stream:
            yield stream, value
        elif value:
            is_stream = depth == 0 or _is_stream(controller, value)
            yield (value, "") if is_stream else ("", value)
    elif isinstance(value, list):
        for member in value:
            yield from _pairs(controller, member, stream, depth + 1)
    elif isinstance(value, dict):
        for name, member in value.items():
            if name and (member is None or member == ""):
                yield name, ""
            else:
                yield from _pairs(controller, member, name, depth + 1)


def _is_stream(controller: Controller, name: str) -> bool:
    known = controller.statistics.streams
    return name in controller.store.streams or name in known or any(base_name(one) == name for one in known)


def stop_sessid(controller: Controller, command: Command) -> None:
    """End sessions by their identifiers."""
    wanted = frozenset(words(command["stop_sessid"]))
    _end(controller, lambda session: session.id in wanted)


def stop_tag(controller: Controller, command: Command) -> None:
    """End the sessions that have a tag."""
    wanted = frozenset(words(command["stop_tag"]))
    _end(controller, lambda session: not wanted.isdisjoint(session.tags))


def tag_sessid(controller: Controller, command: Command) -> None:
    """Give tags to sessions: `{SESSION: TAG}`."""
    given = command["tag_sessid"]
    for session_id, tags in given.items() if isinstance(given, dict) else ():
        session = controller.statistics.live.get(session_id)
        if session is not None:
            session.tag({tag for text in words(tags) if (tag := clean_tag(text))})


# -- tags of streams ---------------------------------------------------------------------------------------------------


def _tags(value: Any) -> set[str]:
    """Return the tags in a text or a list: words without spaces."""
    return {word[:MAX_TAG_CHARACTERS] for text in words(value) for word in text.split()}


def tag_stream(controller: Controller, command: Command) -> None:
    """Give tags to active streams, or to those that become active within a minute: `{STREAM: TAG}`."""
    given = command["tag_stream"]
    for name, tags in given.items() if isinstance(given, dict) else ():
        controller.statistics.tag_stream(name, _tags(tags))
    controller.tell_tags()


def untag_stream(controller: Controller, command: Command) -> None:
    """Take tags from active streams: `{STREAM: TAG}`."""
    given = command["untag_stream"]
    for name, tags in given.items() if isinstance(given, dict) else ():
        controller.statistics.untag_stream(name, _tags(tags))
    controller.tell_tags()


def stream_tags(controller: Controller, command: Command) -> None:
    """Return the tags of streams, by default of all that are active."""
    names = command.names("stream_tags") or sorted(controller.statistics.streams)
    command.reply["stream_tags"] = {name: controller.reports.tags(name) or None for name in names} or None
