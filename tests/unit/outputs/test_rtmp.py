"""Names, passwords and codecs as RTMP peers give them."""

from __future__ import annotations

import pytest

from mist.outputs.rtmp import OUTPUT, enhanced_codecs, password_of, split_name


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("live", ("live", "")),
        ("live?video=720p&x=/y", ("live", "video=720p&x=/y")),
        ("live/instance", ("live", "")),
        ("/live", ("live", "")),
        ("mp4:film", ("film.mp4", "")),
        ("mp4:film.mp4", ("film.mp4", "")),
        ("longer:film", ("longer:film", "")),
        ("live+one two", ("live+one two", "")),
        ("", ("", "")),
    ],
)
def test_names(text: str, expected: tuple[str, str]) -> None:
    assert split_name(text) == expected


def test_passwords() -> None:
    assert [password_of(app) for app in ("live", "word/", "word?a=b", "")] == ["live", "word", "word", ""]


def test_codecs_of_players() -> None:
    assert enhanced_codecs(["*"])[0][0] == ("H264", "HEVC", "AV1", "VP8", "VP9")
    assert enhanced_codecs(["hvc1", "Opus", "junk"]) == ((("H264", "HEVC"), ("AAC", "MP3", "opus"), ("JSON",)),)


def test_capability_document() -> None:
    document = OUTPUT.capability.document()
    assert document["name"] == "RTMP" and document["optional"]["port"]["default"] == 1935
    assert document["optional"]["acceptable"]["type"] == "select" and document["methods"][0]["url_rel"] == "/play/$"
