"""Packet tables made by hand, without frames: one call per packet, any value in any field."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from analysis.connections.keys import first_dsn_of, token_of
from analysis.packets import PacketTable, Point
from analysis.packets.schema import (
    ACK,
    DSS_ACK,
    DSS_ACK8,
    DSS_DATA_FIN,
    DSS_MAP,
    DSS_MAP8,
    MP_CAPABLE,
    MP_JOIN,
    SYN,
    TCP,
)
from analysis.packets.signals import empty_signals

CLIENT_KEY, SERVER_KEY = 0x1111222233334444, 0xAAAABBBBCCCCDDDD
FLAGS = {"F": 1, "S": 2, "R": 4, "P": 8, "A": 16}


def capable(*keys: int, length: int = 0, version: int = 1, data: int = 0, flags: int = 1) -> dict[str, Any]:
    """MP_CAPABLE with the sender's and the receiver's key."""
    sender, receiver = (*keys, 0, 0)[:2]
    size = length or 4 + 8 * len(keys) + (2 if data else 0)
    return {
        "subtype": MP_CAPABLE, "length": size, "version": version, "flags": flags, "sender_key": sender,
        "receiver_key": receiver, "data_bytes": data,
    }  # fmt: skip


def join(length: int, token: int = 0, address_id: int = 0, backup: int = 0) -> dict[str, Any]:
    """MP_JOIN of 12 (SYN), 16 (SYN/ACK) or 24 (ACK) bytes, with a worthless HMAC."""
    hmac = {12: 0, 16: 8, 24: 20}[length]
    return {
        "subtype": MP_JOIN, "length": length, "token": token, "address_id": address_id, "backup": backup,
        "hmac_at": 4 if hmac else 0, "hmac_bytes": hmac,
    }  # fmt: skip


def mapping(dsn: int, ssn: int, length: int, wide: bool = True, fin: bool = False) -> dict[str, int]:
    """Fields of a DSS mapping; `length` without the DATA_FIN."""
    flags = DSS_MAP | (DSS_MAP8 if wide else 0) | (DSS_DATA_FIN if fin else 0)
    modulus = 2**64 if wide else 2**32
    return {"dss_flags": flags, "dsn": dsn % modulus, "ssn": ssn % 2**32, "map_bytes": length + fin}


def data_ack(number: int, wide: bool = True) -> dict[str, int]:
    """Fields of a DATA_ACK."""
    return {"dss_flags": DSS_ACK | (DSS_ACK8 if wide else 0), "dack": number % (2**64 if wide else 2**32)}


def both(*parts: dict[str, int]) -> dict[str, int]:
    """One DSS option with a mapping and a DATA_ACK."""
    out = {name: value for part in parts for name, value in part.items()}
    out["dss_flags"] = sum(part["dss_flags"] for part in parts)
    return out


@dataclass
class Packets:
    """Packets in the order of the calls."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    options: list[tuple[int, dict[str, Any]]] = field(default_factory=list)
    interfaces: int = 1

    def add(
        self, ms: float, source: str, target: str, flags: str = "A", seq: int = 0, ack: int = 0, size: int = 0, **more
    ) -> None:
        """`source` and `target` are "address port"; `option`: a signal; all else are columns."""
        for option in more.pop("options", []):
            self.options.append((len(self.rows), option))
        ends = dict(zip(("src", "sport", "dst", "dport"), (*source.split(), *target.split()), strict=True))
        bits = sum(FLAGS[flag] for flag in flags)
        numbers = {"seq": seq % 2**32, "ack": ack % 2**32, "flags": bits, "payload_bytes": size, "time_ns": round(ms * 1e6)}
        self.rows.append({"protocol": TCP, "overhead_bytes": 52} | ends | numbers | more)

    def table(self) -> PacketTable:
        table = PacketTable.empty(len(self.rows))
        for number, row in enumerate(self.rows):
            for name, value in row.items():
                table.columns[name][number] = table.addresses.code(value) if name in ("src", "dst") else int(value)
        table.signals = empty_signals(len(self.options))
        for number, (row, option) in enumerate(self.options):
            table.signals["row"][number] = row
            table.columns["mp_subtypes"][row] |= 1 << option["subtype"]
            for name, value in option.items():
                table.signals[name][number] = value
        table.points = tuple(Point(f"file{n}", f"eth{n}", 1) for n in range(self.interfaces))
        return table.sorted_by_time()


@dataclass
class Line:
    """One flow of a connection; positions count from 0 in the streams of the flow."""

    packets: Packets
    client: str = "10.0.0.1 1000"
    server: str = "10.0.0.9 80"
    isn: tuple[int, int] = (1000, 2_000_000)

    def send(self, ms: float, up: bool, at: int = 0, size: int = 0, acked: int = 0, flags: str = "A", **more) -> None:
        """A segment whose payload begins at `at`, acknowledging `acked` bytes of the other side."""
        own, peer = self.isn if up else self.isn[::-1]
        ends = (self.client, self.server) if up else (self.server, self.client)
        seq = own if "S" in flags else own + 1 + at
        ack = peer + 1 + acked if "A" in flags else 0
        self.packets.add(ms, *ends, flags, seq, ack, size, **more)

    def handshake(self, ms: float, *options: dict[str, Any] | None) -> None:
        """SYN, SYN/ACK and ACK, 10 ms apart, with these options."""
        for number, (up, flags) in enumerate(((True, "S"), (False, "SA"), (True, "A"))):
            option = options[number] if number < len(options) else None
            self.send(ms + 10 * number, up, flags=flags, options=[option] if option else [])


def initial(packets: Packets, ms: float = 0, version: int = 1, **places) -> Line:
    """An initial subflow with its handshake."""
    line = Line(packets, **places)
    first = capable(CLIENT_KEY, version=0) if version == 0 else capable(length=4)
    line.handshake(ms, first, capable(SERVER_KEY, version=version), capable(CLIENT_KEY, SERVER_KEY, version=version))
    return line


def joined(packets: Packets, ms: float, version: int = 1, **places) -> Line:
    """A further subflow, opened by the connection's client."""
    places = {"client": "10.0.1.1 1001", "isn": (77, 2**32 - 500)} | places
    line = Line(packets, **places)
    line.handshake(ms, join(12, token_of(SERVER_KEY, version), 1), join(16), join(24))
    return line


def dsn(up: bool, offset: int, version: int = 1) -> int:
    """Data sequence number of a byte of one direction."""
    return first_dsn_of(CLIENT_KEY if up else SERVER_KEY, version) + offset


__all__ = ["ACK", "SYN", "Line", "Packets", "both", "capable", "data_ack", "dsn", "initial", "join", "joined", "mapping"]
