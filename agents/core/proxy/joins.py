"""Further subflows: opened by this host or by the peer (RFC 8684 section 3.2). The TCP of this host knows nothing of them."""

from collections.abc import Callable, Container

from agents.core.proxy import closing, packets, signalling
from agents.core.proxy.actions import Action, Answer, Log, Send, Verdict
from agents.core.proxy.connection import Connection
from agents.core.proxy.states import State, SubflowInput, SubflowState
from agents.core.proxy.subflow import Subflow
from agents.wire import mptcp, tcp
from agents.wire.mptcp import JoinAck, JoinSyn, JoinSynAck, ResetReason, TcpRst
from agents.wire.tcp import ACK, RST, SYN, Segment

Random = Callable[[int], bytes]
Taken = Container[tuple[bytes, int, bytes, int]]
"""Ends of the subflows that there are (`Subflow.key`)."""
_PORTS = (32_768, 28_232)
"""First ephemeral port and how many (Linux' ip_local_port_range)."""
_OPEN = (
    State.ESTABLISHED, State.FIN_WAIT_1, State.FIN_WAIT_2, State.CLOSE_WAIT, State.CLOSING, State.LAST_ACK,
)  # fmt: skip
_IPV6_MORE = 20
_TRIES_ALONE = 3
"""Before a new join is begun, when nothing else is left: the peer may have forgotten the old one."""


class JoinRefused(ValueError):
    """A subflow cannot be opened; one line says why."""


def is_open(connection: Connection) -> bool:
    """Is it at data level and not at its end?"""
    return not connection.fallback and connection.state in _OPEN


def takes_joins(connection: Connection, address: bytes, port: int | None) -> bool:
    """Does the peer take joins there? Flag C says no for its initial address and port."""
    initial = (connection.remote, connection.remote_port)
    return connection.joinable or (address, port or connection.remote_port) != initial


def why_not(connection: Connection, *, asked: bool = False) -> str | None:
    """Why the connection takes no further subflow now, or None. `asked`: the peer wants it, so it knows our key."""
    if connection.fallback:
        return "it fell back to TCP"
    if connection.state not in _OPEN:
        return f"its state is {connection.state.value}"
    if not connection.confirmed and not asked:  # RFC 8684 section 3.1: the third ACK may have been lost
        return "the peer has not yet shown that it knows our key"
    if len(connection.subflows) >= connection.config.subflows_max:
        return f"it has {len(connection.subflows)} subflows already"
    return None


# -- opened here ------------------------------------------------------------------------------------------------------


def initiate(
    connection: Connection,
    local: bytes,
    remote: tuple[bytes, int | None] | None,
    now: float,
    random: Random,
    actions: list[Action],
    *,
    taken: Taken = (),
    backup: bool = False,
) -> Subflow:
    """Send the MP_JOIN SYN from `local`. Raises JoinRefused."""
    reason = why_not(connection)
    if reason is not None:
        raise JoinRefused(f"connection {connection.number}: no further subflow: {reason}")
    address, port = remote or (connection.remote, None)
    if not takes_joins(connection, address, port):
        raise JoinRefused(f"connection {connection.number}: the peer takes no joins at its initial address (flag C)")
    if len(address) != len(local):
        raise JoinRefused(f"connection {connection.number}: no address of the peer of the same IP version is known")
    if any((s.local, s.remote) == (local, address) for s in connection.subflows):
        raise JoinRefused(f"connection {connection.number}: there is a subflow between these addresses")
    to = (address, port or connection.remote_port)
    subflow = Subflow(
        connection.next_number, local, _free_port(local, to, random, taken), *to, int.from_bytes(random(4), "big"),
        state=SubflowState.JOIN_SENT, local_id=connection.local_id(local), backup_asked=backup, local_nonce=random(4),
    )  # fmt: skip
    connection.next_number += 1
    connection.subflows.append(subflow)
    send_syn(connection, subflow, now, actions)
    actions.append(Log("join", {"connection": connection.number, "subflow": subflow.number,
                                "local": packets.text(local), "remote": packets.text(address), "backup": backup}))  # fmt: skip
    return subflow


def _free_port(local: bytes, to: tuple[bytes, int], random: Random, taken: Taken) -> int:
    """A port of ours from which there is no subflow to the same end, whatever the connection."""
    first = int.from_bytes(random(2), "big")
    ports = (_PORTS[0] + (first + number) % _PORTS[1] for number in range(_PORTS[1]))
    for port in ports:
        if (*to, local, port) not in taken:
            return port
    raise JoinRefused(f"no free port at {packets.text(local)}")


def send_syn(connection: Connection, subflow: Subflow, now: float, actions: list[Action]) -> None:
    """The SYN, the first time or again."""
    _arm(connection, subflow, now)
    option = JoinSyn(subflow.backup_asked, subflow.local_id, connection.remote_token, subflow.local_nonce)
    options = _offer(connection, subflow) + mptcp.encode(option)
    actions.append(Send(_handshake_packet(connection, subflow, SYN, options)))


def _arm(connection: Connection, subflow: Subflow, now: float) -> None:
    subflow.deadline = now + connection.config.join_rto_s * 2.0**subflow.tries
    subflow.tries += 1
    subflow.heard_s = subflow.heard_s or now
    connection.timers_changed = True


def _offer(connection: Connection, subflow: Subflow) -> bytes:
    """The TCP options of this host's first SYN: subflows share its receive window, so also the scale (section 3.3.1)."""
    offered = connection.offered
    mss = offered.mss or 1460
    if len(subflow.local) == 16 and len(connection.local) == 4:
        mss -= _IPV6_MORE
    parts = [bytes((2, 4, mss >> 8, mss & 0xFF))]
    if connection.timestamps:
        stamp = tcp.timestamps_option(connection.timestamp, subflow.echo)
        parts.append((b"\x04\x02" if connection.sack else b"\x01\x01") + stamp[2:])
    elif connection.sack:
        parts.append(b"\x01\x01\x04\x02")
    if offered.window_scale is not None:
        parts.append(bytes((1, 3, 3, offered.window_scale)))
    return b"".join(parts)


def _handshake_packet(connection: Connection, subflow: Subflow, flags: int, options: bytes) -> bytes:
    """A SYN or SYN/ACK; its window is not scaled (RFC 7323 section 2.2)."""
    window = min(connection.ack_window << (connection.offered.window_scale or 0), 0xFFFF)
    ack = subflow.irs + 1 if flags & ACK else 0
    return tcp.build(subflow.local, subflow.local_port, subflow.remote, subflow.remote_port, subflow.iss, ack, flags, window,
                     options)  # fmt: skip


def syn_ack(connection: Connection, subflow: Subflow, segment: Segment, now: float, actions: list[Action]) -> Answer:
    """The peer's answer to our SYN, or the same again because our ACK was lost."""
    if segment.ack != (subflow.iss + 1) & 0xFFFFFFFF:
        return Verdict.DROP
    if subflow.state is not SubflowState.JOIN_SENT:
        if subflow.carries and segment.seq == subflow.irs:
            actions.append(Send(_third_ack(connection, subflow)))
        return Verdict.DROP
    option = next((o for o in signalling.decoded(segment) if isinstance(o, JoinSynAck)), None)
    mac = b"" if option is None else mptcp.join_mac(
        connection.remote_key, connection.local_key, option.nonce, subflow.local_nonce
    )[:8]  # fmt: skip
    subflow.irs = segment.seq
    if option is None or option.mac != mac:
        why = "SYN/ACK without MP_JOIN" if option is None else "SYN/ACK with a wrong HMAC"
        actions.append(Send(packets.reset(connection, subflow, TcpRst(ResetReason.MPTCP_ERROR))))
        closing.break_subflow(connection, subflow, why, now, actions, reason=None)
        return Verdict.DROP
    subflow.remote_nonce, subflow.remote_id, subflow.backup_wanted = option.nonce, option.address_id, option.backup
    _settle(connection, subflow, segment, now)
    subflow.change(SubflowInput.JOIN_ANSWERED)
    subflow.tries = 0
    _arm(connection, subflow, now)
    actions.append(Send(_third_ack(connection, subflow)))
    if subflow.takes_over:  # the peer has our HMAC before this, or takes neither
        signalling.prioritise(connection, subflow, backup=False, actions=actions)
        for address_id in subflow.withdraws:
            signalling.withdraw(connection, subflow, address_id, actions)
    return Verdict.DROP


def _third_ack(connection: Connection, subflow: Subflow) -> bytes:
    mac = mptcp.join_mac(connection.local_key, connection.remote_key, subflow.local_nonce, subflow.remote_nonce)[:20]
    options = packets.timestamps(connection, subflow) + mptcp.encode(JoinAck(mac))
    return packets.to_network(connection, subflow, 1, ACK, options)


def _settle(connection: Connection, subflow: Subflow, segment: Segment, now: float) -> None:
    """What the peer's SYN or SYN/ACK says of a further subflow."""
    subflow.mss = segment.mss or 536
    subflow.window_scale = 0 if connection.offered.window_scale is None else segment.window_scale or 0
    if subflow.initiated and subflow.tries == 1:  # not sent twice: the answer belongs to it (RFC 6298 section 3)
        subflow.round_trip_s = now - subflow.heard_s
    subflow.heard_s = now
    if segment.timestamp is not None:
        subflow.echo = segment.timestamp
        base, when = connection.timestamp_base
        expected = base + int((now - when) * 1000)  # Linux and most others count milliseconds
        subflow.timestamp_shift = (expected - segment.timestamp) & 0xFFFFFFFF


# -- opened by the peer -----------------------------------------------------------------------------------------------


def accept(
    connection: Connection, segment: Segment, option: JoinSyn, now: float, random: Random, actions: list[Action]
) -> Subflow | None:
    """An MP_JOIN SYN with our token: answered with our nonce and HMAC; None when it is refused with an RST."""
    room = len(connection.subflows) < connection.config.subflows_max
    finishing = connection.state is State.TIME_WAIT and room  # the peer may not know yet that we know of its end
    if (why_not(connection, asked=True) is not None and not finishing) or not connection.remote_key:
        actions.append(Send(packets.stray_reset(segment, TcpRst(ResetReason.PROHIBITED))))
        return None
    subflow = Subflow(
        connection.next_number, segment.destination, segment.destination_port, segment.source, segment.source_port,
        int.from_bytes(random(4), "big"), segment.seq, state=SubflowState.JOIN_RECEIVED,
        local_id=connection.local_id(segment.destination), remote_id=option.address_id, initiated=False,
        backup_wanted=option.backup, local_nonce=random(4), remote_nonce=option.nonce,
    )  # fmt: skip
    connection.next_number += 1
    connection.subflows.append(subflow)
    _settle(connection, subflow, segment, now)
    answer_syn(connection, subflow, now, actions)
    return subflow


def answer_syn(connection: Connection, subflow: Subflow, now: float, actions: list[Action]) -> None:
    """Our SYN/ACK, the first time or again."""
    _arm(connection, subflow, now)
    mac = mptcp.join_mac(connection.local_key, connection.remote_key, subflow.local_nonce, subflow.remote_nonce)[:8]
    option = JoinSynAck(subflow.backup_asked, subflow.local_id, mac, subflow.local_nonce)
    options = _offer(connection, subflow) + mptcp.encode(option)
    actions.append(Send(_handshake_packet(connection, subflow, SYN | ACK, options)))


def third_ack(connection: Connection, subflow: Subflow, segment: Segment, now: float, actions: list[Action]) -> bool:
    """The peer's HMAC. True when the subflow is open now and the segment may go the usual way, to be acknowledged."""
    if segment.ack != (subflow.iss + 1) & 0xFFFFFFFF or subflow.unwrap_seq(segment.seq) != 1:
        return False
    if segment.flags & RST:
        closing.break_subflow(connection, subflow, "reset in its handshake", now, actions, reason=None)
        return False
    option = next((o for o in signalling.decoded(segment) if isinstance(o, JoinAck)), None)
    if option is None:
        return False  # overtook the ACK that carries it
    expected = mptcp.join_mac(connection.remote_key, connection.local_key, subflow.remote_nonce, subflow.local_nonce)[:20]
    if option.mac != expected:
        actions.append(Send(packets.reset(connection, subflow, TcpRst(ResetReason.MPTCP_ERROR))))
        closing.break_subflow(connection, subflow, "third ACK with a wrong HMAC", now, actions, reason=None)
        return False
    subflow.change(SubflowInput.JOIN_VERIFIED)
    connection.confirmed = True
    subflow.deadline, subflow.tries = None, 0
    opened(connection, subflow, actions)
    return True


def opened(connection: Connection, subflow: Subflow, actions: list[Action]) -> None:
    """A subflow can carry data now: it does if no better one is there."""
    connection.broken_s = None
    if connection.active is None or subflow.takes_over:
        connection.active = subflow
    closing.resume(connection, actions)
    actions.append(Log("joined", {"connection": connection.number, "subflow": subflow.number,
                                  "local": packets.text(subflow.local), "remote": packets.text(subflow.remote),
                                  "round_trip_s": subflow.round_trip_s}))  # fmt: skip


def time_passed(connection: Connection, subflow: Subflow, now: float, actions: list[Action]) -> None:
    """A handshake packet was not answered: again, or the subflow is given up."""
    alone = not any(s.carries for s in connection.subflows if s is not subflow)
    if subflow.tries >= (_TRIES_ALONE if alone else connection.config.join_tries):
        closing.break_subflow(connection, subflow, "no answer", now, actions, reason=None)
    elif subflow.state is SubflowState.JOIN_SENT:
        send_syn(connection, subflow, now, actions)
    elif subflow.state is SubflowState.JOIN_RECEIVED:
        answer_syn(connection, subflow, now, actions)
    else:
        _arm(connection, subflow, now)
        actions.append(Send(_third_ack(connection, subflow)))
