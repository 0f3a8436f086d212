"""RTMP pushes to servers that ask for user and password, which ffmpeg answers as well, or to connect elsewhere."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from tests.integration.conftest import Publish
from tests.support.adobe_server import AdobeServer, adobe_server
from tests.support.media import BFRAMES, Sample
from tests.support.processes import wait_until
from tests.support.server import MistServer
from tests.support.tools import find_tool

pytestmark = pytest.mark.tools("ffmpeg")
FILM = Sample("pushed", BFRAMES)


@pytest.fixture(scope="module")
def server() -> Iterator[MistServer]:
    with MistServer(streams={"film": {"source": str(FILM.flv())}, "live": {"source": "push://127.0.0.1"}}) as started:
        yield started


@pytest.fixture
def there() -> Iterator[AdobeServer]:
    with adobe_server() as started:
        yield started


def test_the_server_asks_as_ffmpeg_knows_it(there: AdobeServer) -> None:
    target = f"rtmp://operator:secret%20word@127.0.0.1:{there.port}/live/key"
    command = ["-v", "error", "-i", str(FILM.flv()), "-c", "copy", "-f", "flv", target.replace("%20", " ")]
    subprocess.run([find_tool("ffmpeg"), *command], check=False, timeout=60)
    assert there.media > 100


@pytest.mark.parametrize("app", ["live", "live/_definst_"])
def test_a_push_answers(server: MistServer, there: AdobeServer, app: str) -> None:
    server.api({"push_start": ["film", f"rtmp://operator:secret%20word@127.0.0.1:{there.port}/{app}/key?rate=0"]})
    wait_until(lambda: there.media > 100, 20, "media")
    wait_until(lambda: not server.api({"push_list": 1})["push_list"], 30, "the end of the push")
    assert [name.partition("?")[0] for name in there.applications] == [app] * 3
    assert "response=" in there.applications[-1]


@pytest.mark.parametrize(
    ("login", "says"),
    [
        ("operator:wrong@", "the server refuses operator: the password is wrong"),
        ("nobody:wrong@", "the server refuses nobody: it does not know the user"),
        ("", "code=403 need auth; authmod=adobe"),
    ],
)
def test_what_is_wrong_is_told(server: MistServer, there: AdobeServer, login: str, says: str) -> None:
    server.api({"push_start": ["film", f"rtmp://{login}127.0.0.1:{there.port}/live/key"]})
    server.wait_log(says, 15)
    wait_until(lambda: not server.api({"push_list": 1})["push_list"], 15, "the end of the push")
    assert not there.media
    assert not [line for line in server.log if "wrong@" in line]


@pytest.mark.parametrize("stream", ["film", "live"])
def test_a_server_that_is_going_away_is_left(
    server: MistServer, there: AdobeServer, publish: Publish, stream: str
) -> None:
    """Media goes on at the server that it names, which asks who we are; it is not told elsewhere what the first one was told."""
    publisher = publish(server, FILM, loop=True) if stream == "live" else None
    if publisher is not None:
        server.wait_tracks(2)
    with adobe_server(open_to_all=True, moves_to=f"rtmp://127.0.0.1:{there.port}/other") as first:
        server.api({"push_start": [stream, f"rtmp://operator:secret%20word@127.0.0.1:{first.port}/live/key"]})
        wait_until(lambda: there.media > 100, 30, "media at the other server")
        assert first.applications == ["live"]
        assert there.applications[-1].startswith("other?authmod=adobe&user=operator&challenge=")
    server.api({"push_stop": [row[0] for row in server.api({"push_list": 1})["push_list"] or []]})
    if publisher is not None:
        publisher.stop()
    wait_until(lambda: not server.api({"push_list": 1})["push_list"], 15, "the end of the push")
