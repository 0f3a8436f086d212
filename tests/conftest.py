"""Fixtures for every kind of test."""

from __future__ import annotations

import gc
import itertools
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.tools import REQUIRE, Running, ToolMissing, find_tool

StartProgram = Callable[..., Running]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a program that is not here, unless nothing may be skipped (then the test fails by itself)."""
    for item in items:
        for marker in item.iter_markers("tools"):
            for name in marker.args:
                _need(item, name)
        if item.get_closest_marker("root") and os.getuid() != 0:
            item.add_marker(pytest.mark.skip(reason="needs root"))


def _need(item: pytest.Item, name: str) -> None:
    try:
        find_tool(name)
    except ToolMissing:
        if not os.environ.get(REQUIRE):
            item.add_marker(pytest.mark.skip(reason=f"needs {name}"))


@pytest.fixture
def start_program(tmp_path: Path) -> Iterator[StartProgram]:
    """Start a program in the background; all are killed when the test ends."""
    started: list[Running] = []
    numbers = itertools.count(1)

    def start(command: list[str], *, env: dict[str, str] | None = None, stdin: bool = False) -> Running:
        log = tmp_path / f"{next(numbers)}-{Path(command[0]).name}.log"
        running = Running(command, log, env=env, stdin=stdin)
        started.append(running)
        return running

    yield start
    for running in reversed(started):
        running.kill()


@pytest.fixture
def no_leaks() -> Iterator[None]:
    """Fail a test that leaves sockets, files or descriptors open."""
    before = set(os.listdir("/proc/self/fd"))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ResourceWarning)
        yield
        gc.collect()
    left = {name: _target(name) for name in set(os.listdir("/proc/self/fd")) - before}
    left = {name: target for name, target in left.items() if target and not target.startswith("/proc/")}
    assert not left, f"descriptors left open: {left}"
    assert not [one for one in caught if issubclass(one.category, ResourceWarning)], [
        str(one.message) for one in caught
    ]


def _target(name: str) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{name}")
    except FileNotFoundError:
        return ""
