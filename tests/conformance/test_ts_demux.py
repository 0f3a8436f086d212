"""Transport streams of others read by us, packet for packet as FFmpeg reads them."""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import pytest

from mist.core.demuxer import Demuxer, PacketList, demux
from mist.core.flv import FlvMuxer
from mist.core.nal import length_prefixed_to_annexb
from mist.core.packet import Packet
from mist.core.ts_mux import TsMuxer
from mist.formats.flv import FlvDemuxer
from mist.formats.tracks import TrackInfo
from mist.formats.ts import EVERY_PROGRAM, TsDemuxer
from tests.support.demuxing import packet_positions
from tests.support.packets import media_of
from tests.support.samples import picture as moving_picture
from tests.support.samples import picture_and_tone, sample
from tests.support.tools import find_tool, run
from tests.support.ts_build import StreamBuilder, pes

pytestmark = [pytest.mark.timeout(180), pytest.mark.tools("ffmpeg", "ffmpeg-new")]

PICTURE = "-f lavfi -i testsrc2=s=192x108:r={rate}:d=3"
TONE = "-f lavfi -i sine=d=3:r={rate}"
X264 = "-c:v libx264 -preset veryfast -g 25 -pix_fmt yuv420p"
CODEC_NAMES = {
    "h264": "H264", "hevc": "HEVC", "mpeg2video": "MPEG2", "mpeg1video": "MPEG2", "av1": "AV1", "libdav1d": "AV1", "aac": "AAC",
    "aac_latm": "AAC", "mp3": "MP3", "mp3float": "MP3", "mp2": "MP2", "mp2float": "MP2", "ac3": "AC3", "eac3": "EAC-3",
    "dca": "DTS", "opus": "opus", "libopus": "opus",
}  # fmt: skip


@dataclass(frozen=True)
class Made:
    """A file that ffmpeg makes. times_us: how far times may be apart; audio that is counted in samples is exact, ffmpeg's is not."""

    name: str
    inputs: tuple[str, ...]
    options: str
    tool: str = "ffmpeg"
    suffix: str = "ts"

    def make(self, folder: Path) -> Path:
        path = folder / f"{self.name}.{self.suffix}"
        inputs = " ".join(self.inputs).split()
        run([find_tool(self.tool), "-v", "error", "-y", *inputs, *self.options.split(), "-f", "mpegts", str(path)], 120)
        return path


def picture(rate: str = "25") -> str:
    return PICTURE.format(rate=rate)


def tone(rate: int = 48000) -> str:
    return TONE.format(rate=rate)


FILES = [
    Made("bframes", (picture(), tone()), f"{X264} -bf 3 -c:a aac"),
    Made("bframes-new", (picture(), tone(44100)), f"{X264} -bf 3 -c:a aac", tool="ffmpeg-new"),
    Made("film", (picture("24000/1001"), tone(44100)), f"{X264} -bf 2 -c:a libmp3lame"),
    Made("slices", (picture(),), f"{X264} -bf 2 -slices 4"),
    Made("interlaced", (picture(),), f"{X264} -flags +ilme+ildct -bf 2"),
    Made("intra-refresh", (picture(),), f"{X264} -bf 0 -intra-refresh 1"),
    Made("open-gop", (picture(),), f"{X264} -bf 3 -x264-params open-gop=1:bframes=3"),
    Made(
        "hevc",
        (picture(), tone()),
        "-c:v libx265 -preset ultrafast -x265-params log-level=none:bframes=3 -g 25 -c:a ac3",
    ),
    Made("hevc-open", (picture(),), "-c:v libx265 -preset ultrafast -x265-params log-level=none:open-gop=1:keyint=20"),
    Made("mpeg2", (picture(), tone()), "-c:v mpeg2video -bf 2 -g 12 -c:a mp2"),
    Made("mpeg2-interlaced", (picture(), tone()), "-c:v mpeg2video -flags +ilme+ildct -bf 2 -g 12 -c:a eac3"),
    Made("mpeg1", (picture(),), "-c:v mpeg1video -g 12 -bf 2"),
    Made("opus", (picture(), tone()), f"{X264} -c:a libopus", tool="ffmpeg-new"),
    Made("opus51", (tone(),), "-ac 6 -c:a libopus", tool="ffmpeg-new"),
    Made("dts", (tone(),), "-ac 2 -c:a dca -strict -2"),
    Made("surround", (tone(),), "-ac 6 -c:a aac"),
    Made("low-rate", (tone(22050),), "-ac 1 -c:a libmp3lame"),
    Made("small-pes", (picture(), tone()), f"{X264} -c:a aac -pes_payload_size 200"),
    Made("large-pes", (tone(44100),), "-c:a mp2 -pes_payload_size 60000"),
    Made("large-pictures", (picture(),), "-c:v libx264 -preset ultrafast -qp 0 -g 10 -pix_fmt yuv420p"),
    Made("blocks-of-192", (picture(), tone()), f"{X264} -bf 2 -c:a ac3 -mpegts_m2ts_mode 1", suffix="m2ts"),
    Made("late-times", (picture(), tone()), f"{X264} -bf 2 -c:a aac -output_ts_offset 95442"),
    Made("discontinuity", (picture(), tone()), f"{X264} -c:a aac -mpegts_flags initial_discontinuity -muxrate 3000000"),
]


@dataclass(frozen=True)
class Seen:
    """A packet, comparable: times in microseconds, and what is in it."""

    dts_us: int
    pts_us: int
    key: bool
    digest: str


def digest(codec: str, data: bytes, extradata: bytes) -> str:
    return hashlib.sha256(media_of(codec, data, extradata)).hexdigest()[:16]


def theirs(path: Path) -> dict[int, tuple[str, list[Seen]]]:
    """Return codec and packets of each stream, by PID, as libavformat reads them."""
    found: dict[int, tuple[str, list[Seen]]] = {}
    with av.open(str(path)) as container:
        for packet in container.demux():
            if packet.dts is None or packet.pts is None or not packet.size:
                continue
            stream: Any = packet.stream
            name = stream.codec_context.name if stream.codec_context else "data"
            base = packet.time_base * 1_000_000
            one = Seen(
                round(packet.dts * base), round(packet.pts * base), packet.is_keyframe, digest(name, bytes(packet), b"")
            )
            found.setdefault(stream.id, (name, []))[1].append(one)
    return found


def ours(tracks: list[TrackInfo], packets: list[Packet]) -> dict[int, tuple[str, list[Seen]]]:
    names = {"H264": "h264", "HEVC": "hevc"}
    found: dict[int, tuple[str, list[Seen]]] = {track.track_id: (track.codec, []) for track in tracks}
    for packet in packets:
        track = tracks[packet.track]
        data = digest(names.get(track.codec, ""), packet.payload, b"\x01")
        one = Seen(packet.dts_us, packet.dts_us + packet.offset_us, packet.keyframe, data)
        found[track.track_id][1].append(one)
    return found


def check_same(path: Path, tracks: list[TrackInfo], packets: list[Packet], *, dts: bool = True) -> None:
    """Check that we read what libavformat reads: same packets, same key flags, same times to a millisecond.

    dts: False where the file has only presentation times, from which libavformat guesses the others.
    """
    wanted, got = theirs(path), ours(tracks, packets)
    assert {pid: CODEC_NAMES[name] for pid, (name, _) in wanted.items()} == {
        pid: name for pid, (name, _) in got.items()
    }
    for pid, (codec, packets_wanted) in wanted.items():
        found = got[pid][1]
        assert [one.digest for one in found] == [one.digest for one in packets_wanted], codec
        for number, (a, b) in enumerate(zip(packets_wanted, found, strict=True)):
            assert abs(a.pts_us - b.pts_us) <= 1000, (codec, number, a, b)
            assert abs(a.dts_us - b.dts_us) <= 1000 or not dts, (codec, number, a, b)
            assert a.key == b.key, (codec, number)


GSTREAMER = {
    "h264-aac": "videotestsrc num-buffers=75 ! video/x-raw,width=192,height=108,framerate=25/1 ! x264enc bframes=2 key-int-max=25 ! m. "
    "audiotestsrc num-buffers=140 ! audio/x-raw,rate=48000,channels=2 ! avenc_aac ! m.",
    "h265-opus": "videotestsrc num-buffers=50 ! video/x-raw,width=192,height=108,framerate=25/1 ! x265enc key-int-max=25 ! h265parse ! m. "
    "audiotestsrc num-buffers=100 ! audio/x-raw,rate=48000,channels=2 ! opusenc ! m.",
    "mpeg2-mp3": "videotestsrc num-buffers=50 ! video/x-raw,width=192,height=108,framerate=25/1 ! mpeg2enc ! mpegvideoparse ! m. "
    "audiotestsrc num-buffers=100 ! audio/x-raw,rate=44100,channels=2 ! lamemp3enc ! mpegaudioparse ! m.",
    "ac3": "audiotestsrc num-buffers=100 ! audio/x-raw,rate=48000,channels=2 ! avenc_ac3 ! ac3parse ! m.",
}


@pytest.fixture(params=FILES, ids=lambda made: made.name)
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return request.param.make(tmp_path)


def test_what_ffmpeg_wrote(file: Path) -> None:
    demuxer = TsDemuxer()
    packets = demux(demuxer, file.read_bytes())
    check_same(file, demuxer.tracks, packets)


def test_latm_holds_what_adts_holds(tmp_path: Path) -> None:
    found = []
    for flags in ("latm", "pat_pmt_at_frames"):
        path = Made(flags, (tone(44100),), f"-ac 2 -c:a aac -mpegts_flags {flags}").make(tmp_path)
        demuxer = TsDemuxer()
        found.append((demux(demuxer, path.read_bytes()), demuxer.tracks))
    assert len(found[0][0]) > 100 and found[0] == found[1]


@pytest.mark.tools("gst-launch-1.0")
@pytest.mark.parametrize("name", GSTREAMER)
def test_what_gstreamer_wrote(name: str, tmp_path: Path) -> None:
    path = tmp_path / "made.ts"
    pipeline = f"mpegtsmux name=m ! filesink location={path} {GSTREAMER[name]}"
    run([find_tool("gst-launch-1.0"), "-q", *pipeline.split()], 60)
    demuxer = TsDemuxer()
    packets = demux(demuxer, path.read_bytes())
    check_same(path, demuxer.tracks, packets, dts=not name.startswith("mpeg2"))


@pytest.mark.tools("gst-launch-1.0")
@pytest.mark.parametrize("codec", ["h264", "h265"])
def test_pictures_of_which_only_the_time_of_showing_is_told(codec: str, tmp_path: Path) -> None:
    """GStreamer makes such streams of Matroska, which says no decode times either."""
    made, path = tmp_path / "made.mkv", tmp_path / "made.ts"
    encoder = {
        "h264": ("-c:v", "libx264", "-bf", "3", "-preset", "veryfast"),
        "h265": ("-c:v", "libx265", "-preset", "ultrafast", "-x265-params", "log-level=none:bframes=3"),
    }[codec]
    pictures = ("-f", "lavfi", "-i", "testsrc2=size=128x96:rate=25", "-t", "4", "-g", "30", "-pix_fmt", "yuv420p")
    run([find_tool("ffmpeg"), "-v", "error", *pictures, *encoder, str(made)], 60)
    line = f"filesrc location={made} ! matroskademux ! {codec}parse ! mpegtsmux ! filesink location={path}"
    run([find_tool("gst-launch-1.0"), "-q", *line.split()], 60)
    data = path.read_bytes()
    demuxer = TsDemuxer()
    packets = demux(demuxer, data)
    with av.open(str(path)) as container:  # which leaves out the first decode times
        shown = [float(one.pts * one.time_base) for one in container.demux(video=0) if one.pts is not None]
    assert [one.pts_us / 1e6 for one in packets] == pytest.approx(shown, abs=0.001)
    decoded = [packet.dts_us for packet in packets]
    assert len({packet.offset_us for packet in packets}) > 2  # it is reordered
    assert all(packet.offset_us >= 0 for packet in packets)
    assert all(20_000 <= after - before <= 60_000 for before, after in pairwise(decoded))
    key = [packet for packet in packets if packet.keyframe][2]
    again, positions = TsDemuxer(), {one.dts_us: at for one, at in packet_positions(TsDemuxer(), data)}
    sink = PacketList()
    again.attach(sink)
    while not again.ready and (wanted := again.want()) is not None:
        again.feed(data[wanted[0] : wanted[0] + wanted[1]])
    sink.take()
    again.seek(key.dts_us, positions[key.dts_us])
    while (wanted := again.want()) is not None:
        again.feed(data[wanted[0] : wanted[0] + wanted[1]])
    rest = [one for one in packets if one.dts_us >= key.dts_us]
    found = sink.take()
    assert [one.payload for one in found] == [one.payload for one in rest]
    assert [one.pts_us for one in found] == [one.pts_us for one in rest]
    assert all(abs(one.dts_us - other.dts_us) <= 40_000 for one, other in zip(found, rest, strict=True))


OWN = {
    "bframes": picture_and_tone(rate="25", options="-bf 3 -preset veryfast"),
    "hevc": moving_picture(codec="libx265", options="-preset ultrafast -x265-params log-level=none:bframes=2"),
    "av1": moving_picture(codec="libsvtav1", seconds=2, options="-preset 12 -svtav1-params film-grain=0"),
    "opus": picture_and_tone(audio="libopus", rate_hz=48000),
    "surround-opus": picture_and_tone(audio="libopus", rate_hz=48000, channels=6),
    "mp3": picture_and_tone(audio="libmp3lame"),
    "eac3": picture_and_tone(audio="eac3", rate_hz=48000),
}


@pytest.mark.parametrize("name", OWN)
def test_our_own_muxer_and_back(name: str) -> None:
    """What we write is what we read: payloads but for what the muxer adds, times to the clock's tick, set-up."""
    tracks, packets = sample(OWN[name])
    muxer = TsMuxer(tracks)
    for packet in packets:
        muxer.write(Packet(packet.track, packet.dts_us + 1_000_000, packet.offset_us, packet.keyframe, packet.payload))
    demuxer = TsDemuxer()
    found = demux(demuxer, muxer.take_output())
    names = {"H264": "h264", "HEVC": "hevc", "AV1": "av1"}
    for number, track in enumerate(tracks):
        wanted = [packet for packet in packets if packet.track == number]
        got = [packet for packet in found if packet.track == number]
        name = names.get(track.codec, "")
        assert [media_of(name, p.payload, b"\1") for p in got] == [media_of(name, p.payload, b"\1") for p in wanted]
        assert [packet.keyframe for packet in got] == [packet.keyframe for packet in wanted]
        for one, other in zip(wanted, got, strict=True):
            assert abs(one.dts_us + 1_000_000 - other.dts_us) <= 1000 and abs(one.offset_us - other.offset_us) <= 23
        read = demuxer.tracks[number]
        assert (read.width, read.height, read.channels) == (track.width, track.height, track.channels)
        if track.codec == "AV1":
            assert read.init_data[:4] == track.init_data[:4]


def _pumped(demuxer: Demuxer, data: bytes, step: int = 10_000) -> list[Packet]:
    sink = PacketList()
    demuxer.attach(sink)
    for at in range(0, len(data), step):
        demuxer.feed(data[at : at + step])
    demuxer.feed(b"")
    return sink.take()


def test_programs_of_a_multiplex(tmp_path: Path) -> None:
    path = tmp_path / "two.ts"
    maps = "-map 0 -map 1 -map 0 -map 1 -program title=a:st=0:st=1 -program title=b:st=2:st=3"
    command = f"{picture()} {tone()} {maps} {X264} -c:a mp2 -f mpegts {path}"
    run([find_tool("ffmpeg"), "-v", "error", "-y", *command.split()], 60)
    every, first = TsDemuxer(EVERY_PROGRAM), TsDemuxer()
    packets = demux(every, path.read_bytes())
    check_same(path, every.tracks, packets)
    assert len(demux(first, path.read_bytes())) == len(packets) // 2 and len(first.tracks) == 2


def test_damage_is_passed_over(tmp_path: Path) -> None:
    """Packets lost, overwritten, and bytes put in: whatever is given out was in the whole file, and most of it is."""
    data = FILES[0].make(tmp_path).read_bytes()
    whole = {packet.payload for packet in demux(TsDemuxer(), data)}
    chance = random.Random(5)
    for _ in range(30):
        packets = [data[at : at + 188] for at in range(0, len(data), 188)]
        for _ in range(5):
            place = chance.randrange(60, len(packets))  # behind the first keyframe
            packets[place] = chance.choice([b"", packets[place] + chance.randbytes(chance.randint(1, 500)), bytes(188)])
        damaged = b"".join(packets)
        found = [packet.payload for packet in demux(TsDemuxer(), damaged)]
        assert _pumped(TsDemuxer(), damaged, 777) == demux(TsDemuxer(), damaged)
        assert all(payload in whole for payload in found)
        assert len(found) > len(whole) * 0.8


def test_cut_files(tmp_path: Path) -> None:
    made = FILES[0]
    data = made.make(tmp_path).read_bytes()
    for size in (len(data) // 2, len(data) // 3 + 7, len(data) - 1):
        path = tmp_path / "cut.ts"
        path.write_bytes(data[:size])
        demuxer = TsDemuxer()
        packets = demux(demuxer, path.read_bytes())
        wanted, got = theirs(path), ours(demuxer.tracks, packets)
        for pid, (_, seen) in wanted.items():
            assert [one.digest for one in got[pid][1]][: len(seen) - 2] == [one.digest for one in seen][:-2]


def test_flv_to_ts_and_back(tmp_path: Path) -> None:
    path = tmp_path / "made.flv"
    run([find_tool("ffmpeg"), "-v", "error", "-y", *f"{picture()} {tone()} {X264} -bf 2 -c:a aac {path}".split()], 60)
    first, second = FlvDemuxer(), TsDemuxer()
    packets = demux(first, path.read_bytes())
    muxer = TsMuxer(first.tracks)
    for packet in packets:
        muxer.write(packet)
    back = demux(second, muxer.take_output())
    flv = FlvMuxer(second.tracks)
    for packet in back:
        flv.write(packet)
    again = demux(FlvDemuxer(), flv.header() + flv.take_output())
    for track in range(2):
        wanted = [packet for packet in packets if packet.track == track]
        got = [packet for packet in again if packet.track == track]
        assert len(wanted) == len(got)
        for one, other in zip(wanted, got, strict=True):
            kind = "h264" if track == 0 else ""
            assert media_of(kind, one.payload, b"\1") == media_of(kind, other.payload, b"\1")
            assert abs(one.dts_us - other.dts_us) <= 1000 and one.keyframe == other.keyframe


@pytest.mark.parametrize("name", ["bframes", "open-gop", "interlaced", "intra-refresh", "mpeg2", "mpeg2-interlaced"])
def test_several_pictures_with_one_time_stamp(name: str, tmp_path: Path) -> None:
    """Put three pictures into each PES packet: the times of the other two follow from the order that the pictures tell."""
    data = next(made for made in FILES if made.name == name).make(tmp_path).read_bytes()
    every = TsDemuxer()
    plain = [packet for packet in demux(every, data) if every.tracks[packet.track].type == "video"]
    h264 = every.tracks[0].codec == "H264"
    build = StreamBuilder().tables([(0x1B if h264 else 2, 0x100, b"")])
    for number in range(0, len(plain), 3):
        first = plain[number]
        ticks = (first.dts_us * 9 + 50) // 100
        payloads = [packet.payload for packet in plain[number : number + 3]]
        stream = b"".join(length_prefixed_to_annexb(payload) if h264 else payload for payload in payloads)
        build.add(0x100, pes(stream, ticks + (first.offset_us * 9 + 50) // 100, ticks))
    found = demux(TsDemuxer(), build.data)
    assert [packet.payload for packet in found] == [packet.payload for packet in plain]
    for one, other in zip(plain, found, strict=True):
        assert abs(one.dts_us - other.dts_us) <= 50 and abs(one.offset_us - other.offset_us) <= 50


def _with_counters(data: bytes, by: int) -> bytes:
    """Return a stream whose continuity counters are all further on."""
    moved = bytearray(data)
    for at in range(3, len(moved), 188):
        moved[at] = moved[at] & 0xF0 | (moved[at] + by) & 15
    return bytes(moved)


@pytest.mark.parametrize("made", ["ffmpeg", "mist"])
def test_one_recording_behind_another_loses_nothing(tmp_path: Path, made: str) -> None:
    """The last picture of the first, and the first of the second, whatever its continuity counters begin with."""
    first = Made("first", (picture(), tone()), f"{X264} -c:a aac").make(tmp_path).read_bytes()
    if made == "mist":
        demuxer = TsDemuxer()
        packets = demux(demuxer, first)
        muxer = TsMuxer(demuxer.tracks)
        data = muxer.header()
        for packet in packets:
            muxer.write(packet)
        first = data + muxer.take_output()
    alone = [(packet.track, packet.payload) for packet in demux(TsDemuxer(), first)]
    for by in range(16):
        joined = demux(TsDemuxer(), first + _with_counters(first, by))
        found = [(packet.track, packet.payload) for packet in joined]
        for track in (0, 1):
            own = [payload for number, payload in alone if number == track]
            assert [payload for number, payload in found if number == track] == own * 2, (by, track)


def _filled_up(data: bytes) -> bytes:
    """Return a stream whose last PES packet of video fills its last transport packet, with zeros behind the picture."""
    changed = bytearray(data)
    at = max(at for at in range(0, len(data), 188) if (data[at + 1] & 0x1F) << 8 | data[at + 2] == 0x100)
    assert changed[at + 3] & 0x30 == 0x30
    payload = data[at + 5 + data[at + 4] : at + 188]
    changed[at + 3] &= 0xDF
    changed[at + 4 : at + 188] = payload.ljust(184, b"\0")
    return bytes(changed)


def test_a_joint_behind_a_full_packet_loses_nothing(tmp_path: Path) -> None:
    """Neither a length nor stuffing says that the last picture is whole; tables that do not continue the others do."""
    made = Made("full", (picture(), tone()), f"{X264} -c:a aac").make(tmp_path).read_bytes()
    first = _filled_up(made)
    alone = [packet.payload for packet in demux(TsDemuxer(), made) if packet.track == 0]
    tables = sum(made[at + 1 : at + 3] == b"\x40\0" for at in range(0, len(made), 188))
    for by in range(16):
        if by in (tables % 16, (tables - 1) % 16):
            continue  # by chance these continue the others, or repeat the last one
        joined = demux(TsDemuxer(), first + _with_counters(made, by))
        assert [packet.payload for packet in joined if packet.track == 0] == alone * 2, by


def test_seeking_finds_the_tables_of_the_place(tmp_path: Path) -> None:
    """A PID that carries another codec from the middle on is read as what it is there, forwards and backwards."""
    size, x264 = "testsrc2=size=64x64:rate=25:duration=2", ("-c:v", "libx264", "-preset", "ultrafast", "-g", "10")
    common = [find_tool("ffmpeg"), "-v", "error", "-f", "lavfi", "-i", size]
    other = ("-c:v", "mpeg2video", "-g", "10", "-output_ts_offset", "2")
    run([*common, *x264, str(tmp_path / "one.ts")], 60)
    run([*common, *other, str(tmp_path / "two.ts")], 60)
    data = (tmp_path / "one.ts").read_bytes() + (tmp_path / "two.ts").read_bytes()
    demuxer, sink = TsDemuxer(), PacketList()
    demuxer.attach(sink)
    found = []
    for at in range(0, len(data), 188):
        demuxer.feed(data[at : at + 188])
        found += [(demuxer.position, packet) for packet in sink.take()]
    assert [info.codec for info in demuxer.tracks] == ["H264", "MPEG2"]
    keys = [one for one in found if one[1].keyframe]
    assert len(keys) == 10
    for position, key in [*reversed(keys), *keys]:
        demuxer.seek(key.dts_us, position)
        while (wanted := demuxer.want()) is not None:
            demuxer.feed(data[wanted[0] : wanted[0] + wanted[1]])
        assert sink.take()[0] == key


def without_decode_times(data: bytes) -> bytes:
    """Return a transport stream whose PES headers of pictures say only when they are shown."""
    bent = bytearray(data)
    for at in range(0, len(bent), 188):
        head = at + 4 + (1 + bent[at + 4] if bent[at + 3] & 0x20 else 0)
        picture = bent[head : head + 3] == b"\0\0\1" and 0xE0 <= bent[head + 3] < 0xF0
        if bent[at + 1] & 0x40 and picture and bent[head + 7] >> 6 == 3:
            bent[head + 7] &= 0xBF
            bent[head + 9] = bent[head + 9] & 0x0F | 0x20
            bent[head + 14 : head + 19] = b"\xff" * 5
    return bytes(bent)


@pytest.mark.parametrize("coding", ["bframes=2:b-adapt=0", "bframes=3:b-pyramid=normal:open-gop=1:b-adapt=2"])
def test_made_up_decode_times_are_the_same_behind_any_keyframe(tmp_path: Path, coding: str) -> None:
    path = tmp_path / "film.ts"
    encoder = ("-c:v", "libx264", "-x264-params", f"keyint=25:{coding}")
    run(
        [
            find_tool("ffmpeg"),
            "-v",
            "error",
            "-f",
            "lavfi",
            "-i",
            "testsrc2=s=160x120:r=25",
            "-t",
            "8",
            *encoder,
            str(path),
        ],
        60,
    )
    data = without_decode_times(path.read_bytes())
    scan, packets = TsDemuxer(), PacketList()
    scan.from_places = True
    scan.attach(packets)
    whole: list[tuple[Packet, int]] = []
    while (wanted := scan.want()) is not None:
        scan.feed(data[wanted[0] : wanted[0] + 188])
        whole += [(packet, scan.position) for packet in packets.take()]
    keyframes = [number for number, (packet, _) in enumerate(whole) if packet.keyframe]
    assert len(keyframes) >= 6 and any(packet.offset_us for packet, _ in whole)
    for number in keyframes[1:]:
        again, found = TsDemuxer(), PacketList()
        again.from_places = True
        again.attach(found)
        while not again.ready and (wanted := again.want()) is not None:
            again.feed(data[wanted[0] : wanted[0] + 16384])
        found.take()
        packet, position = whole[number]
        again.seek(packet.dts_us, position)
        while (wanted := again.want()) is not None:
            again.feed(data[wanted[0] : wanted[0] + wanted[1]])
        rest = {one.payload: (one.dts_us, one.offset_us) for one in found.take()}
        assert all(rest[one.payload] == (one.dts_us, one.offset_us) for one, _ in whole[number:])
