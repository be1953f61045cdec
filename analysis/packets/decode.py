"""Compiled loop over packets: link layer, IP, tunnels, transport header, TCP options -> one row of columns each.

Every read is preceded by a check against the captured bytes; a packet that lies about its lengths gets a bit in `problems`.

Sources: RFC 791, RFC 8200 (IPv6 and its extension headers), RFC 2003 (IP-in-IP), RFC 2473 (IPv6 tunnels), RFC 2004 (minimal
encapsulation), RFC 2784 and 2890 (GRE), RFC 3519 section 3.3 (UDP tunnel of Mobile IP), RFC 6275 sections 6.3 and 6.4
(home address option, type 2 routing header), RFC 5533 (Shim6), RFC 9293 section 3.1, RFC 2018 (SACK), RFC 7323, RFC 8684 and
RFC 6824 section 3 (MPTCP). Link types: the list of the tcpdump group.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from analysis.compiled import compiled
from analysis.packets.schema import (
    DSS,
    DSS_ACK,
    DSS_ACK8,
    DSS_MAP,
    DSS_MAP8,
    FRAGMENT,
    GRE,
    HAS_AUTH,
    HAS_FAST_OPEN,
    HAS_MPTCP,
    HAS_MSS,
    HAS_SACK,
    HAS_SACK_PERMITTED,
    HAS_TIMESTAMPS,
    HAS_UNKNOWN,
    HAS_WSCALE,
    ICMP,
    ICMPV6,
    IP_CUT,
    IP_MALFORMED,
    IPIP,
    IPV6_IN_IP,
    LATER_FRAGMENT,
    LENGTH_CLIPPED,
    LENGTH_ZERO,
    MINIMAL,
    MOBILITY,
    NOT_IP,
    OPTIONS_CUT,
    OPTIONS_MALFORMED,
    ROUTE_OPTIMISED,
    SHIM6,
    TCP,
    TOO_DEEP,
    TRANSPORT_CUT,
    TRANSPORT_MALFORMED,
    TUNNEL_4IN6,
    TUNNEL_6IN4,
    TUNNEL_6IN6,
    TUNNEL_GRE,
    TUNNEL_IPIP,
    TUNNEL_MINIMAL,
    TUNNEL_UDP,
    UDP,
)

MOBILE_IP_PORT = 434
SACK_ROOM, SIGNAL_ROOM, ADDRESS_ROOM = 8, 16, 4
"""What one packet can need at most of the ragged columns and of the address book: 40 bytes of options, four addresses."""
SACKS, SIGNALS, ADDRESSES, SEED = range(4)
"""Entries of the array `counts`: how many SACK blocks, MPTCP options and addresses are stored; and the seed of the hash."""
_DEEPEST = 8
_HEADERS = 16


@compiled
def _u16(data: Any, at: Any) -> Any:
    return (np.int64(data[at]) << 8) | np.int64(data[at + 1])


@compiled
def _u32(data: Any, at: Any) -> Any:
    return (np.int64(data[at]) << 24) | (np.int64(data[at + 1]) << 16) | (np.int64(data[at + 2]) << 8) | np.int64(data[at + 3])


@compiled
def _u64(data: Any, at: Any) -> Any:
    return (np.uint64(_u32(data, at)) << np.uint64(32)) | np.uint64(_u32(data, at + 4))


@compiled
def _slot(seed: Any, version: Any, high: Any, low: Any, mask: Any) -> Any:
    """Where the search for an address begins. The seed keeps strangers from choosing addresses that all begin at one place."""
    mixed = ((high ^ np.uint64(seed)) * np.uint64(0xD6E8FEB86659FD93) ^ (low * np.uint64(0x9E3779B97F4A7C15))) + np.uint64(
        version
    )
    mixed = (mixed ^ (mixed >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
    return np.int64(mixed >> np.uint64(32)) & mask


@compiled
def _intern(slots: Any, book: Any, counts: Any, version: Any, high: Any, low: Any) -> Any:
    """Code of an address; a new one is added. `slots` (a power of two) is an open hash table of codes.

    The caller sees to free room in `slots` and `book`.
    """
    mask = slots.size - 1
    slot = _slot(counts[SEED], version, high, low, mask)
    while slots[slot] != 0:
        code = slots[slot]
        if book[code].low == low and book[code].high == high and book[code].version == version:
            return code
        slot = (slot + 1) & mask
    code = np.int32(counts[ADDRESSES])
    book[code].high, book[code].low, book[code].version = high, low, version
    slots[slot] = code
    counts[ADDRESSES] += 1
    return code


@compiled
def intern_all(slots: Any, book: Any, counts: Any, version: Any, high: Any, low: Any, code: Any) -> None:
    """Codes of many addresses."""
    for i in range(code.size):
        code[i] = _intern(slots, book, counts, version[i], high[i], low[i])


@compiled
def rehash(slots: Any, book: Any, counts: Any) -> None:
    """Fill an empty, larger hash table with the codes of all addresses."""
    mask = slots.size - 1
    for code in range(1, counts[ADDRESSES]):
        slot = _slot(counts[SEED], book[code].version, book[code].high, book[code].low, mask)
        while slots[slot] != 0:
            slot = (slot + 1) & mask
        slots[slot] = code


@compiled
def _link(data: Any, at: Any, stop: Any, link_type: Any) -> Any:
    """Skip the link layer: offset of the next header, and 4, 6, 0 (no IP) or -1 (cut)."""
    kind: Any = -2  # an EtherType still to be looked at
    ether = 0
    if link_type == 1:  # Ethernet
        if at + 14 > stop:
            return at, -1
        ether, at = _u16(data, at + 12), at + 14
    elif link_type == 113:  # Linux cooked
        if at + 16 > stop:
            return at, -1
        ether, at = _u16(data, at + 14), at + 16
    elif link_type == 276:  # Linux cooked, version 2
        if at + 20 > stop:
            return at, -1
        ether, at = _u16(data, at), at + 20
    elif link_type in (0, 108):  # loopback, of either byte order
        if at + 4 > stop:
            return at, -1
        family = _u32(data, at)
        if family > 0xFFFF:
            family = (family >> 24) | ((family >> 8) & 0xFF00)
        at += 4
        kind = 4 if family == 2 else 6 if family in (10, 24, 28, 30) else 0
    elif link_type in (12, 14, 101, 228, 229):  # raw IP
        if at >= stop:
            return at, -1
        kind = data[at] >> 4
        if kind not in (4, 6):
            kind = 0
    else:
        return at, 0
    if kind != -2:
        return at, kind
    for _ in range(_DEEPEST):
        if ether in (0x8100, 0x88A8, 0x9100, 0x9200):  # VLAN tags
            if at + 4 > stop:
                return at, -1
            ether, at = _u16(data, at + 2), at + 4
        else:
            break
    return at, 4 if ether == 0x0800 else 6 if ether == 0x86DD else 0


@compiled
def _nibble(data: Any, at: Any, stop: Any, version: Any) -> Any:
    """Whether an IP header of this version can begin here."""
    return at < stop and np.int64(data[at]) >> 4 == version


@compiled
def _extension_headers(data: Any, at: Any, stop: Any, end: Any, protocol: Any) -> Any:
    """Walk IPv6 extension headers: offset, protocol, problem bits, offsets of home addresses as source and destination."""
    problems, home_src, home_dst = 0, -1, -1
    for _ in range(_HEADERS):
        shim = protocol == SHIM6 and at + 3 <= stop and data[at + 2] & 0x80 > 0
        if protocol not in (0, 43, 44, 51, 60) and not shim:
            return at, protocol, problems, home_src, home_dst
        if at + 8 > stop:
            return at, protocol, problems | (IP_MALFORMED if at + 8 > end else IP_CUT), home_src, home_dst
        size = 8 if protocol == 44 or shim else (data[at + 1] + 2) * 4 if protocol == 51 else (data[at + 1] + 1) * 8
        if at + size > end:
            return at, protocol, problems | IP_MALFORMED, home_src, home_dst
        if protocol == 44:
            if _u16(data, at + 2) & 0xFFF8:
                return at + 8, np.int64(data[at]), problems | LATER_FRAGMENT, home_src, home_dst
            if data[at + 3] & 1:
                problems |= FRAGMENT
        elif protocol == 43 and data[at + 2] == 2 and size == 24 and at + 24 <= stop:
            home_dst = at + 8
        elif protocol == 60:
            option = at + 2
            while option + 1 < min(at + size, stop):
                if data[option] == 0:
                    option += 1
                    continue
                if data[option] == 201 and data[option + 1] == 16 and option + 18 <= min(at + size, stop):
                    home_src = option + 2
                option += 2 + np.int64(data[option + 1])
        protocol = np.int64(data[at])
        at += size
    return at, protocol, problems | TOO_DEEP | IP_MALFORMED, home_src, home_dst


@compiled
def _dss(data: Any, at: Any, size: Any, row: Any, out: Any) -> Any:
    """Read a DSS option (RFC 8684 figure 9); False when it is shorter than its flags demand."""
    if size < 4:
        return False
    flags = np.int64(data[at + 3]) & 31
    ack_bytes = (8 if flags & DSS_ACK8 else 4) if flags & DSS_ACK else 0
    dsn_bytes = (8 if flags & DSS_MAP8 else 4) if flags & DSS_MAP else 0
    needed = 4 + ack_bytes + (dsn_bytes + 6 if dsn_bytes else 0)
    if size < needed:
        return False
    out[row].dss_flags = flags
    at += 4
    if ack_bytes:
        out[row].dack = _u64(data, at) if ack_bytes == 8 else np.uint64(_u32(data, at))
        at += ack_bytes
    if dsn_bytes:
        out[row].dsn = _u64(data, at) if dsn_bytes == 8 else np.uint64(_u32(data, at))
        at += dsn_bytes
        out[row].ssn = _u32(data, at)
        out[row].map_bytes = _u16(data, at + 4)
        if size >= needed + 2:
            out[row].dss_checksum = _u16(data, at + 6)
    return True


@compiled
def _tcp_options(data: Any, at: Any, limit: Any, cut: bool, row: Any, out: Any, sack: Any, signals: Any, counts: Any) -> Any:
    """Read the options in [at, limit); returns problem bits. A malformed option ends the options (RFC 9293 section 3.1)."""
    present, problems = 0, OPTIONS_CUT if cut else 0
    subtypes: Any = 0
    while at < limit:
        kind = data[at]
        if kind == 0:
            break
        if kind == 1:
            at += 1
            continue
        size = np.int64(data[at + 1]) if at + 1 < limit else 0
        if size < 2 or at + size > limit:
            if not cut or size == 1 or (size == 0 and at + 1 < limit):
                problems |= OPTIONS_MALFORMED
            break
        if kind == 8 and size == 10:
            present |= HAS_TIMESTAMPS
            out[row].tsval, out[row].tsecr = _u32(data, at + 2), _u32(data, at + 6)
        elif kind == 30 and size >= 3:
            present |= HAS_MPTCP
            subtype = np.int64(data[at + 2]) >> 4
            seen = subtypes >> subtype & 1
            subtypes |= 1 << subtype
            if subtype == DSS and not seen:
                if not _dss(data, at, size, row, out):
                    problems |= OPTIONS_MALFORMED
            else:
                noted = signals[counts[SIGNALS]]
                noted.row, noted.at, noted.length = row, at, min(size, 40)
                counts[SIGNALS] += 1
        elif kind == 5 and size > 2 and (size - 2) % 8 == 0:
            present |= HAS_SACK
            for edge in range(at + 2, at + size, 8):
                sack[counts[SACKS], 0], sack[counts[SACKS], 1] = _u32(data, edge), _u32(data, edge + 4)
                counts[SACKS] += 1
        elif kind == 2 and size == 4:
            present |= HAS_MSS
            out[row].mss = _u16(data, at + 2)
        elif kind == 3 and size == 3:
            present |= HAS_WSCALE
            out[row].wscale = data[at + 2]
        elif kind == 4 and size == 2:
            present |= HAS_SACK_PERMITTED
        elif kind == 34:
            present |= HAS_FAST_OPEN
        elif kind in (19, 29):
            present |= HAS_AUTH
        elif kind in (2, 3, 4, 5, 8, 30):
            problems |= OPTIONS_MALFORMED
        else:
            present |= HAS_UNKNOWN
        at += size
    out[row].options, out[row].mp_subtypes = present, subtypes
    return problems


@compiled
def _ports(data: Any, at: Any, size: Any, stop: Any, end: Any, row: Any, out: Any) -> Any:
    """Read the ports, as far as they are there; problem bits when the header of `size` bytes is not whole."""
    if at + 4 <= min(stop, end):
        out[row].sport, out[row].dport = _u16(data, at), _u16(data, at + 2)
    return TRANSPORT_MALFORMED if at + size > end else TRANSPORT_CUT if at + size > stop else 0


@compiled
def _transport(
    data: Any, at: Any, stop: Any, end: Any, protocol: Any, row: Any, out: Any, sack: Any, signals: Any, counts: Any
) -> Any:
    """Read the transport header; returns problem bits. `end`: where the packet ends by its lengths, `stop`: as captured."""
    problems, body = 0, at
    if protocol == TCP:
        problems = _ports(data, at, 20, stop, end, row, out)
        if problems:
            return problems
        out[row].seq, out[row].ack = _u32(data, at + 4), _u32(data, at + 8)
        out[row].flags, out[row].window = _u16(data, at + 12) & 0xFFF, _u16(data, at + 14)
        size = (np.int64(data[at + 12]) >> 4) * 4
        if size < 20 or at + size > end:
            return TRANSPORT_MALFORMED
        body = at + size
        problems |= _tcp_options(data, at + 20, min(body, stop), body > stop, row, out, sack, signals, counts)
    elif protocol == UDP:
        problems = _ports(data, at, 8, stop, end, row, out)
        if problems:
            return problems
        size, body = _u16(data, at + 4), at + 8
        if size >= 8 and at + size <= end:
            end = at + size
        elif size:
            problems |= LENGTH_CLIPPED
    elif protocol in (ICMP, ICMPV6):
        if at + 2 <= min(stop, end):
            out[row].sport, out[row].dport = data[at], data[at + 1]
        else:
            problems |= TRANSPORT_CUT
    elif protocol == MOBILITY:
        if at + 6 <= min(stop, end):
            out[row].sport = data[at + 2]
        else:
            problems |= TRANSPORT_CUT
    out[row].payload_at = body
    out[row].payload_bytes = max(end - body, 0)
    out[row].payload_captured = max(min(stop, end) - body, 0)
    return problems


@compiled
def _gre(data: Any, at: Any, stop: Any) -> Any:
    """Skip a GRE header of version 0: offset and IP version of what follows, 0 when that is no IP."""
    if at + 4 > stop:
        return at, 0
    flags, kind = _u16(data, at), _u16(data, at + 2)
    if flags & 0x4007:  # routing, or another version
        return at, 0
    at += 4 + (4 if flags & 0x8000 else 0) + (4 if flags & 0x2000 else 0) + (4 if flags & 0x1000 else 0)
    return at, 4 if kind == 0x0800 else 6 if kind == 0x86DD else 0


@compiled
def _inside(data: Any, at: Any, stop: Any, protocol: Any, version: Any) -> Any:
    """What an IP packet with this protocol carries at `at`: kind of tunnel, IP version of the inner packet, its offset.

    Kind 0: no tunnel. IP version 0: a header of minimal encapsulation, all of which was captured.
    """
    kind, body = 0, at
    if protocol == UDP and at + 12 <= stop and data[at + 8] == 4:
        if MOBILE_IP_PORT not in (_u16(data, at), _u16(data, at + 2)):
            return 0, 0, at
        kind, protocol, body = TUNNEL_UDP, np.int64(data[at + 9]), at + 12
        if protocol not in (IPIP, GRE, MINIMAL):
            return 0, 0, at
    inner = 0
    if protocol == MINIMAL and version == 4:
        fits = body + 8 <= stop and (data[body + 1] & 0x80 == 0 or body + 12 <= stop)
        return (kind or TUNNEL_MINIMAL) if fits else 0, 0, body
    if protocol == IPIP:
        kind, inner = kind or (TUNNEL_IPIP if version == 4 else TUNNEL_4IN6), 4
    elif protocol == IPV6_IN_IP:
        kind, inner = TUNNEL_6IN4 if version == 4 else TUNNEL_6IN6, 6
    elif protocol == GRE:
        body, inner = _gre(data, body, stop)
        kind = kind or TUNNEL_GRE
    if inner == 0 or not _nibble(data, body, stop, inner):
        return 0, 0, at
    return kind, inner, body


@compiled
def _packet(
    data: Any,
    start: Any,
    stop: Any,
    wire: Any,
    link_type: Any,
    row: Any,
    out: Any,
    sack: Any,
    signals: Any,
    slots: Any,
    book: Any,
    counts: Any,
) -> Any:
    """Decode one packet into row `row`; returns problem bits."""
    at, version = _link(data, start, stop, link_type)
    if version <= 0:
        return NOT_IP if version == 0 else IP_CUT
    first, end, problems = at, wire, 0
    tunnel, depth, outer = 0, 0, 0
    zero: Any = np.uint64(0)
    size: Any = 0
    protocol: Any = 0
    outer_src_high, outer_src_low, outer_dst_high, outer_dst_low = zero, zero, zero, zero
    src_high, src_low, dst_high, dst_low = zero, zero, zero, zero
    while True:
        home_src, home_dst = -1, -1
        if version == 4:
            if at + 20 > stop:
                return problems | (IP_MALFORMED if at + 20 > end else IP_CUT)
            size, total, fragment = (np.int64(data[at]) & 15) * 4, _u16(data, at + 2), _u16(data, at + 6)
            if np.int64(data[at]) >> 4 != 4 or size < 20 or (total != 0 and total < size):
                return problems | IP_MALFORMED
            src_high, dst_high = zero, zero
            src_low, dst_low = np.uint64(_u32(data, at + 12)), np.uint64(_u32(data, at + 16))
            protocol = np.int64(data[at + 9])
            out[row].ttl, out[row].tos = data[at + 8], data[at + 1]
            if fragment & 0x1FFF:
                problems |= LATER_FRAGMENT
            elif fragment & 0x2000:
                problems |= FRAGMENT
        else:
            if at + 40 > stop:
                return problems | (IP_MALFORMED if at + 40 > end else IP_CUT)
            if np.int64(data[at]) >> 4 != 6:
                return problems | IP_MALFORMED
            size, total = 40, _u16(data, at + 4)
            total = total + 40 if total else 0
            src_high, src_low = _u64(data, at + 8), _u64(data, at + 16)
            dst_high, dst_low = _u64(data, at + 24), _u64(data, at + 32)
            protocol = np.int64(data[at + 6])
            out[row].ttl, out[row].tos = data[at + 7], _u16(data, at) >> 4 & 0xFF
        if total == 0:
            problems |= LENGTH_ZERO
        elif at + total > end:
            problems |= LENGTH_CLIPPED
        else:
            end = at + total
        at += size
        if version == 6 and at <= end:
            at, protocol, bits, home_src, home_dst = _extension_headers(data, at, stop, end, protocol)
            problems |= bits
        if at > end:
            problems |= IP_MALFORMED
        stays = problems & (LATER_FRAGMENT | IP_MALFORMED | IP_CUT) != 0
        # What does this packet carry: another IP packet (then once more), or a transport header?
        inner, kind, body = 0, 0, at
        if depth >= _DEEPEST:
            problems |= TOO_DEEP
        elif not stays:
            kind, inner, body = _inside(data, at, stop, protocol, version)
        if kind:
            if tunnel == 0:
                tunnel, outer = kind, version
                outer_src_high, outer_src_low, outer_dst_high, outer_dst_low = src_high, src_low, dst_high, dst_low
            depth += 1
            if inner:
                at, version = body, inner
                continue
            # Minimal encapsulation: a short header of its own, at `body`, in front of the transport's.
            whole = data[body + 1] & 0x80
            protocol, dst_low = np.int64(data[body]), np.uint64(_u32(data, body + 4))
            if whole:
                src_low = np.uint64(_u32(data, body + 8))
            at = body + (12 if whole else 8)
        if home_src >= 0 or home_dst >= 0:
            if tunnel == 0:
                tunnel, outer = ROUTE_OPTIMISED, version
                outer_src_high, outer_src_low, outer_dst_high, outer_dst_low = src_high, src_low, dst_high, dst_low
            if home_src >= 0:
                src_high, src_low = _u64(data, home_src), _u64(data, home_src + 8)
            if home_dst >= 0:
                dst_high, dst_low = _u64(data, home_dst), _u64(data, home_dst + 8)
        break
    out[row].protocol, out[row].ip_version = protocol, version
    out[row].src = _intern(slots, book, counts, version, src_high, src_low)
    out[row].dst = _intern(slots, book, counts, version, dst_high, dst_low)
    if tunnel:
        out[row].tunnel, out[row].tunnel_depth = tunnel, depth
        out[row].outer_src = _intern(slots, book, counts, outer, outer_src_high, outer_src_low)
        out[row].outer_dst = _intern(slots, book, counts, outer, outer_dst_high, outer_dst_low)
    if stays:
        return problems
    problems |= _transport(data, at, stop, end, protocol, row, out, sack, signals, counts)
    if out[row].payload_at > first:
        out[row].overhead_bytes = min(out[row].payload_at - first, 65535)
    return problems


@compiled
def decode(
    data: Any, begin: Any, start: Any, captured: Any, length: Any, interface: Any, link_types: Any, out: Any, sack_start: Any,
    sack: Any, signals: Any, slots: Any, book: Any, counts: Any,
) -> Any:  # fmt: skip
    """Decode the packets from number `begin` on into the same rows of `out`; returns the first that was not decoded.

    It stops early when `sack` (blocks), `signals` (places of MPTCP options) or `book` (addresses) may overflow; `counts` tells
    how much of each is used.
    """
    for row in range(begin, start.size):
        if (
            counts[SACKS] + SACK_ROOM > sack.shape[0]
            or counts[SIGNALS] + SIGNAL_ROOM > signals.size
            or counts[ADDRESSES] + ADDRESS_ROOM > book.size
        ):
            return row
        at = start[row]
        stop = min(at + np.int64(captured[row]), data.size)
        wire = at + np.int64(length[row])
        link_type = link_types[interface[row]]
        out[row].problems = _packet(data, at, stop, wire, link_type, row, out, sack, signals, slots, book, counts)
        sack_start[row + 1] = counts[SACKS]
    return start.size
