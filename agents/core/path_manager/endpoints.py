"""The same decisions for the in-kernel path manager, whose endpoints hold for all connections of the namespace. Pure.

What cannot be said of one connection alone is said of all: a home address is closed when every connection that uses it has a
care-of address, and joins again when one of them has none left.
"""

from collections.abc import Iterable, Sequence

from agents.core.mptcp_endpoints import Add, Delete, Endpoint, SetBackup, diff
from agents.core.path_manager.config import HomeUse, PathManagerConfig
from agents.core.path_manager.connections import Managed, Planner
from agents.core.path_manager.roles import roles
from agents.core.path_manager.values import (
    Action,
    AddEndpoint,
    CloseInitial,
    DeleteEndpoint,
    Kind,
    LocalAddress,
    Role,
    SetEndpointBackup,
)


def plan(
    config: PathManagerConfig,
    planner: Planner,
    addresses: Sequence[LocalAddress],
    ours: Iterable[str],
    connections: Sequence[Managed],
    present: Sequence[Endpoint],
) -> list[Action]:
    """Actions that bring the endpoints to what the policy wants. Endpoints of addresses that are not ours stay."""
    own, live = set(ours), [managed for managed in connections if managed.manageable]
    dead = {item.address for item in addresses if _dead_everywhere(planner, item.address, live)}
    wanted = roles(planner.policy, addresses, dead, _care_of_everywhere(planner, live), home_closed=True)
    flags = _flags(config)
    desired, kept = [], {endpoint.key for endpoint in present}
    for item in addresses:
        role = wanted[item.address]
        if role is Role.CLOSED or (
            item.kind is Kind.HOME and not _home_endpoint(planner, item.address, live, exists=item.address in kept)
        ):
            continue
        extra = {"backup"} if role is Role.BACKUP else set()
        desired.append(Endpoint(item.address, item.index, flags | extra))
    known = [endpoint for endpoint in present if endpoint.key in own]
    result = [_action(step) for step in diff(desired, known, {endpoint.index for endpoint in known})]
    return result + _close_initial(planner, wanted, live, known)


def _flags(config: PathManagerConfig) -> frozenset[str]:
    """Without `fullmesh`: from such an endpoint the kernel does not join a connection that has lost its last subflow."""
    return frozenset({"subflow", "signal"} if config.announce else {"subflow"})


def _action(step: Add | Delete | SetBackup) -> Action:
    if isinstance(step, Add):
        return AddEndpoint(step.endpoint)
    return DeleteEndpoint(step.endpoint) if isinstance(step, Delete) else SetEndpointBackup(step.endpoint, step.backup)


def _dead_everywhere(planner: Planner, local: str, live: Sequence[Managed]) -> bool:
    """Every connection that knows a path from the address knows it as dead, and has another that works."""
    found = False
    for managed in live:
        remotes = {managed.connection.remote} | {row.remote for row in managed.subflows if row.local == local}
        if not any(planner.dead_pair(local, remote) for remote in remotes):
            if any(row.local == local for row in managed.subflows):
                return False
            continue
        found = True
        if not any(planner.works(row) and row.local != local for row in managed.subflows):
            return False
    return found


def _care_of_everywhere(planner: Planner, live: Sequence[Managed]) -> bool:
    """No connection has nothing but a home address."""
    return all(planner.care_of_up(managed) for managed in live)


def _home_endpoint(planner: Planner, address: str, live: Sequence[Managed], *, exists: bool) -> bool:
    """Whether the home address needs an endpoint: one that a connection has been opened from carries it without."""
    if planner.policy.home is not HomeUse.UNTIL_CARE_OF:
        return True
    if not planner.policy.rejoin_home:
        return False
    lonely = [managed for managed in live if not planner.care_of_up(managed)]
    # Once it is there it stays: taken away it would take the subflow with it.
    return bool(lonely) and (exists or any(all(row.local != address for row in managed.subflows) for managed in lonely))


def _close_initial(
    planner: Planner, wanted: dict[str, Role], live: Sequence[Managed], present: Sequence[Endpoint]
) -> list[Action]:  # fmt: skip
    """Subflows by which connections were opened (id 0) have no endpoint that could be deleted."""
    kept = {endpoint.address for endpoint in present}
    result: set[str] = set()
    for managed in live:
        for row in managed.subflows:
            unwanted = wanted.get(row.local) is Role.CLOSED or planner.gone(row.local)
            if row.local_id == 0 and unwanted and row.local not in kept:
                result.add(row.local)
    return [CloseInitial(local) for local in sorted(result) if _safe(planner, local, live)]


def _safe(planner: Planner, local: str, live: Sequence[Managed]) -> bool:
    """Nobody loses the last way."""
    users = [managed for managed in live if any(row.local == local and row.local_id == 0 for row in managed.subflows)]
    return all(any(planner.works(row) and row.local != local for row in managed.subflows) for managed in users)
