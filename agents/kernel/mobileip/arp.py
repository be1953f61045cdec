"""ARP for home addresses: answering for them on the home link, and announcing where they are (RFC 5944 section 4.6)."""

import asyncio
import fcntl
import socket
import struct
from typing import Final

from agents.kernel.mobileip.netlink import MobileNetlink
from agents.kernel.mobileip.parameters import Parameters

_ETH_P_ARP: Final = 0x0806
_ETHERNET, _IPV4, _REQUEST, _REPLY = 1, 0x0800, 1, 2
_SIOCGIFHWADDR: Final = 0x8927
_BROADCAST = b"\xff" * 6
ANNOUNCEMENT_DELAYS_S: Final = (0.0, 1.0, 3.0)
"""An announcement may be lost; hosts that missed it would go on sending to the old place."""


def announcement(address: str, link_address: bytes, operation: int) -> bytes:
    """Gratuitous ARP: sender and target are the same address (RFC 5227 section 3)."""
    own = socket.inet_aton(address)
    target = link_address if operation == _REPLY else bytes(6)
    return struct.pack("!HHBBH", _ETHERNET, _IPV4, 6, 4, operation) + link_address + own + target + own


class Announcer:
    """Announces an address several times, until it is told that this is no longer so."""

    def __init__(self) -> None:
        self._timers: dict[str, list[asyncio.TimerHandle]] = {}
        # One for all: to bind or close such a socket waits for the whole kernel (RCU), for each of thousands of addresses.
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)

    def announce(self, address: str, interface: str) -> None:
        """Send it once, as a request and as a reply: hosts differ in which one they take. Raises OSError."""
        own = fcntl.ioctl(self._socket, _SIOCGIFHWADDR, struct.pack("16s24x", interface.encode()))[18:24]
        for operation in (_REQUEST, _REPLY):
            self._socket.sendto(announcement(address, own, operation), (interface, _ETH_P_ARP, 0, 0, _BROADCAST))

    def begin(self, address: str, interface: str) -> None:
        """Announce now and later. Raises OSError when the first cannot be sent."""
        self.end(address)
        self.announce(address, interface)
        loop = asyncio.get_running_loop()
        self._timers[address] = [
            loop.call_later(delay_s, self._quietly, address, interface) for delay_s in ANNOUNCEMENT_DELAYS_S[1:]
        ]

    def end(self, address: str) -> None:
        """No more."""
        for timer in self._timers.pop(address, []):
            timer.cancel()

    def close(self) -> None:
        """No more of any address."""
        for address in list(self._timers):
            self.end(address)
        self._socket.close()

    def _quietly(self, address: str, interface: str) -> None:
        try:
            self.announce(address, interface)
        except OSError:
            return  # the interface is gone, and who announced it knows


class ProxyArp:
    """Answers ARP requests for home addresses on the home link, by proxy entries. "" as interface: no home link."""

    def __init__(self, netlink: MobileNetlink, parameters: Parameters, interface: str) -> None:
        self._netlink, self._interface = netlink, interface
        self._announcer = Announcer()
        self.defended: set[str] = set()
        if interface:
            # Otherwise the kernel waits up to 0.8 s with an answer (RFC 1027's storm protection).
            parameters.set(f"net/ipv4/neigh/{interface}/proxy_delay", 0)
            # Else it would point hosts of the home link to where the tunnel's packets leave.
            parameters.set(f"net/ipv4/conf/{interface}/send_redirects", 0)
            parameters.set("net/ipv4/conf/all/send_redirects", 0)

    def defend(self, address: str) -> None:
        """Answer for it and announce it. Raises OSError."""
        self.defended.add(address)
        if self._interface:
            self._netlink.change_neighbour(self._interface, address, add=True)
            self._announcer.begin(address, self._interface)

    def release(self, address: str) -> None:
        """Do not answer any more. Raises OSError."""
        self.defended.discard(address)
        self._announcer.end(address)
        if self._interface:
            self._netlink.change_neighbour(self._interface, address, add=False)

    def close(self) -> None:
        """Release all. Raises OSError."""
        for address in list(self.defended):
            self.release(address)
        self._announcer.close()
