"""The path manager: addresses, connections and measurements in, actions out. Pure.

The kernel is the truth: events only say that something is different, and every reading of the sockets is complete. So a
lost event, a restart and an address that is told twice do no harm.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from agents.core.mptcp_endpoints import Endpoint
from agents.core.path_manager import endpoints as kernel_endpoints
from agents.core.path_manager.config import POLICIES, PathManagerConfig
from agents.core.path_manager.connections import Attempt, Managed, Planner
from agents.core.path_manager.health import NEVER, Watch
from agents.core.path_manager.values import (
    Action,
    Announce,
    Announced,
    CloseInitial,
    Connection,
    CreateSubflow,
    DeleteEndpoint,
    Event,
    LocalAddress,
    Log,
    SetPriority,
    Subflow,
    SubflowClosed,
    Withdrawn,
)

IDLE_INTERVAL_S = 0.5
"""Between two looks at connections on which nothing happens."""
FOREIGN_ERRORS = frozenset({3, 22, 95})
"""ESRCH, EINVAL, EOPNOTSUPP of a command with a token: the connection is another path manager's, or gone."""
FOREIGN_REFUSALS = 3
"""The kernel gives the same error for an address that it does not like: one refusal is no proof."""
NOT_CONNECTED = 107
CONNECTIONS_MAX = 4096
"""More are not managed: a host with so many connections is no mobile host."""


class PathManager:
    """The core. Every input returns actions, to be carried out in their order."""

    def __init__(self, config: PathManagerConfig) -> None:
        self.config = config
        self.policy_name = config.policy
        self.leaving = ""
        """Interface that will go soon."""
        self.watch = Watch(config.detection)
        self.connections: dict[int, Managed] = {}
        self.addresses: list[LocalAddress] = []
        self._present: frozenset[str] = frozenset()
        self._ours: frozenset[str] = frozenset()
        self._domains: dict[str, str] = {}
        """Address -> security domain, also of addresses that are gone."""
        self._read_s: float | None = None
        self._active_s = -NEVER
        self._endpoints: list[Endpoint] = []
        self._read_again = False
        self._initial_closed: dict[str, float] = {}
        self._joins: dict[str, Attempt] = {}

    # -- inputs -------------------------------------------------------------------------------------------------------
    def addresses_changed(self, addresses: Iterable[LocalAddress], present: Iterable[str], now_s: float) -> list[Action]:
        """The usable addresses, all of them; `present`: every address of the host, those not usable or not known included.

        An address that is there twice counts once.
        """
        found = {item.address: item for item in addresses}
        before = {item.address: item for item in self.addresses}
        logs: list[Action] = [
            Log("address-up", _row(item)) for name, item in found.items() if before.get(name) != item
        ]  # fmt: skip
        logs += [Log("address-gone", _row(item)) for name, item in before.items() if name not in found]
        new = {name for name in found if name not in before}
        for managed in self.connections.values():
            managed.attempts = {pair: value for pair, value in managed.attempts.items() if pair[0] not in new}
        self.addresses, self._present = list(found.values()), frozenset(present) | frozenset(found)
        self._ours |= frozenset(found)
        self._domains |= {name: item.domain for name, item in found.items()}
        self.watch.forget(set(found))
        for managed in self.connections.values():
            managed.domain = self._domain_of(managed.connection, managed.subflows)
        return logs + self._plan(now_s)

    def sockets_read(
        self, connections: Iterable[Connection], subflows: Iterable[Subflow], now_s: float, endpoints: Iterable[Endpoint] = ()
    ) -> list[Action]:
        """All MPTCP connections and subflows of the namespace, with measurements; endpoints of the in-kernel path manager."""
        self._endpoints, self._read_again = list(endpoints), False
        by_token: dict[int, list[Subflow]] = {}
        rows = list(subflows)
        for row in rows:
            by_token.setdefault(row.token, []).append(row)
        logs = self._take_connections(list(connections)[:CONNECTIONS_MAX], by_token)
        own = [row for managed in self.connections.values() if managed.manageable for row in managed.subflows]
        self._note_activity(own, now_s)
        usable = {item.address for item in self.addresses}
        logs += self.watch.observe([row for row in own if row.local in usable], now_s)
        self._read_s = now_s
        if self.config.userspace:
            return logs + self._plan(now_s)
        return logs + self._plan_endpoints(now_s)

    def handle_event(self, event: Event, now_s: float) -> list[Action]:
        """An event of the kernel; one of an unknown connection is ignored."""
        managed = self.connections.get(event.token)
        if managed is None:
            return []
        if isinstance(event, Announced):
            known = len(managed.remotes) < 16 or event.remote_id in managed.remotes
            if event.remote_id and known:
                managed.remotes[event.remote_id] = (event.address, event.port or managed.connection.remote_port)
                managed.withdrawn.discard(event.remote_id)
        elif isinstance(event, Withdrawn):
            managed.remotes.pop(event.remote_id, None)
            managed.withdrawn.add(event.remote_id)
        elif isinstance(event, SubflowClosed):
            self._note_closed(managed, event, now_s)
        return [Log("event", {"kind": type(event).__name__, **_fields(event)}), *self._plan(now_s)]

    def probe_result(self, local: str, remote: str, rtt_ms: float | None, now_s: float) -> list[Action]:
        """The answer to a probe (ms), or None: there was none."""
        return [*self.watch.probe_answered(local, remote, rtt_ms, now_s), *self._plan(now_s)]

    def handle_timer(self, now_s: float) -> list[Action]:
        """Time has passed; calling it too often does nothing twice."""
        probes = self.watch.due_probes(now_s)
        return [*probes, *(self._plan(now_s) if self.config.userspace else [])]

    def action_done(self, action: Action) -> None:
        """The kernel has taken an action."""
        token = getattr(action, "token", None)
        if token in self.connections:
            self.connections[token].accepted = True

    def action_failed(self, action: Action, error: int, now_s: float) -> list[Action]:
        """The kernel has refused an action (errno)."""
        token = getattr(action, "token", None)
        managed = self.connections.get(token) if token is not None else None
        if managed is None:
            return []
        if isinstance(action, CreateSubflow | Announce):
            return self._note_refusal(managed, action, error, now_s)
        if isinstance(action, SetPriority):
            return [Log("priority-refused", {"token": managed.connection.token, "local": action.local, "errno": error})]
        return []

    def set_policy(self, name: str, now_s: float) -> list[Action]:
        """Another policy. Raises ValueError for an unknown one."""
        if name not in POLICIES:
            raise ValueError(f"no policy {name!r}: there are {', '.join(POLICIES)}")
        self.policy_name = name
        for managed in self.connections.values():
            managed.home_closed = False
            managed.attempts.clear()
        return [Log("policy", {"policy": name}), *self._plan(now_s)]

    def leave(self, interface: str, now_s: float) -> list[Action]:
        """This interface will go soon, and no other one: what it carries shall move to others that live."""
        self.leaving = interface
        return [Log("leaving", {"interface": interface}), *self._plan(now_s)]

    # -- times --------------------------------------------------------------------------------------------------------
    def next_deadline(self, now_s: float) -> float | None:
        """When the sockets shall be read or `handle_timer` be called; None: not before something happens."""
        times = [self.watch.next_probe_s(), self.next_reading_s(now_s)]
        if self.config.userspace:
            planner = self._planner(now_s)
            times += [planner.next_attempt_s(managed) for managed in self.connections.values()]
        earliest_s = min(times)
        return None if earliest_s == NEVER else earliest_s

    def next_reading_s(self, now_s: float) -> float:
        """When the sockets shall be read again; NEVER without connections."""
        if self._read_again:
            return now_s
        if self._read_s is None or not any(managed.manageable for managed in self.connections.values()):
            return NEVER
        detection = self.config.detection
        active = detection.enabled and now_s - self._active_s <= detection.activity_s
        return self._read_s + (detection.measure_interval_s if active else IDLE_INTERVAL_S)

    # -- for people ---------------------------------------------------------------------------------------------------
    def status(self) -> dict[str, Any]:
        """Everything."""
        return {
            "policy": self.policy_name, "path_manager": "userspace" if self.config.userspace else "kernel",
            "leaving": self.leaving,
            "addresses": [_row(item) for item in self.addresses],
            "connections": [self._describe(managed) for managed in self.connections.values()],
            "paths": [
                {"local": path.local, "remote": path.remote, "health": path.health.value, "cause": path.cause,
                 "answers_probes": path.answered_ever, "rtt_ms": round(path.rtt_ms, 3)}
                for path in self.watch.paths.values()
            ],
        }  # fmt: skip

    @staticmethod
    def _describe(managed: Managed) -> dict[str, Any]:
        known = managed.connection
        return {
            "token": known.token, "local": known.local, "remote": known.remote, "remote_port": known.remote_port,
            "server": known.server, "fallback": known.fallback, "foreign": managed.foreign, "domain": managed.domain,
            "announced_by_peer": {str(number): end[0] for number, end in managed.remotes.items()},
            "subflows": [
                {"local": row.local, "local_port": row.local_port, "remote": row.remote, "id": row.local_id,
                 "backup": row.backup, "established": row.established, "rtt_ms": row.rtt_ms, "idle_ms": row.idle_ms,
                 "unacknowledged": row.unacknowledged, "retransmits": row.retransmits}
                for row in managed.subflows
            ],
        }  # fmt: skip

    # -- inside -------------------------------------------------------------------------------------------------------
    def _take_connections(self, rows: list[Connection], by_token: dict[int, list[Subflow]]) -> list[Action]:
        logs: list[Action] = []
        present = set()
        for row in rows:
            present.add(row.token)
            known = self.connections.get(row.token)
            subflows = by_token.get(row.token, [])
            if known is None:
                known = self.connections[row.token] = Managed(row, self._domain_of(row, subflows))
                logs.append(Log("connection", {**_fields(row), "domain": known.domain}))
            elif row.fallback and not known.connection.fallback:
                logs.append(Log("fallback", {"token": row.token, "remote": row.remote}))
            # Who has opened it was seen at the beginning; a reading without that knowledge does not take it away.
            known.connection = replace(row, server=known.connection.server or row.server)
            logs += _subflow_changes(known.subflows, subflows)
            known.subflows = subflows
            if known.domain is None:
                known.domain = self._domain_of(row, subflows)
        for token in [token for token in self.connections if token not in present]:
            del self.connections[token]
            logs.append(Log("connection-gone", {"token": token}))
        return logs

    def _domain_of(self, connection: Connection, subflows: Sequence[Subflow]) -> str | None:
        """The security domain of the address by which it was opened, or else of a subflow that it has."""
        for local in (connection.local, *(row.local for row in subflows)):
            if local in self._domains:
                return self._domains[local]
        # An address that is gone and was never seen (a restart): with one domain only there is nothing to confuse.
        if len(self.config.domains) == 1 and connection.local not in self._present:
            return next(iter(self.config.domains))
        return None

    def _note_activity(self, rows: Sequence[Subflow], now_s: float) -> None:
        limit_ms = self.config.detection.activity_s * 1000.0
        if any(row.unacknowledged or row.idle_ms <= limit_ms for row in rows):
            self._active_s = now_s

    @staticmethod
    def _later(attempt: Attempt, config: PathManagerConfig, now_s: float) -> None:
        wait_s = min(config.retry_s * 2.0 ** min(max(attempt.tries - 1, 0), 16), config.retry_max_s)
        attempt.next_s = now_s + wait_s

    def _note_closed(self, managed: Managed, event: SubflowClosed, now_s: float) -> None:
        attempt = managed.attempts.setdefault((event.local, event.remote), Attempt())
        if event.error:
            attempt.tries += 1
        self._later(attempt, self.config, now_s)

    def _note_refusal(
        self, managed: Managed, action: CreateSubflow | Announce, error: int, now_s: float
    ) -> list[Action]:  # fmt: skip
        remote = action.remote if isinstance(action, CreateSubflow) else ""
        local = action.local if isinstance(action, CreateSubflow) else action.address
        attempt = managed.attempts.setdefault((local, remote), Attempt(tries=1))
        self._later(attempt, self.config, now_s)
        fields = {"token": action.token, "local": local, "remote": remote, "errno": error}
        if error == NOT_CONNECTED:
            # The handshake is not complete (fourth ACK): a moment later it is.
            attempt.next_s, attempt.tries = now_s + self.config.detection.measure_interval_s, 0
        elif error in FOREIGN_ERRORS and not managed.accepted:
            managed.refusals += 1
            managed.refused_s = min(managed.refused_s, now_s)
            if managed.refusals >= FOREIGN_REFUSALS and now_s > managed.refused_s:
                managed.foreign = True
                return [Log("foreign-connection", fields)]
        return [Log("join-refused", fields)]

    def _planner(self, now_s: float) -> Planner:
        addresses = [replace(item, leaving=bool(item.interface) and item.interface == self.leaving) for item in self.addresses]
        planner = Planner(
            self.config, POLICIES[self.policy_name], self.watch, addresses, self._present, now_s
        )  # fmt: skip
        planner.remember(self._ours)
        return planner

    def _plan(self, now_s: float) -> list[Action]:
        if not self.config.userspace:
            # Endpoints have numbers that only the kernel knows: what to change is decided when they have just been read.
            self._read_again = True
            return []
        planner = self._planner(now_s)
        return [action for managed in self.connections.values() for action in planner.plan(managed)]

    def _plan_endpoints(self, now_s: float) -> list[Action]:
        connections = list(self.connections.values())
        actions = kernel_endpoints.plan(
            self.config, self._planner(now_s), self.addresses, self._ours, connections, self._endpoints
        )  # fmt: skip
        rejoins = [action for action in self._rejoins(now_s) if action not in actions]
        return [*(action for action in actions if not self._repeated(action, now_s)), *rejoins]

    def _rejoins(self, now_s: float) -> list[Action]:
        """Endpoints from which nobody has joined: the kernel tries once, and not a connection that is just being opened.

        They are deleted, and the next reading adds them again. Endpoints with subflows are let alone.
        """
        live = [managed for managed in self.connections.values() if managed.manageable]
        used = {row.local for managed in live for row in managed.subflows}
        waiting = any(managed.subflows and not managed.connection.server for managed in live)
        idle = [item for item in self._endpoints if waiting and item.key in self._ours and item.address not in used]
        # One that was deleted a moment ago is missing now; what was tried is forgotten when it is used.
        self._joins = {name: attempt for name, attempt in self._joins.items() if waiting and name not in used}
        result: list[Action] = []
        for item in idle:
            attempt = self._joins.setdefault(item.address, Attempt(now_s + self.config.retry_s))
            if attempt.next_s <= now_s:
                attempt.tries += 1
                self._later(attempt, self.config, now_s)
                result.append(DeleteEndpoint(item))
        return result

    def _repeated(self, action: Action, now_s: float) -> bool:
        """The initial subflows take a moment to close."""
        if not isinstance(action, CloseInitial):
            return False
        if now_s - self._initial_closed.get(action.address, -NEVER) < self.config.retry_s:
            return True
        self._initial_closed[action.address] = now_s
        return False


def _row(item: LocalAddress) -> dict[str, Any]:
    return {
        "address": item.address, "kind": item.kind.value, "interface": item.interface, "cost": item.cost,
        "domain": item.domain, "home_agent": item.home_agent,
    }  # fmt: skip


def _fields(value: Any) -> dict[str, Any]:
    return {name: getattr(value, name) for name in value.__slots__}


def _subflow_changes(before: Sequence[Subflow], after: Sequence[Subflow]) -> list[Action]:
    """Log lines for subflows that came up or went."""

    def up(rows: Sequence[Subflow]) -> dict[tuple[str, int, str], Subflow]:
        return {(row.local, row.local_port, row.remote): row for row in rows if row.established}

    old, new = up(before), up(after)
    rows = [("subflow-up", new[key]) for key in new if key not in old] + [
        ("subflow-gone", old[key]) for key in old if key not in new
    ]
    return [
        Log(event, {"token": row.token, "local": row.local, "remote": row.remote, "id": row.local_id, "backup": row.backup})
        for event, row in rows
    ]  # fmt: skip
