"""RTMP sessions: client and server back to back, and the server against what peers really send."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest

from mist.core.rtmp_chunks import ChunkReader, ChunkWriter, Message
from mist.errors import ConnectTimeout, LocalProtocolError, MistError, RemoteProtocolError
from mist.formats import amf
from mist.formats.rtmp import messages as m
from mist.formats.rtmp.client import ClientSession
from mist.formats.rtmp.client import State as ClientState
from mist.formats.rtmp.handshake import ClientHandshake
from mist.formats.rtmp.server import ServerSession, State


def make_server(now: float = 0.0) -> ServerSession:
    return ServerSession(random.Random(1).randbytes, now)


def make_client(publish: bool, **options: Any) -> ClientSession:
    return ClientSession(
        app="live",
        stream="test?lang=de",
        tc_url="rtmp://host/live",
        publish=publish,
        entropy=random.Random(2).randbytes,
        now=0.0,
        **options,
    )


class Link:
    """Carries bytes both ways in pieces of one size, and answers requests as it is told."""

    def __init__(self, client: ClientSession, step: int = 1 << 20, accept: bool = True) -> None:
        self.client = client
        self.server = make_server()
        self.step = step
        self.accept = accept
        self.to_server: list[m.Event] = []
        self.to_client: list[m.Event] = []

    def run(self) -> None:
        while True:
            upward, downward = self.client.take_output(), self.server.take_output()
            if not upward and not downward:
                return
            for at in range(0, len(upward), self.step):
                self.hear(self.server.feed(upward[at : at + self.step], 1.0))
            for at in range(0, len(downward), self.step):
                self.to_client += self.client.feed(downward[at : at + self.step], 1.0)

    def hear(self, events: list[m.Event]) -> None:
        for event in events:
            self.to_server.append(event)
            if isinstance(event, m.PublishRequested):
                if self.accept:
                    self.server.send_publish_start(event.name, 1.0)
                else:
                    self.server.send_publish_refused("NetStream.Publish.BadName", "busy", 1.0)
            elif isinstance(event, m.PlayRequested):
                if self.accept:
                    self.server.send_play_start(event.name, event.reset, 1.0)
                else:
                    self.server.send_play_refused("NetStream.Play.StreamNotFound", "no", 1.0)
            else:
                continue
            self.hear(self.server.feed(b"", 1.0))


@pytest.mark.parametrize("step", [1, 7, 1000, 1 << 20])
@pytest.mark.parametrize("scheme", [None, 0, 1])
def test_publish(step: int, scheme: int | None) -> None:
    link = Link(make_client(True, digest_scheme=scheme), step)
    link.run()
    assert link.to_client == [m.Started("NetStream.Publish.Start")]
    connected, request = link.to_server
    assert isinstance(connected, m.Connected) and connected.app == "live" and "hvc1" in connected.enhanced
    assert request == m.PublishRequested("test?lang=de", "live")
    link.client.send_metadata({"width": 640})
    link.client.send_media(m.VIDEO, 40, b"v" * 70_000)
    link.client.send_media(m.AUDIO, 41, b"a")
    link.client.close()
    link.run()
    assert link.to_server[2:] == [
        m.Data("onMetaData", ({"width": 640},), 0),
        m.Media(m.VIDEO, 40, b"v" * 70_000),
        m.Media(m.AUDIO, 41, b"a"),
        m.StreamEnded("FCUnpublish"),
    ]
    assert link.to_client[1:] == [m.StreamEnded("NetStream.Unpublish.Success")]
    assert link.server.state is State.ENDED and link.client.state is ClientState.ENDED


def test_play() -> None:
    link = Link(make_client(False), 100)
    link.run()
    assert link.to_server[1] == m.PlayRequested("test?lang=de", -2000, -1, True)
    assert [type(event) for event in link.to_client] == [m.Started, m.Data]
    link.server.send_play_stop("test")
    link.run()
    assert link.to_client[-1] == m.StreamEnded("NetStream.Play.Stop")


def test_refusals() -> None:
    for publish, code in ((True, "NetStream.Publish.BadName"), (False, "NetStream.Play.StreamNotFound")):
        link = Link(make_client(publish), accept=False)
        link.run()
        (refused,) = link.to_client
        assert isinstance(refused, m.Refused) and refused.code == code and refused.description in ("busy", "no")
        assert link.server.state is State.CONNECTED


# -- a peer made of bytes


class Peer:
    """Speaks to a server session message by message."""

    def __init__(self) -> None:
        self.server = make_server()
        hands = ClientHandshake(random.Random(3).randbytes)
        self.server.feed(hands.take_output(), 0.0)
        hands.feed(self.server.take_output())
        self.server.feed(hands.take_output(), 0.0)
        self.writer = ChunkWriter()
        self.reader = ChunkReader()

    def send(
        self, type_id: int, payload: bytes, *, stream: int = 0, time_ms: int = 0, now: float = 0.0
    ) -> list[m.Event]:
        self.writer.write(3, type_id, stream, time_ms, payload)
        return self.server.feed(self.writer.take_output(), now)

    def command(self, *values: Any, stream: int = 0, amf3: bool = False) -> list[m.Event]:
        payload = amf.encode(*values)
        return (
            self.send(m.COMMAND_AMF3, b"\0" + payload, stream=stream) if amf3 else self.send(20, payload, stream=stream)
        )

    def heard(self) -> list[Message]:
        return self.reader.feed(self.server.take_output())

    def replies(self) -> list[list[Any]]:
        return [m.parse_values(one) for one in self.heard() if one.type_id in (17, 20)]

    def connect(self, **values: Any) -> list[Any]:
        self.command("connect", 1, {"app": "live", **values})
        (reply,) = self.replies()
        return reply

    def publish(self) -> None:
        self.connect()
        self.command("publish", 5, None, "test", "live", stream=1)
        self.server.send_publish_start("test", 0.0)
        self.heard()


def test_reply_to_connect() -> None:
    peer = Peer()
    events = peer.command("connect", 1, {"app": "live", "tcUrl": "rtmp://h/live", "flashVer": "x", "objectEncoding": 3})
    assert events == [m.Connected("live", "rtmp://h/live", "x", frozenset(), False)]
    messages = peer.heard()
    assert [one.type_id for one in messages] == [5, 6, 1, 4, 20]
    assert [int.from_bytes(one.payload[:4], "big") for one in messages[:3]] == [2_500_000, 2_500_000, 65536]
    name, transaction, properties, info = m.parse_values(messages[4])
    assert (name, transaction, properties) == (
        "_result",
        1,
        {"fmsVer": "FMS/3,5,5,2004", "capabilities": 31, "mode": 1},
    )
    assert info["code"] == "NetConnection.Connect.Success" and info["objectEncoding"] == 3 and info["clientid"] == 1337
    assert not {"capsEx", "fourCcList", "videoFourCcInfoMap", "audioFourCcInfoMap"} & set(info)


def test_enhanced_fields_are_answered_when_they_were_sent() -> None:
    peer = Peer()
    asked = {"fourCcList": ["*"], "videoFourCcInfoMap": {"hvc1": 1, "av01": 2}, "capsEx": 2}
    (connected,) = peer.command("connect", 1, {"app": "live", **asked})
    assert isinstance(connected, m.Connected)
    assert connected.enhanced == {"*", "hvc1"} and connected.multitrack
    (reply,) = peer.replies()
    assert reply[3]["capsEx"] == 15 and "hvc1" in reply[3]["fourCcList"] and reply[3]["videoFourCcInfoMap"]["av01"] == 7
    assert "audioFourCcInfoMap" not in reply[3]


@pytest.mark.parametrize("mask", [math.nan, math.inf, -math.inf, 1e300, "x", None, {}, True])
def test_odd_masks_of_codecs_mean_nothing(mask: Any) -> None:
    peer = Peer()
    asked = {"videoFourCcInfoMap": {"hvc1": mask}, "audioFourCcInfoMap": {"Opus": mask}, "capsEx": mask}
    (connected,) = peer.command("connect", 1, {"app": "live", **asked})
    assert isinstance(connected, m.Connected)
    assert connected.enhanced == frozenset()


def test_codecs_that_nobody_knows_are_not_kept() -> None:
    peer = Peer()
    asked = {"fourCcList": [f"x{n:03}" for n in range(999)], "audioFourCcInfoMap": {"Opus": 4, "y" * 500: 7}}
    (connected,) = peer.command("connect", 1, {"app": "live", **asked})
    assert isinstance(connected, m.Connected)
    assert connected.enhanced == {"Opus"}


def test_amf3_is_answered_in_kind() -> None:
    peer = Peer()
    peer.command("connect", 1, {"app": "live"}, amf3=True)
    assert [one.type_id for one in peer.heard()][-1] == m.COMMAND_AMF3


@pytest.mark.parametrize(
    ("command", "result"),
    [
        (("createStream", 4, None), 1.0),
        (("releaseStream", 2, None, "test"), amf.UNDEFINED),
        (("getStreamLength", 3, None, "test"), 0.0),
        (("getMovLen", 3, None, "test"), 0.0),
        (("checkBandwidth", 3, None), amf.UNDEFINED),
        (("_checkbw", 3, None), amf.UNDEFINED),
        (("ping", 3, None), amf.UNDEFINED),
    ],
)
def test_answers(command: tuple[Any, ...], result: Any) -> None:
    peer = Peer()
    peer.connect()
    peer.command(*command)
    assert peer.replies() == [["_result", float(command[1]), None, result]]


def test_friends_of_publish() -> None:
    peer = Peer()
    peer.connect()
    peer.command("FCPublish", 3, None, "test")
    peer.command("FCSubscribe", 0, None, "test")
    assert [reply[0] for reply in peer.replies()] == ["_result", "onFCPublish", "onFCSubscribe"]


def test_unknown_commands_get_an_error() -> None:
    peer = Peer()
    peer.connect()
    peer.command("makeCoffee", 9, None)
    (reply,) = peer.replies()
    assert reply[:2] == ["_error", 9.0] and "makeCoffee" in reply[3]["description"]


def test_nothing_before_connect() -> None:
    with pytest.raises(RemoteProtocolError):
        Peer().command("createStream", 1, None)
    peer = Peer()
    peer.connect()
    with pytest.raises(RemoteProtocolError):
        peer.connect()


def test_messages_wait_while_a_request_does() -> None:
    """Encoders that do not wait for Publish.Start send media right after publish."""
    peer = Peer()
    peer.connect()
    peer.writer.write(3, 20, 1, 0, amf.encode("publish", 5, None, "test", "live"))
    peer.writer.write(6, m.VIDEO, 1, 40, b"video")
    (event,) = peer.server.feed(peer.writer.take_output(), 0.0)
    assert event == m.PublishRequested("test", "live")
    assert peer.send(m.AUDIO, b"audio", stream=1, time_ms=41) == []
    state = peer.server.export_state()
    restored = ServerSession.restore(state, 0.0)
    restored.send_publish_start("test", 0.0)
    assert restored.feed(b"", 0.0) == [m.Media(m.VIDEO, 40, b"video"), m.Media(m.AUDIO, 41, b"audio")]
    assert [one.type_id for one in peer.reader.feed(peer.server.take_output() + restored.take_output())][-2:] == [4, 20]


def test_hand_over_at_every_byte() -> None:
    peer = Peer()
    peer.publish()
    for number in range(4):
        peer.writer.write(6, m.VIDEO, 1, 0xFFFFF0 + number * 40, bytes([number]) * 300)
    data = peer.writer.take_output()
    state = peer.server.export_state()
    whole = ServerSession.restore(state, 0.0).feed(data, 0.0)
    assert len(whole) == 4
    for cut in range(0, len(data), 3):
        first = ServerSession.restore(state, 0.0)
        events = first.feed(data[:cut], 0.0)
        second = ServerSession.restore(first.export_state(), 0.0)
        assert events + second.feed(data[cut:], 0.0) == whole


def test_a_publishing_client_is_handed_over_at_every_byte() -> None:
    link = Link(make_client(True))
    link.run()
    state = link.client.export_state()
    link.server._send.control(m.USER_CONTROL, m.user_control(m.PING_REQUEST, 1234))
    link.server._send.command(
        "onStatus", 0.0, None, {"level": "error", "code": "NetStream.Publish.Denied"}, stream_id=1
    )
    data = link.server.take_output()
    whole = ClientSession.restore(state, 1.0)
    events, said = whole.feed(data, 1.0), whole.take_output()
    assert events == [m.Refused("NetStream.Publish.Denied", "")] and said
    for cut in range(len(data)):
        first = ClientSession.restore(state, 1.0)
        found, output = first.feed(data[:cut], 1.0), first.take_output()
        second = ClientSession.restore(first.export_state(), 1.0)
        assert found + second.feed(data[cut:], 1.0) == events
        assert output + second.take_output() == said
    again = ClientSession.restore(state, 1.0)
    again.close()
    link.client.close()
    assert again.take_output() == link.client.take_output()


@pytest.mark.parametrize("damage", [b"", b"{}", b"{}\n", b"[]\n", b'{"state": "nothing"}\n', b"\xff\n"])
def test_damaged_state_of_a_client(damage: bytes) -> None:
    with pytest.raises(LocalProtocolError):
        ClientSession.restore(damage, 0.0)


@pytest.mark.parametrize("damage", [b"", b"mRS1", b"mRS1\x05\0\0\0{}", b"mRS1\x02\0\0\0{}\x00\0\0\0", b"xxxx"])
def test_damaged_state(damage: bytes) -> None:
    with pytest.raises(LocalProtocolError):
        ServerSession.restore(damage, 0.0)
    with pytest.raises(LocalProtocolError):
        make_server().export_state()


def test_data_messages() -> None:
    peer = Peer()
    peer.publish()
    array = amf.EcmaArray(width=640.0)
    assert peer.send(18, amf.encode("@setDataFrame", "onMetaData", array)) == [m.Data("onMetaData", (array,), 0)]
    assert peer.send(18, amf.encode("onTextData", {"text": "x"})) == [m.Data("onTextData", ({"text": "x"},), 0)]
    amf3 = b"\0" + amf.encode("@setDataFrame", "onMetaData") + b"\x11" + amf.encode3({"width": 1})
    assert peer.send(15, amf3) == [m.Data("onMetaData", ({"width": 1},), 0)]
    assert peer.send(18, amf.encode(1.0)) == []


def test_aggregates_are_taken_apart() -> None:
    peer = Peer()
    peer.publish()

    def tag(kind: int, time_ms: int, body: bytes) -> bytes:
        time = (time_ms & 0xFFFFFF).to_bytes(3, "big") + bytes([time_ms >> 24 & 0xFF])
        return bytes([kind]) + len(body).to_bytes(3, "big") + time + b"\0\0\0" + body + bytes(4)

    body = (
        tag(8, 0xFFFFFFF0, b"a") + tag(9, 0x10, b"v") + tag(18, 0x20, amf.encode("onCuePoint", 3.0)) + tag(18, 0, b"s")
    )
    assert peer.send(22, body, time_ms=5000) == [
        m.Media(8, 5000, b"a"), m.Media(9, 5032, b"v"), m.Data("onCuePoint", (3.0,), 5048)
    ]  # fmt: skip
    with pytest.raises(RemoteProtocolError):
        peer.send(22, tag(8, 0, b"abc")[:-6])


def test_a_recorded_stream_has_positions_and_an_end() -> None:
    peer = Peer()
    peer.connect()
    peer.command("play", 0, None, "film", 0, -1, True, stream=1)
    peer.server.send_play_start("film", True, 0.0, recorded=True)
    codes = [reply[3]["code"] for reply in peer.replies() if reply[0] == "onStatus"]
    assert codes == ["NetStream.Play.Reset", "NetStream.Play.Start"]
    assert peer.command("seek", 0, None, 5000, stream=1) == [m.SeekRequested(5000)]
    peer.server.send_seek_start("film", 4000)
    codes = [reply[3]["code"] for reply in peer.replies() if reply[0] == "onStatus"]
    assert codes == ["NetStream.Seek.Notify", "NetStream.Play.Start"]
    peer.server.send_play_complete("film", 2_500_000, 77)
    codes = [reply[3]["code"] for reply in peer.replies() if reply[0] == "onStatus"]
    assert codes == ["NetStream.Play.Stop"]


def test_pause_seek_and_the_rest_of_playing() -> None:
    peer = Peer()
    peer.connect()
    (event,) = peer.command("play", 0, None, "test", -1, -1, False, stream=1)
    assert event == m.PlayRequested("test", -1, -1, False)
    peer.server.send_play_start("test", False, 0.0)
    codes = [reply[3]["code"] for reply in peer.replies() if reply[0] == "onStatus"]
    assert codes == ["NetStream.Play.Start"]
    assert peer.command("pause", 0, None, True, 1000, stream=1) == [m.PauseRequested(True, 1000)]
    assert peer.command("seek", 0, None, 5000, stream=1) == []
    assert [reply[3]["code"] for reply in peer.replies()][-1] == "NetStream.Seek.Failed"
    assert peer.command("receiveAudio", 0, None, False, stream=1) == []
    assert peer.command("play2", 0, None, {"streamName": "other"}, stream=1) == [
        m.StreamEnded("play"),
        m.PlayRequested("other", -2, -1, True),
    ]


def test_ping_and_acknowledgements() -> None:
    peer = Peer()
    peer.connect()
    peer.send(m.USER_CONTROL, m.user_control(m.PING_REQUEST, 77))
    assert [one.payload for one in peer.heard()] == [m.user_control(m.PING_RESPONSE, 77)]
    peer.send(m.WINDOW_ACKNOWLEDGEMENT_SIZE, (40_000).to_bytes(4, "big"))
    peer.send(m.AUDIO, bytes(10_000))
    (acknowledgement,) = peer.heard()
    assert acknowledgement.type_id == m.ACKNOWLEDGEMENT and int.from_bytes(acknowledgement.payload, "big") > 13_000
    peer.send(m.AUDIO, bytes(10), now=14.0)
    assert peer.heard() == []
    peer.send(m.AUDIO, bytes(10), now=15.5)
    assert [one.type_id for one in peer.heard()] == [m.ACKNOWLEDGEMENT]


def test_the_byte_count_wraps() -> None:
    receipts = m.Receipts(4000, received=(1 << 32) - 500)
    assert receipts.count(1000, 0.0) == (500).to_bytes(4, "big")


def test_deadlines() -> None:
    server = make_server(100.0)
    assert server.deadline() == 110.0
    server.handle_timeout(109.9)
    with pytest.raises(ConnectTimeout) as caught:
        server.handle_timeout(110.0)
    assert isinstance(caught.value, MistError) and caught.value.reason == "CLEAN_INACTIVE"
    peer = Peer()
    peer.connect()
    assert peer.server.deadline() == 60.0
    peer.command("publish", 5, None, "test", "live", stream=1)
    assert peer.server.deadline() is None


def test_ends_are_told_once() -> None:
    peer = Peer()
    peer.publish()
    assert peer.command("FCUnpublish", 0, None, "test") == [m.StreamEnded("FCUnpublish")]
    assert peer.command("closeStream", 0, None, stream=1) == []
    assert peer.command("deleteStream", 0, None, 1) == []
    assert peer.send(m.VIDEO, b"late", stream=1) == []


def test_answers_without_a_question() -> None:
    with pytest.raises(LocalProtocolError):
        make_server().send_publish_start("x", 0.0)


@pytest.mark.parametrize("payload", [b"", b"\x05", b"\x02\x00"])
def test_broken_commands(payload: bytes) -> None:
    peer = Peer()
    with pytest.raises(RemoteProtocolError):
        peer.connect()
        peer.send(20, payload or b"\x00")


def test_large_commands_are_refused() -> None:
    peer = Peer()
    peer.connect()
    with pytest.raises(RemoteProtocolError):
        peer.send(20, amf.encode("x" * (2 << 20)))
