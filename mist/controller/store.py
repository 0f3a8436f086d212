"""The running configuration and its file: one place that changes, checks, publishes and saves it."""

from __future__ import annotations

import asyncio
import copy
import logging
import pickle
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from mist.controller.beside import Beside
from mist.controller.config import DEFAULT_PROTOCOLS, Config, Entry, check, configured, parse, save_document
from mist.controller.config_files import difference, fingerprint, keep_aside, merge, read_parts
from mist.controller.last_good import LastGood
from mist.controller.turns import let_go
from mist.errors import ConfigError, MistError

WRITE_DELAY_SECONDS = 60.0
STREAMS_AT_ONCE = 50  # that are looked at before other commands get their turn
SNAPSHOT_ONLY = ("generation", "unsaved", "bad_file", "stream_tags")
Document = dict[str, Any]


class _Difference(NamedTuple):
    """A checked configuration, as far as it differs from the one that runs.

    rest: its normal form without the streams. names: of its streams, in order. changed: pieces of the normal forms of those
    that are not as they were, packed. time: of the files.
    """

    rest: Document
    names: list[str]
    changed: list[bytes]
    warnings: tuple[str, ...]
    default_protocols: bool
    files: list[Path]
    time: str


class Store:
    """Holds the configuration as a document that calls change, and as the checked form that everything else reads.

    document: the normal form (only what is set, with default protocols and built-in streams). Change it in place, but for
    single streams, which are replaced; then call `commit`. built_in: streams that exist without being configured; they are
    never written to the file.
    """

    def __init__(
        self,
        path: Path,
        capabilities: Mapping[str, Any],
        log: logging.Logger,
        beside: Beside,
        *,
        must_exist: bool = False,
        built_in: Mapping[str, Mapping[str, Any]] | None = None,
        last_snapshot: Mapping[str, Any] | None = None,
        last_good: LastGood | None = None,
    ) -> None:
        """Read the file.

        beside: does what takes long. last_good: the copy to keep of what runs, where there is a place for it. last_snapshot:
        what a controller that died published last. Its unsaved changes are taken up again, and it stands in for a file that is
        bad by now. Raises ConfigError for a bad file when there is none.
        """
        self.path = path
        self.capabilities = capabilities
        self.log = log
        self.built_in = copy.deepcopy(dict(built_in or {}))
        self.on_commit: Callable[[Config], None] = lambda config: None
        self.on_checked: Callable[[Mapping[str, Mapping[str, Any]]], None] = lambda settings: None
        self._checked: dict[str, Entry] = {}  # streams that are about to be committed
        self.document: Document = {}
        self._changed_at: float | None = None
        self.bad_file = ""  # what is wrong with it, while what ran before goes on
        self._files: list[Path] = [path]
        self._modified_at = self._saved_time = ""
        self._version = 0  # of what was committed
        self._saving = asyncio.Lock()
        self._saved: Document = {}
        self.last_good = last_good or LastGood(path)
        self.beside = beside
        self._start(must_exist, last_snapshot or {})

    def _start(self, must_exist: bool, last_snapshot: Mapping[str, Any]) -> None:
        try:
            self._take(self._read(must_exist))
        except ConfigError as error:
            if not last_snapshot.get("streams") and not last_snapshot.get("config", {}).get("protocols"):
                raise
            self.log.error("The configuration that ran before is used, because the file is bad: %s", error)
            self._take(self._former(last_snapshot))
            self.bad_file, self._saved_time = str(error), ""
            return
        unsaved = last_snapshot.get("unsaved")
        if unsaved and unsaved["file_time"] == self._modified_at:
            saved = self._saved
            former = unsaved.get("document")  # as version 0.1.0 wrote it
            self._take(parse(former or self._with_unsaved(saved, last_snapshot), self.capabilities))
            self._saved, self._changed_at = saved, float("-inf")

    def _with_unsaved(self, saved: Document, snapshot: Mapping[str, Any]) -> Document:
        """Return what was saved with the changes of a snapshot; of streams that has the names, and their settings elsewhere."""
        unsaved = snapshot["unsaved"]
        document = merge(saved, unsaved["changes"])
        streams = {
            name: one for name, one in document.pop("streams", {}).items() if name not in unsaved.get("gone", ())
        }
        streams.update({name: configured(snapshot["streams"][name]) for name in unsaved.get("streams", ())})
        return {**document, "streams": streams} if streams else document

    def _former(self, last_snapshot: Mapping[str, Any]) -> Config:
        """Return the configuration that ran last: the copy of it, else the snapshot, in which defaults are written out."""
        copy = self.last_good.read()
        if copy is None:
            copy = {key: part for key, part in last_snapshot.items() if key not in SNAPSHOT_ONLY}
            copy["streams"] = dict(copy.get("streams", {}))
        return parse(copy)

    def _read(self, must_exist: bool = False) -> Config:
        """Read and check the files. Raises ConfigError."""
        parts = read_parts(self.path, must_exist=must_exist)
        self._files = [part.path for part in parts.every()]
        return check(parts, self.capabilities)

    def unsaved(self) -> Document | None:
        """Return what `last_snapshot` needs to take up changes that are not in the file, None when there are none."""
        if self._changed_at is None:
            return None
        saved, present = dict(self._saved), self._fit_for_file()
        before, streams = saved.pop("streams", {}), present.pop("streams", {})
        changed = [name for name, stream in streams.items() if before.get(name) is not stream]
        gone = [name for name in before if name not in streams]
        return {
            "changes": difference(saved, present), "streams": changed, "gone": gone, "file_time": self._modified_at
        }  # fmt: skip

    def _take(self, config: Config) -> None:
        """Make a configuration from the file the running one."""
        self._default_protocols = config.model.config.protocols is None
        self._warn(config.warnings)
        self._use(self._completed(config))
        self._is_saved(self._fit_for_file())

    def _warn(self, warnings: Iterable[str]) -> None:
        for line in warnings:
            self.log.warning("%s", line)

    def _use(self, config: Config) -> None:
        self._version += 1
        self.config = config
        self._checked.clear()
        self._committed = config.document()
        self.document = self._draft()

    def _draft(self) -> Document:
        """Return a copy of what was committed that may be changed; single streams in it are shared."""
        return {
            key: dict(section) if key == "streams" else copy.deepcopy(section)
            for key, section in self._committed.items()
        }

    def _completed(self, config: Config) -> Config:
        """Return a configuration with the default protocols and the built-in streams where it says nothing about them."""
        document = config.document()
        server = document.setdefault("config", {})
        server.setdefault("protocols", [dict(entry) for entry in DEFAULT_PROTOCOLS])
        streams = {**copy.deepcopy(self.built_in), **document.get("streams", {})}
        if streams:
            document["streams"] = streams
        return config.changed(document, ("config", "streams"), self.capabilities)

    def part(self, key: str, empty: Any) -> Any:
        """Return a top-level section of the document, adding an empty one when it is absent."""
        return self.document.setdefault(key, empty)

    @property
    def server(self) -> Document:
        """The member `config` of the document."""
        part: Document = self.part("config", {})
        return part

    @property
    def streams(self) -> Document:
        """The streams of the document by name."""
        part: Document = self.part("streams", {})
        return part

    def commit(self, now: float) -> bool:
        """Check and publish what was changed in the document; returns whether anything was.

        now: monotonic seconds. A document that is not acceptable is put back as it was. Raises ConfigError then.
        """
        changed = self._changed_sections()
        if changed:
            self._publish(self._next(changed), now)
        return bool(changed)

    async def commit_in_turns(self, now: float) -> bool:
        """Do what `commit` does; others get their turn between the steps, each of which is long where streams are many."""
        changed = self._changed_sections()
        if not changed:
            return False
        version, document = self._version, self.document
        config = self._next(changed)
        await asyncio.sleep(0)
        if version != self._version or document is not self.document:  # a variable has another value since
            config = self._next(self._changed_sections())
        await self._publish_in_turns(config, now)
        return True

    def _changed_sections(self) -> list[str]:
        return [
            section
            for section in {**self.document, **self._committed}
            if self.document.get(section) != self._committed.get(section)
        ]

    def _next(self, changed: list[str]) -> Config:
        """Return the configuration that the document makes. Raises ConfigError, and puts the document back then."""
        try:
            return self.config.changed(self.document, changed, self.capabilities, self._checked)
        except ConfigError:
            self.document = self._draft()
            self._checked.clear()
            raise

    def _publish(self, config: Config, now: float) -> None:
        self._use(config)
        self._note_change(now)
        self.on_commit(config)

    async def _publish_in_turns(self, config: Config, now: float) -> None:
        former = list(self.config.entries.values())
        self._use(config)
        self._note_change(now)
        try:
            await asyncio.sleep(0)
        finally:  # whoever asked for it may be gone
            self.on_commit(self.config)
        await asyncio.sleep(0)
        await let_go(former)

    def _note_change(self, now: float) -> None:
        self._changed_at = now if self._fit_for_file() != self._saved else None

    def set_variable(self, name: str, entry: Document, now: float) -> None:
        """Take note of a custom variable's run; all processes are told when its value is another. now: monotonic seconds.

        Values that change all the time do not put off the next save.
        """
        variables = {**(self.document.get("variables") or {}), name: entry}
        changed = entry.get("value", "") != (self.document["variables"][name].get("value", ""))
        changed_at = self._changed_at
        if changed:
            self.document = {**self.document, "variables": variables}
            self.commit(now)
        else:
            self.document = {**self.document, "variables": variables}
            self._committed = {**self._committed, "variables": copy.deepcopy(variables)}
            self._version += 1
        self._changed_at = now if changed_at is None else changed_at

    def check_streams(self, streams: Mapping[str, Any]) -> Config:
        """Return a configuration of some streams, whose normal forms `commit` need not check again. Raises ConfigError."""
        config = parse({"streams": streams}, self.capabilities)
        self._checked.update(config.entries)
        self.on_checked({name: entry.settings for name, entry in config.entries.items()})
        return config

    async def reload(self) -> None:
        """Read the file again and use it; what was not saved is lost. Raises MistError and changes nothing then."""
        async with self._saving:
            try:
                found = await self.beside(lambda: self._difference(self._read))
            except ConfigError as error:
                self.bad_file = str(error)
                raise
            config = await self._rebuilt(found)
            await asyncio.sleep(0)
            former = list(self.config.entries.values())
            self._warn(found.warnings)
            self._default_protocols, self._files = found.default_protocols, found.files
            self._use(config)
            self._is_saved(self._fit_for_file(), found.time)
            try:
                await asyncio.sleep(0)
            finally:
                self.on_commit(self.config)
            await asyncio.sleep(0)
            await let_go(former)

    async def restore(self, document: Mapping[str, Any], now: float) -> None:
        """Replace everything by a backup; one without streams or accounts keeps the current ones. Raises MistError."""
        kept = {"streams": self.streams} if "streams" not in document else {}
        if document.get("account") is None and "account" in self.document:  # without any, whoever comes first makes one
            document = {**document, "account": self.document["account"]}
        found = await self.beside(lambda: self._difference(lambda: parse({**kept, **document}, self.capabilities)))
        await self._publish_in_turns(await self._rebuilt(found), now)

    def _difference(self, read: Callable[[], Config]) -> _Difference:
        """Return what differs in a configuration that is read now. Raises ConfigError."""
        new = read()
        time = self._file_time()
        document = self._completed(new.sharing(self.config)).document()
        streams, present = document.pop("streams", {}), self._committed.get("streams", {})
        changed = iter([(name, stream) for name, stream in streams.items() if present.get(name) is not stream])
        pieces = iter(lambda: dict(islice(changed, STREAMS_AT_ONCE)), {})
        return _Difference(
            document, list(streams), [pickle.dumps(piece) for piece in pieces], new.warnings,
            new.model.config.protocols is None, self._files, time,
        )  # fmt: skip

    async def _rebuilt(self, found: _Difference) -> Config:
        """Return the configuration whose difference was found, made piece by piece so that others get their turn."""
        streams = dict(self._committed.get("streams", {}))
        self._checked.clear()
        for piece in found.changed:
            streams.update(self.check_streams(pickle.loads(piece)).document()["streams"])
            await asyncio.sleep(0)
        document = dict(found.rest)
        if found.names:
            document["streams"] = {name: streams[name] for name in found.names}
        sections = {*document, *self._committed}
        return self.config.changed(document, sections, self.capabilities, self._checked)

    # -- the file ------------------------------------------------------------------------------------------------------

    def save(self) -> None:
        """Write the configuration now. A failure is logged, and tried again when the next write is due."""
        content, before = self._fit_for_file(), self._file_time()
        self._written(content, self._version, before, *self._write(content))

    async def save_beside(self) -> None:
        """Do the same, so that nobody has to wait for it."""
        async with self._saving:
            content, version, before = self._fit_for_file(), self._version, self._file_time()
            try:
                aside, error = await self.beside(partial(self._write, content))
            except (OSError, MistError) as failure:
                aside, error = [], failure
            self._written(content, version, before, aside, error)

    def _write(self, content: Document) -> tuple[list[tuple[Path, Path]], Exception | None]:
        """Write the files; those that could not be used go out of the way. Returns (file, its new name) of them, and what failed."""
        aside: list[tuple[Path, Path]] = []
        try:
            if self.bad_file:
                aside = keep_aside(self.path)
            save_document(content, self.path, self._saved, self._saved_time)
        except (OSError, ConfigError) as error:
            return aside, error
        return aside, None

    def _written(
        self, content: Document, version: int, before: str, aside: list[tuple[Path, Path]], error: Exception | None
    ) -> None:
        """Take note of a write. content: what was written, and its version; before: the files' times before it."""
        for file, name in aside:
            self.log.warning("%s could not be used; it is kept as %s", file, name)
        if error is not None:
            self._not_saved(error, before)
            return
        changed = self._changed_at
        if self._is_saved(content):
            self.on_commit(self.config)
        if version != self._version:
            self._changed_at = changed

    def _not_saved(self, error: Exception, before: str) -> None:
        """Say why. before: the files' times then: those written all the same are no edit, which would be read again."""
        self.log.error("The configuration could not be saved as a whole: %s", error)
        if before == self._modified_at != self._file_time():
            self._modified_at = self._file_time()
            self.on_commit(self.config)

    def _is_saved(self, content: Document, time: str = "") -> bool:
        """Note what the files say, since when; returns whether they were bad before."""
        self._saved = content
        self._changed_at = None
        self._modified_at = self._saved_time = time or self._file_time()
        was_bad, self.bad_file = bool(self.bad_file), ""
        return was_bad

    async def write_due(self, now: float, *, at_once: bool = False) -> None:
        """Write the configuration when its last change is long enough ago, or at once, and the copy of it that runs.

        A bad file that somebody is working on is only overwritten by `save`. now: monotonic seconds.
        """
        delay = 0.0 if at_once else WRITE_DELAY_SECONDS
        if self._changed_at is not None and not self.bad_file and now - self._changed_at >= delay:
            self._changed_at = now  # the next attempt, should this one fail
            await self.save_beside()
        replace = self.last_good.take(self._fit_for_file())
        if replace is not None:
            try:
                self._copied(await self.beside(replace))
            except (OSError, MistError) as error:
                self._copied(f"No copy of the configuration was made: {error}")

    def save_if_changed(self) -> None:
        """Write the configuration if it differs from the file, and the copy of it."""
        if self._changed_at is not None and not self.bad_file:
            self.save()
        replace = self.last_good.take(self._fit_for_file())
        if replace is not None:
            self._copied(replace())

    def _copied(self, failure: str) -> None:
        if failure:
            self.log.warning("%s", failure)

    def file_changed(self) -> bool:
        """Return whether somebody else wrote, added or removed one of the files since they were read or written here.

        Says so only once, and not while they are being written here.
        """
        if self._saving.locked():
            return False
        time = self._file_time()
        changed = bool(time) and time != self._modified_at
        self._modified_at = time
        return changed

    def _file_time(self) -> str:
        return fingerprint(self.path, self._files)

    def _fit_for_file(self) -> Document:
        """Return what was committed without what was never configured: built-in streams and default protocols.

        It shares its parts with what was committed, which nobody changes in place.
        """
        document = dict(self._committed)
        streams = document["streams"] = dict(document.get("streams", {}))
        for name, stream in self.built_in.items():
            if streams.get(name) == stream:
                del streams[name]
        if not streams:
            document.pop("streams", None)
        server = document["config"] = dict(document.get("config", {}))
        if self._default_protocols and server.get("protocols") == [dict(entry) for entry in DEFAULT_PROTOCOLS]:
            del server["protocols"]
        if not server:
            document.pop("config", None)
        return document
