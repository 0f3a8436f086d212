"""Load, check and save the configuration.

A configuration is checked as a whole before any of it is used. What is wrong is reported with the file, the key, the
value that stands there and what was expected, so that one line is enough to put it right.
"""

from __future__ import annotations

import gc
import json
import math
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, NoReturn

from pydantic import BaseModel, TypeAdapter, ValidationError

from mist.controller import config_files
from mist.controller.config_files import Parts, read_parts
from mist.controller.migration import migrate
from mist.controller.schema import (
    Document,
    ProcessEntry,
    ProtocolEntry,
    PushRule,
    Section,
    Stream,
    TriggerHandler,
    Variable,
)
from mist.errors import ConfigError

DEFAULT_PATH = Path("/etc/mist/config.json")
DEFAULT_PROTOCOLS: tuple[Mapping[str, Any], ...] = (
    {"connector": "HTTP", "port": 8080},
    {"connector": "RTMP", "port": 1935},
    {"connector": "DTSC", "port": 4200},
)
MAX_REPORTED_PROBLEMS = 10
STREAMS_AT_ONCE = 250  # that are validated in one call, which lets no other thread run
NOTE_PREFIX = "x-"
# What clients of the API write, and add to: keys that nobody knows are kept there, and told of by `mist config check`.
OPEN_SECTIONS = (ProtocolEntry, ProcessEntry, Stream, PushRule, TriggerHandler, Variable)
# Options of inputs and outputs known to users of compatible servers: accepted even where that module is not installed.
INPUT_OPTIONS = (
    "acceptable", "bufferTime", "datatrack", "format", "multicastinterface", "profile", "raw", "transport", "udpport"
)  # fmt: skip

_EXPECTATIONS = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "a text",
    "list_type": "a list",
    "dict_type": "an object",
    "model_type": "an object",
    "model_attributes_type": "an object",
    "missing": "a value",
    "string_pattern_mismatch": "32 hexadecimal digits (an MD5), or the hash that mist account makes",
    "enum": "one of read, streams, pushes, config, admin",
}


_WITH_KEYS = (Section, dict, list)  # in which there may be keys that nobody knows


@dataclass(frozen=True, slots=True)
class Entry:
    """One stream: its model, what was configured in normal form, and the same with its name and all defaults."""

    model: Stream
    normal: dict[str, Any]
    settings: dict[str, Any]


_STREAM_DEFAULTS: Mapping[str, Any] = Stream().model_dump(mode="json", exclude_none=True)
_STREAMS: TypeAdapter[dict[str, Stream]] = TypeAdapter(dict[str, Stream])


def _entries(streams: dict[str, Stream]) -> dict[str, Entry]:
    """Return streams with their forms, all of which are made in one call."""
    forms = _STREAMS.dump_python(streams, mode="json", exclude_unset=True, exclude_none=True)
    return {name: _entry(name, stream, forms[name]) for name, stream in streams.items()}


def _entry(name: str, stream: Stream, normal: dict[str, Any]) -> Entry:
    if "processes" in normal:  # which have defaults of their own
        return Entry(stream, normal, {**stream.model_dump(mode="json", exclude_none=True), "name": name})
    return Entry(stream, normal, {**_STREAM_DEFAULTS, **normal, "name": name})


def configured(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return what must be configured for a stream to have these settings: what is not the default."""
    stream = Stream.model_validate(settings)
    return stream.model_dump(mode="json", exclude={"name"}, exclude_defaults=True, exclude_none=True)


class Config:
    """A configuration that was checked as a whole. Immutable: a change makes a new one.

    Streams are kept one by one, and shared with the configuration that this one was made from, so that a change of one
    costs the same however many there are. warnings: a line for each key that nobody knows, where that is allowed.
    """

    def __init__(
        self, document: Document, known: Mapping[str, Entry] = MappingProxyType({}), warnings: Collection[str] = ()
    ) -> None:
        self._document = document
        self.warnings = tuple(warnings)
        streams = document.streams
        kept = {
            name: entry for name in streams if (entry := known.get(name)) is not None and entry.model is streams[name]
        }
        made = _entries({name: stream for name, stream in streams.items() if name not in kept})
        self._streams: dict[str, Entry] = {name: kept.get(name) or made[name] for name in streams}

    @property
    def entries(self) -> Mapping[str, Entry]:
        """The streams by name."""
        return self._streams

    @property
    def model(self) -> Document:
        """The typed form, with defaults."""
        return self._document

    def document(self) -> dict[str, Any]:
        """Return only what was configured, in normal form: what is saved and what the API shows.

        The streams in it are not copies: replace them, and do not change them.
        """
        document = self._document.model_dump(mode="json", exclude_unset=True, exclude_none=True, exclude={"streams"})
        if "streams" in self._document.model_fields_set:
            document["streams"] = {name: entry.normal for name, entry in self._streams.items()}
        return document

    def server(self) -> dict[str, Any]:
        """Return the member `config` with defaults applied, JSON-able."""
        server = self._document.config.model_dump(mode="json", exclude_none=True)
        protocols = self._document.config.protocols
        if protocols is None:
            server["protocols"] = [dict(entry) for entry in DEFAULT_PROTOCOLS]
        else:
            server["protocols"] = [
                entry.model_dump(mode="json", exclude_unset=True, exclude_none=True) for entry in protocols
            ]
        return server

    def snapshot(self) -> dict[str, Any]:
        """Return everything with defaults applied, JSON-able: what all processes work with. Its streams are not copies."""
        result = self._document.model_dump(mode="json", exclude_none=True, exclude={"streams", "config"})
        result["config"] = self.server()
        result["streams"] = {name: entry.settings for name, entry in self._streams.items()}
        return result

    def sharing(self, former: Config) -> Config:
        """Return this configuration, which nobody else has yet, with the very streams of a former one that are equal."""
        for name, entry in self._streams.items():
            known = former._streams.get(name)
            if known is not None and known.normal == entry.normal:
                self._streams[name] = known
                self._document.streams[name] = known.model
        return self

    def changed(
        self,
        document: Mapping[str, Any],
        sections: Collection[str],
        capabilities: Mapping[str, Any] | None = None,
        checked: Mapping[str, Entry] = MappingProxyType({}),
    ) -> Config:
        """Return the configuration that a document makes which differs from this one in some sections only.

        document: has the very objects of `document()` for streams that are as they were, and the normal forms of those that
        were checked already; only the others are checked. Raises ConfigError.
        """
        streams = document.get("streams")
        if "autopushes" in sections or not isinstance(streams, dict | None):  # looked at together with others
            return parse(document, capabilities)
        part = {section: document[section] for section in sections if section in document}
        kept: dict[str, Stream] = {}
        entries = {**self._streams, **checked}
        if streams and "streams" in part:
            kept = {name: entries[name].model for name in streams if _is_kept(entries.get(name), streams[name])}
            part["streams"] = {name: stream for name, stream in streams.items() if name not in kept}
        new = parse(part, capabilities)
        values = {key: value for key, value in _members(self._document).items() if key not in sections}
        values.update(_members(new.model))
        if "streams" in part:
            values["streams"] = {**kept, **new.model.streams}
        return Config(Document.model_construct(set(values), **values), entries, new.warnings)

    def with_streams(self, streams: Mapping[str, Mapping[str, Any]]) -> Config:
        """Return a copy that also has these streams, where the configuration does not define them itself."""
        more = {name: stream for name, stream in streams.items() if name not in self._streams}
        if not more:
            return self
        document = self.document()
        document["streams"] = {**more, **document.get("streams", {})}
        return self.changed(document, ("streams",))

    def save(self, path: Path) -> None:
        """Write the configuration to a file, and its split sections to theirs. Replaces each file atomically.

        Raises OSError when a file cannot be written; the other files are written then, too.
        """
        save_document(self.document(), path)


def _is_kept(entry: Entry | None, stream: object) -> bool:
    return entry is not None and entry.normal is stream


def _members(document: Document) -> dict[str, Any]:
    """Return the sections that a document has, by name."""
    known = {name: getattr(document, name) for name in document.model_fields_set & Document.model_fields.keys()}
    return {**known, **(document.model_extra or {})}


def load(
    path: Path,
    capabilities: Mapping[str, Any] | None = None,
    *,
    must_exist: bool = False,
) -> Config:
    """Read, migrate and check a configuration of one or more files; an absent one means defaults unless must_exist is set.

    capabilities: documents of the installed modules, as ControlServices has them; None leaves options unchecked.
    Raises ConfigError, each line of whose text begins with the name of a file.
    """
    return check(read_parts(path, must_exist=must_exist), capabilities)


def check(
    parts: Parts, capabilities: Mapping[str, Any] | None = None, most_problems: int = MAX_REPORTED_PROBLEMS
) -> Config:
    """Check the configuration that some files make and return it.

    Raises ConfigError with a line for each problem, most_problems of them, that names the file the value is from.
    """
    try:
        document = parts.merged()
    except ConfigError as error:
        raise ConfigError(f"{parts.main.path}: {error}") from None
    with _uncollected():
        return _parsed(document, capabilities, lambda key: f"{parts.origin(key)}: {key}", most_problems)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Let the cyclic collector rest: among many new objects of which none is garbage it takes a third of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def parse(document: Mapping[str, Any], capabilities: Mapping[str, Any] | None = None) -> Config:
    """Check a configuration as a whole and return it. Raises ConfigError with one line for each problem."""
    return _parsed(document, capabilities, str, MAX_REPORTED_PROBLEMS)


def _parsed(
    document: Mapping[str, Any],
    capabilities: Mapping[str, Any] | None,
    named: Callable[[str], str],
    most_problems: int,
) -> Config:
    try:
        raw = migrate(document)
    except ConfigError as error:
        raise ConfigError(f"{named('')}: {error}" if named("") else str(error)) from None
    model = _validated(raw, named, most_problems)
    problems = list(_unknown_keys(model, ""))
    if capabilities is not None:
        problems.extend(_option_problems(model, capabilities))
    mistakes = [problem for problem in problems if not problem.harmless]
    if mistakes:
        _raise(mistakes, named, most_problems)
    return Config(model, warnings=_lines(problems, named, most_problems))


def _validated(raw: dict[str, Any], named: Callable[[str], str], most_problems: int) -> Document:
    """Return the model of a document, made piece by piece, so that other threads run meanwhile. Raises ConfigError."""
    pieces: list[dict[str, Any]] = [raw]
    streams = raw.get("streams")
    if isinstance(streams, dict) and len(streams) > STREAMS_AT_ONCE:
        rest = iter(streams.items())
        parts = iter(lambda: dict(islice(rest, STREAMS_AT_ONCE)), {})
        pieces = [{**raw, "streams": next(parts)}, *({"streams": part} for part in parts)]
    models: list[Document] = []
    problems: list[Problem] = []
    for piece in pieces:
        try:
            models.append(Document.model_validate(piece))
        except ValidationError as error:
            problems.extend(_validation_problems(error, piece))
    if problems:
        _raise(problems, named, most_problems)
    model, *others = models
    for other in others:
        model.streams.update(other.streams)
    return model


def save_document(
    document: Mapping[str, Any], path: Path, known: Mapping[str, Any] | None = None, fingerprint: str = ""
) -> None:
    """Write a configuration document to its file, and what came from other files to those.

    known: the normal form of what the files said when they had this fingerprint, which saves working it out again.
    Raises ConfigError naming what may not be written, OSError for a file that cannot be; the others are written then, too.
    """
    parts = read_parts(path)
    config_files.save(parts, document, _normal, known if parts.fingerprint() == fingerprint else None)


def _normal(document: dict[str, Any]) -> dict[str, Any]:
    try:
        return parse(document).document()
    except ConfigError:  # a part alone need not be a whole
        return migrate(document)


# -- what is wrong, in words -------------------------------------------------------------------------------------------


class Problem(NamedTuple):
    """What is wrong at one dotted key. value: what stands there. harmless: it is kept, and means nothing."""

    path: str
    value: object
    expected: str
    harmless: bool = False


def _raise(problems: list[Problem], named: Callable[[str], str], most: int) -> NoReturn:
    raise ConfigError(
        "\n".join(_lines(problems, named, most)), path=problems[0].path, value=problems[0].value
    ) from None


def _lines(problems: list[Problem], named: Callable[[str], str], most: int) -> list[str]:
    lines = [f"{named(one.path)}: {one.expected}{_told(one)}" for one in problems[:most]]
    return lines if len(problems) <= most else [*lines, f"and {len(problems) - most} more problems"]


def _told(problem: Problem) -> str:
    """Return what stands at a problem's key, if that may be read in a log: keys that sign are no less secret for a mistake in them."""
    return "" if problem.path.startswith("jwks[") else f" (it is {_short(problem.value)})"


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=True, default=str)
    return text if len(text) <= 80 else text[:77] + "..."


def _validation_problems(error: ValidationError, raw: Mapping[str, Any]) -> list[Problem]:
    """Return the problems pydantic found; alternatives at one key become one problem."""
    found: dict[str, tuple[object, list[str]]] = {}
    for entry in error.errors(include_url=False):
        path, value = _locate(entry["loc"], raw)
        expectation = _EXPECTATIONS.get(entry["type"]) or _plain(entry["msg"])
        found.setdefault(path, (value, []))[1].append(expectation)
    return [
        Problem(path, value, "expected " + " or ".join(dict.fromkeys(texts)))
        for path, (value, texts) in sorted(found.items())
    ]


def _plain(message: str) -> str:
    """Return pydantic's words for a bound in the form "a value of …", and those of our own checks as they are."""
    text = message.removeprefix("Input should be ").removeprefix("Value error, ")
    return f"a value {text}" if text.startswith(("less", "greater")) else text


def _locate(location: tuple[int | str, ...], raw: Any) -> tuple[str, object]:
    """Return the dotted key and the value of an error location, without pydantic's names for alternatives."""
    path, value = "", raw
    for part in location:
        if isinstance(part, int) and isinstance(value, list) and part < len(value):
            path, value = f"{path}[{part}]", value[part]
        elif isinstance(part, str) and isinstance(value, dict) and part in value:
            path, value = _join(path, part), value[part]
        elif isinstance(value, dict):
            return _join(path, str(part)), None
    return path, value


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _unknown_keys(section: BaseModel, path: str) -> Iterator[Problem]:
    """Yield the keys that no section has. Options of streams, protocols and processes are looked at elsewhere."""
    if section.model_extra and not isinstance(section, ProtocolEntry | ProcessEntry | Stream):
        for key, value in section.model_extra.items():
            if not key.startswith(NOTE_PREFIX):
                text = "unknown key" + _hint(key, type(section).model_fields)
                yield Problem(_join(path, key), value, text, isinstance(section, OPEN_SECTIONS))
    values = section.__dict__  # without the keys that were just looked at
    for name in section.model_fields_set:
        if isinstance(value := values.get(name), _WITH_KEYS):
            yield from _unknown_within(value, _join(path, name))


def _unknown_within(value: object, path: str) -> Iterator[Problem]:
    if isinstance(value, Section):
        yield from _unknown_keys(value, path)
    elif isinstance(value, dict):
        for key, member in value.items():
            if isinstance(member, _WITH_KEYS):
                yield from _unknown_within(member, _join(path, key))
    elif isinstance(value, list):
        for index, member in enumerate(value):
            if isinstance(member, _WITH_KEYS):
                yield from _unknown_within(member, f"{path}[{index}]")


def _hint(key: str, known: Any) -> str:
    import difflib

    names = sorted(known)
    lower = {name.lower(): name for name in names}
    close = difflib.get_close_matches(key.lower(), lower, n=1)
    if close:
        return f'; did you mean "{lower[close[0]]}"?'
    return f"; expected one of {', '.join(names)}" if len(names) <= 12 else ""


# -- options of protocols and streams against capability documents -----------------------------------------------------


def _option_problems(model: Document, capabilities: Mapping[str, Any]) -> Iterator[Problem]:
    connectors = capabilities.get("connectors") or {}
    for index, entry in enumerate(model.config.protocols or []):
        if entry.connector in connectors:
            yield from _extra_problems(entry, _options(connectors[entry.connector]), f"config.protocols[{index}]")
    inputs: dict[str, Mapping[str, Any]] = {name: {} for name in INPUT_OPTIONS}
    for capability in (capabilities.get("inputs") or {}).values():
        inputs.update(_options(capability))
    processes = capabilities.get("processes") or {}
    for name, stream in model.streams.items():
        yield from _extra_problems(stream, inputs, f"streams.{name}")
        for index, process in enumerate(stream.processes):
            if process.process in processes:
                options = _options(processes[process.process])
                yield from _extra_problems(process, options, f"streams.{name}.processes[{index}]")


def _options(capability: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return the option records of a capability document: required, optional and internal ones."""
    result: dict[str, Mapping[str, Any]] = {}
    for kind in ("internal", "optional", "required"):
        options = capability.get(kind) or {}
        result.update({name: option if isinstance(option, Mapping) else {} for name, option in options.items()})
    return result


def _extra_problems(section: Section, known: Mapping[str, Mapping[str, Any]], path: str) -> Iterator[Problem]:
    for key, value in (section.model_extra or {}).items():
        if key.startswith(NOTE_PREFIX):
            continue
        if key not in known:
            text = "unknown option" + _hint(key, [*known, *type(section).model_fields])
            yield Problem(_join(path, key), value, text, harmless=True)
            continue
        expected = option_expectation(known[key], value)
        if expected:
            yield Problem(_join(path, key), value, f"expected {expected}")


def option_expectation(option: Mapping[str, Any], value: object) -> str:
    """Return what an option's value should be when it is not that, else ""."""
    kind = option.get("type")
    if kind in ("int", "uint", "debug", "unixtime", "float"):
        return _number_expectation(option, value, kind)
    if kind == "bool":
        return "" if value in (True, False, 0, 1, "", "0", "1", "true", "false") else "true or false"
    if kind in ("str", "string", "browse") and isinstance(value, dict | list):
        return "a text"
    if kind == "select":
        allowed = [item[0] if isinstance(item, list | tuple) and item else item for item in option.get("select") or []]
        if allowed and str(value) not in [str(item) for item in allowed]:
            return "one of " + ", ".join(json.dumps(item) for item in allowed)
    return ""


def _number_expectation(option: Mapping[str, Any], value: object, kind: str) -> str:
    word = "a number" if kind == "float" else "a whole number"
    try:
        number = float(value) if isinstance(value, int | float | str) else math.nan
    except (ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number) or (kind != "float" and number != int(number)):
        return word
    low, high = option.get("min", 0 if kind == "uint" else None), option.get("max")
    if (low is not None and number < low) or (high is not None and number > high):
        return (
            f"{word} from {low} to {high}"
            if low is not None and high is not None
            else (f"{word} of at least {low}" if low is not None else f"{word} of at most {high}")
        )
    return ""
