"""A publisher over RTMP whose input is killed again and again: the stream has each packet once."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest

from mist.core.flv import serialize_frame, serialize_init
from mist.core.nal import join_length_prefixed
from mist.core.packet import Packet
from mist.core.rtmp_chunks import ChunkReader
from mist.formats.h264 import build_avcc
from mist.formats.rtmp import messages as m
from mist.formats.rtmp.client import ClientSession
from mist.formats.rtmp.server import ServerSession, State
from mist.formats.tracks import AAC, AUDIO, H264, MP3, VIDEO, TrackInfo
from mist.inputs.rtmp import INPUT
from mist.stream.names import stream_prefix
from mist.stream.publisher import create_stream, memory_used
from mist.stream.reader import StreamReader
from tests.support.dying_input import LONG_WINDOW, DyingInput, tcp_pair
from tests.support.shared_memory import shared_instance

SPS = bytes.fromhex("6742c01fd9005005bb0110000003001000000303c0f1832480")
SMALLER_SPS = bytes.fromhex("6742c01e95a0280bfe5c04400000fa40003a9821")
PPS = bytes.fromhex("68cb83cb20")
AVC = TrackInfo(VIDEO, H264, build_avcc([SPS], [PPS]))
OTHER_AVC = TrackInfo(VIDEO, H264, build_avcc([SPS], [PPS + b"\x01"]))
STEREO = TrackInfo(AUDIO, AAC, b"\x11\x90")
LAYER3 = TrackInfo(AUDIO, MP3)
NEW_INIT, DISCONTINUITY = 2, 4
ROUNDS = 60
GOP = 25


def negotiated() -> tuple[ClientSession, bytes]:
    """Return a client that was told it may publish, and the server's state just before that."""
    now = time.monotonic()
    client = ClientSession(app="live", stream="live", tc_url="rtmp://h/live", publish=True, entropy=os.urandom, now=now)
    server = ServerSession(os.urandom, now)
    while server.state is not State.PUBLISH_REQUESTED:
        server.feed(client.take_output(), now)
        client.feed(server.take_output(), now)
    state = server.export_state()
    server.send_publish_start("live", now)
    client.feed(server.take_output(), now)
    return client, state


class Source:
    """What is published: pictures and sound, a set-up that changes, another audio codec, pings."""

    def __init__(self, client: ClientSession, packets: int, seed: int) -> None:
        self._client = client
        self._chance = random.Random(seed)
        self._count = packets
        self.pictures: list[tuple[int, bytes]] = []
        self.sounds: list[list[tuple[int, bytes]]] = [[], []]
        self.pings: list[int] = []

    def data(self, number: int) -> bytes:
        """Return what is sent for the picture of a number, b"" after the end."""
        client = self._client
        if number > self._count:
            return b""
        if number == self._count:
            client.close()
            return client.take_output()
        if number % (self._count // 4) == 0:
            init = OTHER_AVC if number // (self._count // 4) % 2 else AVC
            client.send_media(m.VIDEO, number * 40, serialize_init(init))
            if number < self._count // 2:
                client.send_media(m.AUDIO, number * 40, serialize_init(STEREO))
        payload = self._chance.randbytes(self._chance.choice((20, 500, 4000, 30_000)))
        picture = join_length_prefixed([b"\x65" + payload])
        self.pictures.append((number * 40_000, picture))
        packet = Packet(0, number * 40_000, 0, number % GOP == 0, picture)
        client.send_media(m.VIDEO, number * 40, serialize_frame(AVC, packet))
        late = number >= self._count // 2
        sound = number.to_bytes(4, "big") + self._chance.randbytes(200)
        self.sounds[late].append((number * 40_000 + 5000, sound))
        about = LAYER3.changed(sample_rate_hz=44100, channels=2, sample_bits=16) if late else STEREO
        client.send_media(m.AUDIO, number * 40 + 5, serialize_frame(about, Packet(0, 0, 0, True, sound)))
        output = client.take_output()
        if number % 7 == 0:
            sender = m.MessageSender()
            sender.control(m.USER_CONTROL, m.user_control(m.PING_REQUEST, number))
            output += sender.writer.take_output()
            self.pings.append(number)
        return output


def check_replies(heard: bytes, pings: list[int]) -> None:
    """Fail unless what the publisher heard is whole messages, with one answer to each ping."""
    reader = ChunkReader()
    messages = reader.feed(heard)
    assert reader.memory_bytes == 0 and {one.type_id for one in messages} <= {3, 4, 20}
    answers = [one.payload for one in messages if one.type_id == m.USER_CONTROL]
    assert answers[0] == m.user_control(m.STREAM_BEGIN, 1)
    assert answers[1:] == [m.user_control(m.PING_RESPONSE, number) for number in pings]
    receipts = [int.from_bytes(one.payload, "big") for one in messages if one.type_id == m.ACKNOWLEDGEMENT]
    assert receipts == sorted(set(receipts))


@pytest.mark.parametrize("seed", range(4))
def test_each_packet_once(seed: int, tmp_path: Path) -> None:
    client, state = negotiated()
    source = Source(client, 2400, seed)
    ours, theirs = tcp_pair()
    with shared_instance() as instance:
        table = create_stream(instance, "live", LONG_WINDOW)
        dying = DyingInput(INPUT.run, (instance, "live", tmp_path), ours, theirs)
        dying.run(state, source.data, ROUNDS, seed, 0.03, 70)
        assert dying.deaths == ROUNDS
        reader = StreamReader(instance, "live")
        tracks = {track.index: track for track in reader.tracks()}
        assert sorted(tracks) == [0, 1]
        found = reader.packets(0, 0, tracks[0].next_sequence)
        assert [(one.dts_us, one.payload) for one in found] == source.pictures
        found = reader.packets(1, 0, tracks[1].next_sequence)
        assert [(one.dts_us, one.payload) for one in found] == source.sounds[0] + source.sounds[1]
        assert tracks[1].info.codec == "MP3"
        check_track(reader, 0, len(source.pictures))
        check_replies(dying.heard, source.pings)
        assert memory_used(instance)[0] == table.bytes_used
        files = [
            path.name for path in Path("/dev/shm").iterdir() if path.name.startswith(stream_prefix(instance, "live"))
        ]
        assert not [name for name in files if name.endswith(".growing")]
        dying.close()


def check_track(reader: StreamReader, index: int, count: int) -> None:
    """Fail unless keys, fragments, byte counts and flags are those of a track that one process wrote."""
    track = reader.track_reader(index)
    records = [track.packet_times(number) for number in range(count)]
    sizes = [one[3] for one in records if one is not None]
    changes = [number for number, one in enumerate(records) if one is not None and one[2] & NEW_INIT]
    assert changes == [count // 4, count // 2, count * 3 // 4]
    assert not [one for one in records if one is not None and one[2] & DISCONTINUITY]
    keys = track.key_records()
    assert [key[0] for key in keys] == list(range(0, count, GOP))
    assert [key[4] for key in keys] == [sum(sizes[: key[0]]) for key in keys]
    fragments = [key[3] for key in keys]
    assert fragments == sorted(fragments) and set(fragments) == set(range(fragments[-1] + 1))
    assert [key[6] for key in keys] == [key[0] // (count // 4) for key in keys]
