"""The files a configuration is made of: read, put together, and each written back with what is its own.

In the order of reading: the main file, `conf.d/*.json` beside it by name, the files of single sections that the main
file names in `config_split`, and the file of changes that it names in `config_changes`. Objects are merged key by key,
anything else is replaced by what is read later, and null removes (RFC 7396). A file is only written when its permissions
allow it and it has no comments, which would be lost; the file of changes takes what could not go where it came from.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mist.controller.migration import MAX_DEPTH, OPAQUE_SECTIONS
from mist.errors import ConfigError

PARTS_FOLDER = "conf.d"
MAX_PARTS = 1000
MAX_FILE_BYTES = 64 * 1024 * 1024
MAIN_ONLY = ("config_split", "config_changes")

Json = dict[str, Any]
_NESTED = frozenset({dict, type(None)})  # the types of what is merged, not copied
_STRING_OR_COMMENT = re.compile(r'"(?:[^"\\]|\\.)*"|//[^\n]*|/\*(?:.*?\*/|.*\Z)', re.DOTALL)


@dataclass(slots=True)
class Part:
    """One file. commented: it has comments. sections: the only ones it may hold, None for any."""

    path: Path
    document: Json
    commented: bool = False
    sections: list[str] | None = None

    def writable(self) -> bool:
        """Tell whether the server may replace the file."""
        if self.commented:
            return False
        try:
            target = self.path.resolve()
            if target.exists():
                return bool(target.stat().st_mode & 0o222) and os.access(target, os.W_OK) and _may_write(target.parent)
            return _may_write(target.parent)
        except OSError:
            return False


def _may_write(folder: Path) -> bool:
    """Tell whether a file can be made in a folder, which is made itself when needed."""
    while not folder.exists():
        folder = folder.parent
    return os.access(folder, os.W_OK | os.X_OK)


@dataclass(slots=True)
class Parts:
    """All files of one configuration.

    main: the file the operator named. extra: those of conf.d, in order. split: one for each file of sections. changes:
    the file of changes, when there is one. set_aside: (damaged file, its new name) of files of changes.
    """

    main: Part
    extra: list[Part] = field(default_factory=list)
    split: list[Part] = field(default_factory=list)
    changes: Part | None = None
    set_aside: list[tuple[Path, Path]] = field(default_factory=list)

    def every(self) -> Iterator[Part]:
        """Yield the files in the order in which they are read."""
        yield self.main
        yield from self.extra
        yield from self.split
        if self.changes is not None:
            yield self.changes

    def merged(self) -> Json:
        """Return the configuration as all files together say it."""
        document = self.without_changes()
        return document if self.changes is None else merge(document, self.changes.document)

    def without_changes(self) -> Json:
        """Return what the files say before the file of changes."""
        document = self.plain()
        for part in self.split:
            for section in part.sections or ():
                if section in part.document:
                    document[section] = part.document[section]
        return document

    def plain(self) -> Json:
        """Return what the main file and those of conf.d say."""
        document = merge({}, self.main.document)
        for part in self.extra:
            document = merge(document, part.document)
        return document

    def origin(self, key: str) -> Path:
        """Return the file that a dotted key comes from: the last of those that say most of it."""
        best, found = 0, self.main.path
        for part in self.every():
            held = part.document
            if part.sections is not None and part is not self.changes:
                held = {section: held[section] for section in part.sections if section in held}
            depth = _held_depth(held, key)
            if depth and depth >= best:
                best, found = depth, part.path
        return found

    def fingerprint(self) -> str:
        """Return a text that changes when somebody writes, adds or removes one of the files."""
        return fingerprint(self.main.path, [part.path for part in self.every()])


def fingerprint(main: Path, known: list[Path]) -> str:
    """Return a text that tells the times of the known files and those of conf.d; "" when there are none."""
    texts = []
    for path in dict.fromkeys([*known, *part_files(main)]):
        with contextlib.suppress(OSError):
            texts.append(f"{path} {path.stat().st_mtime_ns}")
    return "\n".join(texts)


def part_files(main: Path) -> list[Path]:
    """Return the files of conf.d beside the main file, in the order in which they count."""
    try:
        names = sorted(entry.name for entry in os.scandir(main.parent / PARTS_FOLDER))
    except OSError:
        return []
    shown = [name for name in names if name.endswith(".json") and not name.startswith(".")]
    return [main.parent / PARTS_FOLDER / name for name in shown[:MAX_PARTS]]


# -- reading -----------------------------------------------------------------------------------------------------------


def read_parts(path: Path, *, must_exist: bool = False, set_aside: bool = False) -> Parts:
    """Read every file of a configuration.

    set_aside: rename a damaged file of changes, which the server wrote itself, and go on without it.
    Raises ConfigError naming file, line and column.
    """
    parts = Parts(read_part(path, must_exist=must_exist))
    for name in part_files(path):
        part = read_part(name)
        for key in MAIN_ONLY:
            if key in part.document:
                raise ConfigError(f"{name}: {key}: only {path} may have it", path=key, value=part.document[key])
        parts.extra.append(part)
    sections: dict[Path, list[str]] = {}
    for section, file in split_files(parts.main.document, path):
        sections.setdefault(file, []).append(section)
    for file, names in sections.items():
        part = read_part(file)
        part.sections = names
        parts.split.append(part)
    changes = parts.main.document.get("config_changes")
    if isinstance(changes, str) and changes:
        parts.changes = _read_changes(path.parent / changes, parts, set_aside)
    return parts


def _read_changes(file: Path, parts: Parts, set_aside: bool) -> Part:
    try:
        return read_part(file)
    except ConfigError:
        if not set_aside or not file.is_file():
            raise
        aside = file.with_name(f"{file.name}.damaged-{time.strftime('%Y%m%d-%H%M%S')}")
        try:
            file.rename(aside)
        except OSError as error:
            raise ConfigError(f"{file}: damaged, and cannot be renamed: {error.strerror}") from None
        parts.set_aside.append((file, aside))
        return Part(file, {})


def keep_aside(path: Path) -> list[tuple[Path, Path]]:
    """Put the files of a configuration that cannot be used out of the way of what is to be written.

    Damaged files are renamed. When there are none, so that a value is wrong somewhere, all files that may be written are
    copied. Returns (file, its new name). Raises OSError.
    """
    suffix = f".bad-{time.strftime('%Y%m%d-%H%M%S')}"
    kept: list[tuple[Path, Path]] = []
    sound: list[Part] = []
    for file in _files(path):
        try:
            sound.append(read_part(file))
        except ConfigError:
            aside = file.with_name(file.name + suffix)
            file.rename(aside)
            kept.append((file, aside))
    if kept:
        return kept
    for part in sound:
        if part.path.exists() and part.writable():
            aside = part.path.with_name(part.path.name + suffix)
            shutil.copy2(part.path, aside)
            kept.append((part.path, aside))
    return kept


def _files(path: Path) -> list[Path]:
    """Return the files of a configuration, as far as the main one can be read."""
    found = [path, *part_files(path)]
    with contextlib.suppress(ConfigError):
        main = read_part(path).document
        found.extend(file for _, file in split_files(main, path))
        changes = main.get("config_changes")
        if isinstance(changes, str) and changes:
            found.append(path.parent / changes)
    return [file for file in dict.fromkeys(found) if file.exists()]


def split_files(document: Mapping[str, Any], path: Path) -> list[tuple[str, Path]]:
    """Return (section, file) for each section that lives in a file of its own; relative names are beside the main one."""
    split = document.get("config_split")
    if not isinstance(split, dict):
        return []
    return [(key, path.parent / file) for key, file in split.items() if isinstance(file, str) and key not in MAIN_ONLY]


def read_part(path: Path, *, must_exist: bool = False) -> Part:
    """Read one file, {} when there is none. Raises ConfigError naming line and column."""
    if path.is_fifo() and path.resolve().exists():  # /dev/stdin is a pipe without a name
        raise ConfigError(f"{path}: a named pipe; whoever reads it may wait for ever")
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        if must_exist:
            raise ConfigError(
                f"{path}: no such file; create it, or leave out --config to start with defaults"
            ) from None
        return Part(path, {})
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    if len(data) > MAX_FILE_BYTES:
        raise ConfigError(f"{path}: larger than {MAX_FILE_BYTES} bytes")
    try:
        text = data.decode(json.detect_encoding(data))
        if not data.strip():
            raise ConfigError(f"{path}: the file is empty; write {{}} for one that says nothing")
        document, commented = _loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(f"{path}: line {error.lineno} column {error.colno}: {error.msg}") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not JSON text in UTF-8: {error}") from None
    if not isinstance(document, dict):
        raise ConfigError(f"{path}: expected a JSON object, such as {{}}", value=document)
    return Part(path, document, commented)


def _loads(text: str) -> tuple[Any, bool]:
    """Return the value of a JSON text, {} for an empty one, and whether there were comments. Raises JSONDecodeError."""
    try:
        return json.loads(text), False
    except json.JSONDecodeError:
        text, commented = without_comments(text)
        return json.loads(text) if text.strip() else {}, commented


def without_comments(text: str) -> tuple[str, bool]:
    """Return JSON text with blanks in place of `//` and `/* */` comments, and whether there were any.

    Lines and columns stay what they were. What looks like a comment inside a string is none.
    """
    if "//" not in text and "/*" not in text:
        return text, False
    found = False

    def blank(match: re.Match[str]) -> str:
        nonlocal found
        piece = match.group()
        if piece.startswith('"'):
            return piece
        found = True
        return re.sub(r"[^\n]", " ", piece)

    return _STRING_OR_COMMENT.sub(blank, text), found


# -- putting together --------------------------------------------------------------------------------------------------


def merge(base: Mapping[str, Any], patch: Mapping[str, Any], depth: int = 0) -> Json:
    """Return base changed by a patch: objects key by key, null removes. Raises ConfigError for too deep a nest."""
    if depth > MAX_DEPTH:
        raise ConfigError(f"expected at most {MAX_DEPTH} nested objects and lists")
    if not base and _NESTED.isdisjoint(map(type, patch.values())):
        return dict(patch)
    result = dict(base)
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict) and not (depth == 0 and key in OPAQUE_SECTIONS):
            below = result.get(key)
            result[key] = merge(below if isinstance(below, dict) else {}, value, depth + 1)
        else:
            result[key] = value
    return result


def difference(base: Mapping[str, Any], wanted: Mapping[str, Any], depth: int = 0) -> Json:
    """Return the patch by which `merge` makes wanted of base."""
    patch: Json = {key: None for key in base if key not in wanted}
    for key, value in wanted.items():
        before = base.get(key)
        if before == value and key in base:
            continue
        if isinstance(value, dict) and isinstance(before, dict) and not (depth == 0 and key in OPAQUE_SECTIONS):
            patch[key] = difference(before, value, depth + 1)
        else:
            patch[key] = value
    return patch


def _held_depth(document: object, key: str) -> int:
    """Return how many steps of a dotted key a document has; the names themselves may have dots."""
    if not isinstance(document, dict):
        return 0
    best = 0
    for name, value in document.items():
        if key == name:
            return 1
        if key.startswith(name) and key[len(name)] in ".[":
            best = max(best, 1 + _held_depth(value, key[len(name) + 1 :]))
    return best


# -- writing -----------------------------------------------------------------------------------------------------------


def save(
    parts: Parts, wanted: Mapping[str, Any], normal: Callable[[Json], Json], known: Mapping[str, Any] | None = None
) -> None:
    """Write a configuration to its files; a file of which nothing changed is left alone, but for the main one.

    wanted: the whole configuration in normal form. normal: makes the normal form of a document. known: the normal form of
    what is in the files, if it is known.
    Raises ConfigError naming what could not be written anywhere, OSError; the other files are written then, too.
    """
    dirty: list[Part] = []
    if parts.main.writable():
        dirty.append(parts.main)
    parts.split = _split_parts(parts, wanted, dirty)
    taken = {section for part in parts.split for section in part.sections or ()}
    plain = {key: value for key, value in wanted.items() if key not in taken}
    alone = not (parts.extra or parts.split or parts.changes) and bool(dirty)  # one file, which may be written
    before = known if alone and known is not None else normal(parts.plain())
    base = {key: value for key, value in before.items() if key not in taken}
    for path, value in edits(base, plain):
        part = _owner(parts, path)
        if part.writable():
            _edit(part.document, path, value)
            if part not in dirty:
                dirty.append(part)
    rest = {} if alone else difference(normal(parts.without_changes()), wanted)
    if parts.changes is not None and parts.changes.document != rest:
        parts.changes.document, rest = rest, {}
        dirty.append(parts.changes)
    elif parts.changes is not None:
        rest = {}
    _write(dirty)
    if rest:
        name = _first_key(rest)
        raise ConfigError(
            f"{parts.origin(name)}: {name}: may not be written; it stays as it is until the server ends "
            '(a file named by "config_changes" would keep it)',
            path=name,
        )


def _split_parts(parts: Parts, wanted: Mapping[str, Any], dirty: list[Part]) -> list[Part]:
    """Return the files of single sections with what they are to hold; the main file has these sections no more."""
    found: dict[Path, Part] = {}
    for section, file in split_files(wanted, parts.main.path):
        part = found.get(file)
        if part is None:
            part = found[file] = next((one for one in parts.split if one.path == file), None) or read_part(file)
            part.sections = []
        assert part.sections is not None
        part.sections.append(section)
        if part.writable():
            if part.document.get(section) != wanted.get(section) and part not in dirty:
                dirty.append(part)
            part.document = {**part.document, section: wanted.get(section)}
            if parts.main.writable():
                parts.main.document.pop(section, None)
    return list(found.values())


def edits(base: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[tuple[tuple[str, ...], Any]]:
    """Return (key by key, value or None) for each place in which two documents differ."""

    def walk(patch: Mapping[str, Any], place: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
        for key, value in patch.items():
            here = (*place, key)
            before: Any = base
            for name in here:
                before = before.get(name) if isinstance(before, dict) else None
            if isinstance(value, dict) and isinstance(before, dict) and here[0] not in OPAQUE_SECTIONS:
                yield from walk(value, here)
            else:
                yield here, value

    return list(walk(difference(base, wanted), ()))


def _owner(parts: Parts, path: tuple[str, ...]) -> Part:
    """Return the file that a value belongs to: the last that has it; for a new one, the last that has the thing it is of."""
    files = [*reversed(parts.extra), parts.main]
    for length in (len(path), 2):
        for part in files:
            if len(path) >= length and _holds(part.document, path[:length]):
                return part
    return parts.main


def _holds(document: object, path: tuple[str, ...]) -> bool:
    for name in path:
        if not isinstance(document, dict) or name not in document:
            return False
        document = document[name]
    return True


def _edit(document: Json, path: tuple[str, ...], value: object) -> None:
    *above, last = path
    for name in above:
        below = document.get(name)
        if not isinstance(below, dict):
            below = document[name] = {}
        document = below
    if value is None:
        document.pop(last, None)
    else:
        document[last] = value


def _first_key(patch: Mapping[str, Any]) -> str:
    names = []
    value: object = patch
    while isinstance(value, Mapping) and value:
        name = next(iter(value))
        names.append(str(name))
        value = value[name]
    return ".".join(names)


def _write(parts: list[Part]) -> None:
    failure: OSError | None = None
    for part in parts:
        try:
            write_atomically(part.path, part.document)
        except OSError as error:
            failure = error
    if failure is not None:
        raise failure


def write_atomically(path: Path, content: Mapping[str, Any]) -> None:
    """Replace a file by a JSON document; mode and owner stay. On an error, such as a full disk, the old file stays."""
    text = json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    target = path.resolve()  # a link stays a link
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    before = target.stat() if target.exists() else None
    mode = before.st_mode & 0o777 if before else 0o640
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
        with open(fd, "w", encoding="utf-8") as file:
            if before is not None:
                with contextlib.suppress(PermissionError):  # only root may give a file away
                    os.fchown(fd, before.st_uid, before.st_gid)
                os.fchmod(fd, mode)
            file.write(text)
            file.flush()
            os.fsync(fd)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


# -- showing -----------------------------------------------------------------------------------------------------------


def shown(parts: Parts) -> str:
    """Return the configuration that all files make, as JSON with the file of each value in a comment."""
    lines = [f"// {part.path}" for part in parts.every() if part.document]
    lines.extend(_shown(parts.merged(), parts, "", "", ""))
    return "\n".join(lines) + "\n"


def _shown(value: object, parts: Parts, key: str, indent: str, start: str) -> Iterator[str]:
    """Yield the lines of a value. start: what stands before it on its first line; key: its dotted name."""
    if not isinstance(value, dict) or not value:
        text = json.dumps(value, indent=2, ensure_ascii=False).replace("\n", "\n" + indent)
        yield f"{indent}{start}{text}" + (f"\t// {parts.origin(key)}" if key else "")
        return
    yield f"{indent}{start}{{"
    last = len(value) - 1
    for number, (name, member) in enumerate(value.items()):
        dotted = f"{key}.{name}" if key else name
        lines = list(_shown(member, parts, dotted, indent + "  ", f"{json.dumps(name, ensure_ascii=False)}: "))
        if number != last:
            text, tab, comment = lines[-1].rpartition("\t// ")
            lines[-1] = f"{text},{tab}{comment}" if tab else f"{comment},"
        yield from lines
    yield f"{indent}}}"
