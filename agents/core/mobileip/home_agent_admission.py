"""Who may speak to the home agent: the way of a datagram before it is decoded (RFC 5944 section 3.8.2.1, a and b).

Everything here works on the octets, and a forged request costs some 15 microseconds: length, type, home address and SPI are
looked at first, then the authenticator is computed, then the identification compared. No forgery can shut a mobile node out,
not even one with its home address, its SPI and its source address: limits of failures apply to the *answers* only, never to
the verification, and the limit of requests is charged by valid ones only.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from agents.core.mobileip.actions import Datagram, Now
from agents.core.mobileip.home_agent_config import HomeAgentConfig, MobileNode
from agents.core.mobileip.rates import TokenBuckets
from agents.core.mobileip.registration_codes import Code
from agents.core.mobileip.security import ReplayGuard, SecurityAssociation
from agents.wire.mobileip import authentication
from agents.wire.mobileip.peek import EXTENSIONS_MAX, REQUEST, TUNNEL_DATA, Glimpse, peek
from agents.wire.mobileip.values import NO_ADDRESS, Authentication, AuthenticationKind

_FIXED_OCTETS = 24
_SPI_OCTETS = 4
_LONG_FORMAT = frozenset((36, 154))
_MOBILE_HOME = int(AuthenticationKind.MOBILE_HOME)
_NAI = 131
_ALL = "all"


@dataclass(frozen=True, slots=True)
class Claim:
    """A request whose SPI is that of a mobile node. Nothing is proved by it."""

    glimpse: Glimpse
    node: MobileNode
    association: SecurityAssociation
    guard: ReplayGuard
    authenticator_at: int
    """Offset of the Mobile-Home authentication extension."""

    def authenticated_octets(self, data: bytes) -> int:
        """Length of the message up to the end of the authenticator."""
        return self.authenticator_at + 2 + data[self.authenticator_at + 1]

    def echoed(self) -> int:
        """The identification of a reply that leaves replay protection as it is: that of the request.

        With nonces its high half is the one that holds, where there is one: the next request takes it from here.
        """
        identification, nonce = self.glimpse.identification, self.guard.nonce
        return identification if nonce is None else nonce << 32 | identification & 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Verdict:
    """What admission says. `code` None: the request is authentic and new. `identification`: that of a refusal."""

    claim: Claim
    code: Code | None = None
    identification: int = 0


def walk(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Extensions of a request: type, offset, end. Ends where the octets do not make an extension any more."""
    at, size = _FIXED_OCTETS, len(data)
    for _ in range(EXTENSIONS_MAX):
        kind_end = at + (4 if at < size and data[at] in _LONG_FORMAT else 2)
        if kind_end > size:
            return
        end = kind_end + (data[at + 2] << 8 | data[at + 3] if kind_end == at + 4 else data[at + 1])
        if end > size:
            return
        yield data[at], at, end
        at = end


class Admission:
    """Sheds, verifies and limits."""

    def __init__(
        self,
        config: HomeAgentConfig,
        homes: Mapping[str, MobileNode],
        random_bytes: Callable[[int], bytes],
    ) -> None:
        limits = config.limits
        self._config = config
        self._homes = homes
        """By home address, also those given from the pool."""
        self._by_nai = {node.nai: node for node in config.mobile_nodes if node.nai}
        self._random_bytes = random_bytes
        self._guards: dict[tuple[str, int], ReplayGuard] = {}
        self._requests = TokenBuckets(limits.requests_per_s, limits.requests_burst, max(1, len(config.mobile_nodes)))
        self._forged = TokenBuckets(limits.refusals_per_s, limits.refusals_burst, limits.sources)
        self._forged_total = TokenBuckets(limits.refusals_total_per_s, limits.refusals_total_per_s, 1)
        self._replayed = TokenBuckets(limits.refusals_per_s, limits.refusals_burst, limits.sources)
        self._replayed_total = TokenBuckets(limits.refusals_total_per_s, limits.refusals_total_per_s, 1)

    def guard(self, node: MobileNode, association: SecurityAssociation) -> ReplayGuard:
        """The replay protection of a mobile node under one of its associations."""
        key = node.name, association.spi
        if key not in self._guards:
            self._guards[key] = ReplayGuard(association.replay, self._config.replay_window_s)
        return self._guards[key]

    def examine(self, datagram: Datagram, now: Now) -> Verdict | str:
        """What to make of a datagram; a text is the reason why it is discarded without an answer."""
        if not datagram.source_port or datagram.source == NO_ADDRESS:
            return "no-return-address"
        claim = self._claim(datagram.data)
        if isinstance(claim, str):
            return claim
        glimpse = claim.glimpse
        if not _is_authentic(datagram.data, claim):
            if not self._may_refuse(self._forged, self._forged_total, datagram.source, glimpse.home_address, now):
                return "not-authentic"
            return Verdict(claim, Code.MOBILE_NODE_AUTHENTICATION, claim.echoed())
        if not claim.guard.check(glimpse.identification, now.ntp):
            if not self._may_refuse(self._replayed, self._replayed_total, datagram.source, glimpse.home_address, now):
                return "old-identification"
            identification = claim.guard.mismatch(glimpse.identification, now.ntp, self._random_bytes)
            return Verdict(claim, Code.IDENTIFICATION_MISMATCH, identification)
        if not self._requests.take(claim.node.name, now.monotonic_s):
            return "too-many-requests"
        return Verdict(claim)

    def _claim(self, data: bytes) -> Claim | str:
        """Whose request it says it is, or the reason why nobody's."""
        glimpse = peek(data)
        if glimpse is None:
            return "no-message"
        if glimpse.type != REQUEST:
            return "stray-tunnel-data" if glimpse.type == TUNNEL_DATA else "no-request"
        if glimpse.spi is None:
            return "no-authentication"
        node = self._homes.get(glimpse.home_address)
        if node is None:
            node = self._node_by_nai(data)
        if node is None:
            return "unknown-home-address"
        association = node.by_spi.get(glimpse.spi)
        if association is None:
            return "unknown-spi"
        at = next((at for kind, at, _ in walk(data) if kind == _MOBILE_HOME), None)
        if at is None:
            return "no-authentication"
        return Claim(glimpse, node, association, self.guard(node, association), at)

    def _node_by_nai(self, data: bytes) -> MobileNode | None:
        """The mobile node that the first NAI extension names; it must be under the authenticator."""
        for kind, at, end in walk(data):
            if kind == _MOBILE_HOME:
                return None
            if kind == _NAI:
                return self._by_nai.get(data[at + 2 : end])
        return None

    def _may_refuse(self, each: TokenBuckets, total: TokenBuckets, source: str, home_address: str, now: Now) -> bool:
        """Whether a failure is answered: rates for its source, for its home address and for all."""
        now_s = now.monotonic_s
        by_source = each.take(("source", source), now_s)
        by_home = each.take(("home", home_address), now_s) if home_address != NO_ADDRESS else True
        return by_source and by_home and total.take(_ALL, now_s)


def _is_authentic(data: bytes, claim: Claim) -> bool:
    at, association = claim.authenticator_at, claim.association
    received = Authentication(
        AuthenticationKind.MOBILE_HOME, association.spi, data[at + 2 + _SPI_OCTETS : claim.authenticated_octets(data)]
    )
    return authentication.verify(data, at, received, association.key, association.algorithm)
