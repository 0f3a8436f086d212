"""Recordings to a web server and to an S3 store whose processes are killed at random instants, and whose destinations go away.

MIST_TORTURE (as for recordings on disk) makes it long: more kills, and destinations that are away for 20 s.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.integration.conftest import MakeServer, Publish
from tests.integration.test_push_handover import HANDLER, decode_errors, recorders, said
from tests.support.gate import Gate
from tests.support.media import BFRAMES, Sample
from tests.support.packets import compare, read_media
from tests.support.processes import wait_until
from tests.support.put_sink import PutSink
from tests.support.s3 import S3Server

pytestmark = [pytest.mark.tools("moto_server"), pytest.mark.timeout(300)]
LONG = "MIST_TORTURE" in os.environ
KILLS = 12 if LONG else 4
AWAY_SECONDS = 20.0 if LONG else 4.0
# Several parts of S3's least size.
SENT = Sample("heavy", BFRAMES, seconds=30 if LONG else 18, bit_rate="8M")
TICK_US = 1001


@pytest.fixture
def s3(tmp_path: Path) -> Iterator[S3Server]:
    with S3Server(tmp_path) as started:
        started.put("media", "first", b"x")
        yield started


def test_killed_recorders_and_destinations_that_go_away(
    make_server: MakeServer, publish: Publish, s3: S3Server, tmp_path: Path
) -> None:
    handler = tmp_path / "handler"
    handler.write_text(HANDLER)
    handler.chmod(0o755)
    triggers = {"RECORDING_END": [{"handler": str(handler), "sync": False, "streams": []}]}
    server = make_server(
        streams={"live": {"source": "push://127.0.0.1", "inputtimeout": 3}}, config={"triggers": triggers}
    )
    seed = int(os.environ.get("MIST_TORTURE_SEED", "0")) or time.time_ns() % 1_000_000
    chance = random.Random(seed)
    with PutSink() as sink, Gate(sink.port) as put_gate, Gate(s3.port) as s3_gate:
        publisher = publish(server, SENT)
        server.wait_tracks(2)
        targets = {
            "put.mkv": f"http://127.0.0.1:{put_gate.port}/put.mkv?start=1",
            "s3.mkv": s3.source("media/s3.mkv").replace(str(s3.port), str(s3_gate.port)) + "?start=1",
            "s3.ts": s3.source("media/s3.ts").replace(str(s3.port), str(s3_gate.port)) + "?start=1",
        }
        for target in targets.values():
            server.api({"push_start": ["live", target]})
        wait_until(lambda: len(recorders(server)) == len(targets), 20, "the recorders")
        span_s = SENT.seconds / (KILLS + 2)
        for number in range(KILLS):
            if number == KILLS // 2:
                put_gate.shut()
                s3_gate.shut()
                time.sleep(AWAY_SECONDS)
            time.sleep(chance.uniform(0, span_s))  # the instant is what is tried here
            for pid in [one for one in sorted(recorders(server)) if chance.random() < 0.7]:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if number == KILLS // 2:  # also while nobody takes anything
                put_gate.open()
                s3_gate.open()
        publisher.wait(60)
        wait_until(lambda: not server.api({"push_list": 1})["push_list"], 60, "the end of the pushes")
        objects = {"put.mkv": sink.files["/put.mkv"], **{name: s3.get(f"media/{name}") for name in ("s3.mkv", "s3.ts")}}
    source = read_media(SENT.flv())
    ends = wait_until(lambda: len(found := said(handler)) >= len(targets) and found, 10, "the ends")
    assert len(ends) == len(targets)
    assert all(":" not in line[1].partition("@")[0].partition("//")[2] or "@" not in line[1] for line in ends)
    for name, data in objects.items():
        path = tmp_path / name
        path.write_bytes(data)
        missing = compare(source, read_media(path), tolerance_us=TICK_US)
        assert {after for _, after in missing.values()} == {0}, (name, seed)
        assert decode_errors(path) == "", (name, seed)
        [lines] = [one for one in ends if one[1].endswith(f"/{name}")]
        assert int(lines[3]) == len(data), lines
        assert abs(int(lines[7]) - SENT.seconds * 1000) < 1500, lines
        assert lines[10] == "CLEAN_EOF", lines
    assert not list((server.runtime_folder / "push").iterdir())
