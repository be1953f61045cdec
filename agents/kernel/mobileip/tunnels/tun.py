"""TUN devices: an interface whose packets a program reads and writes."""

import errno
import fcntl
import os
import struct
from typing import Final

_TUNSETIFF, _TUNSETOFFLOAD = 0x400454CA, 0x400454D0
_IFF_TUN, _IFF_NO_PI, _IFF_VNET_HDR = 0x0001, 0x1000, 0x4000
_TUN_F_CSUM, _TUN_F_TSO4 = 0x01, 0x02
_DEVICE: Final = "/dev/net/tun"


def open_tun(name: str, *, offloads: bool = True) -> int:
    """Make the interface `name`; returns a non-blocking file descriptor, and the interface lives as long as it.

    Every read and write begins with a struct virtio_net_hdr. offloads: TCP hands over segments of up to 64 KiB.
    Raises OSError with one line that says what to do.
    """
    try:
        descriptor = os.open(_DEVICE, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise OSError(error.errno, f"{_DEVICE}: {error.strerror}: tunnels need it; make it readable, or load ipip") from None
    try:
        flags = _IFF_TUN | _IFF_NO_PI | _IFF_VNET_HDR
        fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH22x", name.encode(), flags))
        fcntl.ioctl(descriptor, _TUNSETOFFLOAD, _TUN_F_CSUM | _TUN_F_TSO4 if offloads else 0)
    except OSError as error:
        os.close(descriptor)
        text = "exists already: another agent is at work here" if error.errno == errno.EBUSY else error.strerror
        raise OSError(error.errno, f"interface {name}: {text}") from None
    return descriptor
