"""Complete the transport checksum of a frame whose sender left that to hardware.

Emulated links switch checksum offload off, so this is for nodes where somebody has switched it on again.
"""

import struct

_ETHERTYPES_VLAN = (0x8100, 0x88A8)
_CHECKSUM_AT = {6: 16, 17: 6, 58: 2}  # TCP, UDP, ICMPv6: offset in the transport header
_IPV6_EXTENSIONS = (0, 43, 60)  # hop-by-hop, routing, destination options


def internet_checksum(data: bytes) -> int:
    """One's complement sum of 16-bit words (RFC 1071), complemented."""
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def complete(frame: bytes) -> bytes:
    """The frame with its TCP, UDP or ICMPv6 checksum computed; unchanged when it is none of these."""
    at = 12
    ethertype = int.from_bytes(frame[at : at + 2], "big")
    while ethertype in _ETHERTYPES_VLAN:
        at += 4
        ethertype = int.from_bytes(frame[at : at + 2], "big")
    at += 2
    if ethertype == 0x0800 and len(frame) >= at + 20:
        transport = at + (frame[at] & 15) * 4
        protocol = frame[at + 9]
        end = at + int.from_bytes(frame[at + 2 : at + 4], "big")
        addresses = frame[at + 12 : at + 20]
        fragment = int.from_bytes(frame[at + 6 : at + 8], "big") & 0x3FFF
        if fragment:
            return frame
    elif ethertype == 0x86DD and len(frame) >= at + 40:
        protocol = frame[at + 6]
        transport = at + 40
        end = transport + int.from_bytes(frame[at + 4 : at + 6], "big")
        addresses = frame[at + 8 : at + 40]
        while protocol in _IPV6_EXTENSIONS and transport + 8 <= len(frame):
            if protocol == 43 and frame[transport + 3]:
                return frame  # segments left: the checksum covers the final destination, not this one
            protocol, transport = frame[transport], transport + 8 + frame[transport + 1] * 8
    else:
        return frame
    field = transport + _CHECKSUM_AT.get(protocol, 0)
    if protocol not in _CHECKSUM_AT or end > len(frame) or field + 2 > end:
        return frame
    segment = frame[transport:field] + b"\0\0" + frame[field + 2 : end]
    value = internet_checksum(addresses + struct.pack("!II", len(segment), protocol) + segment)
    if protocol == 17 and value == 0:
        value = 0xFFFF  # RFC 768: zero means that there is no checksum
    return frame[:field] + struct.pack("!H", value) + frame[field + 2 :]
