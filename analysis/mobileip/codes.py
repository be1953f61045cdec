"""Names of message types, codes, extensions and flags of Mobile IPv4 and Mobile IPv6, as registered with IANA.

Mobile IPv4: RFC 5944 sections 3.3, 3.4 (messages, codes), RFC 3024, RFC 3519, RFC 3543, RFC 4433, RFC 4636, RFC 4721, RFC 4857,
RFC 5177, RFC 7629. Mobile IPv6: RFC 6275 section 6.1, RFC 3963, RFC 4285, RFC 5213, RFC 5555, RFC 5568, RFC 5648, RFC 5844,
RFC 5846, RFC 6089, RFC 6705, RFC 7161.
"""

from __future__ import annotations

from enum import IntEnum

MALFORMED = "malformed"
"""Kind of a message that contradicts itself; its `problem` says how."""


class Udp(IntEnum):
    """Message types of Mobile IPv4 on UDP port 434."""

    REQUEST = 1
    REPLY = 3
    TUNNEL_DATA = 4
    REVOCATION = 7
    REVOCATION_ACK = 15


UDP_KINDS = {
    1: "RRQ", 3: "RRP", 4: "tunnel data", 7: "revocation", 15: "revocation acknowledgment", 16: "handoff request",
    17: "handoff reply", 18: "regional RRQ", 19: "regional RRP", 20: "FBU (IPv4)", 21: "FBack (IPv4)",
    22: "generic notification", 23: "generic notification acknowledgment", 24: "HoTI (IPv4)", 25: "CoTI (IPv4)",
    26: "HoT (IPv4)", 27: "CoT (IPv4)",
}  # fmt: skip


class Mobility(IntEnum):
    """Types of the Mobility Header (RFC 6275 section 6.1)."""

    BRR = 0
    HOTI = 1
    COTI = 2
    HOT = 3
    COT = 4
    BU = 5
    BA = 6
    BE = 7
    REVOCATION = 16


MOBILITY_KINDS = (
    "BRR", "HoTI", "CoTI", "HoT", "CoT", "BU", "BA", "BE", "FBU", "FBack", "FNA", "experimental", "HA switch", "heartbeat",
    "HI", "HAck", "binding revocation", "LRI", "LRA", "UPN", "UPA",
)  # fmt: skip

REPLY_CODES = {
    0: "registration accepted",
    1: "registration accepted, but simultaneous mobility bindings unsupported",
    2: "concurrent registration",
    64: "reason unspecified",
    65: "administratively prohibited",
    66: "insufficient resources",
    67: "mobile node failed authentication",
    68: "home agent failed authentication",
    69: "requested lifetime too long",
    70: "poorly formed request",
    71: "poorly formed reply",
    72: "requested encapsulation unavailable",
    73: "reserved and unavailable",
    74: "requested reverse tunnel unavailable",
    75: "reverse tunnel is mandatory and T bit not set",
    76: "mobile node too distant",
    77: "invalid care-of address",
    78: "registration timeout",
    79: "delivery style not supported",
    80: "home network unreachable",
    81: "home agent host unreachable",
    82: "home agent port unreachable",
    88: "home agent unreachable",
    89: "vendor-specific reason",
    90: "non-zero home agent address required",
    96: "non-zero home address required",
    97: "missing NAI",
    98: "missing home agent",
    99: "missing home address",
    100: "unable to interpret the mobile node's vendor extension",
    101: "unable to interpret the home agent's vendor extension",
    104: "unknown challenge",
    105: "missing challenge",
    106: "stale challenge",
    107: "missing MN-FA key generation nonce reply",
    108: "mobile node failed AAA authentication",
    109: "home agent sent wrong challenge",
    128: "reason unspecified",
    129: "administratively prohibited",
    130: "insufficient resources",
    131: "mobile node failed authentication",
    132: "foreign agent failed authentication",
    133: "registration identification mismatch",
    134: "poorly formed request",
    135: "too many simultaneous mobility bindings",
    136: "unknown home agent address",
    137: "requested reverse tunnel unavailable",
    138: "reverse tunnel is mandatory and T bit not set",
    139: "requested encapsulation unavailable",
    140: "unable to interpret the mobile node's vendor extension",
    141: "unable to interpret the foreign agent's vendor extension",
    142: "requested UDP tunnel encapsulation unavailable",
    143: "register with the redirected home agent",
    144: "mobile node failed AAA authentication",
    149: "proxy registration unsupported",
    150: "proxy registration disallowed",
    152: "multiple tunnel registration not allowed",
    153: "unknown binding identifier",
    194: "invalid home agent address",
}


def reply_code_text(code: int) -> str:
    """Meaning of a Registration Reply's code with who sent it: 64-127 is the foreign agent (RFC 5944 section 3.4)."""
    text = REPLY_CODES.get(code, f"code {code}")
    if code < 64:
        return text
    return f"{'foreign' if code < 128 or code == 194 else 'home'} agent: {text}"


BINDING_STATUS = {
    0: "Binding Update accepted",
    1: "accepted but prefix discovery necessary",
    2: "GRE key option not required",
    3: "GRE tunnelling, but TLV header not supported",
    4: "MCOA not complete",
    5: "MCOA returning home without NDP",
    6: "proxy registration accepted, transient binding ignored",
    128: "reason unspecified",
    129: "administratively prohibited",
    130: "insufficient resources",
    131: "home registration not supported",
    132: "not home subnet",
    133: "not home agent for this mobile node",
    134: "Duplicate Address Detection failed",
    135: "sequence number out of window",
    136: "expired home nonce index",
    137: "expired care-of nonce index",
    138: "expired nonces",
    139: "registration type change disallowed",
    140: "mobile router operation not permitted",
    141: "invalid prefix",
    142: "not authorized for prefix",
    143: "forwarding setup failed",
    144: "MIPv6 identification mismatch",
    145: "MIPv6 message identifier required",
    146: "MIPv6 authentication failed",
    147: "permanent home keygen token unavailable",
    148: "CGA and signature verification failed",
    149: "permanent home keygen token exists",
    150: "non-null home nonce index expected",
    151: "service authorization failed",
    152: "proxy registration not enabled",
    153: "not the anchor for this mobile node",
    154: "access gateway not authorized for proxy registration",
    155: "not authorized for home network prefix",
    156: "timestamp mismatch",
    157: "timestamp lower than the previous one",
    158: "missing home network prefix option",
    159: "prefix set does not match the binding",
    160: "missing mobile node identifier option",
    161: "missing handoff indicator option",
    162: "missing access technology type option",
    163: "GRE key option required",
    164: "MCOA malformed",
    165: "MCOA: a binding without identifier exists",
    166: "MCOA prohibited",
    167: "MCOA: unknown care-of address",
    168: "MCOA: bulk registration prohibited",
    169: "MCOA: simultaneous home and foreign binding prohibited",
    170: "not authorized for IPv4 mobility service",
    171: "not authorized for IPv4 home address",
    172: "not authorized for IPv6 mobility service",
    173: "several IPv4 home addresses not supported",
    174: "invalid care-of address",
    175: "invalid mobile node group identifier",
}
BINDING_ERROR = {1: "unknown binding for home address destination option", 2: "unrecognized MH type"}
REVOCATION_STATUS = {
    0: "success", 1: "partial success", 128: "binding does not exist", 129: "IPv4 home address binding does not exist",
    130: "global revocation not authorized", 131: "revoked mobile nodes identity required", 132: "revocation failed: attached",
    133: "revocation trigger not supported", 134: "revocation function not supported",
    135: "proxy binding revocation not supported",
}  # fmt: skip
REGISTRATION_FLAGS = "SBDMGrTx"
"""Flags of a Registration Request, most significant bit first (RFC 5944 section 3.3, T of RFC 3024)."""
ADVERTISEMENT_FLAGS = "RBHFMGrTUXI"
"""First flags of the agent advertisement extension (RFC 5944 section 2.1.1, T RFC 3024, U RFC 3519, X RFC 3543, I RFC 4857)."""
UPDATE_FLAGS = "AHLKMRPFTBSD"
"""Flags of a Binding Update, most significant bit of 16 first."""
ACKNOWLEDGMENT_FLAGS = "KRPTBSD"
"""Flags of a Binding Acknowledgement, most significant bit of 8 first."""

EXTENSION_NAMES = {
    "32": "MN-HA authentication", "33": "MN-FA authentication", "34": "FA-HA authentication", "36/1": "MN-AAA authentication",
    "44": "UDP tunnel reply", "45": "FA error", "130": "encapsulating delivery style", "131": "NAI",
    "132": "MN-FA challenge", "136": "NAI carrying", "137": "revocation support", "139": "dynamic HA",
    "144": "UDP tunnel request", "145": "message string", "148": "mobile network", "154/1": "multipath",
    "154/2": "flow binding",
}  # fmt: skip
OPTION_NAMES = {
    "0": "Pad1", "1": "PadN", "2": "binding refresh advice", "3": "alternate care-of address", "4": "nonce indices",
    "5": "binding authorization data", "6": "mobile network prefix", "8": "mobile node identifier", "9": "authentication",
    "10": "message identifier", "22": "home network prefix", "23": "handoff indicator", "24": "access technology type",
    "27": "timestamp", "29": "IPv4 home address", "31": "NAT detection", "32": "IPv4 care-of address",
    "35": "binding identifier", "36": "IPv4 home address request", "37": "IPv4 home address reply", "44": "flow summary",
    "45": "flow identification",
}  # fmt: skip

NON_SKIPPABLE = frozenset(range(32, 51))
"""Registered extensions of the range 0-127: who does not know one discards the whole message (RFC 5944 section 1.8)."""
LONG_FORMAT = frozenset((36, 37, 38, 40, 41, 42, 43, 47, 48, 154))
"""Extensions with a subtype (or reserved) octet and a length of 16 bits behind the type (RFC 5944 section 1.10). 154 lies in
the skippable range, yet RFC 7629 sections 4.1 and 4.2 give it this format, too."""

ACCESS_TECHNOLOGIES = {
    1: "virtual", 2: "PPP", 3: "802.3", 4: "802.11", 5: "802.16e", 6: "GERAN", 7: "UTRAN", 8: "E-UTRAN", 9: "eHRPD", 10: "HRPD",
    11: "1xRTT", 12: "UMB",
}  # fmt: skip
"""Access Technology Type (RFC 5213 section 8.5)."""


def letters(bits: int, names: str, width: int) -> str:
    """Set bits by their letters, separated by blanks. `names` begins with the most significant of `width` bits."""
    return " ".join(name for place, name in enumerate(names) if bits >> (width - 1 - place) & 1)
