"""Subtitle files beside a media file: FILE.srt, FILE.vtt, and FILE.LANGUAGE.srt, where FILE is the media file's whole name."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from mist.core.demuxer import Demuxer, demux
from mist.core.side_tracks import SideTracks
from mist.core.text_tracks import MAX_TEXT_BYTES
from mist.errors import LimitExceededError, MistError
from mist.formats.containers import by_file_name
from mist.formats.tracks import TrackInfo

SUFFIXES: Final = (".srt", ".vtt")
MAX_SIDE_FILES: Final = 16
LANGUAGE_LETTERS: Final = 3


@dataclass(slots=True)
class SideTexts:
    """The subtitles beside a file. stamp: changes when one of the files does, 0 without any. texts: as `SideTracks` wants them."""

    infos: list[TrackInfo] = field(default_factory=list)
    texts: list[tuple[int, int, bytes]] = field(default_factory=list)
    stamp: int = 0

    def around(self, media: Demuxer) -> Demuxer:
        """Return a demuxer of the media with these tracks. media: its tracks are known."""
        if not self.infos:
            return media
        last_id = max(info.track_id for info in media.tracks)
        infos = [info.changed(track_id=last_id + place) for place, info in enumerate(self.infos, 1)]
        return SideTracks(media, infos, self.texts)


def side_files(path: str) -> list[tuple[Path, str]]:
    """Return the subtitle files beside a file, with their languages, in the order of their names; those without a language first."""
    found = []
    for suffix in SUFFIXES:
        plain = Path(path + suffix)
        if plain.is_file():
            found.append((plain, "und"))
    name = Path(path).name
    try:
        others = sorted(Path(path).parent.glob(f"{_escaped(name)}.*"))
    except OSError:
        return found
    for other in others:
        language, dot, suffix = other.name[len(name) + 1 :].partition(".")
        if (
            dot + suffix in SUFFIXES
            and len(language) == LANGUAGE_LETTERS
            and language.isascii()
            and language.isalpha()
            and other.is_file()
        ):
            found.append((other, language.lower()))
    return found[:MAX_SIDE_FILES]


def _escaped(name: str) -> str:
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)


def read_side_texts(path: str, warn: Callable[[str], None]) -> SideTexts:
    """Read the subtitles beside a file. One that cannot be read is left out, and `warn` gets a line that says why."""
    result = SideTexts()
    stamps = []
    for file, language in side_files(path):
        try:
            status = file.stat()
            stamps.append((file.name, status.st_size, status.st_mtime_ns))
            info, packets = _read(file, status.st_size)
        except (MistError, OSError) as error:
            warn(f"{file}: {error}; these subtitles are left out")
            continue
        number = len(result.infos)
        result.infos.append(info.changed(language=language))
        result.texts += [(time_us, number, payload) for time_us, payload in packets]
    result.texts.sort(key=lambda text: text[:2])
    result.stamp = zlib.crc32(repr(stamps).encode()) if stamps else 0
    return result


def _read(file: Path, size: int) -> tuple[TrackInfo, list[tuple[int, bytes]]]:
    if size > MAX_TEXT_BYTES:
        raise LimitExceededError(f"timed text of {size} bytes; the limit is {MAX_TEXT_BYTES}")
    container = by_file_name(file.name)
    assert container is not None and container.make_demuxer is not None
    demuxer = container.make_demuxer()
    packets = demux(demuxer, file.read_bytes())
    return demuxer.tracks[0], [(packet.dts_us, packet.payload) for packet in packets]
