"""Tunnels of the home agent whose binding has just gone: what is still under way in them is taken for a moment.

A mobile node goes on sending through its old tunnel until the reply about its new one has reached it. Only packets from
the home address that the tunnel belonged to pass, as before (RFC 3024 section 4): nothing is sent into such a tunnel.
"""

from dataclasses import dataclass
from typing import Final

from agents.core.mobileip.actions import Tunnel

DRAIN_S: Final = 2.0
"""So long packets that are under way are waited for."""
DRAINED_MAX: Final = 256
"""Tunnels of one agent that are drained at a time: when there are more, the oldest ones close at once."""

TunnelKey = tuple[str, str, int]


@dataclass(frozen=True, slots=True)
class Drained:
    """A tunnel without binding that still takes packets from a home address."""

    home_address: str
    tunnel: Tunnel
    until_s: float


class Draining:
    """All of them, the one that ends first in front."""

    def __init__(self) -> None:
        self._entries: dict[tuple[str, TunnelKey], Drained] = {}
        self._homes: dict[str, dict[TunnelKey, Tunnel]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def of(self, home_address: str) -> tuple[Tunnel, ...]:
        """Those of a home address."""
        return tuple(self._homes.get(home_address, {}).values())

    def users(self, key: TunnelKey) -> list[Drained]:
        """Those with these ends."""
        return [item for item in self._entries.values() if item.tunnel.key == key]

    def begin(self, home_address: str, tunnel: Tunnel, now_s: float) -> list[Drained]:
        """Drain a tunnel from now on. Those that must end for it: it was drained already, or there are too many."""
        ended = [before] if (before := self.end(home_address, tunnel)) is not None else []
        self._entries[home_address, tunnel.key] = Drained(home_address, tunnel, now_s + DRAIN_S)
        self._homes.setdefault(home_address, {})[tunnel.key] = tunnel
        while len(self._entries) > DRAINED_MAX:
            oldest = next(iter(self._entries.values()))
            self.end(oldest.home_address, oldest.tunnel)
            ended.append(oldest)
        return ended

    def end(self, home_address: str, tunnel: Tunnel) -> Drained | None:
        """Do not drain it any more; None: it was not."""
        found = self._entries.pop((home_address, tunnel.key), None)
        if found is not None:
            tunnels = self._homes[home_address]
            del tunnels[tunnel.key]
            if not tunnels:
                del self._homes[home_address]
        return found

    def over(self, now_s: float) -> list[Drained]:
        """Those whose time is over; they are not there any more."""
        found = []
        for item in list(self._entries.values()):
            if item.until_s > now_s:
                break
            self.end(item.home_address, item.tunnel)
            found.append(item)
        return found

    def next_deadline_s(self) -> float | None:
        """When the first one is over."""
        first = next(iter(self._entries.values()), None)
        return None if first is None else first.until_s
