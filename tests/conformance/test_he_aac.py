"""HE-AAC in every container that has a place for its set-up: rates, channels, names and durations, as we read them and as ffprobe does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mist.core.demuxer import demux
from mist.core.packet import Packet
from mist.formats import aac, codecs
from mist.formats.containers import by_name
from mist.formats.tracks import AAC, AUDIO, TrackInfo
from tests.support.tools import find_tool, run

pytestmark = pytest.mark.tools("ffmpeg", "ffprobe")

CORE_HZ = 24_000
FRAME_US = 1024 * 1_000_000 / CORE_HZ
# AudioSpecificConfig, channels of the core, codec string; rate and channels that come out.
CONFIGS = {
    "implicit": ("1310", 2, "mp4a.40.2", 24_000, 2),
    "hierarchical": ("2b118800", 2, "mp4a.40.5", 48_000, 2),
    "compatible": ("131056e598", 2, "mp4a.40.5", 48_000, 2),
    "hierarchical-ps": ("eb098800", 1, "mp4a.40.29", 48_000, 2),
    "compatible-ps": ("130856e59d4880", 1, "mp4a.40.29", 48_000, 2),
}
TELLS = ("mp4", "flv", "mkv")  # the whole set-up
CORE_ALONE = ("ts", "aac")  # ADTS has no place for it: decoders find SBR and PS in the frames
CLOCK_US = {"mp4": 1, "flv": 1000, "mkv": 1000, "ts": 12, "aac": 1}


@pytest.fixture(scope="module")
def cores(tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[Packet]]:
    """Return real frames of AAC-LC, with one and two channels, which stand for the core: without SBR data decoders upsample it."""
    folder = tmp_path_factory.mktemp("cores")
    found = {}
    for channels in (1, 2):
        path = folder / f"core{channels}.aac"
        tone = ("-f", "lavfi", "-i", f"sine=sample_rate={CORE_HZ}:duration=2", "-ac", str(channels), "-c:a", "aac")
        run([find_tool("ffmpeg"), "-v", "error", *tone, str(path)], 60)
        container = by_name("aac")
        assert container is not None and container.make_demuxer is not None
        found[channels] = demux(container.make_demuxer(), path.read_bytes())
    return found


def written(name: str, info: TrackInfo, packets: list[Packet]) -> bytes:
    container = by_name(name)
    assert container is not None and container.make_muxer is not None
    muxer = container.make_muxer([info])
    data = muxer.header(packets[0].dts_us)
    for packet in packets:
        muxer.write(packet)
    if hasattr(muxer, "finish"):
        muxer.finish()
    whole = bytearray(data + muxer.take_output())
    for position, piece in muxer.patches() if hasattr(muxer, "patches") else ():
        whole[position : position + len(piece)] = piece
    return bytes(whole)


@pytest.mark.parametrize("container", [*TELLS, *CORE_ALONE])
@pytest.mark.parametrize("config", CONFIGS)
def test_every_signalling(config: str, container: str, cores: dict[int, list[Packet]], tmp_path: Path) -> None:
    setup, core_channels, name, rate_hz, channels = CONFIGS[config]
    source = codecs.complete(TrackInfo(AUDIO, AAC, bytes.fromhex(setup), track_id=1))
    assert (codecs.codec_string(source), source.sample_rate_hz, source.channels) == (name, rate_hz, channels)
    packets = cores[core_channels]
    data = written(container, source, packets)
    row = by_name(container)
    assert row is not None and row.make_demuxer is not None
    demuxer = row.make_demuxer()
    found = demux(demuxer, data)
    (info,) = demuxer.tracks
    assert [one.payload for one in found] == [one.payload for one in packets]
    first_us = found[0].dts_us
    expected = [first_us + number * FRAME_US for number in range(len(found))]
    assert [one.dts_us for one in found] == pytest.approx(expected, abs=CLOCK_US[container])
    if container in TELLS:
        assert (info.init_data, info.sample_rate_hz, info.channels) == (source.init_data, rate_hz, channels)
    else:
        assert aac.parse_config(info.init_data) == aac.simple_config(CORE_HZ, core_channels)
    path = tmp_path / f"he.{container}"
    path.write_bytes(data)
    shown = ("-show_streams", "-show_packets", "-of", "json")
    probed = json.loads(run([find_tool("ffprobe"), "-v", "error", *shown, str(path)], 60).stdout)
    (stream,) = probed["streams"]
    told = (rate_hz, channels) if container in TELLS else (CORE_HZ, core_channels)
    assert (int(stream["sample_rate"]), stream["channels"], len(probed["packets"])) == (*told, len(packets))
    times = [float(one["pts_time"]) for one in probed["packets"]]
    assert times[-1] - times[0] == pytest.approx((len(packets) - 1) * FRAME_US / 1e6, abs=0.002)
