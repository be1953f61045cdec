"""A node of the network with one MPTCP connection of the model: finds the subflow of a packet, accepts, collects."""

from agents.wire import mptcp, tcp
from agents.wire.errors import WireError
from agents.wire.tcp import ACK, SYN
from tests.proxy import packets
from tests.proxy.mptcp_config import MptcpConfig
from tests.proxy.mptcp_keys import token
from tests.proxy.mptcp_model import Connection
from tests.proxy.mptcp_subflow import Subflow
from tests.proxy.tcp_model import Endpoint
from tests.proxy.tcp_types import Address, State


class MptcpHost:
    """A node with one MPTCP connection."""

    def __init__(self, config: MptcpConfig, port: int, remote: Address | None = None) -> None:
        self.port, self.remote = port, remote
        self.output: list[bytes] = []
        self.connection = Connection(config, self)
        self.listening = remote is None
        self._ports = 50_000

    def fresh_port(self) -> int:
        self._ports += 1
        return self._ports

    def handle(self, packet: bytes, now: float) -> None:
        connection = self.connection
        wrong = packets.faults(packet)
        try:
            segment = tcp.parse(packet)
        except WireError as error:
            wrong.append(str(error))
        if wrong:
            connection.violations.append(f"{wrong}: {packet.hex()}")
            return
        local, remote = (segment.destination, segment.destination_port), (segment.source, segment.source_port)
        found = [s for s in connection.subflows if s.endpoint.local == local and s.endpoint.remote == remote]
        endpoint = found[-1].endpoint if found else None
        if segment.flags & (SYN | ACK) == SYN and (endpoint is None or endpoint.state is State.CLOSED):
            endpoint = self._accept(segment, local, remote, now) or endpoint
        if endpoint is None:
            endpoint = Endpoint(connection.config.tcp, local, remote)
            endpoint.handle_segment(segment, now)
            self.output += endpoint.output
            return
        endpoint.handle_segment(segment, now)
        if endpoint.state is State.CLOSED and endpoint.upper is not None:
            endpoint.upper.progress(now)
        self._collect()

    def _accept(self, segment: tcp.Segment, local: Address, remote: Address, now: float) -> Endpoint | None:
        connection = self.connection
        joins = [o for o in segment.mptcp if len(o) == 12 and o[2] >> 4 == mptcp.Subtype.JOIN]
        if joins:
            if connection.other_key == b"" or connection.plain or not connection.subflows:
                connection.counters["early joins"] += 1
                return None
            if joins[0][4:8] != token(connection.key):
                connection.violations.append(f"an MP_JOIN with the token {joins[0][4:8].hex()}")
                return None
            if len([s for s in connection.subflows if not s.dead]) >= connection.config.joins_most or connection.reset_by:
                return None
        elif not self.listening or connection.subflows or local[1] != self.port:
            return None
        subflow = Subflow(connection, local, None, join=bool(joins), active=False)
        addresses = connection.config.addresses
        subflow.local_id = addresses.index(local[0]) if local[0] in addresses else 0
        connection.subflows.append(subflow)
        subflow.endpoint.listen()
        subflow.endpoint.remote = remote
        return subflow.endpoint

    def _collect(self) -> None:
        for subflow in self.connection.subflows:
            endpoint = subflow.endpoint
            if endpoint.output:
                self.output += endpoint.output
                endpoint.output = []
            if endpoint.violations:
                self.connection.violations += [f"{subflow.name}: {text}" for text in endpoint.violations]
                endpoint.violations = []

    def flush(self, now: float) -> None:
        """After the application or a command did something."""
        self._collect()

    def next_deadline(self) -> float | None:
        times = [self.connection.next_deadline(), *(s.endpoint.next_deadline() for s in self.connection.subflows)]
        real = [at for at in times if at is not None]
        return min(real) if real else None

    def handle_timer(self, now: float) -> None:
        connection = self.connection
        for subflow in list(connection.subflows):
            due = subflow.endpoint.next_deadline()
            if due is not None and due <= now:
                subflow.endpoint.handle_timer(now)
                connection.subflow_changed(subflow, now)
                connection.advance(now)
        due = connection.next_deadline()
        if due is not None and due <= now:
            connection.handle_timer(now)
        self._collect()
