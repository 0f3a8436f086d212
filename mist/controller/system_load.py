"""How busy the machine is: processor, memory and shared memory, read from the kernel's files."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mist.stream.names import SHARED_MEMORY

PROC = Path("/proc")


class SystemLoad:
    """Measures the load between two calls of `sample`. cpu_permille: busy time of all processors together."""

    def __init__(self) -> None:
        self.cpu_permille = 0
        self._busy = self._total = 0
        self.sample()

    def sample(self) -> None:
        """Read the processors' counters; called once a second."""
        try:
            with open(PROC / "stat", "rb") as file:
                values = [int(value) for value in file.readline().split()[1:9]]
        except (OSError, ValueError):
            return
        total, idle = sum(values), values[3] + values[4]
        busy = total - idle
        if total > self._total and self._total:
            self.cpu_permille = max(0, min(1000, 1000 * (busy - self._busy) // (total - self._total)))
        self._busy, self._total = busy, total

    def brief(self) -> dict[str, float]:
        """Return the reply of `load`: percents with one decimal."""
        memory = _memory()
        shared = _shared_memory()
        return {
            "cpu": self.cpu_permille / 10,
            "mem": _percent(memory["MemTotal"] - memory["MemAvailable"], memory["MemTotal"]),
            "shm": _percent(shared[0] - shared[1], shared[0]),
        }

    def sizes(self) -> dict[str, int]:
        """Return memory and shared memory, in all and in use, in KiB."""
        memory = _memory()
        total, free = _shared_memory()
        return {
            "mem_total": memory["MemTotal"],
            "mem_used": memory["MemTotal"] - memory["MemAvailable"],
            "shm_total": total,
            "shm_used": total - free,
        }

    def interfaces(self) -> tuple[int, int]:
        """Return the bytes that all network interfaces but the loopback have sent and received."""
        sent = received = 0
        try:
            lines = (PROC / "net/dev").read_text().splitlines()
        except OSError:
            return 0, 0
        for line in lines:
            name, colon, rest = line.partition(":")
            fields = rest.split()
            if colon and name.strip() != "lo" and len(fields) > 8:
                received += int(fields[0])
                sent += int(fields[8])
        return sent, received

    def capabilities(self) -> dict[str, Any]:
        """Return what `capabilities` says of the machine. Sizes in MiB."""
        memory = _memory()
        shared_total, shared_free = _shared_memory()
        brief = self.brief()
        one, five, fifteen = (int(value * 100) for value in os.getloadavg())
        cpus = list(_processors())
        used = memory["MemTotal"] - memory["MemFree"] - memory["Buffers"] - memory["Cached"]
        return {
            "cpu": cpus,
            "cpu_use": self.cpu_permille,
            "speed": sum(cpu["cores"] * cpu["mhz"] for cpu in cpus),
            "threads": sum(cpu["threads"] for cpu in cpus),
            "load": {"mem": brief["mem"], "shm": brief["shm"], "one": one, "five": five, "fifteen": fifteen},
            "mem": {
                "used": used // 1024,
                "cached": (memory["Buffers"] + memory["Cached"]) // 1024,
                "free": memory["MemFree"] // 1024,
                "total": memory["MemTotal"] // 1024,
                "swapfree": memory["SwapFree"] // 1024,
                "swaptotal": memory["SwapTotal"] // 1024,
                "shmfree": shared_free // 1024,
                "shmtotal": shared_total // 1024,
            },
        }


def boot_time() -> int:
    """Return the unix second at which the system started, 0 when unknown."""
    try:
        lines = (PROC / "stat").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("btime ")), 0)


def _memory() -> dict[str, int]:
    """Return the kernel's memory figures in KiB."""
    result = dict.fromkeys(("MemTotal", "MemFree", "MemAvailable", "Buffers", "Cached", "SwapTotal", "SwapFree"), 0)
    try:
        with open(PROC / "meminfo", encoding="ascii") as file:
            for line in file:
                name, _, value = line.partition(":")
                if name in result:
                    result[name] = int(value.split()[0])
    except (OSError, ValueError):
        return result
    return result


def _shared_memory() -> tuple[int, int]:
    """Return (size, free) of the shared-memory file system in KiB."""
    try:
        status = os.statvfs(SHARED_MEMORY)
    except OSError:
        return 0, 0
    return status.f_blocks * status.f_frsize // 1024, status.f_bavail * status.f_frsize // 1024


def default_memory_bound() -> int:
    """Return the bytes of shared memory that all streams together may use unless configured; 0 when unknown."""
    return _shared_memory()[0] * 1024 // 4 * 3


def _percent(part: int, whole: int) -> float:
    return round(100 * part / whole, 1) if whole else 0.0


def _processors() -> Iterable[dict[str, Any]]:
    """Yield one record for each physical processor."""
    found: dict[str, dict[str, Any]] = {}
    try:
        blocks = (PROC / "cpuinfo").read_text().split("\n\n")
    except OSError:
        return
    for block in blocks:
        fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in block.splitlines())}
        if "processor" not in fields:
            continue
        cpu = found.setdefault(
            fields.get("physical id", "0"),
            {
                "model": fields.get("model name", "Unknown"),
                "cores": int(fields.get("cpu cores", 1)),
                "threads": 0,
                "mhz": 0,
            },
        )
        cpu["threads"] += 1
        cpu["mhz"] = max(cpu["mhz"], int(float(fields.get("cpu MHz", 0))))
    yield from found.values()
