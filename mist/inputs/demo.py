"""The built-in demo stream: a moving picture with a running clock, and a tone. No file, no network."""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs

from mist.core.nal import annexb_to_length_prefixed, split_annexb
from mist.core.packet import Packet
from mist.core.shm import monotonic_now_us
from mist.errors import MistError
from mist.formats.codecs import complete
from mist.formats.h264 import build_avcc
from mist.formats.tracks import AAC, AUDIO, H264, VIDEO, TrackInfo
from mist.stream.capability import Capability
from mist.stream.services import InputServices

if TYPE_CHECKING:
    import numpy as np

    Planes = tuple[np.ndarray, np.ndarray, np.ndarray]

SAMPLE_RATE_HZ: Final = 48_000
FRAME_SAMPLES: Final = 1024
MAX_WIDTH: Final = 1920
MAX_HEIGHT: Final = 1080
MAX_FRAMES_PER_SECOND: Final = 60
GOP_SECONDS: Final = 2
SPS, PPS = 7, 8

Point = tuple[float, float]
WHITE: Final = (235, 128, 128)
BALL: Final = (180, 150, 90)
MARK: Final = (90, 150, 118)
BEEP_SECONDS: Final = 0.08
# Luma, blue and red difference of the colour bars at the bottom.
BARS: Final = (
    (180, 128, 128),
    (162, 44, 142),
    (131, 156, 44),
    (112, 72, 58),
    (84, 184, 198),
    (65, 100, 212),
    (35, 212, 114),
)


def arc(x: float, y: float, across: float, down: float, first: int, last: int) -> list[Point]:
    """Return points of an ellipse's arc; degrees go from the right by the bottom, as y grows downwards."""
    angles = [math.radians(first + (last - first) * step / 24) for step in range(25)]
    return [(x + across * math.cos(angle), y + down * math.sin(angle)) for angle in angles]


_SIX: Final = (arc(0.3, 0.67, 0.23, 0.26, 0, 360), arc(0.56, 0.66, 0.49, 0.6, 258, 182))
# The strokes of each character in a field 1 high; the clock's width is the same for all digits.
STROKES: Final[dict[str, tuple[list[Point], ...]]] = {
    "0": (arc(0.3, 0.5, 0.23, 0.43, 0, 360),),
    "1": ([(0.14, 0.23), (0.34, 0.07), (0.34, 0.93)],),
    "2": ([*arc(0.3, 0.3, 0.22, 0.23, 190, 395), (0.07, 0.93), (0.54, 0.93)],),
    "3": (arc(0.29, 0.28, 0.2, 0.21, 200, 450), arc(0.29, 0.71, 0.24, 0.22, 270, 515)),
    "4": ([(0.41, 0.93), (0.41, 0.07), (0.06, 0.68), (0.56, 0.68)],),
    "5": ([(0.5, 0.07), (0.14, 0.07), (0.1, 0.45), *arc(0.28, 0.65, 0.25, 0.28, 225, 505)],),
    "6": _SIX,
    "7": ([(0.06, 0.07), (0.54, 0.07), (0.22, 0.93)],),
    "8": (arc(0.3, 0.28, 0.19, 0.21, 0, 360), arc(0.3, 0.71, 0.23, 0.22, 0, 360)),
    "9": tuple([(0.6 - x, 1 - y) for x, y in stroke] for stroke in _SIX),
    ":": ([(0.15, 0.33), (0.15, 0.33)], [(0.15, 0.71), (0.15, 0.71)]),
    ".": ([(0.15, 0.9), (0.15, 0.9)],),
}
DIGIT_WIDTH, POINT_WIDTH, STROKE_RADIUS = 0.72, 0.36, 0.072


def options(source: str) -> tuple[int, int, int]:
    """Return (width, height, frames per second) from a source such as `demo:?width=640&height=360&fps=25`.

    Raises MistError for what is no number; numbers are brought inside their limits.
    """
    query = parse_qs(source.partition("?")[2])

    def number(name: str, default: int, low: int, high: int) -> int:
        text = query.get(name, [str(default)])[0]
        if not text.isdecimal():
            raise MistError(f'the demo stream\'s {name} is "{text}"; it must be a number from {low} to {high}')
        return min(max(int(text), low), high)

    width, height = number("width", 640, 64, MAX_WIDTH), number("height", 360, 64, MAX_HEIGHT)
    return width & ~1, height & ~1, number("fps", 25, 1, MAX_FRAMES_PER_SECOND)


class Sprite:
    """A shape with smooth edges: how much of each pixel it covers, for luma and for the halved colour planes."""

    def __init__(
        self, height: int, width: int, strokes: Sequence[Sequence[Point]], scale: float, radius: float
    ) -> None:
        """Draw strokes with round ends. scale: pixels for 1.0; radius: of the pen, pixels."""
        import numpy as np

        rows, columns = np.mgrid[0 : height + height % 2, 0 : width + width % 2] + 0.5
        distance = np.full(rows.shape, 1e9)
        for stroke in strokes:
            for (x0, y0), (x1, y1) in itertools.pairwise(stroke):
                x, y, dx, dy = x0 * scale, y0 * scale, (x1 - x0) * scale, (y1 - y0) * scale
                along = np.clip(((columns - x) * dx + (rows - y) * dy) / max(dx * dx + dy * dy, 1e-9), 0, 1)
                distance = np.minimum(distance, np.hypot(columns - x - along * dx, rows - y - along * dy))
        cover = np.clip(radius + 0.5 - distance, 0, 1)
        self.luma = (cover * 256).astype(np.int16)
        self.chroma = ((cover[::2, ::2] + cover[1::2, ::2] + cover[::2, 1::2] + cover[1::2, 1::2]) * 64).astype(
            np.int16
        )

    def paint(self, planes: Planes, left: int, top: int, colour: tuple[int, int, int]) -> None:
        """Lay the shape over a picture; the place is brought to even numbers, what sticks out is cut."""
        left, top = max(left, 0) & ~1, max(top, 0) & ~1
        for plane, cover, value, half in zip(
            planes, (self.luma, self.chroma, self.chroma), colour, (0, 1, 1), strict=True
        ):
            field = plane[top >> half : (top >> half) + cover.shape[0], left >> half : (left >> half) + cover.shape[1]]
            part = cover[: field.shape[0], : field.shape[1]]
            field += ((value - field.astype(part.dtype)) * part >> 8).astype(field.dtype)


class Picture:
    """Draws the frames, as planes of YUV 4:2:0: a clock, and a pendulum that is in the middle at every full second."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self.ground = self._ground()
        size = min(height * 0.22, width * 0.9 / (9 * DIGIT_WIDTH + 3 * POINT_WIDTH))
        self.advance = {text: int(size * (DIGIT_WIDTH if text.isdigit() else POINT_WIDTH)) for text in STROKES}
        self.glyphs = {
            text: Sprite(int(size), int(size * 0.6), strokes, size, size * STROKE_RADIUS)
            for text, strokes in STROKES.items()
        }
        self.size = int(size)
        side = max(height // 9, 6)
        self.ball = Sprite(side, side, [[(0.5, 0.5), (0.5, 0.5)]], side, side / 2 - 0.5)
        self.mark = Sprite(side * 2, side * 2, [arc(0.5, 0.5, 0.42, 0.42, 0, 360)], side * 2, max(side * 0.08, 0.6))

    def _ground(self) -> Planes:
        """Return the picture behind everything: a dark gradient above colour bars."""
        import numpy as np

        rows, columns = np.linspace(0, 1, self.height)[:, None], np.linspace(0, 1, self.width)[None, :]
        shades = (
            30 + 34 * (1 - rows) * (0.4 + 0.6 * columns),
            (146 + 8 * columns - 6 * rows)[::2, ::2],
            (120 + 10 * columns + 4 * rows)[::2, ::2],
        )
        planes = [np.broadcast_to(plane, plane.shape).astype(np.uint8) for plane in shades]
        bars = np.array(BARS)[np.arange(self.width) * len(BARS) // self.width]
        first = int(self.height * 0.92) & ~1
        planes[0][first:] = bars[:, 0]
        planes[1][first // 2 :] = bars[::2, 1]
        planes[2][first // 2 :] = bars[::2, 2]
        return planes[0], planes[1], planes[2]

    def draw(self, text: str, seconds: float) -> Planes:
        """Return the planes of one frame. seconds: of the tone, whose beep comes as the pendulum passes the mark."""
        planes = self.ground[0].copy(), self.ground[1].copy(), self.ground[2].copy()
        side = self.ball.luma.shape[0]
        middle, top = self.width // 2, int(self.height * 0.22)
        beeps = seconds % 1.0 < BEEP_SECONDS * 1.5
        self.mark.paint(planes, middle - side, top - side // 2, WHITE if beeps else MARK)
        swing = math.sin(math.pi * seconds)
        self.ball.paint(planes, int(middle + self.width * 0.4 * swing) - side // 2, top, WHITE if beeps else BALL)
        left = (self.width - sum(self.advance[character] for character in text)) // 2
        for character in text:
            self.glyphs[character].paint(planes, left, int(self.height * 0.56), WHITE)
            left += self.advance[character]
        return planes


class VideoEncoder:
    """Raw pictures in, H.264 packets out."""

    def __init__(self, width: int, height: int, frames_per_second: int) -> None:
        import av

        self.context: Any = av.CodecContext.create("libx264", "w")
        self.context.width, self.context.height = width, height
        self.context.pix_fmt = "yuv420p"
        self.context.time_base = Fraction(1, frames_per_second)
        self.context.framerate = Fraction(frames_per_second, 1)
        self.context.gop_size = frames_per_second * GOP_SECONDS
        self.context.bit_rate = width * height * 4
        self.context.thread_count = 1
        self.context.options = {
            "preset": "ultrafast",
            "tune": "zerolatency",
            "profile": "baseline",
            "x264-params": "scenecut=0",
        }

    def encode(self, planes: tuple[Any, Any, Any], number: int) -> list[tuple[bytes, bool]]:
        """Return (Annex B access unit, keyframe) for each packet that came out."""
        import av

        frame: Any = av.VideoFrame(self.context.width, self.context.height, "yuv420p")
        for plane, data in zip(frame.planes, planes, strict=True):
            rows = data if plane.line_size == data.shape[1] else _padded(data, plane.line_size)
            plane.update(rows.tobytes())
        frame.pts = number
        return [(bytes(packet), packet.is_keyframe) for packet in self.context.encode(frame)]


def _padded(data: Any, line_bytes: int) -> Any:
    import numpy as np

    return np.pad(data, ((0, 0), (0, line_bytes - data.shape[1])))


class AudioEncoder:
    """A tone with a beep on every full second, as AAC packets."""

    def __init__(self) -> None:
        import av

        self.context: Any = av.CodecContext.create("aac", "w")
        self.context.sample_rate = SAMPLE_RATE_HZ
        self.context.layout = "stereo"
        self.context.format = "fltp"
        self.context.time_base = Fraction(1, SAMPLE_RATE_HZ)
        self.context.bit_rate = 96_000
        self.context.open()

    def encode(self, first_sample: int) -> list[tuple[int, bytes]]:
        """Feed the FRAME_SAMPLES samples from first_sample on; return (first sample, packet) for each that came out.

        The encoder is two frames behind its input, and begins with a frame of silence that lies before the first sample.
        """
        import av
        import numpy as np

        times = (first_sample + np.arange(FRAME_SAMPLES)) / SAMPLE_RATE_HZ
        wave = 0.03 * np.sin(2 * np.pi * 220 * times)
        second = times % 1.0
        wave += np.where(
            second < BEEP_SECONDS, 0.25 * np.sin(2 * np.pi * 880 * times) * np.sin(np.pi * second / BEEP_SECONDS), 0
        )
        frame: Any = av.AudioFrame.from_ndarray(np.stack([wave, wave]).astype(np.float32), "fltp", "stereo")
        frame.sample_rate = SAMPLE_RATE_HZ
        frame.pts = first_sample
        return [(int(packet.pts or 0), bytes(packet)) for packet in self.context.encode(frame)]


def schedule(frames_per_second: int) -> Iterator[tuple[int, bool, int]]:
    """Yield (media us, is video, number) of all frames in time order, for ever."""
    video = audio = 0
    while True:
        video_us = video * 1_000_000 // frames_per_second
        audio_us = audio * FRAME_SAMPLES * 1_000_000 // SAMPLE_RATE_HZ
        if video_us <= audio_us:
            yield video_us, True, video
            video += 1
        else:
            yield audio_us, False, audio
            audio += 1


class Demo:
    """Makes the stream and writes it."""

    def __init__(self, services: InputServices) -> None:
        self.services = services
        self.publisher = services.publisher
        self.width, self.height, self.rate = options(services.source)
        try:
            self.picture = Picture(self.width, self.height)
            self.video = VideoEncoder(self.width, self.height, self.rate)
            self.audio = AudioEncoder()
        except ImportError as error:
            raise MistError(
                f"the demo stream needs PyAV and numpy ({error}); install them with "
                '"apt-get install python3-av python3-numpy" or "pip install av numpy"',
                reason="UNSUPPORTED",
            ) from None
        self.tracks = {info.type: index for index, info in self.publisher.tracks.items()}

    def first_us(self) -> int:
        """Return the media time to begin at: that of the clock, if a predecessor has written before."""
        last = self.publisher.last_us()
        boot_us = self.publisher.table.clocks[0]
        return 0 if last is None else max(last + 1_000_000 // self.rate, monotonic_now_us() - boot_us)

    def track(self, info: TrackInfo) -> int:
        """Return the index of the track of this type, made or taken over."""
        index = self.tracks.get(info.type)
        if index is None:
            index = self.tracks[info.type] = self.publisher.add_track(complete(info))
        else:
            self.publisher.update_track(index, complete(info))
        return index

    async def run(self) -> None:
        """Write frames as their time comes, until cancelled."""
        offset_us = self.first_us()
        started_us = monotonic_now_us()
        for media_us, is_video, number in schedule(self.rate):
            early_us = started_us + media_us - monotonic_now_us()
            if early_us > 0:
                await asyncio.sleep(early_us / 1e6)
            if is_video:
                self.write_video(number, offset_us + media_us)
            else:
                self.write_audio(number, offset_us)

    def write_video(self, number: int, dts_us: int) -> None:
        """Encode and write one picture."""
        now = datetime.fromtimestamp(time.time())
        text = f"{now:%H:%M:%S}.{now.microsecond // 1000:03}"
        for data, keyframe in self.video.encode(self.picture.draw(text, number / self.rate), number):
            if VIDEO not in self.tracks or number == 0:
                units = split_annexb(data)
                sets = {kind: [unit for unit in units if unit[0] & 31 == kind] for kind in (SPS, PPS)}
                avcc = build_avcc(sets[SPS], sets[PPS])
                self.track(TrackInfo(VIDEO, H264, avcc, track_id=1, frame_rate_mhz=self.rate * 1000))
            self.publisher.write(Packet(self.tracks[VIDEO], dts_us, 0, keyframe, annexb_to_length_prefixed(data)))
            self.services.record.set_position(dts_us)

    def write_audio(self, number: int, offset_us: int) -> None:
        """Encode one frame of sound, and write what comes out. offset_us: media time of the first frame."""
        for first_sample, data in self.audio.encode(number * FRAME_SAMPLES):
            if AUDIO not in self.tracks or first_sample == 0:
                self.track(TrackInfo(AUDIO, AAC, bytes(self.audio.context.extradata or b""), track_id=2))
            if first_sample >= 0:
                dts_us = offset_us + first_sample * 1_000_000 // SAMPLE_RATE_HZ
                self.publisher.write(Packet(self.tracks[AUDIO], dts_us, 0, True, data))


class DemoInput:
    """The input for the source `demo:`."""

    capability = Capability(
        name="Demo",
        friendly="Built-in demo stream",
        desc="A moving picture with a running clock and a tone, made by the server itself (needs PyAV)",
        source_match=("demo:*",),
        always_match=("demo:*",),
    )

    async def run(self, services: InputServices) -> None:
        """Write the stream until cancelled. Raises MistError when PyAV is missing."""
        await Demo(services).run()


INPUT = DemoInput()
