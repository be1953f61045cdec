"""One tunnel in user space: an interface on the inside, a sender on the outside. All runs in the engine's thread."""

import errno
import socket
from collections.abc import Callable
from typing import Any

from agents.core.mobileip.actions import Tunnel
from agents.kernel.mobileip.tunnels.engine import Engine
from agents.kernel.mobileip.tunnels.inner import Inner
from agents.kernel.mobileip.tunnels.offload import Joiner, packets_of
from agents.kernel.mobileip.tunnels.outer import BATCH, RawSender, UdpPipe


class Pipe:
    """What both kinds share: reading the device, writing to it, counting."""

    def __init__(self, tunnel: Tunnel, device: Inner) -> None:
        self.tunnel, self.device = tunnel, device
        self.sent_packets = self.sent_bytes = self.received_packets = self.received_bytes = 0
        self.dropped: dict[str, int] = {}
        self._far = socket.inet_aton(tunnel.remote)
        self._joiner = Joiner()

    def watch(self, engine: Engine) -> None:
        """Handle what the device and the sockets have."""
        engine.watch(self.device.fileno(), self._on_device)

    def close(self, engine: Engine) -> None:
        """Close everything; the interface is gone afterwards."""
        engine.forget(self.device.fileno())
        self.device.close()

    def reconnect(self, engine: Engine) -> None:
        """New sockets, because the physical interface is another one. Raises OSError; the old ones stay then."""
        raise NotImplementedError

    def counters(self) -> dict[str, Any]:
        """Packets and octets of inner packets."""
        return {
            "sent_packets": self.sent_packets, "sent_bytes": self.sent_bytes, "received_packets": self.received_packets,
            "received_bytes": self.received_bytes, "dropped": dict(self.dropped),
        }  # fmt: skip

    def _send(self, packets: list[bytes]) -> None:
        raise NotImplementedError

    def _on_device(self) -> None:
        for _ in range(BATCH):
            try:
                data = self.device.read()
            except BlockingIOError:
                return
            packets = packets_of(data)
            if not packets or packets[0][0] >> 4 != 4:
                self._drop("no-ipv4")
            elif packets[0][12:16] == self._far:
                # What comes from the tunnel's end must not go back to it: a routing loop (RFC 2003 section 3.2).
                self._drop("loop")
            else:
                self._try_send(packets)

    def _try_send(self, packets: list[bytes]) -> None:
        # Counted before they leave: whoever has got an answer to a packet finds it counted.
        size = sum(map(len, packets))
        self.sent_packets += len(packets)
        self.sent_bytes += size
        try:
            self._send(packets)
        except OSError as error:
            self.sent_packets -= len(packets)
            self.sent_bytes -= size
            self._drop(errno.errorcode.get(error.errno or 0, "failed").lower(), len(packets))

    def take(self, inner: bytes | None) -> None:
        """A packet has come out of the tunnel; it reaches the device with `flush` at the latest."""
        if inner is None:
            self._drop("malformed")
            return
        self.received_packets += 1
        self.received_bytes += len(inner)
        for buffers in self._joiner.add(inner):
            self._write(buffers)

    def flush(self) -> None:
        """Nothing more can be read now: write what is held."""
        for buffers in self._joiner.flush():
            self._write(buffers)

    def _write(self, buffers: list[Any]) -> None:
        try:
            self.device.write(buffers)
        except OSError as error:
            self._drop("device-" + errno.errorcode.get(error.errno or 0, "failed").lower())

    def _drop(self, reason: str, number: int = 1) -> None:
        self.dropped[reason] = self.dropped.get(reason, 0) + number


class RawPipe(Pipe):
    """IP in IP or GRE; a receiver that all tunnels of a local address share hands packets to `take`."""

    def __init__(self, tunnel: Tunnel, device: Inner, protocol: int) -> None:
        super().__init__(tunnel, device)
        self._protocol = protocol
        self._use(self._open())

    def _open(self) -> RawSender:
        return RawSender(self.tunnel.local, self.tunnel.remote, self.tunnel.interface, self._protocol)

    def _use(self, sender: RawSender) -> None:
        self._sender = sender
        self._send = sender.send  # type: ignore[method-assign]

    def reconnect(self, engine: Engine) -> None:
        """A new sender; receiving is not bound to an interface."""
        before, new = self._sender, self._open()
        self._use(new)
        before.close()

    def close(self, engine: Engine) -> None:
        """Close device and socket."""
        super().close(engine)
        self._sender.close()


class UdpTunnelPipe(Pipe):
    """UDP; `message` gets datagrams that are no tunnel data, with their TTL."""

    def __init__(self, tunnel: Tunnel, device: Inner, local_port: int, message: Callable[[bytes, int], None]) -> None:
        super().__init__(tunnel, device)
        self._message, self._local_port = message, local_port
        self._use(self._open())

    def _open(self) -> UdpPipe:
        tunnel, port = self.tunnel, self._local_port
        return UdpPipe(tunnel.local, port, tunnel.remote, tunnel.remote_port or port, tunnel.interface)

    def _use(self, udp: UdpPipe) -> None:
        self._udp = udp
        self._send = udp.send  # type: ignore[method-assign]

    def reconnect(self, engine: Engine) -> None:
        """A new socket."""
        before, new = self._udp, self._open()
        engine.forget(before.socket.fileno())
        before.close()
        self._use(new)
        engine.watch(new.socket.fileno(), self._on_socket)

    def watch(self, engine: Engine) -> None:
        """Handle device and socket."""
        super().watch(engine)
        engine.watch(self._udp.socket.fileno(), self._on_socket)

    def close(self, engine: Engine) -> None:
        """Close device and socket."""
        super().close(engine)
        engine.forget(self._udp.socket.fileno())
        self._udp.close()

    def _on_socket(self) -> None:
        try:
            self._udp.receive(self.take, self._message)
        except OSError as error:
            # A connected socket reports ICMP errors: port unreachable while the other end restarts.
            self._drop("receive-" + errno.errorcode.get(error.errno or 0, "failed").lower())
        self.flush()
