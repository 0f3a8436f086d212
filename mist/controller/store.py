"""The running configuration and its file: one place that changes, checks, publishes and saves it."""

from __future__ import annotations

import asyncio
import copy
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mist.controller.config import DEFAULT_PROTOCOLS, Config, check, parse, save_document
from mist.controller.config_files import fingerprint, read_parts
from mist.errors import ConfigError

WRITE_DELAY_SECONDS = 60.0
SNAPSHOT_ONLY = ("generation", "unsaved")
Document = dict[str, Any]


class Store:
    """Holds the configuration as a document that calls change, and as the checked form that everything else reads.

    document: the normal form (only what is set, with default protocols and built-in streams). Change it in place, then
    call `commit`. built_in: streams that exist without being configured; they are never written to the file.
    """

    def __init__(
        self,
        path: Path,
        capabilities: Mapping[str, Any],
        log: logging.Logger,
        *,
        must_exist: bool = False,
        built_in: Mapping[str, Mapping[str, Any]] | None = None,
        last_snapshot: Mapping[str, Any] | None = None,
    ) -> None:
        """Read the file.

        last_snapshot: what a controller that died published last. Its unsaved changes are taken up again, and it stands
        in for a file that is bad by now. Raises ConfigError for a bad file when there is none.
        """
        self.path = path
        self.capabilities = capabilities
        self.log = log
        self.built_in = copy.deepcopy(dict(built_in or {}))
        self.on_commit: Callable[[Config], None] = lambda config: None
        self.document: Document = {}
        self._changed_at: float | None = None
        self._file_is_bad = False
        self._files: list[Path] = [path]
        self._modified_at = ""
        self._saving = asyncio.Lock()
        self._saved: Document = {}
        self._start(must_exist, last_snapshot or {})

    def _start(self, must_exist: bool, last_snapshot: Mapping[str, Any]) -> None:
        try:
            self._take(self._read(must_exist))
        except ConfigError as error:
            if not last_snapshot.get("streams") and not last_snapshot.get("config", {}).get("protocols"):
                raise
            self.log.error("The configuration that ran before is used, because the file is bad: %s", error)
            self._take(parse({key: part for key, part in last_snapshot.items() if key not in SNAPSHOT_ONLY}))
            self._file_is_bad = True
            return
        unsaved = last_snapshot.get("unsaved")
        if unsaved and unsaved["file_time"] == self._modified_at:
            saved = self._saved
            self._take(parse(unsaved["document"], self.capabilities))
            self._saved, self._changed_at = saved, float("-inf")

    def _read(self, must_exist: bool = False) -> Config:
        """Read and check the files. Raises ConfigError."""
        parts = read_parts(self.path, must_exist=must_exist)
        self._files = [part.path for part in parts.every()]
        return check(parts, self.capabilities)

    def unsaved(self) -> Document | None:
        """Return what `last_snapshot` needs to take up changes that are not in the file, None when there are none."""
        if self._changed_at is None:
            return None
        return {"document": self._fit_for_file(), "file_time": self._modified_at}

    def _take(self, config: Config) -> None:
        """Make a configuration from the file the running one."""
        self.document = self._completed(config.document())
        self.config = parse(self.document, self.capabilities)
        self._default_protocols = config.model.config.protocols is None
        self._committed = copy.deepcopy(self.document)
        self._saved = self._fit_for_file()
        self._changed_at = None
        self._modified_at = self._file_time()

    def _completed(self, document: Document) -> Document:
        """Return a document with the default protocols and the built-in streams where it says nothing about them."""
        server = document.setdefault("config", {})
        server.setdefault("protocols", [dict(entry) for entry in DEFAULT_PROTOCOLS])
        streams = {**copy.deepcopy(self.built_in), **document.get("streams", {})}
        if streams:
            document["streams"] = streams
        return document

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
        if self.document == self._committed:
            return False
        try:
            config = parse(self.document, self.capabilities)
        except ConfigError:
            self.document = copy.deepcopy(self._committed)
            raise
        self.config = config
        self.document, self._committed = config.document(), config.document()
        self._changed_at = now if self._fit_for_file() != self._saved else None
        self.on_commit(config)
        return True

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
        self._changed_at = now if changed_at is None else changed_at

    def reload(self) -> None:
        """Read the file again and use it; what was not saved is lost. Raises ConfigError and changes nothing then."""
        try:
            config = self._read()
        except ConfigError:
            self._file_is_bad = True
            raise
        self._take(config)
        self._file_is_bad = False
        self.on_commit(self.config)

    def restore(self, document: Mapping[str, Any], now: float) -> None:
        """Replace everything by a backup; one without streams keeps the current ones. Raises ConfigError."""
        kept = {"streams": self.streams} if "streams" not in document else {}
        self.document = self._completed(parse({**kept, **document}, self.capabilities).document())
        self.commit(now)

    # -- the file ------------------------------------------------------------------------------------------------------

    def save(self) -> None:
        """Write the configuration now. A failure is logged, and tried again when the next write is due."""
        content = self._fit_for_file()
        try:
            self._keep_bad_file()
            save_document(content, self.path)
        except (OSError, ConfigError) as error:
            self._not_saved(error)
            return
        self._is_saved(content)

    async def save_beside(self) -> None:
        """Write the configuration now, in a thread, so that nobody has to wait for the disk."""
        async with self._saving:
            content = self._fit_for_file()
            try:
                self._keep_bad_file()
                await asyncio.to_thread(save_document, content, self.path)
            except (OSError, ConfigError) as error:
                self._not_saved(error)
                return
            changed = self._changed_at
            self._is_saved(content)
            if content != self._fit_for_file():
                self._changed_at = changed

    def _keep_bad_file(self) -> None:
        """Put a file that could not be used out of the way of the one that is to be written. Raises OSError."""
        if self._file_is_bad and self.path.exists():
            aside = self.path.with_name(f"{self.path.name}.bad-{time.strftime('%Y%m%d-%H%M%S')}")
            self.path.rename(aside)
            self.log.warning("The bad configuration file is kept as %s", aside)

    def _not_saved(self, error: Exception) -> None:
        self.log.error("The configuration could not be saved, and the file is as it was: %s", error)

    def _is_saved(self, content: Document) -> None:
        self._saved = content
        self._changed_at = None
        self._file_is_bad = False
        self._modified_at = self._file_time()

    def save_if_due(self, now: float) -> None:
        """Write the configuration when its last change is long enough ago. now: monotonic seconds.

        A bad file that somebody is working on is only overwritten by `save`.
        """
        if self._changed_at is not None and not self._file_is_bad and now - self._changed_at >= WRITE_DELAY_SECONDS:
            self._changed_at = now  # the next attempt, should this one fail
            self.save()

    def save_if_changed(self) -> None:
        """Write the configuration if it differs from the file."""
        if self._changed_at is not None and not self._file_is_bad:
            self.save()

    def file_changed(self) -> bool:
        """Return whether somebody else wrote, added or removed one of the files since they were read or written here.

        Says so only once.
        """
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
