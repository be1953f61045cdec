"""All tunnels of an agent: opened and closed by name of their ends, each with an interface, an MTU and counters."""

import contextlib
import fcntl
import socket
import struct
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from agents.core.mobileip.actions import Encapsulation, Tunnel
from agents.kernel.mobileip.netlink import MobileNetlink
from agents.kernel.mobileip.pages import ROWS, preferring
from agents.kernel.mobileip.tunnels.engine import Engine
from agents.kernel.mobileip.tunnels.headers import PROTOCOL_GRE, PROTOCOL_IPIP
from agents.kernel.mobileip.tunnels.inner import Inner, open_inner
from agents.kernel.mobileip.tunnels.outer import RawReceiver
from agents.kernel.mobileip.tunnels.pipe import Pipe, RawPipe, UdpTunnelPipe
from agents.wire.errors import WireError
from agents.wire.mobileip import tunnel_errors
from agents.wire.mobileip.values import REGISTRATION_PORT

OVERHEAD: Final = {Encapsulation.IP_IN_IP: 20, Encapsulation.GRE: 24, Encapsulation.UDP: 32, Encapsulation.NONE: 0}
"""Octets in front of an inner packet."""
MTU_DEFAULT: Final = 1500
LEAST_MTU: Final = 552
"""Smaller path MTUs are not believed: anybody can send an ICMP error (net.ipv4.route.min_pmtu has the same value)."""
PATH_MTU_LIFETIME_S: Final = 600.0
"""A smaller path MTU is forgotten after so long (RFC 1191 section 6.3)."""
RELAYED_PER_S: Final = 50
NUMBERS_MAX: Final = 0xFFFF
PREFIX: Final = "mip"
_PROTOCOLS = {Encapsulation.IP_IN_IP: PROTOCOL_IPIP, Encapsulation.GRE: PROTOCOL_GRE}
_SIOCGIFMTU, _SIOCSIFMTU = 0x8921, 0x8922
_SOL_RAW, _ICMP_FILTER = 255, 1


@dataclass
class Port:
    """An open tunnel: its interface, and the number from which marks and tables are made."""

    tunnel: Tunnel
    number: int
    device: str
    backend: str
    mtu: int
    gateway: str = ""
    """Next hop on `device`; "": a point-to-point interface."""
    pipe: Pipe | None = None
    link_mtu: int = 0
    link_index: int = 0
    """Of the physical interface when it was bound; 0: none."""
    path_mtu: int = 0
    """Of the outer packets, learned from ICMP; 0: that of the physical interface."""
    path_mtu_until_s: float = 0.0
    received_before: tuple[int, int] = (0, 0)
    notes: dict[str, int] = field(default_factory=dict)


class Tunnels:
    """Opens, closes and watches tunnels. Methods belong to the main thread, packets to the engine's.

    on_message(tunnel, data, ttl): a UDP message that is no tunnel data came by a UDP tunnel. on_problem(kind, fields).
    Both are called in the engine's thread.
    """

    def __init__(
        self,
        netlink: MobileNetlink,
        on_message: Callable[[Tunnel, bytes, int], None],
        on_problem: Callable[[str, dict[str, Any]], None],
        *,
        backend: str = "auto",
        port: int = REGISTRATION_PORT,
        offloads: bool = True,
    ) -> None:
        self._netlink, self._on_message, self._on_problem = netlink, on_message, on_problem
        self._backend, self._port, self._offloads = backend, port, offloads
        self.ports: dict[tuple[str, str, int], Port] = {}
        self.strangers: dict[str, int] = {}
        """Outer source -> packets that belong to no tunnel."""
        self._receivers: dict[tuple[str, int], RawReceiver] = {}
        self._by_source: dict[tuple[str, int], dict[bytes, Pipe]] = {}
        self._kernel: dict[str, str] = {}
        self._relayed, self._relayed_second = 0, 0
        self._engine = Engine(lambda error, where: on_problem("defect", {"what": repr(error)[:300], "where": where}))
        self._icmp = _icmp_socket()
        self._engine.call(lambda: self._engine.watch(self._icmp.fileno(), self._on_icmp))

    # -- opening and closing ------------------------------------------------------------------------------------------
    def open(self, tunnel: Tunnel) -> Port:
        """The tunnel exists afterwards; one that exists stays. Raises OSError with one line."""
        port = self.ports.get(tunnel.key)
        if port is not None:
            if (port.tunnel.encapsulation, port.tunnel.interface) == (tunnel.encapsulation, tunnel.interface):
                port.tunnel = tunnel
                return port
            self.close(tunnel)
        used = {other.number for other in self.ports.values()}
        number = next(number for number in range(1, NUMBERS_MAX) if number not in used)
        port = self._make(tunnel, number)
        self.ports[tunnel.key] = port
        return port

    def _make(self, tunnel: Tunnel, number: int) -> Port:
        device, link_mtu = f"{PREFIX}{number}", _interface_mtu(tunnel.interface)
        port = Port(tunnel, number, device, "userspace", link_mtu - OVERHEAD[tunnel.encapsulation], link_mtu=link_mtu)
        port.link_index = _index(tunnel.interface)
        if tunnel.encapsulation is Encapsulation.NONE:
            port.device, port.gateway, port.backend = tunnel.interface, tunnel.remote, "none"
            return port
        if self._use_kernel(tunnel.encapsulation):
            port.backend = "kernel"
            link = socket.if_nametoindex(tunnel.interface) if tunnel.interface else 0
            self._netlink.create_tunnel(device, tunnel.encapsulation.value, tunnel.local, tunnel.remote, link)
        else:
            inner = open_inner(device, self._netlink, offloads=self._offloads)
            try:
                port.pipe = self._connect(tunnel, inner)
            except OSError:
                inner.close()
                raise
        _set(f"net/ipv4/conf/{device}/rp_filter", 0)
        _set(f"net/ipv6/conf/{device}/disable_ipv6", 1)
        self._netlink.set_link(device, port.mtu)
        return port

    def _use_kernel(self, encapsulation: Encapsulation) -> bool:
        if self._backend == "userspace" or encapsulation is Encapsulation.UDP:
            return False
        reason = self.kernel_reason(encapsulation)
        if reason and self._backend == "kernel":
            raise OSError(0, f'kernel {encapsulation.value} tunnels: {reason}: write tunnels = "auto" or "userspace"')
        return not reason

    def kernel_reason(self, encapsulation: Encapsulation) -> str:
        """ "" when the kernel has tunnels of this kind, else why not. Tried once."""
        kind = encapsulation.value
        if kind not in self._kernel:
            try:
                self._netlink.create_tunnel("mip-probe", kind, "127.0.0.1", "127.0.0.2", 0)
                self._netlink.delete_link("mip-probe")
                self._kernel[kind] = ""
            except OSError as error:
                self._kernel[kind] = error.strerror or str(error)
        return self._kernel[kind]

    def _connect(self, tunnel: Tunnel, inner: Inner) -> Pipe:
        engine = self._engine
        if tunnel.encapsulation is Encapsulation.UDP:
            pipe: Pipe = UdpTunnelPipe(
                tunnel, inner, self._port, lambda data, ttl: self._on_message(tunnel, data, ttl)
            )  # fmt: skip
            engine.call(lambda: pipe.watch(engine))
            return pipe
        protocol = _PROTOCOLS[tunnel.encapsulation]
        key = (tunnel.local, protocol)
        receiver = self._receivers.get(key)
        if receiver is None:
            receiver = self._receivers[key] = RawReceiver(tunnel.local, protocol)
            sources = self._by_source[key] = {}
            engine.call(lambda: engine.watch(receiver.socket.fileno(), lambda: self._on_raw(receiver, sources)))
        pipe = RawPipe(tunnel, inner, protocol)
        remote = socket.inet_aton(tunnel.remote)

        def enter() -> None:
            self._by_source[key][remote] = pipe
            pipe.watch(engine)

        engine.call(enter)
        return pipe

    def close(self, tunnel: Tunnel) -> None:
        """The tunnel does not exist afterwards."""
        port = self.ports.pop(tunnel.key, None)
        if port is None:
            return
        pipe = port.pipe
        if pipe is None:
            if port.backend == "kernel":
                self._netlink.delete_link(port.device)
            return
        key = (port.tunnel.local, _PROTOCOLS.get(port.tunnel.encapsulation, 0))
        remote = socket.inet_aton(port.tunnel.remote)

        def leave() -> None:
            sources = self._by_source.get(key, {})
            if sources.get(remote) is pipe:
                del sources[remote]
            pipe.close(self._engine)
            if not sources and key in self._receivers:
                receiver = self._receivers.pop(key)
                del self._by_source[key]
                self._engine.forget(receiver.socket.fileno())
                receiver.close()

        self._engine.call(leave)

    def find(self, tunnel: Tunnel) -> Port | None:
        """The open tunnel with these ends."""
        return self.ports.get(tunnel.key)

    def shut_down(self) -> None:
        """Close everything."""
        for port in list(self.ports.values()):
            with contextlib.suppress(OSError):
                self.close(port.tunnel)
        self._engine.call(lambda: self._engine.forget(self._icmp.fileno()))
        self._engine.close()
        self._icmp.close()

    # -- packets (the engine's thread) --------------------------------------------------------------------------------
    def _on_raw(self, receiver: RawReceiver, sources: dict[bytes, Pipe]) -> None:
        touched: set[Pipe] = set()

        def take(source: bytes, inner: bytes | None) -> None:
            pipe = sources.get(source)
            if pipe is None:
                self._stranger(socket.inet_ntoa(source))
                return
            pipe.take(inner)
            touched.add(pipe)

        receiver.receive(take)
        for pipe in touched:
            pipe.flush()

    def _stranger(self, source: str) -> None:
        """Counted under its name as long as there is room: the number of names is limited, because anybody can forge them."""
        name = source if source in self.strangers or len(self.strangers) < 100 else "others"
        self.strangers[name] = self.strangers.get(name, 0) + 1
        self._on_problem("stranger", {"source": source})

    def _on_icmp(self) -> None:
        for _ in range(64):
            try:
                packet = self._icmp.recv(0x10000)
            except BlockingIOError:
                return
            with contextlib.suppress(WireError):
                error = tunnel_errors.read_error(packet)
                port = self._blamed(error)
                if port is not None:
                    self._take_error(port, error)

    def _blamed(self, error: tunnel_errors.TunnelError) -> Port | None:
        for port in list(self.ports.values()):
            tunnel = port.tunnel
            same = _PROTOCOLS.get(tunnel.encapsulation, 17) == error.protocol and tunnel.remote_port in (0, error.remote_port)
            if same and (tunnel.local, tunnel.remote) == (error.source, error.destination):
                return port
        return None

    def _take_error(self, port: Port, error: tunnel_errors.TunnelError) -> None:
        port.notes["icmp_errors"] = port.notes.get("icmp_errors", 0) + 1
        if port.pipe is None:
            return  # the kernel's own tunnels do all this
        if error.inner_mtu:
            self._lower(port, error.inner_mtu + OVERHEAD[port.tunnel.encapsulation])
        packet = tunnel_errors.relayed(error, port.tunnel.local)
        if packet is not None and self._may_relay():
            with contextlib.suppress(OSError):
                # Behind the IP header of 20 octets, for the address in it.
                self._icmp.sendto(packet[20:], (socket.inet_ntoa(packet[16:20]), 0))
                port.notes["icmp_relayed"] = port.notes.get("icmp_relayed", 0) + 1

    def _lower(self, port: Port, mtu: int) -> None:
        mtu = max(mtu, LEAST_MTU)
        if mtu < (port.path_mtu or port.link_mtu):
            port.path_mtu, port.path_mtu_until_s = mtu, time.monotonic() + PATH_MTU_LIFETIME_S
            self._apply_mtu(port)
            self._on_problem("path-mtu", {"tunnel": port.device, "remote": port.tunnel.remote, "mtu": mtu})

    def _may_relay(self) -> bool:
        second = int(time.monotonic())
        if second != self._relayed_second:
            self._relayed, self._relayed_second = 0, second
        self._relayed += 1
        return self._relayed <= RELAYED_PER_S

    # -- sizes --------------------------------------------------------------------------------------------------------
    def refresh(self) -> None:
        """Follow the MTU of the physical interfaces, and forget path MTUs that are old."""
        for port in self.ports.values():
            if port.path_mtu and time.monotonic() >= port.path_mtu_until_s:
                port.path_mtu = 0
            port.link_mtu = _interface_mtu(port.tunnel.interface) or port.link_mtu
            self._apply_mtu(port)
            self._follow(port)

    def _follow(self, port: Port) -> None:
        """A physical interface that went and came back is another one: sockets bound to the old one send nothing."""
        index, pipe = _index(port.tunnel.interface), port.pipe
        if index and index != port.link_index and pipe is not None:
            port.link_index = index
            try:
                self._engine.call(lambda: pipe.reconnect(self._engine))
            except OSError as error:
                self._on_problem("failed", {"what": f"{port.device}: {error.strerror}"})

    @staticmethod
    def _apply_mtu(port: Port) -> None:
        if port.backend == "none":
            return
        mtu = min(port.link_mtu, port.path_mtu or port.link_mtu) - OVERHEAD[port.tunnel.encapsulation]
        if mtu != port.mtu:
            port.mtu = mtu
            with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                fcntl.ioctl(sock, _SIOCSIFMTU, struct.pack("16si20x", port.device.encode(), mtu))

    # -- for people ---------------------------------------------------------------------------------------------------
    def status(self, limit: int = ROWS, wanted: Iterable[tuple[str, str, int]] = ()) -> list[dict[str, Any]]:
        """One row for each tunnel: at most so many, those whose ends are `wanted` first."""
        keys = preferring((key for key in wanted if key in self.ports), self.ports, limit)
        return [self._row(self.ports[key]) for key in keys]

    @staticmethod
    def _row(port: Port) -> dict[str, Any]:
        tunnel = port.tunnel
        return {
            "device": port.device, "local": tunnel.local, "remote": tunnel.remote, "remote_port": tunnel.remote_port,
            "encapsulation": tunnel.encapsulation.value, "interface": tunnel.interface, "backend": port.backend,
            "mtu": port.mtu, **(port.pipe.counters() if port.pipe else _device_counters(port.device)), **port.notes,
        }  # fmt: skip


def _icmp_socket() -> socket.socket:
    result = socket.socket(socket.AF_INET, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, socket.IPPROTO_ICMP)
    wanted = (tunnel_errors.UNREACHABLE, tunnel_errors.TIME_EXCEEDED)
    mask = 0xFFFF_FFFF & ~sum(1 << kind for kind in wanted)
    result.setsockopt(_SOL_RAW, _ICMP_FILTER, struct.pack("=I", mask))
    return result


def _interface_mtu(name: str) -> int:
    """Of an interface, in octets; that of Ethernet when it is not known."""
    if not name:
        return MTU_DEFAULT
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            return int(struct.unpack("16si20x", fcntl.ioctl(sock, _SIOCGIFMTU, struct.pack("16s24x", name.encode())))[1])
    except OSError:
        return MTU_DEFAULT


def _index(name: str) -> int:
    """Of an interface; 0 when there is none."""
    try:
        return socket.if_nametoindex(name) if name else 0
    except OSError:
        return 0


def _device_counters(device: str) -> dict[str, int]:
    result = {}
    for name, file in (("sent_packets", "tx_packets"), ("sent_bytes", "tx_bytes"), ("received_packets", "rx_packets"),
                       ("received_bytes", "rx_bytes")):  # fmt: skip
        with contextlib.suppress(OSError), open(f"/sys/class/net/{device}/statistics/{file}", encoding="ascii") as text:
            result[name] = int(text.read())
    return result


def _set(name: str, value: int) -> None:
    """A parameter of an interface of ours; one that the kernel does not have needs no value."""
    with contextlib.suppress(FileNotFoundError), open(f"/proc/sys/{name}", "w", encoding="ascii") as file:
        file.write(f"{value}\n")
