"""What a policy makes of every address, for one connection. A pure function."""

from collections.abc import Collection, Iterable

from agents.core.path_manager.config import CareOfUse, HomeUse, Policy
from agents.core.path_manager.values import Kind, LocalAddress, Role

_HOME = {HomeUse.ACTIVE: Role.ACTIVE, HomeUse.BACKUP: Role.BACKUP}


def roles(
    policy: Policy, addresses: Iterable[LocalAddress], dead: Collection[str], care_of_up: bool, home_closed: bool
) -> dict[str, Role]:
    """Address -> role, for the usable addresses of the connection's security domain.

    dead: addresses whose paths are silently dead. care_of_up: a care-of address carries the connection and works.
    home_closed: the home address' subflow was closed before, by this policy.
    """
    usable = list(addresses)
    care_of = [item for item in usable if item.kind is Kind.CARE_OF]
    living = [item for item in care_of if item.address not in dead]
    result = {item.address: Role.CLOSED for item in usable if item.address in dead}
    staying = [item for item in living if not item.leaving] or living
    cheapest = min((item.cost for item in staying), default=0)
    for item in living:
        backup = item not in staying or (policy.care_of is CareOfUse.CHEAPEST and item.cost > cheapest)
        result[item.address] = Role.BACKUP if backup else Role.ACTIVE
    for item in usable:
        if item.kind is Kind.HOME and item.address not in dead:
            result[item.address] = _home_role(policy, bool(living), care_of_up, home_closed)
    return result


def _home_role(policy: Policy, living_care_of: bool, care_of_up: bool, home_closed: bool) -> Role:
    if policy.home is not HomeUse.UNTIL_CARE_OF:
        # Alone, a backup is made active: its MP_PRIO arrives by a way that works, and the peer waits for nothing.
        return _HOME[policy.home] if living_care_of else Role.ACTIVE
    if care_of_up or (home_closed and not policy.rejoin_home):
        return Role.CLOSED
    return Role.ACTIVE
