"""The HTTP output: dispatch, pages, errors."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import socket
from collections.abc import Mapping
from typing import Any

import pytest

from mist.errors import AccessDenied, Busy, MistError, NoSuitableTrack, NotFound, NotReady, SharedMemoryFull
from mist.formats.tracks import AUDIO, VIDEO, TrackInfo
from mist.net.http_messages import RangeNotSatisfiable, Request
from mist.net.http_server import Response
from mist.outputs.http import OUTPUT
from mist.outputs.http.dispatch import Routes, error_reply
from mist.outputs.http.listener import Site
from mist.outputs.http.pages import PAGE_MATCHES, fill, player_options, script_json, seek_seconds
from mist.stream.capability import Capability
from tests.support.fake_stream import FakeStream
from tests.support.http import Application, FakeRecord, Peer, split_replies


class FakeOutput:
    """An HTTP output that says which stream it was asked for."""

    def __init__(
        self, name: str, match: tuple[str, ...] = (), prefix: tuple[str, ...] = (), error: Exception | None = None
    ):
        self.capability = Capability(
            name, name, "", deps="HTTP", url_match=match, url_prefix=prefix, url_rel=(match or prefix)[0],
            codecs=((("H264",), ("AAC",)),), methods=({"handler": "http", "type": f"html5/video/{name}", "priority": 9},),
        )  # fmt: skip
        self.error = error

    def handle(self, services: Any, request: Request, response: Response) -> None:
        if self.error:
            raise self.error
        response.send(200, f"{self.capability.name} {request.stream} {request.rest}".encode(), "text/plain")


class FakeServices:
    """What a worker gives to connections, with streams in ordinary memory."""

    def __init__(
        self, *outputs: FakeOutput, streams: Mapping[str, FakeStream | Exception] = {}, config: Any = None
    ) -> None:
        self.instance = "test"
        self.config = {"config": config or {}}
        self.log = logging.getLogger("test.http")
        self.outputs = {output.capability.name: output for output in (*outputs, OUTPUT)}
        self.streams = dict(streams)
        self.open = 0
        self.records: list[FakeRecord] = []

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    guarded = False

    def visit(self, record: Any) -> None:
        return None

    async def open_stream(self, name: str) -> Any:
        stream = self.streams.get(name, NotFound("Stream is offline: no such stream is configured"))
        if isinstance(stream, Exception):
            raise stream
        self.open += 1
        return stream.reader()

    def close_stream(self, reader: Any) -> None:
        self.open -= 1

    def open_record(self, connector: str, host: str) -> FakeRecord:
        self.records.append(FakeRecord())
        return self.records[-1]


FLV = FakeOutput("FLV", ("/$.flv",))
HLS = FakeOutput("HLS", prefix=("/hls/$/",))


def get(path: str, *lines: str, method: str = "GET") -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: media.example:8080", *lines, "", ""]).encode()


def ask(data: bytes, services: FakeServices | None = None, **options: Any) -> tuple[int, dict[str, str], bytes]:
    """Return the one reply to the one request in data."""

    async def scenario() -> bytes:
        site = Site(services or FakeServices(FLV, HLS), options)  # type: ignore[arg-type]
        application = Application(site.handle)
        application.failed = site.failed  # type: ignore[method-assign]
        peer = Peer(application, site.settings)
        sent = peer.say(data)
        for _ in range(20):
            await asyncio.sleep(0)
        return sent + peer.heard()

    [reply] = split_replies(asyncio.run(scenario()), heads_only=data.startswith(b"HEAD"))
    return reply


def page(path: str, *lines: str, services: FakeServices | None = None, **options: Any) -> str:
    status, _, body = ask(get(path, *lines), services, **options)
    assert status == 200
    return body.decode()


def live() -> FakeStream:
    return FakeStream(
        "live",
        [TrackInfo(VIDEO, "H264", width=640, height=360), TrackInfo(AUDIO, "AAC", sample_rate_hz=48000, channels=2)],
    )


# Dispatch.

ROUTED = [
    FakeOutput("A", ("/$.flv", "/$.fmp4")),
    FakeOutput("B", ("/json_$.js", "/$.js", "/exact.js")),
    FakeOutput("C", ("/webrtc/$", "/x/$/y.mpd"), ("/hls/$/", "/hls2/$")),
    FakeOutput("D", ("/$.flv",)),
]


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/live.flv", ("A", "live", "")),
        ("/live+a.b.flv", ("A", "live+a.b", "")),
        ("/.flv", None),
        ("/a/b.flv", None),
        ("/live.fl", None),
        ("/liveflv", None),
        ("/live.fmp4", ("A", "live", "")),
        ("/json_live.js", ("B", "live", "")),
        ("/json_.js", ("B", "json_", "")),
        ("/other.js", ("B", "other", "")),
        ("/exact.js", ("B", "", "")),
        ("/webrtc/live", ("C", "live", "")),
        ("/webrtc/", None),
        ("/webrtc/a/b", None),
        ("/webrtc", None),
        ("/x/live/y.mpd", ("C", "live", "")),
        ("/x/a/b/y.mpd", None),
        ("/hls/live/index.m3u8", ("C", "live", "index.m3u8")),
        ("/hls/live/0_1/5_6.ts", ("C", "live", "0_1/5_6.ts")),
        ("/hls/live/", ("C", "live", "")),
        ("/hls/live", None),
        ("/hls//index.m3u8", None),
        ("/hls2/live/a/b", ("C", "live", "a/b")),
        ("/hls2/live", ("C", "live", "")),
        ("/", None),
        ("", None),
        ("*", None),
    ],
)
def test_routes(path: str, found: tuple[str, str, str] | None) -> None:
    route = Routes(ROUTED).find(path)
    assert (route and (route.output.capability.name, route.stream, route.rest)) == found


def test_dispatch_reaches_outputs_with_the_raw_name() -> None:
    assert page("/Live%20One+x.flv") == "FLV Live One+x "
    assert page("/hls/a/b/c.ts?x=1") == "HLS a b/c.ts"


def test_a_url_that_nothing_serves() -> None:
    status, headers, body = ask(get("/x/<script>"))
    assert status == 415 and headers["content-type"].startswith("text/html") and headers["connection"] == "close"
    assert b"<script>" not in body


@pytest.mark.parametrize("path", ["/live.flv", "/nothing", "*"])
def test_options_are_answered_with_headers_alone(path: str) -> None:
    status, headers, body = ask(get(path, method="OPTIONS"))
    assert (status, body) == (200, b"") and headers["access-control-allow-methods"] == "GET, POST, OPTIONS, HEAD"


@pytest.mark.parametrize(
    ("path", "shown", "player"),
    [
        ("/live", "/live", '<a href="/live.html">/live.html</a>'),
        ("/Live%2B1/", "/Live+1/", '<a href="/live+1.html">/live+1.html</a>'),
        ("/live.m3u8", "/live.m3u8", "<code>/STREAM.html</code>"),
        ("/no/where", "/no/where", "<code>/STREAM.html</code>"),
        ("/%22%3E", "/&quot;&gt;", "<code>/STREAM.html</code>"),
        ("/a%2B%22%3E", "/a+&quot;&gt;", '<a href="/a+%22%3E.html">/a+%22%3E.html</a>'),
    ],
)
def test_what_nothing_serves_leads_to_a_player(path: str, shown: str, player: str) -> None:
    status, headers, body = ask(get(path))
    assert (status, headers["content-type"]) == (415, "text/html; charset=utf-8")
    assert f"<code>{shown}</code>. A stream is played at {player}." in body.decode()


def test_an_output_may_answer_options_itself() -> None:
    output = FakeOutput("X", ("/$.x",))
    output.answers_options = True  # type: ignore[attr-defined]
    assert ask(get("/a.x", method="OPTIONS"), FakeServices(output))[2] == b"X a "


@pytest.mark.parametrize(
    "path", ["/live.flv", "/live.html", "/json_live.js", "/player.js", "/favicon.ico", "/crossdomain.xml", "/"]
)
def test_head_of_everything(path: str) -> None:
    status, headers, _ = ask(get(path, method="HEAD"))
    got, got_headers, body = ask(get(path))
    assert status == got == 200
    assert int(headers["content-length"]) == len(body) == int(got_headers["content-length"])


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (NotFound("no such stream"), 404, "Could not retrieve stream: no such stream\n"),
        (NotReady("Stream is booting"), 404, "Could not retrieve stream: Stream is booting\n"),
        (NoSuitableTrack("nothing fits"), 404, "Could not retrieve stream: nothing fits\n"),
        (Busy("taken"), 409, "Could not retrieve stream: taken\n"),
        (SharedMemoryFull("full"), 503, "Could not retrieve stream: full\n"),
        (AccessDenied("go away"), 403, "go away\n"),
        (RangeNotSatisfiable("outside", 7), 416, "outside\n"),
        (MistError("broken"), 500, "broken\n"),
        (ZeroDivisionError("secret"), 500, "Internal server error\n"),
    ],
)
def test_errors(error: Exception, status: int, text: str, caplog: pytest.LogCaptureFixture) -> None:
    code, headers, body = ask(get("/a.x"), FakeServices(FakeOutput("X", ("/$.x",), error=error)))
    assert (code, body.decode()) == (status, text)
    assert headers["access-control-allow-origin"] == "*"
    assert headers.get("content-range") == ("bytes */7" if status == 416 else None)
    assert error_reply(error).reason == ("Error opening stream" if status == 404 else "")
    assert ("Traceback" in caplog.text) == isinstance(error, ZeroDivisionError)


# Pages.


def test_player_page() -> None:
    text = page("/Live+a&b.html")
    assert 'src="http://media.example:8080/player.js"' in text
    assert 'mistPlay("live+a\\u0026b"' in text and "<title>live+a&amp;b</title>" in text
    assert 'href="http://media.example:8080/hls/live+a%26b/index.m3u8"' in text and "live+a%26b.mp4" in text
    assert "@" not in re.sub(r"@(keyframes|media|container)", "", text)
    _, headers, _ = ask(get("/live.html"))
    assert headers["x-ua-compatible"] == "IE=edge" and headers["content-type"] == "text/html; charset=utf-8"


def test_nothing_breaks_out_of_the_player_page() -> None:
    text = page("/a+%3Cimg%20src=x%3E%22'.html?%3C/script%3E&t=</script>")
    assert text.lower().count("</script>") == 2 and "<img" not in text and "x>" not in text


def test_a_page_of_no_stream_is_not_found() -> None:
    assert ask(get("/%C3%A9.html"))[0] == 404


def test_own_pages_load_nothing_from_elsewhere() -> None:
    for path in ("/live.html", "/", "/player.js", "/embed_live.js", "/skins/default.css"):
        urls = re.findall(r"https?://[\w.-]+", page(path))
        assert {url for url in urls if "media.example" not in url} <= {"http://www.w3.org"}


@pytest.mark.parametrize(
    ("lines", "options", "base"),
    [
        ((), {}, "http://media.example:8080"),
        ((), {"pubaddr": ["https://cdn.example/mist/", "http://other"]}, "https://cdn.example/mist"),
        ((), {"pubaddr": "http://one http://two"}, "http://one"),
        (("X-Mst-Path: https://edge.example/m/",), {"pubaddr": ["https://cdn.example"]}, "https://edge.example/m"),
    ],
)
def test_the_public_address(lines: tuple[str, ...], options: dict[str, Any], base: str) -> None:
    assert f'mistoptions.host="{base}"' in page("/player.js", *lines, **options)
    assert f'src="{base}/player.js"' in page("/live.html", *lines, **options)
    found = json.loads(
        page("/json_live.js", *lines, services=FakeServices(FLV, streams={"live": with_media()}), **options)
    )["source"]
    assert f"{base}/live.flv" in {source["url"].split("?")[0] for source in found}


def with_media() -> FakeStream:
    from mist.core.packet import Packet

    stream = live()
    for number in range(3):
        stream.write(Packet(0, number * 40_000, 0, number == 0, b"\0\0\0\1\x65"))
        stream.write(Packet(1, number * 21_333, 0, True, b"x"))
    return stream


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", {}),
        ("?muted", {"muted": True, "urlappend": "?muted"}),
        ("?dev&nounix&nocatchup", {"skin": "dev", "useDateTime": False, "liveCatchup": False}),
        ("?forcetype=a&forceplayer=b", {"forceType": "a", "forcePlayer": "b"}),
        ("?forceType=c", {"forceType": "c"}),
        ("?autoplay=false", {"autoplay": False}),
        ("?autoplay=0", {"autoplay": False}),
        ("?autoplay=1", {}),
        ("?t=1m5s", {"startTime": 65.0}),
    ],
)
def test_player_options(query: str, expected: dict[str, Any]) -> None:
    [options] = re.findall(r"var options = (\{.*?\});", page(f"/live.html{query}"))
    found = json.loads(options)
    assert found["fillSpace"] is True and found["host"] == "http://media.example:8080"
    assert expected.items() <= found.items()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("1m30s", 90),
        ("1:30", 90),
        ("1h2m3s", 3723),
        ("1:02:03", 3723),
        ("1.5", 1.5),
        ("x", None),
        ("", None),
        ("1:2:3:4", None),
    ],
)
def test_seek_times(text: str, seconds: float | None) -> None:
    assert seek_seconds(text) == seconds


def test_scripts() -> None:
    script = page("/player.js")
    assert script.startswith("window.mistoptions=window.mistoptions||{};") and "window.mistPlay = " in script
    embed = page("/embed_live.js")
    assert embed.startswith(script) and 'mistPlay("live",options)' in embed
    assert "fillSpace" not in embed[len(script) :]


def test_policies_icon_robots() -> None:
    assert "allow-access-from" in page("/crossdomain.xml") and "cross-domain-access" in page("/clientaccesspolicy.xml")
    for path in ("/favicon.ico", "/apple-touch.ico"):
        status, headers, body = ask(get(path))
        assert status == 200 and headers["content-type"] == "image/x-icon" and body[:4] == b"\0\0\1\0"
        assert headers["cache-control"] == "public, max-age=86400"
    assert page("/robots.txt").startswith("User-agent: *")
    assert page("/favicon.svg").startswith("<svg")


def test_the_bare_address_leads_to_a_stream() -> None:
    assert "<form" in page("/")
    status, headers, _ = ask(get("/?stream=Demo%20x"))
    assert status == 302 and headers["location"] == "http://media.example:8080/demo+x.html"


def test_information_of_a_playing_stream() -> None:
    services = FakeServices(FLV, HLS, streams={"live": with_media()})
    status, headers, body = ask(get("/json_live.js"), services)
    document = json.loads(body)
    assert status == 200 and headers["content-type"] == "application/json" and services.open == 0
    assert (document["type"], document["width"], document["height"]) == ("live", 640, 360)
    assert {source["type"] for source in document["source"]} == {"html5/video/FLV", "html5/video/HLS"}
    assert "set-cookie" in headers and "?tkn=" in document["source"][0]["url"]
    script = page("/info_live.js", services=services)
    assert script.startswith("if(!window.mistvideo)") and 'mistvideo["live"]={' in script


@pytest.mark.parametrize(
    ("stream", "error"),
    [
        (NotFound("Stream is offline: no such stream is configured"), "Stream is offline"),
        (NotFound("whatever"), "Stream is offline"),
        (NotReady("Stream is waiting for data"), "Stream is waiting for data"),
        (NotReady("Stream is booting"), "Stream is booting"),
        (AccessDenied("no"), "Could not retrieve stream. Sorry."),
    ],
)
def test_information_of_a_stream_that_does_not_play(stream: Exception, error: str) -> None:
    services = FakeServices(FLV, streams={"live": stream})
    assert json.loads(page("/json_live.js", services=services)) == {"error": error}
    told = json.loads(page("/json_live.js", services=services, nostreamtext="Back at <b>8</b>"))
    assert told == {"error": error, "on_error": "Back at <b>8</b>"}


def test_smil() -> None:
    services = FakeServices(streams={"live": with_media()}, config={"protocols": [{"connector": "RTMP", "port": 1940}]})
    text = page("/live.smil", services=services)
    assert (
        "<meta base='rtmp://media.example:1940/play/' />" in text
        and "src='live?track=0'" in text
        and "width='640'" in text
    )
    assert services.open == 0


# Configuration.


def test_configuration_is_followed() -> None:
    async def scenario() -> None:
        services = FakeServices(config={"tknMode": 3, "trustedproxy": "10.0.0.0/8 192.0.2.1"})
        site = Site(services, {})  # type: ignore[arg-type]
        assert site.settings.token_mode == 3 and site.settings.trusted.trusts("10.1.1.1")
        services.config = {"config": {"trustedproxy": ["198.51.100.0/24"]}}
        site.refresh()
        assert site.settings.token_mode == 15 and not site.settings.trusted.trusts("10.1.1.1")
        assert site.settings.trusted.trusts("198.51.100.9")

    asyncio.run(scenario())


def test_capability() -> None:
    document = OUTPUT.capability.document()
    assert document["name"] == "HTTP" and document["url_match"] == list(PAGE_MATCHES)
    assert document["optional"]["port"]["default"] == 8080
    assert {"wrappers", "nostreamtext", "pubaddr", "interface"} <= set(document["optional"])
    json.dumps(document)


def test_an_accepted_socket_is_served() -> None:
    async def scenario() -> None:
        services = FakeServices(FLV)
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        OUTPUT.connection(services, {}, ours, "::ffff:198.51.100.7")  # type: ignore[arg-type]
        reader, writer = await asyncio.open_connection(sock=theirs)
        writer.write(get("/live.flv", "Connection: close"))
        reply = await reader.read()
        assert reply.startswith(b"HTTP/1.1 200 OK") and reply.endswith(b"FLV live ")
        writer.close()
        await writer.wait_closed()
        await asyncio.sleep(0)
        assert services.records[0].closed == 1

    asyncio.run(scenario())


def test_who_cannot_be_written_down_is_told_why() -> None:
    """A connection that shared memory has no room for gets a reply, also to what is no request, and is closed then."""

    class FullServices(FakeServices):
        def open_record(self, connector: str, host: str) -> FakeRecord:
            raise SharedMemoryFull("no room for 65536 bytes; free /dev/shm")

    async def run(sent: bytes) -> bytes:
        here, there = socket.socketpair()
        there.setblocking(False)
        OUTPUT.connection(FullServices(), {}, there, "192.0.2.1")  # type: ignore[arg-type]
        here.setblocking(False)
        reader, writer = await asyncio.open_connection(sock=here)
        writer.write(sent)
        data = await reader.read(-1)
        writer.close()
        return data

    for sent in (get("/live.flv"), get("/any.html", method="POST")):
        [(status, headers, body)] = split_replies(asyncio.run(run(sent)))
        assert (status, body) == (503, b"no room for 65536 bytes; free /dev/shm\n")
        assert headers["connection"] == "close" and int(headers["retry-after"]) > 0


def test_templates_and_scripts_are_escaped() -> None:
    assert fill("@A@ @B@ @C@", {"A": "@B@", "B": "x"}) == "@B@ x @C@"
    assert script_json("</script>\u2028&") == '"\\u003c/script\\u003e\\u2028\\u0026"'
    assert player_options({}, b"a=%22", "http://h")["urlappend"] == "?a=%22"
