"""Work at low priority."""

from __future__ import annotations

import os
import threading

import pytest

from mist.runtime.gently import NICENESS, gently


def test_only_the_work_is_gentle() -> None:
    before = os.getpriority(os.PRIO_PROCESS, 0)
    assert gently(lambda: os.getpriority(os.PRIO_PROCESS, threading.get_native_id())) == max(NICENESS, before)
    assert os.getpriority(os.PRIO_PROCESS, 0) == before
    assert threading.active_count() == 1


def test_what_the_work_raises() -> None:
    with pytest.raises(ZeroDivisionError):
        gently(lambda: 1 // 0)
