"""The built-in demo stream: a moving picture with a running clock, and a tone. No file, no network."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
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

SAMPLE_RATE_HZ: Final = 48_000
FRAME_SAMPLES: Final = 1024
MAX_WIDTH: Final = 1920
MAX_HEIGHT: Final = 1080
MAX_FRAMES_PER_SECOND: Final = 60
GOP_SECONDS: Final = 2
SPS, PPS = 7, 8

# Seven rows of five pixels for each character, most significant bit left.
GLYPHS: Final = {
    "0": (14, 17, 19, 21, 25, 17, 14),
    "1": (4, 12, 4, 4, 4, 4, 14),
    "2": (14, 17, 1, 2, 4, 8, 31),
    "3": (31, 2, 4, 2, 1, 17, 14),
    "4": (2, 6, 10, 18, 31, 2, 2),
    "5": (31, 16, 30, 1, 1, 17, 14),
    "6": (6, 8, 16, 30, 17, 17, 14),
    "7": (31, 1, 2, 4, 8, 8, 8),
    "8": (14, 17, 17, 14, 17, 17, 14),
    "9": (14, 17, 17, 15, 1, 2, 12),
    ":": (0, 4, 4, 0, 4, 4, 0),
    ".": (0, 0, 0, 0, 0, 4, 4),
}
GLYPH_WIDTH, GLYPH_HEIGHT = 5, 7
# Luma, blue and red difference of the bars.
BARS: Final = (
    (180, 128, 128),
    (162, 44, 142),
    (131, 156, 44),
    (112, 72, 58),
    (84, 184, 198),
    (65, 100, 212),
    (35, 212, 114),
)


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


class Picture:
    """Draws the frames, as planes of YUV 4:2:0."""

    def __init__(self, width: int, height: int) -> None:
        import numpy as np

        self.width, self.height = width, height
        self.scale = max(width // 96, 1)
        columns = np.arange(width) * len(BARS) // width
        shade = np.linspace(1.0, 0.75, height)[:, None]
        colours = np.array(BARS)
        self.luma = (colours[columns, 0][None, :] * shade).astype(np.uint8)
        half = columns[::2]
        self.blue = np.broadcast_to(colours[half, 1], (height // 2, width // 2)).astype(np.uint8)
        self.red = np.broadcast_to(colours[half, 2], (height // 2, width // 2)).astype(np.uint8)
        self.glyphs = {
            character: np.kron(
                np.array([[row >> (GLYPH_WIDTH - 1 - column) & 1 for column in range(GLYPH_WIDTH)] for row in rows]),
                np.ones((self.scale, self.scale), int),
            ).astype(bool)
            for character, rows in GLYPHS.items()
        }

    def draw(self, text: str, seconds: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the planes of one frame: bars, a ball that swings, and the text on a dark field."""
        luma, blue, red = self.luma.copy(), self.blue.copy(), self.red.copy()
        self._draw_ball(luma, blue, red, seconds)
        step = (GLYPH_WIDTH + 1) * self.scale
        wide, high = step * len(text) + self.scale, (GLYPH_HEIGHT + 2) * self.scale
        left, top = (self.width - wide) // 2 & ~1, int(self.height * 0.72) & ~1
        luma[top : top + high, left : left + wide] = 24
        blue[top // 2 : (top + high) // 2, left // 2 : (left + wide) // 2] = 128
        red[top // 2 : (top + high) // 2, left // 2 : (left + wide) // 2] = 128
        for place, character in enumerate(text):
            x, y = left + self.scale + place * step, top + self.scale
            field = luma[y : y + GLYPH_HEIGHT * self.scale, x : x + GLYPH_WIDTH * self.scale]
            field[self.glyphs[character][: field.shape[0], : field.shape[1]]] = 235
        return luma, blue, red

    def _draw_ball(self, luma: np.ndarray, blue: np.ndarray, red: np.ndarray, seconds: float) -> None:
        import math

        side = max(self.height // 8, 8) & ~1
        x = int((self.width - side) * (0.5 + 0.5 * math.sin(seconds * 1.3))) & ~1
        y = int((self.height * 0.6 - side) * abs(math.cos(seconds * 2.1))) & ~1
        luma[y : y + side, x : x + side] = 225
        blue[y // 2 : (y + side) // 2, x // 2 : (x + side) // 2] = 118
        red[y // 2 : (y + side) // 2, x // 2 : (x + side) // 2] = 138


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

    def encode(self, first_sample: int) -> list[bytes]:
        """Return the packets that came out for the FRAME_SAMPLES samples from first_sample on."""
        import av
        import numpy as np

        times = (first_sample + np.arange(FRAME_SAMPLES)) / SAMPLE_RATE_HZ
        wave = 0.03 * np.sin(2 * np.pi * 220 * times)
        second = times % 1.0
        wave += np.where(second < 0.08, 0.25 * np.sin(2 * np.pi * 880 * times) * np.sin(np.pi * second / 0.08), 0)
        frame: Any = av.AudioFrame.from_ndarray(np.stack([wave, wave]).astype(np.float32), "fltp", "stereo")
        frame.sample_rate = SAMPLE_RATE_HZ
        frame.pts = first_sample
        return [bytes(packet) for packet in self.context.encode(frame)]


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
                self.write_audio(number, offset_us + media_us)

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

    def write_audio(self, number: int, dts_us: int) -> None:
        """Encode and write one frame of sound."""
        for data in self.audio.encode(number * FRAME_SAMPLES):
            if AUDIO not in self.tracks or number == 1:
                self.track(TrackInfo(AUDIO, AAC, bytes(self.audio.context.extradata or b""), track_id=2))
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
