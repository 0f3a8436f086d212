"""The format of a file that an output writes: its name says it, or the connector that the target names."""

from __future__ import annotations

import pytest

from mist.outputs.base.file_formats import FORMATS, format_of


@pytest.mark.parametrize(
    ("name", "connector", "expected"),
    [
        ("/a.webm", "EBML", "webm"),
        ("/a.mp4", "MP4", "fmp4"),
        ("/a.bin", "FLV", "flv"),  # flv:/a.bin
        ("/a.mkv", "HTTPTS", "ts"),
        ("/a", "EBML", "mkv"),
        ("/a.dtsc", "DTSC", "dtsc"),
    ],
)
def test_format(name: str, connector: str, expected: str) -> None:
    found = format_of(name, connector)
    assert found is not None
    assert found.name == expected


def test_every_connector_has_a_format() -> None:
    assert all(format_of("/a", connector) for connector in FORMATS)
    assert format_of("/a.bin", "DTSC") is None
