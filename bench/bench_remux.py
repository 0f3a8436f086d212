"""CPU seconds of changing the container of a file, against `ffmpeg -c copy`; also by two processes and a pipe.

A 120 s, 40 MB file and one of under a second are converted by both, in turn, several rounds. What the short one costs (starting the
program; the median of all rounds) is taken off what the long one costs; ratios are of one round.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from bench.harness import CACHE, report

SECONDS = 120
SHORT_SECONDS = 0.5
PAIRS = ("flv:ts", "flv:mp4", "flv:mkv", "ts:flv", "mp4:ts")
# Its own CPU seconds alone count: an editable build runs a compiler's dependency check at every start.
RUN_MIST = """\
import os, resource, sys
from mist.cli import main
status = main(sys.argv[2:])
usage = resource.getrusage(resource.RUSAGE_SELF)
with open(sys.argv[1], "a") as file: file.write(f"{usage.ru_utime + usage.ru_stime}\\n")
os._exit(status)
"""


def media(suffix: str, *, short: bool = False) -> Path:
    """Return 120 s of 1280x720 at 30 fps, 2.5 Mbit/s H.264 with 128 kbit/s AAC, or its beginning; made once."""
    origin = CACHE / "remux.mkv"
    CACHE.mkdir(parents=True, exist_ok=True)
    if not origin.exists():
        picture = "-f lavfi -i testsrc2=size=1280x720:rate=30 -f lavfi -i sine=440:sample_rate=48000"
        x264 = "-c:v libx264 -preset veryfast -g 60 -b:v 2500k -minrate 2500k -maxrate 2500k -bufsize 500k"
        ffmpeg(f"{picture} -t {SECONDS} {x264} -x264-params nal-hrd=cbr -c:a aac -b:a 128k -ac 2", origin)
    path = CACHE / f"remux{'-short' if short else ''}.{suffix}"
    if not path.exists():
        ffmpeg(f"-i {origin} {f'-t {SHORT_SECONDS}' if short else ''} -c copy", path)
    return path


def ffmpeg(arguments: str, target: Path) -> None:
    """Make a file."""
    work = target.with_name(f"work-{target.name}")
    subprocess.run(["ffmpeg", "-v", "error", "-y", *arguments.split(), str(work)], check=True)
    work.rename(target)


def run(*commands: Sequence[str], output: Path) -> float:
    """Run a pipeline into a file and return the CPU seconds of its processes."""
    running: list[subprocess.Popen[bytes]] = []
    source: int = os.open(os.devnull, os.O_RDONLY)
    for place, command in enumerate(commands):
        last = place == len(commands) - 1
        read, write = (-1, os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)) if last else os.pipe()
        running.append(subprocess.Popen(command, stdin=source, stdout=write))
        os.close(source)
        os.close(write)
        source = read
    spent = 0.0
    for process in running:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise RuntimeError(f"{process.args!r} ended with {process.returncode}")
        spent += usage.ru_utime + usage.ru_stime
    return spent


def run_mist(*arguments: Sequence[str], output: Path) -> float:
    """Run a pipeline of mist's commands and return the CPU seconds of their processes."""
    notes = output.with_name("cpu")
    notes.unlink(missing_ok=True)
    run(*([sys.executable, "-c", RUN_MIST, str(notes), *words] for words in arguments), output=output)
    return sum(float(line) for line in notes.read_text().split())


def convert_with_ffmpeg(source: Path, target: Path) -> float:
    """Return the CPU seconds of ffmpeg."""
    command = ["ffmpeg", "-nostdin", "-v", "error", "-y", "-i", str(source), "-c", "copy", str(target)]
    return run(command, output=target.with_name("nothing"))


def convert_with_mist(source: Path, target: Path) -> float:
    """Return the CPU seconds of one process of mist."""
    return run_mist(["convert", str(source), str(target)], output=target.with_name("nothing"))


def convert_through_pipe(source: Path, target: Path) -> float:
    """Return the CPU seconds of two processes of mist and the pipe between them."""
    return run_mist(["in", str(source)], ["out", target.suffix[1:]], output=target)


def measure(pair: str, rounds: int, folder: Path) -> dict[str, object]:
    """Return the figures of one pair of formats."""
    read, written = pair.split(":")
    long, short = media(read), media(read, short=True)
    target = folder / f"out.{written}"
    ways = {"ffmpeg": convert_with_ffmpeg, "one": convert_with_mist, "pipe": convert_through_pipe}
    whole: dict[str, list[float]] = {name: [] for name in ways}
    start: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, convert in ways.items():
            whole[name].append(convert(long, target))
            start[name].append(convert(short, target))
    begin = {name: statistics.median(start[name]) for name in ways}
    ratios = {
        name: [
            (ours - begin[name]) / (theirs - begin["ffmpeg"])
            for ours, theirs in zip(whole[name], whole["ffmpeg"], strict=True)
        ]
        for name in ("one", "pipe")
    }
    figures: dict[str, object] = {"pair": pair}
    for name in ways:
        figures[f"{name}_cpu_s"] = round(statistics.median(whole[name]) - begin[name], 4)
        figures[f"{name}_start_cpu_s"] = round(begin[name], 4)
    for name, values in ratios.items():
        figures[f"{name}_ratio"] = round(statistics.median(values), 2)
        figures[f"{name}_ratio_spread"] = [round(min(values), 2), round(max(values), 2)]
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pairs", nargs="*", default=PAIRS, help="such as flv:ts")
    parser.add_argument("--rounds", type=int, default=11)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mist-bench-") as folder:
        for pair in options.pairs:
            report(**measure(pair, options.rounds, Path(folder)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
