"""Every API call as a request and the reply to it (tests/data/api/pairs.json)."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest

from mist.controller.access import Origin
from mist.controller.accounts import permissions
from mist.controller.api import Api, ApiConnection
from mist.controller.calls import CALLS
from mist.controller.declaration import Call, adapter
from mist.controller.permissions import Caller
from mist.controller.state import MANY
from mist.core.packet import Packet
from mist.formats.json_text import dumps
from mist.formats.tracks import AAC, AUDIO, H264, VIDEO, TrackInfo
from tests.support.fake_control import ControllerUnderTest, make_controller
from tests.support.fake_stream import FakeStream

PAIRS: list[dict[str, Any]] = json.loads((Path(__file__).parents[2] / "data/api/pairs.json").read_text())
PLACEHOLDERS = {"<object>": dict, "<list>": list, "<text>": str, "<int>": int, "<number>": (int, float)}
REMOTE, HERE = "203.0.113.9", "127.0.0.1"
LOCAL = Origin(HERE, local=True)


def differences(expected: Any, found: Any, path: str = "reply") -> list[str]:
    """Return where a reply is not as recorded. "<int>" and the like stand for any value; "..." allows more members."""
    if isinstance(expected, str) and expected in PLACEHOLDERS:
        return [] if isinstance(found, PLACEHOLDERS[expected]) else [f"{path}: {found!r} is no {expected}"]
    if isinstance(expected, dict) and isinstance(found, dict):
        keys = set(expected) - {"..."}
        more = [] if "..." in expected else [f"{path}: {key} is too much" for key in found.keys() - keys]
        missing = [f"{path}: {key} is missing" for key in keys - found.keys()]
        parts = [differences(expected[key], found[key], f"{path}.{key}") for key in keys & found.keys()]
        return [*more, *missing, *(text for part in parts for text in part)]
    if isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        parts = [
            differences(one, two, f"{path}[{n}]") for n, (one, two) in enumerate(zip(expected, found, strict=True))
        ]
        return [text for part in parts for text in part]
    return [] if expected == found else [f"{path}: {found!r} is not {expected!r}"]


def bring_about(control: ControllerUnderTest, before: dict[str, Any]) -> None:
    """Let happen what a recorded pair is asked after: log lines, or seconds with a publisher and a viewer."""
    if "log" in before:
        control.controller.log_ring.add(before["log"])
    if "seconds" not in before:
        return
    video = TrackInfo(VIDEO, H264, b"\1", 1, width=640, height=360, frame_rate_mhz=25_000)
    stream = FakeStream("live", [video, TrackInfo(AUDIO, AAC, b"\x11\x90", 2, sample_rate_hz=48_000, channels=2)])
    for millisecond in range(1000, 2001, 40):
        stream.write(Packet(0, millisecond * 1000, 0, millisecond % 400 == 200, b"frame"))
    for millisecond in range(1000, 2001, 20):
        stream.write(Packet(1, millisecond * 1000, 0, True, b"sound"))
    control.services.streams_by_name["live"] = stream
    publisher = control.services.connect("live", "INPUT:RTMP", "198.51.100.2")
    viewer = control.services.connect("live", "FLV")
    for second in range(before["seconds"]):
        control.services.update(publisher, received=2000)
        control.services.update(viewer, sent=1000, position_us=(second + 1) * 1_000_000)
        control.second()


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair["name"])
def test_pair(pair: dict[str, Any], tmp_path: Path) -> None:
    """The reply is the recorded one, and the log says what was refused."""
    control = make_controller(tmp_path, pair.get("config", {"streams": {"live": {"source": "push://"}}}))
    bring_about(control, pair.get("before", {}))
    control.services.lines.records.clear()
    control.controller.endpoint = ("0.0.0.0", 4242)

    async def ask() -> dict[str, Any]:
        local = "remote" not in pair
        origin = Origin(HERE if local else REMOTE, local=local)
        bearer = None if local else Caller("somebody", REMOTE, permissions(pair["remote"]))
        reply = await Api(control.controller).run(dict(pair["command"]), ApiConnection(), origin, bearer=bearer)
        await asyncio.sleep(0)
        return reply

    reply = asyncio.run(ask())
    expected = pair["reply"]
    if "minimal" in pair["command"]:
        status: dict[str, Any] = {"status": "OK"} if "remote" in pair else {"status": "NOACC"}
        status = pair.get("status", status)
        if "denied" in pair:
            status["denied"] = pair["denied"]
        expected = {"LTS": 1, "authorize": status, **expected}
    assert differences(expected, reply) == []
    problems = [
        record.getMessage() for record in control.services.lines.records if record.levelname in ("ERROR", "WARNING")
    ]
    for text in pair.get("logs", []):
        assert any(text in problem for problem in problems), problems
    assert pair.get("logs") or not [text for text in problems if "replaced by a backup" not in text]


@pytest.mark.parametrize("call", [call for call in CALLS if call.reply], ids=lambda call: call.name)
def test_replies_are_as_declared(call: Call) -> None:
    """What is recorded fits the declarations, requests and replies."""
    for pair in PAIRS:
        command, reply = pair["command"], pair["reply"]
        if call.name not in command or pair.get("logs"):
            continue
        assert call.problem(command[call.name]) == "", pair["name"]
        for name, kind in call.reply.items():
            if (
                name in reply
                and not re.search(r'"(<|\.\.\.)', json.dumps(reply[name]))
                and "streams" not in (name, *command)
            ):
                adapter(kind).validate_python(reply[name], strict=False)


def test_every_call_is_recorded() -> None:
    """Each call of the table appears in at least one pair."""
    recorded = {key for pair in PAIRS for key in pair["command"]}
    assert {call.name for call in CALLS if not call.every or call.name == "log"} - recorded == set()


def test_documents_of_modules_name_their_version_and_prefix(tmp_path: Path) -> None:
    """Clients look for `flv:PATH` in `push_urls`, and for what an input is called in `source_match`."""
    control = make_controller(tmp_path, {})
    capabilities: dict[str, Any] = {
        "connectors": {"FLV": {"name": "FLV", "push_urls": ["/*.flv"]}, "HTTP": {"name": "HTTP"}},
        "inputs": {"MP4": {"name": "MP4", "source_match": ["/*.mp4"]}},
    }
    control.services.capabilities = capabilities
    reply = asyncio.run(Api(control.controller).run({"capabilities": 1, "version": 1}, ApiConnection(), LOCAL))
    version = reply["version"]["version"]
    assert reply["capabilities"]["connectors"] == {
        "FLV": {"name": "FLV", "push_urls": ["/*.flv", "flv:*"], "version": version},
        "HTTP": {"name": "HTTP", "version": version},
    }
    assert reply["capabilities"]["inputs"]["MP4"]["source_match"] == ["/*.mp4", "mp4:*"]


def test_reports_of_triggers_are_counted(tmp_path: Path) -> None:
    control = make_controller(tmp_path, {})

    async def ask(**command: Any) -> dict[str, Any]:
        return await Api(control.controller).run(command, ApiConnection(), LOCAL)

    asyncio.run(ask(trigger_stat={"name": "USER_NEW", "ms": 12, "ok": True}))
    asyncio.run(ask(trigger_fail="USER_NEW"))
    reply = asyncio.run(ask(trigger_stats=1))
    assert reply["trigger_stats"] == {"USER_NEW": {"count": 1, "ms": 12, "fails": 1}}


def test_an_empty_list_of_exceptions_stays_empty(tmp_path: Path) -> None:
    """Also in the file: then the traffic of every address is counted."""
    control = make_controller(tmp_path, {"bandwidth": {"exceptions": ["192.0.2.0/24"]}})
    command = {"bandwidth": {"exceptions": []}, "save": 1}
    asyncio.run(Api(control.controller).run(command, ApiConnection(), LOCAL))
    assert control.services.published[-1]["bandwidth"]["exceptions"] == []
    again = make_controller(tmp_path)
    assert again.services.published[-1]["bandwidth"]["exceptions"] == []


def test_many_streams(tmp_path: Path) -> None:
    """What is made elsewhere for a large configuration is what is made here for a small one."""
    streams = {f"s{number}": {"source": "push://é", "tags": ["a"]} for number in range(MANY + 5)}
    control = make_controller(tmp_path, {"streams": streams, "tags": ["one"]})
    api = Api(control.controller)

    async def ask(**command: Any) -> Any:
        return json.loads(dumps(await api.run({"minimal": 1, **command}, ApiConnection(), LOCAL)))

    async def act() -> None:
        reply = await ask(streams=1, config_backup=1)
        assert reply["config_backup"] == {
            "streams": streams,
            "tags": ["one"],
            "config": reply["config_backup"]["config"],
        }
        assert reply["streams"]["s7"] == {"name": "s7", "online": 0, **streams["s7"]}
        assert list(reply["streams"]) == sorted(streams)
        more = {f"n{number}": {"source": "push://"} for number in range(MANY + 5)}
        reply = await ask(
            addstream={**more, "Bad": {"source": "push://"}, "worse": {"source": "push://", "DVR": "long"}}
        )
        assert reply["streams"].keys() == {"incomplete list", *more}
        backup = {"streams": {**streams, "s3": {"source": "push://b"}}, "tags": ["two"]}
        before = control.controller.store.streams["s4"]
        assert "streams" not in await ask(config_restore=backup)
        store = control.controller.store
        assert store.streams.keys() == streams.keys()
        assert store.streams["s3"]["source"] == "push://b"
        assert store.streams["s4"] is before
        assert control.services.published[-1]["tags"] == ["two"]
        await ask(config_restore={"streams": {"s1": {"source": "push://", "DVR": "long"}}})
        assert store.streams.keys() == streams.keys()

    asyncio.run(act())
    assert any("streams.s1.DVR" in line for line in control.services.lines.texts())


def test_others_get_their_turn_while_many_streams_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What they change meanwhile is not in it."""
    streams = {f"s{number}": {"source": "push://"} for number in range(MANY + 5)}
    control = make_controller(tmp_path, {"streams": streams})
    monkeypatch.setattr("mist.controller.turns.PIECE_SECONDS", 0.0)
    turns: list[float] = []

    async def others(done: asyncio.Event) -> None:
        while not done.is_set():
            turns.append(0)
            control.controller.store.streams.pop(f"s{len(turns)}", None)
            await asyncio.sleep(0)

    async def act(**command: Any) -> dict[str, Any]:
        turns.clear()
        done = asyncio.Event()
        other = asyncio.create_task(others(done))
        reply = await Api(control.controller).run({"minimal": 1, **command}, ApiConnection(), LOCAL)
        done.set()
        await other
        return json.loads(dumps(reply))  # type: ignore[no-any-return]

    shown = asyncio.run(act(streams=1))["streams"]
    assert shown.keys() == streams.keys()
    assert len(turns) >= len(streams)
    left = dict(control.controller.store.streams)
    assert len(left) <= MANY  # few: nobody needs a turn
    assert asyncio.run(act(config_backup=1))["config_backup"]["streams"].keys() == left.keys()
    assert len(turns) <= 2


def test_backup_without_streams_says_so(tmp_path: Path) -> None:
    """Else what is restored later would keep those that there are then."""
    control = make_controller(tmp_path, {"streams": {"error": {"source": "push://"}}})
    api = Api(control.controller)

    async def ask(**command: Any) -> Any:
        return json.loads(dumps(await api.run({"minimal": 1, **command}, ApiConnection(), LOCAL)))

    assert asyncio.run(ask(config_backup=1))["config_backup"]["streams"] == {"error": {"source": "push://"}}
    asyncio.run(ask(deletestream="error"))
    assert asyncio.run(ask(config_backup=1))["config_backup"]["streams"] == {}


def test_a_backup_of_nothing_changes_nothing(tmp_path: Path) -> None:
    """It would open ports that are closed. One that says nothing of accounts would let anybody make the first one."""
    root = {"password": "0" * 32}
    control = make_controller(tmp_path, {"account": {"root": root}, "config": {"serverid": "a"}, "tags": ["a"]})

    async def restore(backup: dict[str, Any]) -> None:
        await Api(control.controller).run({"config_restore": backup}, ApiConnection(), LOCAL)

    async def act() -> None:
        store = control.controller.store
        nothing: tuple[dict[str, Any], ...] = ({}, {"config": None})
        for empty in nothing:
            await restore(empty)
            assert (store.document["config"]["serverid"], store.document["tags"]) == ("a", ["a"])
        await restore({"config": {"serverid": "b"}})
        assert (store.document["config"]["serverid"], store.document["account"]) == ("b", {"root": root})
        await restore({"account": {}, "config": {"serverid": "c"}})
        assert not store.document.get("account")

    asyncio.run(act())
    assert "no backup" in "".join(control.services.lines.texts())


def test_work_behind_calls(tmp_path: Path) -> None:
    """Calls that say nothing in their reply reach the runtime: nuke, shutdown, stop of an always-on stream."""
    control = make_controller(tmp_path, {"streams": {"a": {"source": "push://", "always_on": True}}})
    control.services.streams_by_name["a"] = FakeStream("a")

    async def ask() -> None:
        await Api(control.controller).run(
            {"nuke_stream": "X+y", "shutdown": "bye", "deletestream": "a"}, ApiConnection(), LOCAL
        )
        await asyncio.sleep(0)
        await control.controller.watch.close()

    asyncio.run(ask())
    assert sorted(control.services.done) == [
        ("nuke", "x+y"),
        ("shutdown", "bye"),
        ("stop", "a", "CLEAN_CONTROLLER_REQ"),
    ]
    assert control.services.published[-1]["streams"] == {}


def test_changes_are_published_once(tmp_path: Path) -> None:
    """A command that changes something publishes the snapshot; one that reads does not."""
    control = make_controller(tmp_path, {})
    api = Api(control.controller)
    before = len(control.services.published)
    asyncio.run(api.run({"addstream": {"a": {"source": "push://"}}}, ApiConnection(), LOCAL))
    asyncio.run(api.run({"streams": 1, "addstream": {"a": {"source": "push://"}}}, ApiConnection(), LOCAL))
    assert len(control.services.published) == before + 1
    assert control.services.published[-1]["streams"]["a"]["DVR"] == 50_000


@pytest.mark.parametrize(("call", "given"), [("bandwidth", {"limit": -5}), ("jwks", [1]), ("jwks", [{"kty": "none"}])])
def test_what_is_not_acceptable_is_answered_with_what_holds(call: str, given: Any, tmp_path: Path) -> None:
    """A script that sends a mistake reads the same member of the reply as ever."""
    control = make_controller(tmp_path, {"bandwidth": {"limit": 7, "exceptions": []}})
    reply = asyncio.run(Api(control.controller).run({call: given}, ApiConnection(), LOCAL))
    assert reply[call] == {"bandwidth": {"limit": 7, "exceptions": []}, "jwks": None}[call]
