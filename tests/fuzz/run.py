"""Hunt for input that breaks an engine: `python -m tests.fuzz.run NAME [seconds]`.

With the package `atheris` installed and the engines built with `-fsanitize=fuzzer-no-link` (clang) the search is guided by
coverage; otherwise seeds are changed at random. What breaks an engine is written to build/fuzz/NAME-….bin: make it a seed in
tests/data/NAME/corpus before mending it.
"""

from __future__ import annotations

import hashlib
import random
import sys
import time
from pathlib import Path

from tests.fuzz.targets import Target, load_targets

FINDINGS = Path("build/fuzz")


def main(arguments: list[str]) -> int:
    """Run one target for some seconds (60 unless told); return 1 when something was found."""
    if not arguments:
        sys.stderr.write(f"{__doc__}\ntargets: {' '.join(target.name for target in load_targets())}\n")
        return 2
    targets = load_targets(arguments[0])
    if not targets:
        sys.stderr.write(f"no target called {arguments[0]}\n")
        return 2
    seconds = float(arguments[1]) if len(arguments) > 1 else 60.0
    try:
        import atheris
    except ImportError:
        return hunt_at_random(targets[0], seconds)
    folder = FINDINGS / f"{targets[0].name}.corpus"
    folder.mkdir(parents=True, exist_ok=True)
    seeds = sorted({str(seed.parent) for seed in targets[0].seeds()})
    atheris.Setup(["fuzz", str(folder), *seeds, f"-max_total_time={int(seconds)}"], targets[0].fuzz)
    atheris.Fuzz()
    return 0


def hunt_at_random(target: Target, seconds: float) -> int:
    """Change seeds at random until the time is over; write what breaks the target and return 1 then."""
    number = time.time_ns()
    chance = random.Random(number)
    seeds = [seed.read_bytes() for seed in target.seeds()] or [b""]
    end, runs = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        data = mutate(chance.choice(seeds), seeds, chance)
        try:
            target.fuzz(data)
        except Exception as error:  # noqa: BLE001 (whatever it is, it is the finding)
            FINDINGS.mkdir(parents=True, exist_ok=True)
            path = FINDINGS / f"{target.name}-{hashlib.sha256(data).hexdigest()[:12]}.bin"
            path.write_bytes(data)
            sys.stderr.write(f"{type(error).__name__}: {error}\nafter {runs} runs; input kept in {path}\n")
            return 1
        runs += 1
    sys.stderr.write(f"{target.name}: {runs} runs, nothing found\n")
    return 0


def mutate(data: bytes, seeds: list[bytes], chance: random.Random) -> bytes:
    """Return the data with a few random changes: bytes set, ranges cut, doubled or taken from another seed."""
    changed = bytearray(data)
    for _ in range(chance.choice((1, 2, 4, 16))):
        at = chance.randrange(len(changed) + 1)
        match chance.randrange(5):
            case 0 if changed:
                changed[at % len(changed)] = chance.randrange(256)
            case 1:
                changed[at : at + chance.randrange(1, 64)] = b""
            case 2:
                changed[at:at] = chance.randbytes(chance.randrange(1, 16))
            case 3:
                changed[at:at] = changed[at : at + chance.randrange(1, 256)]
            case 4:
                other = chance.choice(seeds)
                start = chance.randrange(len(other) + 1)
                changed[at:at] = other[start : start + chance.randrange(1, 256)]
    return bytes(changed[: 1 << 20])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
