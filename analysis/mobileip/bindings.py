"""Timeline of bindings, from accepted registrations and revocations.

Sources: RFC 5944 sections 3.3 (S bit, lifetime) and 3.8.2 (what a request does to the other bindings), RFC 3543 (revocation),
RFC 7629 section 4.1 (flags B and O); RFC 6275 sections 9.5 and 10.3, RFC 5648 section 6 (several care-of addresses), RFC 5846
(revocation). Every message costs a bounded number of steps, bulk operations what they end.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from analysis.mobileip.finding import Seen
from analysis.mobileip.registrations import ACCEPTED, NOT_ASKED, Registration

_INFINITE_S = 0xFFFF  # RFC 5944 section 3.3; Mobile IPv6 knows no such value
_SIMULTANEOUS_UNSUPPORTED = 1
_NEVER_NS = (1 << 63) - 1
EXPIRED, REPLACED, DEREGISTERED, OVERWRITTEN, REVOKED = "expired", "replaced", "deregistered", "overwritten", "revoked"
BINDING_ERROR, CAPTURE_ENDS = "binding error", "end of capture"


@dataclass(slots=True)
class Binding:
    """One binding: columns of the table `bindings`, see `analysis.mobileip.Mobility`."""

    family: int
    home_address: str
    peer: str
    role: str
    care_of_address: str
    bid: int
    label: int
    access_technology: str
    from_ns: int
    to_ns: int
    ended: str
    lifetime_s: int
    refreshes: int
    encapsulation: str
    reverse_tunnel: bool
    foreign_agent: bool
    registration: int
    last_registration: int
    _expires_ns: int = _NEVER_NS
    _key: int | str = 0


@dataclass(slots=True)
class _Owner:
    """Open bindings of one home address at one home agent or correspondent."""

    by_bid: dict[int, Binding] = field(default_factory=dict)
    by_care_of: dict[str, Binding] = field(default_factory=dict)

    def all(self) -> list[Binding]:
        """Every open binding."""
        return [*self.by_bid.values(), *self.by_care_of.values()]


class _Timeline:
    def __init__(self) -> None:
        self.bindings: list[Binding] = []
        self._owners: dict[Any, _Owner] = {}
        self._last_peer: dict[Any, str] = {}

    def register(self, number: int, r: Registration) -> None:
        """Apply an accepted registration."""
        owner = self._owner(r.family, r.home_address, r.peer if r.family == 6 else r.home_agent)
        if r.kind == "deregistration" or r.granted_s == 0:
            self._deregister(owner, r)
        elif r.care_of_address:
            self._bind(owner, number, r)

    def revoke(self, seen: Seen, how: str) -> None:
        """Apply a revocation or binding error."""
        m = seen.message
        peer = m.home_agent if seen.family == 4 else seen.src
        if (seen.family, m.home_address, peer) not in self._owners:  # sent by the foreign agent, or with a shared address
            peer = self._last_peer.get((seen.family, m.home_address), peer)
        owner = self._owners.get((seen.family, m.home_address, peer))
        if owner is None:
            return
        by_address = _with_care_of(owner, m.care_of_address) if seen.family == 4 else ()
        named = [*by_address, *(owner.by_bid[b] for b in m.bids if b in owner.by_bid)]
        self._close(owner, named or owner.all(), seen.time_ns, how)

    def finish(self, end_ns: int) -> list[Binding]:
        """Bindings in order of their begin, those still open at the end included."""
        for owner in self._owners.values():
            self._close(owner, owner.all(), end_ns, CAPTURE_ENDS)
        return self.bindings

    def _owner(self, family: int, home: str, peer: str) -> _Owner:
        self._last_peer[family, home] = peer
        return self._owners.setdefault((family, home, peer), _Owner())

    def _deregister(self, owner: _Owner, r: Registration) -> None:
        if r.bids and not r.bulk:
            ended = [owner.by_bid[bid] for bid in r.bids if bid in owner.by_bid]
        elif r.bids or r.family == 6 or r.care_of_address in ("", r.home_address):
            ended = owner.all()
        else:
            ended = list(_with_care_of(owner, r.care_of_address))
        self._close(owner, ended, r.effective_ns, DEREGISTERED)

    def _bind(self, owner: _Owner, number: int, r: Registration) -> None:
        now_ns = r.effective_ns
        if r.bids:
            addresses = r._care_of or tuple((bid, "") for bid in r.bids)
            wanted = {bid: address or r.care_of_address for bid, address in addresses if bid not in r._refused_bids}
            others = list(owner.by_care_of.values())
            if r.overwrite:
                others += [b for b in owner.by_bid.values() if wanted.get(b.bid) != b.care_of_address]
            self._close(owner, others, now_ns, OVERWRITTEN if r.overwrite else REPLACED)
            for bid, address in wanted.items():
                self._put(owner, owner.by_bid, bid, address, number, r)
            if r.bulk:
                for binding in owner.by_bid.values():
                    _extend(binding, number, r)
            return
        keep = r.simultaneous and r.code != _SIMULTANEOUS_UNSUPPORTED
        if not keep:
            others = [b for b in owner.all() if b.care_of_address != r.care_of_address or b.bid]
            self._close(owner, others, now_ns, REPLACED)
        self._put(owner, owner.by_care_of, r.care_of_address, r.care_of_address, number, r)

    def _put(self, owner: _Owner, table: dict[Any, Binding], key: Any, care_of: str, number: int, r: Registration) -> None:
        """Refresh the binding under `key`, or open one in place of what was there."""
        now_ns, old = r.effective_ns, table.get(key)
        if old is not None and old._expires_ns >= now_ns and old.care_of_address == care_of:
            old.refreshes += 1
            r.kind = "refresh"
            _extend(old, number, r)
            return
        if old is not None:
            self._close(owner, [old], now_ns, REPLACED)
        encapsulation = r.encapsulation
        if r.family == 6:
            encapsulation = "IPv6-in-IPv6" if r.role == "home agent" else "route-optimised"
        binding = Binding(
            r.family, r.home_address, r.peer if r.family == 6 else r.home_agent, r.role, care_of, key if r.bids else 0, r.label,
            r.access_technology, now_ns, now_ns, "", r.granted_s, 0, encapsulation, r.family == 6 or "T" in r.flags.split(),
            r.family == 4 and "D" not in r.flags.split(), number, number,
        )  # fmt: skip
        binding._key = key
        _extend(binding, number, r)
        table[key] = binding
        self.bindings.append(binding)

    def _close(self, owner: _Owner, bindings: Sequence[Binding], now_ns: int, how: str) -> None:
        for binding in bindings:
            expired = binding._expires_ns < now_ns
            binding.to_ns, binding.ended = (binding._expires_ns, EXPIRED) if expired else (now_ns, how)
            if isinstance(binding._key, int):
                owner.by_bid.pop(binding._key, None)
            else:
                owner.by_care_of.pop(binding._key, None)


def _with_care_of(owner: _Owner, care_of: str) -> Iterator[Binding]:
    """Open bindings of Mobile IPv4 to a care-of address; there are at most 256 with an identifier."""
    if care_of in owner.by_care_of:
        yield owner.by_care_of[care_of]
    yield from (b for b in owner.by_bid.values() if b.care_of_address == care_of)


def _extend(binding: Binding, number: int, r: Registration) -> None:
    """Begin the granted lifetime anew."""
    endless = r.family == 4 and r.granted_s == _INFINITE_S
    binding.lifetime_s, binding.last_registration = r.granted_s, number
    binding._expires_ns = _NEVER_NS if endless else min(r.effective_ns + r.granted_s * 10**9, _NEVER_NS)


def timeline(registrations: Sequence[Registration], messages: Sequence[Seen], end_ns: int) -> list[Binding]:
    """Bindings in order of their begin. `end_ns`: time of the last packet. Marks registrations that only refresh one."""
    kinds = {"revocation": REVOKED, "BRI": REVOKED, "BE": BINDING_ERROR}
    events: list[tuple[int, int, Any]] = [
        (r.effective_ns, number, r) for number, r in enumerate(registrations) if r.result in (ACCEPTED, NOT_ASKED)
    ]
    events += [(s.time_ns, -1, s) for s in messages if s.message.kind in kinds and not s.copy]
    events.sort(key=lambda event: event[:2])
    result = _Timeline()
    for _, number, event in events:
        if isinstance(event, Registration):
            result.register(number, event)
        else:
            result.revoke(event, kinds[event.message.kind])
    return result.finish(end_ns)
