"""A mobile node with a scripted home agent: tests read what it has sent and say what comes back."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from agents.core.mobileip.actions import Action, Datagram, Log, Now, Probe, SendMessage
from agents.core.mobileip.mobile_node import MobileNode
from agents.core.mobileip.mobile_node_config import InterfaceConfig, InterfaceState, MobileNodeConfig
from agents.core.mobileip.security import ReplayStyle, SecurityAssociation
from agents.wire.mobileip import authentication, codec
from agents.wire.mobileip.values import (
    AccessTechnology,
    Authentication,
    AuthenticationKind,
    Extension,
    FlowBinding,
    Multipath,
    Reply,
    Request,
)

HOME, HOME_AGENT, HOME_NETWORK = "10.9.0.100", "10.9.0.1", "10.9.0.0/24"
KEY = SecurityAssociation(256, b"a key of sixteen")
WLAN = InterfaceConfig("wlan", 1, AccessTechnology.WLAN, label=7, cost=0)
LTE = InterfaceConfig("lte", 2, AccessTechnology.EUTRAN, label=8, cost=5)
WLAN_UP = InterfaceState("wlan", address="10.1.0.2", gateway="10.1.0.1")
LTE_UP = InterfaceState("lte", address="10.2.0.2", gateway="10.2.0.1")
EPOCH_S = 3_900_000_000
ActionT = TypeVar("ActionT")


def config(**values: Any) -> MobileNodeConfig:
    """Two interfaces, several bindings, everything else as by default."""
    known: dict[str, Any] = {"interfaces": (WLAN, LTE), "validate": False}
    return MobileNodeConfig(HOME, HOME_NETWORK, HOME_AGENT, values.pop("association", KEY), **(known | values))


def at(now_s: float) -> Now:
    """A time of the test: wall clock and monotonic clock go together."""
    return Now(now_s, EPOCH_S + int(now_s) << 32 | int(now_s % 1 * (1 << 32)))


def pick(actions: Iterable[Action], kind: type[ActionT]) -> list[ActionT]:
    """The actions of one kind."""
    return [action for action in actions if isinstance(action, kind)]


def logged(actions: Iterable[Action], event: str) -> list[dict[str, Any]]:
    """The log lines of one event."""
    return [action.fields for action in pick(actions, Log) if action.event == event]


@dataclass(frozen=True)
class Asked:
    """A request that the mobile node has sent."""

    send: SendMessage
    request: Request

    @property
    def multipath(self) -> Multipath | None:
        """Its Multipath extension."""
        return next((item for item in self.request.extensions if isinstance(item, Multipath)), None)

    @property
    def bid(self) -> int:
        """0: none."""
        return self.multipath.bid if self.multipath else 0

    @property
    def flows(self) -> list[tuple[int, ...]]:
        """The BIDs of its flow bindings."""
        return [item.bids for item in self.request.extensions if isinstance(item, FlowBinding)]


def asked(actions: Iterable[Action]) -> list[Asked]:
    """The requests among the actions; each must be authentic, with both extensions of type 154 before the authenticator."""
    result = []
    for send in pick(actions, SendMessage):
        request = codec.decode(send.data)
        assert isinstance(request, Request)
        place = next(n for n, e in enumerate(request.extensions) if isinstance(e, Authentication) and e.kind == 32)
        proof = request.extensions[place]
        assert isinstance(proof, Authentication)
        assert authentication.verify(send.data, request.offsets[place], proof, KEY.key)
        assert not any(isinstance(item, Multipath | FlowBinding) for item in request.extensions[place:])
        result.append(Asked(send, request))
    return result


def answer(
    to: Asked, code: int = 0, lifetime_s: int | None = None, *extensions: Extension, signed: bool = True, **values: Any
) -> Datagram:
    """The home agent's reply."""
    granted_s = to.request.lifetime_s if lifetime_s is None else lifetime_s
    fields: dict[str, Any] = {"home_address": HOME, "home_agent": HOME_AGENT, "identification": to.request.identification}
    reply = Reply(code, lifetime_s=granted_s, extensions=extensions, **(fields | values))
    data = codec.encode(reply)
    if signed:
        data = authentication.append_authentication(data, AuthenticationKind.MOBILE_HOME, KEY.spi, KEY.key)
    return Datagram(data, to.send.destination, 434, to.send.source, to.send.interface)


@dataclass
class Script:
    """A mobile node and the time."""

    node: MobileNode
    now_s: float = 0.0
    actions: list[Action] = field(default_factory=list)
    """Of the latest input."""

    def did(self, actions: list[Action]) -> list[Action]:
        """Remember what came of an input."""
        self.actions = actions
        return actions

    @property
    def now(self) -> Now:
        """Of the next input."""
        return at(self.now_s)

    def up(self, *interfaces: InterfaceState) -> list[Asked]:
        """These interfaces are there; the requests that follow."""
        return asked(self.did(self.node.interfaces_changed(interfaces, self.now)))

    def reply(
        self, to: Asked, code: int = 0, lifetime_s: int | None = None, *extensions: Extension, **values: Any
    ) -> list[Asked]:
        """The reply to a request arrives; the requests that follow."""
        datagram = answer(to, code, lifetime_s, *extensions, **values)
        return asked(self.did(self.node.handle_datagram(datagram, self.now)))

    def timer(self) -> list[Asked]:
        """The next deadline is there."""
        deadline = self.node.next_deadline()
        assert deadline is not None
        self.now_s = max(self.now_s, deadline)
        return asked(self.did(self.node.handle_timer(self.now)))

    def until_asked(self, limit_s: float = 1e6) -> Asked:
        """Time passes until a request is sent."""
        for _ in range(1000):
            found = self.timer()
            assert self.now_s <= limit_s, "nothing was sent in time"
            if found:
                return found[0]
        raise AssertionError("nothing was sent")

    def wait(self, seconds: float) -> list[Action]:
        """Time passes; every deadline on the way is kept. All that was done."""
        end_s, steps, result = self.now_s + seconds, 0, []
        while (deadline := self.node.next_deadline()) is not None and deadline <= end_s:
            self.now_s = max(self.now_s, deadline)
            result += self.node.handle_timer(self.now)
            steps += 1
            assert steps < 100_000, "a deadline that never passes"
        self.now_s = end_s
        return self.did(result)

    def states(self) -> dict[str, str]:
        """Of the interfaces."""
        return {item["name"]: item["state"] for item in self.node.status()["interfaces"]}

    def probed(self, bid: int, rtt_ms: float | None = 20.0) -> list[Asked]:
        """The probe of this binding has come back, or (None) not."""
        return asked(self.did(self.node.probe_result(bid, rtt_ms, self.now)))

    def probes(self) -> list[int]:
        """BIDs of the probes sent by the latest input."""
        return [probe.bid for probe in pick(self.actions, Probe)]


def random_bytes_from(seed: int = 1) -> Any:
    """Octets that are never the same twice and always the same in every run."""
    state = [seed]

    def draw(count: int) -> bytes:
        state[0] = (state[0] * 6364136223846793005 + 1442695040888963407) % (1 << 64)
        return (state[0].to_bytes(8, "big") * (count // 8 + 1))[:count]

    return draw


def script(**values: Any) -> Script:
    """Started at 0, no interface yet."""
    result = Script(MobileNode(config(**values), random_bytes_from()))
    result.did(result.node.start(result.now))
    return result


def registered(*interfaces: InterfaceState, **values: Any) -> Script:
    """All these interfaces registered (with several bindings), at time 0."""
    result = script(**values)
    for number in range(len(interfaces)):
        for request in result.up(*interfaces[: number + 1]):
            result.reply(request)
    return result


NONCES = replace(KEY, replay=ReplayStyle.NONCES)
