"""What is wrong with an authentic request: one reply code for each reason, in a fixed order (RFC 5944 section 3.8.2).

The order: foreign agent's authentication (132, a check of its own), home agent address (136), form (134), administration (129),
care-of address (128), tunnels (142, 139, 137, 138), permission for several bindings (152), BIDs of flow bindings (153), room
(135, 130).
"""

import ipaddress
from collections.abc import Callable
from functools import lru_cache
from typing import Final

from agents.core.mobileip import flows
from agents.core.mobileip.actions import Encapsulation
from agents.core.mobileip.home_agent_registration import Registration
from agents.core.mobileip.registration_codes import Code
from agents.wire.mobileip import authentication
from agents.wire.mobileip.values import AccessTechnology, Multipath, RequestFlag, Tunnelled

_TECHNOLOGIES: Final = frozenset(AccessTechnology) - {AccessTechnology.RESERVED}


def refusal(registration: Registration) -> Code | None:
    """The code with which the request is refused; None: it is accepted."""
    checks = _CHECKS_OF_DEREGISTRATION if registration.deregisters else _CHECKS
    return next((code for check in checks if (code := check(registration)) is not None), None)


def foreign_agent_refusal(item: Registration) -> Code | None:
    """Exactly one valid extension 34 where an association is shared (RFC 5944 section 3.8.2.1 c); not needed to deregister."""
    if not item.foreign_home:
        return Code.FOREIGN_AGENT_AUTHENTICATION if item.foreign_agent and not item.deregisters else None
    agent = item.foreign_agent
    if agent is None or len(item.foreign_home) != 1:
        return Code.FOREIGN_AGENT_AUTHENTICATION
    at, extension = item.foreign_home[0]
    association = agent.by_spi.get(extension.spi)
    if association is None or not authentication.verify(
        item.datagram.data, at, extension, association.key, association.algorithm
    ):
        return Code.FOREIGN_AGENT_AUTHENTICATION
    return None


def _home_agent(item: Registration) -> Code | None:
    """Sent to a broadcast address, or to another agent: the reply names ours (RFC 5944 section 3.8.2.1)."""
    asked_by_broadcast = item.datagram.destination in item.config.broadcasts
    return Code.UNKNOWN_HOME_AGENT if asked_by_broadcast or item.request.home_agent not in item.config.addresses else None


def _form(item: Registration) -> Code | None:
    multipath = item.multipath
    badly = (
        len(item.multipaths) > 1
        or len(item.nais) > 1
        or (multipath is not None and not _is_well_formed(multipath, item.deregisters))
        or not all(map(flows.is_well_formed, item.flows))
    )
    return Code.POORLY_FORMED_REQUEST if badly else None


def _is_well_formed(multipath: Multipath, deregisters: bool) -> bool:
    """RFC 7629 section 4.1: values that are permitted, at most one of B and O, no O in a deregistration."""
    return (
        1 <= multipath.bid <= flows.BID_MAX
        and multipath.label != 0
        and multipath.technology in _TECHNOLOGIES
        and not (multipath.overwrite and (multipath.bulk or deregisters))
    )


def _care_of_form(item: Registration) -> Code | None:
    """A care-of address is a unicast address, and another one than the home address."""
    care_of = item.request.care_of_address
    return Code.POORLY_FORMED_REQUEST if care_of == item.home_address or not _is_unicast(care_of) else None


@lru_cache(maxsize=4096)
def _is_unicast(text: str) -> bool:
    address = ipaddress.IPv4Address(text)
    return not (address.is_multicast or address.is_unspecified or address.is_loopback or address.is_reserved)


def _administration(item: Registration) -> Code | None:
    """The mobile node is switched off, or asks for a home address that is not its own."""
    if not item.node.enabled or (item.node.nai and item.nais and item.nais[0] != item.node.nai):
        return Code.ADMINISTRATIVELY_PROHIBITED
    return None if item.owns_home_address else Code.ADMINISTRATIVELY_PROHIBITED


def _care_of_loop(item: Registration) -> Code | None:
    """A tunnel to ourselves or to an address that is tunnelled itself would be a loop."""
    care_of = item.request.care_of_address
    loop = care_of in item.config.addresses or care_of in item.homes or care_of in item.config.broadcasts
    return Code.REASON_UNSPECIFIED if loop else None


def _udp(item: Registration) -> Code | None:
    """UDP is needed and not offered, or with an encapsulation inside that is not (RFC 3519 sections 3.1.4, 3.5)."""
    if item.behind_nat and not item.config.udp_tunnel:
        return Code.UDP_ENCAPSULATION_UNAVAILABLE
    if item.in_udp and item.udp is not None and item.udp.encapsulation not in (0, Tunnelled.IP_IN_IP):
        return Code.UDP_ENCAPSULATION_UNAVAILABLE
    return None


def _encapsulation(item: Registration) -> Code | None:
    """An encapsulation that is not offered, or another one than others use between the same two ends (RFC 3024 section 3.4)."""
    flags = item.request.flags
    if not item.in_udp:
        gre_missing = flags & RequestFlag.GRE and Encapsulation.GRE not in item.config.encapsulations
        if flags & RequestFlag.MINIMAL_ENCAPSULATION or gre_missing:
            return Code.ENCAPSULATION_UNAVAILABLE
    other = item.different(item.tunnel)
    own = item.bindings.get(item.key)
    alone = own is not None and own.tunnel.key == item.tunnel.key and other is not None and other[1] == 1
    return None if other is None or alone else Code.ENCAPSULATION_UNAVAILABLE


def _reverse_tunnel(item: Registration) -> Code | None:
    asked = item.request.flags & RequestFlag.REVERSE_TUNNEL
    if asked and not item.config.reverse_tunnel:
        return Code.REVERSE_TUNNEL_UNAVAILABLE
    return Code.REVERSE_TUNNEL_MANDATORY if item.config.reverse_tunnel_required and not asked else None


def _multipath_permission(item: Registration) -> Code | None:
    asked = item.multipath is not None or item.flows
    return Code.MULTIPATH_NOT_ALLOWED if asked and not item.node.multipath else None


def _flow_bids(item: Registration) -> Code | None:
    known = flows.bids_known(item.flows, item.bids_afterwards)
    return None if known else Code.INVALID_FLOW_BINDING_IDENTIFIER


def _room(item: Registration) -> Code | None:
    limits = item.config.limits
    if not item.home_address:
        return Code.INSUFFICIENT_RESOURCES  # the pool is empty
    change = (item.key not in item.bindings) - len(item.replaced)
    if len(item.bindings) + change > limits.bindings_per_home:
        return Code.TOO_MANY_BINDINGS
    too_many_flows = bool(item.flows) and item.flows_elsewhere(item.bid) + len(item.flows) > limits.flows_per_home
    too_many = item.bindings_in_all + change > limits.bindings
    return Code.INSUFFICIENT_RESOURCES if too_many or too_many_flows else None


_Check = Callable[[Registration], Code | None]
_CHECKS_OF_DEREGISTRATION: Final[tuple[_Check, ...]] = (
    _home_agent, _form, _administration, _multipath_permission,
)  # fmt: skip
_CHECKS: Final[tuple[_Check, ...]] = (
    _home_agent, _form, _care_of_form, _administration, _care_of_loop, _udp, _encapsulation, _reverse_tunnel,
    _multipath_permission, _flow_bids, _room,
)  # fmt: skip
