"""One subflow of the MPTCP model: a TCP endpoint, the options on its segments and its mappings (RFC 8684 section 3)."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from agents.wire import mptcp
from agents.wire.errors import WireError
from agents.wire.mptcp import Dss
from agents.wire.tcp import ACK, FIN, RST, Segment
from tests.proxy.mptcp_keys import mac, mapping_checksum, near, token
from tests.proxy.tcp_model import Endpoint
from tests.proxy.tcp_types import Address, State

if TYPE_CHECKING:
    from tests.proxy.mptcp_model import Connection

UNMAPPED_MOST = 1 << 20
"""Bytes that may wait for their mapping."""
PLAIN_AFTER_SYNS = 3


@dataclass
class Mapping:
    """Bytes [ssn, ssn + size) of the subflow are [dsn, dsn + size) of the data. Relative numbers."""

    ssn: int
    size: int
    dsn: int
    fin: bool = False
    checksum: int | None = None

    @property
    def end(self) -> int:
        return self.ssn + self.size


def padded(option: bytes) -> bytes:
    """With NOPs up to a multiple of four."""
    return option + b"\x01" * (-len(option) % 4)


class Subflow:
    """The layer above one endpoint."""

    def __init__(self, connection: Connection, local: Address, remote: Address | None, *, join: bool, active: bool) -> None:
        self.connection, self.join, self.active = connection, join, active
        config = connection.config
        self.endpoint = Endpoint(
            replace(config.tcp, isn=connection.next_isn(), timestamp_offset=connection.random.getrandbits(32), buffer=1 << 40),
            local, remote, upper=self,
        )  # fmt: skip
        self.local_id, self.remote_id = 0, 0
        self.backup_here = False
        """What we told the peer."""
        self.backup_there = False
        """What the peer told us."""
        self.nonce, self.other_nonce = connection.random.randbytes(4), b""
        self.confirmed = False
        """Data may be sent: the peer has shown that it speaks MPTCP here."""
        self.dead = False
        self.removed = False
        self.sent_maps: list[Mapping] = []
        self.maps: list[Mapping] = []
        self.taken = 1
        """Bytes of the subflow below this were mapped and handed on."""
        self.unmapped_since: int | None = None
        self.syns = 0
        self.capable = True
        """An MP_CAPABLE goes on the SYN."""
        self.failed_dsn: int | None = None
        self.infinite: int | None = None
        """DSN minus SSN of an infinite mapping that the peer has sent."""

    @property
    def usable(self) -> bool:
        """Data may be sent on it."""
        open_ = self.endpoint.state in (State.ESTABLISHED, State.CLOSE_WAIT)
        return self.confirmed and open_ and not self.dead and not self.endpoint.sender.closing

    @property
    def backup(self) -> bool:
        """Used only when nothing else is there."""
        return self.backup_here or self.backup_there

    @property
    def name(self) -> str:
        return f"subflow {self.local_id}-{self.remote_id} port {self.endpoint.local[1]}"

    def complain(self, text: str) -> None:
        """A violation by the peer."""
        self.connection.violations.append(f"{self.name}: {text}")

    # ---- what the endpoint asks

    def syn_options(self) -> bytes:
        connection = self.connection
        self.syns += 1
        flags = mptcp.FLAG_HMAC_SHA256 | (mptcp.FLAG_CHECKSUM if connection.config.checksum else 0)
        if self.join:
            if self.active:
                return mptcp.encode(mptcp.JoinSyn(self.backup_here, self.local_id, token(connection.other_key), self.nonce))
            text = mac(connection.key + connection.other_key, self.nonce + self.other_nonce)
            return mptcp.encode(mptcp.JoinSynAck(self.backup_here, self.local_id, text[:8], self.nonce))
        if not self.capable or connection.plain:
            return b""
        if self.active:
            if self.syns > PLAIN_AFTER_SYNS:
                self.capable = False
                return b""
            return mptcp.encode(mptcp.Capable(flags))
        flags |= mptcp.FLAG_CHECKSUM if connection.checksum else 0
        return mptcp.encode(mptcp.Capable(flags, sender_key=connection.key))

    def _map_at(self, ssn: int) -> Mapping | None:
        at = bisect_right(self.sent_maps, ssn, key=lambda m: m.ssn) - 1
        return self.sent_maps[at] if at >= 0 and ssn < self.sent_maps[at].end else None

    def limit(self, seq: int, length: int) -> int:
        if self.connection.plain:
            return length
        mapping = self._map_at(seq)
        assert mapping is not None, f"no mapping for {seq}"
        return min(length, mapping.end - seq)

    def options(self, seq: int, length: int) -> bytes:
        connection = self.connection
        if connection.plain:
            if connection.infinite_map is not None:
                ssn, dsn = connection.infinite_map
                return padded(mptcp.encode_dss(Dss(None, False, connection.dsn_wire(dsn), True, ssn, 0)))
            return b""
        if self.active and not self.confirmed:
            if self.join:
                text = mac(connection.key + connection.other_key, self.nonce + self.other_nonce)
                return padded(mptcp.encode(mptcp.JoinAck(text[:20])))
            keys = {"sender_key": connection.key, "receiver_key": connection.other_key}
            flags = mptcp.FLAG_HMAC_SHA256 | (mptcp.FLAG_CHECKSUM if connection.checksum else 0)
            if not length:
                return padded(mptcp.encode(mptcp.Capable(flags, **keys)))  # type: ignore[arg-type]
            mapping = self._map_at(seq)
            assert mapping is not None
            if seq == mapping.dsn == 1:
                capable = mptcp.Capable(flags, data_length=mapping.size, checksum=mapping.checksum, **keys)  # type: ignore[arg-type]
                return padded(mptcp.encode(capable))
        mapping = self._map_at(seq) if length else None
        return padded(mptcp.encode_dss(self.dss(mapping)))

    def dss(self, mapping: Mapping | None) -> Dss:
        """A DSS with an acknowledgement and perhaps a mapping."""
        connection, config = self.connection, self.connection.config
        dss = Dss(connection.ack_wire(config.wide_ack), config.wide_ack)
        connection.acked = connection.rx.next
        if mapping is None:
            return dss
        dsn = connection.dsn_wire(mapping.dsn)
        return dss._replace(
            dsn=dsn if config.wide_dsn else dsn & 0xFFFFFFFF, dsn_wide=config.wide_dsn, ssn=mapping.ssn,
            length=mapping.size + mapping.fin, checksum=mapping.checksum, fin=mapping.fin,
        )  # fmt: skip

    def window_field(self, scale: int) -> int:
        connection = self.connection
        return connection.rx.window_field(scale, connection.config.tcp.mss)

    def signal(self, option: mptcp.Option | None, now: float, *, data_fin: bool = False) -> None:
        """A segment without payload for an option, or for a DATA_FIN."""
        connection = self.connection
        mapping = Mapping(0, 0, connection.end - 1, True) if data_fin else None
        if mapping is not None and connection.checksum:
            mapping.checksum = mapping_checksum(connection.dsn_wire(mapping.dsn), 0, 1, b"")
        text = padded(mptcp.encode_dss(self.dss(mapping)))
        if option is not None:
            more = padded(mptcp.encode(option))
            room = 40 - (12 if self.endpoint.timestamps else 0)
            text = text + more if len(text) + len(more) <= room else more
        self.endpoint._emit(self.endpoint.sender.next, b"", ACK, now, text)

    # ---- sending data

    def append(self, dsn: int, payload: bytes, fin: bool) -> None:
        """New bytes of the subflow for these bytes of the data."""
        sender = self.endpoint.sender
        ssn = 1 + len(sender.data)
        mapping = Mapping(ssn, len(payload), dsn, fin)
        if self.connection.checksum:
            length = len(payload) + fin
            mapping.checksum = mapping_checksum(self.connection.dsn_wire(dsn), ssn, length, payload)
        self.sent_maps.append(mapping)
        sender.data += payload

    # ---- receiving

    def syn_arrived(self, segment: Segment, now: float) -> bool:
        """The handshake's first two segments (sections 3.1 and 3.2)."""
        connection = self.connection
        options = self._decoded(segment)
        if segment.dss is not None:
            self.complain("a DSS on a SYN")
        if self.join:
            joins = [o for o in options if isinstance(o, mptcp.JoinSynAck if self.active else mptcp.JoinSyn)]
            if not joins:
                connection.counters["join without option"] += 1
                self.kill(now, mptcp.ResetReason.MPTCP_ERROR)
                return False
            join = joins[0]
            self.other_nonce, self.remote_id, self.backup_there = join.nonce, join.address_id, join.backup
            if isinstance(join, mptcp.JoinSynAck):
                if join.mac != mac(connection.other_key + connection.key, join.nonce + self.nonce)[:8]:
                    self.complain("the HMAC of a SYN/ACK is wrong")
                    self.kill(now, mptcp.ResetReason.MPTCP_ERROR)
                    return False
            elif join.token != token(connection.key):
                self.complain("a token of no connection")
                return False
            return True
        capables = [o for o in options if isinstance(o, mptcp.Capable)]
        capable = capables[0] if capables else None
        if capable is None or capable.version != 1 or not capable.flags & 1 or not self.capable:
            if capable is not None and not self.active:
                self.complain(f"an unusable {capable}")
            connection.fall_back("no MP_CAPABLE in the handshake", self)
        else:
            connection.checksum = connection.config.checksum or bool(capable.flags & mptcp.FLAG_CHECKSUM)
            if len(capable.sender_key) != (8 if self.active else 0) or capable.receiver_key:
                self.complain(f"keys of wrong lengths: {capable}")
            if self.active:
                connection.learn_key(capable.sender_key)
        connection.edge = max(connection.edge, 1 + segment.window)
        return True

    def _decoded(self, segment: Segment) -> list[mptcp.Option]:
        found = []
        for text in segment.mptcp:
            try:
                found.append(mptcp.decode(text))
            except WireError as error:
                self.complain(f"{error}: {text.hex()}")
        return found

    def arrived(self, segment: Segment, seq: int, now: float) -> bool:
        connection = self.connection
        if connection.plain:
            if segment.dss is not None and not segment.dss.length and segment.dss.dsn is not None:
                self._mapped(segment.dss, now)
                return True
            if (segment.dss is not None or segment.mptcp) and not connection.fell_back_at:
                connection.counters["options after fallback"] += 1
            return True
        options = self._decoded(segment)
        if not self.confirmed and not self._confirm(segment, options, seq, now):
            return False
        if connection.plain:
            return True
        for option in options:
            if isinstance(option, mptcp.Capable) and option.data_length:
                self._mapped(
                    Dss(None, False, connection.first_dsn_there + 1, True, 1, option.data_length, option.checksum), now
                )
            elif not isinstance(option, mptcp.Capable | mptcp.JoinAck):
                connection.option_arrived(self, option, now)
                if self.dead or self.endpoint.state is State.CLOSED:
                    return False
        dss = segment.dss
        if dss is None:
            connection.counters["segments without DSS"] += not segment.mptcp
            return True
        if dss.ack is not None:
            window = segment.window << max(0, self.endpoint.send_scale)
            connection.acknowledged(
                self, near(dss.ack, 64 if dss.ack_wide else 32, connection.first_dsn_here + connection.una), window, now
            )
        if dss.dsn is not None:
            self._mapped(dss, now)
        return not self.dead

    def _confirm(self, segment: Segment, options: list[mptcp.Option], seq: int, now: float) -> bool:
        """Whether the segment is to be processed; the handshake's third and fourth segments."""
        connection, endpoint = self.connection, self.endpoint
        if self.join and not self.active:
            macs = [o for o in options if isinstance(o, mptcp.JoinAck)]
            if not macs:
                connection.counters["before the third ACK of a join"] += 1
                return False
            if macs[0].mac != mac(connection.other_key + connection.key, self.other_nonce + self.nonce)[:20]:
                self.complain("the HMAC of a third ACK is wrong")
                self.kill(now, mptcp.ResetReason.MPTCP_ERROR)
                return False
            self.confirmed = True
            endpoint._ack_now = True  # the fourth ACK
            return True
        if self.join:
            self.confirmed = True
            return True
        if self.active:
            if segment.dss is not None:
                self.confirmed = True
            elif not segment.mptcp:
                connection.fall_back("no DSS on the first segment of the server", self)
            return True
        capables = [o for o in options if isinstance(o, mptcp.Capable) and len(o.sender_key) == 8]
        if capables:
            capable = capables[0]
            if capable.receiver_key != connection.key:
                self.complain(f"our key is wrong in {capable}")
            if capable.data_length is not None and seq != 1:
                self.complain(f"MP_CAPABLE with data at {seq}")
            if not capable.flags & mptcp.FLAG_CHECKSUM and connection.checksum:
                self.complain("the checksum flag is missing in the third MP_CAPABLE")
            connection.learn_key(capable.sender_key)
            self.confirmed = True
            return True
        if segment.dss is not None or segment.mptcp:
            if connection.config.bare_start == "drop":
                connection.counters["before the keys"] += 1
                return False
            connection.counters["before the keys: fallback"] += 1
        connection.fall_back("no MP_CAPABLE on the third ACK", self)
        return True

    def _mapped(self, dss: Dss, now: float) -> None:
        """A mapping of the peer (section 3.3.1)."""
        connection, receiver = self.connection, self.endpoint.receiver
        assert dss.dsn is not None
        dsn = (
            near(dss.dsn, 64 if dss.dsn_wide else 32, connection.first_dsn_there + connection.rx.next)
            - connection.first_dsn_there
        )
        if dss.length == 0:
            if connection.config.fallback_expected:
                self.infinite = dsn - dss.ssn
                connection.fall_back("an infinite mapping", self)
            else:
                self.complain(f"an infinite mapping: {dss}")
            return
        size = dss.length - dss.fin
        if (dss.checksum is None) == connection.checksum:
            self.complain(f"checksum present: {dss.checksum is not None}, negotiated: {connection.checksum}")
        if dss.fin:
            connection.fin_arrived(self, dsn + size, now)
        if not size:
            if dss.ssn:
                self.complain(f"a DATA_FIN alone with SSN {dss.ssn}")
            return
        ssn = near(dss.ssn, 32, receiver.next)
        if ssn < 1 or dsn < 1:
            self.complain(f"a mapping before the beginning: {dss}")
            return
        edge = max(connection.rx.edge, connection.rx.next) + int(size == 1)  # one byte more: a probe
        if dsn + size > edge:
            self.complain(f"a mapping beyond the window: [{dsn}, {dsn + size}), the window ends at {edge}")
        mapping = Mapping(ssn, size, dsn, dss.fin, dss.checksum)
        at = bisect_right(self.maps, ssn, key=lambda m: m.ssn)
        for other in self.maps[at - 1 :: -1][:64] + self.maps[at : at + 64] if self.maps else ():
            if other.ssn < mapping.end and ssn < other.end:
                if other.dsn - other.ssn != dsn - ssn:
                    self.complain(f"mappings contradict each other: {other} and {mapping}")
                    return
                if other.ssn == ssn and other.size == size:
                    return
                connection.counters["overlapping mappings"] += 1
                if connection.config.identical_mappings and other.end > self.taken and mapping.end > self.taken:
                    self.complain(f"a mapping overlaps another: {other} and {mapping}")
        self.maps.insert(at, mapping)

    def progress(self, now: float) -> None:
        """Hand on what came in order, as far as it is mapped."""
        connection, receiver = self.connection, self.endpoint.receiver
        connection.subflow_changed(self, now)
        end = receiver.next - int(receiver.fin_at is not None and receiver.next > receiver.fin_at)
        while self.taken < end and self.failed_dsn is None:
            if connection.plain:
                offset = self.infinite if self.infinite is not None else connection.plain_offset
                connection.take(self, self.taken + offset, bytes(receiver.data[self.taken - 1 : end - 1]))
                self.taken = end
                break
            at = bisect_right(self.maps, self.taken, key=lambda m: m.ssn) - 1
            candidates = [m for m in self.maps[max(0, at - 8) : at + 1] if m.ssn <= self.taken < m.end]
            if not candidates:
                if end - self.taken > UNMAPPED_MOST or connection.config.fallback_expected:
                    self._no_mapping(now)
                break
            mapping = max(candidates, key=lambda m: m.end)
            stop = min(end, mapping.end)
            if connection.checksum and self.taken == mapping.ssn:
                if stop < mapping.end:
                    break
                payload = bytes(receiver.data[mapping.ssn - 1 : mapping.end - 1])
                wire = connection.dsn_wire_there(mapping.dsn)
                if mapping_checksum(wire, mapping.ssn, mapping.size + mapping.fin, payload) != mapping.checksum:
                    connection.checksum_failed(self, mapping.dsn, now)
                    break
            connection.take(self, mapping.dsn + self.taken - mapping.ssn, bytes(receiver.data[self.taken - 1 : stop - 1]))
            self.taken = stop
        if connection.plain and receiver.fin_at is not None and receiver.next > receiver.fin_at:
            connection.plain_fin()
        connection.advance(now)

    def _no_mapping(self, now: float) -> None:
        if len([s for s in self.connection.subflows if not s.dead]) == 1:
            self.connection.plain_offset = self.connection.rx.next - self.taken
            self.connection.fall_back("data without a mapping", self)
            self.progress(now)
        else:
            self.kill(now, mptcp.ResetReason.MIDDLEBOX)

    @property
    def unmapped(self) -> int:
        """Bytes in order that still wait for a mapping."""
        receiver = self.endpoint.receiver
        return max(0, receiver.bytes_in_order + 1 - self.taken) if not self.connection.plain else 0

    def reset_arrived(self, segment: Segment, now: float) -> None:
        """An acceptable RST: it may carry an option."""
        for option in self._decoded(segment):
            if isinstance(option, mptcp.Fastclose):
                self.connection.option_arrived(self, option, now)
            else:
                self.connection.counters[f"RST with {type(option).__name__}"] += 1

    def kill(self, now: float, reason: int = 0, option: bytes = b"") -> None:
        """RST."""
        if self.dead:
            return
        text = option or padded(mptcp.encode(mptcp.TcpRst(reason)))
        if self.endpoint.state is State.SYN_SENT:
            self.endpoint.state = State.ESTABLISHED  # so that the RST goes out
        self.endpoint.abort(now, text)
        self.connection.subflow_changed(self, now)


__all__ = ["FIN", "RST", "Mapping", "Subflow", "padded"]
