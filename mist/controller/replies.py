"""The shapes of requests and replies, as the declarations of calls name them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from mist.controller.declaration import Exact, Record

Names = Annotated[str | list[Any] | dict[str, Any], "NAME or [NAME, …] or {NAME: anything}"]
Presence = Annotated[Any, "anything"]
Number = int | float
Texts = list[str] | None

ProtocolObject = Annotated[dict[str, Any], '{"connector": text, options}']
Protocols = Annotated[dict[str, Any] | list[Any], '{"connector": text, options} or a list of them']
StreamsGiven = Annotated[dict[str, Any], "{NAME: {source: text, options}}"]
StreamsShown = Annotated[dict[str, Any] | None, '{NAME: {"name", "source", "online", "error"?, options}} or null']
SomeStreams = Annotated[dict[str, Any], '{"incomplete list": 1, NAME: {"name", "source", "online", "error"?, options}}']
LogRows = Annotated[
    list[tuple[int, str, str, str, int, str, str]] | None,
    "[[time, kind, message, stream, process, program, place], …] or null",
]
Jwk = Annotated[dict[str, Any], "KEY"]
KeyPermissions = Annotated[dict[str, Any], '{"input"?, "output"?, "admin"?: bool, "stream"?: pattern or [pattern, …]}']
KeysGiven = Annotated[Any, "KEY, URL, [KEY or URL, PERMISSIONS], {keys: [KEY, …]}, or a list of those"]
KeysShown = Annotated[
    list[tuple[dict[str, Any] | str, KeyPermissions]] | None, "[[KEY or URL, PERMISSIONS], …] or null"
]

PushWanted = Annotated[Any, '{"stream": NAME, NAME+ or #TAG, "target": TARGET} or [stream, target]']
PushNames = Annotated[Any, "NUMBER, NAME of a stream, or a list of them"]
PushRows = Annotated[
    list[list[Any]] | None, "[[number, stream, target as asked for, target as used, log lines?, status?], …] or null"
]
PushRules = Annotated[Any, "RULE, its array form, a list of them, or {ID: RULE}"]
PushRulesGone = Annotated[Any, "ID, NAME of a stream, RULE, or a list of them"]
PUSH_RULES_SHOWN: dict[str, Any] = {"auto_push": dict[str, Any] | None, "push_auto_list": list[list[Any]] | None}


class PushSettings(Exact):
    """How pushes are started."""

    maxspeed: int
    wait: int


class Query(Record):
    """What `clients` and `totals` are asked."""

    streams: Any = None
    protocols: Any = None
    fields: Any = None
    time: Any = None


class TotalsQuery(Record):
    """What `totals` is asked."""

    streams: Any = None
    protocols: Any = None
    fields: Any = None
    start: Any = None
    end: Any = None


class Clients(Exact):
    """The sessions of one moment."""

    time: int
    fields: list[str]
    data: list[list[Any]] | None


class Totals(Exact):
    """Sums over time; interval: how many rows are how many seconds apart."""

    fields: list[str]
    start: int | None
    end: int | None
    data: list[list[Any]] | None
    interval: list[tuple[int, int]] | None


class Load(Exact):
    """Percents with one decimal."""

    mem: Number
    shm: Number
    cpu: Number


class Version(Exact):
    """What runs."""

    version: str
    release: str
    date: str
    time: str


class Browse(Exact):
    """A folder."""

    path: list[str]
    subdirectories: list[str] | None = None
    files: list[str] | None = None


class Bandwidth(Record):
    """Bytes a second, and addresses, networks or host names."""

    limit: Number | None = None
    exceptions: Any = None


class Update(Exact):
    """Whether there is a newer version."""

    uptodate: int
    release: str
    version: str
    date: str
    needs_update: None


class Added(Exact):
    """Stream keys that are new or changed."""

    added: Texts = None
    error: str | None = None


class Deleted(Exact):
    """Stream keys that are gone."""

    deleted: Texts = None
    error: str | None = None


class Done(Exact):
    """What was changed, or why nothing was."""

    name: str | None = None
    error: str | None = None


class Key(Exact):
    """A key that was made, or why none was."""

    key: str | None = None
    error: str | None = None


class ActiveQuery(Record):
    """What `active_streams` is asked in its long form."""

    fields: Any = None
    streams: Any = None
    stream: Any = None
    longform: Any = None


VariablesShown = dict[str, Any] | None


class TriggerTest(Record):
    """What is fired. payload: lines; without it the stream's name and empty lines."""

    name: str
    stream: str | None = None
    payload: str | None = None


class ProcessReport(Record):
    """What a program that works on a stream says of itself. id: its process number. status: as it likes."""

    id: int
    proc: str = ""
    source: str = ""
    sink: str = ""
    status: dict[str, Any] = {}


class Capabilities(Record):
    """Documents of modules by name, and what the machine is."""

    connectors: dict[str, Any] | None
    inputs: dict[str, Any] | None
    processes: dict[str, Any] | None
    triggers: dict[str, Any] | None
    internal_writers: Texts
    cpu: list[Any]
    cpu_use: int
    speed: Number
    threads: int
    load: dict[str, Any]
    mem: dict[str, int]


class Server(Record):
    """The settings of the server, its protocols with their states, and what identifies it."""

    iid: Annotated[str, Field(min_length=16, max_length=16)]
    version: str
    time: int
    serverid: str | None
    protocols: list[dict[str, Any]] | None


PlaylistOrder = Annotated[
    Any,
    'true, ["append", line], ["clear"], ["remove", line], ["line", index, line], ["replace", old, new], or a list of those',
]
WriterGiven = Annotated[
    dict[str, Any] | list[Any],
    '{"name", "cmdline": text, "protocols": text or [text, …]} or [name, cmdline, protocols]',
]
Writers = Annotated[list[tuple[str, str, list[str]]] | None, "[[name, cmdline, [protocol, …]], …] or null"]
DeletedSources = Annotated[
    Any, 'a text such as "-2: Stream and source file deleted"; a list or object of them as was asked'
]
ActiveShown = Annotated[
    Any,
    "[NAME, …], {NAME: [value, …]}, {fields: [text, …], data: {NAME: [value, …]}} or {NAME: {field: value}}; or null",
]
StatsShown = Annotated[list[str] | dict[str, list[Any]] | None, "[NAME, …] or {NAME: [value, …]}, or null"]
ShutdownTold = str
One = Literal[1]
