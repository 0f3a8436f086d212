"""The figures at the passphrase path, read by the parsers that users have."""

from __future__ import annotations

import asyncio
import json
import subprocess
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from tests.support.api_client import Client, serving
from tests.support.fake_control import ControllerUnderTest, make_controller
from tests.support.fake_stream import FakeStream
from tests.support.tools import find_tool

SECRET = "pass phrase"
PATH = "/pass%20phrase"


def busy(tmp_path: Path) -> ControllerUnderTest:
    """Return a server with two streams, of which one has an awkward name, and sessions of all kinds."""
    control = make_controller(
        tmp_path,
        {
            "streams": {"live": {"source": "push://", "tags": ["replicated"]}},
            "bandwidth": {"limit": 5000, "exceptions": ["192.0.2.0/24"]},
            "config": {
                "prometheus": SECRET,
                "location": {"lat": 52.1, "lon": 4.5, "name": "here"},
                "protocols": [{"connector": "HTTP", "port": 8080}, {"connector": "FLV"}, {"connector": "RTMP"}],
            },
        },
    )
    services = control.services
    services.streams_by_name["live"] = FakeStream("live")
    services.states = {'{"connector":"HTTP","port":8080}': 1}
    services.capabilities["connectors"]["FLV"]["url_rel"] = "/$.flv"
    services.triggers.counts = {"USER_NEW": {"count": 3, "ms": 40, "fails": 1}}
    control.second()
    for stream, connector, host in (
        ("live", "FLV", "203.0.113.7"),
        ("live", "HLS", "203.0.113.8"),
        ("live", "HLS", "192.0.2.9"),
        ("live", "INPUT:RTMP", "203.0.113.1"),
        ('odd"\\name', "OUTPUT:RTMP", "203.0.113.2"),
    ):
        record = services.connect(stream, connector, host)
        control.second()
        services.update(record, sent=1000, received=10, packets=5)
    control.second(2)
    return control


def fetch(control: ControllerUnderTest, *targets: str) -> list[tuple[int, dict[str, str], bytes]]:
    async def act() -> list[tuple[int, dict[str, str], bytes]]:
        found = []
        async with serving(control) as port:
            for target in targets:
                client = await Client.connect(port)
                found.append(await client.request(target, {"X-Real-IP": "198.51.100.1"}))
                await client.close()
        return found

    return asyncio.run(act())


def samples(text: str) -> dict[tuple[str, ...], float]:
    """Return the samples by name and labels; the parser gives some counters the ending `_total`, so none has it here."""
    return {
        (sample.name.removesuffix("_total"), *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_text(tmp_path: Path) -> None:
    status, headers, body = fetch(busy(tmp_path), PATH)[0]
    assert (status, headers["content-type"], headers["connection"]) == (200, "text/plain; version=0.0.4", "close")
    found = samples(body.decode())
    assert found["mist_sessions", "viewers"] == 3
    assert found["mist_sessions", "cached"] == 5
    assert found["mist_sessions_count", "outgoing"] == 1
    assert found["mist_sessions", "incoming", "live"] == 1
    assert found["mist_bw", "up"] == 4000
    assert found["mist_bw_other", "up"] == 1000
    assert found["mist_bw", "up", 'odd"\\name'] == 1000
    assert found["mist_packets", "sent", "live"] == 20
    assert found["mist_bw_limit",] == 5000
    assert found["mist_outputs", "HLS"] == 2
    assert found["mist_trigger_time", "USER_NEW"] == 40
    assert found["mist_viewcount", "live"] == 3
    assert 0 < found["mist_viewseconds", "live"] == found["mist_viewseconds",]
    assert found["mist_mem",] > found["mist_mem_used",] > 0
    types = {family.name: family.type for family in text_string_to_metric_families(body.decode())}
    assert types["mist_cpu"] == types["mist_outputs"] == "gauge"
    check = subprocess.run([find_tool("promtool"), "check", "metrics"], input=body, capture_output=True, timeout=30)
    assert check.returncode in (0, 3), check.stderr  # 3: it would have named some metrics otherwise
    assert b"error while linting" not in check.stderr
    assert b"no help text" not in check.stderr


def test_document(tmp_path: Path) -> None:
    replies = fetch(busy(tmp_path), PATH + ".json", PATH + ".json?callback=got")
    status, headers, body = replies[0]
    assert (status, headers["content-type"], headers["access-control-allow-origin"]) == (200, "text/json", "*")
    found: dict[str, Any] = json.loads(body)
    assert found["curr"] == [3, 1, 1, 0, 5]
    assert found["tot"] == [3, 1, 1, 0]
    assert (found["bw"], found["obw"]) == ([4000, 40], [1000, 10])
    assert found["streams"]["live"]["curr"] == [3, 1, 0, 0]
    assert found["streams"]["live"]["rep"] is True
    assert found["triggers"] == {"USER_NEW": {"count": 3, "ms": 40, "fails": 1}}
    assert found["loc"] == {"lat": 52.1, "lon": 4.5, "name": "here"}
    assert found["outputs"] == {"FLV": "http://HOST:8080/$.flv"}
    assert found["output_counts"] == {"FLV": 1, "HLS": 2}
    assert (found["bwlimit"], found["conf_streams"]) == (5000, ["live"])
    assert replies[1][2].startswith(b"got({")


def test_other_paths(tmp_path: Path) -> None:
    """Only the exact passphrase opens; without one there is no path."""
    for _, headers, body in fetch(busy(tmp_path), "/pass", "/pass%20phrase/x"):
        assert headers["content-type"] != "text/plain; version=0.0.4"
        assert b"mist_cpu" not in body
    closed = make_controller(tmp_path, {"config": {"prometheus": ""}})
    assert all(b"mist_cpu" not in body for _, _, body in fetch(closed, "/", "/.json"))
