"""Playlists of files (`.pls`): the files that a text names are played one after another as a live stream, for ever."""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from mist.core.demuxer import PacketList
from mist.errors import LimitExceededError, MistError, NotFound, UnsupportedError
from mist.formats.containers import by_file_name, by_first_bytes
from mist.formats.sniffing import SNIFF_BYTES
from mist.net.local_file import LocalFile
from mist.stream.capability import Capability
from mist.stream.services import InputServices
from mist.stream.source_intake import SourceIntake
from mist.stream.variables import substitute

MAX_PLAYLIST_BYTES: Final = 1 << 20
MAX_ENTRIES: Final = 10_000
NOTHING_VALID_SECONDS: Final = 1.0
START_FAILURE: Final = "READ_START_FAILURE"
_START_TIME: Final = re.compile(r"#X-STARTTIME:\s*([01]?\d|2[0-3]):([0-5]\d)\s*", re.ASCII)


@dataclass(frozen=True, slots=True)
class Entry:
    """One file. minute: of the day, at which it is played whatever plays then; None for one that is played in its turn."""

    path: str
    minute: int | None = None


def parse_entries(text: str, folder: str) -> list[Entry]:
    """Return the entries of a playlist. folder: where paths begin that are not whole. Raises LimitExceededError."""
    entries: list[Entry] = []
    minute: int | None = None
    for line in (line.strip() for line in text.lstrip("\ufeff").splitlines()):
        match = _START_TIME.fullmatch(line)
        if match is not None:
            minute = int(match[1]) * 60 + int(match[2])
        elif line and not line.startswith("#"):
            entries.append(Entry(os.path.join(folder, line), minute))
            minute = None
    if len(entries) > MAX_ENTRIES:
        raise LimitExceededError(f"the playlist has {len(entries)} entries; the limit is {MAX_ENTRIES}")
    return entries


def next_pinned(entries: list[Entry], now: datetime) -> tuple[float, int] | None:
    """Return in how many seconds an entry has its time of day, and its number; None without such entries. now: local time."""
    found = []
    for number, entry in enumerate(entries):
        if entry.minute is not None:
            moment = now.replace(hour=entry.minute // 60, minute=entry.minute % 60, second=0, microsecond=0)
            moment += timedelta(days=moment <= now)
            found.append(((moment - now).total_seconds(), number))
    return min(found, default=None)


class PlaylistPlayer:
    """Plays one playlist; it is read again before each entry."""

    def __init__(self, services: InputServices) -> None:
        self._services = services
        self._path = services.source
        if self._path[:9].lower() == "playlist:":
            self._path = self._path[9:]
        self._free_at = 0.0  # when the entry before has been played to its end

    def _entries(self) -> list[Entry]:
        """Read the playlist. Raises MistError."""
        try:
            with Path(self._path).open("rb") as file:
                data = file.read(MAX_PLAYLIST_BYTES + 1)
        except OSError as error:
            raise NotFound(f"{self._path} cannot be read: {error.strerror}", reason=START_FAILURE) from None
        if len(data) > MAX_PLAYLIST_BYTES:
            raise LimitExceededError(f"{self._path} has over {MAX_PLAYLIST_BYTES} bytes")
        text = substitute_lines(data.decode("utf-8", "replace"), self._services.variables())
        return parse_entries(text, os.path.dirname(self._path))

    async def run(self) -> None:
        """Play for ever. Raises MistError when the playlist cannot be read at the beginning."""
        entries = self._entries()
        number = -1
        played = True
        tried = 0
        while True:
            try:
                entries = self._entries()
            except MistError as error:
                self._services.log.warning("%s; the entries of before go on", error)
            turns = [place for place, entry in enumerate(entries) if entry.minute is None]
            pinned = next_pinned(entries, datetime.now())
            due_s = None if pinned is None else pinned[0]
            if not turns or (not played and tried >= len(turns)):
                tried = 0
                await asyncio.sleep(min(NOTHING_VALID_SECONDS, NOTHING_VALID_SECONDS if due_s is None else due_s))
            number = next((place for place in turns if place > number), turns[0] if turns else -1)
            played = False
            try:
                async with asyncio.timeout(due_s):
                    if number >= 0:
                        played = await self._play(entries[number])
                    elif due_s is not None:
                        await asyncio.sleep(due_s + 1)
            except TimeoutError:
                assert pinned is not None
                self._free_at = 0.0
                number = pinned[1]
                played = await self._play(entries[number])
            tried = 0 if played else tried + 1

    async def _play(self, entry: Entry) -> bool:
        """Play one entry; False if it cannot be."""
        try:
            with LocalFile(entry.path) as file:
                assert isinstance(file, LocalFile)
                await self._play_file(file)
        except MistError as error:
            self._services.log.warning("%s is passed over: %s", entry.path, error)
            return False
        return True

    async def _play_file(self, file: LocalFile) -> None:
        container = by_file_name(file.path)
        if container is None or container.make_demuxer is None:
            container = by_first_bytes(file.read(0, SNIFF_BYTES))
        if container is None or container.make_demuxer is None:
            raise UnsupportedError("it is of no format that mist reads")
        demuxer = container.make_demuxer()
        sink = PacketList()
        demuxer.attach(sink)
        intake = SourceIntake(self._services.publisher, self._services.record, self._services.log)
        described = False
        self._services.log.info("Playing %s", file.path)
        began_at = max(self._free_at, time.monotonic())
        first_us: int | None = None
        while (wanted := demuxer.want()) is not None:
            demuxer.feed(file.read(*wanted))
            packets = sink.take()
            if demuxer.ready:
                intake.describe(demuxer.tracks)
            if demuxer.ready and not described:
                described = True
                intake.forget_left()
            for packet in packets:
                if first_us is None:
                    first_us = packet.dts_us
                due_at = began_at + (packet.dts_us - first_us) / 1e6
                if due_at > time.monotonic():
                    await asyncio.sleep(due_at - time.monotonic())
                intake.write(packet)
                self._free_at = max(self._free_at, due_at)
            await asyncio.sleep(0)
        if not intake.packets_written:
            raise UnsupportedError("it has no media")


def substitute_lines(text: str, values: Mapping[str, str]) -> str:
    """Replace the variables in each line."""
    return "\n".join(substitute(line, values) if "$" in line else line for line in text.splitlines())


class PlaylistInput:
    """The input for playlists of files."""

    capability = Capability(
        name="Playlist",
        friendly="Playlist of files",
        desc="Plays the files that a text file names, one path in a line, one after another as a live stream, for ever",
        source_match=("/*.pls",),
        always_match=("/*.pls",),
        codecs=((("+*",),),),
    )

    async def run(self, services: InputServices) -> None:
        """Play the playlist. Raises MistError."""
        await PlaylistPlayer(services).run()


INPUT: Final = PlaylistInput()
