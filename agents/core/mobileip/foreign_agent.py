"""The foreign agent (RFC 5944 sections 2.3 and 3.7, RFC 3024, RFC 4721): advertisements, relay, visitors.

Requests that cannot be read, or have no authorising extension, are discarded; all others get an answer.
"""

from collections import deque
from collections.abc import Callable
from typing import Any

from agents.core.mobileip import foreign_agent_relay as relay
from agents.core.mobileip.actions import (
    Action,
    CloseTunnel,
    Datagram,
    Deliver,
    Encapsulation,
    Log,
    Now,
    OpenTunnel,
    ReverseTunnel,
    SendMessage,
    Tunnel,
)
from agents.core.mobileip.foreign_agent_advertising import CHALLENGE_OCTETS, Link, advertise, may_answer
from agents.core.mobileip.foreign_agent_checks import Asked, authorising, refusal
from agents.core.mobileip.foreign_agent_config import ForeignAgentConfig
from agents.core.mobileip.foreign_agent_visitors import Pending, Place, Visitor, Visitors
from agents.core.mobileip.rates import TokenBuckets
from agents.core.mobileip.registration_codes import Code, is_accepted, name_of
from agents.wire.errors import WireError
from agents.wire.mobileip import advertisement, codec
from agents.wire.mobileip.values import (
    INFINITE_LIFETIME_S,
    REGISTRATION_PORT,
    Challenge,
    Reply,
    Request,
    RequestFlag,
)

PENDING_OF_ONE_MAX = 3
"""Requests of one mobile node that wait at a time: its repetitions. The oldest goes."""
USED_CHALLENGES = 64
_UNREACHABLE = {
    0: Code.FA_HOME_NETWORK_UNREACHABLE, 1: Code.FA_HOME_AGENT_HOST_UNREACHABLE, 3: Code.FA_HOME_AGENT_PORT_UNREACHABLE,
}  # fmt: skip
"""Codes of ICMP destination unreachable -> reply codes; others: 88."""


class ForeignAgent:
    """One foreign agent. Remote input never raises."""

    def __init__(self, config: ForeignAgentConfig, random_bytes: Callable[[int], bytes]) -> None:
        self._config, self._random = config, random_bytes
        self._links = {link.interface: Link(link) for link in config.links}
        self._visitors = Visitors()
        self._tunnels: dict[Tunnel, set[str]] = {}
        """Tunnels to home agents, and the home addresses that use them."""
        self._rates = TokenBuckets(config.requests_per_s, config.requests_burst)
        self._used_challenges: deque[bytes] = deque(maxlen=USED_CHALLENGES)
        self._started = False

    # -- inputs -------------------------------------------------------------------------------------------------------
    def start(self, now: Now) -> list[Action]:
        """Begin to advertise. The sequence begins at 0: mobile nodes see that their visitor entries are gone."""
        self._started = True
        return [action for link in self._links.values() for action in self._advertise(link, now)]

    def handle_solicitation(self, data: bytes, interface: str, now: Now) -> list[Action]:
        """An ICMP solicitation; answered for all on the link, at a limited rate."""
        link = self._links.get(interface)
        if link is None or not advertisement.is_solicitation(data) or not may_answer(self._config, link, now.monotonic_s):
            return []
        link.answered_s = now.monotonic_s
        return self._advertise(link, now)

    def handle_datagram(self, datagram: Datagram, now: Now) -> list[Action]:
        """A datagram to the registration port: a request from a link, or a reply from a home agent."""
        is_request = datagram.data[:1] == b"\x01"
        if is_request and not self._rates.take((datagram.interface, datagram.link_address or datagram.source), now.monotonic_s):
            return []
        try:
            message = codec.decode(datagram.data)
        except WireError as error:
            return [Log("discard", {"reason": str(error), "source": datagram.source})]
        if isinstance(message, Request):
            return self._request(message, datagram, now)
        if isinstance(message, Reply):
            return self._reply(message, datagram, now)
        return [Log("discard", {"reason": "neither request nor reply", "source": datagram.source})]

    def handle_unreachable(self, home_agent: str, icmp_code: int, now: Now) -> list[Action]:
        """A request came back with ICMP "destination unreachable" (codes 80 to 82, 88)."""
        code = _UNREACHABLE.get(icmp_code, Code.FA_HOME_AGENT_UNREACHABLE)
        found = [item for item in self._visitors.pending.values() if item.request.home_agent == home_agent]
        return [action for pending in found for action in self._give_up(pending, code)]

    def handle_timer(self, now: Now) -> list[Action]:
        """Time has passed."""
        result: list[Action] = []
        for pending in self._visitors.overdue(now.monotonic_s):
            result += self._give_up(pending, Code.FA_REGISTRATION_TIMEOUT)
        for visitor in self._visitors.expired(now.monotonic_s):
            result += self._remove(visitor, "expired")
        if self._started:
            for link in self._links.values():
                if link.due_s <= now.monotonic_s:
                    result += self._advertise(link, now)
        return result

    def next_deadline(self) -> float | None:
        """When `handle_timer` wants to be called (monotonic seconds)."""
        times = [link.due_s for link in self._links.values()] if self._started else []
        found = self._visitors.next_deadline()
        return min(times if found is None else [*times, found], default=None)

    def status(self) -> dict[str, Any]:
        """For people."""
        return {
            "care_of_address": self._config.care_of_address, "busy": self._busy, "pending": len(self._visitors.pending),
            "visitors": [
                {"home_address": visitor.home_address, "home_agent": visitor.home_agent, "interface": visitor.place.interface,
                 "expires_s": visitor.expires_s, "reverse_tunnel": visitor.reverse is not None}
                for visitor in self._visitors.present.values()
            ],
        }  # fmt: skip

    # -- advertisements -----------------------------------------------------------------------------------------------
    @property
    def _busy(self) -> bool:
        visitors, config = self._visitors, self._config
        return len(visitors.present) >= config.visitors_max or len(visitors.pending) >= config.pending_max

    def _advertise(self, link: Link, now: Now) -> list[Action]:
        # Agents that started together shall not go on together (RFC 5944 section 2.3).
        early = self._random(1)[0] / 255 * 0.1
        link.due_s = now.monotonic_s + self._config.advertisement_interval_s * (1.0 - early)
        challenge = self._random(CHALLENGE_OCTETS) if self._config.challenge else None
        return [advertise(self._config, link, self._busy, challenge)]

    def _next_challenge(self, interface: str) -> bytes | None:
        """For replies; it counts like one that was advertised."""
        link = self._links.get(interface)
        if not self._config.challenge or link is None:
            return None
        challenge = self._random(CHALLENGE_OCTETS)
        link.challenges.append(challenge)
        while len(link.challenges) > self._config.challenges_kept + len(self._visitors.pending):
            link.challenges.popleft()
        return challenge

    # -- requests -----------------------------------------------------------------------------------------------------
    def _request(self, request: Request, datagram: Datagram, now: Now) -> list[Action]:
        link = self._links.get(datagram.interface)
        number = authorising(request)
        if link is None or number is None:
            reason = "no link with visitors" if link is None else "no authorising extension"
            return [Log("discard", {"reason": reason, "source": datagram.source})]
        asked = Asked(self._config, self._visitors, request, datagram, number, link.challenges, self._used_challenges)
        place = Place(datagram.interface, datagram.link_address, datagram.source, datagram.source_port)
        code = refusal(asked)
        if code is not None:
            return self._refuse(request, place, code)
        self._note_challenge(asked, link)
        self._make_room(request.home_address)
        pending = Pending(request, place, now.monotonic_s + self._config.pending_s)
        self._visitors.pending[pending.key] = pending
        shared = self._config.home_associations.get(request.home_agent)
        data = relay.to_home_agent(datagram.data, request, number, shared)
        fields = {"home_address": request.home_address, "home_agent": request.home_agent, "lifetime_s": request.lifetime_s}
        return [
            Log("request-relayed", fields),
            SendMessage(data, request.home_agent, REGISTRATION_PORT, self._config.care_of_address),
        ]

    def _note_challenge(self, asked: Asked, link: Link) -> None:
        for extension in asked.behind:
            if isinstance(extension, Challenge) and extension.value in link.challenges:
                link.challenges.remove(extension.value)
                self._used_challenges.append(extension.value)

    def _make_room(self, home_address: str) -> None:
        waiting = self._visitors.waiting_of(home_address)
        for pending in waiting[: max(0, len(waiting) - PENDING_OF_ONE_MAX + 1)]:
            del self._visitors.pending[pending.key]

    def _refuse(self, request: Request, place: Place, code: int) -> list[Action]:
        lifetime_s = self._config.lifetime_max_s if code == Code.FA_LIFETIME_TOO_LONG else 0
        shared = self._config.mobile_associations.get(request.home_address)
        data = relay.refused(request, code, lifetime_s, self._next_challenge(place.interface), shared)
        fields = {"home_address": request.home_address, "code": int(code), "meaning": name_of(code)}
        return [Log("request-refused", fields), self._to(place, data)]

    def _to(self, place: Place, data: bytes) -> SendMessage:
        source = self._links[place.interface].config.address
        return SendMessage(data, place.source, place.source_port, source, place.interface, 64, place.link_address)

    def _give_up(self, pending: Pending, code: int) -> list[Action]:
        del self._visitors.pending[pending.key]
        return self._refuse(pending.request, pending.place, code)

    # -- replies ------------------------------------------------------------------------------------------------------
    def _reply(self, reply: Reply, datagram: Datagram, now: Now) -> list[Action]:
        pending = self._visitors.pending.get((reply.home_address, reply.identification & 0xFFFFFFFF))
        if pending is None:
            pending = self._assigned(reply)
        if pending is None or datagram.source not in (pending.request.home_agent, reply.home_agent):
            return [Log("discard", {"reason": "no request of a visitor", "source": datagram.source})]
        shared = self._config.home_associations.get(pending.request.home_agent)
        if shared is not None and not relay.home_agent_is_authentic(datagram.data, reply, shared):
            return self._give_up(pending, Code.FA_HOME_AGENT_AUTHENTICATION)
        number = authorising(reply)
        if number is None:
            return self._give_up(pending, Code.FA_POORLY_FORMED_REPLY)
        del self._visitors.pending[pending.key]
        result: list[Action] = []
        if is_accepted(reply.code):
            result = self._accepted(reply, pending, now)
        mobile = self._config.mobile_associations.get(reply.home_address)
        challenge = self._next_challenge(pending.place.interface)
        data = relay.to_mobile_node(datagram.data, reply, number, challenge, mobile)
        fields = {"home_address": reply.home_address, "code": reply.code, "lifetime_s": reply.lifetime_s}
        return [*result, Log("reply-relayed", fields), self._to(pending.place, data)]

    def _assigned(self, reply: Reply) -> Pending | None:
        """A request for any home address (RFC 2794): the reply names the one that was given."""
        return self._visitors.pending.get(("0.0.0.0", reply.identification & 0xFFFFFFFF))

    def _accepted(self, reply: Reply, pending: Pending, now: Now) -> list[Action]:
        request = pending.request
        granted_s = min(reply.lifetime_s, request.lifetime_s)
        before = self._visitors.present.get(reply.home_address)
        if granted_s == 0:
            return self._remove(before, "deregistered") if before is not None else []
        expires_s = float("inf") if granted_s == INFINITE_LIFETIME_S else now.monotonic_s + granted_s
        visitor = _visitor(request, reply, pending.place, expires_s)
        self._visitors.present[reply.home_address] = visitor
        result = self._serve(visitor)
        wanted = self._tunnel(visitor)
        result += [action for tunnel in list(self._tunnels) if tunnel != wanted for action in self._release(tunnel, visitor)]
        return result

    # -- visitors -----------------------------------------------------------------------------------------------------
    def _tunnel(self, visitor: Visitor) -> Tunnel | None:
        if visitor.decapsulates:
            return None
        return Tunnel(visitor.care_of_address, visitor.home_agent, visitor.forward)

    def _serve(self, visitor: Visitor) -> list[Action]:
        """Open what the visitor needs; what is there already changes nothing."""
        tunnel = self._tunnel(visitor)
        if tunnel is None:
            return []
        users = self._tunnels.setdefault(tunnel, set())
        result: list[Action] = [] if users else [OpenTunnel(tunnel)]
        users.add(visitor.home_address)
        result.append(Deliver(visitor.home_address, visitor.place.interface, visitor.place.link_address))
        result.append(ReverseTunnel(visitor.home_address, tunnel if visitor.reverse is not None else None))
        return result

    def _release(self, tunnel: Tunnel, visitor: Visitor) -> list[Action]:
        users = self._tunnels.get(tunnel, set())
        if visitor.home_address not in users:
            return []
        users.discard(visitor.home_address)
        if users:
            return []
        del self._tunnels[tunnel]
        return [CloseTunnel(tunnel)]

    def _remove(self, visitor: Visitor, reason: str) -> list[Action]:
        del self._visitors.present[visitor.home_address]
        result: list[Action] = [Log("visitor-gone", {"home_address": visitor.home_address, "reason": reason})]
        tunnel = self._tunnel(visitor)
        if tunnel is not None:
            result.append(ReverseTunnel(visitor.home_address, None))
            result.append(Deliver(visitor.home_address, visitor.place.interface, None))
            result += self._release(tunnel, visitor)
        return result


def _visitor(request: Request, reply: Reply, place: Place, expires_s: float) -> Visitor:
    encapsulation = Encapsulation.GRE if request.flags & RequestFlag.GRE else Encapsulation.IP_IN_IP
    reverse = encapsulation if request.flags & RequestFlag.REVERSE_TUNNEL else None
    decapsulates = bool(request.flags & RequestFlag.DECAPSULATION_BY_MN)
    return Visitor(
        reply.home_address, reply.home_agent, request.care_of_address, place, expires_s, reverse, encapsulation, decapsulates
    )
