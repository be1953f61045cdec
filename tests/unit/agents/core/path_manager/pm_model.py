"""A small model of two hosts with MPTCP: `cn` sends a stream to `mn`, over the subflows that the path manager makes.

It is a pessimist: the sender stays on its subflow until that is closed, becomes backup, or has been without acknowledgement for
STALE_S, as a kernel with many retransmission time-outs does. Closing and MP_PRIO reach the peer only by a path that works.
"""

from dataclasses import dataclass, field
from itertools import pairwise

from agents.core.path_manager.config import PathManagerConfig
from agents.core.path_manager.manager import PathManager
from agents.core.path_manager.values import (
    Action,
    Announce,
    Connection,
    CreateSubflow,
    DestroySubflow,
    Kind,
    LocalAddress,
    Log,
    Probe,
    Remove,
    SetPriority,
    Subflow,
    SubflowClosed,
)

TOKEN, CN, PORT = 0xC0FFEE, "10.65.0.2", 443
TICK_S, RTT_S, STALE_S, SYN_TIMEOUT_S = 0.025, 0.03, 5.0, 2.0
HOA, COA1, COA2 = "10.33.0.100", "10.1.0.100", "10.2.0.100"
KINDS = {HOA: Kind.HOME, COA1: Kind.CARE_OF, COA2: Kind.CARE_OF}
COSTS = {HOA: 0, COA1: 1, COA2: 2}


@dataclass
class Path:
    """Between an address of `mn` and `cn`."""

    silent: bool = False
    present: bool = True
    """The address exists and has a way to leave."""

    @property
    def works(self) -> bool:
        return self.present and not self.silent


@dataclass
class Flow:
    """A subflow, with both ends' view of it."""

    local: str
    port: int
    number: int
    born_s: float
    backup: bool = False
    established: bool = False
    here: bool = True
    """`mn` has it."""
    there: bool = False
    """`cn` has it."""
    there_backup: bool = False
    received: int = 0
    heard_s: float = 0.0
    stuck_s: float | None = None


@dataclass
class World:
    """Clock, paths, one connection."""

    config: PathManagerConfig = field(default_factory=PathManagerConfig)
    initial: str = HOA
    paths: dict[str, Path] = field(default_factory=lambda: {name: Path() for name in KINDS})
    now_s: float = 1000.0
    flows: list[Flow] = field(default_factory=list)
    delivered_s: list[float] = field(default_factory=list)
    actions: list[Action] = field(default_factory=list)
    probes: list[tuple[float, Probe]] = field(default_factory=list)
    answers_probes: bool = True
    sending: bool = True
    _port: int = 40_000
    _current: Flow | None = None

    def __post_init__(self) -> None:
        self.core = PathManager(self.config)
        first = Flow(self.initial, 39_999, 0, self.now_s, established=True, there=True, heard_s=self.now_s)
        self.flows.append(first)
        self.tell_addresses()

    # -- what the agent does ------------------------------------------------------------------------------------------
    def tell_addresses(self) -> None:
        usable = [LocalAddress(name, KINDS[name], "", 0, COSTS[name]) for name, path in self.paths.items() if path.present]
        self.perform(self.core.addresses_changed(usable, [item.address for item in usable], self.now_s))

    def restart(self) -> None:
        """The agent is killed and starts again."""
        self.core = PathManager(self.config)
        self.tell_addresses()

    def read(self) -> None:
        connection = Connection(TOKEN, self.initial, CN, PORT)
        rows = [
            Subflow(
                TOKEN, flow.local, flow.port, CN, PORT, flow.number, 0, flow.backup, flow.established, RTT_S * 1000, 5.0,
                0, 0, int((self.now_s - flow.heard_s) * 1000), flow.received,
            )
            for flow in self.flows if flow.here
        ]  # fmt: skip
        self.perform(self.core.sockets_read([connection], rows, self.now_s))

    def perform(self, actions: list[Action]) -> None:
        for action in actions:
            self.actions.append(action)
            if isinstance(action, CreateSubflow):
                self._port += 1
                assert all(flow.local != action.local for flow in self.flows if flow.here), "one subflow for a pair"
                self.flows.append(
                    Flow(action.local, self._port, action.local_id, self.now_s, action.backup, there_backup=action.backup)
                )
            elif isinstance(action, Remove):
                self._remove(action)
            elif isinstance(action, DestroySubflow):
                for flow in self.flows:
                    if flow.here and (flow.local, flow.port) == (action.local, action.local_port):
                        flow.here, flow.there = False, flow.there and not self.paths[flow.local].works
            elif isinstance(action, SetPriority):
                for flow in self.flows:
                    if flow.here and flow.local == action.local:
                        flow.backup = action.backup
                        if self.paths[flow.local].works:
                            flow.there_backup = action.backup
            elif isinstance(action, Probe):
                self.probes.append((self.now_s, action))
            else:
                assert isinstance(action, Log | Announce)

    def _remove(self, action: Remove) -> None:
        if any(flow.here and flow.established and self.paths[flow.local].works for flow in self.flows):
            for flow in self.flows:
                if flow.number == action.local_id:
                    flow.there = False

    # -- what the world does ------------------------------------------------------------------------------------------
    def tick(self) -> None:
        """One step of time."""
        self.now_s += TICK_S
        self._handshakes()
        if self.sending:
            self._send()
        self.flows = [flow for flow in self.flows if flow.here or flow.there]
        self._answers()
        self.read()
        self.perform(self.core.handle_timer(self.now_s))

    def _handshakes(self) -> None:
        for flow in self.flows:
            if not flow.here or flow.established:
                continue
            if self.paths[flow.local].works and self.now_s - flow.born_s >= RTT_S:
                flow.established = flow.there = True
                flow.heard_s = self.now_s
            elif self.now_s - flow.born_s > SYN_TIMEOUT_S:
                flow.here = False
                self.perform(self.core.handle_event(SubflowClosed(TOKEN, flow.local, CN, 110), self.now_s))

    def _candidates(self) -> list[Flow]:
        known = [flow for flow in self.flows if flow.there and flow.stuck_s is None]
        known = known or [flow for flow in self.flows if flow.there]
        return [flow for flow in known if not flow.there_backup] or known

    def _send(self) -> None:
        usable = self._candidates()
        if self._current not in usable:
            self._current = usable[0] if usable else None
        flow = self._current
        if flow is None:
            return
        if self.paths[flow.local].works and flow.here:
            flow.received, flow.heard_s, flow.stuck_s = flow.received + 1000, self.now_s, None
            self.delivered_s.append(self.now_s)
        elif self.paths[flow.local].works:
            flow.there = False  # RST
        elif self.now_s - max(self.delivered_s, default=self.now_s) > STALE_S and flow.stuck_s is None:
            flow.stuck_s = self.now_s

    def _answers(self) -> None:
        pending, self.probes = self.probes, []
        for sent_s, probe in pending:
            if self.answers_probes and self.paths[probe.local].works and self.now_s - sent_s >= RTT_S:
                self.perform(self.core.probe_result(probe.local, probe.remote, RTT_S * 1000, self.now_s))
            elif self.now_s - sent_s >= probe.timeout_s:
                self.perform(self.core.probe_result(probe.local, probe.remote, None, self.now_s))
            else:
                self.probes.append((sent_s, probe))

    def run(self, seconds: float) -> None:
        """So much time."""
        for _ in range(round(seconds / TICK_S)):
            self.tick()

    def longest_gap_s(self, since_s: float) -> float:
        """Between two deliveries, until now."""
        times = [since_s, *(at_s for at_s in self.delivered_s if at_s >= since_s), self.now_s]
        return max(later - earlier for earlier, later in pairwise(times))

    def locals(self) -> set[str]:
        """Addresses with an established subflow."""
        return {flow.local for flow in self.flows if flow.here and flow.established}

    def done(self, kind: type) -> list[Action]:
        """Actions of a type."""
        return [action for action in self.actions if isinstance(action, kind)]
