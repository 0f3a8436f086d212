"""Media packets as another demuxer sees them (PyAV, that is FFmpeg), made comparable between formats."""

from __future__ import annotations

import errno
import hashlib
import json
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av

from tests.support.tools import find_tool, run

# NAL units that a container may add, drop or move: access unit delimiters, parameter sets, end of sequence or stream, filler.
_H264_MOVABLE = {7, 8, 9, 10, 11, 12}
_HEVC_MOVABLE = {32, 33, 34, 35, 36, 37, 38}
ADTS_HEADER_BYTES = 7


@dataclass(frozen=True, slots=True)
class SeenPacket:
    """One packet: its stream's kind ("video", "audio"), times in microseconds, key flag, length and hash of the media in it."""

    kind: str
    stream: int
    dts_us: int
    pts_us: int
    key: bool
    size: int
    digest: str


@dataclass(frozen=True, slots=True)
class SeenMedia:
    """What a demuxer found: codec name of each stream by number, and all packets in order."""

    codecs: dict[int, str]
    packets: list[SeenPacket]

    def of(self, kind: str) -> list[SeenPacket]:
        """Return the packets of the first stream of a kind."""
        first = min((p.stream for p in self.packets if p.kind == kind), default=None)
        return [p for p in self.packets if p.stream == first and p.kind == kind]


def read_media(
    source: str | Path, *, seconds: float | None = None, timeout_s: float = 15, options: dict[str, str] | None = None
) -> SeenMedia:
    """Read packets to the end of the source, or until `seconds` of media were seen. Raises av.error.FFmpegError."""
    found: list[SeenPacket] = []
    fixed = {"analyzeduration": "2000000"}
    with av.open(str(source), timeout=(timeout_s, timeout_s), options={**fixed, **(options or {})}) as container:
        codecs: dict[int, str] = {}
        first: int | None = None
        for packet in _packets_of(container):
            if packet.size == 0 or packet.dts is None or packet.stream.type not in ("video", "audio"):
                continue
            codecs[packet.stream.index] = packet.stream.codec_context.name
            one = _seen(packet)
            found.append(one)
            first = one.dts_us if first is None else first
            if seconds is not None and one.dts_us - first >= seconds * 1e6:
                break
    return SeenMedia(codecs, found)


def _packets_of(container: av.container.InputContainer) -> Iterator[av.Packet[Any]]:
    """Yield packets to the end. FFmpeg since 6 calls the end of an HTTP reply that has no length an error: here it is the end."""
    try:
        yield from container.demux()
    except OSError as error:
        if error.errno != errno.EIO or not container.name.startswith("http"):
            raise


def _seen(packet: av.Packet[Any]) -> SeenPacket:
    base = packet.time_base or Fraction(1, 1000)
    data = media_of(packet.stream.codec_context.name, bytes(packet), packet.stream.codec_context.extradata or b"")
    dts = packet.dts if packet.dts is not None else 0
    pts = packet.pts if packet.pts is not None else dts
    return SeenPacket(
        packet.stream.type,
        packet.stream.index,
        round(dts * base * 1_000_000),
        round(pts * base * 1_000_000),
        packet.is_keyframe,
        len(data),
        hashlib.sha256(data).hexdigest()[:16],
    )


def media_of(codec: str, data: bytes, extradata: bytes) -> bytes:
    """Return the bytes of a packet that are the same in every container.

    H.264, HEVC: NAL units with 4-byte lengths, without those that containers move. AAC: without the ADTS header. AV1: without
    temporal delimiters. Others: as they are.
    """
    if codec == "h264":
        nals = [nal for nal in _nal_units(data, extradata) if nal[0] & 0x1F not in _H264_MOVABLE]
        return b"".join(struct.pack(">I", len(nal)) + nal for nal in nals)
    if codec == "hevc":
        nals = [nal for nal in _nal_units(data, extradata) if nal[0] >> 1 & 0x3F not in _HEVC_MOVABLE]
        return b"".join(struct.pack(">I", len(nal)) + nal for nal in nals)
    if codec == "aac" and data[:1] == b"\xff" and len(data) > ADTS_HEADER_BYTES and data[1] & 0xF6 == 0xF0:
        return data[ADTS_HEADER_BYTES if data[1] & 1 else ADTS_HEADER_BYTES + 2 :]
    if codec in ("av1", "libdav1d", "libaom-av1"):
        return data.removeprefix(b"\x12\x00")
    return data


def _nal_units(data: bytes, extradata: bytes) -> Iterator[bytes]:
    """Split an access unit into its non-empty NAL units, whichever of the two forms it is in."""
    if extradata[:1] == b"\x01" and not extradata.startswith(b"\0\0\1"):
        at = 0
        while at + 4 <= len(data):
            length = int.from_bytes(data[at : at + 4], "big")
            if length:
                yield data[at + 4 : at + 4 + length]
            at += 4 + length
        return
    for piece in data.split(b"\0\0\1")[1:]:
        nal = piece.rstrip(b"\0")
        if nal:
            yield nal


class Mismatch(AssertionError):
    """An output is not what its source is."""


def compare(
    source: SeenMedia, output: SeenMedia, *, tolerance_us: int, kinds: Sequence[str] = ("video", "audio")
) -> dict[str, tuple[int, int]]:
    """Check that the output is a run of the source without gap, in content, times and key flags.

    The two may differ by one constant time, the same for all streams, to the tolerance. Returns for each kind how many packets of
    the source are missing before the run and after it. Raises Mismatch.
    """
    shifts: dict[str, list[int]] = {}
    missing: dict[str, tuple[int, int]] = {}
    for kind in kinds:
        wanted, got = source.of(kind), output.of(kind)
        if not wanted:
            if got:
                raise Mismatch(f"{kind}: {len(got)} packets, though the source has none")
            continue
        start = _find_run(kind, wanted, got)
        run_of = wanted[start : start + len(got)]
        missing[kind] = (start, len(wanted) - start - len(got))
        shifts[kind] = [out.dts_us - src.dts_us for src, out in zip(run_of, got, strict=True)]
        for number, (src, out) in enumerate(zip(run_of, got, strict=True)):
            offset = (out.pts_us - out.dts_us) - (src.pts_us - src.dts_us)
            if abs(offset) > tolerance_us:
                raise Mismatch(f"{kind} packet {number}: presentation is {offset} us off")
            if kind == "video" and src.key != out.key:
                raise Mismatch(f"{kind} packet {number}: key flag {out.key}, source {src.key}")
    every = [shift for one in shifts.values() for shift in one]
    if every and max(every) - min(every) > tolerance_us:
        told = ", ".join(f"{kind} {min(one)} to {max(one)}" for kind, one in shifts.items())
        raise Mismatch(f"the time between source and output is not constant (us): {told}")
    return missing


def _find_run(kind: str, wanted: list[SeenPacket], got: list[SeenPacket]) -> int:
    if not got:
        raise Mismatch(f"{kind}: no packet came out")
    digests = [one.digest for one in got]
    source = [one.digest for one in wanted]
    starts = [at for at, digest in enumerate(source) if digest == digests[0]]
    for at in starts:
        if source[at : at + len(got)] == digests:
            return at
    if not starts:
        raise Mismatch(f"{kind}: the first packet ({got[0].size} bytes, {got[0].dts_us} us) is not in the source")
    at = starts[0]
    same = next((n for n, (a, b) in enumerate(zip(source[at:], digests, strict=False)) if a != b), len(source) - at)
    raise Mismatch(
        f"{kind}: packet {same} of {len(got)} differs from packet {at + same} of {len(source)} of the source"
    )


def probe_packets(source: str | Path, *, seconds: float | None = None, timeout_s: float = 30) -> list[dict[str, Any]]:
    """Return what `ffprobe -show_packets -show_data_hash md5` says, one dictionary for each packet."""
    limit = ("-read_intervals", f"%+{seconds:g}") if seconds is not None else ()
    fixed = ("-v", "error", "-of", "json", "-show_packets", "-show_data_hash", "md5")
    done = run([find_tool("ffprobe"), *fixed, *limit, str(source)], timeout_s)
    packets: list[dict[str, Any]] = json.loads(done.stdout)["packets"]
    return packets
