"""An MPTCP version 1 peer as a pure model, written from RFC 8684: connection, scheduler, signalling."""

from __future__ import annotations

import random
from collections import Counter
from typing import TYPE_CHECKING

from agents.wire import mptcp
from tests.proxy.mptcp_config import MptcpConfig
from tests.proxy.mptcp_keys import first_dsn, mac
from tests.proxy.mptcp_subflow import Subflow, padded
from tests.proxy.tcp_receiver import Receiver
from tests.proxy.tcp_types import Address, State

if TYPE_CHECKING:
    from tests.proxy.mptcp_host import MptcpHost

MASK = (1 << 64) - 1
ORPHAN = 60.0
"""Seconds that a connection waits without a subflow."""
DATA_TIMEOUT = 1.0
LINGER = 20.0
"""Seconds after the end of the data until subflows that cannot close are reset."""


class Connection:
    """Data level. Relative numbers: 0 is the initial data sequence number, 1 the first byte."""

    def __init__(self, config: MptcpConfig, host: MptcpHost) -> None:
        self.config, self.host = config, host
        self.random = random.Random(config.seed ^ 0x3C0FFEE)
        self._isns = list(config.isns)
        self.key, self.other_key = config.key, b""
        self.first_dsn_here, self.first_dsn_there = first_dsn(self.key), 0
        self.violations: list[str] = []
        self.counters: Counter[str] = Counter()
        self.reset_by: str | None = None
        self.subflows: list[Subflow] = []
        self.rx = Receiver(config.buffer)
        self.rx.next = self.rx.edge = 1
        self.acked = 1
        self.data = bytearray()
        self.closing = False
        self.una = self.next = self.edge = 1
        self.fin_sent = False
        self.done = False
        """Both DATA_FINs were exchanged and acknowledged."""
        self.plain = False
        """Fell back to TCP."""
        self.plain_offset = 0
        self.infinite_map: tuple[int, int] | None = None
        self._infinite_until = 0
        self.fell_back_at = ""
        self.checksum = False
        self.chunks: list[tuple[int, int, Subflow]] = []
        """What was given to which subflow and is not acknowledged."""
        self.again: list[tuple[int, int, Subflow]] = []
        """What is to be sent once more, and where it was."""
        self.remote_addresses: dict[int, Address] = {}
        self.announcing: dict[int, tuple[mptcp.AddAddr, float, int]] = {}
        self._timer: float | None = None
        self._backoff = 0
        self._orphan_at: float | None = None
        self._linger_until: float | None = None
        self._turn = 0
        self._busy = False
        self._announced = False

    # ---- the application

    def connect(self, now: float) -> None:
        """Active open, from the first address."""
        subflow = Subflow(self, (self.config.addresses[0], self.host.port), self.host.remote, join=False, active=True)
        self.subflows.append(subflow)
        subflow.endpoint.connect(now)

    def write(self, data: bytes, now: float) -> None:
        self.data += data
        self.advance(now)

    def close(self, now: float) -> None:
        self.closing = True
        self.advance(now)

    def abort(self, now: float) -> None:
        """MP_FASTCLOSE (section 3.5)."""
        option = padded(mptcp.encode(mptcp.Fastclose(self.other_key)))
        alive = [s for s in self.subflows if not s.dead]
        self.reset_by = "self"
        if self.plain or self.config.fast_close == "reset":
            for subflow in alive:
                subflow.kill(now, option=b"" if self.plain else option)
            return
        for subflow in alive[1:]:
            subflow.kill(now)
        for subflow in alive[:1]:
            subflow.signal(mptcp.Fastclose(self.other_key), now)

    def pause(self) -> None:
        self.rx.reading = False

    def resume(self, now: float) -> None:
        self.rx.reading = True
        self.rx.take()
        for subflow in self.subflows:
            if not subflow.dead and subflow.endpoint.synchronized:
                subflow.endpoint.ack_now(now)

    @property
    def received(self) -> bytes:
        return bytes(self.rx.data[: self.rx.bytes_in_order])

    @property
    def received_bytes(self) -> int:
        return self.rx.bytes_in_order

    @property
    def finished(self) -> bool:
        if self.reset_by is not None:
            return all(s.endpoint.finished for s in self.subflows)
        return (self.done or self.plain) and bool(self.subflows) and all(s.endpoint.finished for s in self.subflows)

    # ---- numbers

    @property
    def end(self) -> int:
        return 1 + len(self.data) + self.closing

    def next_isn(self) -> int:
        return self._isns.pop(0) if self._isns else self.random.getrandbits(32)

    def learn_key(self, key: bytes) -> None:
        if self.other_key and key != self.other_key:
            self.violations.append(f"the peer's key is {key.hex()}, before it was {self.other_key.hex()}")
            return
        self.other_key, self.first_dsn_there = key, first_dsn(key)

    def dsn_wire(self, dsn: int) -> int:
        return (self.first_dsn_here + dsn) & MASK

    def dsn_wire_there(self, dsn: int) -> int:
        return (self.first_dsn_there + dsn) & MASK

    def ack_wire(self, wide: bool) -> int:
        value = self.first_dsn_there + self.rx.next
        return value & MASK if wide else value & 0xFFFFFFFF

    # ---- what the path manager does

    def join(
        self, now: float, local_id: int, *, remote: Address | None = None, backup: bool = False, port: int | None = None
    ) -> Subflow:
        """A further subflow, begun here (section 3.2)."""
        first = self.subflows[0]
        assert first.endpoint.remote is not None
        local = (self.config.addresses[local_id], port or self.host.fresh_port())
        subflow = Subflow(self, local, remote or first.endpoint.remote, join=True, active=True)
        subflow.local_id, subflow.backup_here = local_id, backup
        self.subflows.append(subflow)
        subflow.endpoint.connect(now)
        return subflow

    def announce(self, local_id: int, now: float, port: int | None = None) -> None:
        """ADD_ADDR, until it is echoed (section 3.4.1)."""
        option = mptcp.AddAddr(local_id, self.config.addresses[local_id], port)
        text = bytes((local_id,)) + option.address + (port or 0).to_bytes(2, "big")
        option = mptcp.AddAddr(local_id, option.address, port, mac(self.key + self.other_key, text)[-8:])
        self.announcing[local_id] = (option, now, 0)
        self._announcements(now)

    def remove(self, local_id: int, now: float) -> None:
        """REMOVE_ADDR on another subflow, and the end of the subflows from there (section 3.4.2)."""
        gone = [s for s in self.subflows if s.local_id == local_id and not s.dead]
        left = [s for s in self.subflows if s not in gone and s.usable]
        for subflow in left[:1]:
            subflow.signal(mptcp.RemoveAddr((local_id,)), now)
        for subflow in gone:
            subflow.kill(now)
        self.advance(now)

    def set_backup(self, subflow: Subflow, backup: bool, now: float) -> None:
        """MP_PRIO on the subflow itself (section 3.3.8)."""
        subflow.backup_here = backup
        subflow.signal(mptcp.Prio(backup), now)

    def _announcements(self, now: float) -> None:
        for local_id, (option, due, times) in list(self.announcing.items()):
            usable = [s for s in self.subflows if s.usable]
            if due <= now and usable:
                usable[0].signal(option, now)
                if times >= 5:
                    del self.announcing[local_id]
                else:
                    self.announcing[local_id] = (option, now + 1.0, times + 1)

    # ---- sending

    def advance(self, now: float) -> None:
        """Give data to subflows, end what is to be ended."""
        if self._busy or not self.subflows or self.reset_by is not None:
            return
        self._busy = True
        try:
            if self.plain:
                self._advance_plain(now)
            else:
                self._schedule(now)
                self._data_fin(now)
                self._finish(now)
        finally:
            self._busy = False

    def _advance_plain(self, now: float) -> None:
        alive = [s for s in self.subflows if not s.dead]
        for subflow in alive[:1]:
            endpoint = subflow.endpoint
            if self.infinite_map is not None and endpoint.sender.una > self._infinite_until:
                self.infinite_map = None
            endpoint.sender.data += self.data[self.next - 1 :]
            self.next = 1 + len(self.data)
            if self.closing and endpoint.synchronized:
                endpoint.close(now)
            endpoint.push(now)

    def _candidates(self) -> list[Subflow]:
        usable = [s for s in self.subflows if s.usable or (s.active and not s.join and s.endpoint.state is State.ESTABLISHED)]
        usable = [s for s in usable if not s.dead and not s.endpoint.sender.closing]
        regular = [s for s in usable if not s.backup] or usable
        return (
            [s for s in regular if not s.endpoint.sender.backoff]
            or [s for s in usable if not s.endpoint.sender.backoff]
            or regular
        )

    def _room(self, subflow: Subflow) -> int:
        sender = subflow.endpoint.sender
        return sender.cwnd - sender.pipe() - (1 + len(sender.data) - sender.next) + self.config.backlog

    def _schedule(self, now: float) -> None:
        candidates = self._candidates()
        if not candidates:
            return
        for subflow in self.subflows:
            sender = subflow.endpoint.sender
            if sender.backoff and subflow not in candidates and any(s is subflow for _, _, s in self.chunks):
                self._reinject(subflow)
        touched: list[Subflow] = []
        while True:
            again = False
            if self.again:
                begin, end, before = self.again[0]
                begin = max(begin, self.una)
                if begin >= end:
                    self.again.pop(0)
                    continue
                again = True
                able = [s for s in candidates if s is not before] or candidates
            else:
                begin, end, able = self.next, min(1 + len(self.data), self.edge), candidates
                if begin >= end:
                    if begin <= len(self.data) and self.una == self.next and not self.chunks:
                        end = begin + 1  # for a probe of the closed window
                    else:
                        break
            with_room = [s for s in able if self._room(s) > 0]
            if not with_room:
                break
            if self.config.scheduler == "roundrobin":
                self._turn += 1
                subflow = with_room[self._turn % len(with_room)]
            else:
                subflow = with_room[0]
            endpoint = subflow.endpoint
            size = min(end - begin, self.config.mapping, max(self._room(subflow), endpoint.mss))
            if not subflow.confirmed and not endpoint.sender.data:
                size = min(size, endpoint.mss - 40)
            fin = self.closing and self.config.fin_with_data and begin + size == 1 + len(self.data) and not again
            fin = fin and (subflow.confirmed or bool(endpoint.sender.data))  # an MP_CAPABLE cannot say DATA_FIN
            subflow.append(begin, bytes(self.data[begin - 1 : begin - 1 + size]), fin)
            self.chunks.append((begin, begin + size, subflow))
            if again:
                self.counters["reinjected"] += size
                self.again[0] = (begin + size, end, before)
            else:
                self.next = begin + size
                self.fin_sent = self.fin_sent or fin
            if self._timer is None:
                self._arm(now)
            if subflow not in touched:
                touched.append(subflow)
        self._share_window()
        for subflow in touched:
            subflow.endpoint.push(now)

    def _share_window(self) -> None:
        """The window belongs to the connection (section 3.3.5)."""
        for subflow in self.subflows:
            sender = subflow.endpoint.sender
            sender.edge = max(sender.edge, sender.una + self.edge - self.una)

    def _reinject(self, subflow: Subflow) -> None:
        self.again += [(begin, end, subflow) for begin, end, s in self.chunks if s is subflow and end > self.una]
        self.again.sort(key=lambda piece: piece[0])
        self.chunks = [chunk for chunk in self.chunks if chunk[2] is not subflow]

    def _data_fin(self, now: float) -> None:
        if self.closing and not self.fin_sent and self.next == 1 + len(self.data):
            usable = [s for s in self.subflows if s.usable]
            self.fin_sent = bool(usable)
            for subflow in usable:
                subflow.signal(None, now, data_fin=True)
            if usable:
                self._arm(now)

    def _finish(self, now: float) -> None:
        received = self.rx.fin_at is not None and self.rx.next > self.rx.fin_at
        if not self.done and received and self.closing and self.una == self.end:
            self.done = True
            self._timer = None
            self._linger_until = now + LINGER
        if self.done:
            for subflow in self.subflows:
                if not subflow.dead and subflow.endpoint.synchronized:
                    subflow.endpoint.close(now)

    def _arm(self, now: float) -> None:
        longest = max((s.endpoint.sender.rto for s in self.subflows if not s.dead), default=1.0)
        self._timer = now + min(60.0, max(DATA_TIMEOUT, 3 * longest) * (1 << self._backoff))

    # ---- receiving

    def acknowledged(self, subflow: Subflow, value: int, window: int, now: float) -> None:
        """A DATA_ACK (section 3.3.2)."""
        ack = value - self.first_dsn_here
        if ack > self.next + self.fin_sent or ack < 1:
            self.violations.append(f"{subflow.name}: a DATA_ACK of {ack}, sent was {self.next + self.fin_sent}")
            return
        self.edge = max(self.edge, ack + window)
        if ack > self.una:
            self.una = ack
            self.chunks = [chunk for chunk in self.chunks if chunk[1] > ack]
            self._backoff = 0
            self._timer = None
            if self.una < self.next + self.fin_sent:
                self._arm(now)
        self._share_window()

    def take(self, subflow: Subflow, dsn: int, payload: bytes) -> None:
        """Data in the order of a subflow."""
        for text in self.rx.store(dsn, payload, False):
            self.violations.append(f"{subflow.name}: data level: {text}")

    def fin_arrived(self, subflow: Subflow, dsn: int, now: float) -> None:
        """A DATA_FIN (section 3.3.3)."""
        for text in self.rx.store(dsn, b"", True):
            self.violations.append(f"{subflow.name}: data level: {text}")
        subflow.endpoint._ack_now = True

    def plain_fin(self) -> None:
        """After a fallback the FIN of the subflow ends the data."""
        self.rx.store(self.rx.next if self.rx.fin_at is None else self.rx.fin_at, b"", True)

    def option_arrived(self, subflow: Subflow, option: mptcp.Option, now: float) -> None:
        """Everything but DSS and the handshakes."""
        self.counters[type(option).__name__] += 1
        match option:
            case mptcp.AddAddr(echo=True):
                self.announcing.pop(option.address_id, None)
            case mptcp.AddAddr():
                text = bytes((option.address_id,)) + option.address + (option.port or 0).to_bytes(2, "big")
                if option.mac != mac(self.other_key + self.key, text)[-8:]:
                    subflow.complain(f"the HMAC of {option} is wrong")
                    return
                subflow.signal(mptcp.AddAddr(option.address_id, option.address, option.port, echo=True), now)
                new = option.address_id not in self.remote_addresses
                assert subflow.endpoint.remote is not None
                remote = (option.address, option.port or subflow.endpoint.remote[1])
                self.remote_addresses[option.address_id] = remote
                if new and self.config.join_announced:
                    local_id = 0 if subflow.active or len(self.config.addresses) == 1 else subflow.local_id
                    self.join(now, local_id, remote=remote)
            case mptcp.RemoveAddr():
                for number in option.address_ids:
                    self.remote_addresses.pop(number, None)
                for other in list(self.subflows):
                    if other.remote_id in option.address_ids and not other.dead:
                        other.removed = True
                        other.kill(now)
            case mptcp.Prio():
                subflow.backup_there = option.backup
            case mptcp.Fastclose():
                if option.receiver_key != self.key:
                    subflow.complain("the key of an MP_FASTCLOSE is wrong")
                    return
                self.reset_by = "peer"
                for other in self.subflows:
                    other.kill(now)
            case mptcp.Fail():
                self._failed(subflow, now)
            case _:
                subflow.complain(f"{option} out of place")

    def _failed(self, subflow: Subflow, now: float) -> None:
        """MP_FAIL: answer, and be TCP from what was acknowledged last (section 3.7)."""
        if self.plain:
            return
        if not subflow.failed_dsn:
            subflow.signal(mptcp.Fail(self.dsn_wire_there(self.rx.next)), now)
        mapping = next((m for m in subflow.sent_maps if m.dsn <= self.una < m.dsn + m.size), None)
        ssn = mapping.ssn + self.una - mapping.dsn if mapping is not None else 1 + len(subflow.endpoint.sender.data)
        self.infinite_map, self._infinite_until = (ssn, self.una), subflow.endpoint.sender.next
        self.fall_back("MP_FAIL", subflow)

    def checksum_failed(self, subflow: Subflow, dsn: int, now: float) -> None:
        """Section 3.7: the subflow ends, or with a single one MPTCP does."""
        self.counters["checksum failures"] += 1
        if not self.config.fallback_expected:
            subflow.complain(f"the checksum of the mapping at {dsn} is wrong")
        option = mptcp.Fail(self.dsn_wire_there(dsn))
        if len([s for s in self.subflows if not s.dead]) > 1:
            text = padded(mptcp.encode(option)) + padded(mptcp.encode(mptcp.TcpRst(mptcp.ResetReason.MIDDLEBOX)))
            subflow.kill(now, option=text)
        else:
            subflow.failed_dsn = dsn
            subflow.signal(option, now)

    def fall_back(self, why: str, subflow: Subflow) -> None:
        """Plain TCP from here on."""
        if subflow.infinite is not None:
            subflow.failed_dsn = None
        if self.plain:
            return
        self.plain, self.fell_back_at = True, why
        self.plain_offset = self.rx.next - subflow.taken
        subflow.confirmed = True
        self.counters[f"fallback: {why}"] += 1
        if not self.config.fallback_expected:
            self.violations.append(f"{subflow.name}: fallback: {why}")

    def subflow_changed(self, subflow: Subflow, now: float) -> None:
        """Its state may be another."""
        endpoint = subflow.endpoint
        if endpoint.state is State.CLOSED and not subflow.dead:
            subflow.dead = True
            if self.plain or not self.other_key:
                self.reset_by = self.reset_by or endpoint.reset_by
            self._reinject(subflow)
            if all(s.dead for s in self.subflows) and not self.done:
                self._orphan_at = now + ORPHAN
        elif endpoint.state is State.CLOSE_WAIT and not self.plain and not endpoint.sender.closing:
            endpoint.close(now)
        if not subflow.dead:
            self._orphan_at = None
        if subflow.usable and not subflow.join and self.config.announce and not self._announced:
            self._announced = True
            for local_id in range(1, len(self.config.addresses)):
                self.announce(local_id, now)

    # ---- timers

    def next_deadline(self) -> float | None:
        times = [at for at in (self._timer, self._orphan_at, self._linger_until) if at is not None]
        times += [due for _, due, _ in self.announcing.values()] if any(s.usable for s in self.subflows) else []
        return min(times) if times else None

    def handle_timer(self, now: float) -> None:
        if self._orphan_at is not None and now >= self._orphan_at:
            self._orphan_at, self._timer, self.reset_by = None, None, self.reset_by or "timeout"
        self._announcements(now)
        if self._linger_until is not None and now >= self._linger_until:
            self._linger_until = None
            for subflow in self.subflows:
                if not subflow.endpoint.finished:
                    self.counters["reset after the end"] += 1
                    subflow.kill(now)
        if self._timer is None or now < self._timer:
            return
        self._timer = None
        if self.done or self.plain or self.una >= self.next + self.fin_sent or self.reset_by is not None:
            return
        self.counters["data timeouts"] += 1
        self._backoff = min(self._backoff + 1, 6)
        if self.fin_sent and self.una >= self.end - 1:
            for subflow in self.subflows:
                if subflow.usable:
                    subflow.signal(None, now, data_fin=True)
        elif not self.again:
            for begin, end, subflow in self.chunks:
                if begin <= self.una < end:
                    sender = subflow.endpoint.sender
                    if not sender.outstanding or len(self._candidates()) > 1 or subflow.dead or sender.closing:
                        self.chunks.remove((begin, end, subflow))
                        self.again = [(self.una, end, subflow)]
                    break
        self._arm(now)
        self.advance(now)
