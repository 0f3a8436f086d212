"""Triggers: what fires, whom it concerns, and what the answers of the handlers mean. No socket and no process here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, Final, TypeVar

from mist.stream.names import base_name

MAX_ANSWER_BYTES: Final = 64 * 1024
YES: Final = ("1", "yes", "true", "cont")

N = TypeVar("N", int, float)


class Answer(Enum):
    """What the answer of a blocking handler is used for."""

    NONE = "ignored"
    DECISION = "when-blocking"  # yes or no
    VALUE = "always"  # takes the place of a value


@dataclass(frozen=True, slots=True)
class Trigger:
    """One kind of event. lines: what each line of the payload holds. argument: what `params` of a handler means, or ""."""

    when: str
    lines: tuple[str, ...]
    answer: Answer = Answer.NONE
    action: str = "None."
    filtered: bool = True  # by the name of a stream
    argument: str = ""

    def document(self) -> dict[str, Any]:
        """Return it as the capabilities of the API show it."""
        found = {
            "when": self.when,
            "stream_specific": self.filtered,
            "payload": "\n".join(self.lines),
            "response": self.answer.value,
            "response_action": self.action,
        }
        return {**found, "argument": self.argument} if self.argument else found


_STREAM, _HOST, _CONNECTOR, _URL = "stream name", "client address", "connector", "request URL"
_REFUSED = "If false, the connection is closed."
_END = (
    _STREAM,
    "target",
    _CONNECTOR,
    "bytes sent",
    "seconds connected",
    "start (unix seconds)",
    "end (unix seconds)",
    "media written (ms)",
    "first time stamp (ms)",
    "last time stamp (ms)",
    "reason, machine-readable",
    "reason in words",
)

TRIGGERS: Final[Mapping[str, Trigger]] = {
    "SYSTEM_START": Trigger(
        "The server has started", ("version",), Answer.DECISION, "If false, the server shuts down.", False
    ),
    "SYSTEM_STOP": Trigger(
        "The server is about to stop", ("reason",), Answer.DECISION, "If false, the server keeps running.", False
    ),
    "OUTPUT_START": Trigger("A listener was started", ("its configuration, JSON",), filtered=False),
    "OUTPUT_STOP": Trigger("A listener was stopped", ("its configuration, JSON",), filtered=False),
    "STREAM_ADD": Trigger(
        "A stream is about to be added", (_STREAM, "configuration, JSON"), Answer.DECISION, "If false, it is not added."
    ),
    "STREAM_CONFIG": Trigger(
        "A stream's configuration is about to change",
        (_STREAM, "new configuration, JSON"),
        Answer.DECISION,
        "If false, it stays as it is.",
    ),
    "STREAM_REMOVE": Trigger(
        "A stream is about to be removed", (_STREAM,), Answer.DECISION, "If false, it is not removed."
    ),
    "STREAM_LOAD": Trigger(
        "A stream's input is about to start", (_STREAM,), Answer.DECISION, "If false, it is not started."
    ),
    "STREAM_SOURCE": Trigger(
        "A stream's source is looked up", (_STREAM,), Answer.VALUE, "The source to use; empty keeps the configured one."
    ),
    "STREAM_READY": Trigger(
        "A stream's input is ready", (_STREAM, "input name"), Answer.DECISION, "If false, the input shuts down."
    ),
    "STREAM_UNLOAD": Trigger(
        "A stream's input is about to end",
        (_STREAM, "input name", "cancelable or uncancelable, followed by the reason"),
        Answer.DECISION,
        "If false, the stream stays, where that is possible.",
    ),
    "STREAM_PUSH": Trigger(
        "A publisher is about to be accepted",
        (_STREAM, _HOST, _CONNECTOR, _URL),
        Answer.DECISION,
        "If false, the publisher is refused.",
    ),
    "LIVE_TRACK_LIST": Trigger("The tracks of a live stream changed", (_STREAM, "tracks, JSON", "")),
    "STREAM_BUFFER": Trigger(
        "The state of a live stream changed",
        (_STREAM, "FULL, DRY, RECOVER or EMPTY", "health, JSON, or the last time stamp (ms)"),
    ),
    "LIVE_BANDWIDTH": Trigger(
        "The byte rate of a live stream reached a bound",
        (_STREAM, "bytes a second"),
        Answer.DECISION,
        "If false, the stream is shut down.",
        argument="Bytes a second from which on it fires.",
    ),
    "STREAM_END": Trigger(
        "The last session of a stream has ended",
        (_STREAM, "bytes down", "bytes up", "viewers", "inputs", "outputs", "seconds watched"),
    ),
    "INPUT_ABORT": Trigger(
        "An input ended for an error",
        (_STREAM, "source", "program", "process", "reason, machine-readable", "reason in words"),
    ),
    "RTMP_PUSH_REWRITE": Trigger(
        "Somebody publishes by RTMP, before the URL is taken apart",
        ("RTMP URL", _HOST),
        Answer.VALUE,
        "The URL to use; empty refuses the publisher.",
        False,
    ),
    "PUSH_REWRITE": Trigger(
        "Somebody publishes",
        ("URL", _HOST, _STREAM),
        Answer.VALUE,
        "The stream name to use; empty refuses the publisher.",
        False,
    ),
    "PUSH_OUT_START": Trigger(
        "A push or recording is about to start",
        (_STREAM, "target"),
        Answer.VALUE,
        "The target to use; empty stops the push.",
    ),
    "PLAY_REWRITE": Trigger(
        "A viewer asks for a stream",
        (_STREAM, _HOST, _CONNECTOR, _URL),
        Answer.VALUE,
        "The stream to use; empty plays nothing.",
    ),
    "DEFAULT_STREAM": Trigger(
        "A stream that a viewer asks for cannot be opened and has no fallback",
        ("setting defaultStream", "requested stream", _HOST, _CONNECTOR, _URL),
        Answer.VALUE,
        "The stream to use, variables allowed; empty is an error for the viewer.",
    ),
    "CONN_OPEN": Trigger(
        "A connection is about to be served", (_STREAM, _HOST, _CONNECTOR, _URL), Answer.DECISION, _REFUSED
    ),
    "CONN_PLAY": Trigger(
        "A connection is about to play", (_STREAM, _HOST, _CONNECTOR, _URL), Answer.DECISION, _REFUSED
    ),
    "CONN_STOP": Trigger("Playback reached its end", (_STREAM, _HOST, _CONNECTOR, "")),
    "CONN_CLOSE": Trigger("A connection has ended", (_STREAM, _HOST, _CONNECTOR, _URL)),
    "USER_NEW": Trigger(
        "A session begins",
        (_STREAM, _HOST, "token", _CONNECTOR, _URL, "session", "whether the token is valid"),
        Answer.DECISION,
        "If false, the session is refused.",
    ),
    "USER_END": Trigger(
        "A session has ended",
        (
            "token",
            "streams",
            "connectors",
            "addresses",
            "seconds",
            "bytes up",
            "bytes down",
            "tags",
            "seconds of each address",
            "seconds of each connector",
            "seconds of each stream",
            "session",
        ),
    ),
    "RECORDING_END": Trigger("An output to a file has ended", _END),
    "OUTPUT_END": Trigger("An output has ended", _END),
    "PUSH_END": Trigger(
        "A push has ended",
        ("push", _STREAM, "target as asked for", "target as used", "last log lines, JSON", "status, JSON"),
    ),
    "LIVEPEER_SEGMENT_REJECTED": Trigger(
        "A transcoder refused a segment",
        ("options, JSON", "segment, base64", "picture, JSON", "first transcoder", "second transcoder"),
    ),
}


@dataclass(frozen=True, slots=True)
class Handler:
    """Somebody who is told of a trigger: a URL or an executable."""

    target: str
    blocking: bool = False
    streams: tuple[str, ...] = ()
    argument: str = ""
    default: str | None = None  # None: none was configured
    attempts: int | None = None
    timeout_s: float | None = None
    secret: str = ""  # a URL's requests are signed with it

    def filled(self, fill: Callable[[str], str]) -> Handler:
        """Return it with the variables in its settings replaced, except in the secret."""
        default = None if self.default is None else fill(self.default)
        return replace(self, target=fill(self.target), argument=fill(self.argument), default=default)


def handlers(config: Mapping[str, Any], name: str, stream: str = "", tags: Iterable[str] = ()) -> list[Handler]:
    """Return the handlers of a trigger that a stream concerns, in their order.

    config: the member `config` of the configuration. stream: full name, "" for a trigger that has none.
    tags: of the stream.
    """
    entries = (config.get("triggers") or {}).get(name)
    if not entries:
        return []
    about = stream if TRIGGERS[name].filtered else ""
    found = [_handler(entry) for entry in entries if entry]
    return [one for one in found if concerns(one.streams, about, tags)]


def _handler(entry: Mapping[str, Any] | Sequence[Any]) -> Handler:
    if not isinstance(entry, Mapping):
        entry = dict(zip(("handler", "sync", "streams"), entry, strict=False))
    default = entry.get("default")
    return Handler(
        str(entry.get("handler") or ""),
        bool(entry.get("sync")),
        tuple(str(one) for one in entry.get("streams") or ()),
        str(entry.get("params") or ""),
        None if default is None else str(default),
        _number(entry.get("attempts"), int),
        _number(entry.get("timeout"), float),
        str(entry.get("secret") or ""),
    )


def _number(value: object, kind: type[N]) -> N | None:
    return kind(value) if isinstance(value, (int, float)) and value > 0 else None


def concerns(patterns: Sequence[str], stream: str, tags: Iterable[str] = ()) -> bool:
    """Tell whether a list of names, `name+` for all its wildcard streams, and `#tag` fits a stream; "!" excludes.

    The last entry that fits decides. If none does, the stream is meant unless the list has an entry without "!".
    """
    if not stream:
        return True
    known = set(tags)
    verdict = all(pattern.startswith("!") for pattern in patterns)
    for pattern in patterns:
        wanted = pattern.removeprefix("!")
        if _fits(wanted, stream, known):
            verdict = wanted == pattern
    return verdict


def _fits(wanted: str, stream: str, tags: set[str]) -> bool:
    if wanted.startswith("#"):
        return wanted[1:] in tags
    if wanted.endswith("+"):
        return stream.startswith(wanted)
    return wanted in (stream, base_name(stream))


def asks_for_tags(config: Mapping[str, Any]) -> bool:
    """Tell whether the filter of any handler names a tag. config: the member `config` of the configuration."""
    entries = [entry for found in (config.get("triggers") or {}).values() for entry in found if entry]
    return any(pattern.removeprefix("!").startswith("#") for entry in entries for pattern in _handler(entry).streams)


def due(name: str, found: Sequence[Handler], lines: Sequence[str]) -> list[Handler]:
    """Return those of a trigger's handlers that its figures concern: a handler of LIVE_BANDWIDTH has a bound of its own."""
    if not TRIGGERS[name].argument:
        return list(found)
    return [handler for handler in found if int(lines[1]) >= _bound(handler.argument)]


def _bound(text: str) -> int:
    try:
        return int(text.strip() or 0)
    except ValueError:
        return 0


def is_yes(answer: str) -> bool:
    """Tell whether an answer allows: without white space it begins with 1, yes, true or cont."""
    return "".join(answer.split()).lower().startswith(YES)


def decide(results: Iterable[tuple[Handler, str | None]]) -> bool:
    """Return whether all handlers allow. results: each with its answer, None if it failed or was not waited for."""
    return all(is_yes(_answer_or(handler, answer, "true")) for handler, answer in results)


def replace_value(value: str, results: Iterable[tuple[Handler, str | None]]) -> str:
    """Return what the handlers make of a value: the answer of the last blocking one.

    One that failed gives its configured default, or leaves the value alone. The end of the line that a program writes is no
    part of it.
    """
    for handler, answer in results:
        if handler.blocking:
            value = _answer_or(handler, answer, value).rstrip("\r\n")
    return value


def _answer_or(handler: Handler, answer: str | None, otherwise: str) -> str:
    if answer is not None:
        return answer
    return otherwise if handler.default is None else handler.default
