"""Sessions and what they add up to."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from mist.controller.reports import resolve_time
from mist.controller.sessions import shown_address
from mist.stream.session_identity import Kind, SessionModes, identify
from tests.support.fake_control import START, ControllerUnderTest, make_controller


def clients(control: ControllerUnderTest, **query: Any) -> list[list[Any]]:
    return control.controller.reports.clients(query, int(control.clock()))["data"] or []


def test_session_identifier() -> None:
    """SHA-256 of the chosen parts, one after the other; the address in its 16-byte form."""
    address = bytes(10) + b"\xff\xff" + bytes([192, 0, 2, 1])
    digest = hashlib.sha256(b"live" + address + b"tkn").hexdigest()
    assert identify(Kind.VIEWER, SessionModes(), "live", "192.0.2.1", "tkn", "HLS") == digest
    assert identify(Kind.VIEWER, SessionModes(), "live", "::ffff:192.0.2.1", "tkn", "FLV") == digest
    digest = hashlib.sha256(b"live" + address + b"tkn" + b"INPUT:RTMP").hexdigest()
    assert identify(Kind.INPUT, SessionModes(), "live", "192.0.2.1", "tkn", "INPUT:RTMP") == "I" + digest
    nothing = hashlib.sha256().hexdigest()
    assert identify(Kind.UNSPECIFIED, SessionModes(), "live", "192.0.2.1", "tkn", "HTTP") == "U" + nothing


@pytest.mark.parametrize(("mode", "kind"), [(1, Kind.VIEWER), (2, Kind.OUTPUT), (3, None), (4, Kind.UNSPECIFIED)])
def test_stream_info_mode(mode: int, kind: Kind | None) -> None:
    modes = SessionModes(stream_info=mode)
    assert modes.kind_of("HTTP") is kind
    assert modes.kind_of("HLS") is Kind.VIEWER
    assert modes.kind_of("OUTPUT:FLV") is Kind.OUTPUT


@pytest.mark.parametrize(
    ("host", "shown"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8::1", "2001:0db8:0000:0000:0000:0000:0000:0001"),
        ("", "::"),
        ("flub", "::"),
    ],
)
def test_shown_address(host: str, shown: str) -> None:
    assert shown_address(host) == shown


def test_segment_viewer_is_one_session(tmp_path: Path) -> None:
    """Short connections of one viewer are one session, which ends 15 s after the last, with a line in the access log."""
    control = make_controller(tmp_path, {"streams": {"live": {"source": "push://"}}})
    for _ in range(4):
        record = control.services.connect("live", "HLS", token="abc")
        control.services.update(record, sent=10_240, active=True)
        control.second()
        control.services.update(record, active=False)
        control.second()
        control.services.disconnect(record)
        control.second(4)
    rows = clients(control, fields=["up", "conntime", "protocol"])
    assert rows == [["HLS", 4, 40_960]]
    control.second(20)
    assert clients(control) == []
    totals = control.controller.statistics.streams["live"]
    assert (totals.total, totals.now, totals.up, totals.viewseconds) == ([1, 0, 0, 0], [0, 0, 0, 0], 40_960, 4)
    (line,) = control.services.lines.texts("ACCS")
    assert "live (HLS) from 203.0.113.7 ended after 4s, avg 10KB/s up 0KB/s down." in line


def test_a_stopped_session_does_not_wait_for_its_viewer(tmp_path: Path) -> None:
    """Who comes back to it by a new connection is a new session."""
    control = make_controller(tmp_path, {"streams": {"live": {"source": "push://"}}})
    first, other = (control.services.connect("live", "HLS", token=token) for token in ("abc", "def"))
    control.second(5)
    statistics = control.controller.statistics
    [session] = [one for one in statistics.live.values() if one.token == "abc"]
    assert statistics.stop([session]) == [first]
    control.services.update(first, active=False)
    control.second()
    assert session.ended
    assert [one.token for one in statistics.live.values()] == ["def"]
    control.services.connect("live", "HLS", token="abc")
    control.services.disconnect(other)
    control.second(2)
    again = statistics.live[session.id]
    assert again is not session
    assert again.linger_s == 15
    assert len(statistics.live) == 2


def test_connection_that_lived_between_two_seconds(tmp_path: Path) -> None:
    """A connection that is only ever seen ended still counts, once, with all its bytes."""
    control = make_controller(tmp_path)
    record = control.services.connect("live", "FLV")
    control.services.update(record, sent=500, active=False)
    control.second(3)
    assert clients(control, fields=["up"]) == [[500]]
    assert control.controller.statistics.streams["live"].total[Kind.VIEWER] == 1


def test_lingering_record_ends_its_session_once(tmp_path: Path) -> None:
    """The record of an ended connection stays readable for a while; that is no new session."""
    control = make_controller(tmp_path)
    record = control.services.connect("live", "INPUT:RTMP")
    control.services.update(record, received=1000)
    control.second(2)
    control.services.update(record, active=False)
    control.second(12)
    assert len(control.services.lines.texts("ACCS")) == 1
    assert control.controller.statistics.streams["live"].total[Kind.INPUT] == 1


def test_lingering_records_go_after_their_session(tmp_path: Path) -> None:
    """Both connections of a session do nothing until it has ended, and their records go one after the other."""
    control = make_controller(tmp_path, {"streams": {"live": {"source": "push://"}}})
    records = [control.services.connect("live", "HLS", token="abc") for _ in range(2)]
    control.second()
    for record in records:
        control.services.update(record, active=False)
    control.second(20)
    assert clients(control) == []
    for record in records:
        control.services.disconnect(record)
        control.second()
    later = control.services.connect("live", "HLS", token="abc")
    control.services.update(later, sent=10, active=True)
    control.second()
    assert len(clients(control)) == 1


def test_two_streams_on_one_connection(tmp_path: Path) -> None:
    """Bytes go to the stream that the connection served while they were sent."""
    control = make_controller(tmp_path)
    record = control.services.connect("a", "FLV")
    control.services.update(record, sent=100)
    control.second()
    control.services.update(record, stream="b", sent=300)
    control.second()
    streams = control.controller.statistics.streams
    assert (streams["a"].up, streams["b"].up) == (100, 300)


def test_publisher_and_directions(tmp_path: Path) -> None:
    """What the server receives is "down", what it sends is "up"; a publisher is an input and leaves at once."""
    control = make_controller(tmp_path)
    record = control.services.connect("live", "INPUT:RTMP")
    for _ in range(6):
        control.services.update(record, received=1000)
        control.second()
    assert clients(control, fields=["down", "up", "downbps", "upbps"], protocols=["INPUT"]) == [[6000, 0, 1000, 0]]
    assert control.controller.statistics.streams["live"].now == [0, 1, 0, 0]
    control.services.disconnect(record)
    control.second(2)
    assert control.controller.statistics.streams["live"].now == [0, 0, 0, 0]


def test_excepted_addresses(tmp_path: Path) -> None:
    """Private addresses are sessions like others, but their bytes are not the stream's; they are in the totals."""
    control = make_controller(tmp_path)
    record = control.services.connect("live", "FLV", "192.168.1.5")
    control.second()
    control.services.update(record, sent=5000)
    control.second()
    statistics = control.controller.statistics
    assert (statistics.up, statistics.other_up, statistics.streams["live"].up) == (0, 5000, 0)
    assert clients(control, fields=["up"]) == [[5000]]
    assert statistics.history[-1].up == 5000


def test_stream_is_forgotten_after_ten_minutes(tmp_path: Path) -> None:
    control = make_controller(tmp_path)
    control.services.connect("live", "FLV")
    control.second()
    control.services.snapshots.clear()
    control.second(590)
    assert control.controller.reports.stats_streams(True) == ["live"]
    assert clients(control, time=START + 1, fields=["stream"]) == [["live"]]
    control.second(40)
    assert control.controller.reports.stats_streams(True) is None
    assert len(control.controller.statistics.history) <= 600


def test_old_history_is_coarse_and_bounded(tmp_path: Path) -> None:
    """Ten minutes of one viewer: rows for each second at the end, for each tenth before, and totals that say so."""
    control = make_controller(tmp_path)
    record = control.services.connect("live", "FLV")
    for _ in range(700):
        control.services.update(record, sent=100)
        control.second()
    (session,) = control.controller.statistics.live.values()
    assert session.at(int(control.clock()) - 3).up == 100 * 697  # type: ignore[union-attr]
    assert session.at(START + 405).up == 100 * 400  # type: ignore[union-attr]
    assert session.at(START + 50) is None
    totals = control.controller.reports.totals({"streams": ["live"], "fields": ["upbps"]}, int(control.clock()))
    assert {row[0] for row in totals["data"][1:]} == {100}
    assert totals["interval"][0][1] == 10
    assert totals["end"] == START + 700


def test_rates_never_wrap(tmp_path: Path) -> None:
    """A counter that falls back (a record that was used again) gives no huge numbers."""
    control = make_controller(tmp_path)
    record = control.services.connect("live", "FLV")
    control.services.update(record, sent=5000)
    control.second(2)
    control.services.update(record, down_bytes=10)
    control.second(6)
    assert clients(control, fields=["upbps", "up"]) == [[5000, 0]]


def test_shared_session_of_several_hosts(tmp_path: Path) -> None:
    """With sessions by token alone, two hosts are one session without an address, until one of them leaves."""
    control = make_controller(tmp_path, {"config": {"sessionViewerMode": 2}})
    control.services.connect("a", "FLV", "192.0.2.1", "t")
    second = control.services.connect("b", "TS", "192.0.2.2", "t")
    control.second()
    assert clients(control, fields=["host", "stream", "protocol"]) == [["::", "", "FLV,TS"]]
    control.services.disconnect(second)
    control.second()
    assert clients(control, fields=["host", "stream"]) == [["192.0.2.1", "a"]]


def test_access_log_file(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    control = make_controller(tmp_path, {"config": {"accesslog": str(path)}})
    control.services.connect("live", "FLV")
    control.second(3)
    control.services.snapshots.clear()
    control.second(20)
    (line,) = path.read_text().splitlines()
    assert line.split(", ")[2:] == ["live", "FLV", "203.0.113.7", "3", "0", "0", ""]


def test_connection_without_stream_is_nothing(tmp_path: Path) -> None:
    control = make_controller(tmp_path)
    control.services.connect("", "HTTP")
    control.second(3)
    assert not control.controller.statistics.live
    assert not control.controller.statistics.history


@pytest.mark.parametrize(
    ("value", "time"),
    [
        (None, 7), (0, 7), (-3, START - 3), (START - 5, START - 5), (10, 1010), ("-3", START - 3), ("x", 7), (1e30, 7),
        (10**30, 2**63 - 1), ([], 7),
    ],
)  # fmt: skip
def test_times_of_requests(value: object, time: int) -> None:
    assert resolve_time(value, START, 1000, 7) == time


def test_the_end_of_a_stream_is_told_after_that_of_its_last_viewer(tmp_path: Path) -> None:
    control = make_controller(tmp_path, {"streams": {"live": {"source": "push://"}}})
    viewer = control.services.connect("live", "FLV")
    control.second(2)
    control.services.disconnect(viewer)
    control.second(20)
    fired = [name for name, _, _ in control.services.triggers.fired]
    assert fired == ["USER_END", "STREAM_END"]


def test_changed_tags_are_published_where_a_filter_names_tags(tmp_path: Path) -> None:
    """Those of active streams, until they are gone."""
    control = make_controller(tmp_path, {"streams": {"live": {"source": "push://", "tags": ["own"]}}})
    viewer = control.services.connect("live", "FLV")
    control.second()
    controller, published = control.controller, control.services.published
    controller.statistics.tag_stream("live", {"b"})
    controller.tell_tags()
    assert not any("stream_tags" in snapshot for snapshot in published)
    controller.store.server["triggers"] = {"CONN_PLAY": [{"handler": "/bin/true", "streams": ["!#b"]}]}
    controller.commit()
    assert published[-1]["stream_tags"] == {"live": ["b", "own"]}
    controller.statistics.untag_stream("live", {"own"})
    control.second()
    assert published[-1]["stream_tags"] == {"live": ["b"]}
    count = len(published)
    control.second(3)
    assert len(published) == count
    control.services.disconnect(viewer)
    control.second(700)
    assert "stream_tags" not in published[-1]


def test_sessions_are_tagged_by_who_serves_them(tmp_path: Path) -> None:
    """Also before they appear here; a tag whose session does not come is nobody's after a moment."""
    control = make_controller(tmp_path, {"streams": {"live": {"source": "push://"}}})
    statistics = control.controller.statistics
    control.second(1)
    for token in ("a", "late"):
        statistics.tag_session(("live", "HLS", "203.0.113.7", token), "UA:Player [1]\n")
    control.services.connect("live", "HLS", token="a")
    control.services.connect("live", "HLS", token="b")
    control.second(1)
    sessions = {session.token: session for session in statistics.live.values()}
    assert {token: one.tag_text for token, one in sessions.items()} == {"a": "[UA:Player  1]", "b": ""}
    statistics.tag_session(("live", "HLS", "203.0.113.7", "b"), "UA:x")
    assert sessions["b"].tag_text == "[UA:x]"
    statistics.tag_session(("live", "HLS", "203.0.113.7", "b"), " \n")
    assert sessions["b"].tag_text == "[UA:x]"
    control.second(10)
    control.services.connect("live", "HLS", token="late")
    control.second(1)
    assert next(one for one in statistics.live.values() if one.token == "late").tag_text == ""
