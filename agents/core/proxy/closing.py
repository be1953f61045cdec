"""How subflows and connections end: FIN, RST, FASTCLOSE, breaks (RFC 8684 sections 3.3.3, 3.5 and 3.6)."""

from agents.core.proxy import packets
from agents.core.proxy.actions import Action, Answer, Deliver, Log, Send, Verdict
from agents.core.proxy.connection import Connection
from agents.core.proxy.states import Input, State, SubflowInput, SubflowState
from agents.core.proxy.subflow import Subflow
from agents.wire import mptcp
from agents.wire.mptcp import ResetReason
from agents.wire.tcp import ACK, FIN

_FIN_RTO_S = 0.5


def reset_by_host(connection: Connection, actions: list[Action]) -> Answer:
    """This host's TCP gives up: RST with MP_FASTCLOSE on every subflow.

    One that comes when both directions have ended is a closed TCP's answer to something late, and no news for the peer.
    """
    if both_acknowledged(connection):
        return Verdict.DROP
    actions.append(Log("reset-by-host", {"connection": connection.number}))
    out = [(subflow, _fastclose(connection, subflow)) for subflow in connection.subflows]
    _end(connection, Input.RESET)
    return packets.emit_to_network(connection, out, actions)


def reset_by_peer(connection: Connection, why: str, actions: list[Action]) -> None:
    """The peer gave up, or nothing is left: this host's TCP gets an RST."""
    actions += [
        Log("reset-by-peer", {"connection": connection.number, "why": why}),
        Deliver(packets.reset_local(connection)),
    ]
    _end(connection, Input.RESET)


def abort(connection: Connection, why: str, actions: list[Action]) -> None:
    """Neither side can go on: both are told."""
    actions += [Send(_fastclose(connection, subflow)) for subflow in connection.subflows]
    reset_by_peer(connection, why, actions)


def _fastclose(connection: Connection, subflow: Subflow) -> bytes:
    if connection.fallback or not connection.remote_key:
        return packets.reset(connection, subflow)
    return packets.reset(connection, subflow, mptcp.Fastclose(connection.remote_key), mptcp.TcpRst(ResetReason.UNSPECIFIED))


def _end(connection: Connection, what: Input) -> None:
    for subflow in list(connection.subflows):
        subflow.change(SubflowInput.DEAD)
    connection.subflows.clear()
    connection.active = None
    connection.timers_changed = True
    connection.change(what)


def time_out(connection: Connection, why: str, actions: list[Action]) -> None:
    """The connection's state is freed."""
    actions.append(Log("freed", {"connection": connection.number, "why": why, "state": connection.state.value}))
    _end(connection, Input.TIMEOUT)


def break_subflow(
    connection: Connection,
    subflow: Subflow,
    why: str,
    now: float,
    actions: list[Action],
    *,
    reason: ResetReason | None = ResetReason.UNACCEPTABLE_PERFORMANCE,
) -> None:
    """A subflow is over. What it had not delivered will be placed on another one, so it cannot come back.

    `reason`: what the peer is told in an RST; None: nothing, the path is gone.
    """
    if reason is not None and subflow.state is not SubflowState.JOIN_SENT:
        actions.append(Send(packets.reset(connection, subflow, mptcp.TcpRst(reason))))
    connection.timers_changed = True
    opening = subflow.state in (SubflowState.JOIN_SENT, SubflowState.JOIN_CONFIRMING)
    connection.remove(subflow)
    if not connection.subflows:
        connection.broken_s = connection.broken_s or now
        if opening and subflow.takes_over:
            connection.rejoin = (subflow.local, subflow.withdraws, now + connection.config.rejoin_s)
    resume(connection, actions)
    following = connection.active.number if connection.active is not None else None
    actions.append(Log("subflow-dead", {"connection": connection.number, "subflow": subflow.number, "why": why,
                                        "active": following}))  # fmt: skip
    if connection.promised_by is subflow and connection.dan < connection.promised:
        abort(connection, "data that this host has forgotten went down with a subflow", actions)


def resume(connection: Connection, actions: list[Action]) -> None:
    """What went down with a subflow goes on over the active one."""
    if connection.active is None or all(owner.alive for owner in connection.send.owners):
        return
    if connection.config.reserve_lost and not connection.sack:
        connection.reserve_lost(connection.active)
    if packets.can_nudge(connection):
        actions += [*packets.nudge(connection), Log("nudge", {"connection": connection.number})]


def subflow_fin(connection: Connection, subflow: Subflow, now: float) -> list[tuple[Subflow, bytes]]:
    """Our FIN on a subflow, the first time or again."""
    if subflow.fin_at is None:
        subflow.fin_at = subflow.send_next
    subflow.tries += 1
    connection.timers_changed = True
    subflow.deadline = now + _FIN_RTO_S * 2 ** (subflow.tries - 1)
    options = packets.timestamps(connection, subflow)
    if connection.data_level:
        options += packets.data_ack(connection)
    return [(subflow, packets.to_network(connection, subflow, subflow.fin_at, FIN | ACK, options))]


def finish_if_both_closed(connection: Connection, now: float, actions: list[Action]) -> None:
    """Both DATA_FINs are acknowledged: the subflows are closed. A FIN before would make the peer reinject."""
    if connection.state is not State.TIME_WAIT or connection.fallback or not both_acknowledged(connection):
        return
    for subflow in list(connection.subflows):
        if subflow.state is SubflowState.JOIN_SENT:
            connection.remove(subflow)
        elif subflow.change(SubflowInput.CLOSE):
            actions += [Send(packet) for _subflow, packet in subflow_fin(connection, subflow, now)]


def both_acknowledged(connection: Connection) -> bool:
    """Has each side acknowledged the other's end of data?"""
    return (
        connection.local_fin is not None
        and connection.remote_fin is not None
        and connection.dan > connection.local_fin
        and connection.ack > connection.remote_fin
    )


def peer_fin(connection: Connection, subflow: Subflow, s: int, now: float, actions: list[Action]) -> None:
    """The peer closes a subflow: answered here, this host's TCP knows nothing of it."""
    if subflow.peer_fin_at is None:
        subflow.peer_fin_at = s
        actions.append(Log("subflow-fin", {"connection": connection.number, "subflow": subflow.number}))
    undelivered = subflow.send_acked < subflow.send_next and connection.tan < connection.send_max
    if undelivered and len(connection.subflows) > 1:
        break_subflow(connection, subflow, "closed by the peer", now, actions, reason=ResetReason.UNSPECIFIED)
        return
    if s > subflow.ack_sent and not subflow.seen.covers(subflow.ack_sent, s):
        return  # it comes again when what is before it has arrived
    if connection.state is not State.TIME_WAIT and s > subflow.ack_sent:
        return  # this host has not yet acknowledged the data before it
    subflow.ack_sent = s + 1
    first = subflow.fin_at is None
    subflow.change(SubflowInput.PEER_FIN)
    if first:
        actions += [Send(packet) for _subflow, packet in subflow_fin(connection, subflow, now)]
    else:
        actions.append(Send(packets.pure_ack(connection, subflow, [])))
    if connection.active is subflow:
        connection.active = connection.usable()


def fin_acknowledged(connection: Connection, subflow: Subflow, now: float) -> None:
    """Has our FIN been acknowledged? Then its timer stops, and with the peer's FIN the subflow is closed."""
    if subflow.fin_at is None or subflow.send_acked <= subflow.fin_at:
        return
    subflow.deadline = None
    if subflow.change(SubflowInput.FIN_ACKED):
        ended(connection, subflow, now)


def ended(connection: Connection, subflow: Subflow, now: float) -> None:
    """A subflow has ended in order. If it was the last one and the connection goes on, it waits for another one."""
    connection.remove(subflow)
    if not connection.subflows and connection.state is not State.TIME_WAIT:
        connection.broken_s = connection.broken_s or now
        connection.timers_changed = True
