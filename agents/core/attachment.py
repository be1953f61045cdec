"""Where an interface is attached: when to ask for addresses, which to keep, which to give up. Pure; time is an argument.

Detecting network attachment follows RFC 4436 (IPv4) and RFC 6059 (IPv6) in spirit: after the carrier has returned nothing
is thrown away until the network has shown itself to be another one.
  IPv6: a prefix heard again is kept; when a prefix that was not known before is heard, those not heard since are dropped.
  IPv4: the DHCP client asks at once for its previous address. The same answer changes nothing; another one replaces the
  old address; when IPv6 shows another network and DHCP stays silent, the old address goes after LEASE_GRACE_S.
"""

import ipaddress
from dataclasses import dataclass, field
from typing import TypeAlias

SOLICITATION_DELAYS_S = (0.0, 1.0, 3.0, 7.0)
"""Router solicitations after the carrier has returned, until a prefix is heard (RFC 4861 sends three, 4 s apart)."""
LEASE_GRACE_S = 3.0
PREFIX_LIMIT = 64
"""Prefixes that are remembered, whatever is advertised; the kernel itself makes at most 16 addresses."""


@dataclass(frozen=True)
class StartDhcp:
    """Action: start the DHCP client (a running one is replaced). `slot` 0...: which lease; `request`: previous address."""

    slot: int
    request: str = ""


@dataclass(frozen=True)
class StopDhcp:
    """Action: end the DHCP client without giving the lease back."""

    slot: int


@dataclass(frozen=True)
class Solicit:
    """Action: send a router solicitation now."""


@dataclass(frozen=True)
class DropPrefix:
    """Action: remove the automatic IPv6 addresses of this prefix from the interface."""

    prefix: str


@dataclass(frozen=True)
class DropRouter:
    """Action: remove the default route that this router announced."""

    gateway: str


@dataclass(frozen=True)
class DropAll:
    """Action: remove all automatic IPv6 addresses and announced default routes."""


@dataclass(frozen=True)
class ListenToRouters:
    """Action: obey router advertisements or ignore them."""

    on: bool


Action: TypeAlias = StartDhcp | StopDhcp | Solicit | DropPrefix | DropRouter | DropAll | ListenToRouters


@dataclass(frozen=True)
class Lease:
    """What the DHCP server gave: address, prefix length, router ("" when none)."""

    address: str
    prefix_length: int
    router: str = ""


@dataclass
class _Slot:
    lease: Lease | None = None
    confirmed: bool = False
    running: bool = False


@dataclass
class Attachment:
    """The attachment of one interface."""

    dhcp_slots: int = 1
    """DHCP clients to run; 0: IPv4 is not automatic."""
    follow_routers: bool = True
    """Whether IPv6 addresses come from router advertisements."""
    ready: bool = False
    """Present, administratively up, with carrier."""
    released: bool = False
    """The user took the addresses away; they stay away until `acquire`."""
    routers: list[str] = field(default_factory=list)
    """Gateways of announced default routes, the latest first."""
    _slots: list[_Slot] = field(default_factory=list)
    _heard: dict[str, bool] = field(default_factory=dict)
    _old_routers: set[str] = field(default_factory=set)
    _solicit_at_s: list[float] = field(default_factory=list)
    _drop_leases_at_s: float | None = None

    def __post_init__(self) -> None:
        self._slots = [_Slot() for _ in range(self.dhcp_slots)]

    # -- what the driver asks -----------------------------------------------------------------------------------------
    @property
    def leases(self) -> list[Lease]:
        """The leases whose addresses belong on the interface."""
        return [] if self.released else [slot.lease for slot in self._slots if slot.lease is not None]

    @property
    def prefixes(self) -> dict[str, bool]:
        """Known IPv6 prefixes -> heard since the carrier has returned."""
        return dict(self._heard)

    def next_deadline_s(self) -> float | None:
        """When `handle_deadline` wants to be called; None: not at all."""
        times = list(self._solicit_at_s)
        if self._drop_leases_at_s is not None:
            times.append(self._drop_leases_at_s)
        return min(times, default=None)

    # -- what happens -------------------------------------------------------------------------------------------------
    def handle_link(self, present: bool, up: bool, carrier: bool, now_s: float) -> list[Action]:
        """State of the interface."""
        ready = present and up and carrier
        result: list[Action] = []
        if not present:
            for slot in self._slots:
                slot.lease, slot.confirmed = None, False
            self._heard.clear()
            self.routers.clear()
            self._old_routers.clear()
        if ready == self.ready:
            return result
        self.ready = ready
        self._drop_leases_at_s = None
        self._solicit_at_s = []
        if not ready:
            for number, slot in enumerate(self._slots):
                if slot.running:
                    slot.running = False
                    result.append(StopDhcp(number))
            return result
        self._heard = dict.fromkeys(self._heard, False)
        self._old_routers = set(self.routers)
        for slot in self._slots:
            slot.confirmed = False
        if not self.released:
            result += self._start(now_s)
        return result

    def handle_lease(self, number: int, lease: Lease, now_s: float) -> list[Action]:
        """The DHCP client `number` was given or has renewed a lease."""
        slot = self._slots[number]
        if self.released or not slot.running:
            return []
        slot.lease, slot.confirmed = lease, True
        if all(item.confirmed for item in self._slots):
            self._drop_leases_at_s = None
        return []

    def handle_lease_lost(self, number: int) -> list[Action]:
        """The lease ran out or the server refused it."""
        self._slots[number].lease = None
        return []

    def handle_client_ended(self, number: int, now_s: float) -> list[Action]:
        """The DHCP client ended by itself: start another one if it is needed."""
        slot = self._slots[number]
        slot.running = False
        if not self.ready or self.released:
            return []
        slot.running = True
        return [StartDhcp(number, slot.lease.address if slot.lease else "")]

    def handle_prefix(self, prefix: str, valid_s: int, now_s: float) -> list[Action]:
        """A router advertised a prefix with this valid lifetime."""
        if self.released or not self.follow_routers:
            return []
        self._solicit_at_s = []
        if valid_s == 0:
            self._heard.pop(prefix, None)
            return []
        known = prefix in self._heard
        self._heard[prefix] = True
        while len(self._heard) > PREFIX_LIMIT:
            del self._heard[next(iter(self._heard))]
        if known:
            return []
        result: list[Action] = []
        unheard = [item for item, heard in self._heard.items() if not heard]
        if unheard:
            # Another network.
            for item in unheard:
                del self._heard[item]
                result.append(DropPrefix(item))
            new_routers = [router for router in self.routers if router not in self._old_routers]
            if new_routers:
                result += [DropRouter(router) for router in self.routers if router in self._old_routers]
                self.routers = new_routers
            if any(slot.lease and not slot.confirmed for slot in self._slots):
                self._drop_leases_at_s = now_s + LEASE_GRACE_S
        elif len(self._heard) > 1:
            # The network has a new number: ask whether the IPv4 address is still right.
            for number, slot in enumerate(self._slots):
                if slot.running and slot.confirmed:
                    slot.confirmed = False
                    result.append(StartDhcp(number, slot.lease.address if slot.lease else ""))
        return result

    def handle_routers(self, gateways: list[str]) -> list[Action]:
        """The announced default routes that the kernel has on this interface, in any order."""
        new = [gateway for gateway in gateways if gateway not in self.routers]
        self.routers = new + [gateway for gateway in self.routers if gateway in gateways]
        return []

    def handle_deadline(self, now_s: float) -> list[Action]:
        """Time has passed."""
        result: list[Action] = []
        due = [time_s for time_s in self._solicit_at_s if time_s <= now_s]
        if due:
            self._solicit_at_s = [time_s for time_s in self._solicit_at_s if time_s > now_s]
            result.append(Solicit())
        if self._drop_leases_at_s is not None and self._drop_leases_at_s <= now_s:
            self._drop_leases_at_s = None
            for slot in self._slots:
                if not slot.confirmed:
                    slot.lease = None
        return result

    def release(self) -> list[Action]:
        """The addresses go and stay away."""
        if self.released:
            return []
        self.released = True
        self._solicit_at_s, self._drop_leases_at_s = [], None
        self._heard.clear()
        self.routers.clear()
        self._old_routers.clear()
        result: list[Action] = []
        for number, slot in enumerate(self._slots):
            slot.lease, slot.confirmed = None, False
            if slot.running:
                slot.running = False
                result.append(StopDhcp(number))
        if self.follow_routers:
            result += [ListenToRouters(False), DropAll()]
        return result

    def acquire(self, now_s: float) -> list[Action]:
        """The addresses may come back."""
        if not self.released:
            return []
        self.released = False
        result: list[Action] = [ListenToRouters(True)] if self.follow_routers else []
        if self.ready:
            result += self._start(now_s)
        return result

    def _start(self, now_s: float) -> list[Action]:
        result: list[Action] = []
        for number, slot in enumerate(self._slots):
            slot.running = True
            result.append(StartDhcp(number, slot.lease.address if slot.lease else ""))
        if self.follow_routers:
            self._solicit_at_s = [now_s + delay_s for delay_s in SOLICITATION_DELAYS_S[1:]]
            result.append(Solicit())
        return result


def same_prefix(address: str, prefix: str) -> bool:
    """Whether an address lies in a prefix."""
    return ipaddress.ip_address(address) in ipaddress.ip_network(prefix)
