"""A home agent for tests, a mobile node's requests, and a reader of what comes back. Times and keys are made up."""

import itertools
import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from agents.core.mobileip.actions import Action, Datagram, Forwarding, Now, SendMessage, Store
from agents.core.mobileip.home_agent import HomeAgent
from agents.core.mobileip.home_agent_config import HomeAgentConfig, MobileNode
from agents.core.mobileip.security import SecurityAssociation
from agents.wire.mobileip import codec, selectors
from agents.wire.mobileip.authentication import Algorithm, append_authentication, verify
from agents.wire.mobileip.values import (
    AccessTechnology,
    Authentication,
    AuthenticationKind,
    Extension,
    FlowBinding,
    Multipath,
    Reply,
    Request,
    RequestFlag,
    Selector,
)

HA, HOME, HOME_PREFIX = "10.64.0.1", "10.64.0.50", "10.64.0.0/24"
WLAN, LTE, CDMA = "10.1.0.100", "10.2.0.100", "10.3.0.100"
FA = "10.9.0.1"
KEY, SPI = bytes(range(16)), 1000
CO_LOCATED = RequestFlag.DECAPSULATION_BY_MN | RequestFlag.REVERSE_TUNNEL
NTP_AT_START = 3_900_000_000 << 32
Kind = TypeVar("Kind", bound=Action)

ASSOCIATION = SecurityAssociation(SPI, KEY)
NODE = MobileNode((ASSOCIATION,), HOME, multipath=True)
CONFIG = HomeAgentConfig((HA,), (NODE,), HOME_PREFIX)
HTTP = Selector(protocol=(6, 6), source_port=(80, 80))
HTTPS = Selector(protocol=(6, 6), source_port=(443, 443))
VOICE = Selector(protocol=(17, 17), source_port=(5060, 5090))


def counting_bytes() -> Any:
    """Random bytes that are none."""
    counter = itertools.count(1)
    return lambda count: (next(counter) * 0x9E3779B1 & (1 << 8 * count) - 1).to_bytes(count, "big")


def forward(selector: Selector, *bids: int) -> FlowBinding:
    return selectors.flow_binding(1, bids, selector)


def drop(selector: Selector, bid: int = 1) -> FlowBinding:
    return selectors.flow_binding(0, (bid,), selector)


def multipath(bid: int, label: int = 1, **flags: bool) -> Multipath:
    return Multipath(bid, label, AccessTechnology.WLAN, **flags)


@dataclass
class Bench:
    """A home agent, its clock, and its disk."""

    config: HomeAgentConfig = CONFIG
    stored: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    now_s: float = 1000.0
    actions: list[Action] = field(default_factory=list)
    """Of the last call."""
    _steps: int = 0

    def __post_init__(self) -> None:
        self.agent = HomeAgent(self.config, counting_bytes(), {})
        self.keep(self.agent.start(self.now))

    @property
    def now(self) -> Now:
        return Now(self.now_s, NTP_AT_START + int(self.now_s * (1 << 32)))

    def stamp(self) -> int:
        """A new timestamp, a little later each time."""
        self._steps += 1
        return self.now.ntp + self._steps

    def keep(self, actions: list[Action]) -> list[Action]:
        """Write to the disk what is to be stored; JSON, as the real one does."""
        self.actions = actions
        for action in of(actions, Store):
            if action.value is None:
                self.stored.get(action.table, {}).pop(action.key, None)
            else:
                self.stored.setdefault(action.table, {})[action.key] = json.loads(json.dumps(action.value))
        return actions

    def request(self, care_of: str = WLAN, *extensions: Extension, **fields: Any) -> bytes:
        """A request without authenticator."""
        values: dict[str, Any] = {"home_address": HOME, "home_agent": HA, "lifetime_s": 600, "flags": CO_LOCATED} | fields
        values.setdefault("identification", self.stamp())
        return codec.encode(Request(care_of_address=care_of, extensions=extensions, **values))

    def signed(self, *args: Any, association: SecurityAssociation = ASSOCIATION, **fields: Any) -> bytes:
        return sign(self.request(*args, **fields), association)

    def send(self, data: bytes, source: str = WLAN, port: int = 40_000, **fields: Any) -> list[Action]:
        """Hand a datagram to the home agent."""
        datagram = Datagram(data, source, port, fields.pop("destination", HA), **fields)
        return self.keep(self.agent.handle_datagram(datagram, self.now))

    def register(self, care_of: str = WLAN, *extensions: Extension, **fields: Any) -> Reply:
        """Send a signed request from its care-of address; the reply, whose authenticator is right."""
        reply = self.try_register(care_of, *extensions, **fields)
        assert reply is not None
        return reply

    def try_register(self, care_of: str = WLAN, *extensions: Extension, **fields: Any) -> Reply | None:
        association = fields.pop("association", ASSOCIATION)
        sent = {
            name: fields.pop(name) for name in ("source", "port", "destination", "interface", "link_address") if name in fields
        }
        data = sign(self.request(care_of, *extensions, **fields), association)
        return reply_in(self.send(data, **{"source": care_of, **sent}), association)

    def advance(self, seconds: float) -> list[Action]:
        self.now_s += seconds
        return self.keep(self.agent.handle_timer(self.now))

    def restart(self, after_s: float = 0.0) -> list[Action]:
        """The process dies and comes back with its disk."""
        self.now_s += after_s
        self.agent = HomeAgent(self.config, counting_bytes(), json.loads(json.dumps(self.stored)))
        return self.keep(self.agent.start(self.now))

    @property
    def bids(self) -> list[int]:
        return sorted(item["bid"] for item in self.agent.bindings())

    @property
    def care_ofs(self) -> list[str]:
        return sorted(item["care_of_address"] for item in self.agent.bindings())

    def discarded(self, reason: str) -> int:
        return int(self.agent.status()["discards"].get(reason, 0))


def sign(data: bytes, association: SecurityAssociation = ASSOCIATION) -> bytes:
    return append_authentication(data, AuthenticationKind.MOBILE_HOME, association.spi, association.key, association.algorithm)


def of(actions: Iterable[Action], kind: type[Kind]) -> list[Kind]:
    return [action for action in actions if isinstance(action, kind)]


def reply_in(actions: Iterable[Action], association: SecurityAssociation = ASSOCIATION) -> Reply | None:
    """The only message among the actions; its Mobile-Home authenticator is right."""
    sent = of(actions, SendMessage)
    assert len(sent) <= 1
    if not sent:
        return None
    reply = codec.decode(sent[0].data)
    assert isinstance(reply, Reply)
    at, extension = next(
        (at, item)
        for at, item in zip(reply.offsets, reply.extensions, strict=True)
        if isinstance(item, Authentication) and item.kind is AuthenticationKind.MOBILE_HOME
    )
    assert extension.spi == association.spi
    assert verify(sent[0].data, at, extension, association.key, association.algorithm)
    return reply


def forwarding_in(actions: Iterable[Action]) -> Forwarding:
    """The only forwarding among the actions."""
    (found,) = of(actions, Forwarding)
    return found


def node(**fields: Any) -> MobileNode:
    return replace(NODE, **fields)


def config(*nodes: MobileNode, **fields: Any) -> HomeAgentConfig:
    return replace(CONFIG, mobile_nodes=nodes or (NODE,), **fields)


SHA256 = SecurityAssociation(2000, bytes(32), Algorithm.HMAC_SHA256)
