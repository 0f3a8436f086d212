"""The committed golden vectors of the codecs: init data, the start of a first packet, and what is to be said of them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mist.formats.tracks import AUDIO, VIDEO, TrackInfo

DATA = Path(__file__).resolve().parents[1] / "data"
FOLDERS = ("h264", "hevc", "av1", "vp9", "vp8", "aac", "mpeg_audio", "opus", "flac", "ac3", "vorbis", "theora", "speex")
_VIDEO_CODECS = {"H264", "HEVC", "AV1", "VP9", "VP8", "theora"}


@dataclass(frozen=True)
class GoldenVector:
    """One vector. expected: the fields of the completed track, codec_string and bframes."""

    init_data: bytes
    payload: bytes
    expected: dict[str, Any]

    def track(self, init_data: bytes | None = None) -> TrackInfo:
        """Return the track with nothing known but its codec and init data."""
        codec = self.expected["codec"]
        kind = VIDEO if codec in _VIDEO_CODECS else AUDIO
        return TrackInfo(kind, codec, init_data=self.init_data if init_data is None else init_data)


def split_seed(data: bytes) -> tuple[bytes, bytes]:
    """Return init data and payload of a seed: a length in two bytes, that many bytes, the rest."""
    size = int.from_bytes(data[:2], "big")
    return data[2 : 2 + size], data[2 + size :]


def golden(folder: str, name: str) -> GoldenVector:
    """Return tests/data/FOLDER/corpus/NAME.bin with its expectations."""
    init_data, payload = split_seed((DATA / folder / "corpus" / f"{name}.bin").read_bytes())
    return GoldenVector(init_data, payload, json.loads((DATA / folder / f"{name}.json").read_text()))


def names(folder: str) -> list[str]:
    """Return the names of a codec's vectors."""
    return sorted(path.stem for path in (DATA / folder).glob("*.json"))
