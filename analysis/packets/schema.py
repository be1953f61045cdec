"""The columns of a packet table: one row per record of the capture file, in the order of the file.

`COLUMNS` is the dense part. Three things are sparse and kept beside it: SACK blocks (a ragged column), MPTCP options other
than a packet's first DSS (`SIGNAL_COLUMNS`, one row per option), and texts of addresses (`AddressBook`).
"""

from __future__ import annotations

from typing import NamedTuple

# Protocol numbers (IANA).
ICMP, IPIP, TCP, UDP, IPV6_IN_IP, GRE, MINIMAL, ICMPV6, MOBILITY, SHIM6 = 1, 4, 6, 17, 41, 47, 55, 58, 135, 140

# Bits of `flags` (RFC 9293 section 3.1; the bit above CWR is AE of RFC 9768).
FIN, SYN, RST, PSH, ACK, URG, ECE, CWR, AE = (1 << bit for bit in range(9))

# Bits of `options`: which TCP options the packet carries.
HAS_MSS, HAS_WSCALE, HAS_SACK_PERMITTED, HAS_SACK, HAS_TIMESTAMPS, HAS_MPTCP, HAS_FAST_OPEN, HAS_AUTH, HAS_UNKNOWN = (
    1 << bit for bit in range(9)
)

# Bits of `problems`: why a row is not all it could be.
NOT_IP, IP_CUT, IP_MALFORMED, FRAGMENT, LATER_FRAGMENT, TRANSPORT_CUT, TRANSPORT_MALFORMED, OPTIONS_CUT, OPTIONS_MALFORMED = (
    1 << bit for bit in range(9)
)
LENGTH_CLIPPED = 1 << 9  # the IP header claims more bytes than the frame had
LENGTH_ZERO = 1 << 10  # the IP header says 0: captured before segmentation offload; the frame's length was used
TOO_DEEP = 1 << 11  # more nested headers than a real packet has
UNUSABLE = NOT_IP | IP_CUT | IP_MALFORMED | LATER_FRAGMENT | TRANSPORT_CUT | TRANSPORT_MALFORMED
"""A row with one of these has no trustworthy transport header."""

# Values of `tunnel`: how the innermost IP packet was carried.
NO_TUNNEL, TUNNEL_IPIP, TUNNEL_6IN4, TUNNEL_4IN6, TUNNEL_6IN6, TUNNEL_UDP, TUNNEL_GRE, TUNNEL_MINIMAL, ROUTE_OPTIMISED = range(
    9
)
TUNNEL_NAMES = (
    "",
    "IP-in-IP",
    "IPv6-in-IPv4",
    "IPv4-in-IPv6",
    "IPv6-in-IPv6",
    "UDP (RFC 3519)",
    "GRE",
    "minimal",
    "route-optimised",
)

# Subtypes of the MPTCP option (RFC 8684 section 8.2; 0xf is for private use).
MP_CAPABLE, MP_JOIN, DSS, ADD_ADDR, REMOVE_ADDR, MP_PRIO, MP_FAIL, MP_FASTCLOSE, MP_TCPRST = range(9)
SUBTYPE_NAMES = (
    "MP_CAPABLE", "MP_JOIN", "DSS", "ADD_ADDR", "REMOVE_ADDR", "MP_PRIO", "MP_FAIL", "MP_FASTCLOSE", "MP_TCPRST",
    "subtype 9", "subtype 10", "subtype 11", "subtype 12", "subtype 13", "subtype 14", "MP_EXPERIMENTAL",
)  # fmt: skip

# Bits of `dss_flags` (RFC 8684 figure 9).
DSS_ACK, DSS_ACK8, DSS_MAP, DSS_MAP8, DSS_DATA_FIN = 1, 2, 4, 8, 16


class Column(NamedTuple):
    """One column: name, numpy type, meaning with unit."""

    name: str
    kind: str
    meaning: str


COLUMNS = (
    Column("time_ns", "i8", "time of the packet in ns since the Unix epoch"),
    Column("interface", "u2", "index into Capture.interfaces; in a merged table into its `points`"),
    Column("length", "u4", "bytes of the frame on the wire"),
    Column("captured", "u4", "bytes of it in the file"),
    Column("protocol", "u1", "protocol of the innermost packet: 6 TCP, 17 UDP, ...; 0 when there is none"),
    Column("ip_version", "u1", "4 or 6, of the innermost packet; 0 when it is not IP"),
    Column("src", "i4", "source, a code of the AddressBook; 0 when there is none. In route-optimised traffic the home address"),
    Column("dst", "i4", "destination, likewise"),
    Column("sport", "u2", "source port; for ICMP the type, for the Mobility Header its type"),
    Column("dport", "u2", "destination port; for ICMP the code"),
    Column("ttl", "u1", "TTL or hop limit of the innermost packet"),
    Column("tos", "u1", "TOS or traffic class of the innermost packet"),
    Column("seq", "u4", "TCP sequence number"),
    Column("ack", "u4", "TCP acknowledgment number"),
    Column("flags", "u2", "TCP flags, 12 bits, FIN is 1"),
    Column("window", "u2", "TCP window field, not scaled"),
    Column("payload_bytes", "u4", "bytes behind the transport header, by the IP header: right for cut packets, too"),
    Column("payload_at", "i8", "where they start in the file (in the uncompressed one)"),
    Column("payload_captured", "u4", "how many of them are in the file"),
    Column("options", "u2", "bits HAS_*: which TCP options there are"),
    Column("mss", "u2", "maximum segment size option; 0 without"),
    Column("wscale", "u1", "window scale option"),
    Column("tsval", "u4", "timestamps option, own value"),
    Column("tsecr", "u4", "timestamps option, echoed value"),
    Column("mp_subtypes", "u2", "bit n: an MPTCP option of subtype n is there"),
    Column("dss_flags", "u1", "flags of the first DSS option: 1 A, 2 a, 4 M, 8 m, 16 F"),
    Column("dack", "u8", "data ACK; 32 bits when DSS_ACK8 is not set"),
    Column("dsn", "u8", "data sequence number; 32 bits when DSS_MAP8 is not set"),
    Column("ssn", "u4", "subflow sequence number of the mapping, relative: a subflow's first data byte is 1"),
    Column("map_bytes", "u2", "length of the mapping; DATA_FIN counts as one"),
    Column("dss_checksum", "u2", "checksum of the mapping; 0 without one"),
    Column("tunnel", "u1", "how the innermost packet was carried: index into TUNNEL_NAMES, outermost tunnel"),
    Column("tunnel_depth", "u1", "number of nested tunnels"),
    Column("outer_src", "i4", "source of the outermost packet; in route-optimised traffic the care-of address"),
    Column("outer_dst", "i4", "destination of the outermost packet"),
    Column("overhead_bytes", "u2", "bytes of IP, tunnel and transport headers in front of the payload"),
    Column("problems", "u2", "bits NOT_IP ... TOO_DEEP"),
)

SIGNAL_COLUMNS = (
    Column("row", "i8", "row of the packet table"),
    Column("subtype", "u1", "MPTCP subtype"),
    Column("length", "u1", "length of the option in bytes"),
    Column("version", "u1", "MP_CAPABLE: version. ADD_ADDR of version 0: IP version of the address"),
    Column(
        "flags",
        "u1",
        "the option's flag bits: MP_CAPABLE A-H; MP_JOIN, MP_PRIO, ADD_ADDR (E), MP_TCPRST (U V W T) low four bits",
    ),
    Column("sender_key", "u8", "MP_CAPABLE: key of the sender; 0 without"),
    Column("receiver_key", "u8", "MP_CAPABLE, MP_FASTCLOSE: key of the receiver; 0 without"),
    Column("data_bytes", "u2", "MP_CAPABLE with data: data-level length"),
    Column("token", "u4", "MP_JOIN SYN: receiver's token"),
    Column("nonce", "u4", "MP_JOIN SYN and SYN/ACK: sender's random number"),
    Column("hmac_at", "u1", "where an HMAC starts in `raw`; 0 without"),
    Column("hmac_bytes", "u1", "its length: 8 or 20; 0 without"),
    Column("address_id", "u1", "MP_JOIN, ADD_ADDR, MP_PRIO (version 0), first one of REMOVE_ADDR"),
    Column("backup", "u1", "MP_JOIN SYN and SYN/ACK, MP_PRIO: B flag"),
    Column("echo", "u1", "ADD_ADDR: E flag"),
    Column("address", "i4", "ADD_ADDR: code of the AddressBook"),
    Column("port", "u2", "ADD_ADDR: port; 0 without"),
    Column("dsn", "u8", "MP_FAIL: data sequence number"),
    Column("reason", "u1", "MP_TCPRST: reason code"),
)
"""Beside these columns `raw`, (rows, 40) bytes: the option as it was, padded with zeros."""

NAMES = tuple(column.name for column in COLUMNS)
