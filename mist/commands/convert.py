"""`mist convert`, `mist in` and `mist out`: one input into one output."""

from __future__ import annotations

import argparse
import math
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mist.commands import BadUsage
from mist.errors import MistError, NoSuitableTrack, RemoteProtocolError

if TYPE_CHECKING:
    from mist.commands.progress import Progress
    from mist.commands.sources import OpenInput
    from mist.commands.targets import Target
    from mist.core.muxer import Muxer
    from mist.formats.containers import Container
    from mist.formats.tracks import TrackInfo
    from mist.stream.conversion import Conversion, Wishes

_CONVERT = """\
Put the media of one file into a file of another format, as it is: packets are copied, nothing is decoded.

  mist convert a.flv b.mp4
  mist convert --start 60 --stop 90 a.mkv clip.ts    half a minute, from the keyframe at or before 60 s
  mist convert --audio eng --video maxres a.mkv b.mp4
  mist convert https://example.org/a.mp4 b.mkv
  mist convert a.ts - --to flv | player              "-" is standard input or output

The format of A is told by its first bytes, that of B by its name. Tracks that B's format cannot carry are left
out, with a warning. B appears when it is whole; until then, and after an error, what there is of it is in B.part.

"""

_IN = """\
Read a file, an http(s) URL, or "-" for standard input, and write its media as DTSC to standard output, for
"mist out" at the other end of a pipe, here or on another machine.

  mist in a.mp4 | mist out ts > a.ts
  mist in a.mp4 | ssh host mist out mkv ">" a.mkv

"""

_OUT = """\
Read DTSC, as "mist in" writes it, from standard input and write a file of a format to standard output.

  mist in a.mp4 | mist out ts > a.ts

"""

_SELECTION = """\
Tracks are chosen as in a stream's URL: a number, a codec (AAC), a language (deu), maxres, 720p, stereo, none, all,
several with commas, all but one with "!2". Without a selection every track goes along that the format can carry.
"""


def add_commands(commands: Any) -> list[argparse.ArgumentParser]:
    """Add the commands to a parser's sub-commands."""
    raw = argparse.RawDescriptionHelpFormatter
    formats = _formats()
    convert = commands.add_parser(
        "convert",
        help="put a file's media into another format",
        description=_CONVERT + _SELECTION,
        epilog=formats,
        formatter_class=raw,
    )
    convert.add_argument("source", metavar="A", help='what to read: a path, an http(s) URL, or "-"')
    convert.add_argument("target", metavar="B", help='what to write: a path, or "-"')
    convert.add_argument("--from", dest="from_format", metavar="FORMAT", help="format of A, if it cannot be told")
    convert.add_argument("--to", dest="to_format", metavar="FORMAT", help="format of B, if its name does not say it")
    convert.set_defaults(run=run_convert)

    source = commands.add_parser(
        "in",
        help="read a file and write DTSC to a pipe",
        description=_IN + _SELECTION,
        epilog=formats,
        formatter_class=raw,
    )
    source.add_argument("source", metavar="SOURCE", help='what to read: a path, an http(s) URL, or "-"')
    source.add_argument("--from", dest="from_format", metavar="FORMAT", help="its format, if it cannot be told")
    source.set_defaults(run=run_in)

    out = commands.add_parser(
        "out",
        help="read DTSC from a pipe and write a file",
        description=_OUT + _SELECTION,
        epilog=formats,
        formatter_class=raw,
    )
    out.add_argument("to_format", metavar="FORMAT", help="what to write")
    out.set_defaults(run=run_out)

    for parser in (convert, source, out):
        for kind in ("audio", "video", "subtitle", "meta"):
            parser.add_argument(f"--{kind}", metavar="SEL", help=f"which {kind} tracks")
        parser.add_argument(
            "--start", metavar="TIME", type=seconds, help="where to begin: seconds from the beginning, or 1:02:03.5"
        )
        parser.add_argument("--stop", metavar="TIME", type=seconds, help="where to stop, counted from the beginning")
        parser.add_argument(
            "--times", choices=("keep", "zero"), help="keep the times of A, or begin at zero (with --start the default)"
        )
    return [convert, source, out]


def _formats() -> str:
    from mist.formats.containers import CONTAINERS

    reads = " ".join(row.name for row in CONTAINERS if row.make_demuxer)
    writes = " ".join(row.name for row in CONTAINERS if row.make_muxer)
    return f"reads:  {reads}\nwrites: {writes}"


def seconds(text: str) -> int:
    """Return a time of the command line, in seconds or as [H:]MM:SS, in microseconds. Raises ValueError."""
    value = 0.0
    for part in text.split(":"):
        value = value * 60 + float(part)
    if not math.isfinite(value) or not 0 <= value < 1e9 or text.count(":") > 2:
        raise ValueError(text)
    return round(value * 1e6)


def run_convert(options: argparse.Namespace) -> int:
    """Convert a file."""
    from mist.commands.sources import open_input, writable
    from mist.commands.targets import open_target
    from mist.formats.containers import by_file_name

    to_standard_output = options.target == "-"
    if options.to_format is not None:
        container: Container | None = writable(options.to_format)
    else:
        container = None if to_standard_output else by_file_name(options.target)
    if container is None or container.make_muxer is None:
        raise BadUsage(
            f"the name {options.target} does not say in which format to write; --to FORMAT does.\n{_formats()}"
        )
    _check_different(options.source, options.target)
    wishes = wishes_of(options)
    with open_input(options.source, options.from_format) as source:
        target = standard_output() if to_standard_output else open_target(options.target)
        return _run(source, target, container, wishes)


def run_in(options: argparse.Namespace) -> int:
    """Read a source and write DTSC."""
    from mist.commands.sources import open_input, writable

    container, wishes = replace(writable("dtsc"), make_muxer=_exact_dtsc), wishes_of(options)
    with open_input(options.source, options.from_format) as source:
        return _run(source, standard_output(), container, wishes)


def _exact_dtsc(tracks: list[TrackInfo]) -> Muxer:
    """Return a muxer that keeps the microseconds, which readers who do not know of them pass over."""
    from mist.core.dtsc import DtscMuxer

    return DtscMuxer(tracks, live=False, exact=True)


def run_out(options: argparse.Namespace) -> int:
    """Read DTSC and write a format."""
    from mist.commands.sources import open_input, writable

    container, wishes = writable(options.to_format), wishes_of(options)
    with open_input("-", "dtsc") as source:
        return _run(source, standard_output(), container, wishes)


def standard_output() -> Target:
    """Return standard output as a target. Raises BadUsage for a terminal."""
    from mist.commands.targets import PipeTarget

    if sys.stdout.isatty():
        raise BadUsage("media does not go to a terminal: write to a file with > FILE, or to a program with |")
    return PipeTarget("standard output", sys.stdout.fileno())


def _check_different(source: str, target: str) -> None:
    """Refuse to write over what is read."""
    try:
        same = target != "-" and source != "-" and os.path.samefile(source, target)
    except OSError:
        return
    if same and Path(target).is_file():
        raise BadUsage(f"{target} is the file that is read")


def wishes_of(options: argparse.Namespace) -> Wishes:
    """Return what the command line asks of the input. Raises BadUsage."""
    from mist.stream.conversion import Wishes

    if options.start is not None and options.stop is not None and options.stop <= options.start:
        raise BadUsage("--stop is not after --start")
    given = {kind: getattr(options, kind) for kind in ("audio", "video", "subtitle", "meta")}
    from_zero = options.times == "zero" if options.times else options.start is not None
    return Wishes(
        {kind: text for kind, text in given.items() if text is not None}, options.start, options.stop, from_zero
    )


def _run(source: OpenInput, target: Target, container: Container, wishes: Wishes) -> int:
    """Pump, and see to what is left of the target when that fails."""
    from mist.commands.progress import Progress
    from mist.formats.containers import by_name
    from mist.stream.conversion import Conversion

    if not target.rewritable and container.on_pipe:
        container = by_name(container.on_pipe) or container
    progress = Progress(source.reader.size)

    def tell(text: str) -> None:
        progress.clear()
        print(f"mist: {source.reader.name}: {text}", file=sys.stderr)

    conversion = Conversion(source.demuxer, container, wishes, tell=tell)
    try:
        target.complete(pump(source, target, conversion, progress))
    except RemoteProtocolError as error:
        progress.clear()
        raise _after_damage(error, source, target, conversion) from error
    except NoSuitableTrack as error:
        target.discard()
        raise MistError(f"{source.reader.name}: {error}") from error
    except BaseException:
        target.discard()
        raise
    finally:
        progress.clear()
    return 0


def pump(source: OpenInput, target: Target, conversion: Conversion, progress: Progress) -> list[tuple[int, bytes]]:
    """Read and write until the conversion is over. Returns what is to be written over earlier bytes."""
    while (wanted := conversion.want()) is not None:
        data = source.reader.read(*wanted)
        conversion.feed(data)
        target.write(conversion.output)
        progress.update(wanted[0] + len(data), conversion.position_us)
    patches = conversion.finish()
    target.write(conversion.output, last=True)
    return patches


def _after_damage(error: RemoteProtocolError, source: OpenInput, target: Target, conversion: Conversion) -> MistError:
    """Finish an output whose input broke, under the name of what is not whole, and return the error to show."""
    from mist.commands.sources import located

    located_error = located(error, source.reader.name, conversion.reading)
    try:
        patches = conversion.finish()
        target.write(conversion.output, last=True)
        left = target.keep(patches)
    except MistError:  # there is nothing before the damage
        target.discard()
        return located_error
    if not left:
        return located_error
    return MistError(f"{located_error}; what is before that is in {left}", reason=error.reason)
