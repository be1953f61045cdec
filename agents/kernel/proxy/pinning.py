"""Keeps the addresses of proxied connections alive on this host, whatever becomes of their interfaces.

A TCP keeps the local address that it began with. When the address or its interface vanishes, the kernel finds no route for its
segments and never builds them, and does not recognise what arrives for it. So every such address is an address of lo as well
(offered to nobody: scope host, or deprecated), and while it is not usable its TCP has a route over lo. That route leads
nowhere but through the queue: the proxy's answer has another source address and a mark, and is routed anew by these.
"""

from collections.abc import Callable, Collection
from typing import Final

from agents.kernel.eventlog import EventLog
from agents.kernel.netlink import KernelError
from agents.kernel.proxy.rtnetlink import RtNetlink, text
from agents.kernel.proxy.rules import OWN_MARK, UNTOUCHED_MASK

PIN_TABLE: Final = 8684
PIN_PRIORITY: Final = 500
"""Before every rule that routes by source address, behind the one for local addresses."""
PAIR_PRIORITY: Final = PIN_PRIORITY - 1
"""Of pairs of addresses whose TCP needs the route over lo for its path MTU, while the addresses work."""
MTU_LEAST: Final = 1280

Pair = tuple[bytes, bytes]
"""Local and remote address."""


class Pins:
    """The addresses that are kept alive.

    Changes that the kernel refuses are logged, and tried again with the next `update`.
    """

    def __init__(self, netlink: RtNetlink, log: EventLog) -> None:
        self._netlink, self._log = netlink, log
        self._held: set[bytes] = set()
        self._detoured: set[bytes] = set()
        self._isolated: set[Pair] = set()
        self._mtu = 0

    @property
    def held(self) -> frozenset[bytes]:
        """Addresses that are kept."""
        return frozenset(self._held)

    @property
    def detoured(self) -> frozenset[bytes]:
        """Those of them whose TCP has the route over lo now."""
        return frozenset(self._detoured)

    @property
    def isolated(self) -> frozenset[Pair]:
        """Pairs of addresses that have the route over lo."""
        return frozenset(self._isolated)

    def isolate(self, pair: Pair) -> None:
        """TCP between two addresses gets the route over lo: what it is told about the path MTU holds for no packet of ours."""
        if pair not in self._isolated and self._change_pair(pair, add=True):
            self._isolated.add(pair)

    def let_go(self, present: Collection[Pair]) -> None:
        """There are connections between no pairs of addresses but these."""
        for pair in sorted(self._isolated.difference(present)):
            if self._change_pair(pair, add=False):
                self._isolated.discard(pair)

    def _change_pair(self, pair: Pair, *, add: bool) -> bool:
        change = self._netlink.change_pair_rule
        return self._try("rule", lambda: change(pair, PAIR_PRIORITY, PIN_TABLE, UNTOUCHED_MASK, add=add))

    def adopt(self) -> None:
        """Take over what a former agent left: its connections are unknown now, but their ends must still be told so."""
        self._try("rule", lambda: self._netlink.delete_rules(PAIR_PRIORITY, PIN_TABLE))
        self._held = {address.address for address in self._netlink.addresses() if address.pinned}
        self._detoured = {address for priority, address in self._netlink.pin_rules(PIN_TABLE) if priority == PIN_PRIORITY}

    def set_mtu(self, mtu: int) -> None:
        """The smallest MTU of the networks. Not that of lo: TCP would make its segments by it."""
        mtu = max(mtu, MTU_LEAST)
        if mtu == self._mtu:
            return
        set_default = self._netlink.set_loopback_default
        if self._try("route", lambda: set_default(4, PIN_TABLE, mtu)) and self._try(
            "route", lambda: set_default(6, PIN_TABLE, mtu)
        ):
            self._mtu = mtu

    def hold(self, address: bytes) -> None:
        """A connection is bound to the address."""
        if address not in self._held and self._try("pin", lambda: self._netlink.add_loopback_address(address)):
            self._held.add(address)
            self._log.write("pinned", address=text(address))

    def update(self, usable: Collection[bytes], in_use: Collection[bytes]) -> None:
        """The state of the interfaces: `usable` addresses need no detour; those not `in_use` are let go."""
        for address in sorted(self._held):
            if address in usable:
                self._detour(address, on=False)
            elif address in in_use:
                self._detour(address, on=True)
            else:
                self._release(address)

    def close(self) -> None:
        """Undo everything but the routes: nothing leads to them any more."""
        self.let_go(())
        for address in sorted(self._held | self._detoured):
            self._release(address)

    def _detour(self, address: bytes, *, on: bool) -> None:
        if on is (address in self._detoured):
            return
        change = self._netlink.change_pin_rule
        if self._try("rule", lambda: change(address, PIN_PRIORITY, PIN_TABLE, OWN_MARK, add=on)):
            (self._detoured.add if on else self._detoured.discard)(address)
            self._log.write("detour-begins" if on else "detour-ends", address=text(address))

    def _release(self, address: bytes) -> None:
        self._detour(address, on=False)
        if address in self._held and self._try("unpin", lambda: self._netlink.delete_loopback_address(address)):
            self._held.discard(address)
            self._log.write("unpinned", address=text(address))

    def _try(self, what: str, change: Callable[[], None]) -> bool:
        try:
            change()
        except KernelError as error:
            self._log.write("failed", what=f"{what}: {error.strerror or error}")
            return False
        return True
