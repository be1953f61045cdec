"""The home agent (RFC 5944 section 3.8, RFC 3024 section 4, RFC 3519 section 4, RFC 2794, RFC 7629 section 5.2).

A request passes `home_agent_admission` (octets: who, authentic, new), `home_agent_checks` (what it asks for, reply codes) and
`home_agent_state` (bindings, tunnels, forwarding). Every action of a request that must be durable comes before its reply.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import islice
from typing import Any, Final

from agents.core.mobileip import home_agent_replies, home_agent_stored
from agents.core.mobileip.actions import Action, Datagram, Log, Now, SendMessage, Store
from agents.core.mobileip.bindings import Binding, Key
from agents.core.mobileip.flows import check_operator_policy
from agents.core.mobileip.home_agent_addresses import TABLE as HOMES
from agents.core.mobileip.home_agent_addresses import HomeAddresses
from agents.core.mobileip.home_agent_admission import Admission, Verdict, walk
from agents.core.mobileip.home_agent_checks import foreign_agent_refusal, refusal
from agents.core.mobileip.home_agent_config import HomeAgentConfig, MobileNode
from agents.core.mobileip.home_agent_registration import Registration
from agents.core.mobileip.home_agent_state import Change, HomeAgentState
from agents.core.mobileip.home_agent_warnings import WARNINGS_MAX, warnings_of
from agents.core.mobileip.rates import TokenBuckets
from agents.core.mobileip.registration_codes import Code, name_of
from agents.core.mobileip.security import SecurityAssociation
from agents.core.mobileip.selection import StaticFlow
from agents.wire.errors import WireError
from agents.wire.mobileip import codec
from agents.wire.mobileip.values import INFINITE_LIFETIME_S, Extension, FlowBinding, Reply, Request, RequestFlag

_MASK64: Final = (1 << 64) - 1
_SKIPPABLE: Final = 128
_KNOWN_NON_SKIPPABLE: Final = frozenset((32, 33, 34, 36, 44))
_LOGGED_DISCARDS_PER_S: Final = 10.0

StoredTables = Mapping[str, Mapping[str, dict[str, Any]]]


class HomeAgent:
    """One home agent. `stored`: the tables as its `Store` actions have left them. Call `start` first."""

    def __init__(self, config: HomeAgentConfig, random_bytes: Callable[[int], bytes], stored: StoredTables) -> None:
        self._config = config
        self._random_bytes = random_bytes
        self._stored: StoredTables = stored
        self._homes = HomeAddresses(config, stored.get(HOMES, {}))
        self._admission = Admission(config, self._homes.served, random_bytes)
        self._state = HomeAgentState(config, self._homes.served)
        self._discards: Counter[str] = Counter()
        self._replies: Counter[str] = Counter()
        self._expired = 0
        self._discard_logs = TokenBuckets(_LOGGED_DISCARDS_PER_S, _LOGGED_DISCARDS_PER_S, 1)

    # -- inputs -------------------------------------------------------------------------------------------------------
    def start(self, now: Now) -> list[Action]:
        """Take over what is stored: tunnels, forwarding and proxy ARP of the bindings that have not expired meanwhile."""
        stored, self._stored = self._stored, {}
        replay = stored.get(home_agent_stored.REPLAY, {})
        for node in self._config.mobile_nodes:
            for association in node.associations:
                value = replay.get(home_agent_stored.place(node.name, association.spi))
                if isinstance(value, dict):
                    self._admission.guard(node, association).restore(value)
        actions = self._state.restore(stored, now)
        table = self._state.table
        return [*actions, Log("started", {"bindings": len(table), "homes": table.homes})]

    def handle_datagram(self, datagram: Datagram, now: Now) -> list[Action]:
        """A datagram that came to port 434. Whatever it contains, nothing is raised."""
        verdict = self._admission.examine(datagram, now)
        if isinstance(verdict, str):
            return self._discard(verdict, datagram, now)
        if verdict.code is not None:
            return self._refuse_undecoded(datagram, verdict, verdict.code, verdict.identification)
        try:
            request = codec.decode(datagram.data)
        except WireError:
            return self._answer_unreadable(datagram, verdict, now)
        if not isinstance(request, Request):
            return self._discard("no-request", datagram, now)
        return self._answer(datagram, request, verdict, now)

    def handle_timer(self, now: Now) -> list[Action]:
        """Time has passed: bindings whose lifetime is over go, and tunnels that were drained."""
        by_home: dict[str, list[Binding]] = {}
        for binding in self._state.table.expired(now.monotonic_s):
            by_home.setdefault(binding.home_address, []).append(binding)
        actions: list[Action] = self._state.end_drains(now.monotonic_s)
        for home_address, bindings in by_home.items():
            self._expired += len(bindings)
            actions += self._state.change(Change(home_address, removed=tuple(binding.key for binding in bindings)))
            actions += [Log("binding-expired", _binding_fields(binding)) for binding in bindings]
        return actions

    def next_deadline(self) -> float | None:
        """Monotonic time of the next `handle_timer`; None: not needed."""
        times = (self._state.table.next_deadline_s(), self._state.draining.next_deadline_s())
        return min((time for time in times if time is not None), default=None)

    # -- the operator -------------------------------------------------------------------------------------------------
    def status(self) -> dict[str, Any]:
        """Figures: sizes of the tables, replies by code, discards by reason."""
        table = self._state.table
        return {
            "addresses": list(self._config.addresses),
            "bindings": len(table),
            "homes": table.homes,
            "tunnels": len(self._state.tunnels),
            "expired": self._expired,
            "drained": len(self._state.draining),
            "replies": dict(self._replies),
            "discards": dict(self._discards),
            "warnings": self._warnings(),
        }

    def _warnings(self) -> list[str]:
        """Of home addresses that are served and have flows of the operator: at most WARNINGS_MAX."""
        homes = (home for home in self._homes.served if self._state.operator_policy(home))
        found = (f"{home}: {text}" for home in homes for text in self.flow_warnings(home))
        return list(islice(found, WARNINGS_MAX))

    def bindings(self, first: int = 0, limit: int | None = None) -> list[dict[str, Any]]:
        """The bindings from number `first`, at most `limit` (None: all), with the flow bindings that their requests carried."""
        return [
            _binding_fields(binding)
            | {"expires_s": None if binding.expires_s == math.inf else binding.expires_s}
            | {"flows": [_flow_fields(flow) for flow in self._state.flows(binding.home_address).get(binding.bid, ())]}
            for binding in islice(self._state.table, first, None if limit is None else first + limit)
        ]

    def deregister(self, home_address: str, bid: int | None, now: Now) -> list[Action]:
        """The operator takes a binding away, or all (`bid` None). The mobile node is not told. Raises ValueError."""
        bindings = self._state.table.of(home_address)
        keys: tuple[Key, ...] = tuple(bindings) if bid is None else (bid,)
        if not bindings or any(key not in bindings for key in keys):
            raise ValueError(f"{home_address} has no such binding")
        actions = self._state.change(Change(home_address, removed=keys))
        return [*actions, Log("deregistered-by-operator", {"home_address": home_address, "keys": list(keys)})]

    def set_policy(self, home_address: str, rules: tuple[StaticFlow, ...] | None, now: Now) -> list[Action]:
        """Replace the operator's flows of a home address, also for later starts. None: the configured ones again.

        Raises ValueError for a home address that is not served and for flows that cannot be.
        """
        if home_address not in self._homes.served:
            raise ValueError(f"{home_address} is not served here")
        check_operator_policy(rules or ())
        actions = self._state.set_policy(home_address, rules)
        said = Log("policy", {"home_address": home_address, "flows": None if rules is None else len(rules)})
        warnings = self.flow_warnings(home_address)
        return [*actions, said, *(Log("policy-warning", {"home_address": home_address, "what": text}) for text in warnings)]

    def flow_warnings(self, home_address: str) -> list[str]:
        """What the operator's flows of a home address ask for and nobody will do now."""
        node, bindings = self._homes.served.get(home_address), self._state.table.of(home_address).values()
        policy = self._state.operator_policy(home_address) if node is not None else ()
        return warnings_of(policy, node.multipath, list(bindings)) if node is not None else []

    # -- answers ------------------------------------------------------------------------------------------------------
    def _answer(self, datagram: Datagram, request: Request, verdict: Verdict, now: Now) -> list[Action]:
        """What becomes of an authentic request that could be read."""
        actions: list[Action] = []
        registration = self._registration(datagram, request, verdict.claim.node)
        code, granted_s = foreign_agent_refusal(registration), 0
        if code is not None:
            # Anybody may have put that behind the authenticator: the request itself stays new.
            identification = verdict.claim.echoed()
            extensions = home_agent_replies.extensions_of_refusal(registration)
        else:
            if registration.lacks_address:
                actions += self._homes.reclaim(lambda address: bool(self._state.table.of(address)))
                registration = self._registration(datagram, request, verdict.claim.node)
            identification = self._take_note(verdict, actions)
            code, granted_s, extensions = self._carry_out(registration, actions, now)
        home_address = registration.home_address or request.home_address
        reply = Reply(code, home_address, registration.home_agent, granted_s, identification, extensions)
        actions += self._send(datagram, verdict, reply, registration.foreign_association)
        return [*actions, Log("registration", _fields(registration, reply))]

    def _carry_out(
        self, registration: Registration, actions: list[Action], now: Now
    ) -> tuple[Code, int, tuple[Extension, ...]]:
        """Do what is asked, or not: code, granted lifetime and extensions of the reply."""
        code = refusal(registration)
        if code is not None:
            return code, 0, home_agent_replies.extensions_of_refusal(registration)
        if registration.deregisters:
            actions += self._deregister(registration, now)
            return Code.ACCEPTED, 0, home_agent_replies.extensions_of_acceptance(registration, ())
        granted_s = min(registration.request.lifetime_s, self._config.max_lifetime_s)
        actions += self._register(registration, granted_s, now)
        operator = self._state.operator_policy(registration.home_address)
        return _acceptance(registration), granted_s, home_agent_replies.extensions_of_acceptance(registration, operator)

    def _registration(self, datagram: Datagram, request: Request, node: MobileNode) -> Registration:
        state = self._state
        resolved = self._homes.resolve(node, request.home_address)
        home_address = resolved or ""
        return Registration(
            self._config, datagram, request, node, self._homes.served, home_address, resolved is not None,
            state.table.of(home_address), lambda bid: state.flows_elsewhere(home_address, bid), len(state.table),
            state.different,
        )  # fmt: skip

    def _take_note(self, verdict: Verdict, actions: list[Action]) -> int:
        """The request has been seen, durably; the identification of the reply."""
        claim = verdict.claim
        identification = claim.guard.accept(claim.glimpse.identification, self._random_bytes)
        row = home_agent_stored.place(claim.node.name, claim.association.spi)
        actions.append(Store(home_agent_stored.REPLAY, row, claim.guard.as_value()))
        return identification

    def _answer_unreadable(self, datagram: Datagram, verdict: Verdict, now: Now) -> list[Action]:
        """An authentic request that cannot be read: its mobile node has made it so, or somebody who put octets behind it."""
        try:
            codec.decode(datagram.data[: verdict.claim.authenticated_octets(datagram.data)])
        except WireError:
            pass
        else:
            return self._discard("unreadable-behind-authenticator", datagram, now)
        actions: list[Action] = []
        identification = self._take_note(verdict, actions)
        if _has_unknown_extension(datagram.data):
            return [*actions, *self._discard("unknown-extension", datagram, now)]
        return [*actions, *self._refuse_undecoded(datagram, verdict, Code.POORLY_FORMED_REQUEST, identification)]

    def _register(self, registration: Registration, granted_s: int, now: Now) -> list[Action]:
        multipath = registration.multipath
        binding = _binding(registration, granted_s, now)
        others: list[Binding] = []
        if multipath is not None and multipath.bulk:
            others = [
                replace(item, lifetime_s=granted_s, expires_s=binding.expires_s, expires_ntp=binding.expires_ntp)
                for key, item in registration.bindings.items()
                if key != binding.key and key not in registration.replaced
            ]
        given = self._homes.commit(registration.node, registration.home_address)
        change = Change(
            registration.home_address,
            (binding, *others),
            tuple(registration.replaced),
            registration.bid,
            registration.flows,
            registration.keeps_others,
            now.monotonic_s,
        )
        return [*given, *self._state.change(change)]

    def _deregister(self, registration: Registration, now: Now) -> list[Action]:
        """One binding, or all: on returning home, or with the B flag (RFC 5944 section 3.8.2.2, RFC 7629 section 5.1)."""
        multipath, bindings, care_of = registration.multipath, registration.bindings, registration.request.care_of_address
        if multipath is not None:
            keys = [key for key in bindings if multipath.bulk or key == multipath.bid]
        else:
            at_home = care_of == registration.home_address
            keys = [key for key, item in bindings.items() if at_home or item.care_of_address == care_of]
        change = Change(registration.home_address, removed=tuple(keys), drain_from_s=now.monotonic_s)
        return self._state.change(change) if keys else []

    def _refuse_undecoded(self, datagram: Datagram, verdict: Verdict, code: Code, identification: int) -> list[Action]:
        glimpse = verdict.claim.glimpse
        addresses = self._config.addresses
        home_agent = glimpse.home_agent if glimpse.home_agent in addresses else addresses[0]
        reply = Reply(code, glimpse.home_address, home_agent, 0, identification)
        fields = {"code": int(code), "reason": name_of(code), "home_address": glimpse.home_address, "source": datagram.source}
        agent = self._config.foreign_agent_of(datagram.source, glimpse.care_of_address, RequestFlag(datagram.data[1]))
        foreign = agent.associations[0] if agent else None
        return [*self._send(datagram, verdict, reply, foreign), Log("registration", fields)]

    def _send(
        self, datagram: Datagram, verdict: Verdict, reply: Reply, foreign: SecurityAssociation | None
    ) -> list[SendMessage]:
        self._replies[name_of(reply.code)] += 1
        from_home = datagram.source == reply.home_address
        return [home_agent_replies.message(self._config, datagram, reply, verdict.claim.association, foreign, from_home)]

    def _discard(self, reason: str, datagram: Datagram, now: Now) -> list[Action]:
        """Silence. Of many discards only some are logged; all are counted."""
        self._discards[reason] += 1
        if not self._discard_logs.take("all", now.monotonic_s):
            return []
        return [Log("discard", {"reason": reason, "source": datagram.source, "count": self._discards[reason]})]


def _acceptance(registration: Registration) -> Code:
    """1 for a wish for simultaneous bindings that is not granted; the S bit means nothing beside a Multipath extension."""
    wished = registration.request.flags & RequestFlag.SIMULTANEOUS and registration.multipath is None
    return Code.ACCEPTED_WITHOUT_SIMULTANEOUS if wished and not registration.config.simultaneous else Code.ACCEPTED


def _binding(registration: Registration, granted_s: int, now: Now) -> Binding:
    request, multipath = registration.request, registration.multipath
    endless = granted_s == INFINITE_LIFETIME_S
    return Binding(
        registration.home_address,
        registration.bid,
        request.care_of_address,
        registration.tunnel,
        granted_s,
        math.inf if endless else now.monotonic_s + granted_s,
        None if endless else (now.ntp + (granted_s << 32)) & _MASK64,
        multipath.label if multipath else 1,
        multipath.technology if multipath else 1,
        registration.co_located,
        bool(request.flags & RequestFlag.REVERSE_TUNNEL),
        bool(request.flags & RequestFlag.BROADCAST),
    )


def _has_unknown_extension(data: bytes) -> bool:
    """A type below 128 that is not known: the message is discarded without a word (RFC 5944 section 1.8)."""
    return any(kind < _SKIPPABLE and kind not in _KNOWN_NON_SKIPPABLE for kind, _, _ in walk(data))


def _fields(registration: Registration, reply: Reply) -> dict[str, Any]:
    request = registration.request
    fields: dict[str, Any] = {
        "code": int(reply.code),
        "reason": name_of(reply.code),
        "home_address": reply.home_address,
        "care_of_address": request.care_of_address,
        "lifetime_s": reply.lifetime_s,
        "asked_s": request.lifetime_s,
        "identification": request.identification,
        "source": registration.datagram.source,
    }
    if registration.multipath is not None:
        fields |= {"bid": registration.bid, "label": registration.multipath.label, "flows": len(registration.flows)}
    return fields


def _binding_fields(binding: Binding) -> dict[str, Any]:
    return home_agent_stored.binding_value(binding)


def _flow_fields(flow: FlowBinding) -> dict[str, Any]:
    return {"action": flow.action, "bids": list(flow.bids), "selector": flow.raw_selector.hex()}
