"""Replay the committed corpus through every fuzz target: events or RemoteProtocolError, in bounded time and memory.

A target is tests/fuzz/fuzz_NAME.py with `fuzz(data: bytes) -> None`. Its seeds are in tests/data/NAME/corpus/; a target that
reads another format's seeds names the folders in `CORPORA`.
"""

from __future__ import annotations

import random
import resource
from collections.abc import Callable

import pytest

from tests.fuzz.targets import Target, load_targets

TARGETS = load_targets()
MEMORY_GROWTH_BYTES = 64 << 20


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_target_has_seeds(target: Target) -> None:
    assert target.seeds(), f"tests/data/{target.name}/corpus is empty"


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
@pytest.mark.timeout(60)
def test_replay(target: Target) -> None:
    for seed in target.seeds():
        _run(target.fuzz, seed.read_bytes(), seed.name)


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
@pytest.mark.timeout(60)
def test_damaged_seeds(target: Target) -> None:
    """Cut, flip, repeat and stretch each seed in ways that are the same in every run."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    for seed in target.seeds():
        data = seed.read_bytes()
        for number, damaged in enumerate(_damage(data, random.Random(seed.name))):
            _run(target.fuzz, damaged, f"{seed.name}, damage {number}")
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    assert grown < MEMORY_GROWTH_BYTES, f"memory grew by {grown >> 20} MiB"


def _damage(data: bytes, chance: random.Random) -> list[bytes]:
    results = [b"", data + data, data + b"\xff" * 64, b"\xff" * len(data), bytes(len(data))]
    results += [data[: len(data) * part // 8] for part in range(1, 8)]
    for _ in range(24):
        changed = bytearray(data)
        for _ in range(chance.randint(1, 8)):
            if changed:
                changed[chance.randrange(len(changed))] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)))
        results.append(bytes(changed))
    for _ in range(8):
        cut, length = chance.randrange(len(data) + 1), chance.randint(1, 16)
        results.append(data[:cut] + chance.randbytes(length) + data[cut:])
        results.append(data[:cut] + data[cut + length :])
    return results


def _run(fuzz: Callable[[bytes], None], data: bytes, what: str) -> None:
    try:
        fuzz(data)
    except Exception as error:
        error.add_note(f"input: {what}, {len(data)} bytes, starts {data[:32].hex()}")
        raise
