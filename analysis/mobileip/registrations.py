"""Registrations: requests with their retransmissions and relayed copies, and the replies to them.

Mobile IPv4 pairs by the low 32 bits of the identification, which every reply copies from its request, and by the home address
(RFC 5944 section 5.7); a retransmission carries a new identification (section 3.6.3), so requests of the same content belong
together until one is answered. Mobile IPv6 pairs by sequence number, home address and correspondent (RFC 6275 section 6.1.8);
there, too, a retransmission carries a new number (section 11.8).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from analysis.mobileip.finding import Seen
from analysis.mobileip.frames import Unsigned64
from analysis.mobileip.message import Message

ACCEPTED, REFUSED, UNANSWERED, NOT_ASKED = "accepted", "refused", "unanswered", "no answer asked for"
_SEQUENCE_OUT_OF_WINDOW = 135
_ANY_HOME = ("0.0.0.0", "::")
Legs = dict[tuple[str, str], int]
MAX_LEGS = 8
"""Legs of a request that are told apart: mobile node, foreign agent, home agent, and address translators between them."""


@dataclass(slots=True)
class Attempt:
    """One request as it travelled: first time on each leg (source, destination), and the same of its reply."""

    sent_ns: int
    row: int
    identification: int
    legs: Legs = field(default_factory=dict)
    reply_legs: Legs = field(default_factory=dict)


@dataclass(slots=True)
class Registration:
    """One registration: columns of the table `registrations`, see `analysis.mobileip.Mobility`."""

    family: int
    home_address: str
    home_agent: str
    peer: str
    care_of_address: str = ""
    kind: str = "unknown"
    result: str = UNANSWERED
    code: int = -1
    code_text: str = ""
    requested_s: int = -1
    granted_s: int = -1
    bids: tuple[int, ...] = ()
    bid_flags: str = ""
    flags: str = ""
    encapsulation: str = ""
    label: int = -1
    access_technology: str = ""
    sent_ns: int = -1
    answered_sent_ns: int = -1
    accepted_ns: int = -1
    reply_ns: int = -1
    latency_ms: float = float("nan")
    total_ms: float = float("nan")
    retransmissions: int = 0
    hops: int = 0
    path: str = ""
    identification: Unsigned64 = 0
    sequence: int = -1
    request_row: int = -1
    reply_row: int = -1
    nai: str = ""
    _content: Any = None
    _care_of: tuple[tuple[int, str], ...] = ()
    _refused_bids: frozenset[int] = frozenset()
    _home_nonce: int = -1
    _care_of_nonce: int = -1
    _answered: Attempt | None = None

    @property
    def simultaneous(self) -> bool:
        """S bit: keep the other bindings (RFC 5944 section 3.3)."""
        return self.family == 4 and "S" in self.flags

    @property
    def bulk(self) -> bool:
        """B flag of RFC 7629: concerns all bindings."""
        return "B" in self.bid_flags

    @property
    def overwrite(self) -> bool:
        """O flag of RFC 7629: replaces all bindings."""
        return "O" in self.bid_flags

    @property
    def role(self) -> str:
        """Who keeps the binding: "home agent" or "correspondent"."""
        return "home agent" if self.family == 4 or self.home_agent else "correspondent"

    @property
    def effective_ns(self) -> int:
        """When the binding holds: first sight of the reply, or of the request where no reply was asked for."""
        return self.accepted_ns if self.accepted_ns >= 0 else self.sent_ns


class _Matcher:
    """Goes through messages in order of time and makes registrations of them, in order of the first request."""

    def __init__(self) -> None:
        self.registrations: list[Registration] = []
        self._attempts: dict[Any, tuple[Registration, Attempt]] = {}
        self._open: dict[Any, Registration] = {}
        self._last: dict[Any, tuple[Registration, Attempt]] = {}

    def request(self, seen: Seen) -> None:
        message = seen.message
        key, peer = _key(seen, is_request=True)
        known = self._attempts.get(key)
        leg = seen.leg
        if known and known[1].identification == message.identification and _same(known[0], message):
            registration, attempt = known
            if leg not in attempt.legs:
                if len(attempt.legs) < MAX_LEGS:
                    attempt.legs[leg] = seen.time_ns
                    _describe(registration, attempt)
            elif not seen.copy:
                registration.retransmissions += 1
            return
        if seen.copy:
            return
        content = _content(seen, peer)
        attempt = Attempt(seen.time_ns, seen.row, message.identification, {leg: seen.time_ns})
        current = self._open.get(content)
        if current is None:
            current = _new(seen, peer, content)
            self.registrations.append(current)
            if current.result == UNANSWERED:
                self._open[content] = current
        else:
            current.retransmissions += 1
        self._attempts[key] = (current, attempt)
        self._last[key[:-1]] = (current, attempt)
        if current._answered is None:
            current.identification, current.sequence = message.identification, message.sequence
        _describe(current, attempt)

    def reply(self, seen: Seen) -> None:
        message = seen.message
        known = self._pending(seen)
        if known is None:
            if not seen.copy:
                self.registrations.append(_orphan(seen))
            return
        registration, attempt = known
        leg = seen.leg
        if leg in attempt.reply_legs and not seen.copy:
            return  # the reply was repeated
        if len(attempt.reply_legs) >= MAX_LEGS and leg not in attempt.reply_legs:
            return
        attempt.reply_legs.setdefault(leg, seen.time_ns)
        better = registration.result != ACCEPTED and _accepts(message)
        if registration._answered is None or (better and registration._answered is not attempt):
            _answer(registration, attempt, seen)
            self._open.pop(registration._content, None)
        if registration._answered is attempt:
            registration.reply_ns = seen.time_ns
            registration.latency_ms = (seen.time_ns - attempt.sent_ns) / 1e6
            registration.total_ms = (seen.time_ns - registration.sent_ns) / 1e6
            _describe(registration, attempt)

    def _pending(self, seen: Seen) -> tuple[Registration, Attempt] | None:
        """The request that a reply answers."""
        key, _ = _key(seen, is_request=False)
        known = self._attempts.get(key)
        if known is None:  # a home address was asked for and assigned (RFC 4433, RFC 5213)
            known = self._attempts.get((*key[:1], "", *key[2:]))
        if seen.family == 6 and seen.message.code == _SEQUENCE_OUT_OF_WINDOW and (known is None or known[0]._answered):
            # This status carries the last accepted number, not that of the request (RFC 6275 section 9.5.1).
            last = self._last.get(key[:-1])
            known = last if last and last[0]._answered is None else known
        return known


def match(messages: Iterable[Seen]) -> list[Registration]:
    """Registrations in order of their first request. `messages` in order of time."""
    matcher = _Matcher()
    for seen in messages:
        if seen.message.kind in ("RRQ", "BU"):
            matcher.request(seen)
        elif seen.message.kind in ("RRP", "BA"):
            matcher.reply(seen)
    return matcher.registrations


def _subject(message: Message) -> str:
    """Whom a message is about: the home address; in a proxy registration the mobile node's identifier."""
    if message.nai and "P" in message.flags:
        return message.nai
    home = message.home_address
    return "" if home in _ANY_HOME or home.startswith("::/") else home


def _key(seen: Seen, is_request: bool) -> tuple[Any, str]:
    """What request and reply have in common, the number last; and the correspondent."""
    message = seen.message
    if "RR" in message.kind:
        return (4, _subject(message), message.identification & 0xFFFFFFFF), message.home_agent
    peer = seen.dst if is_request else seen.src
    return (6, _subject(message), peer, message.sequence), peer


def _content(seen: Seen, peer: str) -> Any:
    """What stays the same in a retransmission."""
    m = seen.message
    return (seen.family, _subject(m), peer, m.care_of_address, m.bids, m.lifetime_s == 0)


def _same(registration: Registration, message: Message) -> bool:
    return registration.care_of_address == message.care_of_address and registration.bids == message.bids


def _accepts(message: Message) -> bool:
    """Codes below 64 (RFC 5944 section 3.4) and statuses below 128 (RFC 6275 section 6.1.8) accept."""
    return 0 <= message.code < (64 if message.kind == "RRP" else 128)


def _kind(message: Message) -> str:
    if message.lifetime_s == 0:
        return "deregistration"
    if message.kind == "BU" and message.care_of_address == message.home_address:
        return "deregistration"  # RFC 6275 section 6.1.7: the care-of address is the home address
    return "registration"


def _new(seen: Seen, peer: str, content: Any) -> Registration:
    m = seen.message
    asks = m.kind == "RRQ" or "A" in m.flags.split()
    home = "" if m.home_address in _ANY_HOME else m.home_address
    registration = Registration(seen.family, home, m.home_agent, peer, m.care_of_address, _kind(m), bids=m.bids)
    registration.result, registration.granted_s = (UNANSWERED, -1) if asks else (NOT_ASKED, m.lifetime_s)
    registration.requested_s, registration.flags, registration.bid_flags = m.lifetime_s, m.flags, m.bid_flags
    registration.encapsulation, registration.label = m.encapsulation, m.label
    registration.access_technology, registration.nai = m.access_technology, m.nai
    registration.sent_ns, registration.request_row = seen.time_ns, seen.row
    registration._content, registration._care_of = content, m.care_of
    registration._home_nonce, registration._care_of_nonce = m.home_nonce, m.care_of_nonce
    return registration


def _orphan(seen: Seen) -> Registration:
    """A reply whose request was not captured."""
    m = seen.message
    peer = m.home_agent if seen.family == 4 else seen.src
    registration = Registration(seen.family, m.home_address, m.home_agent, peer, bids=m.bids, nai=m.nai)
    attempt = Attempt(-1, -1, m.identification, {}, {seen.leg: seen.time_ns})
    _answer(registration, attempt, seen)
    registration.reply_ns = seen.time_ns
    _describe(registration, attempt)
    return registration


def _answer(registration: Registration, attempt: Attempt, seen: Seen) -> None:
    """Take over what the reply says."""
    m = seen.message
    registration._answered = attempt
    registration.result = ACCEPTED if _accepts(m) else REFUSED
    registration.code, registration.code_text, registration.granted_s = m.code, m.code_text, m.lifetime_s
    registration.answered_sent_ns, registration.reply_row = attempt.sent_ns, seen.row
    registration.accepted_ns = seen.time_ns if registration.result == ACCEPTED else -1
    registration.identification = attempt.identification or registration.identification
    if m.kind == "RRP":
        registration.home_address = m.home_address
        registration.home_agent = m.home_agent if registration.result == ACCEPTED else registration.home_agent
    elif m.home_address and not registration.home_address:
        registration.home_address = m.home_address
    if m.sequence >= 0 and m.code != _SEQUENCE_OUT_OF_WINDOW:
        registration.sequence = m.sequence
    if m.encapsulation:
        registration.encapsulation = m.encapsulation
    registration._refused_bids = frozenset(bid for bid, status in m.bid_status if status >= 128)


def _describe(registration: Registration, attempt: Attempt) -> None:
    """Legs of the request and its reply with the time since it was sent."""
    registration.hops = max(registration.hops, len(attempt.legs))
    start_ns = attempt.sent_ns if attempt.sent_ns >= 0 else min(attempt.reply_legs.values(), default=0)
    legs = [*attempt.legs.items(), *attempt.reply_legs.items()]
    registration.path = ", ".join(f"{src} > {dst} +{(at - start_ns) / 1e6:.1f} ms" for (src, dst), at in legs)
