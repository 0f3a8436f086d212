"""Pushes in the controller: what starts and ends them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mist.controller import accounts
from mist.controller.calls import execute
from mist.controller.gate import Caller
from mist.controller.state import Command
from mist.errors import ConfigError
from mist.stream.push import with_values
from mist.stream.variables import substitute
from tests.support.fake_control import ControllerUnderTest as Control
from tests.support.fake_control import make_controller
from tests.support.fake_stream import FakeStream

TARGET = "/media/$stream.ts"


def run(tmp_path: Path, work: Callable[[Control, Callable[[], Any]], Any], config: dict[str, Any]) -> Control:
    """Run work(control, second) on a loop, in which `live` plays; second() lets one pass."""
    control = make_controller(tmp_path, {"streams": {"live": {"source": "push://"}}, **config})
    control.services.streams_by_name["live"] = FakeStream("live")

    async def all_of_it() -> None:
        async def second() -> None:
            control.second()
            await asyncio.sleep(0)
            await asyncio.sleep(0)

        await work(control, second)

    asyncio.run(all_of_it())
    return control


def pushed(control: Control) -> list[tuple[str, str, str]]:
    return [
        (one["stream"], one["requested"], one["target"]) for one in control.services.pushed if one["result"] is None
    ]


def test_one_push_of_a_kind(tmp_path: Path) -> None:
    async def work(control: Control, second: Any) -> None:
        for _ in range(2):
            control.controller.pushes.start("live", TARGET)
            await second()

    control = run(tmp_path, work, {})
    assert pushed(control) == [("live", TARGET, "/media/live.ts")]
    assert control.services.triggers.fired[0] == ("PUSH_OUT_START", "live", ["live", TARGET])


def test_a_stream_has_one_name(tmp_path: Path) -> None:
    """However a client writes it, for handlers, for the push that runs already and for who stops it."""

    async def work(control: Control, second: Any) -> None:
        for name in ("LIVE", "live?x=1", "Live One", "live+One"):
            control.controller.pushes.start(name, TARGET)
            await second()
        assert [one[0] for one in pushed(control)] == ["live", "live+One"]
        assert {fired[1] for fired in control.services.triggers.fired} == {"live", "live+One"}
        control.controller.pushes.stop_streams("LIVE One")
        control.controller.pushes.stop_streams("???")
        await second()

    assert [one[0] for one in pushed(run(tmp_path, work, {}))] == ["live"]


def test_a_handler_changes_or_stops_a_push(tmp_path: Path) -> None:
    async def work(control: Control, second: Any) -> None:
        control.services.triggers.values["PUSH_OUT_START"] = "/other/$basename.ts"
        control.controller.pushes.start("live", TARGET)
        await second()
        control.services.triggers.values["PUSH_OUT_START"] = ""
        control.controller.pushes.start("live", "/third.ts")
        await second()

    assert pushed(run(tmp_path, work, {})) == [("live", TARGET, "/other/live.ts")]


@pytest.mark.parametrize("pattern", ["live", "live+"])
def test_a_push_is_stopped_while_a_handler_is_asked_about_it(tmp_path: Path, pattern: str) -> None:
    stream = "live+one" if pattern == "live+" else "live"

    async def work(control: Control, second: Any) -> None:
        control.controller.pushes.start(stream, TARGET)
        control.controller.pushes.stop_streams(pattern)
        await second()

    assert not run(tmp_path, work, {}).services.pushed


def test_a_push_that_the_main_process_has_not_told_of_yet_is_known(tmp_path: Path) -> None:
    """It does not begin twice, is listed, and is stopped."""

    async def work(control: Control, second: Any) -> None:
        control.services.told = 0
        control.controller.pushes.start("live", TARGET)
        await second()
        control.controller.pushes.start("live", TARGET)
        await second()
        assert [row[:4] for row in control.controller.pushes.shown() or []] == [[1, "live", TARGET, "/media/live.ts"]]
        control.controller.pushes.stop_streams("live")
        await second()
        control.services.told = None
        assert control.controller.pushes.shown() is None

    control = run(tmp_path, work, {})
    assert [one["result"] for one in control.services.pushed] == [{}]


def test_a_push_is_listed_with_what_there_is(tmp_path: Path) -> None:
    """Four elements at first; its lines of the log when it said something, its status when it told one."""

    async def work(control: Control, second: Any) -> None:
        control.controller.pushes.start("live", TARGET)
        await second()
        control.controller.log_ring.add([1, "INFO", "hello", "live", 12, "push 1", "a.py:3"])
        assert [len(row) for row in control.controller.pushes.shown() or []] == [5]

    run(tmp_path, work, {})


def test_a_rule_starts_at_once_and_again_after_a_while(tmp_path: Path) -> None:
    async def work(control: Control, second: Any) -> None:
        await second()
        assert len(pushed(control)) == 1
        await control.services.stop_push(1)
        await second()
        await second()
        assert not pushed(control)
        await second()
        assert len(pushed(control)) == 1

    control = run(tmp_path, work, {"auto_push": {"a": {"stream": "live", "target": TARGET}}})
    ended = [fired for fired in control.services.triggers.fired if fired[0] == "PUSH_END"]
    assert ended == [("PUSH_END", "live", ["1", "live", TARGET, "/media/live.ts", "", ""])]


def test_without_a_wait_nothing_is_started_again(tmp_path: Path) -> None:
    async def work(control: Control, second: Any) -> None:
        await second()
        await control.services.stop_push(1)
        for _ in range(5):
            await second()
        assert not pushed(control)

    run(tmp_path, work, {"auto_push": {"a": {"stream": "live", "target": TARGET}}, "push_settings": {"wait": 0}})


def test_a_variable_switches_a_push_on_and_off(tmp_path: Path) -> None:
    async def work(control: Control, second: Any) -> None:
        variables = control.controller.store.part("variables", {})
        for value, running in (("0", 0), ("1", 1), ("0", 0)):
            variables["air"] = {"value": value}
            for _ in range(4):
                await second()
            assert len(pushed(control)) == running, value

    rule = {"stream": "live", "target": TARGET, "start_rule": ["air", 0, ""]}
    run(tmp_path, work, {"auto_push": {"a": rule}})


def test_rules_that_are_over_go(tmp_path: Path) -> None:
    async def work(control: Control, second: Any) -> None:
        now = int(control.controller.clock())
        rules = control.controller.store.part("auto_push", {})
        rules["short"] = {"stream": "live", "target": TARGET, "completetime": now + 3}
        rules["once"] = {"stream": "live", "target": "/once.ts", "scheduletime": now + 2}
        for _ in range(8):
            await second()
        assert not control.controller.store.document.get("auto_push")
        assert [target for _, target, _ in pushed(control)] == ["/once.ts"]

    run(tmp_path, work, {})


def test_bounds_of_starts_and_inhibited_streams(tmp_path: Path) -> None:
    async def work(control: Control, second: Any) -> None:
        for name in ("live+a", "live+b", "live+c"):
            control.services.streams_by_name[name] = FakeStream(name)
        await second()
        assert len(pushed(control)) == 1
        for _ in range(9):
            await second()
        assert sorted(stream for stream, _, _ in pushed(control)) == ["live+a", "live+c"]

    rule = {"stream": "live+", "target": TARGET, "inhibit": "live+b"}
    run(tmp_path, work, {"auto_push": {"a": rule}, "push_settings": {"wait": 1, "maxspeed": 1}})


def test_what_was_waited_is_forgotten_with_its_rule(tmp_path: Path) -> None:
    """Rules without names of their own are as many as their targets were."""

    async def work(control: Control, second: Any) -> None:
        rules = control.controller.store.document["auto_push"]
        pushes = control.controller.pushes
        await second()
        await control.services.stop_push(1)
        for number in range(3):
            rules.clear()
            rules[f"r{number}"] = {"stream": "live", "target": f"/{number}.ts", "end_rule": ["off", 0, ""]}
            rules["kept"] = {"stream": "live", "target": TARGET}
            await second()
        assert set(pushes._waited) <= {("r2", "live"), ("kept", "live")} and pushes._waited
        rules["r2"]["stream"] = rules["kept"]["stream"] = "another"
        del control.services.streams_by_name["live"]
        await second()
        assert not pushes._waited

    run(tmp_path, work, {"auto_push": {"a": {"stream": "live", "target": TARGET}}, "push_settings": {"wait": 9}})


# -- targets that are programs -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "used"),
    [
        ("/media/$v.ts?split=$v", "/media/a b'; c.ts?split=a b'; c"),
        ("ts-exec:store '--name=$v' $v ${v}x?audio=none", """ts-exec:store '--name=a b'"'"'; c' 'a b'"'"'; c' 'a b'"'"'; cx'?audio=none"""),
        ("HTTPTS:ts-exec:cat", "HTTPTS:ts-exec:cat"),
        ("http://host/a-exec:b.ts", "http://host/a-exec:b.ts"),
    ],
)  # fmt: skip
def test_a_word_of_a_command_stays_one(target: str, used: str) -> None:
    """Names of streams are chosen by publishers: no value of a variable makes other words, or a command."""
    assert with_values(target, lambda text: substitute(text, {"v": "a b'; c"})) == used


@pytest.mark.parametrize("target", ["$v", "HTTPTS:$v", "$v cat", "ts-exec:cat 'x"])
def test_no_variable_makes_a_command(target: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        with_values(target, lambda text: substitute(text, {"v": "ts-exec:cat"}))

    async def work(control: Control, second: Any) -> None:
        control.controller.pushes.start("live", target)
        await second()

    control = run(tmp_path, work, {"variables": {"v": {"value": "ts-exec:cat"}}})
    assert pushed(control) == []
    assert any("was not started" in line for line in control.services.lines.texts())


@pytest.mark.parametrize(("permissions", "may"), [(["pushes"], False), (["pushes", "config"], True)])
def test_who_runs_programs_must_be_one_who_may_configure_the_server(
    permissions: list[str], may: bool, tmp_path: Path
) -> None:
    async def work(control: Control, second: Any) -> None:
        caller = Caller("somebody", "203.0.113.7", accounts.permissions(permissions))
        for call, value in (
            ("push_start", ["live", "mkv-exec:cat"]),
            ("push_start", ["live", "HTTPTS:ts-exec:cat"]),
            ("push_auto_add", ["live", " TS-EXEC:cat"]),
            ("push_start", ["live", "/a.ts"]),
        ):
            command = Command({call: value}, caller)
            await execute(control.controller, command)
            assert command.denied == ([] if may or value[1] == "/a.ts" else [call])
        await second()

    control = run(tmp_path, work, {})
    targets = {target for _, target, _ in pushed(control)}
    assert ("/a.ts" in targets, "mkv-exec:cat" in targets, "HTTPTS:ts-exec:cat" in targets) == (True, may, may)
    assert bool(control.controller.store.document.get("auto_push")) is may
