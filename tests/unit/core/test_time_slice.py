"""The time slice asked of the kernel, each time in a process of its own: it cannot be given back."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

LINUX = tuple(int(part) for part in os.uname().release.split("-")[0].split(".")[:2])
knows_slices = pytest.mark.skipif(LINUX < (6, 12), reason="Linux before 6.12 has no slices of single threads")


def run(program: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", "from mist.core.time_slice import ask_for_slice, slice_us\n" + program],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout.split()


@knows_slices
def test_slice_is_what_was_asked_for() -> None:
    assert run("print(ask_for_slice(100), slice_us(), ask_for_slice(2000), slice_us())") == [
        "True",
        "100",
        "True",
        "2000",
    ]


@knows_slices
def test_children_and_threads_have_the_usual_slice() -> None:
    before, *after = run(
        "import subprocess, sys, threading\n"
        "print(slice_us(), flush=True)\n"
        "ask_for_slice(100)\n"
        "code = 'from mist.core.time_slice import slice_us; print(slice_us())'\n"
        "subprocess.run([sys.executable, '-c', code], check=True)\n"
        "thread = threading.Thread(target=lambda: print(slice_us()))\n"
        "thread.start(); thread.join()\n"
    )
    assert after == [before, before]


@pytest.mark.parametrize("wanted_us", [99, 100_001])
def test_slice_beyond_the_kernels_bounds_is_refused(wanted_us: int) -> None:
    assert run(f"print(ask_for_slice({wanted_us}))") == ["False"]


def test_priority_and_another_policy_stay() -> None:
    assert run("import os; nice = os.nice(3); ask_for_slice(100); print(os.nice(0) == nice)") == ["True"]
    batch = "import os; os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0)); "
    assert run(batch + "print(ask_for_slice(100), os.sched_getscheduler(0) == os.SCHED_BATCH)") == ["False", "True"]
