"""A strict reader of transport streams, written apart from the muxer: what it finds wrong is in `errors`."""

from __future__ import annotations

from dataclasses import dataclass, field

WRAP = 1 << 33
PCR_WRAP = WRAP * 300
MAX_PCR_INTERVAL_TICKS = 27_000_000 // 10
MAX_TABLE_GAP_TICKS = 27_000_000 // 2


@dataclass
class PesPacket:
    """One PES packet. pts, dts: 90 kHz, None when absent. pcr: the PCR that came with its first packet."""

    pid: int
    stream_id: int
    pts: int | None
    dts: int | None
    payload: bytes
    random_access: bool
    pcr: int | None


@dataclass
class TsReport:
    """What a transport stream holds.

    pids: stream type by elementary PID. descriptors: by elementary PID. versions: of the PMTs in order, without repeats.
    last_counters: by PID, for a check that goes on with another segment.
    """

    errors: list[str] = field(default_factory=list)
    pids: dict[int, int] = field(default_factory=dict)
    descriptors: dict[int, bytes] = field(default_factory=dict)
    pcr_pid: int = -1
    versions: list[int] = field(default_factory=list)
    service_name: str = ""
    pes: list[PesPacket] = field(default_factory=list)
    pcrs: list[int] = field(default_factory=list)
    table_places: list[int] = field(default_factory=list)
    last_counters: dict[int, int] = field(default_factory=dict)
    packets: int = 0

    def payloads(self, pid: int) -> list[bytes]:
        return [pes.payload for pes in self.pes if pes.pid == pid and pes.payload]


def crc32(data: bytes) -> int:
    """CRC-32/MPEG-2, one bit at a time."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte << 24
        for _ in range(8):
            crc = (crc << 1 ^ 0x04C11DB7 if crc & 0x80000000 else crc << 1) & 0xFFFFFFFF
    return crc


def signed(difference: int, modulus: int) -> int:
    """Return a difference of two wrapping times as a signed number."""
    difference %= modulus
    return difference - modulus if difference >= modulus // 2 else difference


def check_ts(data: bytes, counters: dict[int, int] | None = None, *, pcr_gaps: bool = True) -> TsReport:
    """Read a whole transport stream.

    counters: last continuity counters of what came before. pcr_gaps: complain of PCRs over 100 ms apart.
    """
    checker = _Checker(TsReport(last_counters=dict(counters or {})), pcr_gaps)
    if len(data) % 188:
        checker.fail(f"{len(data) % 188} bytes over the last packet")
    for offset in range(0, len(data) - 187, 188):
        checker.packet(data[offset : offset + 188])
    checker.finish()
    return checker.report


class _Checker:
    def __init__(self, report: TsReport, pcr_gaps: bool) -> None:
        self.report = report
        self.pcr_gaps = pcr_gaps
        self.open: dict[int, tuple[bytearray, bool, int | None]] = {}
        self.sections: dict[int, bytearray] = {}
        self.last_dts: dict[int, int] = {}
        self.previous: dict[int, bytes] = {}
        self.pcr_breaks: set[int] = set()

    def fail(self, text: str) -> None:
        self.report.errors.append(f"packet {self.report.packets}: {text}")

    def packet(self, packet: bytes) -> None:
        self.report.packets += 1
        if packet[0] != 0x47:
            return self.fail("no sync byte")
        pid = (packet[1] & 0x1F) << 8 | packet[2]
        if packet[1] & 0x80 or packet[3] & 0xC0:
            self.fail("error indicator or scrambling set")
        control = packet[3] >> 4 & 3
        start = 4
        flags = 0
        pcr: int | None = None
        if control & 2:
            length = packet[4]
            start = 5 + length
            if length > (182 if control & 1 else 183) or (not control & 1 and length != 183):
                return self.fail(f"adaptation field of {length} bytes")
            flags = packet[5] if length else 0
            if flags & 0x10:
                base = int.from_bytes(packet[6:10], "big") << 1 | packet[10] >> 7
                pcr = base * 300 + ((packet[10] & 1) << 8 | packet[11])
                self.pcr(pid, pcr, bool(flags & 0x80))
            stuffing = packet[(12 if flags & 0x10 else 6) : start] if length else b""
            if stuffing.strip(b"\xff"):
                self.fail("adaptation field stuffing is not FF")
        self.continuity(pid, packet, control, bool(flags & 0x80))
        if control & 1:
            self.payload(pid, packet[start:], bool(packet[1] & 0x40), bool(flags & 0x40), pcr)

    def continuity(self, pid: int, packet: bytes, control: int, broken: bool) -> None:
        counter = packet[3] & 15
        last = self.report.last_counters.get(pid)
        if pid != 0x1FFF and last is not None and not broken:
            expected = (last + 1 if control & 1 else last) & 15
            if counter != expected and packet != self.previous.get(pid):
                self.fail(f"PID {pid}: continuity counter {counter}, not {expected}")
        self.report.last_counters[pid] = counter
        self.previous[pid] = packet

    def pcr(self, pid: int, pcr: int, broken: bool) -> None:
        if self.report.pcr_pid >= 0 and pid != self.report.pcr_pid:
            self.fail(f"PCR on PID {pid}")
        if self.report.pcrs and not broken:
            gap = signed(pcr - self.report.pcrs[-1], PCR_WRAP)
            if gap <= 0:
                self.fail(f"PCR goes back by {-gap}")
            elif self.pcr_gaps and gap > MAX_PCR_INTERVAL_TICKS:
                self.fail(f"PCR {gap / 27000:.1f} ms after the last")
        self.report.pcrs.append(pcr)

    def payload(self, pid: int, payload: bytes, start: bool, random_access: bool, pcr: int | None) -> None:
        if pid in (0, 0x11, 4096):
            self.table_payload(pid, payload, start)
        elif start:
            self.close(pid)
            self.open[pid] = (bytearray(payload), random_access, pcr)
        elif pid in self.open:
            self.open[pid][0].extend(payload)
        else:
            self.fail(f"PID {pid} does not begin with a PES header")

    def table_payload(self, pid: int, payload: bytes, start: bool) -> None:
        if start:
            if payload[0]:
                self.fail("pointer field is not 0")
            self.sections[pid] = bytearray(payload[1:])
        else:
            self.sections[pid].extend(payload)
        found = self.sections[pid]
        size = 3 + ((found[1] & 0x0F) << 8 | found[2])
        if len(found) < size:
            return
        if bytes(found[size:]).strip(b"\xff"):
            self.fail("bytes behind a section are not FF")
        section = bytes(found[:size])
        if crc32(section):
            self.fail(f"CRC of a section on PID {pid}")
        self.table(section)

    def table(self, section: bytes) -> None:
        report = self.report
        if section[0] == 0:
            report.table_places.append(report.packets)
            if section[8:12] != bytes((0, 1, 0xE0 | 4096 >> 8, 4096 & 255)):
                self.fail("PAT does not say program 1 on PID 4096")
        elif section[0] == 2:
            version = section[5] >> 1 & 31
            if not report.versions or report.versions[-1] != version:
                report.versions.append(version)
            report.pcr_pid = (section[8] & 0x1F) << 8 | section[9]
            report.pids.clear()
            place = 12 + ((section[10] & 0x0F) << 8 | section[11])
            while place < len(section) - 4:
                pid = (section[place + 1] & 0x1F) << 8 | section[place + 2]
                length = (section[place + 3] & 0x0F) << 8 | section[place + 4]
                report.pids[pid] = section[place]
                report.descriptors[pid] = section[place + 5 : place + 5 + length]
                place += 5 + length
            if place != len(section) - 4:
                self.fail("PMT loop does not end at its CRC")
        elif section[0] == 0x42:
            service = section[16:-4]
            provider = service[3]
            name = service[5 + provider : 5 + provider + service[4 + provider]]
            report.service_name = name.removeprefix(b"\x15").decode()

    def close(self, pid: int) -> None:
        data, random_access, pcr = self.open.pop(pid, (bytearray(), False, None))
        if not data:
            return
        if data[:3] != b"\x00\x00\x01" or len(data) < 9 or data[6] & 0xC0 != 0x80:
            return self.fail(f"PID {pid}: bad PES header {bytes(data[:9]).hex()}")
        length = data[4] << 8 | data[5]
        video = self.report.pids.get(pid) in (0x1B, 0x24, 0x06)
        if length and length != len(data) - 6:
            self.fail(f"PID {pid}: PES length {length}, found {len(data) - 6}")
        if not length and (not video or len(data) - 6 <= 65535):
            self.fail(f"PID {pid}: PES length 0 for {len(data) - 6} bytes")
        flags = data[7] >> 6
        pts = self.stamp(data[9:14], 3 if flags == 3 else 2) if flags & 2 else None
        dts = self.stamp(data[14:19], 1) if flags == 3 else pts
        payload = bytes(data[9 + data[8] :])
        self.times(pid, pts, dts, pcr)
        self.report.pes.append(PesPacket(pid, data[3], pts, dts, payload, random_access, pcr))

    def stamp(self, data: bytes | bytearray, prefix: int) -> int:
        if data[0] >> 4 != prefix or not (data[0] & data[2] & data[4] & 1):
            self.fail("marker bits of a time stamp")
        return (data[0] >> 1 & 7) << 30 | data[1] << 22 | data[2] >> 1 << 15 | data[3] << 7 | data[4] >> 1

    def times(self, pid: int, pts: int | None, dts: int | None, pcr: int | None) -> None:
        if pts is None or dts is None:
            return
        if signed(pts - dts, WRAP) < 0:
            self.fail(f"PID {pid}: PTS before DTS")
        if pid in self.last_dts and signed(dts - self.last_dts[pid], WRAP) <= 0:
            self.fail(f"PID {pid}: DTS does not rise")
        self.last_dts[pid] = dts
        if pcr is not None and signed(dts * 300 - pcr, PCR_WRAP) < 0:
            self.fail(f"PID {pid}: PCR is ahead of DTS")

    def finish(self) -> None:
        for pid in sorted(self.open):
            self.close(pid)
        if not self.report.pids or not self.report.table_places:
            self.fail("no tables")
