"""`mist record`: a stream of a running server into files."""

from __future__ import annotations

import argparse
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from mist.commands import BadUsage
from mist.errors import ConfigError, NotReady, TransportError

if TYPE_CHECKING:
    from mist.formats.containers import Container
    from mist.stream.reader import StreamReader
    from mist.stream.recorder import Recorder, Span
    from mist.stream.recording import RecordingTarget

INTERVAL_S: Final = 0.1  # from a packet to the next write: larger pieces cost less
LOOK_S: Final = 0.5  # without a packet: the target may name a time to stop at, and a signal may have come
_COOKIE: Final = 1
APPENDABLE: Final = frozenset({"ts", "aac", "ac3", "mp3", "dts", "h264", "hevc", "m2v"})

_DESCRIPTION = """\
Record a stream of a server that runs on this machine, until the stream ends, Ctrl-C or SIGTERM. Packets are copied, nothing is
encoded anew. The stream is started if it is not running. It begins at the newest keyframe.

  mist record live /media/live.mkv
  mist record live '/media/$stream_$datetime.ts?duration=3600'     an hour
  mist record live '/media/$stream_$datetime.ts?split=600'         a file for every ten minutes
  mist record live '/media/$segmentCounter.ts?m3u8=list.m3u8&split=6&maxEntries=10'   the last minute, for HLS players

The name's suffix says the format. What is in a file can be played at every moment, also after a crash. MP4 is written in
fragments for that. A line for each file that is whole goes to standard output. Single quotes keep the shell away from $ and &.

in the name:
  $stream $basename $wildcard         of the stream's name: all, before the +, after it
  $datetime $year $month $day $hour $minute $second $wday $yday $week     when the file was begun
  $segmentCounter $currentMediaTime   number of the file, from 0; media time of its beginning, ms
"""

_EPILOG = """\
after a "?", joined by "&":
  duration=S                    record so many seconds
  start=MS stop=MS              media times; recstart and recstop mean the same
  startunix=S stopunix=S        unix times; up to 36000 they count from now: startunix=-30. Also recstartunix, recstopunix
  realtime rate=N pushdelay=S   no faster than the media's clock, N times as fast; so far behind the stream
  waitkey                       begin at a keyframe that is still to come
  split=S                       a new file at the first keyframe after so many seconds (60 with m3u8)
  adjustSplit                   with split: longer if keyframes are far apart
  append                        go on in the file, or the playlist, that is there
  m3u8=NAME                     a playlist of the files, beside them; needs $segmentCounter or $currentMediaTime
  segment=NAME                  names for the files, beside the target
  maxEntries=N targetAge=S      the playlist's bounds; files that leave it are deleted
  nounlink noendlist            keep those files; no end mark in the playlist
  audio=SEL video=SEL subtitle=SEL meta=SEL   tracks, as in a stream's URL: AAC, deu, maxres, 720p, all, none
  passthrough unmask            all tracks that the format can carry; hidden ones, too
  waittrackcount=N maxwaittrackms=MS          wait for so many tracks, for so long

Exit status: 0 recorded, 1 an error, 2 a target that cannot be
"""


def add_commands(commands: Any, run: Callable[[argparse.Namespace], int]) -> argparse.ArgumentParser:
    """Add the command to a parser's sub-commands."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "record",
        help="record a running server's stream to files",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("stream", metavar="STREAM", help="name of the stream")
    parser.add_argument("target", metavar="TARGET", help="path of the file, with variables and parameters")
    parser.set_defaults(run=run)
    return parser


def record(stream: str, text: str, instance: str, bells: str, start: Callable[[str], None]) -> int:
    """Record a stream.

    bells: the folder of the server's doorbells. start: asks the server to start a stream; raises MistError.
    Raises BadUsage, MistError.
    """
    from mist.stream.names import sanitise
    from mist.stream.recording import parse_target

    try:
        target = parse_target(text)
    except ConfigError as error:
        raise BadUsage(str(error)) from error
    if target.unknown:
        print(f"mist: of no meaning for a recording: {', '.join(target.unknown)}", file=sys.stderr)
    playlist = os.path.abspath(target.playlist) if target.playlist else ""
    target = replace(target, files=os.path.abspath(target.files), playlist=playlist)
    container = _container(target)
    name = sanitise(stream)
    with _opened(name, instance, bells, start) as (reader, rest), _stop_signals() as stopped:
        _run(reader, container, target, rest, stopped)
    return 0


def _container(target: RecordingTarget) -> Container:
    """Return the format that a target's name says. Raises BadUsage."""
    from mist.formats.containers import CONTAINERS, by_file_name, by_name

    container = by_file_name(target.files)
    if container is not None and container.on_pipe:
        container = by_name(container.on_pipe)
    if container is None or container.make_muxer is None:
        known = " ".join(row.suffixes[0] for row in CONTAINERS if row.make_muxer)
        raise BadUsage(f"the name {target.files} does not say a format that can be written: {known}")
    if target.append and not target.playlist and container.name not in APPENDABLE:
        raise BadUsage(
            f"a file of the format {container.name} has one beginning: append is for {', '.join(sorted(APPENDABLE))}"
        )
    return container


@contextmanager
def _opened(
    name: str, instance: str, bells: str, start: Callable[[str], None]
) -> Iterator[tuple[StreamReader, Callable[[], None]]]:
    """Open a stream, and show its input that somebody watches. What comes with it passes the time until the next look."""
    from mist.core.doorbell import Doorbell
    from mist.stream.reader import StreamReader

    start(name)
    reader = StreamReader(instance, name)
    if not reader.live:
        reader.close()
        raise BadUsage(
            f'the stream {name} is on demand: its source is a file, which "mist convert" puts into another format'
        )
    bell = Doorbell(bells)
    slot = reader.table.subscribe(_COOKIE)

    def rest() -> None:
        """Wait for the next packet, and a little for those behind it."""
        bell.drain()
        reader.table.arm(slot)
        if select.select([bell], [], [], LOOK_S)[0]:
            time.sleep(INTERVAL_S)
        reader.forget_pages()

    try:
        yield reader, rest
    finally:
        reader.table.unsubscribe(slot)
        bell.close()
        reader.close()


@contextmanager
def _stop_signals() -> Iterator[Callable[[], bool]]:
    """Let SIGTERM and Ctrl-C end the recording in order; yields what tells whether one came."""
    came: list[int] = []
    signals = (signal.SIGTERM, signal.SIGINT)
    before = {one: signal.signal(one, lambda number, _frame: came.append(number)) for one in signals}
    try:
        yield lambda: bool(came)
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def _run(
    reader: StreamReader,
    container: Container,
    target: RecordingTarget,
    rest: Callable[[], None],
    stopped: Callable[[], bool],
) -> None:
    """Record until something ends it."""
    from mist.commands.progress import Progress, bytes_text, time_text
    from mist.stream.recorder import Recorder
    from mist.stream.recording_files import RecordingFiles

    progress = Progress(None)

    def tell(text: str) -> None:
        progress.clear()
        print(f"mist: {reader.name}: {text}", file=sys.stderr)

    def closed(path: str, span: Span, size: int) -> None:
        progress.clear()
        print(f"{path}  {time_text(span.end_us - span.begin_us)}  {bytes_text(size)}", flush=True)

    files = RecordingFiles(target, reader.name, on_closed=closed)
    recorder: Recorder = Recorder(
        reader,
        container,
        target,
        files,
        clock_us=lambda: time.monotonic_ns() // 1000,
        unix_us=lambda: time.time_ns() // 1000,
        tell=tell,
    )
    try:
        while not stopped():
            if not recorder.step():
                break
            progress.update(files.bytes_written, recorder.position_us)
            rest()
        begun = recorder.recording
        recorder.finish()
        files.end()
    except TransportError:
        with suppress(TransportError):  # the first one says what is wrong
            recorder.break_off()
        raise
    finally:
        files.abandon()
        progress.clear()
    if not begun:
        raise NotReady(f"nothing of the stream {reader.name} was recorded")
