"""The HLS output against a stream in ordinary memory: playlists, segments, waiting, errors."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from mist.core.packet import Packet
from mist.errors import NotFound, StreamError
from mist.formats.m3u8 import CONTENT_TYPE, MasterPlaylist, MediaPlaylist, parse_playlist
from mist.formats.tracks import AUDIO, META, VIDEO, TrackInfo
from mist.outputs import hls
from mist.outputs.hls import HlsOutput, live
from mist.stream.state import StreamStatus
from tests.support.fake_stream import FakeReader, FakeStream
from tests.support.ts_check import check_ts

SPS = bytes.fromhex("6764000aacd9")
AVCC = bytes.fromhex("0164000affe10006") + SPS + b"\x01\x00\x06" + bytes.fromhex("68ebe3cb22c0")
VIDEO_TRACK = TrackInfo(VIDEO, "H264", AVCC, width=640, height=360, frame_rate_mhz=25_000)
SMALL_TRACK = TrackInfo(VIDEO, "H264", AVCC, width=320, height=180, frame_rate_mhz=25_000)
AUDIO_TRACK = TrackInfo(AUDIO, "AAC", b"\x12\x10", sample_rate_hz=44100, channels=2)
FRAME_US = 40_000


@dataclass
class Reply:
    status: int
    body: bytes
    content_type: str
    cache: str | None


@dataclass
class Record:
    said: list[tuple[str, Any]] = field(default_factory=list)

    def set_host(self, host: str) -> None:
        """Addresses of viewers are not looked at."""

    def set_stream(self, stream: str) -> None:
        self.said.append(("stream", stream))

    def set_connector(self, connector: str) -> None:
        self.said.append(("connector", connector))

    def set_token(self, token: str) -> None:
        self.said.append(("token", token))

    def set_position(self, media_us: int) -> None:
        self.said.append(("position", media_us))


@dataclass
class Response:
    record: Record | None = None
    reply: Reply | None = None

    def send(
        self, status: int, body: bytes = b"", content_type: str = "", headers: Any = None, cache: str | None = None
    ) -> None:
        assert self.reply is None, "a second reply"
        self.reply = Reply(status, body, content_type, cache)


@dataclass
class Request:
    rest: str
    query: dict[str, str] = field(default_factory=dict)
    method: str = "GET"
    stream: str = "live"
    token: str = ""
    named_token: str = ""
    admitted: str = ""
    peer: str = ""
    token_mode: int = 0
    headers: dict[str, str] = field(default_factory=dict)


class Fanout:
    def watch(self, reader: FakeReader, callback: Callable[[], None]) -> FakeReader:
        reader._stream.watchers.append(callback)
        return reader

    def unwatch(self, watch: FakeReader, callback: Callable[[], None]) -> None:
        watch._stream.watchers.remove(callback)


class Services:
    """What the output asks of its process, with one stream."""

    def __init__(self, stream: FakeStream | None, config: dict[str, Any] | None = None) -> None:
        self.stream = stream
        self.config = config or {}
        self.fanout = Fanout()
        self.loop = asyncio.get_running_loop()
        self.opened = 0
        self.closed = 0
        self.readers: dict[int, FakeReader] = {}

    guarded = False

    def visit(self, record: Any) -> None:
        return None

    async def open_stream(self, name: str) -> FakeReader:
        if self.stream is None or name != self.stream.name or self.stream.status in hls.UNPLAYABLE:
            raise NotFound("Stream is offline")
        self.opened += 1
        return self.readers.setdefault(id(self.stream), self.stream.reader())

    def close_stream(self, reader: FakeReader) -> None:
        self.closed += 1


class Server:
    def __init__(self, stream: FakeStream | None, config: dict[str, Any] | None = None) -> None:
        self.services = Services(stream, config)
        self.output = HlsOutput()

    async def get(self, rest: str, **fields: Any) -> Reply:
        response = Response(fields.pop("record", None))
        pending = self.output.handle(self.services, Request(rest, **fields), response)  # type: ignore[arg-type]
        if pending is not None:
            await pending
        assert response.reply is not None
        return response.reply

    async def media(self, rest: str, **fields: Any) -> MediaPlaylist:
        reply = await self.get(rest, **fields)
        assert (reply.status, reply.content_type, reply.cache) == (200, CONTENT_TYPE, None)
        playlist = parse_playlist(reply.body)
        assert isinstance(playlist, MediaPlaylist)
        return playlist


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(20):
            await test()

    asyncio.run(bounded())


def unit(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


def feed(stream: FakeStream, frames: range, *, gop: int = 50) -> None:
    """Write frames of the video tracks and the audio that goes with them."""
    videos = [track.index for track in stream.valid_tracks() if track.info.type == VIDEO]
    audios = [track.index for track in stream.valid_tracks() if track.info.type == AUDIO]
    for number in frames:
        key = number % gop == 0
        payload = unit((b"\x65" if key else b"\x41") + number.to_bytes(4, "big") * 50)
        for index in videos:
            stream.write(Packet(index, number * FRAME_US, 0, key, payload))
        for index in audios:
            for half in (0, 1):
                stream.write(Packet(index, number * FRAME_US + half * 20_000, 0, True, number.to_bytes(4, "big") * 30))


def make_stream(frames: int, tracks: tuple[TrackInfo, ...] = (VIDEO_TRACK, AUDIO_TRACK), gop: int = 50) -> FakeStream:
    stream = FakeStream("live", tracks)
    feed(stream, range(frames), gop=gop)
    return stream


def test_master_has_every_quality() -> None:
    async def test() -> None:
        server = Server(make_stream(160, (VIDEO_TRACK, SMALL_TRACK, AUDIO_TRACK)))
        reply = await server.get("index.m3u8")
        assert (reply.status, reply.content_type, reply.cache) == (200, CONTENT_TYPE, None)
        lines = reply.body.decode().split("\r\n")
        assert lines[0] == "#EXTM3U"
        assert lines[1].startswith("#EXT-X-STREAM-INF:PROGRAM-ID=1,BANDWIDTH=")
        assert lines[1].endswith('RESOLUTION=640x360,FRAME-RATE=25.000,CODECS="avc1.64000A,mp4a.40.2"')
        playlist = parse_playlist(reply.body)
        assert isinstance(playlist, MasterPlaylist)
        assert [variant.uri for variant in playlist.variants] == ["0_2/index.m3u8", "1_2/index.m3u8"]
        assert all(variant.bandwidth_bps > 10_000 for variant in playlist.variants)

    run(test)


def test_other_sound_tracks_are_renditions() -> None:
    async def test() -> None:
        german, french = (replace(AUDIO_TRACK, language=language) for language in ("deu", "fra"))
        server = Server(make_stream(160, (VIDEO_TRACK, SMALL_TRACK, AUDIO_TRACK, german, french, german)))
        single = Server(make_stream(160, (VIDEO_TRACK, SMALL_TRACK, AUDIO_TRACK)))
        lines = (await server.get("index.m3u8", token="7", token_mode=15)).body.decode().split("\r\n")
        same = 'TYPE=AUDIO,GROUP-ID="audio",'
        assert lines[:6] == [
            "#EXTM3U",
            "#EXT-X-VERSION:4",
            f'#EXT-X-MEDIA:{same}NAME="Track 2",AUTOSELECT=YES,DEFAULT=YES,CHANNELS="2"',
            f'#EXT-X-MEDIA:{same}LANGUAGE="de",NAME="German",AUTOSELECT=YES,DEFAULT=NO,CHANNELS="2",'
            'URI="3/index.m3u8?tkn=7"',
            f'#EXT-X-MEDIA:{same}LANGUAGE="fr",NAME="French",AUTOSELECT=YES,DEFAULT=NO,CHANNELS="2",'
            'URI="4/index.m3u8?tkn=7"',
            f'#EXT-X-MEDIA:{same}LANGUAGE="de",NAME="German (5)",AUTOSELECT=NO,DEFAULT=NO,CHANNELS="2",'
            'URI="5/index.m3u8?tkn=7"',
        ]
        assert lines[6].endswith('AUDIO="audio",CODECS="avc1.64000A,mp4a.40.2"')
        assert lines[7] == "0_2/index.m3u8?tkn=7"
        playlist = parse_playlist("\r\n".join(lines).encode())
        plain = parse_playlist((await single.get("index.m3u8")).body)
        assert isinstance(playlist, MasterPlaylist) and isinstance(plain, MasterPlaylist)
        assert playlist.variants[0].bandwidth_bps > plain.variants[0].bandwidth_bps  # both sounds are fetched
        chosen = (await server.get("index.m3u8", query={"audio": "deu,|3"})).body
        assert b"EXT-X-MEDIA" not in chosen and b"0_3/index.m3u8" in chosen

    run(test)


def test_subtitles_are_renditions_cut_where_the_picture_is() -> None:
    async def test() -> None:
        info = TrackInfo(META, "subtitle", language="ger")
        stream = FakeStream("live", (VIDEO_TRACK, AUDIO_TRACK, info))
        server = Server(stream)
        for at_ms, text in ((2_500, "one"), (3_000, ""), (3_500, "two\r\n\nlines"), (7_000, ""), (9_000, "a --> b")):
            feed(stream, range(stream.track(0).next_sequence, at_ms // 40))
            stream.write(Packet(2, at_ms * 1000, 0, True, text.encode()))
        feed(stream, range(stream.track(0).next_sequence, 260))
        master = parse_playlist((await server.get("index.m3u8")).body)
        assert isinstance(master, MasterPlaylist)
        assert [one.subtitles for one in master.variants] == ["sub1"]
        assert [(one.type, one.group_id, one.language, one.name, one.uri) for one in master.renditions] == [
            ("SUBTITLES", "sub1", "de", "German", "2/index.m3u8")
        ]
        texts, picture = await server.media("2/index.m3u8"), await server.media("0_1/index.m3u8")
        assert [one.uri.replace("vtt", "ts") for one in texts.segments] == [one.uri for one in picture.segments]
        reply = await server.get("2/2000_4000.vtt")
        assert (reply.status, reply.content_type) == (200, "text/vtt; charset=utf-8")
        assert reply.body.decode() == (
            "WEBVTT\nX-TIMESTAMP-MAP=LOCAL:00:00:02.000,MPEGTS:180000\n\n"
            "00:00:02.500 --> 00:00:03.000\none\n\n00:00:03.500 --> 00:00:04.000\ntwo\nlines\n\n"
        )
        assert b"00:00:04.000 --> 00:00:06.000\ntwo\nlines\n" in (await server.get("2/4000_6000.vtt")).body
        assert b"00:00:06.000 --> 00:00:07.000\ntwo\nlines\n" in (await server.get("2/6000_8000.vtt")).body
        assert b"00:00:09.000 --> 00:00:10.000\na --&gt; b\n" in (await server.get("2/8000_10000.vtt")).body
        for selector in ({"subtitle": "none"}, {"meta": "none"}, {"subtitle": "fra"}):
            assert b"SUBTITLES" not in (await server.get("index.m3u8", query=selector)).body
        for wrong in ("2/2000_4000.ts", "0_1/2000_4000.vtt", "0_2/index.m3u8", "2/1_2.vtt"):
            with pytest.raises(NotFound):
                reply = await server.get(wrong)
                raise NotFound("an error playlist") if b"#EXT-X-ERROR" in reply.body else AssertionError(wrong)

    run(test)


def test_bandwidth_covers_the_busiest_segment() -> None:
    async def test() -> None:
        server = Server(make_stream(260))
        master = parse_playlist((await server.get("index.m3u8")).body)
        assert isinstance(master, MasterPlaylist)
        for segment in (await server.media("0_1/index.m3u8")).segments:
            body = (await server.get(f"0_1/{segment.uri}")).body
            assert len(body) * 8_000_000 / segment.duration_us <= master.variants[0].bandwidth_bps

    run(test)


def test_master_follows_selectors_and_carries_the_query() -> None:
    async def test() -> None:
        server = Server(make_stream(160, (VIDEO_TRACK, SMALL_TRACK, AUDIO_TRACK, AUDIO_TRACK)))

        async def uris(**fields: Any) -> list[str]:
            playlist = parse_playlist((await server.get("index.m3u8", **fields)).body)
            assert isinstance(playlist, MasterPlaylist)
            return [variant.uri for variant in playlist.variants]

        assert await uris(query={"video": "320x180"}) == ["1_2/index.m3u8"]
        assert await uris(query={"video": "none"}) == ["2/index.m3u8"]
        assert await uris(query={"audio": "none"}) == ["0/index.m3u8", "1/index.m3u8"]
        assert await uris(query={"audio": "3", "video": "0"}) == ["0_3/index.m3u8"]
        assert await uris(query={"start": "1000", "stop": "5 &x"}, token="a&b", token_mode=15) == [
            f"{track}_2/index.m3u8?start=1000&stop=5%20%26x&tkn=a%26b" for track in (0, 1)
        ]
        assert (await uris(token="7", token_mode=3))[0] == "0_2/index.m3u8"
        reply = await server.get("index.m3u8", query={"audio": "none", "video": "none"})
        assert b"#EXT-X-ERROR: Stream has no track" in reply.body

    run(test)


def test_audio_only() -> None:
    async def test() -> None:
        server = Server(make_stream(260, (AUDIO_TRACK,)))
        playlist = parse_playlist((await server.get("index.m3u8")).body)
        assert isinstance(playlist, MasterPlaylist)
        assert [(v.uri, v.codecs, v.resolution) for v in playlist.variants] == [("0/index.m3u8", "mp4a.40.2", None)]
        media = await server.media("0/index.m3u8")
        assert len(media.segments) == 4
        report = check_ts((await server.get(f"0/{media.segments[0].uri}")).body)
        assert report.errors == []
        assert len(report.payloads(256)) == media.segments[0].duration_us // 20_000

    run(test)


def test_media_playlist_and_its_segments() -> None:
    async def test() -> None:
        stream = make_stream(260)
        server = Server(stream)
        playlist = await server.media("0_1/index.m3u8")
        assert playlist.target_duration_s == 2
        assert playlist.media_sequence == 1  # the oldest is about to leave
        assert [segment.uri for segment in playlist.segments] == [
            "2000_4000.ts", "4000_6000.ts", "6000_8000.ts", "8000_10000.ts",
        ]  # fmt: skip
        assert not playlist.ended
        counters: dict[int, int] = {}
        video: list[bytes] = []
        audio: list[bytes] = []
        for segment in playlist.segments:
            reply = await server.get(f"0_1/{segment.uri}")
            assert (reply.status, reply.content_type) == (200, "video/mp2t")
            assert reply.cache == "public, max-age=10, immutable"
            report = check_ts(reply.body, counters)
            assert report.errors == []
            assert report.table_places == [1]
            first = next(pes for pes in report.pes if pes.pid == 256)
            assert first.random_access
            assert first.dts == int(segment.uri.split("_")[0]) * 90
            counters = report.last_counters
            video += report.payloads(256)
            audio += report.payloads(257)
        assert [payload[-4:] for payload in video] == [number.to_bytes(4, "big") for number in range(50, 250)]
        assert [payload[-4:] for payload in audio] == [
            number.to_bytes(4, "big") for number in range(50, 250) for _ in "ab"
        ]

    run(test)


def test_audio_playlist_follows_the_fragments_of_the_video() -> None:
    async def test() -> None:
        server = Server(make_stream(260))
        both, alone = await server.media("0_1/index.m3u8"), await server.media("1/index.m3u8")
        assert alone == both
        report = check_ts((await server.get("1/2000_4000.ts")).body)
        assert report.errors == []
        assert report.pids == {256: 0x0F}
        assert len(report.payloads(256)) == 100

    run(test)


def test_every_worker_makes_the_same_bytes() -> None:
    async def test() -> None:
        stream = make_stream(260)
        first, second = Server(stream), Server(stream)
        await first.get("0_1/2000_4000.ts")
        assert (await first.get("0_1/4000_6000.ts")).body == (await second.get("0_1/4000_6000.ts")).body
        assert (await first.get("0_1/index.m3u8")).body == (await second.get("0_1/index.m3u8")).body

    run(test)


def test_playlist_grows_and_never_goes_back() -> None:
    async def test() -> None:
        stream = make_stream(110)
        server = Server(stream)
        before = await server.media("0_1/index.m3u8")
        assert len(before.segments) == 2
        for number in range(110, 1500, 7):
            feed(stream, range(number, number + 7))
            if len(stream.track(0).keys) > 12:
                stream.trim(0, 1)
                stream.trim_before(1, stream.track(0).packets[0].dts_us)
            after = await server.media("0_1/index.m3u8")
            assert after.media_sequence >= before.media_sequence
            assert after.target_duration_s == before.target_duration_s
            known = {segment.sequence: segment.uri for segment in before.segments}
            assert all(known.get(segment.sequence, segment.uri) == segment.uri for segment in after.segments)
            assert after.segments[-1].sequence - before.segments[-1].sequence in (0, 1)
            for segment in (after.segments[0], after.segments[-1]):
                assert (await server.get(f"0_1/{segment.uri}")).status == 200
            before = after

    run(test)


def test_list_limit_and_chunk_path() -> None:
    async def test() -> None:
        config = {
            "config": {
                "protocols": [
                    {"connector": "HTTP"},
                    {"connector": "HLS", "listlimit": 5, "chunkpath": "https://cdn.example/x/"},
                ]
            }
        }
        server = Server(make_stream(1260), config)
        playlist = await server.media("0_1/index.m3u8", token="77", token_mode=15)
        assert len(playlist.segments) == 5
        assert playlist.segments[-1].uri == "https://cdn.example/x/hls/live/0_1/48000_50000.ts?tkn=77"
        reply = await server.get("0_1/48000_50000.ts", token="77", token_mode=15)
        assert reply.cache == "public, max-age=50, immutable"

    run(test)


def test_tokens_in_urls() -> None:
    async def test() -> None:
        server = Server(make_stream(260))
        for token in ("1", "2"):
            playlist = await server.media("0_1/index.m3u8", token=token, token_mode=15)
            assert playlist.segments[0].uri == f"2000_4000.ts?tkn={token}"
        assert (await server.get("0_1/2000_4000.ts", token="1", token_mode=15)).cache == "no-store"

    run(test)


def test_part_of_the_stream() -> None:
    async def test() -> None:
        server = Server(make_stream(1260))
        playlist = await server.media("0_1/index.m3u8", query={"start": "3000", "stop": "8000"})
        assert [segment.uri for segment in playlist.segments] == ["2000_4000.ts", "4000_6000.ts", "6000_8000.ts"]
        assert playlist.ended
        playlist = await server.media("0_1/index.m3u8", query={"stop": "99000000"})
        assert len(playlist.segments) == 23
        assert not playlist.ended

    run(test)


def test_break_of_the_stream() -> None:
    async def test() -> None:
        stream = make_stream(110)
        stream.mark_discontinuity()
        feed(stream, range(110, 260))
        server = Server(stream)
        playlist = await server.media("0_1/index.m3u8")
        assert [(s.uri, s.discontinuity, s.discontinuity_sequence) for s in playlist.segments] == [
            ("2000_4000.ts", False, 0), ("4000_6000.ts", False, 0), ("6000_8000.ts", True, 1), ("8000_10000.ts", False, 1),
        ]  # fmt: skip
        feed(stream, range(260, 460))
        playlist = await server.media("0_1/index.m3u8")
        assert playlist.media_sequence == 2
        assert playlist.discontinuity_sequence == 0
        stream.trim(0, 2)
        stream.trim_before(1, 4_000_000)
        feed(stream, range(460, 510))
        playlist = await server.media("0_1/index.m3u8")
        assert (playlist.media_sequence, playlist.discontinuity_sequence) == (4, 1)
        assert not any(segment.discontinuity for segment in playlist.segments)

    run(test)


def test_new_init_data() -> None:
    """Fragments keep the parameter sets they were coded with, for late workers too; those of unknown ones are left out."""

    async def test() -> None:
        stream = make_stream(160)
        server, late = Server(stream), Server(stream)
        before = (await server.get("0_1/2000_4000.ts")).body
        server.output.cache.forget(lambda key: True)
        stream.update_track(0, replace(SMALL_TRACK, init_data=AVCC.replace(SPS, b"\x67other")))
        feed(stream, range(160, 320))
        playlist = await server.media("0_1/index.m3u8")
        assert [(segment.uri, segment.discontinuity) for segment in playlist.segments] == [
            ("2000_4000.ts", False), ("4000_6000.ts", False), ("6000_8000.ts", False), ("8000_10000.ts", True),
            ("10000_12000.ts", False),
        ][-len(playlist.segments) :]  # fmt: skip
        assert (await server.get("0_1/2000_4000.ts")).body == before
        assert SPS in before
        after = (await server.get("0_1/8000_10000.ts")).body
        assert b"\x67other" in after
        assert SPS not in after
        assert (await late.media("0_1/index.m3u8")).segments == playlist.segments
        assert (await late.get("0_1/2000_4000.ts")).body == before
        assert (await late.get("0_1/8000_10000.ts")).body == after
        stream.track(0).former.clear()
        playlist = await Server(stream).media("0_1/index.m3u8")
        assert [segment.uri for segment in playlist.segments] == ["8000_10000.ts", "10000_12000.ts"]

    run(test)


def adts_rates(segment: bytes) -> list[int]:
    """Return the sample rate index of each AAC frame of 120 bytes in a segment."""
    starts = [
        at for at in range(len(segment) - 7) if segment[at : at + 2] == b"\xff\xf1" and segment[at + 4] == 127 >> 3
    ]
    return [segment[at + 2] >> 2 & 15 for at in starts]


def test_new_init_data_of_the_sound() -> None:
    """The sound's parameters change within a segment: each frame says its own, the next segment breaks off and says only the new."""

    async def test() -> None:
        stream = make_stream(160)
        server, late = Server(stream), Server(stream)
        await server.media("0_1/index.m3u8")
        stream.update_track(1, replace(AUDIO_TRACK, init_data=b"\x11\x90", sample_rate_hz=48000))
        feed(stream, range(160, 320))
        for name in ("0", "1", "0_1"):
            playlist = await server.media(f"{name}/index.m3u8")
            assert [(one.uri, one.discontinuity, one.discontinuity_sequence) for one in playlist.segments] == [
                ("2000_4000.ts", False, 0), ("4000_6000.ts", False, 0), ("6000_8000.ts", False, 0),
                ("8000_10000.ts", True, 1), ("10000_12000.ts", False, 1),
            ][-len(playlist.segments) :]  # fmt: skip
        segments = [(await server.get(f"0_1/{name}.ts")).body for name in ("4000_6000", "6000_8000", "8000_10000")]
        rates = [adts_rates(segment) for segment in segments]
        assert rates == [[4] * 100, [4] * 20 + [3] * 80, [3] * 100]
        assert (await late.media("0_1/index.m3u8")).segments == playlist.segments
        assert [(await late.get(f"0_1/{name}.ts")).body for name in ("4000_6000", "6000_8000")] == segments[:2]
        stream.trim(0, 5)
        stream.trim_before(1, 10_000_000)
        feed(stream, range(320, 560))
        playlist = await server.media("0_1/index.m3u8")
        assert playlist.discontinuity_sequence == 1
        assert not any(segment.discontinuity for segment in playlist.segments)

    run(test)


def test_waits_for_two_fragments() -> None:
    async def test() -> None:
        stream = make_stream(10)
        server = Server(stream)
        waiting = asyncio.ensure_future(server.get("0_1/index.m3u8"))
        for number in range(10, 102, 4):
            await asyncio.sleep(0)
            assert not waiting.done()
            feed(stream, range(number, number + 4))
        playlist = parse_playlist((await waiting).body)
        assert isinstance(playlist, MediaPlaylist)
        assert [segment.uri for segment in playlist.segments] == ["0_2000.ts", "2000_4000.ts"]
        assert stream.watchers == []

    run(test)


def test_gives_what_there_is_when_waiting_takes_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hls, "START_WAIT_S", 0.01)

    async def test() -> None:
        playlist = await Server(make_stream(60)).media("0_1/index.m3u8")
        assert [segment.uri for segment in playlist.segments] == ["0_2000.ts"]
        reply = await Server(make_stream(10)).get("0_1/index.m3u8")
        assert reply.status == 200
        assert b"#EXT-X-ERROR: Stream is waiting for data" in reply.body

    run(test)


def test_end_of_stream() -> None:
    async def test() -> None:
        stream = make_stream(285)
        server = Server(stream)
        assert not (await server.media("0_1/index.m3u8")).ended
        stream.set_status(StreamStatus.SHUTDOWN)
        playlist = await server.media("0_1/index.m3u8")
        assert playlist.ended
        assert playlist.segments[-1].uri == "10000_11400.ts"
        report = check_ts((await server.get("0_1/10000_11400.ts")).body)
        assert report.errors == []
        assert len(report.payloads(256)) == 35
        assert len(report.payloads(257)) == 70

    run(test)


def test_end_of_a_stream_whose_memory_is_gone_already(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        stream = make_stream(260)
        server = Server(stream)
        before = await server.media("0_1/index.m3u8")

        def gone(_reader: FakeReader, _index: int) -> None:
            raise NotFound("no shared memory of that name")

        monkeypatch.setattr(FakeReader, "keys", gone)
        stream.set_status(StreamStatus.OFF)
        after = await server.media("0_1/index.m3u8")
        assert after.ended and after.segments == before.segments

    run(test)


def test_stream_that_comes_back() -> None:
    async def test() -> None:
        server = Server(make_stream(260))
        await server.media("0_1/index.m3u8")
        assert server.services.stream is not None
        server.services.stream.status = StreamStatus.OFF
        server.services.stream = make_stream(160)
        playlist = await server.media("0_1/index.m3u8")
        assert (playlist.media_sequence, playlist.ended) == (0, False)
        assert server.services.closed == 1

    run(test)


def test_missing_stream_is_an_error_playlist() -> None:
    async def test() -> None:
        server = Server(None)
        for rest in ("index.m3u8", "0_1/index.m3u8"):
            reply = await server.get(rest)
            assert (reply.status, reply.content_type) == (200, CONTENT_TYPE)
            assert b"#EXT-X-ERROR: Stream is offline\r\n#EXT-X-ENDLIST" in reply.body
            parse_playlist(reply.body)
        with pytest.raises(StreamError, match="Stream is offline"):
            await server.get("0_1/0_2000.ts")

    run(test)


@pytest.mark.parametrize(
    "rest",
    [
        "", "x", "0_1/", "0_1/x.ts", "0_1/0_2000.ts", "0_1/2000_4001.ts", "0_1/2000_4000.mp4", "2000_4000.ts",
        "7/2000_4000.ts", "0_7/2000_4000.ts", "0_0/2000_4000.ts", "0_1_0_1_0/2000_4000.ts", "a/2000_4000.ts",
        "0_1/a/2000_4000.ts", "../2000_4000.ts", "0_1/99999999999999999_1.ts", "0_1/2000_4000.ts/",
    ],
)  # fmt: skip
def test_bad_addresses(rest: str) -> None:
    async def test() -> None:
        stream = make_stream(360)
        stream.trim(0, 1)
        stream.trim_before(1, 2_000_000)
        with pytest.raises(NotFound):
            await Server(stream).get(rest)

    run(test)


@pytest.mark.parametrize("rest", ["7/index.m3u8", "0_0/index.m3u8", "x/index.m3u8", "0_1/x/index.m3u8"])
def test_bad_playlists(rest: str) -> None:
    async def test() -> None:
        reply = await Server(make_stream(260)).get(rest)
        assert reply.status == 200
        assert b"#EXT-X-ERROR: " in reply.body

    run(test)


def test_options_and_statistics() -> None:
    async def test() -> None:
        server = Server(make_stream(260))
        for rest in ("index.m3u8", "0_1/2000_4000.ts"):
            reply = await server.get(rest, method="OPTIONS")
            assert (reply.status, reply.body, reply.cache) == (204, b"", "no-store")
        record = Record()
        await server.get("0_1/2000_4000.ts", record=record, token="9")
        assert record.said == [("connector", "HLS"), ("stream", "live"), ("token", "9"), ("position", 2_000_000)]

    run(test)


def test_one_reader_for_many_requests_given_back_when_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        server = Server(make_stream(260))
        for _ in range(10):
            await server.get("0_1/index.m3u8")
            await server.get("0_1/2000_4000.ts")
        assert (server.services.opened, server.services.closed) == (1, 0)
        assert server.output.cache.misses == 1
        server.output._close_idle(server.services)  # type: ignore[arg-type]
        assert server.services.closed == 0
        monkeypatch.setattr(hls, "IDLE_S", 0.0)
        server.output._close_idle(server.services)  # type: ignore[arg-type]
        assert server.services.closed == 1
        assert len(server.output.cache) == 0
        await server.get("0_1/2000_4000.ts")
        assert server.services.opened == 2
        server.output.close()
        assert server.services.closed == 2

    run(test)


def test_kept_segment_outlives_the_buffer() -> None:
    async def test() -> None:
        stream = make_stream(360)
        server = Server(stream)
        kept = (await server.get("0_1/2000_4000.ts")).body
        stream.trim(0, 3)
        stream.trim_before(1, 6_000_000)
        assert (await server.get("0_1/2000_4000.ts")).body == kept
        with pytest.raises(NotFound, match="out of range"):
            await server.get("0_1/4000_6000.ts")

    run(test)


def test_settled_requests_need_no_new_look_at_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        server = Server(make_stream(260))
        await server.get("0_1/index.m3u8")
        monkeypatch.setattr(live, "list_fragments", None)
        for _ in range(3):
            await server.media("0_1/index.m3u8")

    run(test)


def test_capability_document() -> None:
    document = hls.OUTPUT.capability.document()
    assert document["name"] == "HLS"
    assert document["url_prefix"] == ["/hls/$/"]
    assert document["methods"][0]["type"] == "html5/application/vnd.apple.mpegurl"
    assert set(document["optional"]) == {"listlimit", "nonchunked", "chunkpath"}
