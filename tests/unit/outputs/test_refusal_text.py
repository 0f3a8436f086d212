"""What somebody outside is told of an error: no path of the server."""

from __future__ import annotations

import pytest

from mist.errors import (
    AccessDenied,
    MistError,
    NotFound,
    NotReady,
    RemoteProtocolError,
    SharedMemoryFull,
    TransportError,
)
from mist.outputs.base.refusal_text import refusal_text
from mist.outputs.http.dispatch import error_reply


@pytest.mark.parametrize(
    "error",
    [
        NotFound("/srv/my films/a.mp4 cannot be opened: Permission denied"),
        NotFound('The stream a has the source "/srv/a.xyz", which no input takes'),
        NotFound("films/secret/a.mp4 is not a file"),
        NotReady("../films/a.mp4: not yet"),
        RemoteProtocolError("/srv/a.mp4, byte 7: no atom"),
        TransportError("http://store.internal:9000/bucket/a.mp4: refused"),
        MistError("the index of /var/cache/mist/a.dtsh is damaged"),
        MistError(r"C:\films\a.mp4 is gone"),
    ],
)
def test_places_are_not_told(error: MistError) -> None:
    told = refusal_text(error, "x")
    assert told
    assert not any(word in told for word in ("srv", "films", "internal", "cache", "/"))
    assert error_reply(error).body.decode().strip().endswith(told)


@pytest.mark.parametrize(
    "error",
    [
        NotFound("The stream live is not configured"),
        NotReady("Stream is offline"),
        AccessDenied("Not allowed to play"),
        RemoteProtocolError("start and stop: 10 is not before 5"),
        NotReady("The stream films+a.mp4 is waiting for data"),
        SharedMemoryFull("live: No space left on device; free /dev/shm or lower config.memory"),
    ],
)
def test_reasons_are(error: MistError) -> None:
    assert refusal_text(error, "x") == str(error)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("/srv/my films/a.mp4 cannot be opened: No such file", "Its source cannot be opened: No such file"),
        ("/srv/a.mp4, byte 7: no atom", "Its source, byte 7: no atom"),
        ("http://store:9000/a.mp4?key=1: 404 Not Found", "Its source: 404 Not Found"),
        ("no index for /srv/a.mp4", "What it plays is not there or cannot be read"),
    ],
)
def test_what_is_wrong_there_is_told(text: str, told: str) -> None:
    assert refusal_text(NotFound(text), "x") == told


def test_an_error_without_words() -> None:
    assert refusal_text(MistError(), "Publishing failed") == "Publishing failed"
