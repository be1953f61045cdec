"""What the link layer tells and takes: senders' MAC addresses, agent discovery, packets for hosts that have no address yet."""

import ctypes
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from agents.core.mobileip.actions import SendIcmp, SendMessage
from agents.wire.checksum import folded, ones_sum
from agents.wire.mobileip.values import REGISTRATION_PORT

ADVERTISEMENT, SOLICITATION = 9, 10
MOBILE_AGENTS_GROUP: Final = "224.0.0.11"
_ETH_P_IP: Final = 0x0800
_SO_ATTACH_FILTER = 26
_OUTGOING = 4
_BATCH = 256
_KNOWN_MAX: Final = 4096
"""Senders whose MAC address is remembered."""
# Classic BPF: IPv4, first fragment; UDP to port 434, or ICMP of type 9 or 10. (code, jump if true, jump if false, constant)
_FILTER: Final = (
    (0x30, 0, 0, 9), (0x15, 0, 5, 17),
    (0x28, 0, 0, 6), (0x45, 9, 0, 0x1FFF), (0xB1, 0, 0, 0), (0x48, 0, 0, 2), (0x15, 5, 6, REGISTRATION_PORT),
    (0x15, 0, 5, 1), (0xB1, 0, 0, 0), (0x50, 0, 0, 0), (0x15, 1, 0, ADVERTISEMENT), (0x15, 0, 1, SOLICITATION),
    (0x06, 0, 0, 0x10000), (0x06, 0, 0, 0),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Heard:
    """An ICMP message of agent discovery."""

    data: bytes
    source: str
    interface: str
    link_address: str


class LinkListener:
    """Sees registrations and agent discovery on some interfaces before the kernel's IP does."""

    def __init__(self, interfaces: set[str]) -> None:
        self._interfaces = interfaces
        self.socket = socket.socket(
            socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, socket.htons(_ETH_P_IP)
        )
        _attach(self.socket)
        self._group = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._known: dict[tuple[str, str], str] = {}

    def fileno(self) -> int:
        """For the event loop."""
        return self.socket.fileno()

    def join(self, interface: str) -> None:
        """Hear solicitations on an interface. Raises OSError."""
        index = socket.if_nametoindex(interface)
        request = struct.pack("=4s4si", socket.inet_aton(MOBILE_AGENTS_GROUP), bytes(4), index)
        self._group.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, request)

    def read(self) -> Iterator[Heard]:
        """Take what is there: notes who has which MAC address, gives messages of agent discovery."""
        for _ in range(_BATCH):
            try:
                packet, address = self.socket.recvfrom(0x10000)
            except BlockingIOError:
                return
            interface, kind, link_address = address[0], address[2], address[4].hex(":")
            if kind == _OUTGOING or interface not in self._interfaces or len(packet) < 28:
                continue
            source = socket.inet_ntoa(packet[12:16])
            self._note(interface, source, link_address)
            at = (packet[0] & 15) * 4
            if packet[9] == socket.IPPROTO_ICMP:
                total = struct.unpack_from("!H", packet, 2)[0]
                yield Heard(packet[at:total], source, interface, link_address)

    def _note(self, interface: str, source: str, link_address: str) -> None:
        self._known.pop((interface, source), None)
        self._known[interface, source] = link_address
        if len(self._known) > _KNOWN_MAX:
            del self._known[next(iter(self._known))]

    def link_address(self, interface: str, source: str) -> str:
        """MAC address of who sent from an address lately; "" when unknown."""
        return self._known.get((interface, source), "")

    def send(self, packet: bytes, interface: str, link_address: str) -> None:
        """An IPv4 packet to a MAC address. Raises OSError."""
        self.socket.sendto(packet, (interface, _ETH_P_IP, 0, 0, bytes.fromhex(link_address.replace(":", ""))))

    def close(self) -> None:
        """Close the sockets."""
        self.socket.close()
        self._group.close()


def udp_packet(message: SendMessage, source: str, port: int = REGISTRATION_PORT) -> bytes:
    """The message as an IPv4 packet from our registration port."""
    length = 8 + len(message.data)
    ends = socket.inet_aton(source) + socket.inet_aton(message.destination)
    udp = struct.pack("!HHHH", port, message.port, length, 0) + message.data
    checksum = folded(ones_sum(udp) + ones_sum(ends) + socket.IPPROTO_UDP + length) or 0xFFFF
    return _ipv4(ends, socket.IPPROTO_UDP, message.ttl, udp[:6] + checksum.to_bytes(2, "big") + udp[8:])


def icmp_packet(message: SendIcmp, source: str) -> bytes:
    """The message as an IPv4 packet."""
    return _ipv4(
        socket.inet_aton(source) + socket.inet_aton(message.destination), socket.IPPROTO_ICMP, message.ttl, message.data
    )


def group_link_address(destination: str) -> str:
    """MAC address of a multicast group (RFC 1112 section 6.4) or of a broadcast; "" for one host."""
    octets = socket.inet_aton(destination)
    if octets == b"\xff" * 4:
        return "ff:ff:ff:ff:ff:ff"
    if 224 <= octets[0] < 240:
        return (b"\x01\x00\x5e" + bytes((octets[1] & 0x7F,)) + octets[2:]).hex(":")
    return ""


def _ipv4(ends: bytes, protocol: int, ttl: int, payload: bytes) -> bytes:
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 0, 0, ttl, protocol, 0) + ends
    return head[:10] + folded(ones_sum(head)).to_bytes(2, "big") + head[12:] + payload


def _attach(sock: socket.socket) -> None:
    program = b"".join(struct.pack("=HBBI", *line) for line in _FILTER)
    memory = ctypes.create_string_buffer(program)
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("@HP", len(_FILTER), ctypes.addressof(memory)))
