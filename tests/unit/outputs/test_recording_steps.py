"""What recordings say of their targets."""

from __future__ import annotations

import logging

import pytest

from mist.outputs.base.recording_steps import tell_unknown
from mist.stream.recording import parse_target

LOG = logging.getLogger("test")


def test_parameters_without_a_meaning_are_named(caplog: pytest.LogCaptureFixture) -> None:
    tell_unknown(LOG, parse_target("/m/a.mkv?spilt=60&split=2&realtim&verify=0"), ("verify",))
    assert [record.getMessage() for record in caplog.records] == [
        "Parameters without a meaning for a recording: realtim, spilt"
    ]


def test_nothing_is_said_of_those_with_one(caplog: pytest.LogCaptureFixture) -> None:
    tell_unknown(LOG, parse_target("/m/$segmentCounter.ts?m3u8=a.m3u8&maxEntries=2&audio=all&recstart=5"))
    assert not caplog.records
