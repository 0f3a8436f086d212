"""A stream that another server pushes with DTSC, whose input is killed again and again: each packet comes once."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from mist.core.dtsc import DtscMuxer
from mist.core.dtsc_objects import parse_object
from mist.core.packet import Packet
from mist.formats.dtsc import text
from mist.formats.dtsc_session import ListenerSession, State, command_bytes
from mist.inputs.dtsc import INPUT
from mist.stream.publisher import create_stream
from mist.stream.reader import StreamReader
from tests.support.dying_input import LONG_WINDOW, DyingInput, tcp_pair
from tests.support.shared_memory import AUDIO_TRACK, VIDEO_TRACK, shared_instance

ROUNDS = 60
FRAMES = 2400
DISCONTINUITY = 4


class Source:
    """What is pushed: pictures and sound, headers in between, pings."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        self._muxer = DtscMuxer([VIDEO_TRACK, AUDIO_TRACK], exact=True, unix_zero_us=lambda: 1_700_000_000_000_000)
        self.written: list[list[tuple[int, int, bytes]]] = [[], []]
        self.pings = self.headers = 0

    def data(self, number: int) -> bytes:
        """Return what is sent for the picture of a number, b"" after the end."""
        muxer = self._muxer
        if number > FRAMES:
            return b""
        if number == FRAMES:
            return command_bytes("error", msg="that is all")
        output = b""
        if number % (FRAMES // 4) == 0:
            output += muxer.header(0)
            self.headers += 1
        if number % 7 == 0:
            output += command_bytes("ping")
            self.pings += 1
        for track, dts_us in ((0, number * 40_001), (1, number * 40_001 + 7003)):
            payload = self._chance.randbytes(self._chance.choice((20, 500, 4000, 30_000)))
            offset_us = 1_234 if track == 0 else 0
            muxer.write(Packet(track, dts_us, offset_us, track == 1 or number % 25 == 0, payload))
            self.written[track].append((dts_us, offset_us, payload))
        return output + muxer.take_output()


def handed_over() -> bytes:
    """Return the listener's state of a pusher that may push."""
    listener = ListenerSession("00" * 16, "test", 0.0)
    listener.feed(command_bytes("push", stream="live"), 0.0)
    assert listener.state is State.PUSH_REQUESTED
    return listener.export_state()


def commands(heard: bytes) -> list[str]:
    """Return the texts of the commands that a pusher heard; they must be whole."""
    found = []
    while heard:
        size = 8 + int.from_bytes(heard[4:8], "big")
        assert heard[:4] == b"DTCM" and len(heard) >= size
        found.append(text(parse_object(heard[:size], 8), "msg"))
        heard = heard[size:]
    return found


@pytest.mark.parametrize("seed", range(4))
def test_each_packet_once(seed: int, tmp_path: Path) -> None:
    source = Source(seed)
    ours, theirs = tcp_pair()
    with shared_instance() as instance:
        create_stream(instance, "live", LONG_WINDOW)
        dying = DyingInput(INPUT.run, (instance, "live", tmp_path), ours, theirs)
        dying.run(handed_over(), source.data, ROUNDS, seed, 0.03, 70)
        assert dying.deaths == ROUNDS
        reader = StreamReader(instance, "live")
        assert [track.index for track in reader.tracks()] == [0, 1]
        for index, written in enumerate(source.written):
            end = reader.track(index).next_sequence
            assert [(one.dts_us, one.offset_us, one.payload) for one in reader.packets(index, 0, end)] == written
            flags = [reader.track_reader(index).packet_times(number) for number in range(end)]
            assert not [one for one in flags if one is not None and one[2] & DISCONTINUITY]
        said = commands(dying.heard)
        assert said[0] == "Push of live accepted"
        assert (said.count("Pong!"), said.count("Header received")) == (source.pings, source.headers)
        dying.close()
