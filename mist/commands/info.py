"""`mist info`: what is in a file."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mist.errors import MistError, RemoteProtocolError

if TYPE_CHECKING:
    from mist.stream.survey import Report, TrackReport

_INFO = """\
Read a file, an http(s) URL, or "-" for standard input, to its end, and show what is in it: its tracks with codec, size,
rates, keyframes and times, and below them what is wrong with it, such as gaps, times that go backwards, or damage,
with its first byte.

  mist info recording.ts
  mist info --json https://example.org/a.mp4

first and last are presentation times; GOP is the distance of keyframes in seconds: least / mean / most.

Exit status: 0, also where something is wrong with the times or damaged; 1 when the file cannot be read to its end.
"""


def add_commands(commands: Any) -> list[argparse.ArgumentParser]:
    """Add the command to a parser's sub-commands."""
    info = commands.add_parser(
        "info",
        help="show what is in a file",
        description=_INFO,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    info.add_argument("source", metavar="SOURCE", help='what to read: a path, an http(s) URL, or "-"')
    info.add_argument("--from", dest="from_format", metavar="FORMAT", help="its format, if it cannot be told")
    info.add_argument("--json", action="store_true", help="as JSON, for programs")
    info.set_defaults(run=run_info)
    return [info]


def run_info(options: argparse.Namespace) -> int:
    """Show what is in a source."""
    from mist.commands.progress import Progress
    from mist.commands.sources import located, open_input
    from mist.core.track_survey import TrackSurvey
    from mist.stream.survey import make_report

    failure: MistError | None = None
    with open_input(options.source, options.from_format) as source:
        demuxer = source.demuxer
        survey = TrackSurvey(demuxer)
        demuxer.attach(survey)
        progress = Progress(source.reader.size)
        wanted: tuple[int, int] | None = None
        begun_us: int | None = None
        try:
            while (wanted := demuxer.want()) is not None:
                data = source.reader.read(*wanted)
                demuxer.feed(data)
                begun_us = survey.newest_us if begun_us is None else begun_us
                progress.update(wanted[0] + len(data), survey.newest_us - begun_us)
        except RemoteProtocolError as error:
            failure = located(error, source.reader.name, wanted)
        finally:
            progress.clear()
        name, container, size = source.reader.name, source.container.name, source.reader.size
        report = make_report(container, size, demuxer, survey)
    if options.json:
        print(json.dumps({"source": name, "error": str(failure) if failure else None, **report.document()}, indent=2))
    elif report.tracks or failure is None:
        print(show(name, report))
    if failure is not None:
        print(f"mist: {failure}", file=sys.stderr)
        return 1
    return 0


def show(name: str, report: Report) -> str:
    """Return a report as text."""
    from mist.commands.progress import bytes_text, time_text

    summary = [report.container, time_text(report.duration_us), rate_text(report.bit_rate_bps)]
    if report.bytes is not None:
        summary.insert(2, bytes_text(report.bytes))
    lines = [f"{name}: {', '.join(summary)}", ""]
    lines += _table(report.tracks)
    wrong = [*report.health, *(str(place) for place in report.damage)]
    if report.damage_count > len(report.damage):
        wrong.append(f"and {report.damage_count - len(report.damage)} more places that are damaged")
    lines += ["", *(f"! {text}" for text in wrong)] if wrong else ["", "nothing is wrong with it"]
    return "\n".join(lines)


def rate_text(bits_per_second: int) -> str:
    """Return a bit rate as people read it."""
    if bits_per_second >= 1_000_000:
        return f"{bits_per_second / 1e6:.2f} Mbit/s"
    return f"{bits_per_second / 1e3:.0f} kbit/s"


def _table(tracks: Sequence[TrackReport]) -> list[str]:
    from mist.commands.progress import time_text

    rows = [
        ("", "type", "codec", "string", "what", "lang", "rate", "packets", "keys", "GOP s", "B", "first", "last"),
    ]
    for one in tracks:
        rows.append(
            (
                str(one.index),
                one.type,
                one.codec,
                one.codec_string or "-",
                _what(one),
                one.language,
                rate_text(one.bit_rate_bps),
                str(one.packets),
                str(one.keyframes) if one.type == "video" else "-",
                _gop_text(one),
                "yes" if one.reordered else "no" if one.type == "video" else "-",
                time_text(one.first_us) if one.packets else "-",
                time_text(one.last_us) if one.packets else "-",
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _what(one: TrackReport) -> str:
    if one.type == "video":
        turned = f", turned by {one.rotation_degrees} degrees" if one.rotation_degrees else ""
        return f"{one.width}x{one.height}, {one.frame_rate_mhz / 1000:.5g} fps{turned}"
    if one.type == "audio":
        return f"{one.sample_rate_hz} Hz, {one.channels} ch"
    return "-"


def _gop_text(one: TrackReport) -> str:
    if one.gop is None:
        return "-"
    return f"{one.gop.least_us / 1e6:.2f} / {one.gop.mean_us / 1e6:.2f} / {one.gop.most_us / 1e6:.2f}"
