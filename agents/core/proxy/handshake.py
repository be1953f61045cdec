"""The first subflow: MP_CAPABLE is added to or taken from TCP's own handshake (RFC 8684 section 3.1, paper figure 4b)."""

from agents.core.proxy import packets
from agents.core.proxy.actions import Action, Answer, Log, Verdict
from agents.core.proxy.connection import Connection, SynOptions
from agents.core.proxy.signalling import decoded
from agents.core.proxy.states import Input
from agents.core.proxy.subflow import Subflow
from agents.wire import mptcp, tcp
from agents.wire.mptcp import Capable
from agents.wire.tcp import OPTIONS_MAX, Segment

_ECN = 0xC0
"""ECE and CWR: a joined subflow would have to negotiate ECN for itself, so none does."""
_MSS_MIN = 536


def capable_of(segment: Segment) -> Capable | None:
    """The MP_CAPABLE of a segment, if it can be followed: version 1, HMAC-SHA256, no unknown extension."""
    for option in decoded(segment):
        if isinstance(option, Capable):
            usable = option.version == mptcp.VERSION and option.flags & mptcp.FLAG_HMAC_SHA256
            return option if usable and not option.flags & mptcp.FLAG_EXTENSIBILITY else None
    return None


def take_offer(connection: Connection, segment: Segment) -> None:
    """What the SYN or SYN/ACK of this host's TCP says."""
    connection.iss = segment.seq
    connection.offered = SynOptions(segment.mss, segment.window_scale, segment.sack_permitted, segment.timestamp is not None)
    connection.ack_window = segment.window >> (segment.window_scale or 0)  # the window of a SYN is not scaled (RFC 7323)
    if segment.timestamp is not None:
        connection.timestamp = segment.timestamp


def _initial_subflow(connection: Connection) -> Subflow:
    if connection.subflows:
        return connection.subflows[0]
    subflow = Subflow(connection.next_number, connection.local, connection.local_port, connection.remote,
                      connection.remote_port, connection.iss, initiated=connection.opened_here)  # fmt: skip
    connection.next_number += 1
    connection.local_ids[connection.local] = 0
    connection.remote_ids[0] = (connection.remote, None)
    connection.subflows.append(subflow)
    connection.active = subflow
    return subflow


def _with_option(segment: Segment, option: bytes) -> bytes | None:
    """A SYN or SYN/ACK of this host with MP_CAPABLE; None when there is no room."""
    options = tcp.syn_options(segment, segment.mss)
    if len(options) + len(option) > OPTIONS_MAX:
        return None
    return tcp.build(segment.source, segment.source_port, segment.destination, segment.destination_port, segment.seq,
                     segment.ack, segment.flags & ~_ECN, segment.window, options + option, segment.payload,
                     traffic_class=segment.traffic_class, hop_limit=segment.hop_limit,
                     fragment_word=segment.fragment_word or 0x4000)  # fmt: skip


def _without_option(connection: Connection, segment: Segment) -> bytes:
    """The peer's SYN or SYN/ACK for this host's TCP: no MPTCP, and an MSS that leaves room for our options."""
    mss = max((segment.mss or _MSS_MIN) - packets.option_space(connection), _MSS_MIN // 2)
    connection.host_mtu = mss + tcp.IP_HEADER[segment.version] + tcp.TCP_HEADER
    return tcp.build(segment.source, segment.source_port, segment.destination, segment.destination_port, segment.seq,
                     segment.ack, segment.flags & ~_ECN, segment.window, tcp.syn_options(segment, mss), segment.payload,
                     traffic_class=segment.traffic_class, hop_limit=segment.hop_limit,
                     fragment_word=segment.fragment_word or 0x4000)  # fmt: skip


# -- this host opens --------------------------------------------------------------------------------------------------


def syn_from_host(connection: Connection, segment: Segment, actions: list[Action]) -> Answer:
    """Ask for MPTCP, but not in every SYN: the last ones find out whether the option is why no answer comes."""
    take_offer(connection, segment)
    _initial_subflow(connection).iss = segment.seq
    connection.syn_count += 1
    if connection.syn_count > connection.config.syn_tries:
        return Verdict.PASS
    flags = mptcp.FLAG_HMAC_SHA256 | (mptcp.FLAG_CHECKSUM if connection.config.checksum else 0)
    packet = _with_option(segment, mptcp.encode(Capable(flags)))
    return packet if packet is not None else Verdict.PASS


def syn_ack_from_network(connection: Connection, segment: Segment, now: float, actions: list[Action]) -> Answer:
    """The peer's answer: MPTCP, or TCP from here on."""
    if not connection.half_open:  # once more: our ACK was lost, and this host's TCP repeats it
        return _without_option(connection, segment)
    capable = capable_of(segment)
    if capable is None or len(capable.sender_key) != 8 or capable.receiver_key or connection.syn_count == 0:
        actions.append(Log("fallback", {"connection": connection.number, "why": "SYN/ACK without MP_CAPABLE"}))
        connection.fallback = True
        return Verdict.RELEASE
    subflow = connection.subflows[0]
    connection.change(Input.CAPABLE_ANSWERED)
    connection.set_remote_key(capable.sender_key)
    _agree(connection, subflow, segment, capable.flags, now)
    actions.append(_established(connection, now))
    return _without_option(connection, segment)


# -- the peer opens ---------------------------------------------------------------------------------------------------


def syn_from_network(connection: Connection, segment: Segment, capable: Capable, now: float) -> Answer:
    """A SYN that asks for MPTCP goes to this host's TCP without the question."""
    connection.irs = segment.seq
    connection.checksum = bool(capable.flags & mptcp.FLAG_CHECKSUM) or connection.config.checksum
    connection.joinable = not capable.flags & mptcp.FLAG_NO_JOIN_HERE
    subflow = _initial_subflow(connection)
    _agree(connection, subflow, segment, capable.flags, now)
    return _without_option(connection, segment)


def syn_ack_from_host(connection: Connection, segment: Segment, actions: list[Action]) -> Answer:
    """This host's TCP accepts; so do we."""
    take_offer(connection, segment)
    connection.subflows[0].iss = segment.seq
    connection.sack = connection.sack and segment.sack_permitted
    connection.timestamps = connection.timestamps and segment.timestamp is not None
    if segment.window_scale is None:
        connection.remote_scale = connection.subflows[0].window_scale = 0
    capable = Capable(packets.capable_flags(connection), mptcp.VERSION, connection.local_key)
    packet = _with_option(segment, mptcp.encode(capable))
    if packet is None:
        connection.fallback = True
        return Verdict.RELEASE
    return packet


def third_ack_from_network(connection: Connection, segment: Segment, now: float, actions: list[Action]) -> Answer | None:
    """MP_CAPABLE with both keys opens the connection: None, the segment then goes the usual way."""
    if segment.flags & tcp.RST:
        return Verdict.PASS
    if segment.ack != (connection.iss + 1) & 0xFFFFFFFF:
        return Verdict.DROP
    capable = capable_of(segment)
    if capable is None:
        if segment.dss is not None or segment.seq != (connection.irs + 1) & 0xFFFFFFFF:
            return Verdict.DROP  # overtook the third ACK
        actions.append(Log("fallback", {"connection": connection.number, "why": "third ACK without MP_CAPABLE"}))
        connection.fallback = True
        return Verdict.RELEASE
    if capable.receiver_key != connection.local_key or len(capable.sender_key) != 8:
        return Verdict.DROP
    connection.set_remote_key(capable.sender_key)
    connection.change(Input.CAPABLE_ANSWERED)
    connection.confirmed = connection.host_waits = True
    actions.append(_established(connection, now))
    return None


def _agree(connection: Connection, subflow: Subflow, segment: Segment, flags: int, now: float) -> None:
    """What the peer's SYN or SYN/ACK settles."""
    connection.irs = subflow.irs = segment.seq
    connection.remote_scale = subflow.window_scale = segment.window_scale or 0
    subflow.mss = segment.mss or _MSS_MIN
    opened_here = connection.opened_here
    connection.sack = segment.sack_permitted and (connection.offered.sack or not opened_here)
    connection.timestamps = segment.timestamp is not None and (connection.offered.timestamps or not opened_here)
    if opened_here:
        connection.checksum = bool(flags & mptcp.FLAG_CHECKSUM) or connection.config.checksum
        connection.joinable = not flags & mptcp.FLAG_NO_JOIN_HERE
        if connection.offered.window_scale is None:
            connection.remote_scale = subflow.window_scale = 0
    if segment.timestamp is not None:
        subflow.echo = segment.timestamp
        connection.timestamp_base = (segment.timestamp, now)
        connection.timestamp_given = segment.timestamp
    connection.window_edge = 1 + segment.window
    connection.window = segment.window
    subflow.heard_s = now


def _established(connection: Connection, now: float) -> Log:
    connection.active_s = now
    return Log("established", {"connection": connection.number, "opened_here": connection.opened_here,
                               "token": connection.local_token.hex(), "remote_token": connection.remote_token.hex(),
                               "checksum": connection.checksum, "sack": connection.sack})  # fmt: skip
