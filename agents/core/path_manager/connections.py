"""One connection under the userspace path manager: from roles and health to subflows. Pure."""

import ipaddress
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from agents.core.path_manager.config import OnDeath, PathManagerConfig, Policy
from agents.core.path_manager.health import NEVER, Watch
from agents.core.path_manager.roles import roles
from agents.core.path_manager.values import (
    Action,
    Announce,
    Connection,
    CreateSubflow,
    DestroySubflow,
    Kind,
    LocalAddress,
    Log,
    Remove,
    Role,
    SetPriority,
    Subflow,
)

ID_MAX = 254
"""Of an address; 0 is the one by which the connection was opened."""
REMOTES_MAX = 16
"""Announced addresses that are remembered: a peer may announce without end."""
EXPONENT_MAX = 16


def address_id(address: str) -> int:
    """The id that is tried first: the same after a restart, because the kernel keeps one id for an address."""
    return 1 + zlib.crc32(ipaddress.ip_address(address).packed) % ID_MAX


def _key(subflow: Subflow) -> tuple[str, int, str]:
    return subflow.local, subflow.local_port, subflow.remote


def _version(address: str) -> int:
    return 6 if ":" in address else 4


@dataclass(slots=True)
class Attempt:
    """Joins (or announcements) of one pair of addresses."""

    next_s: float = 0.0
    tries: int = 0


@dataclass(slots=True)
class Managed:
    """What is remembered of a connection beside what the kernel tells."""

    connection: Connection
    domain: str | None
    """None: opened from an address that is not known here; the connection is let alone."""
    subflows: list[Subflow] = field(default_factory=list)
    remotes: dict[int, tuple[str, int]] = field(default_factory=dict)
    attempts: dict[tuple[str, str], Attempt] = field(default_factory=dict)
    priorities: dict[tuple[str, int, str], bool] = field(default_factory=dict)
    """Backup or not, as last asked for."""
    closing: set[tuple[str, int, str]] = field(default_factory=set)
    """Subflows that were told to go."""
    withdrawn: set[int] = field(default_factory=set)
    """Remote ids that the peer has taken back."""
    accepted: bool = False
    """The kernel has taken a command for it."""
    refusals: int = 0
    refused_s: float = NEVER
    """When for the first time."""
    foreign: bool = False
    """The kernel says that it belongs to another path manager."""
    home_closed: bool = False
    judged: bool = False
    told: set[str] = field(default_factory=set)
    """Local addresses announced."""

    @property
    def manageable(self) -> bool:
        """Whether this path manager may touch it."""
        return not self.foreign and not self.connection.fallback and self.domain is not None

    def id_of(self, address: str) -> int:
        """The id of a local address in this connection."""
        if address == self.connection.local:
            return 0
        used = {subflow.local_id: subflow.local for subflow in self.subflows}
        for number, owner in used.items():
            if owner == address and number:
                return number
        wanted = address_id(address)
        while wanted in used:
            wanted = wanted % ID_MAX + 1
        return wanted

    def targets(self, every: bool, alone: bool) -> list[tuple[str, int]]:
        """Remote addresses and ports to join, the first one first. `alone`: nothing works that could be joined otherwise."""
        first = (self.connection.remote, self.connection.remote_port)
        others = [end for number, end in sorted(self.remotes.items()) if end[0] != first[0]] if every else []
        # The first address is the last hope even if it was taken back: a peer that has moved is found at its home address.
        if 0 in self.withdrawn and others and not alone:
            return others
        return [first, *others]


class Planner:
    """Makes the actions for one connection from everything that is known."""

    def __init__(
        self, config: PathManagerConfig, policy: Policy, watch: Watch, addresses: Sequence[LocalAddress],
        present: frozenset[str], now_s: float,
    ) -> None:  # fmt: skip
        self._config, self.policy, self._watch, self._now_s = config, policy, watch, now_s
        self._addresses = {item.address: item for item in addresses}
        self._present = present
        """All addresses that exist on this host, whether they are known here or not."""

    # -- what is known ------------------------------------------------------------------------------------------------
    def dead_pair(self, local: str, remote: str) -> bool:
        """Silently dead, and something is to be done about it."""
        return self._config.detection.action is not OnDeath.OBSERVE and self._watch.dead(local, remote)

    def gone(self, local: str) -> bool:
        """An address that this host has no more, or that has no way to leave."""
        return local not in self._addresses and (local not in self._present or local in self._ours)

    _ours: frozenset[str] = frozenset()

    def remember(self, ours: frozenset[str]) -> None:
        """Addresses that were usable once: without a way they count as gone."""
        self._ours = ours

    def works(self, subflow: Subflow) -> bool:
        """Carries data, as far as is known."""
        return subflow.established and not self.gone(subflow.local) and not self.dead_pair(*subflow.path)

    def care_of_up(self, managed: Managed) -> bool:
        """A care-of address carries the connection."""
        return any(self.works(subflow) and self._kind(subflow.local) is Kind.CARE_OF for subflow in managed.subflows)

    def _kind(self, local: str) -> Kind | None:
        found = self._addresses.get(local)
        return found.kind if found else None

    def usable(self, managed: Managed) -> list[LocalAddress]:
        """Addresses of the connection's security domain and IP versions."""
        versions = {_version(remote) for remote, _port in self._targets(managed)}
        return [
            item for item in self._addresses.values() if item.domain == managed.domain and _version(item.address) in versions
        ]

    def _targets(self, managed: Managed) -> list[tuple[str, int]]:
        alone = not managed.subflows or (self.policy.rejoin_home and not any(map(self.works, managed.subflows)))
        return managed.targets(self._config.remote_addresses == "all", alone)

    def dead_addresses(self, managed: Managed) -> set[str]:
        """Addresses from which no remote address can be reached."""
        result = set()
        for item in self.usable(managed):
            remotes = [remote for remote, _port in self._targets(managed) if _version(remote) == _version(item.address)]
            if remotes and all(self.dead_pair(item.address, remote) for remote in remotes):
                result.add(item.address)
        return result

    def roles(self, managed: Managed) -> dict[str, Role]:
        """What becomes of every usable address."""
        if not managed.judged and managed.subflows:
            managed.judged = True
            home = any(self._kind(subflow.local) is Kind.HOME for subflow in managed.subflows)
            managed.home_closed = not home and self.care_of_up(managed)
        return roles(
            self.policy, self.usable(managed), self.dead_addresses(managed), self.care_of_up(managed), managed.home_closed
        )

    # -- what is to be done -------------------------------------------------------------------------------------------
    def plan(self, managed: Managed) -> list[Action]:
        """Actions for the connection now."""
        if not managed.manageable:
            return []
        wanted = self.roles(managed)
        self._settle_attempts(managed)
        return [*self._close(managed, wanted), *self._prioritise(managed, wanted), *self._open(managed, wanted)]

    def next_attempt_s(self, managed: Managed) -> float:
        """When a missing subflow is tried again."""
        if not managed.manageable:
            return NEVER
        wanted = self.roles(managed)
        times = [managed.attempts.get(pair, Attempt()).next_s for pair, _port in self._missing(managed, wanted)]
        return min(times, default=NEVER)

    def _settle_attempts(self, managed: Managed) -> None:
        for subflow in managed.subflows:
            if subflow.established:
                managed.attempts.pop(subflow.path, None)
        keys = {_key(subflow) for subflow in managed.subflows}
        managed.closing &= keys
        managed.priorities = {key: value for key, value in managed.priorities.items() if key in keys}

    def _missing(self, managed: Managed, wanted: Mapping[str, Role]) -> Iterator[tuple[tuple[str, str], int]]:
        """Pairs that shall have a subflow and have none."""
        present = {subflow.path for subflow in managed.subflows}
        for local, role in wanted.items():
            if role is Role.CLOSED:
                continue
            if managed.connection.server:
                if all(subflow.local != local for subflow in managed.subflows) and self._config.announce:
                    yield (local, ""), 0
                continue
            for remote, port in self._targets(managed):
                pair = (local, remote)
                if pair not in present and _version(local) == _version(remote) and not self.dead_pair(*pair):
                    yield pair, port

    def _open(self, managed: Managed, wanted: Mapping[str, Role]) -> list[Action]:
        room = self._config.subflows_max - len(managed.subflows)
        result: list[Action] = []
        for (local, remote), port in self._missing(managed, wanted):
            attempt = managed.attempts.setdefault((local, remote), Attempt())
            if attempt.next_s > self._now_s or len(result) >= room:
                continue
            attempt.next_s = self._now_s + self._config.join_timeout_s * 2.0 ** min(attempt.tries, EXPONENT_MAX)
            attempt.next_s = min(attempt.next_s, self._now_s + max(self._config.join_timeout_s, self._config.retry_max_s))
            attempt.tries += 1
            backup, item = wanted[local] is Role.BACKUP, self._addresses[local]
            token, number = managed.connection.token, managed.id_of(local)
            if managed.connection.server:
                # An address with id 0 cannot be announced: the peer knows it as the connection's own.
                number = number or address_id(local)
                managed.told.add(local)
                result.append(Announce(token, local, number, item.index, backup))
            else:
                result.append(CreateSubflow(token, local, number, item.index, remote, port, backup))
        return result

    def _prioritise(self, managed: Managed, wanted: Mapping[str, Role]) -> list[Action]:
        result: list[Action] = []
        for subflow in managed.subflows:
            key, role = _key(subflow), wanted.get(subflow.local)
            if not subflow.established or role is None or key in managed.closing:
                continue
            backup = role is Role.BACKUP or (self._demotes() and self.dead_pair(*subflow.path))
            if role is Role.CLOSED and not backup:
                continue
            # The peer may have made it backup: asking once is enough.
            if managed.priorities.get(key, subflow.backup) != backup:
                managed.priorities[key] = backup
                result.append(
                    SetPriority(
                        managed.connection.token, subflow.local, subflow.local_id, subflow.remote, subflow.remote_port, backup
                    )
                )
        return result

    def _demotes(self) -> bool:
        return self._config.detection.action is OnDeath.DEMOTE

    def _unwanted(self, managed: Managed, wanted: Mapping[str, Role], subflow: Subflow) -> str:
        """Why a subflow shall go; "" if it may stay."""
        if self.gone(subflow.local):
            return "address gone"
        if self.dead_pair(*subflow.path):
            return "" if self._demotes() else "path dead"
        if wanted.get(subflow.local) is Role.CLOSED:
            return "policy"
        return ""

    def _close(self, managed: Managed, wanted: Mapping[str, Role]) -> list[Action]:
        reasons = {subflow: self._unwanted(managed, wanted, subflow) for subflow in managed.subflows}
        survivors = [row for row, why in reasons.items() if not why and self.works(row)]
        pending = [row for row, why in reasons.items() if why and _key(row) not in managed.closing]
        if not survivors or not pending:
            return []
        if not any(self._watch.trusted(*row.path, self._now_s) for row in survivors):
            # The peer is told only once: not by a path that may have died while it was idle.
            return [log for row in survivors for log in self._watch.doubt(*row.path, self._now_s)]
        result: list[Action] = []
        for subflow in pending:
            why = reasons[subflow]
            managed.closing.add(_key(subflow))
            if why == "policy" and self._kind(subflow.local) is Kind.HOME:
                managed.home_closed = True
            result.append(
                Log("subflow-closing", {"token": subflow.token, "local": subflow.local, "remote": subflow.remote, "why": why})
            )
            result += self._closing_actions(managed, subflow, reasons)
        return _unique(result)

    @staticmethod
    def _closing_actions(managed: Managed, subflow: Subflow, reasons: Mapping[Subflow, str]) -> list[Action]:
        """The peer is told first: after that it closes its side, but what it sends may not arrive here."""
        result: list[Action] = []
        if all(why for other, why in reasons.items() if other.local_id == subflow.local_id):
            result.append(Remove(subflow.token, subflow.local_id, subflow.local))
        ends = (subflow.local, subflow.local_port, subflow.remote, subflow.remote_port)
        return [*result, DestroySubflow(subflow.token, *ends)]


def _unique(actions: Sequence[Action]) -> list[Action]:
    """Without repetitions: several subflows of an address go by one action."""
    result: list[Action] = []
    for action in actions:
        if action not in result:
            result.append(action)
    return result
