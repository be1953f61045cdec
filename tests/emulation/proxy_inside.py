"""The proxy's kernel side with a core that translates addresses only: `python -m tests.emulation.proxy_inside FILE.toml CORE`.

CORE is a JSON object: {"homes": addresses of the mobile end, "far": false there and true at the other}. Connections begin on
these addresses; after the command `handover` to another one all packets of its family use that, and the host's TCP notices
nothing. The far end follows: it answers to where packets come from.
"""

import json
import socket
import sys
from typing import Any

from agents.core.proxy.actions import Action, Answer, Deliver, Offload, Send, Verdict
from agents.core.proxy.config import LocalAddress
from agents.kernel.proxy.agent import serve
from agents.kernel.proxy.configuration import read_config
from agents.wire.tcp import SYN, Segment, build, parse


def packed(text: str) -> bytes:
    """The bytes of an address."""
    return socket.inet_pton(socket.AF_INET6 if ":" in text else socket.AF_INET, text)


class Translator:
    """A core. `aliases`: the home address of a family to the address in use on the network."""

    def __init__(self, homes: list[str], *, far: bool) -> None:
        self.homes = {len(packed(text)): packed(text) for text in homes}
        self.used = dict(self.homes)
        self.far = far
        self.seen = {"outbound": 0, "inbound": 0, "partial": 0, "super": 0, "asked": 0}
        self.addresses: list[LocalAddress] = []
        self.raw = False
        self.last: dict[int, tuple[Segment, Offload]] = {}

    def shut_down(self, actions: list[Action]) -> None:
        """Nothing to end."""

    def outbound(self, packet: bytes, _now: float, actions: list[Action], offload: Offload = Offload.NONE) -> Answer:
        segment = self._read("outbound", packet, offload)
        length = len(segment.source)
        source, destination = segment.source, segment.destination
        if self.far:
            destination = self.used[length]
        else:
            source = self.used[length]
        self.last[length] = segment, offload
        again = self._again(segment, source, destination, offload)
        if self.raw and not segment.flags & SYN:
            actions.append(Send(again))
            return Verdict.DROP
        return again

    def inbound(self, packet: bytes, _now: float, actions: list[Action], offload: Offload = Offload.NONE) -> Answer:
        segment = self._read("inbound", packet, offload)
        length = len(segment.source)
        source, destination = segment.source, segment.destination
        if self.far:
            self.used[length], source = source, self.homes[length]
        else:
            destination = self.homes[length]
        again = self._again(segment, source, destination, offload)
        if self.raw and not segment.flags & SYN:
            actions.append(Deliver(again))
            return Verdict.DROP
        return again

    def _read(self, direction: str, packet: bytes, offload: Offload) -> Segment:
        self.seen[direction] += 1
        self.seen["partial"] += offload is Offload.PARTIAL_CHECKSUM
        self.seen["super"] += offload is Offload.SUPERPACKET
        return parse(packet)

    @staticmethod
    def _again(segment: Segment, source: bytes, destination: bytes, offload: Offload) -> bytes:
        known = segment.payload_sum() if offload is Offload.NONE else 0 if offload is Offload.SUPERPACKET else None
        return build(
            source, segment.source_port, destination, segment.destination_port, segment.seq, segment.ack, segment.flags,
            segment.window, segment.data[segment.tcp_at + 20 : segment.payload_at], segment.payload, payload_sum=known,
            traffic_class=segment.traffic_class, hop_limit=segment.hop_limit,
            fragment_word=segment.fragment_word or 0x4000, urgent=segment.urgent,
        )  # fmt: skip

    def knows(self, packet: bytes) -> bool:
        self.seen["asked"] += 1
        return parse(packet).flags & SYN == 0

    def application_addresses(self) -> set[bytes]:
        return set(self.homes.values())

    def next_deadline(self) -> float | None:
        return None

    def handle_timer(self, now: float, actions: list[Action]) -> None:
        raise AssertionError("no deadline was given")

    def addresses_changed(self, addresses: list[LocalAddress], _now: float, _actions: list[Action]) -> None:
        self.addresses = addresses

    def status(self) -> dict[str, Any]:
        return dict(self.seen)

    def connections(self) -> list[dict[str, Any]]:
        return [{"home": home.hex(), "used": self.used[length].hex()} for length, home in self.homes.items()]

    def handover(self, _to: int | None, _now: float, actions: list[Action], *, address: bytes, connection: Any,
                 break_first: bool) -> dict[str, Any]:  # fmt: skip
        if address not in {item.address for item in self.addresses if item.usable}:
            raise ValueError("no usable address")
        self.used[len(address)] = address
        self.raw = break_first
        segment, offload = self.last[len(address)]
        # The other end must learn of the address even when this one has nothing to say.
        actions.append(Send(self._again(segment, address, segment.destination, offload)))
        return {}


if __name__ == "__main__":
    order = json.loads(sys.argv[2])
    serve(read_config(sys.argv[1]), Translator(order["homes"], far=order["far"]))
