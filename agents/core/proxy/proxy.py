"""The proxy of a host: finds the connection of each packet, bounds their number, keeps their timers.

The packet path is `outbound` and `inbound`: one call for each packet, one answer, and rarely an action.
"""

import heapq
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

from agents.core.proxy import closing, commands, fast_path, handshake, joins, packets, path_mtu, policy, signalling
from agents.core.proxy.actions import Action, Answer, Deliver, Log, Offload, Send, Verdict
from agents.core.proxy.commands import CommandRefused
from agents.core.proxy.config import LocalAddress, ProxyConfig
from agents.core.proxy.connection import Connection
from agents.core.proxy.inbound import segment_from_network
from agents.core.proxy.lane import packed_ends
from agents.core.proxy.outbound import segment_from_host
from agents.core.proxy.states import State, SubflowState
from agents.core.proxy.subflow import Subflow
from agents.wire import icmp, mptcp
from agents.wire.errors import WireError
from agents.wire.mptcp import JoinSyn, ResetReason, TcpRst
from agents.wire.tcp import ACK, FIN, RST, SYN, Segment, parse

Key = tuple[bytes, int, bytes, int]
_TRIES_FOR_A_KEY = 8
_TIMERS_MIN, _TIMERS_EACH = 64, 4
"""Entries of the timers: so many for each connection, and some more."""
_ENDED_MAX = 16
"""Subflows of a connection that have ended and are still known, to answer what comes late."""
_RELEASED_MAX = 1_024


class Proxy:
    """All connections of a host. `random(n)` gives n random bytes; times are monotonic seconds."""

    def __init__(self, config: ProxyConfig, random: Callable[[int], bytes]) -> None:
        self.config = config
        self._random = random
        self._by_host: dict[Key, Connection] = {}
        self._by_subflow: dict[Key, tuple[Connection, Subflow]] = {}
        self._keys: dict[int, list[Key]] = {}
        """Those of `_by_subflow`, by the number of the connection."""
        self._by_token: dict[bytes, Connection] = {}
        self._usual_from_host: dict[bytes, Connection] = {}
        """By addresses and ports as they lie in an IPv4 header without options: for the fast path."""
        self._usual_from_network: dict[bytes, tuple[Connection, Subflow]] = {}
        self._half_open: OrderedDict[int, Connection] = OrderedDict()
        self._released: OrderedDict[Key, None] = OrderedDict()
        self._timers: list[tuple[float, int]] = []
        self._numbered: dict[int, Connection] = {}
        self._next_number = 1
        self._addresses: Sequence[LocalAddress] = ()
        self.counters: dict[str, int] = {
            "outbound": 0, "inbound": 0, "connections": 0, "refused": 0, "evicted": 0, "stray": 0, "bad-tokens": 0,
        }  # fmt: skip

    # -- packets ------------------------------------------------------------------------------------------------------

    def outbound(self, packet: bytes, now: float, actions: list[Action], offload: Offload = Offload.NONE) -> Answer:
        """A packet of this host's TCP on its way to the network."""
        self.counters["outbound"] += 1
        if offload is Offload.NONE or len(packet) == fast_path.ACK_BYTES:  # its checksum plays no part
            usual = self._usual_from_host.get(packet[12:24])
            short = fast_path.from_host(usual, packet, now) if usual is not None else None
            if short is not None:
                return short
        try:
            segment = parse(packet)
        except WireError:
            return Verdict.PASS
        connection = self._by_host.get((segment.source, segment.source_port, segment.destination, segment.destination_port))
        if segment.flags & SYN:
            return self._syn_from_host(connection, segment, now, actions)
        if connection is None or connection.state is State.CLOSED:
            return self._stray_from_host(segment, actions)
        if connection.fallback and connection.untouched:
            return self._release(connection)
        if connection.half_open:
            return self._half_open_from_host(connection, segment, actions)
        answer = segment_from_host(connection, segment, now, actions, offload)
        if connection.timers_changed:
            self._schedule(connection)
        return answer

    def inbound(self, packet: bytes, now: float, actions: list[Action], offload: Offload = Offload.NONE) -> Answer:
        """A packet from the network on its way to this host's TCP."""
        self.counters["inbound"] += 1
        if offload is Offload.NONE:
            usual = self._usual_from_network.get(packet[12:24])
            short = fast_path.from_network(*usual, packet, now) if usual is not None else None
            if short is not None:
                return short
        try:
            segment = parse(packet)
        except WireError:
            return self._too_big_from_network(packet, actions)
        found = self._by_subflow.get((segment.source, segment.source_port, segment.destination, segment.destination_port))
        if found is None or found[0].state is State.CLOSED:
            return self._unknown_from_network(segment, now, actions)
        connection, subflow = found
        if connection.fallback and connection.untouched:
            return self._release(connection)
        if segment.flags & SYN or connection.half_open or subflow.state in _HANDSHAKE:
            answer = self._handshake_from_network(connection, subflow, segment, now, actions, offload)
        elif not subflow.alive:
            answer = self._dead_subflow(connection, subflow, segment, actions)
        else:
            answer = segment_from_network(connection, subflow, segment, now, actions, offload)
        if connection.policy_due and connection.confirmed:
            connection.policy_due = False
            self._apply_policy(connection, now, actions)
        if connection.timers_changed:
            self._schedule(connection)
        return answer

    # -- what is not plain traffic: this host -------------------------------------------------------------------------

    def _syn_from_host(self, connection: Connection | None, segment: Segment, now: float, actions: list[Action]) -> Answer:
        if segment.flags & ACK:
            if connection is None:  # its SYN did not ask for MPTCP, or has been pushed out
                return Verdict.RELEASE
            if connection.opened_here:
                return Verdict.PASS
            if not connection.half_open:  # the ACK that we passed on was lost before this host's TCP saw it
                actions.append(Deliver(packets.ack_for_host(connection)))
                return Verdict.DROP
            answer = handshake.syn_ack_from_host(connection, segment, actions)
            return self._release(connection) if answer is Verdict.RELEASE else answer
        if segment.mptcp or segment.payload_length:  # a stack with MPTCP of its own; TCP Fast Open
            return Verdict.RELEASE
        if connection is not None:
            again = connection.iss == segment.seq
            if again and not connection.half_open and connection.state is not State.TIME_WAIT:
                return Verdict.DROP  # it crossed with the SYN/ACK, which this host's TCP has behind it
            if not (again and connection.half_open):  # the port is used again (RFC 9293 section 3.6.1)
                self._forget(connection)
                connection = None
        if connection is None:
            connection = self._open(segment.source, segment.source_port, segment.destination, segment.destination_port,
                                    State.SYN_SENT, now, actions)  # fmt: skip
            if connection is None:
                return Verdict.RELEASE
        answer = handshake.syn_from_host(connection, segment, actions)
        self._index(connection, connection.subflows[0])
        return answer

    def _half_open_from_host(self, connection: Connection, segment: Segment, actions: list[Action]) -> Answer:
        if segment.flags & RST:
            closing.time_out(connection, "refused by this host", actions)
            self._forget(connection)
        return Verdict.PASS

    def _stray_from_host(self, segment: Segment, actions: list[Action]) -> Answer:
        """A segment of a connection that the proxy translated before it was restarted: neither side can go on."""
        if segment.key in self._released:  # it waited in the queue meanwhile
            return Verdict.RELEASE
        self.counters["stray"] += 1
        if not segment.flags & RST:
            actions.append(Deliver(packets.stray_reset(segment)))
        return Verdict.DROP

    # -- what is not plain traffic: the network -----------------------------------------------------------------------

    def _unknown_from_network(self, segment: Segment, now: float, actions: list[Action]) -> Answer:
        if not segment.flags & SYN:
            if (segment.destination, segment.destination_port, segment.source, segment.source_port) in self._released:
                return Verdict.RELEASE
            self.counters["stray"] += 1
            if not segment.flags & RST:
                actions.append(Send(packets.stray_reset(segment)))
            return Verdict.DROP
        if segment.flags & ACK:
            return Verdict.PASS
        join = next((o for o in signalling.decoded(segment) if isinstance(o, JoinSyn)), None)
        if join is not None:
            return self._join_from_network(segment, join, now, actions)
        capable = handshake.capable_of(segment)
        if capable is None or segment.payload_length:
            return Verdict.RELEASE
        stale = self._by_host.get((segment.destination, segment.destination_port, segment.source, segment.source_port))
        if stale is not None:
            self._forget(stale)
        connection = self._open(segment.destination, segment.destination_port, segment.source, segment.source_port,
                                State.SYN_RECEIVED, now, actions)  # fmt: skip
        if connection is None:
            return Verdict.RELEASE
        answer = handshake.syn_from_network(connection, segment, capable, now)
        self._index(connection, connection.subflows[0])
        return answer

    def _too_big_from_network(self, packet: bytes, actions: list[Action]) -> Answer:
        """ICMP about a segment of a subflow, or something that is none of the proxy's business."""
        report = icmp.parse_too_big(packet)
        if report is None:
            return Verdict.PASS
        found = self._by_subflow.get((report.destination, report.destination_port, report.source, report.source_port))
        return Verdict.DROP if found and path_mtu.take_report(*found, report, actions) else Verdict.PASS

    def _join_from_network(self, segment: Segment, join: JoinSyn, now: float, actions: list[Action]) -> Answer:
        connection = self._by_token.get(join.token)
        if connection is None or connection.state is State.CLOSED:
            if self.config.native:
                return Verdict.PASS
            self.counters["bad-tokens"] += 1
            actions.append(Send(packets.stray_reset(segment, TcpRst(ResetReason.MPTCP_ERROR))))
            actions.append(Log("discard", {"why": "MP_JOIN with an unknown token", "remote": packets.text(segment.source)}))
            return Verdict.DROP
        subflow = joins.accept(connection, segment, join, now, self._random, actions)
        if subflow is not None:
            self._index(connection, subflow)
            self._schedule(connection)
        return Verdict.DROP

    def _handshake_from_network(
        self,
        connection: Connection,
        subflow: Subflow,
        segment: Segment,
        now: float,
        actions: list[Action],
        offload: Offload,
    ) -> Answer:
        if segment.flags & SYN:
            return self._syn_from_network(connection, subflow, segment, now, actions)
        if subflow.state is SubflowState.JOIN_SENT:
            if segment.flags & RST and segment.ack == (subflow.iss + 1) & 0xFFFFFFFF:
                closing.break_subflow(connection, subflow, "refused", now, actions, reason=None)
            return Verdict.DROP
        if subflow.state is SubflowState.JOIN_RECEIVED:
            if not joins.third_ack(connection, subflow, segment, now, actions):
                return Verdict.DROP
            self._apply_policy(connection, now, actions)
            return segment_from_network(connection, subflow, segment, now, actions, offload)
        if connection.state is State.SYN_SENT:
            if segment.flags & RST and segment.ack == (connection.iss + 1) & 0xFFFFFFFF:
                closing.time_out(connection, "refused by the peer", actions)
            return Verdict.PASS
        answer = handshake.third_ack_from_network(connection, segment, now, actions)
        if answer is Verdict.RELEASE:
            return self._release(connection)
        if answer is None:
            self._half_open.pop(connection.number, None)
            self._announce(connection, now, actions)
            return segment_from_network(connection, subflow, segment, now, actions, offload)
        if segment.flags & RST and segment.seq == (connection.irs + 1) & 0xFFFFFFFF:
            closing.time_out(connection, "refused by the peer", actions)
        return answer

    def _syn_from_network(
        self, connection: Connection, subflow: Subflow, segment: Segment, now: float, actions: list[Action]
    ) -> Answer:
        initial = subflow.number == 0
        if segment.flags & ACK:
            if not initial:
                return joins.syn_ack(connection, subflow, segment, now, actions)
            if not connection.opened_here or segment.ack != (connection.iss + 1) & 0xFFFFFFFF:
                return Verdict.DROP
            answer = handshake.syn_ack_from_network(connection, segment, now, actions)
            if answer is Verdict.RELEASE:
                return self._release(connection)
            if not connection.half_open:
                self._half_open.pop(connection.number, None)
                self._schedule(connection)
            return answer
        if segment.seq == subflow.irs:  # once more: the answer was lost
            if initial and connection.state is State.SYN_RECEIVED:
                capable = handshake.capable_of(segment)
                return Verdict.PASS if capable is None else handshake.syn_from_network(connection, segment, capable, now)
            if subflow.state is SubflowState.JOIN_RECEIVED:
                joins.answer_syn(connection, subflow, now, actions)
            return Verdict.DROP
        if connection.state is State.TIME_WAIT or not subflow.alive or (initial and connection.half_open):
            if initial:  # the port is used again (RFC 9293 section 3.6.1)
                self._forget(connection)
            else:
                del self._by_subflow[subflow.key], self._usual_from_network[packed_ends(subflow.key)]
            return self._unknown_from_network(segment, now, actions)
        actions.append(Send(packets.pure_ack(connection, subflow, subflow.sack_sent)))  # RFC 5961 section 4.2
        return Verdict.DROP

    def _dead_subflow(self, connection: Connection, subflow: Subflow, segment: Segment, actions: list[Action]) -> Answer:
        if subflow.fin_at is not None and subflow.peer_fin_at is not None:  # in TIME-WAIT, as a TCP would be
            if segment.flags & FIN:
                actions.append(Send(packets.pure_ack(connection, subflow, [])))
        elif not segment.flags & RST:
            actions.append(Send(packets.stray_reset(segment, TcpRst(ResetReason.UNSPECIFIED))))
        return Verdict.DROP

    # -- the connections ----------------------------------------------------------------------------------------------

    def _open(
        self, local: bytes, local_port: int, remote: bytes, remote_port: int, state: State, now: float,
        actions: list[Action],
    ) -> Connection | None:  # fmt: skip
        """A new connection; None when there are too many."""
        while len(self._half_open) >= self.config.half_open_max:
            waiting = self._half_open.values()  # a flood from outside shall not keep this host from opening connections
            oldest = next((each for each in waiting if not each.opened_here), None) or next(iter(waiting))
            self.counters["evicted"] += 1
            closing.time_out(oldest, "too many half-open connections", actions)
            self._forget(oldest)
        if len(self._by_host) >= self.config.connections_max:
            self.counters["refused"] += 1
            return None
        for _ in range(_TRIES_FOR_A_KEY):
            key = self._random(8)
            token = mptcp.token(key)
            if token not in self._by_token:  # RFC 8684 section 3.1: a token is unique on its host
                break
        else:
            return None
        connection = Connection(self._next_number, self.config, local, local_port, remote, remote_port,
                                state is State.SYN_SENT, state, now, key, local_token=token,
                                idsn_local=mptcp.initial_dsn(key))  # fmt: skip
        self._next_number += 1
        self.counters["connections"] += 1
        self._by_host[connection.key] = connection
        self._released.pop(connection.key, None)
        self._usual_from_host[packed_ends(connection.key)] = connection
        self._by_token[token] = connection
        self._numbered[connection.number] = connection
        self._half_open[connection.number] = connection
        self._schedule(connection)
        return connection

    def _index(self, connection: Connection, subflow: Subflow) -> None:
        keys = self._keys.setdefault(connection.number, [])
        if subflow.key not in keys:
            keys.append(subflow.key)
            ended = [key for key in keys if not self._by_subflow.get(key, (connection, subflow))[1].alive]
            for key in ended[:-_ENDED_MAX]:
                self._drop(connection, key)
                keys.remove(key)
        self._by_subflow[subflow.key] = (connection, subflow)
        self._usual_from_network[packed_ends(subflow.key)] = (connection, subflow)

    def _drop(self, connection: Connection, key: Key) -> None:
        found = self._by_subflow.get(key)
        if found is not None and found[0] is connection:
            del self._by_subflow[key], self._usual_from_network[packed_ends(key)]

    def _forget(self, connection: Connection) -> None:
        if self._by_host.get(connection.key) is connection:
            del self._by_host[connection.key]
            del self._usual_from_host[packed_ends(connection.key)]
        for key in self._keys.pop(connection.number, []):
            self._drop(connection, key)
        self._by_token.pop(connection.local_token, None)
        self._half_open.pop(connection.number, None)
        self._numbered.pop(connection.number, None)

    def _release(self, connection: Connection) -> Answer:
        self._forget(connection)
        self._released[connection.key] = None
        if len(self._released) > _RELEASED_MAX:
            self._released.popitem(last=False)
        return Verdict.RELEASE

    # -- time ---------------------------------------------------------------------------------------------------------

    def _schedule(self, connection: Connection) -> None:
        connection.timers_changed = False
        deadline = connection.next_deadline()
        if deadline is not None:
            heapq.heappush(self._timers, (deadline, connection.number))
        if len(self._timers) > _TIMERS_MIN + _TIMERS_EACH * len(self._numbered):  # most of them are out of date
            known = [(each.next_deadline(), each.number) for each in self._numbered.values()]
            self._timers = [(when, number) for when, number in known if when is not None]
            heapq.heapify(self._timers)

    def next_deadline(self) -> float | None:
        """When `handle_timer` wants to be called, at the latest."""
        return self._timers[0][0] if self._timers else None

    def handle_timer(self, now: float, actions: list[Action]) -> None:
        """Do what is due."""
        due: set[int] = set()
        while self._timers and self._timers[0][0] <= now:
            due.add(heapq.heappop(self._timers)[1])
        for number in sorted(due):
            connection = self._numbered.get(number)
            if connection is None:
                continue
            self._time_passed(connection, now, actions)
            if connection.state is State.CLOSED:
                self._forget(connection)
            else:
                self._schedule(connection)

    def _time_passed(self, connection: Connection, now: float, actions: list[Action]) -> None:
        config = self.config
        if connection.half_open and now >= connection.since_s + config.half_open_s:
            closing.time_out(connection, "half open", actions)
        elif connection.state is State.TIME_WAIT and now >= connection.active_s + config.time_wait_s:
            closing.time_out(connection, "time wait", actions)
        elif connection.broken_s is not None and now >= connection.broken_s + config.break_limit_s:
            closing.reset_by_peer(connection, "no subflow", actions)
        elif not connection.half_open and now >= connection.active_s + config.idle_s:
            closing.abort(connection, "idle", actions)
        for subflow in list(connection.subflows):
            if subflow.deadline is not None and subflow.deadline <= now:
                self._subflow_time_passed(connection, subflow, now, actions)
        if connection.rejoin is not None and connection.rejoin[2] <= now:
            self._rejoin(connection, now, actions)
        signalling.repeat_announcements(connection, now, actions)

    def _rejoin(self, connection: Connection, now: float, actions: list[Action]) -> None:
        assert connection.rejoin is not None
        address, withdraws, _when = connection.rejoin
        connection.rejoin = None
        try:
            subflow = commands.hand_over_to_address(connection, address, now, self._random, actions, break_first=True,
                                                    taken=self._by_subflow)  # fmt: skip
        except CommandRefused as error:
            actions.append(Log("not-joined", {"why": str(error)}))
            return
        subflow.withdraws = withdraws
        self._index(connection, subflow)

    def _subflow_time_passed(self, connection: Connection, subflow: Subflow, now: float, actions: list[Action]) -> None:
        if subflow.state in _HANDSHAKE or subflow.state is SubflowState.JOIN_CONFIRMING:
            joins.time_passed(connection, subflow, now, actions)
            self._apply_policy(connection, now, actions)
        elif subflow.fin_at is not None and subflow.tries < self.config.signal_tries:
            actions += [Send(packet) for _subflow, packet in closing.subflow_fin(connection, subflow, now)]
        else:
            subflow.deadline = None
            if subflow.fin_at is not None and connection.data_level:
                closing.ended(connection, subflow, now)

    def shut_down(self, actions: list[Action]) -> None:
        """End every connection on both sides: untranslated segments would mean nothing to the other one."""
        for connection in list(self._numbered.values()):
            if connection.half_open:
                closing.time_out(connection, "the proxy ends", actions)
            else:
                closing.abort(connection, "the proxy ends", actions)
            self._forget(connection)

    # -- addresses and policies ---------------------------------------------------------------------------------------

    def addresses_changed(self, addresses: Sequence[LocalAddress], now: float, actions: list[Action]) -> None:
        """All addresses of this host that may be used."""
        self._addresses = tuple(addresses)
        for connection in list(self._numbered.values()):
            self._apply_policy(connection, now, actions)
            if connection.timers_changed:
                self._schedule(connection)

    def _apply_policy(self, connection: Connection, now: float, actions: list[Action]) -> None:
        if not joins.is_open(connection) or not connection.confirmed:
            return
        wanted = policy.wishes(connection, self.config.policy, self._addresses)
        with_others = any(s.carries and s not in wanted.lost for s in connection.subflows)
        for subflow in wanted.lost if with_others else ():
            closing.break_subflow(connection, subflow, "address lost", now, actions, reason=None)
            signalling.withdraw(connection, connection.active, subflow.local_id, actions)
        for address in wanted.join:
            if commands.remote_for(connection, address, None) is None:
                continue  # the peer has no address of this IP version
            try:
                if with_others or not wanted.lost:
                    added = commands.add_subflow(connection, address, now, self._random, actions, taken=self._by_subflow,
                                                 backup=self.config.join_backup)  # fmt: skip
                else:
                    added = commands.hand_over_to_address(connection, address, now, self._random, actions, break_first=True,
                                                          taken=self._by_subflow)  # fmt: skip
            except CommandRefused as error:
                actions.append(Log("not-joined", {"why": str(error)}))
                continue
            with_others = True
            self._index(connection, added)
        if wanted.active is not None and wanted.active.alive:
            commands.hand_over(connection, wanted.active, now, actions, break_first=False)

    def _announce(self, connection: Connection, now: float, actions: list[Action]) -> None:
        """A server offers its further addresses instead of joining."""
        if not self.config.announce:
            return
        for address in self._addresses:
            if address.usable and address.address != connection.local:
                signalling.announce(connection, address.address, now, actions)

    # -- commands -----------------------------------------------------------------------------------------------------

    def _each(self, number: int | None, name: str, do: Callable[[Connection], Subflow]) -> dict[str, Any]:
        """Do it with one connection, or with all that are open and do not refuse. Raises CommandRefused if none is left."""
        if number is not None and number not in self._numbered:
            raise CommandRefused(f"no connection {number}: `connections` lists them")
        chosen = [c for c in self._numbered.values() if c.number == number or (number is None and joins.is_open(c))]
        if not chosen:
            raise CommandRefused("no connection that could be moved: `connections` lists them all")
        done, refused = [], []
        for connection in chosen:
            try:
                subflow = do(connection)
            except CommandRefused as error:
                refused.append(str(error))
                continue
            if subflow.alive:
                self._index(connection, subflow)
            self._schedule(connection)
            done.append({"connection": connection.number, "subflow": subflow.number})
        if not done:
            raise CommandRefused(refused[0])
        return {name: done, "refused": refused} if refused else {name: done}

    def add_subflow(
        self,
        address: bytes,
        now: float,
        actions: list[Action],
        *,
        connection: int | None = None,
        backup: bool = False,
        remote: bytes | None = None,
    ) -> dict[str, Any]:
        """Open a subflow from an address of this host on one connection, or on all. Raises CommandRefused."""
        return self._each(connection, "added", lambda each: commands.add_subflow(
            each, address, now, self._random, actions, taken=self._by_subflow, backup=backup, remote=remote))  # fmt: skip

    def delete_subflow(
        self, subflow: int, now: float, actions: list[Action], *, connection: int | None = None
    ) -> dict[str, Any]:
        """Close a subflow. Raises CommandRefused."""

        def delete(each: Connection) -> Subflow:
            found = commands.find(each, subflow)
            commands.delete_subflow(each, found, now, actions)
            return found

        return self._each(connection, "deleted", delete)

    def handover(
        self,
        to: int | None,
        now: float,
        actions: list[Action],
        *,
        address: bytes | None = None,
        connection: int | None = None,
        break_first: bool = False,
    ) -> dict[str, Any]:
        """Move the data to a subflow, or to an address of this host. Raises CommandRefused."""

        def move(each: Connection) -> Subflow:
            if to is not None:
                subflow = commands.find(each, to)
                commands.hand_over(each, subflow, now, actions, break_first=break_first)
                return subflow
            if address is None:
                raise CommandRefused("handover needs a subflow or an address")
            return commands.hand_over_to_address(each, address, now, self._random, actions, break_first=break_first,
                                                 taken=self._by_subflow)  # fmt: skip

        return self._each(connection, "moved", move)

    def priority(
        self, subflow: int, backup: bool, now: float, actions: list[Action], *, connection: int | None = None
    ) -> dict[str, Any]:
        """Make a subflow a backup, or a regular one. Raises CommandRefused."""

        def prioritise(each: Connection) -> Subflow:
            found = commands.find(each, subflow)
            commands.prioritise(each, found, backup=backup, actions=actions)
            return found

        return self._each(connection, "changed", prioritise)

    # -- what there is ------------------------------------------------------------------------------------------------

    def knows(self, packet: bytes) -> bool:
        """Does the packet belong to a connection, in either direction?"""
        try:
            key = parse(packet).key
        except WireError:
            return False
        return key in self._by_host or key in self._by_subflow

    def application_addresses(self) -> set[bytes]:
        """Addresses of this host that its TCP uses in connections: they must stay until the connections end."""
        return {connection.local for connection in self._numbered.values()}

    def address_pairs(self) -> set[tuple[bytes, bytes]]:
        """Local and remote addresses of all connections, as this host's TCP knows them."""
        return {(connection.local, connection.remote) for connection in self._numbered.values()}

    def status(self) -> dict[str, Any]:
        """Counters and sizes."""
        return {"connections": len(self._numbered), "half_open": len(self._half_open), "subflows": len(self._by_subflow),
                "policy": self.config.policy, "counters": dict(self.counters)}  # fmt: skip

    def connections(self) -> list[dict[str, Any]]:
        """Every connection with its subflows."""
        return [_describe(connection) for connection in self._numbered.values()]


_HANDSHAKE = frozenset({SubflowState.JOIN_SENT, SubflowState.JOIN_RECEIVED})


def _describe(connection: Connection) -> dict[str, Any]:
    return {
        "connection": connection.number,
        "state": "fallback" if connection.fallback else connection.state.value,
        "local": f"{packets.text(connection.local)} {connection.local_port}",
        "remote": f"{packets.text(connection.remote)} {connection.remote_port}",
        "opened_here": connection.opened_here,
        "token": connection.local_token.hex(),
        "sent": connection.send_max - 1,
        "received": connection.receive_max - 1,
        "send_entries": len(connection.send),
        "subflows": [_describe_subflow(connection, subflow) for subflow in connection.subflows],
    }


def _describe_subflow(connection: Connection, subflow: Subflow) -> dict[str, Any]:
    return {
        "subflow": subflow.number,
        "state": subflow.state.value,
        "active": connection.active is subflow,
        "local": f"{packets.text(subflow.local)} {subflow.local_port}",
        "remote": f"{packets.text(subflow.remote)} {subflow.remote_port}",
        "local_id": subflow.local_id,
        "remote_id": subflow.remote_id,
        "backup_asked": subflow.backup_asked,
        "backup_wanted": subflow.backup_wanted,
        "sent": subflow.send_next - 1,
        "acked": subflow.send_acked - 1,
        "received": subflow.ack_sent - 1,
        "entries": len(subflow.received),
        "round_trip_s": subflow.round_trip_s,
    }
