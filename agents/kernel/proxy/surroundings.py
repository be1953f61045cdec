"""What the proxy must know of the host: which local addresses there are and which of them work; and what it sets there."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final

from agents.core.proxy.config import LocalAddress
from agents.kernel.proxy.rtnetlink import Address, Link

GSO_MAX_BYTES: Final = 60_000
"""A superpacket must not grow beyond 65,535 bytes when options are added to it."""
MTU_DEFAULT: Final = 1500
_CONF = "/proc/sys/net/ipv4/conf"
# The kernel takes the larger one of `all` and the interface. A packet for an address of another interface is no spoofed one
# here; and addresses on lo must not be answered for in networks where somebody else may have got them meanwhile.
_IPV4_PARAMETERS: Final = {"rp_filter": 0, "arp_ignore": 1, "arp_announce": 2}


def local_addresses(
    links: Iterable[Link],
    addresses: Iterable[Address],
    costs: Mapping[str, int],
    leaves_by: Callable[[bytes], int | None],
) -> list[LocalAddress]:
    """The addresses of the configured interfaces (no costs: of all but lo).

    An address is usable when its interface is up with a carrier and packets from it leave there: a subflow from elsewhere
    would look like a second path and be none.
    """
    result = []
    by_index = {link.index: link for link in links}
    for address in addresses:
        link = by_index.get(address.index)
        if link is None or address.pinned or link.name == "lo" or (costs and link.name not in costs):
            continue
        usable = address.usable and link.up and link.carrier and leaves_by(address.address) == link.index
        result.append(LocalAddress(address.address, link.name, usable, costs.get(link.name, 0)))
    return result


def alive(links: Iterable[Link], addresses: Iterable[Address]) -> set[bytes]:
    """Addresses on interfaces that are up and have a carrier, configured or not."""
    working = {link.index for link in links if link.up and link.carrier and link.name != "lo"}
    return {address.address for address in addresses if address.index in working and address.usable and not address.pinned}


def smallest_mtu(links: Iterable[Link], costs: Mapping[str, int]) -> int:
    """Of the configured interfaces (no costs: of all but lo), in bytes."""
    return min((link.mtu for link in links if link.name != "lo" and (not costs or link.name in costs)), default=MTU_DEFAULT)


class Parameters:
    """IPv4 parameters of interfaces that are changed while the proxy runs, and get their old values back."""

    def __init__(self, root: str = _CONF) -> None:
        self._root = Path(root)
        self._before: dict[Path, str] = {}

    def set(self, interface: str) -> str | None:
        """Set all of an interface, or of "all"; the reason when one is refused. An interface that is set already stays."""
        for name, value in _IPV4_PARAMETERS.items():
            path = self._root / interface / name
            if path in self._before:
                continue
            try:
                before = path.read_text().strip()
                if before != str(value):
                    path.write_text(f"{value}\n")
            except OSError as error:
                return f"{path}: {error.strerror}"
            self._before[path] = before
        return None

    def restore(self) -> None:
        """Old values again; interfaces that are gone have none."""
        for path, value in self._before.items():
            try:
                path.write_text(value + "\n")
            except OSError:
                continue
        self._before.clear()
