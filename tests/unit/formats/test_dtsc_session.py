"""DTSC sessions: both ends against each other and against bytes by hand, in every split; and peers that break the rules."""

from __future__ import annotations

import pytest

from mist.core.demuxer import PacketList
from mist.core.dtsc import DtscMuxer
from mist.core.packet import Packet
from mist.errors import ConnectTimeout, LimitExceededError, LocalProtocolError, RemoteProtocolError
from mist.formats import dtsc_session as d
from mist.formats.tracks import H264, VIDEO, TrackInfo
from tests.support.dtsc_peer import command, media, packet, read_value

SALT = "0123456789abcdef" * 2
PICTURE = TrackInfo(VIDEO, H264, track_id=1, width=64, height=64)
PING = bytes.fromhex("4454434d 00000012 e0 0003 636d64 02 00000004 70696e67 0000ee")


def listener() -> d.ListenerSession:
    return d.ListenerSession(SALT, "mist/test", 0.0)


def commands(data: bytes) -> list[dict[str, object]]:
    """Return the members of all commands in bytes."""
    found, at = [], 0
    while at < len(data):
        size = 8 + int.from_bytes(data[at + 4 : at + 8], "big")
        assert data[at : at + 4] == b"DTCM"
        found.append(read_value(data[at : at + size], 8)[0])
        at += size
    return found


def test_golden_ping() -> None:
    assert d.command_bytes("ping") == PING == command("ping")


def test_greeting() -> None:
    session = listener()
    expected = {"cmd": b"hi", "pack_method": 2, "salt": SALT.encode(), "version": b"mist/test"}
    (found,) = commands(session.take_output())
    assert found == expected
    assert list(found) == sorted(found), "members in ascending order"
    assert session.take_output() == b""


def test_play() -> None:
    session = listener()
    session.take_output()
    events = session.feed(command("play", stream="live", version="x", sync=1, video="h264", start=5000), 1.0)
    assert events == [d.PlayRequested("live", {"sync": "1", "video": "h264", "start": "5000"})]
    session.send_play_start(True, 1.0)
    assert commands(session.take_output()) == [{"cmd": b"sync", "sync": 1}]
    events = session.feed(
        PING + command("check_key_duration", id=1, duration=2000) + command("reset") + command("ok"), 2.0
    )
    assert events == [d.KeyDurationAsked(1, 2000), d.ResetAsked(), d.Acknowledged("")]
    assert commands(session.take_output()) == [{"cmd": b"ok", "msg": b"Pong!"}]
    assert session.feed(command("error", msg="bye"), 2.0) == [d.PeerFailed("bye")]


def test_every_split_of_a_play() -> None:
    data = PING + command("play", stream="live", version="x") + PING
    for at in range(len(data)):
        session = listener()
        events = session.feed(data[:at], 0.0) + session.feed(data[at:], 0.0)
        assert events == [d.PlayRequested("live", {})]


def test_play_refused() -> None:
    session = listener()
    session.feed(command("play", stream="x"), 0.0)
    session.take_output()
    session.send_refused("Stream not found", 0.0)
    assert commands(session.take_output()) == [{"cmd": b"error", "msg": b"Stream not found"}]
    with pytest.raises(LocalProtocolError):
        session.send_play_start(False, 0.0)


def _pushed() -> tuple[bytes, list[Packet]]:
    muxer = DtscMuxer([PICTURE])
    packets = [Packet(0, n * 40_000, 0, n == 0, bytes(50)) for n in range(5)]
    data = muxer.header()
    for one in packets:
        muxer.write(one)
    return data + muxer.take_output(), packets


def test_push_is_handed_over_with_what_followed() -> None:
    """A pusher sends header and packets at once; they are in the state, whole or in part, and not looked at before."""
    content, packets = _pushed()
    data = command("push", stream="live", password="secret", version="x", extra=1) + content
    request = len(data) - len(content)
    for at in range(request, len(data)):
        session = listener()
        assert session.feed(data[:at], 0.0) == [d.PushRequested("live", "secret", {"extra": "1"})]
        receiver = d.ReceivingSession.restore(session.export_state())
        sink = PacketList()
        receiver.demuxer.attach(sink)
        assert receiver.feed(data[at:], 0.0) == []
        assert sink.take() == packets
        assert commands(receiver.take_output()) == [{"cmd": b"ok", "msg": b"Header received"}]


def test_a_refused_pusher_may_go_on_talking() -> None:
    """It sends media without waiting for an answer, and must be able to read why it was refused."""
    content, _ = _pushed()
    session = listener()
    session.feed(command("push", stream="live") + content[:100], 0.0)
    session.send_refused("no", 0.0)
    assert session.feed(content[100:], 0.0) == []
    assert session.feed(b"GET / HTTP/1.1", 0.0) == []


def test_state_is_only_exported_for_a_pusher() -> None:
    session = listener()
    with pytest.raises(LocalProtocolError):
        session.export_state()
    with pytest.raises(LocalProtocolError):
        d.ReceivingSession.restore(b"RTMP")


def test_pull() -> None:
    """Our two ends against each other: what one asks for the other is told."""
    client = d.ReceivingSession.play("live", "mist/test", {"sync": "1", "video": "h264", "cmd": "evil"})
    server = listener()
    greeting = server.take_output()
    assert server.feed(client.take_output(), 0.0) == [d.PlayRequested("live", {"sync": "1", "video": "h264"})]
    server.send_play_start(True, 0.0)
    content, packets = _pushed()
    sink = PacketList()
    client.demuxer.attach(sink)
    headers: list[int] = []
    client.on_header = lambda: headers.append(len(sink.take()))
    stream = greeting + server.take_output() + content + d.command_bytes("ping") + d.command_bytes("error", msg="over")
    events = []
    for at in range(0, len(stream), 13):
        events += client.feed(stream[at : at + 13], 0.0)
    assert events == [d.Greeted("mist/test"), d.SyncChanged(True), d.PeerFailed("over")]
    assert sink.take() == packets
    assert headers == [0]
    assert commands(client.take_output()) == [{"cmd": b"ok", "msg": b"Pong!"}]


def test_play_command_of_ours() -> None:
    (asked,) = commands(d.ReceivingSession.play("a", "v", {"sync": "1", "exact": "1", "start": "7"}).take_output())
    assert asked == {"cmd": b"play", "stream": b"a", "version": b"v", "sync": 1, "exact": 1, "start": b"7"}


def test_wall_clock_that_changed() -> None:
    session = listener()
    session.take_output()
    session.send_wall_clock(1_700_000_000_000)
    content, packets = _pushed()
    client = d.ReceivingSession.play("live", "v", {})
    sink = PacketList()
    client.demuxer.attach(sink)
    client.feed(content + session.take_output() + media(1, 200, b""), 0.0)
    assert client.demuxer.unix_zero_ms == 1_700_000_000_000
    assert len(sink.take()) == len(packets) + 1


def test_reset_from_the_sender() -> None:
    client = d.ReceivingSession.play("live", "v", {})
    assert client.feed(command("reset"), 0.0) == [d.ResetAsked()]


@pytest.mark.parametrize("data", [_pushed()[0], media(1, 0, b""), packet(b"DTPD", b""), b"GET / HTTP/1.1\r\n\r\n"])
def test_media_and_nonsense_before_a_request(data: bytes) -> None:
    session = listener()
    session.take_output()
    with pytest.raises(RemoteProtocolError):
        session.feed(data, 0.0)
    if data[:2] == b"DT":
        assert commands(session.take_output())[0]["cmd"] == b"error"


def test_a_second_request() -> None:
    session = listener()
    session.feed(command("play", stream="a"), 0.0)
    with pytest.raises(RemoteProtocolError):
        session.feed(command("push", stream="a"), 0.0)


def test_bounds() -> None:
    with pytest.raises(LimitExceededError):
        listener().feed(b"DTCM\x00\x10\x00\x00", 0.0)
    many = {f"p{n}": 1 for n in range(d.MAX_PARAMETERS + 1)}
    with pytest.raises(LimitExceededError):
        listener().feed(command("play", stream="a", **many), 0.0)
    client = d.ReceivingSession.play("live", "v", {})
    with pytest.raises(LimitExceededError):
        client.feed(b"DTP2\x03\x00\x00\x00", 0.0)
    with pytest.raises(LimitExceededError):
        client.feed(b"DTSC\x01\x00\x00\x00", 0.0)


def test_a_peer_that_says_nothing() -> None:
    session = listener()
    assert session.deadline() == d.FIRST_WORD_SECONDS
    session.handle_timeout(d.FIRST_WORD_SECONDS - 0.1)
    with pytest.raises(ConnectTimeout):
        session.handle_timeout(d.FIRST_WORD_SECONDS)
    session.feed(command("play", stream="a"), 1.0)
    assert session.deadline() is None
    session.handle_timeout(1e9)


@pytest.mark.parametrize(("asked", "fits"), [(0, True), (2000, True), (2400, True), (2401, False)])
def test_key_durations(asked: int, fits: bool) -> None:
    assert d.key_duration_fits(asked, 2000) is fits


def test_a_pusher_is_handed_over_at_every_byte() -> None:
    data = d.command_bytes("ping") + d.command_bytes("ok", msg="Header received") + d.command_bytes("error", msg="full")
    first = d.PushingSession("live", "mist/1", "secret", sync=True)
    assert first.take_output()
    state = first.export_state()
    whole = d.PushingSession.restore(state)
    events, said = whole.feed(data, 0.0), whole.take_output()
    assert [type(event) for event in events] == [d.Acknowledged, d.PeerFailed] and said
    for cut in range(len(data)):
        one = d.PushingSession.restore(state)
        found, output = one.feed(data[:cut], 0.0), one.take_output()
        other = d.PushingSession.restore(one.export_state())
        assert found + other.feed(data[cut:], 0.0) == events
        assert output + other.take_output() == said


@pytest.mark.parametrize("damage", [b"", b"{}", b"[]\n", b'{"receiving": 1, "rest": 0}\n'])
def test_damaged_state_of_a_pusher(damage: bytes) -> None:
    with pytest.raises(LocalProtocolError):
        d.PushingSession.restore(damage)
