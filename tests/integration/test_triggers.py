"""Triggers in a whole server: what is fired, in which order, and what the answers do."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.flv_files import flv_file, interleaved
from tests.support.live import viewer as rtmp_viewer
from tests.support.processes import wait_until
from tests.support.server import MistServer
from tests.support.tools import Running, find_tool
from tests.support.trigger_service import Service

WHAT = "the trigger was fired"


@pytest.fixture(scope="module")
def server(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MistServer]:
    script: Path = tmp_path_factory.mktemp("handlers") / "deny"
    script.write_text("#!/bin/sh\ncat > /dev/null\necho false\n")
    script.chmod(0o755)
    triggers = service.handlers()
    triggers["CONN_PLAY"] += [{"handler": str(script), "sync": True, "streams": ["secret"]}]
    push = {"source": "push://127.0.0.1", "inputtimeout": 1, "segmentsize": 500}
    streams = {"live": push, "secret": push, "other": push, "denied": push, "test": {"source": "demo:"}}
    with MistServer(config={"triggers": triggers}, streams=streams) as started:
        yield started


def publish(server: MistServer, name: str, seconds: int) -> Running:
    picture = ["-re", "-f", "lavfi", "-i", "testsrc=s=64x64:r=25", "-f", "lavfi", "-i", "sine", "-t", str(seconds)]
    codecs = ["-c:v", "libx264", "-g", "12", "-c:a", "aac", "-f", "flv"]
    command = [find_tool("ffmpeg"), "-loglevel", "error", *picture, *codecs, server.publish_url(name)]
    return Running(command, server.folder / "publisher.log")


def in_order(names: list[str], *wanted: str) -> bool:
    """Tell whether these triggers were fired one after another, whatever came between."""
    rest = iter(names)
    return all(name in rest for name in wanted)


def play(url: str) -> int:
    """Return the status of a request, and read a little of what it gives."""
    try:
        with urllib.request.urlopen(url, timeout=20) as response:
            response.read(1000)
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_a_publisher_and_a_viewer_fire_their_triggers_in_order(server: MistServer, service: Service) -> None:
    start = len(service.events)
    publisher = publish(server, "live", 12)
    try:
        wait_until(lambda: service.has("LIVE_TRACK_LIST", "live"), 20, WHAT)
        began = len(service.events)
        assert play(server.play_url("flv")) == 200
        wait_until(lambda: service.has("CONN_CLOSE", "live", "127.0.0.1", "FLV"), 20, WHAT)
        wait_until(lambda: service.has("STREAM_BUFFER", "live", "FULL"), 20, WHAT)
        viewer = [name for name, _ in service.events[began:]]
        began = len(service.events)
        with rtmp_viewer(server):
            wait_until(lambda: service.has("CONN_PLAY", "live", "127.0.0.1", "RTMP"), 20, WHAT)
        rtmp = [name for name, _ in service.events[began:]]
    finally:
        publisher.stop()
    assert in_order(
        service.names(start),
        "CONN_OPEN", "RTMP_PUSH_REWRITE", "PUSH_REWRITE", "STREAM_LOAD", "STREAM_SOURCE", "STREAM_READY", "STREAM_PUSH",
        "LIVE_TRACK_LIST", "STREAM_BUFFER",
    )  # fmt: skip
    assert in_order(viewer, "CONN_OPEN", "CONN_OPEN", "PLAY_REWRITE", "USER_NEW", "CONN_PLAY", "CONN_CLOSE")
    assert in_order(rtmp, "CONN_OPEN", "PLAY_REWRITE", "USER_NEW", "CONN_PLAY")
    wait_until(lambda: service.has("CONN_CLOSE", "live", "127.0.0.1", "RTMP"), 20, WHAT)
    wait_until(lambda: service.has("STREAM_UNLOAD", "live", "Buffer"), 20, WHAT)
    wait_until(lambda: service.has("LIVE_TRACK_LIST", "live", "", ""), 20, WHAT)


def test_a_handler_refuses_and_renames(server: MistServer, service: Service) -> None:
    service.answers[("STREAM_LOAD", "denied")] = "no"
    service.answers[("PLAY_REWRITE", "wish")] = "test"
    service.answers[("PUSH_REWRITE", "nobody")] = ""
    assert play(server.play_url("flv", "denied")) in (403, 404)
    assert play(server.play_url("flv", "wish")) == 200
    for name in ("denied", "nobody"):
        publisher = publish(server, name, 5)
        assert publisher.wait(20) != 0
    assert not service.has("STREAM_PUSH", "denied")


def test_a_program_refuses_viewers_of_one_stream(server: MistServer, service: Service) -> None:
    publisher = publish(server, "secret", 12)
    try:
        wait_until(lambda: service.has("LIVE_TRACK_LIST", "secret"), 20, WHAT)
        assert play(server.play_url("flv", "secret")) == 403
    finally:
        publisher.stop()


def test_changes_of_streams_and_statistics(server: MistServer, service: Service) -> None:
    service.answers[("STREAM_ADD", "unwanted")] = "false"
    server.api({"addstream": {"unwanted": {"source": "push://"}, "wanted": {"source": "push://"}}})
    reply = server.api({"streams": True, "trigger_stats": True, "capabilities": True})
    assert "wanted" in reply["streams"] and "unwanted" not in reply["streams"]
    assert reply["trigger_stats"]["STREAM_ADD"]["count"] == 2
    assert reply["capabilities"]["triggers"]["STREAM_ADD"]["response"] == "when-blocking"
    assert service.has("SYSTEM_START") and service.has("OUTPUT_START")
    tested = server.api({"trigger_test": {"name": "PLAY_REWRITE", "stream": "live"}})["trigger_test"]
    assert [(one["answer"], one["error"]) for one in tested] == [("live", "")]


def test_a_file_has_no_live_buffer(server: MistServer, service: Service) -> None:
    """What is only told of live streams is not told of files; the end is told in words."""
    file = server.folder / "film.flv"
    file.write_bytes(flv_file(interleaved(2)))
    server.api({"addstream": {"film": {"source": str(file), "inputtimeout": 1}}})
    assert play(server.play_url("flv", "film")) == 200
    wait_until(lambda: service.has("STREAM_UNLOAD", "film", "FLV", "cancelablenobody uses the stream"), 20, WHAT)
    told = {name for name, lines in service.events if lines[0] == "film"}
    assert "STREAM_READY" in told and not told & {"LIVE_TRACK_LIST", "LIVE_BANDWIDTH", "STREAM_BUFFER"}


def test_a_variable_is_run_at_once_and_used_as_a_source(server: MistServer, service: Service) -> None:
    server.api({"variable_add": {"name": "kind", "target": "echo demo", "interval": 60}})
    wait_until(lambda: _value(server, "kind") == "demo", 20, WHAT)
    server.api({"addstream": {"made": {"source": "${kind}:"}}})
    assert play(server.play_url("flv", "made")) == 200
    slow = {"name": "slow", "target": "sleep 30", "interval": 60}
    began = time.monotonic()
    server.api({"variable_add": slow})
    server.api({"variable_remove": "slow"})
    assert time.monotonic() - began < 30  # nobody waited for it


def test_settings_of_handlers_have_variables(server: MistServer, service: Service) -> None:
    """Those of others, the values of which are known at once, too: what is fired goes where they say."""
    server.api({"variable_add": {"name": "where", "value": "${host}:$port/"}})
    server.api({"variable_add": {"name": "host", "target": "echo 127.0.0.1", "interval": 60}})
    server.api({"variable_add": {"name": "port", "value": service.url.rpartition(":")[2].strip("/")}})
    server.api({"variable_add": {"name": "spare", "value": "test"}})
    wait_until(lambda: _value(server, "host") == "127.0.0.1", 20, WHAT)
    former = server.api({"config": True})["config"]["triggers"]
    gone = {"handler": "/nowhere/$host", "sync": True, "default": "$spare"}
    wanted = {**former, "CONN_OPEN": [{"handler": "http://$where", "sync": True}], "PLAY_REWRITE": [gone]}
    server.api({"config": {"triggers": wanted}})
    told = service.count("CONN_OPEN", "wish")
    assert play(server.play_url("flv", "wish")) == 200  # the default of a handler that is not there
    assert service.count("CONN_OPEN", "wish") == told + 1
    server.api({"config": {"triggers": former}})


def _value(server: MistServer, name: str) -> str:
    listed = server.api({"variable_list": True})["variable_list"] or {}
    return str(listed.get(name, {}).get("value", ""))


def test_filters_know_tags_that_were_given_at_run_time(server: MistServer, service: Service) -> None:
    former = server.api({"config": True})["config"]["triggers"]
    refusing = {"handler": "/bin/false", "sync": True, "streams": ["#closed"]}
    server.api({"config": {"triggers": {**former, "CONN_PLAY": [refusing]}}})
    assert play(server.play_url("flv", "test")) == 200
    server.api({"tag_stream": {"test": "closed"}})
    wait_until(lambda: play(server.play_url("flv", "test")) == 403, 20, "the stream is closed by its tag")
    server.api({"untag_stream": {"test": "closed"}})
    wait_until(lambda: play(server.play_url("flv", "test")) == 200, 20, "the stream is open again")
    server.api({"config": {"triggers": former}})


def test_pushes_are_asked_about_like_viewers(server: MistServer, service: Service) -> None:
    """With neither address nor URL: what they send may be another stream, or nothing."""
    service.answers["PLAY_REWRITE", "wanted"] = "test"
    service.answers["PLAY_REWRITE", "kept"] = ""
    server.api({"push_start": ["wanted", str(server.folder / "recorded.flv")]})
    wait_until(lambda: service.has("CONN_PLAY", "test", "", "FLV", ""), 20, WHAT)
    assert service.has("PLAY_REWRITE", "wanted", "", "FLV", "")
    server.api({"push_start": ["kept", str(server.folder / "empty.flv")]})
    wait_until(lambda: service.has("PUSH_END", *_push_end(service, "kept")), 20, WHAT)
    assert not (server.folder / "empty.flv").exists()
    server.api({"push_stop": "wanted"})
    wait_until(lambda: service.has("RECORDING_END", "wanted", str(server.folder / "recorded.flv"), "FLV"), 20, WHAT)


def _push_end(service: Service, stream: str) -> list[str]:
    return next((lines for name, lines in service.events if name == "PUSH_END" and lines[1] == stream), ["none"])


def test_handlers_know_what_the_server_is_called_now(server: MistServer, service: Service) -> None:
    config = server.api({"config": {"serverid": "studio"}})["config"]
    told = len(service.events)
    assert play(server.play_url("flv", "test")) == 200
    headers = service.headers[told]
    assert (headers["X-Name"], headers["X-Instance"]) == ("studio", config["iid"])


def test_playlists_have_custom_variables(server: MistServer, service: Service) -> None:
    (server.folder / "part.flv").write_bytes(flv_file(interleaved(2)))
    (server.folder / "list.pls").write_text("${which}.flv\n")
    server.api({"variable_add": {"name": "which", "value": "part"}})
    server.api({"addstream": {"listed": {"source": str(server.folder / "list.pls")}}})
    assert play(server.play_url("flv", "listed")) == 200
