"""Both sides of one proxy, played packet by packet: the TCP of its host, and an MPTCP peer.

Tests speak in offsets: `t` in the data stream, `s` on a subflow (`Path`); the first byte of each is 1. What the proxy emits is
checked at once: checksums, addresses, every byte of payload against the stream it belongs to, acknowledgements against what was
really sent.
"""

import hashlib
import random
from collections.abc import Callable

from agents.core.proxy.actions import Action, Answer, Deliver, Log, Offload, Send, Verdict
from agents.core.proxy.config import LocalAddress, ProxyConfig
from agents.core.proxy.connection import Connection
from agents.core.proxy.proxy import Proxy
from agents.core.proxy.subflow import Subflow
from agents.core.sequence import unwrap32, unwrap64
from agents.wire import mptcp, tcp
from agents.wire.mptcp import Capable, Dss
from agents.wire.tcp import ACK, FIN, PSH, RST, SYN, Segment, parse
from tests.proxy.packets import faults
from tests.proxy.ranges import Ranges
from tests.unit.agents.core.proxy.parts import (
    FAR,
    FAR6,
    FAR_DATA,
    FAR_KEY,
    FAR_PORT,
    NEAR,
    NEAR6,
    NEAR_DATA,
    NEAR_PORT,
    SCALE,
    STREAM,
    SYN_OPTIONS,
    WINDOW,
    Out,
    Path,
    far_bytes,
    near_bytes,
)


class Peer:
    """A proxy, its host's TCP, and the peer on the other side of the network."""

    def __init__(
        self,
        config: ProxyConfig | None = None,
        *,
        near_isn: int = 1_000_000,
        far_isn: int = 7_000_000,
        sack: bool = True,
        timestamps: bool = True,
        v6: bool = False,
        far_key: bytes = FAR_KEY,
        idsn: Callable[[bytes], int] = mptcp.initial_dsn,
        flags: int = mptcp.FLAG_HMAC_SHA256,
        seed: int = 3,
        proxy: Proxy | None = None,
        port: int = NEAR_PORT,
    ) -> None:
        self.random = random.Random(seed)
        self.proxy = proxy or Proxy(config or ProxyConfig(), self.random.randbytes)
        self.now = 1000.0
        self.sack, self.timestamps = sack, timestamps
        self.far_key, self.flags, self.idsn = far_key, flags, idsn
        near, far = ((NEAR6, port), (FAR6, FAR_PORT)) if v6 else ((NEAR[0], port), (FAR[0], FAR_PORT))
        self.first = Path(near, far, near_isn, far_isn)
        self.paths: dict[tuple[bytes, int, bytes, int], Path] = {self.first.key: self.first}
        self.near_next = self.near_ack = 1
        self.far_next = self.far_ack = 1
        self.near_fin = self.far_fin = False
        self.tan = 1
        self.data_ack = 1
        self.dan_wide = False
        self.near_clock = 100_000
        self.stamp_given: int | None = None
        self.arrived_near, self.arrived_far = Ranges(), Ranges()
        self.host_stream, self.far_stream = bytearray(STREAM), bytearray(STREAM)
        self.near_key = b""
        self.checks = True
        self.near_scale: int | None = SCALE

    # -- the state of the proxy ---------------------------------------------------------------------------------------

    @property
    def connection(self) -> Connection:
        """The proxy's record."""
        near, far = self.first.near, self.first.far
        return self.proxy._by_host[(*near, *far)]

    def subflow(self, path: Path) -> Subflow:
        """The proxy's record, also of one that is closed."""
        return self.proxy._by_subflow[path.key][1]

    @property
    def active(self) -> Path:
        """The path for the host's new data."""
        active = self.connection.active
        assert active is not None
        return self.paths[active.key]

    # -- packets in ---------------------------------------------------------------------------------------------------

    def outbound(self, packet: bytes, offload: Offload = Offload.NONE) -> Out:
        """A packet from the host, as it is."""
        actions: list[Action] = []
        answer = self.proxy.outbound(packet, self.now, actions, offload)
        return self._out(answer, packet, actions, to_network=True)

    def inbound(self, packet: bytes, offload: Offload = Offload.NONE) -> Out:
        """A packet from the network, as it is."""
        actions: list[Action] = []
        answer = self.proxy.inbound(packet, self.now, actions, offload)
        return self._out(answer, packet, actions, to_network=False)

    def act(self, call: Callable[[float, list[Action]], object]) -> Out:
        """A command or a timer."""
        actions: list[Action] = []
        call(self.now, actions)
        return self._out(Verdict.DROP, b"", actions, to_network=True)

    def wait(self, seconds: float) -> Out:
        """Time passes, and every timer is called in time."""
        until, total = self.now + seconds, Out()
        while (due := self.proxy.next_deadline()) is not None and due <= until:
            self.now = max(self.now, due)
            out = self.act(self.proxy.handle_timer)
            total.network += out.network
            total.host += out.host
            total.logs += out.logs
            following = self.proxy.next_deadline()
            assert following is None or following > self.now, "a timer that is due at once, again"
        self.now = until
        return total

    def stamp_near(self) -> int:
        """The host's clock."""
        return (self.near_clock + int(self.now * 1000)) & 0xFFFFFFFF

    def stamp_far(self, path: Path) -> int:
        """The peer's clock on a subflow."""
        return (path.clock + int(self.now * 1000)) & 0xFFFFFFFF

    def host(
        self,
        data: int = 0,
        *,
        t: int | None = None,
        ack: int | None = None,
        flags: int = ACK,
        sack: list[tuple[int, int]] | None = None,
        window: int = WINDOW,
        offload: Offload = Offload.NONE,
        payload: bytes | None = None,
    ) -> Out:
        """A segment of the host's TCP: `data` bytes at t (its next), with its ACK in t of the peer's stream."""
        start = self.near_next if t is None else t
        if ack is not None:
            self.near_ack = max(self.near_ack, ack)
        packet = self.host_packet(start, self.near_ack if ack is None else ack, flags, window, sack or [],
                                  near_bytes(start, data) if payload is None else payload)  # fmt: skip
        end = start + data + bool(flags & FIN)
        if not flags & RST:
            self.near_next = max(self.near_next, end)
        self.near_fin = self.near_fin or bool(flags & FIN)
        return self.outbound(packet, offload)

    def host_packet(
        self, t: int, ack: int, flags: int, window: int, sack: list[tuple[int, int]], payload: bytes = b""
    ) -> bytes:
        """A segment of the host's TCP."""
        options = b""
        if self.timestamps:
            options += tcp.timestamps_option(self.stamp_near(), self.stamp_given or 0)
        near_isn, far_isn = self.first.near_isn, self.first.far_isn
        options += tcp.sack_option([(far_isn + left, far_isn + right) for left, right in sack])
        return tcp.build(*self.first.near, *self.first.far, near_isn + t, far_isn + ack if flags & ACK else 0,
                         flags | (PSH if payload else 0), window, options, payload)  # fmt: skip

    def dss(
        self,
        *,
        t: int | None = None,
        s: int = 0,
        length: int = 0,
        dan: int | None = None,
        fin: bool = False,
        checksum: int | None = None,
        wide: bool = False,
        ack: bool = True,
    ) -> bytes:
        """A DSS option of the peer: a data ACK, and with `t` the mapping of `length` bytes."""
        base, far = self.idsn(self.near_key), self.idsn(self.far_key)
        return mptcp.encode_dss(Dss(
            None if not ack else base + (self.far_ack if dan is None else dan), wide or self.dan_wide,
            None if t is None else far + t, wide, s, length + fin, checksum, fin))  # fmt: skip

    def far(
        self,
        path: Path | None = None,
        data: int = 0,
        *,
        t: int | None = None,
        s: int | None = None,
        san: int | None = None,
        dan: int | None = None,
        dss: bytes | None = None,
        options: bytes = b"",
        flags: int = ACK,
        sack: list[tuple[int, int]] | None = None,
        window: int = WINDOW,
        payload: bytes | None = None,
        stamp: int | None = None,
        offload: Offload = Offload.NONE,
    ) -> Out:
        """A segment of the peer on a path: `data` bytes at t on its next s, mapped by a DSS unless `dss` is given."""
        path = path or self.first
        start = path.next if s is None else s
        t = self.far_next if t is None else t
        if san is not None:
            path.san = max(path.san, san)
        if dan is not None:
            self.far_ack = max(self.far_ack, dan)
        if dss is None:
            dss = self.dss(t=t, s=start, length=data, dan=dan) if data else self.dss(dan=dan)
        packet = self.far_packet(path, start, path.san if san is None else san, flags, window, sack or [], options + dss,
                                 far_bytes(t, data) if payload is None else payload, stamp)  # fmt: skip
        if data:
            path.sent.add(start, start + data)
            path.next = max(path.next, start + data)
            self.far_next = max(self.far_next, t + data)
        path.fin = path.fin or bool(flags & FIN)
        return self.inbound(packet, offload)

    def far_packet(
        self, path: Path, s: int, san: int, flags: int, window: int, sack: list[tuple[int, int]], options: bytes,
        payload: bytes = b"", stamp: int | None = None,
    ) -> bytes:  # fmt: skip
        """A segment of the peer."""
        head = b""
        if self.timestamps:
            head += tcp.timestamps_option(self.stamp_far(path) if stamp is None else stamp, self.stamp_near())
        head += tcp.sack_option([(path.near_isn + left, path.near_isn + right) for left, right in sack])
        return path.packet(s, san, flags | (PSH if payload else 0), window, head + options, payload)

    def far_data_fin(self, path: Path | None = None, *, dan: int | None = None) -> Out:
        """The peer's end of data, alone."""
        self.far_fin = True
        return self.far(path, dss=self.dss(t=self.far_next, fin=True, dan=dan))

    # -- handshakes ---------------------------------------------------------------------------------------------------

    def syn_packet(self, source: tuple[bytes, int], to: tuple[bytes, int], seq: int, stamp: int, *, ack: int | None = None,
                   option: bytes = b"", echo: int = 0) -> bytes:  # fmt: skip
        """A SYN or SYN/ACK of either side."""
        options = SYN_OPTIONS[:4] + (SYN_OPTIONS[4:] if self.sack else b"\x01\x01")
        if self.timestamps:
            options += tcp.timestamps_option(stamp, echo)[2:]
        if self.near_scale is not None:
            options += bytes((1, 3, 3, self.near_scale))
        flags = SYN if ack is None else SYN | ACK
        return tcp.build(*source, *to, seq, ack or 0, flags, 65_535, options + option)

    def host_syn(self) -> Out:
        """The host's TCP opens."""
        return self.outbound(self.syn_packet(self.first.near, self.first.far, self.first.near_isn, self.stamp_near()))

    def far_syn_ack(self, option: bytes | None = None, *, ack: int | None = None) -> Out:
        """The peer's SYN/ACK."""
        if option is None:
            option = mptcp.encode(Capable(self.flags, mptcp.VERSION, self.far_key))
        first = self.first
        return self.inbound(self.syn_packet(first.far, first.near, first.far_isn, self.stamp_far(first),
                                            ack=first.near_isn + 1 if ack is None else ack, option=option,
                                            echo=self.stamp_near()))  # fmt: skip

    def open(self, *, confirm: bool = True) -> "Peer":
        """The host opens the connection; `confirm`: the peer has shown that it speaks MPTCP."""
        self.host_syn()
        self.far_syn_ack()
        out = self.host()
        capable = mptcp.decode(out.network[0].mptcp[0])
        assert isinstance(capable, Capable)
        self.near_key = capable.sender_key
        if confirm:
            self.far()
        return self

    def far_syn(self, option: bytes | None = None, *, seq: int | None = None) -> Out:
        """The peer opens."""
        if option is None:
            option = mptcp.encode(Capable(self.flags))
        first = self.first
        return self.inbound(self.syn_packet(first.far, first.near, first.far_isn if seq is None else seq,
                                            self.stamp_far(first), option=option))  # fmt: skip

    def host_syn_ack(self) -> Out:
        """The host's TCP accepts."""
        first = self.first
        return self.outbound(self.syn_packet(first.near, first.far, first.near_isn, self.stamp_near(),
                                             ack=first.far_isn + 1, echo=self.stamp_far(first)))  # fmt: skip

    def far_third_ack(self, option: bytes | None = None) -> Out:
        """The peer's third ACK, with both keys."""
        if option is None:
            option = mptcp.encode(Capable(self.flags, mptcp.VERSION, self.far_key, self.near_key))
        return self.far(dss=b"", options=option)

    def accept(self, *, confirm: bool = True) -> "Peer":
        """The peer opens the connection."""
        self.far_syn()
        out = self.host_syn_ack()
        capable = mptcp.decode(out.network[0].mptcp[0])
        assert isinstance(capable, Capable)
        self.near_key = capable.sender_key
        if confirm:
            self.far_third_ack()
        return self

    def mac_near(self, near_nonce: bytes, far_nonce: bytes) -> bytes:
        """The HMAC that the proxy sends in a join."""
        return mptcp.join_mac(self.near_key, self.far_key, near_nonce, far_nonce)

    def mac_far(self, near_nonce: bytes, far_nonce: bytes) -> bytes:
        """The HMAC that the peer sends in a join."""
        return mptcp.join_mac(self.far_key, self.near_key, far_nonce, near_nonce)

    def join_asked(self, address: bytes = NEAR[1], *, backup: bool = False, remote: bytes | None = None) -> tuple[Path, Out]:
        """The proxy is told to join from an address; the path is not open yet."""
        out = self.act(lambda now, actions: self.proxy.add_subflow(address, now, actions, backup=backup, remote=remote))
        return self.asked(out), out

    def asked(self, out: Out, far_isn: int = 9_000_000) -> Path:
        """The path of an MP_JOIN SYN of the proxy."""
        syn = next(segment for segment in out.network if segment.flags & SYN)
        path = Path((syn.source, syn.source_port), (syn.destination, syn.destination_port), syn.seq, far_isn)
        self.paths[path.key] = path
        return path

    def join_answered(
        self, path: Path, *, mac: bytes | None = None, backup: bool = False, nonce: bytes = b"far1", ack: int | None = None,
        option: bytes | None = None, address_id: int = 0,
    ) -> Out:  # fmt: skip
        """The peer's SYN/ACK of a join."""
        if option is None:
            right = self.mac_far(self.subflow(path).local_nonce, nonce)[:8]
            option = mptcp.encode(mptcp.JoinSynAck(backup, address_id, right if mac is None else mac, nonce))
        return self.inbound(self.syn_packet(path.far, path.near, path.far_isn, self.stamp_far(path),
                                            ack=path.near_isn + 1 if ack is None else ack, option=option))  # fmt: skip

    def join(self, address: bytes = NEAR[1], *, backup: bool = False, far_isn: int = 9_000_000, clock: int = 5_000_000) -> Path:
        """A subflow from an address, open on both sides."""
        out = self.act(lambda now, actions: self.proxy.add_subflow(address, now, actions, backup=backup))
        return self.join_finished(out, far_isn=far_isn, clock=clock)

    def join_finished(self, out: Out, *, far_isn: int = 9_000_000, clock: int = 5_000_000) -> Path:
        """The peer's part of a join that the proxy has begun."""
        path = self.asked(out, far_isn)
        path.clock = clock
        self.join_answered(path)
        self.far(path)
        return path

    def far_join_syn(
        self, address: bytes = FAR[1], *, to: bytes = NEAR[0], token: bytes | None = None, nonce: bytes = b"far2",
        address_id: int = 1, far_isn: int = 9_500_000, port: int = 50_000, backup: bool = False,
    ) -> tuple[Path, Out]:  # fmt: skip
        """The peer's MP_JOIN SYN; the path's initial sequence number of the proxy comes with the SYN/ACK."""
        path = Path((to, self.first.near[1]), (address, port), 0, far_isn)
        option = mptcp.encode(mptcp.JoinSyn(backup, address_id, mptcp.token(self.near_key) if token is None else token, nonce))
        self.paths[path.key] = path
        out = self.inbound(self.syn_packet(path.far, path.near, far_isn, self.stamp_far(path), option=option))
        if out.network and out.network[0].flags & SYN:
            path.near_isn = out.network[0].seq
        else:
            del self.paths[path.key]
        return path, out

    def far_join_ack(self, path: Path, *, mac: bytes | None = None, nonce: bytes = b"far2") -> Out:
        """The third ACK of a join that the peer has opened."""
        right = self.mac_far(self.subflow(path).local_nonce, nonce)[:20]
        return self.far(path, dss=b"", options=mptcp.encode(mptcp.JoinAck(right if mac is None else mac)))

    def joined(self, address: bytes = FAR[1], *, far_isn: int = 9_500_000, port: int = 50_000, address_id: int = 1) -> Path:
        """A subflow that the peer has opened."""
        path, _out = self.far_join_syn(address, far_isn=far_isn, port=port, address_id=address_id)
        self.far_join_ack(path)
        return path

    def addresses(self, *numbers: int) -> Out:
        """These of NEAR can be used."""
        known = [LocalAddress(NEAR[n], f"if{n}") for n in numbers]
        return self.act(lambda now, actions: self.proxy.addresses_changed(known, now, actions))

    # -- packets out --------------------------------------------------------------------------------------------------

    def _out(self, answer: Answer, packet: bytes, actions: list[Action], *, to_network: bool) -> Out:
        out = Out(answer)
        if answer in (Verdict.PASS, Verdict.RELEASE):
            (out.network if to_network else out.host).append(parse(packet))
        elif isinstance(answer, bytes):
            (out.network if to_network else out.host).append(self._checked(answer, to_network))
        for action in actions:
            match action:
                case Send():
                    out.network.append(self._checked(action.packet, to_network=True))
                case Deliver():
                    out.host.append(self._checked(action.packet, to_network=False))
                case Log():
                    out.logs.append(action)
        return out

    def _checked(self, packet: bytes, to_network: bool) -> Segment:
        assert not faults(packet), faults(packet)
        segment = parse(packet)
        assert not segment.malformed
        if not self.checks:
            return segment
        if to_network:
            self._to_network(segment)
        else:
            self._to_host(segment)
        return segment

    def _to_network(self, segment: Segment) -> None:
        path = self.paths.get((segment.destination, segment.destination_port, segment.source, segment.source_port))
        if path is None or segment.flags & (SYN | RST):
            return
        s = unwrap32(segment.seq, path.near_isn, path.next)
        if segment.flags & ACK:
            san = unwrap32(segment.ack, path.far_isn, path.next)
            whole = next((right for left, right in path.sent if left <= 1), 1) + path.fin
            assert san <= whole, f"SAN {san}, but only {list(path.sent)} was sent"
            path.acked = max(path.acked, san)
        for left, right in segment.sack:
            low, high = unwrap32(left, path.far_isn, path.next), unwrap32(right, path.far_isn, path.next)
            assert any(a <= low < high <= b for a, b in path.sent), f"SACK of {low} to {high}: {list(path.sent)} was sent"
        dss, end, shift = segment.dss, s + segment.payload_length, None
        if dss is not None and dss.ack is not None:
            unwrap = unwrap64 if dss.ack_wide else unwrap32
            self.data_ack = unwrap(dss.ack, self.idsn(self.far_key), self.data_ack)
            assert self.data_ack <= self.near_ack, "a data ACK for what the host has not acknowledged"
        if dss is not None and dss.dsn is not None and dss.length > dss.fin:
            unwrap = unwrap64 if dss.dsn_wide else unwrap32
            t = unwrap(dss.dsn, self.idsn(self.near_key), self.near_next)
            assert dss.ssn <= s < end <= dss.ssn + dss.length - dss.fin
            shift = t - dss.ssn
        elif segment.payload_length:
            shift = 0 if s == 1 else path.shifts.get(s - 1, 0)
        if segment.payload_length:
            assert shift is not None
            for key in (s, end - 1):
                assert path.shifts.setdefault(key, shift) == shift, f"s {key} has another mapping than before"
            payload, t = bytes(segment.payload), s + shift
            assert payload == near_bytes(t, len(payload)), f"wrong bytes at t {t}"
            path.got.add(s, end)
            self.arrived_far.add(t, t + len(payload))
            self.far_stream[t - 1 : t - 1 + len(payload)] = payload

    def _to_host(self, segment: Segment) -> None:
        first = self.first
        assert segment.key == first.key
        assert segment.dss is None
        assert not segment.mptcp
        if segment.flags & SYN:
            self.stamp_given = segment.timestamp
            return
        t = unwrap32(segment.seq, first.far_isn, self.near_ack)
        if segment.flags & ACK:
            tan = unwrap32(segment.ack, first.near_isn, self.tan)
            assert tan >= self.tan or segment.flags & RST, "the ACK for the host goes back"
            assert tan <= self.near_next
            self.tan = max(self.tan, tan)
        if segment.timestamp is not None and not segment.flags & RST:
            given = self.stamp_given
            assert given is None or (segment.timestamp - given) & 0xFFFFFFFF < 1 << 31, "TSval goes back"
            self.stamp_given = segment.timestamp
        if segment.payload_length:
            payload = bytes(segment.payload)
            assert payload == far_bytes(t, len(payload)), f"wrong bytes at t {t}"
            self.arrived_near.add(t, t + len(payload))
            self.host_stream[t - 1 : t - 1 + len(payload)] = payload

    # -- offsets of what came out --------------------------------------------------------------------------------------

    def t_host(self, segment: Segment) -> tuple[int, int]:
        """(t, tan) of a segment for the host."""
        return (unwrap32(segment.seq, self.first.far_isn, self.far_next),
                unwrap32(segment.ack, self.first.near_isn, self.near_next))  # fmt: skip

    def blocks_host(self, segment: Segment) -> list[tuple[int, int]]:
        """Its SACK blocks in t."""
        base = self.first.near_isn
        return [(unwrap32(a, base, self.near_next), unwrap32(b, base, self.near_next)) for a, b in segment.sack]

    def path_of(self, segment: Segment) -> Path:
        """The path of a segment for the network."""
        return self.paths[(segment.destination, segment.destination_port, segment.source, segment.source_port)]

    def s_network(self, segment: Segment) -> tuple[int, int]:
        """(s, san) of a segment for the network."""
        path = self.path_of(segment)
        return unwrap32(segment.seq, path.near_isn, path.san), unwrap32(segment.ack, path.far_isn, path.next)

    def blocks_network(self, segment: Segment) -> list[tuple[int, int]]:
        """Its SACK blocks in s."""
        path = self.path_of(segment)
        return [(unwrap32(a, path.far_isn, path.next), unwrap32(b, path.far_isn, path.next)) for a, b in segment.sack]

    def tan_after(self, out: Out) -> int | None:
        """The last ACK that the host was given, in t; None when it was given nothing."""
        return self.t_host(out.host[-1])[1] if out.host else None

    # -- after an attack ----------------------------------------------------------------------------------------------

    def acknowledge_all(self) -> None:
        """The peer acknowledges all that came, on every path, until the host knows."""
        whole = next((right for left, right in self.arrived_far if left <= 1), 1)
        for path in self.carrying():
            san = next((right for left, right in path.got if left <= 1), 1)
            self.far(path, san=san, dan=max(self.far_ack, whole))

    def carrying(self) -> list[Path]:
        """Paths that the proxy can use."""
        return [self.paths[subflow.key] for subflow in self.connection.subflows if subflow.carries]

    def goes_on(self, rounds: int = 2, size: int = 100) -> None:
        """Data flows in both directions, on every path, and is acknowledged everywhere; both streams are whole."""
        for _ in range(rounds):
            at = self.near_next
            self.now += 0.01
            out = self.host(size)
            assert sum(segment.payload_length for segment in out.network) == size, "the host's data does not go out"
            self.acknowledge_all()
            assert self.tan == at + size, f"the host was told {self.tan}, not {at + size}"
            for path in self.carrying():
                self.now += 0.01
                out = self.far(path, size)
                assert sum(segment.payload_length for segment in out.host) == size, f"nothing arrives: {out.logs}"
                self.host(ack=self.far_next)
                assert path.acked == path.next, f"the peer was told {path.acked}, not {path.next}"
                assert self.data_ack == self.far_next
        self.check_streams()

    def check_streams(self) -> None:
        """Both applications have got the other's stream, whole."""
        for arrived, stream, source, end in (
            (self.arrived_far, self.far_stream, NEAR_DATA, self.near_next - self.near_fin),
            (self.arrived_near, self.host_stream, FAR_DATA, self.far_next),
        ):
            assert list(arrived) == ([(1, end)] if end > 1 else [])
            assert hashlib.sha256(stream[: end - 1]).digest() == hashlib.sha256(source[: end - 1]).digest()

    def check_empty(self) -> None:
        """The proxy holds nothing of any connection."""
        proxy = self.proxy
        assert not proxy._by_host
        assert not proxy._by_subflow
        assert not proxy._by_token
        assert not proxy._numbered
        assert not proxy._keys
        assert not proxy._usual_from_host
        assert not proxy._usual_from_network
        status = proxy.status()
        assert (status["connections"], status["half_open"], status["subflows"]) == (0, 0, 0)


def pair(config: ProxyConfig | None = None, **more: object) -> tuple[Peer, Path, Path]:
    """An open connection with a second subflow from NEAR[1]; the first one is active."""
    peer = Peer(config, **more).open()  # type: ignore[arg-type]
    return peer, peer.first, peer.join()
