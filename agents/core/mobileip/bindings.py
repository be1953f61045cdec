"""Mobility bindings of a home agent: the table, the deadlines, and who uses which tunnel (RFC 5944 section 3.8.1).

A binding has a key within its home address: its BID (RFC 7629), or without one its care-of address. The work for one binding
does not depend on how many there are: deadlines lie in a heap with about one entry for each binding, and an entry that is
too early by now is put back when its time comes.
"""

import heapq
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, TypeAlias

from agents.core.mobileip.actions import Tunnel

Key: TypeAlias = int | str
"""BID, or care-of address of a binding without BID."""
_HEAP_SPARE: Final = 1024
_NONE: Final[Mapping[Key, "Binding"]] = MappingProxyType({})


@dataclass(slots=True)
class Binding:
    """One care-of address of a home address."""

    home_address: str
    bid: int
    """0: registered without a Multipath extension."""
    care_of_address: str
    tunnel: Tunnel
    lifetime_s: int
    """As granted; 65535: for ever."""
    expires_s: float
    """Monotonic; infinite when the lifetime is."""
    expires_ntp: int | None
    """The same moment as a 64-bit NTP timestamp: for a restart. None: never."""
    label: int = 1
    technology: int = 1
    co_located: bool = True
    reverse_tunnel: bool = False
    broadcast: bool = False
    queued_s: float = field(default=math.inf, compare=False)
    """Where its entry in the heap is; infinite: there is none."""

    @property
    def key(self) -> Key:
        """What tells it from the other bindings of the home address."""
        return self.bid or self.care_of_address


class BindingTable:
    """All bindings, by home address and key: in the order in which they were made, without BID in that of their requests."""

    def __init__(self) -> None:
        self._homes: dict[str, dict[Key, Binding]] = {}
        self._heap: list[tuple[float, str, str]] = []
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Binding]:
        for bindings in self._homes.values():
            yield from bindings.values()

    @property
    def homes(self) -> int:
        """Home addresses that have a binding."""
        return len(self._homes)

    def of(self, home_address: str) -> Mapping[Key, Binding]:
        """The bindings of a home address; not to be changed."""
        return self._homes.get(home_address, _NONE)

    def put(self, binding: Binding) -> Binding | None:
        """Add a binding or put it into the place of the one with its key, which is returned."""
        bindings = self._homes.setdefault(binding.home_address, {})
        old = bindings.get(binding.key) if binding.bid else bindings.pop(binding.key, None)
        bindings[binding.key] = binding
        if old is None:
            self._count += 1
        else:
            binding.queued_s = old.queued_s
        if binding.expires_s < binding.queued_s:
            binding.queued_s = binding.expires_s
            heapq.heappush(self._heap, (binding.expires_s, binding.home_address, _text(binding.key)))
            self._bound_heap()
        return old

    def remove(self, home_address: str, key: Key) -> Binding | None:
        """Take a binding out."""
        bindings = self._homes.get(home_address)
        old = bindings.pop(key, None) if bindings else None
        if old is not None:
            self._count -= 1
            if not bindings:
                del self._homes[home_address]
        return old

    def next_deadline_s(self) -> float | None:
        """Monotonic time at which `expired` should be asked: never too late, at times too early."""
        return self._heap[0][0] if self._heap else None

    def expired(self, now_s: float) -> list[Binding]:
        """The bindings whose lifetime is over. They are still in the table."""
        found = []
        while self._heap and self._heap[0][0] <= now_s:
            at_s, home_address, key = heapq.heappop(self._heap)
            binding = self.of(home_address).get(_key(key))
            if binding is None or binding.queued_s != at_s:
                continue  # the entry of a binding that is gone, or that has an earlier one
            binding.queued_s = math.inf
            if binding.expires_s <= now_s:
                found.append(binding)
            elif binding.expires_s < math.inf:
                binding.queued_s = binding.expires_s
                heapq.heappush(self._heap, (binding.expires_s, home_address, key))
        return found

    def _bound_heap(self) -> None:
        if len(self._heap) <= 2 * self._count + _HEAP_SPARE:
            return
        self._heap = [(item.queued_s, item.home_address, _text(item.key)) for item in self if item.queued_s < math.inf]
        heapq.heapify(self._heap)


def _text(key: Key) -> str:
    """Keys as texts, so that entries of the heap can be compared."""
    return str(key)


def _key(text: str) -> Key:
    return text if "." in text else int(text)


class TunnelUsers:
    """How many bindings use each tunnel: several mobile nodes may be behind one foreign agent."""

    def __init__(self) -> None:
        self._users: dict[tuple[str, str, int], tuple[Tunnel, int]] = {}

    def __len__(self) -> int:
        return len(self._users)

    def acquire(self, tunnel: Tunnel) -> bool:
        """One user more; True: it is the first, the tunnel must be opened."""
        present, count = self._users.get(tunnel.key, (tunnel, 0))
        self._users[tunnel.key] = (present, count + 1)
        return count == 0

    def release(self, tunnel: Tunnel) -> bool:
        """One user less; True: nobody uses it any more, it must be closed."""
        present, count = self._users[tunnel.key]
        if count > 1:
            self._users[tunnel.key] = (present, count - 1)
            return False
        del self._users[tunnel.key]
        return True

    def different(self, tunnel: Tunnel) -> tuple[Tunnel, int] | None:
        """The open tunnel between the same ends when its encapsulation is another one, and the number of its users."""
        present = self._users.get(tunnel.key)
        return present if present is not None and present[0].encapsulation is not tunnel.encapsulation else None

    def reopened(self, tunnel: Tunnel) -> None:
        """The tunnel between these ends has this encapsulation now; its users stay."""
        self._users[tunnel.key] = (tunnel, self._users[tunnel.key][1])
