"""The options that are no DSS on open subflows: addresses, priorities, failures, fallback (RFC 8684 sections 3.4 to 3.7)."""

from agents.core.proxy import closing, packets
from agents.core.proxy.actions import Action, Log, Send
from agents.core.proxy.connection import Connection
from agents.core.proxy.subflow import Subflow
from agents.wire import mptcp
from agents.wire.errors import WireError
from agents.wire.mptcp import ResetReason
from agents.wire.tcp import Segment

_ANNOUNCE_RTO_S = 0.5
_REMOTE_ADDRESSES_MAX = 16
_INFINITE = 1 << 62


def decoded(segment: Segment) -> list[mptcp.Option]:
    """The readable MPTCP options besides the DSS."""
    found = []
    for option in segment.mptcp:
        try:
            found.append(mptcp.decode(option))
        except WireError:
            continue
    return found


def handle_options(connection: Connection, subflow: Subflow, segment: Segment, now: float, actions: list[Action]) -> bool:
    """Do what the options say; False when the segment must not go on."""
    for option in decoded(segment):
        match option:
            case mptcp.AddAddr():
                _add_addr(connection, subflow, option, actions)
            case mptcp.RemoveAddr():
                _remove_addr(connection, option, now, actions)
            case mptcp.Prio():
                _prio(connection, subflow, option, actions)
            case mptcp.Fail():
                _fail(connection, subflow, option, now, actions)
            case mptcp.Fastclose() if option.receiver_key == connection.local_key:
                for each in connection.subflows:  # RFC 8684 section 3.5: the answer is an RST on all subflows
                    actions.append(Send(packets.reset(connection, each)))
                closing.reset_by_peer(connection, "fastclose", actions)
                return False
            case mptcp.JoinAck():
                actions.append(Send(packets.pure_ack(connection, subflow, subflow.sack_sent)))  # the fourth ACK
            case _:
                continue
    return True


# -- addresses --------------------------------------------------------------------------------------------------------


def _add_addr(connection: Connection, subflow: Subflow, option: mptcp.AddAddr, actions: list[Action]) -> None:
    what = {"connection": connection.number, "address_id": option.address_id}
    if option.echo:
        connection.announcements.pop(option.address_id, None)
        connection.timers_changed = True  # it is the next one's turn
        return
    if option.mac != mptcp.add_addr_mac(connection.remote_key, connection.local_key, option):
        actions.append(Log("discard", {**what, "subflow": subflow.number, "why": "ADD_ADDR with a wrong HMAC"}))
        return
    if len(connection.remote_ids) < _REMOTE_ADDRESSES_MAX or option.address_id in connection.remote_ids:
        connection.remote_ids[option.address_id] = (option.address, option.port)
    echo = mptcp.AddAddr(option.address_id, option.address, option.port, b"", True)
    actions.append(Send(packets.pure_ack(connection, subflow, [], mptcp.encode(echo))))
    actions.append(Log("add-addr", {**what, "address": packets.text(option.address), "port": option.port}))


def _remove_addr(connection: Connection, option: mptcp.RemoveAddr, now: float, actions: list[Action]) -> None:
    for address_id in option.address_ids:
        connection.remote_ids.pop(address_id, None)
        for subflow in [s for s in connection.subflows if s.remote_id == address_id]:
            if len(connection.subflows) == 1:
                actions.append(Log("discard", {"connection": connection.number, "subflow": subflow.number,
                                               "why": "REMOVE_ADDR of the last subflow"}))  # fmt: skip
                continue
            closing.break_subflow(connection, subflow, "address removed", now, actions, reason=None)


def announce(connection: Connection, address: bytes, now: float, actions: list[Action]) -> None:
    """Offer an address of this host; repeated until it is echoed."""
    address_id = connection.local_id(address)
    bare = mptcp.AddAddr(address_id, address)
    mac = mptcp.add_addr_mac(connection.local_key, connection.remote_key, bare)
    option = mptcp.encode(mptcp.AddAddr(address_id, address, None, mac))
    connection.timers_changed = True
    connection.announcements[address_id] = (option, 0, now)
    repeat_announcements(connection, now, actions)


def repeat_announcements(connection: Connection, now: float, actions: list[Action]) -> None:
    """Send the first ADD_ADDR if its time has come; give up after some tries. One at a time: Linux drops a second one."""
    subflow = connection.active
    for address_id, (option, tries, deadline) in list(connection.announcements.items()):
        if deadline > now or subflow is None:
            break
        if tries >= connection.config.signal_tries:
            del connection.announcements[address_id]
            continue
        actions.append(Send(packets.pure_ack(connection, subflow, [], option)))
        connection.announcements[address_id] = (option, tries + 1, now + _ANNOUNCE_RTO_S * 2**tries)
        break


def withdraw(connection: Connection, subflow: Subflow | None, address_id: int, actions: list[Action]) -> None:
    """REMOVE_ADDR of an address of this host, on a subflow that works."""
    connection.announcements.pop(address_id, None)
    _signal(connection, subflow, mptcp.RemoveAddr((address_id,)), actions)


# -- priorities -------------------------------------------------------------------------------------------------------


def _prio(connection: Connection, subflow: Subflow, option: mptcp.Prio, actions: list[Action]) -> None:
    """The peer wants its data on another subflow or on this one again: new data of this host follows."""
    subflow.backup_wanted = option.backup
    actions.append(Log("prio", {"connection": connection.number, "subflow": subflow.number, "backup": option.backup}))
    active = connection.active
    if option.backup and active is subflow:
        connection.active = connection.usable() or subflow
    elif not option.backup and active is not None and active.backup_wanted and subflow.carries:
        connection.active = subflow


def prioritise(connection: Connection, subflow: Subflow, *, backup: bool, actions: list[Action]) -> None:
    """Ask the peer to use a subflow as a backup only, or as a regular one (MP_PRIO)."""
    subflow.backup_asked = backup
    _signal(connection, subflow, mptcp.Prio(backup), actions)


def _signal(connection: Connection, subflow: Subflow | None, option: mptcp.Option, actions: list[Action]) -> None:
    """An ACK with data ACK and one more option, as Linux sends it."""
    if subflow is None or not subflow.carries or connection.fallback:
        return
    extra = packets.data_ack(connection) + mptcp.encode(option)
    actions.append(Send(packets.pure_ack(connection, subflow, [], extra)))


# -- fallback ---------------------------------------------------------------------------------------------------------


def fall_back(connection: Connection, subflow: Subflow, s: int, t: int, why: str, actions: list[Action]) -> None:
    """Go on as TCP on this subflow: from `s` on, its sequence space is that of the data."""
    connection.fallback = True
    connection.confirmed = True
    low = max(s, subflow.ack_sent)
    subflow.received.replace(low, _INFINITE, t - s, None)
    actions.append(Log("fallback", {"connection": connection.number, "subflow": subflow.number, "why": why}))


def options_are_gone(connection: Connection, subflow: Subflow, s: int, now: float, actions: list[Action]) -> bool:
    """Something removes our options: the only subflow goes on as TCP, one of several is reset (section 3.7)."""
    if len(connection.subflows) > 1:
        closing.break_subflow(connection, subflow, "no MPTCP options", now, actions, reason=ResetReason.MIDDLEBOX)
        return False
    received = subflow.received
    shift = received.shifts[-1] if received.shifts else connection.receive_max - subflow.ack_sent
    # Segments before this one may have come without mapping as well, and will come again.
    low = max(min(s, received.ends[-1] if received.ends else 0), subflow.ack_sent)
    fall_back(connection, subflow, low, low + shift, "no MPTCP options", actions)
    return True


def infinite_mapping(connection: Connection, subflow: Subflow, t: int, s: int, now: float, actions: list[Action]) -> bool:
    """The peer goes on without data level (section 3.7)."""
    if len(connection.subflows) > 1:
        closing.break_subflow(connection, subflow, "infinite mapping", now, actions, reason=ResetReason.MPTCP_ERROR)
        return False
    fall_back(connection, subflow, s, t, "infinite mapping", actions)
    return True


def checksum_failed(connection: Connection, subflow: Subflow, t: int, now: float, actions: list[Action]) -> None:
    """Something changed the payload: MP_FAIL, and the subflow is reset unless it is the only one (section 3.7)."""
    fail = mptcp.Fail((connection.idsn_remote + t) & ((1 << 64) - 1))
    actions.append(Log("checksum-failed", {"connection": connection.number, "subflow": subflow.number, "t": t}))
    if len(connection.subflows) > 1:
        actions.append(Send(packets.reset(connection, subflow, fail, mptcp.TcpRst(ResetReason.MIDDLEBOX))))
        closing.break_subflow(connection, subflow, "checksum", now, actions, reason=None)
        return
    _signal(connection, subflow, fail, actions)
    at = subflow.received.index(subflow.ack_sent)
    shift = subflow.received.shifts[at] if at >= 0 else 0
    fall_back(connection, subflow, subflow.ack_sent, subflow.ack_sent + shift, "checksum", actions)


def _fail(connection: Connection, subflow: Subflow, option: mptcp.Fail, now: float, actions: list[Action]) -> None:
    """The peer saw changed payload: on the only subflow we go on as TCP."""
    actions.append(Log("mp-fail", {"connection": connection.number, "subflow": subflow.number, "dsn": option.dsn}))
    if len(connection.subflows) > 1:
        closing.break_subflow(connection, subflow, "MP_FAIL", now, actions, reason=ResetReason.MIDDLEBOX)
        return
    received = subflow.received
    shift = received.shifts[-1] if received.shifts else connection.receive_max - max(subflow.ack_sent, 1)
    fall_back(connection, subflow, subflow.ack_sent, subflow.ack_sent + shift, "MP_FAIL", actions)
