"""A packet socket on one interface whose receive side is a ring shared with the kernel (TPACKET_V2).

Reading a frame costs no system call and comes with the time at which the kernel received it, so that a late
reader still knows when a frame arrived. Sources: Documentation/networking/packet_mmap.rst,
include/uapi/linux/if_packet.h of the Linux kernel.
"""

import ctypes
import fcntl
import mmap
import os
import socket
import struct
import time
from collections.abc import Callable
from typing import NamedTuple

from topologies.links.checksum import complete
from topologies.links.netns import LinkError

SOL_PACKET = 263
PACKET_RX_RING = 5
PACKET_STATISTICS = 6
PACKET_VERSION = 10
PACKET_QDISC_BYPASS = 20
PACKET_IGNORE_OUTGOING = 23
TPACKET_V2 = 1
ETH_P_ALL = 3

TP_STATUS_USER = 1 << 0
TP_STATUS_CSUMNOTREADY = 1 << 3
TP_STATUS_VLAN_VALID = 1 << 4
TP_STATUS_VLAN_TPID_VALID = 1 << 6
_UNUSUAL = TP_STATUS_CSUMNOTREADY | TP_STATUS_VLAN_VALID

# struct tpacket2_hdr: status, len, snaplen, mac, net, sec, nsec, vlan_tci, vlan_tpid
_HEADER = struct.Struct("IIIHHII")
_VLAN = struct.Struct("HH")
_VLAN_OFFSET = 24
_BLOCK_BYTES = 64 * 1024
_DEFAULT_TPID = 0x8100
_SIOCETHTOOL, _ETHTOOL_GLINK = 0x8946, 0x0A
DEFAULT_SLOTS = 1024
DEFAULT_SLOT_BYTES = 2048

_STALE_NS = 1_000_000_000
"""An arrival that seems longer ago than this is the wall clock having been set, not a late reader."""

_libc = ctypes.CDLL(None, use_errno=True)


class Arrival(NamedTuple):
    """A frame as it came from the kernel."""

    arrival_ns: int
    """CLOCK_MONOTONIC."""
    frame: bytes
    length: int
    """Bytes on the wire; more than len(frame) when the frame did not fit into a slot."""


def make_ring_socket(
    *, slots: int = DEFAULT_SLOTS, slot_bytes: int = DEFAULT_SLOT_BYTES, outgoing: bool = False
) -> socket.socket:
    """A packet socket of the current network namespace with a receive ring, bound to no interface yet.

    Making and closing one waits for a grace period of the kernel (about 20 ms); binding does not.
    `slots` frames of `slot_bytes` (a power of two, 128 to 65536) of which about 70 bytes are header.
    `outgoing` also takes the frames that this host sends (for captures). Raises LinkError.
    """
    blocks = _blocks(slots, slot_bytes)
    try:
        # Protocol 0 until bound: otherwise frames of all interfaces would come in between.
        ring_socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
    except OSError as error:
        raise LinkError(f"cannot open a packet socket: {error.strerror}") from error
    try:
        ring_socket.setsockopt(SOL_PACKET, PACKET_VERSION, TPACKET_V2)
        if not outgoing:
            ring_socket.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
            # No queueing discipline and no look at the frame by other packet sockets of the wire.
            ring_socket.setsockopt(SOL_PACKET, PACKET_QDISC_BYPASS, 1)
        request = struct.pack("IIII", _BLOCK_BYTES, blocks, slot_bytes, blocks * (_BLOCK_BYTES // slot_bytes))
        # Not by Python's setsockopt, which keeps all other threads of this process waiting meanwhile.
        if _libc.setsockopt(ring_socket.fileno(), SOL_PACKET, PACKET_RX_RING, request, len(request)):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
    except OSError as error:
        ring_socket.close()
        raise LinkError(f"cannot make a packet ring of {blocks * _BLOCK_BYTES} bytes: {error.strerror}") from error
    return ring_socket


def bind_ring_socket(ring_socket: socket.socket, interface: str) -> None:
    """Start receiving from an interface of the namespace in which the socket was made. Raises LinkError."""
    try:
        ring_socket.bind((interface, ETH_P_ALL))
    except OSError as error:
        ring_socket.close()
        raise LinkError(f"cannot open a packet ring on {interface}: {error.strerror}") from error


def _blocks(slots: int, slot_bytes: int) -> int:
    return max(1, slots * slot_bytes // _BLOCK_BYTES)


class Ring:
    """Reads the ring of a socket from `make_ring_socket`, called with the same `slots` and `slot_bytes`."""

    def __init__(self, ring_socket: socket.socket, *, slots: int = DEFAULT_SLOTS, slot_bytes: int = DEFAULT_SLOT_BYTES) -> None:
        self.socket = ring_socket
        self.drops = 0
        """Frames lost because nobody read the ring in time."""
        self.oversize = 0
        """Frames larger than a slot: jumbo frames, or segmentation offload switched on in the node."""
        self.checksums_completed = 0
        """Frames that arrived without checksum because an offload was on in the node."""
        blocks = _blocks(slots, slot_bytes)
        self._slot_bytes = slot_bytes
        self._slots = blocks * (_BLOCK_BYTES // slot_bytes)
        self._next = 0
        self._last_arrival_ns = 0
        self._memory = mmap.mmap(self.fileno(), blocks * _BLOCK_BYTES)
        self._status = memoryview(self._memory).cast("I")

    def has_carrier(self) -> bool:
        """Whether the other end of the veth pair takes frames, as the kernel knows it now (ethtool's link test)."""
        value = ctypes.create_string_buffer(struct.pack("II", _ETHTOOL_GLINK, 0))
        request = struct.pack("16sQ16x", self.socket.getsockname()[0].encode(), ctypes.addressof(value))
        try:
            fcntl.ioctl(self.socket, _SIOCETHTOOL, request)
        except OSError:
            return False  # the interface has gone
        return bool(struct.unpack("II", value.raw[:8])[1])

    def fileno(self) -> int:
        """Readable when the ring holds a frame."""
        return self.socket.fileno()

    def receive(self, limit: int, take: Callable[[int, bytes], None]) -> int:
        """Pass up to `limit` frames to `take(arrival_ns, frame)`; return how many slots were read.

        A frame that did not fit into a slot is counted in `oversize` and not passed.
        """
        memory = self._memory
        status_words = self._status
        slot_bytes = self._slot_bytes
        index = self._next
        unpack_from = _HEADER.unpack_from
        now_ns = time.monotonic_ns()
        # The ring's times are CLOCK_REALTIME. Both clocks are slewed alike; only setting the wall clock parts them.
        offset_ns = time.time_ns() - now_ns
        last_ns = self._last_arrival_ns
        count = 0
        while count < limit:
            at = index * slot_bytes
            status, length, captured, mac, _, sec, nsec = unpack_from(memory, at)
            if not status & TP_STATUS_USER:
                break
            start = at + mac
            frame = memory[start : start + captured]
            if status & _UNUSUAL or captured != length:
                frame = self._unusual(frame, status, length, at)
            status_words[at >> 2] = 0
            index += 1
            if index == self._slots:
                index = 0
            count += 1
            arrival_ns = sec * 1_000_000_000 + nsec - offset_ns
            # Clock reads of kernel and program differ by some ns, and the wall clock may be set: never be ahead,
            # never be absurdly late, never go back.
            if arrival_ns > now_ns:
                now_ns = time.monotonic_ns()
            if not now_ns - _STALE_NS < arrival_ns <= now_ns:
                arrival_ns = now_ns
            if arrival_ns < last_ns:
                arrival_ns = last_ns
            last_ns = arrival_ns
            if frame:
                take(arrival_ns, frame)
        self._next = index
        self._last_arrival_ns = last_ns
        return count

    def _unusual(self, frame: bytes, status: int, length: int, at: int) -> bytes:
        """A frame that was cut (then b""), carries its VLAN tag beside it, or lacks its checksum."""
        if len(frame) < length:
            self.oversize += 1
            return b""
        if status & TP_STATUS_CSUMNOTREADY:
            self.checksums_completed += 1
            frame = complete(frame)
        if status & TP_STATUS_VLAN_VALID:
            tci, tpid = _VLAN.unpack_from(self._memory, at + _VLAN_OFFSET)
            if not status & TP_STATUS_VLAN_TPID_VALID:
                tpid = _DEFAULT_TPID
            frame = frame[:12] + struct.pack("!HH", tpid, tci) + frame[12:]
        return frame

    def read_all(self) -> list[Arrival]:
        """All frames in the ring, with wall-clock independent times and true lengths. For captures."""
        arrivals: list[Arrival] = []
        offset_ns = time.time_ns() - time.monotonic_ns()
        for _ in range(self._slots):
            at = self._next * self._slot_bytes
            status, length, captured, mac, _, sec, nsec = _HEADER.unpack_from(self._memory, at)
            if not status & TP_STATUS_USER:
                break
            frame = self._memory[at + mac : at + mac + captured]
            arrivals.append(Arrival(sec * 1_000_000_000 + nsec - offset_ns, frame, length))
            self._status[at >> 2] = 0
            self._next = (self._next + 1) % self._slots
        return arrivals

    def count_drops(self) -> int:
        """Frames that the kernel could not put into the ring so far."""
        # The kernel resets its counters on reading.
        _, dropped = struct.unpack("II", self.socket.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))
        self.drops += dropped
        return self.drops

    def reset_counters(self) -> None:
        """Start counting anew."""
        self.count_drops()
        self.drops = self.oversize = self.checksums_completed = 0

    def clear_error(self) -> int:
        """Fetch and reset the pending error, such as ENETDOWN after the interface went down; 0 if none."""
        return self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)

    def close(self) -> None:
        """Release ring and socket."""
        self._status.release()
        self._memory.close()
        self.socket.close()


class Timer:
    """An absolute timer on CLOCK_MONOTONIC as a file descriptor that becomes readable when it expires."""

    _CLOCK_MONOTONIC = 1
    _TFD_TIMER_ABSTIME = 1

    def __init__(self) -> None:
        self._fd = int(_libc.timerfd_create(self._CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC))
        if self._fd < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), "timerfd_create")
        self._value = (ctypes.c_longlong * 4)()
        self._settime = _libc.timerfd_settime
        self._settime.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p]
        self._address = ctypes.addressof(self._value)

    def fileno(self) -> int:
        """Readable once the timer has expired, until it is armed anew."""
        return self._fd

    def arm(self, at_ns: int) -> None:
        """Expire at that time (a past one: at once); 0 stops the timer. Clears an earlier expiry."""
        self._value[2], self._value[3] = divmod(at_ns, 1_000_000_000)
        self._settime(self._fd, self._TFD_TIMER_ABSTIME, self._address, None)

    def close(self) -> None:
        """Release the timer."""
        os.close(self._fd)
