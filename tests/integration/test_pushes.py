"""Pushes and recordings of a running server, as the control API starts, shows and ends them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from mist.formats.m3u8 import MediaPlaylist, parse_playlist
from tests.integration.conftest import MakeServer, Publish
from tests.support.format_matrix import convert_file
from tests.support.media import BFRAMES, Sample
from tests.support.packets import compare, read_media
from tests.support.processes import wait_until
from tests.support.put_sink import PutSink
from tests.support.server import MistServer

MILLISECOND_US = 1001
PLAYED = Sample("pushed", BFRAMES)
STREAMS = {
    "live": {"source": "push://127.0.0.1", "inputtimeout": 4},
    "copy": {"source": "push://127.0.0.1", "inputtimeout": 4},
}


@pytest.fixture
def server(make_server: MakeServer) -> MistServer:
    return make_server(streams=STREAMS)


def pushes(server: MistServer) -> list[list[Any]]:
    return server.api({"push_list": 1})["push_list"] or []


def test_pushes_to_a_server_and_to_a_file(server: MistServer, publish: Publish, tmp_path: Path) -> None:
    """What arrives elsewhere and in files is what was published."""
    publisher = publish(server, PLAYED)
    server.wait_tracks(2)
    there, file = f"{server.rtmp_url}/live/copy", str(tmp_path / "$stream.mkv")
    cut = str(tmp_path / "cut-$segmentCounter.dtsc?split=2&m3u8=list.m3u8&start=1")
    server.api({"push_start": {"stream": "live", "target": there}})
    server.api({"push_start": ["live", file]})
    rows = wait_until(lambda: len(found := pushes(server)) == 2 and found, 5, "two pushes")
    assert [row[1:4] for row in rows] == [["live", there, there], ["live", file, str(tmp_path / "live.mkv")]]
    server.api({"push_start": ["live", file]})  # runs already
    server.api({"push_start": ["live", cut]})
    server.wait_tracks(2, "copy")
    copied = str(tmp_path / "copied.mkv")
    server.api({"push_start": ["copy", copied]})
    publisher.wait(30)
    wait_until(lambda: not pushes(server), 20, "the end of the pushes")
    source = read_media(PLAYED.flv())
    listed = parse_playlist((tmp_path / "list.m3u8").read_bytes())
    assert isinstance(listed, MediaPlaylist)
    assert len(listed.segments) > 1
    joined = tmp_path / "joined.dtsc"
    joined.write_bytes(b"".join((tmp_path / one.uri).read_bytes() for one in listed.segments))
    convert_file(joined, "dtsc", tmp_path / "joined.mkv", "mkv")
    for name in ("live.mkv", "copied.mkv", "joined.mkv"):
        missing = compare(source, read_media(tmp_path / name), tolerance_us=MILLISECOND_US)
        assert {after for _, after in missing.values()} == {0}, name


def test_a_refused_push_says_why(server: MistServer, publish: Publish) -> None:
    publish(server, PLAYED, loop=True)
    server.wait_tracks(2)
    server.api({"push_start": {"stream": "live", "target": f"{server.rtmp_url}/live/nothing"}})
    server.wait_log("There is no stream nothing", 10)
    server.api({"push_start": {"stream": "live", "target": "foo://bar"}})
    server.wait_log("No output pushes to foo://bar", 10)


def test_rules_start_pushes_and_variables_end_them(server: MistServer, publish: Publish, tmp_path: Path) -> None:
    """A target, and what a rule compares with, may name variables that name others; the innermost is what a command wrote."""
    server.api({"variable_add": {"name": "letter", "target": "echo a", "interval": 60}})
    server.api({"variable_add": {"name": "file", "value": "${letter}.$kind"}})
    server.api({"variable_add": {"name": "kind", "value": "ts"}})
    server.api({"variable_add": {"name": "elsewhere", "value": "other"}})
    wait_until(lambda: server.api({"variable_list": 1})["variable_list"]["letter"].get("value") == "a", 20, "its value")
    rule = {"stream": "live", "target": str(tmp_path / "$file"), "end_rule": ["stream", 2, "$elsewhere"]}
    server.api({"push_auto_add": {"one": rule}})
    publish(server, PLAYED, loop=True)
    [row] = wait_until(lambda: pushes(server), 20, "the push of the rule")
    assert row[3] == str(tmp_path / "a.ts")
    server.api({"push_auto_add": {"one": {**rule, "end_rule": ["stream", 2, "live"]}}})
    wait_until(lambda: not pushes(server), 10, "the end of the push")
    assert (tmp_path / "a.ts").stat().st_size > 0


def test_a_calendar_with_a_switch(server: MistServer, publish: Publish, tmp_path: Path) -> None:
    """A push is scheduled; while it may run, a value that a URL gives switches it on and off."""
    publish(server, PLAYED, loop=True)
    server.wait_tracks(2)
    begins = int(time.time()) + 3
    rule = {
        "stream": "live",
        "target": str(tmp_path / "$datetime.ts"),
        "scheduletime": begins,
        "completetime": begins + 600,
        "start_rule": ["air", 2, "on"],
        "end_rule": ["off", 0, ""],
    }

    def looked_up(name: str) -> int:
        return int(server.api({"variable_list": 1})["variable_list"][name].get("lastunix", 0))

    with PutSink() as values:
        values.files |= {"/air": b"on", "/off": b"0"}
        url = f"http://127.0.0.1:{values.port}"
        for name in ("air", "off"):
            server.api({"variable_add": {"name": name, "target": f"{url}/{name}", "interval": 0.5, "waitTime": 20}})
        server.api({"push_settings": {"wait": 1}, "push_auto_add": {"show": rule}})
        wait_until(lambda: looked_up("air") or pushes(server), 40, "the first value")
        assert not pushes(server), "it is not time yet"
        [first] = wait_until(lambda: pushes(server), 40, "the push")
        assert time.time() >= begins
        values.files["/air"] = b"off"
        wait_until(lambda: not pushes(server), 40, "the end that the variable brought")
        values.files["/air"] = b"on"
        [second] = wait_until(lambda: pushes(server), 40, "the next push")
        assert second[0] > first[0]
        values.files["/off"] = b"1"
        wait_until(lambda: not pushes(server), 40, "the end that the rule of the end brought")
        values.files["/off"] = b"0"
        wait_until(lambda: pushes(server), 40, "the third push")
        server.api({"push_auto_add": {"show": {**rule, "completetime": int(time.time())}}})
        wait_until(lambda: not pushes(server), 40, "the end of the calendar's entry")
        assert server.api({"push_auto_list": 1})["auto_push"] is None
