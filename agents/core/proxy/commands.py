"""What an operator or a policy asks for: subflows come and go, traffic moves (paper section 5.1, the command line tool)."""

from agents.core.proxy import closing, joins, packets, signalling
from agents.core.proxy.actions import Action, Log
from agents.core.proxy.connection import Connection
from agents.core.proxy.joins import Random, Taken
from agents.core.proxy.states import SubflowState
from agents.core.proxy.subflow import Subflow
from agents.wire.mptcp import ResetReason


class CommandRefused(ValueError):
    """What was asked for cannot be done; one line says why."""


def find(connection: Connection, number: int) -> Subflow:
    """A subflow that is not closed. Raises CommandRefused."""
    for subflow in connection.subflows:
        if subflow.number == number:
            return subflow
    numbers = ", ".join(str(subflow.number) for subflow in connection.subflows) or "none"
    raise CommandRefused(f"connection {connection.number}: no subflow {number}: there are {numbers}")


def add_subflow(
    connection: Connection,
    local: bytes,
    now: float,
    random: Random,
    actions: list[Action],
    *,
    taken: Taken = (),
    backup: bool = False,
    remote: bytes | None = None,
) -> Subflow:
    """Open a subflow from an address of this host. Raises CommandRefused."""
    to = remote_for(connection, local, remote)
    try:
        return joins.initiate(connection, local, to, now, random, actions, taken=taken, backup=backup)
    except joins.JoinRefused as error:
        raise CommandRefused(str(error)) from None


def remote_for(connection: Connection, local: bytes, remote: bytes | None) -> tuple[bytes, int | None] | None:
    """The peer's address to join: the wanted one, else the initial one, else an announced one of the same IP version."""
    for address, port in connection.remote_ids.values():
        if address == remote:
            return address, port
    if remote is not None:
        return remote, None
    if len(local) == len(connection.remote) and connection.joinable:
        return connection.remote, None
    announced = [pair for pair in connection.remote_ids.values() if joins.takes_joins(connection, *pair)]
    return next((pair for pair in announced if len(pair[0]) == len(local)), None)


def delete_subflow(connection: Connection, subflow: Subflow, now: float, actions: list[Action]) -> None:
    """Close a subflow; its address is withdrawn if no other one uses it. Raises CommandRefused for the last one."""
    if len([s for s in connection.subflows if s.carries]) < 2 and subflow.carries:
        raise CommandRefused(f"connection {connection.number}: subflow {subflow.number} is the last one: add another first")
    closing.break_subflow(connection, subflow, "deleted", now, actions, reason=ResetReason.UNSPECIFIED)
    if all(s.local_id != subflow.local_id for s in connection.subflows):
        signalling.withdraw(connection, connection.active, subflow.local_id, actions)


def hand_over(connection: Connection, to: Subflow, now: float, actions: list[Action], *, break_first: bool) -> None:
    """Data of both directions moves to an open subflow: MP_PRIO tells the peer, the old ones stay as backups.

    `break_first`: the old ones are cut off at once, as when their network is lost, and their addresses withdrawn.
    """
    if to.state is not SubflowState.ESTABLISHED:
        raise CommandRefused(f"connection {connection.number}: subflow {to.number} is not open: {to.state.value}")
    connection.active = to
    others = [s for s in connection.subflows if s is not to]
    actions.append(Log("handover", {"connection": connection.number, "to": to.number, "break": break_first}))
    if to.backup_asked or break_first:
        signalling.prioritise(connection, to, backup=False, actions=actions)
    for other in others:
        if break_first:
            closing.break_subflow(connection, other, "handover", now, actions, reason=None)
            if other.local_id != to.local_id:
                signalling.withdraw(connection, to, other.local_id, actions)
        elif not other.backup_asked:
            signalling.prioritise(connection, other, backup=True, actions=actions)


def hand_over_to_address(
    connection: Connection, local: bytes, now: float, random: Random, actions: list[Action], *, break_first: bool,
    taken: Taken = (),
) -> Subflow:  # fmt: skip
    """The same towards an address: its subflow, or a new one. Raises CommandRefused."""
    for subflow in connection.subflows:
        if subflow.local == local and subflow.state is SubflowState.ESTABLISHED:
            hand_over(connection, subflow, now, actions, break_first=break_first)
            return subflow
    old = [s for s in connection.subflows if s.local != local]
    pending = next((s for s in connection.subflows if s.local == local), None)
    subflow = pending or add_subflow(connection, local, now, random, actions, taken=taken)
    subflow.takes_over = True
    connection.rejoin = None
    if break_first:
        subflow.withdraws = tuple(sorted({s.local_id for s in old} - {subflow.local_id}))
        for other in old:
            closing.break_subflow(connection, other, "handover", now, actions, reason=None)
    actions.append(Log("handover", {"connection": connection.number, "to": subflow.number,
                                    "address": packets.text(local), "break": break_first}))  # fmt: skip
    return subflow


def prioritise(connection: Connection, subflow: Subflow, *, backup: bool, actions: list[Action]) -> None:
    """Ask the peer to use a subflow as a backup or regularly; data of this host follows."""
    signalling.prioritise(connection, subflow, backup=backup, actions=actions)
    if backup and connection.active is subflow:
        connection.active = connection.usable() or subflow
    elif not backup and connection.active is not None and connection.active.backup_asked and subflow.carries:
        connection.active = subflow
