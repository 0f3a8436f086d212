"""Long commands: others are answered meanwhile, and what they do is what short ones do."""

from __future__ import annotations

import asyncio
import gc
import json
from pathlib import Path
from typing import Any

import pytest

from mist.controller import turns
from mist.controller.access import Origin
from mist.controller.api import Api, ApiConnection
from mist.controller.requests import LARGE_BYTES, Reply, parse_command
from mist.controller.turns import Turns, let_go, short_collections
from mist.formats.json_text import Written
from tests.support.fake_control import ControllerUnderTest, make_controller


def test_others_get_their_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Work that has gone on for long lets what is ready run; work that has not goes straight on."""
    now = 0.0
    monkeypatch.setattr("mist.controller.turns.time.perf_counter", lambda: now)
    ran: list[str] = []

    async def work() -> None:
        nonlocal now
        pause = Turns()
        asyncio.get_running_loop().call_soon(ran.append, "other")
        await pause()
        assert ran == []
        now += turns.PIECE_SECONDS
        await pause()
        assert ran == ["other"]

    asyncio.run(work())


def test_what_survives_a_long_collection_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """And the collector learns that little is left to look at, so that it looks again before that is much."""
    clock = iter([0.0, 1.0, 1.0, 1.0 + turns.LONG_COLLECTION_SECONDS / 2, 2.0, 2.0, 3.0, 3.0])
    frozen: list[bool] = []
    collected: list[str] = []

    async def act() -> None:
        thresholds = gc.get_threshold()
        with short_collections():
            assert gc.get_threshold()[2] < thresholds[2]
            monkeypatch.setattr("mist.controller.turns.time.thread_time", lambda: next(clock))
            monkeypatch.setattr("mist.controller.turns.gc.freeze", lambda: frozen.append(True))
            gc.collect()
            assert frozen == [True]
            gc.callbacks.append(lambda phase, info: collected.append(phase))
            await asyncio.sleep(0)
            assert collected == ["start", "stop"]
            gc.callbacks.pop()
            gc.collect()
        assert frozen == [True]
        assert gc.get_threshold() == thresholds

    was_on = gc.isenabled()
    gc.disable()
    try:
        asyncio.run(act())
        gc.collect()  # nobody looks at the clock any more
    finally:
        if was_on:
            gc.enable()


def test_what_is_let_go_goes_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mist.controller.turns.PIECE_SECONDS", 0.0)

    async def act() -> list[int]:
        held: list[Any] = list(range(250))
        seen: list[int] = []
        task = asyncio.create_task(let_go(held))
        while not task.done():
            seen.append(len(held))
            await asyncio.sleep(0)
        return seen

    assert asyncio.run(act())[:4] == [250, 150, 50, 0]


LONG = "x" * LARGE_BYTES


@pytest.mark.parametrize(
    "value",
    [
        {"addstream": {"a": {"source": LONG, "tags": ["b", {"c": [1, -1.5, True, None]}]}}, "minimal": 1},
        {"config_restore": {"streams": {"a": {"source": LONG}}, "tags": []}, "x": {}},
        [[], {}, [[[[LONG]]]], "a"],
        {LONG: 1},
        LONG,
        {"é\U0001f600\n": LONG, "big": 2**80},
    ],
)
@pytest.mark.parametrize("blanks", [None, 3])
def test_large_command_is_read_as_a_small_one(value: Any, blanks: int | None) -> None:
    """Member by member the same comes out, of text and of bytes in the encodings that JSON may have."""
    text = json.dumps(value, indent=blanks)
    expected = json.loads(text.replace(str(2**80), str(2**63 - 1)))
    assert parse_command(text) == expected
    assert parse_command(f" \n{text}\r\t ".encode("utf-16")) == expected
    assert parse_command(json.dumps(value, ensure_ascii=False).encode()) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"a": {"b": "%s",}, "c": 1}', {"a": {"b": LONG}, "c": 1}),
        ("{'a': \"%s\"}", {"a": LONG}),
        ('{"a": "%s"} and more', {"a": LONG}),
        ('{"a": "%s", b: NaN', None),
        ('{"a": "%s" "b": 2}', {"a": LONG, "b": 2}),
        ("[[%s", None),
        ('"%s', None),
        ("%s", None),
    ],
)
def test_large_text_that_is_no_json(text: str, expected: Any) -> None:
    """It is read as leniently as ever, up to the bound of that."""
    assert parse_command(text % LONG) == expected
    assert parse_command((text % LONG).encode()) == expected


def test_of_equal_names_the_last_counts() -> None:
    assert parse_command(f'{{"a": "{LONG}", "a": 2}}') == {"a": 2}


# -- what such commands do ---------------------------------------------------------------------------------------------


def ask(control: ControllerUnderTest, **command: Any) -> dict[str, Any]:
    """Return the reply to a command of somebody local."""
    origin = Origin("127.0.0.1", local=True)
    return asyncio.run(Api(control.controller).run({"minimal": 1, **command}, ApiConnection(), origin))


def test_sources_are_deleted_once_nobody_has_them(tmp_path: Path) -> None:
    """A file that two streams play goes with the last of them, also within one command."""
    file = tmp_path / "file.mp4"
    file.write_bytes(b"x")
    streams = {name: {"source": str(file)} for name in ("a", "b", "c")}
    control = make_controller(tmp_path, {"streams": streams})
    assert ask(control, deletestreamsource="a")["deletestreamsource"].startswith("-1:")
    assert file.exists()
    told = ask(control, deletestreamsource=["b", "c", "c", "none"])["deletestreamsource"]
    assert [text.partition(":")[0] for text in told] == ["-1", "-2", "0", "0"]
    assert not file.exists()
    assert control.controller.store.streams == {}


def test_deleted_streams_are_told_one_by_one(tmp_path: Path) -> None:
    """Each has its line in the log and those that always ran are stopped; names that are none are passed over."""
    streams = {f"s{number}": {"source": "push://"} for number in range(300)}
    control = make_controller(tmp_path, {"streams": {**streams, "kept": {"source": "push://"}}})
    ask(control, deletestream=[*streams, "none", 5])
    assert list(control.controller.store.streams) == ["kept"]
    assert len([text for text in control.services.lines.texts("CONF") if text.endswith(" was deleted")]) == 300


def test_handlers_are_asked_about_each_stream_that_they_want(tmp_path: Path) -> None:
    """In the order of the command, with what it gives; who is refused stays as it was."""
    handlers = {"STREAM_ADD": [{"handler": "/bin/true", "sync": True}]}
    streams = {
        "old": {"source": "push://"},
        "same": {"source": "push://", "name": "same"},
        "gone": {"source": "push://"},
    }
    control = make_controller(tmp_path, {"config": {"triggers": handlers}, "streams": streams})
    triggers = control.services.triggers
    triggers.refused = {"STREAM_REMOVE"}
    ask(control, streams={"new": {"source": "push://"}, "old": {"source": "push://x"}, "same": {"source": "push://"}})
    assert triggers.fired == [
        ("STREAM_ADD", "new", ["new", '{"source":"push://"}']),
        ("STREAM_CONFIG", "old", ["old", '{"source":"push://x"}']),
        ("STREAM_REMOVE", "gone", ["gone"]),
    ]
    assert list(control.controller.store.streams) == ["old", "same", "gone", "new"]
    triggers.fired.clear()
    triggers.wanted = lambda name, stream="": []  # type: ignore[method-assign]
    ask(control, deletestream=["gone"])
    assert triggers.fired == []
    assert "gone" not in control.controller.store.streams


def test_tags_of_sessions_may_have_spaces(tmp_path: Path) -> None:
    """As a user agent has; not what would end the tag or the line that shows it."""
    control = make_controller(tmp_path, {"streams": {"live": {"source": "push://"}}})
    control.services.connect("live", "FLV")
    control.second(2)
    (session,) = control.controller.statistics.live.values()
    ask(control, tag_sessid={session.id: "UA:Mozilla/5.0 (X11; Linux)"})
    ask(control, tag_sessid={session.id: ["vip", "x]\n[y", "", " ", 5], "none": "z"})
    assert session.tag_text == "[UA:Mozilla/5.0 (X11; Linux)][vip][x y]"
    ask(control, stop_tag="UA:Mozilla/5.0 (X11; Linux)")
    assert [done for done in control.services.done if done[0] == "end"]


def test_rows_of_streams_follow_the_configuration_and_what_goes_on(tmp_path: Path) -> None:
    """In the order of their names; those of streams that nobody uses are made once for a configuration."""
    control = make_controller(
        tmp_path, {"streams": {"live": {"source": "push://", "tags": ["b", "a"]}, "x": {"source": ""}}}
    )
    controller = control.controller
    assert controller.stream_rows() == [["live", 0, 0, 0, 0, "a b"], ["x", 0, 0, 0, 0, ""]]
    assert all(one is other for one, other in zip(controller.stream_rows(), controller.stream_rows(), strict=True))
    control.services.connect("live+1", "INPUT:RTMP")
    control.second(3)
    ask(control, tag_stream={"live+1": "c"}, addstream={"x": {"source": "", "tags": ["new"]}})
    assert controller.stream_rows() == [
        ["live", 0, 0, 0, 0, "a b"],
        ["live+1", 0, 0, 1, 0, "a b c"],
        ["x", 0, 0, 0, 0, "new"],
    ]
    ask(control, deletestream="x")
    assert [row[0] for row in controller.stream_rows()] == ["live", "live+1"]


def test_handlers_are_asked_about_the_streams_of_a_backup(tmp_path: Path) -> None:
    """As about those of `streams`; what is refused stays, the rest is replaced."""
    handlers = {"STREAM_ADD": [{"handler": "/bin/true", "sync": True}]}
    streams = {name: {"source": "push://"} for name in ("old", "same", "gone")}
    control = make_controller(tmp_path, {"config": {"triggers": handlers}, "streams": streams})
    triggers = control.services.triggers
    triggers.refused = {"STREAM_REMOVE", "STREAM_CONFIG"}
    wanted = {"new": {"source": "push://"}, "old": {"source": "push://x"}, "same": {"source": "push://"}}
    ask(control, config_restore={"streams": wanted, "tags": ["b"]})
    assert [(name, stream) for name, stream, _ in triggers.fired] == [
        ("STREAM_ADD", "new"),
        ("STREAM_CONFIG", "old"),
        ("STREAM_REMOVE", "gone"),
    ]
    found = control.controller.store.streams
    assert {name: entry["source"] for name, entry in found.items()} == dict.fromkeys(
        ("new", "old", "same", "gone"), "push://"
    )
    assert control.controller.store.document["tags"] == ["b"]


# -- many streams changed at once --------------------------------------------------------------------------------------


def test_a_variable_that_changes_within_a_change_is_kept(tmp_path: Path) -> None:
    """Others have their turn between the steps of a change; both changes are there then, and were published."""
    control = make_controller(
        tmp_path, {"streams": {"old": {"source": "push://"}}, "variables": {"v": {"value": "before"}}}
    )
    store = control.controller.store

    async def act() -> None:
        store.streams["new"] = {"source": "push://"}
        committing = asyncio.create_task(control.controller.commit_in_turns())
        await asyncio.sleep(0)
        assert "new" not in store.config.entries
        store.set_variable("v", {"value": "after"}, 0.0)
        await committing

    asyncio.run(act())
    assert store.document["variables"]["v"]["value"] == "after"
    assert list(store.document["streams"]) == ["old", "new"]
    shown = control.services.published[-1]
    assert (shown["variables"]["v"]["value"], list(shown["streams"])) == ("after", ["old", "new"])


def test_a_change_is_published_when_who_asked_is_gone(tmp_path: Path) -> None:
    control = make_controller(tmp_path)
    store = control.controller.store

    async def act() -> None:
        store.streams["new"] = {"source": "push://"}
        committing = asyncio.create_task(control.controller.commit_in_turns())
        while "new" not in store.config.entries:
            await asyncio.sleep(0)
        assert "new" not in control.services.published[-1]["streams"]
        committing.cancel()
        await asyncio.wait([committing])

    asyncio.run(act())
    assert "new" in control.services.published[-1]["streams"]


@pytest.mark.parametrize("variables", [{}, {"callback": "show"}])
@pytest.mark.parametrize("many", [False, True])
def test_a_large_reply_is_sent_in_pieces(variables: dict[str, str], many: bool) -> None:
    """With its length ahead; it says what it would say as one."""
    value = {"a": ["é" * 30_000] * (9 if many else 1), "b": Written(['{"c"', ":1}"])}
    sent: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        raise AssertionError("nothing is read")

    asyncio.run(Reply(value, variables, {"Server": "mist"})({"type": "http"}, receive, send))
    begin, *bodies = sent
    headers = dict(begin["headers"])
    body = b"".join(message["body"] for message in bodies)
    assert headers[b"content-length"] == str(len(body)).encode()
    assert headers[b"server"] == b"mist"
    text = body.decode().removeprefix("show(").removesuffix(");\n\n") if variables else body.decode()
    assert json.loads(text) == {**value, "b": {"c": 1}}
    assert (len(bodies) > 5) is many
    assert not bodies[-1].get("more_body")
