"""The formats of the files that outputs write: told by the file's name, or by the connector that a target names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from mist.formats.containers import Container, by_file_name, by_name

# Connectors, and the formats that they write, the usual one first.
FORMATS: Final[Mapping[str, tuple[str, ...]]] = {
    "AAC": ("aac",),
    "EBML": ("mkv", "webm"),
    "FLAC": ("flac",),
    "FLV": ("flv",),
    "H264": ("h264",),
    "HTTPTS": ("ts",),
    "MP3": ("mp3",),
    "MP4": ("fmp4",),
    "OGG": ("ogg",),
    "SubRip": ("srt", "vtt"),
    "WAV": ("wav",),
}


def format_of(name: str, connector: str) -> Container | None:
    """Return the format of a file: what its name says if the connector writes that, else the connector's usual one."""
    container = by_file_name(name)
    if container is not None and container.on_pipe:
        container = by_name(container.on_pipe)
    known = FORMATS.get(connector, ())
    if known and (container is None or container.name not in known):
        container = by_name(known[0])
    return None if container is None or container.make_muxer is None else container
