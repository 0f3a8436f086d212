"""The configuration's shape: one pydantic model per section, with the defaults that hold where a key is absent.

Key names are those of the configuration file and are seen by operators and API clients, hence their mixed spelling.
Every model keeps keys it does not know; `mist.controller.config` decides which of them are notes (`x-…`), which belong
to an input or a protocol, and which are mistakes.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from mist.controller.permissions import Permission
from mist.errors import ConfigError
from mist.stream import token_keys

MINIMUM_BUFFER_MS = 1000
DEFAULT_CACHE_BYTES = 1024 * 1024 * 1024
DEFAULT_PACKET_BYTES = 32 * 1024 * 1024
DEFAULT_STREAM_BYTES = 1024 * 1024 * 1024


def _as_list(value: object) -> object:
    """Return a lone string as a list of its words; anything else as it is."""
    return value.split() if isinstance(value, str) else value


def _at_least_minimum(value: int) -> int:
    return max(value, MINIMUM_BUFFER_MS)


Port = Annotated[int, Field(ge=0, le=65535)]
Level = Annotated[int, Field(ge=0, le=10)]
ModeBits = Annotated[int, Field(ge=0, le=15)]
Milliseconds = Annotated[int, Field(ge=0)]
BufferMs = Annotated[int, Field(ge=0), AfterValidator(_at_least_minimum)]
Words = Annotated[list[str], BeforeValidator(_as_list)]


class Section(BaseModel):
    """A part of the configuration that is a JSON object."""

    model_config = ConfigDict(extra="allow", coerce_numbers_to_str=True, allow_inf_nan=False, protected_namespaces=())


Permissions = Annotated[list[Permission], BeforeValidator(_as_list)]


class AccountKey(Section):
    """A key for programs. hash: SHA-256 of the key, in hexadecimal. permissions: those of the account unless given."""

    name: str = ""
    hash: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    permissions: Permissions = [Permission.ADMIN]


class Account(Section):
    """A login of the control API.

    hash: the password as `mist account` writes it. password: its MD5 in hexadecimal, for clients that log in by challenge;
    an account without it cannot be used that way.
    """

    hash: Annotated[
        str, Field(pattern=r"^scrypt\$\d{1,7}\$\d{1,2}\$\d{1,2}\$[A-Za-z0-9+/=]{1,100}\$[A-Za-z0-9+/=]{1,100}$")
    ] = ""
    password: Annotated[str, Field(pattern="^[0-9a-fA-F]{32}$")] | None = None
    permissions: Permissions = [Permission.ADMIN]
    keys: Annotated[list[AccountKey], Field(max_length=64)] = []


class Tls(Section):
    """Files in PEM form: the certificate with those that lead to its issuer, and its key."""

    certificate: str = ""
    key: str = ""


class ControllerAddress(Section):
    """Where the control API listens, and the user the service runs as.

    localaccess: whether a request from this machine needs no login. udp: whether datagrams are answered. browse: the folders
    that the call `browse` may look into.
    """

    interface: str = "0.0.0.0"
    port: Port = 4242
    username: str = "root"
    tls: Tls | None = None
    localaccess: bool = True
    udp: bool = True
    browse: Annotated[list[str], BeforeValidator(_as_list)] = ["/srv", "/media", "/mnt", "/home", "/var/lib/mist"]


class ProtocolEntry(Section):
    """A listener, or an output that is reached through one. Options of one protocol only are extra keys."""

    connector: str = ""
    interface: str | None = None
    port: Port | None = None
    username: str | None = None
    debug: Level | None = None
    default_track_sorting: Literal["", "bps_lth", "bps_htl", "id_lth", "id_htl", "res_lth", "res_htl"] | None = None
    pubaddr: Annotated[list[str], BeforeValidator(_as_list)] | None = None
    processes: Annotated[int, Field(ge=0)] | None = None
    merge_ms: Annotated[int, Field(ge=0, le=1000)] | Literal["auto"] | None = None


class Memory(Section):
    """Bounds of shared memory. total_bytes 0: three quarters of what the shared-memory file system holds.

    packet_bytes: the largest packet that a source may send.
    """

    per_stream_bytes: Annotated[int, Field(ge=1024 * 1024)] = DEFAULT_STREAM_BYTES
    total_bytes: Annotated[int, Field(ge=0)] = 0
    packet_bytes: Annotated[int, Field(ge=64 * 1024)] = DEFAULT_PACKET_BYTES


class StreamCache(Section):
    """Where the indexes of files are kept that cannot lie beside them. path: of a directory, empty for none. assets: and remote files."""

    path: str = ""
    assets: bool = False
    size_bytes: Annotated[int, Field(ge=0)] = DEFAULT_CACHE_BYTES


class Location(Section):
    """Where the server stands, for load balancing."""

    lat: float = 0.0
    lon: float = 0.0
    name: str = ""


def _trigger_object(value: object) -> object:
    """Return the object form of a handler that was written as [handler, sync, [streams]]."""
    if not isinstance(value, list) or not value:
        return value
    return dict(zip(("handler", "sync", "streams"), value, strict=False))


class TriggerHandler(Section):
    """One handler of a trigger: a URL or an executable."""

    handler: str = ""
    sync: bool = False
    streams: Words = []
    params: str = ""
    default: str | None = None
    attempts: Annotated[int, Field(ge=1, le=100)] | None = None
    timeout: Annotated[float, Field(gt=0, le=60)] | None = None
    secret: str = ""


TriggerHandlers = Annotated[
    list[Annotated[TriggerHandler, BeforeValidator(_trigger_object)]],
    BeforeValidator(lambda value: [one for one in value if one is not None] if isinstance(value, list) else value),
]


class PushBuffer(Section):
    """What may wait on disk for the destination of a push of files to another machine: bytes of each push, and the folder."""

    limit: Annotated[int, Field(ge=32 << 20)] = 1 << 30
    folder: str = "/var/tmp"


class Server(Section):
    """The member `config`: settings of the whole server."""

    controller: ControllerAddress = ControllerAddress()
    protocols: list[ProtocolEntry] | None = None
    memory: Memory = Memory()
    streamcache: StreamCache | None = None
    debug: Level = 4
    serverid: str = ""
    accesslog: str = "LOG"
    prometheus: str = ""
    trustedproxy: Words = []
    defaultStream: str = ""
    sessionViewerMode: ModeBits = 14
    sessionInputMode: ModeBits = 15
    sessionOutputMode: ModeBits = 15
    sessionUnspecifiedMode: ModeBits = 0
    sessionStreamInfoMode: Annotated[int, Field(ge=1, le=4)] = 1
    tknMode: ModeBits = 15
    triggers: dict[str, TriggerHandlers] = {}
    location: Location | None = None
    pushbuffer: PushBuffer = PushBuffer()


class ProcessEntry(Section):
    """A process that reads a stream's tracks and writes others; its own options are extra keys."""

    process: str = ""
    source_track: str | None = None
    track_select: str | None = None
    track_inhibit: str = "audio=none&video=none&subtitle=none"
    tags_inhibit: Words | None = None
    restart_type: Literal["fixed", "backoff", "disabled"] = "fixed"
    restart_delay: Milliseconds = 0
    inconsequential: bool = False
    debug: Level | None = None


class Stream(Section):
    """One stream; options of one input only are extra keys."""

    name: str = ""
    source: str = ""
    tags: Words = Field(default_factory=list)  # a default list would be copied by a slow way for each of many streams
    processes: list[ProcessEntry] = Field(default_factory=list)
    always_on: bool = False
    publisher: Literal["refuse", "takeover"] = "refuse"
    DVR: BufferMs = 50000
    idleTime: BufferMs = 50000
    segmentsize: Milliseconds = 1900
    maxkeepaway: Milliseconds = 45000
    cut: Milliseconds = 0
    resume: Annotated[int, Field(ge=0, le=1)] = 0
    inputtimeout: Annotated[int, Field(ge=0)] = 30
    pagetimeout: Annotated[int, Field(ge=0)] = 15
    debug: Level | None = None
    fallback_stream: str = ""
    stop_sessions: bool | None = None
    hardlimit_active: Any = None


class PushRule(Section):
    """An automatic push."""

    stream: str = ""
    target: str = ""
    scheduletime: int = 0
    completetime: int = 0
    start_rule: list[Any] | None = None
    end_rule: list[Any] | None = None
    inhibit: str | list[str] | None = None


class PushSettings(Section):
    """Seconds to wait before a push is (re)started; most starts in one second, 0 for no limit."""

    wait: Annotated[int, Field(ge=0)] = 3
    maxspeed: Annotated[int, Field(ge=0)] = 0


class Variable(Section):
    """A custom variable: a value, or a command or URL that gives one every `interval` seconds."""

    value: str = ""
    target: str = ""
    interval: Annotated[float, Field(ge=0)] = 0
    waitTime: Annotated[float, Field(ge=0)] = 0
    lastunix: float = 0


DEFAULT_BANDWIDTH_EXCEPTIONS = [
    "::1",
    "127.0.0.0/8",
    "10.0.0.0/8",
    "192.168.0.0/16",
    "172.16.0.0/12",
]


DEFAULT_BANDWIDTH_LIMIT = 128 * 1024 * 1024  # what a server that was not told reports


def _signing_keys(value: Any) -> Any:
    """Check a key, or the URL of a set of them; either may stand in a list, alone or with its permissions."""
    try:
        return token_keys.stored(token_keys.configured(value))
    except ConfigError as error:
        raise ValueError(f"a key or the URL of keys; {str(error).removeprefix('expected ')}") from None


SigningKeys = Annotated[Any, AfterValidator(_signing_keys)]


class Bandwidth(Section):
    """Bandwidth that the server reports as its limit, in bytes a second, and addresses that are not counted."""

    limit: Annotated[int, Field(ge=0)] | None = None
    exceptions: Words = DEFAULT_BANDWIDTH_EXCEPTIONS


class Document(Section):
    """The whole configuration file."""

    account: dict[str, Account] = {}
    config: Server = Server()
    streams: dict[str, Stream] = {}
    auto_push: dict[str, PushRule] = {}
    push_settings: PushSettings = PushSettings()
    variables: dict[str, Variable] = {}
    extwriters: list[tuple[str, str, list[str]]] = []
    streamkeys: dict[str, str] = {}
    jwks: list[SigningKeys] = []
    bandwidth: Bandwidth = Bandwidth()
    tags: Words = []
    ui_settings: dict[str, Any] = {}
    config_split: dict[str, str] = {}
    config_changes: str = ""
    autopushes: list[Any] = []
