"""Codes of Registration Replies (RFC 5944 section 3.4, RFC 3024 section 3.4, RFC 3519 section 3.5, RFC 7629 section 4.3)."""

from enum import IntEnum
from typing import Final


class Code(IntEnum):
    """What became of a registration. 0 and 1: accepted; 64 to 127: refused by the foreign agent; from 128: by the home one."""

    ACCEPTED = 0
    ACCEPTED_WITHOUT_SIMULTANEOUS = 1
    """Accepted; simultaneous bindings are not supported."""

    FA_REASON_UNSPECIFIED = 64
    FA_ADMINISTRATIVELY_PROHIBITED = 65
    FA_INSUFFICIENT_RESOURCES = 66
    FA_MOBILE_NODE_AUTHENTICATION = 67
    FA_HOME_AGENT_AUTHENTICATION = 68
    FA_LIFETIME_TOO_LONG = 69
    FA_POORLY_FORMED_REQUEST = 70
    FA_POORLY_FORMED_REPLY = 71
    FA_ENCAPSULATION_UNAVAILABLE = 72
    FA_RESERVED_73 = 73
    """Van Jacobson compression in RFC 2002; no longer in use."""
    FA_REVERSE_TUNNEL_UNAVAILABLE = 74
    FA_REVERSE_TUNNEL_MANDATORY = 75
    FA_MOBILE_NODE_TOO_DISTANT = 76
    FA_INVALID_CARE_OF_ADDRESS = 77
    FA_REGISTRATION_TIMEOUT = 78
    FA_DELIVERY_STYLE_UNSUPPORTED = 79
    FA_HOME_NETWORK_UNREACHABLE = 80
    FA_HOME_AGENT_HOST_UNREACHABLE = 81
    FA_HOME_AGENT_PORT_UNREACHABLE = 82
    FA_HOME_AGENT_UNREACHABLE = 88
    FA_INVALID_HOME_AGENT_ADDRESS = 194

    REASON_UNSPECIFIED = 128
    ADMINISTRATIVELY_PROHIBITED = 129
    INSUFFICIENT_RESOURCES = 130
    MOBILE_NODE_AUTHENTICATION = 131
    FOREIGN_AGENT_AUTHENTICATION = 132
    IDENTIFICATION_MISMATCH = 133
    POORLY_FORMED_REQUEST = 134
    TOO_MANY_BINDINGS = 135
    UNKNOWN_HOME_AGENT = 136
    REVERSE_TUNNEL_UNAVAILABLE = 137
    REVERSE_TUNNEL_MANDATORY = 138
    ENCAPSULATION_UNAVAILABLE = 139
    UDP_ENCAPSULATION_UNAVAILABLE = 142
    MULTIPATH_NOT_ALLOWED = 152
    INVALID_FLOW_BINDING_IDENTIFIER = 153


ACCEPTED_CODES: Final = frozenset((Code.ACCEPTED, Code.ACCEPTED_WITHOUT_SIMULTANEOUS))


def is_accepted(code: int) -> bool:
    """Whether the code says that the registration stands."""
    return code in ACCEPTED_CODES


def name_of(code: int) -> str:
    """The code for people and logs: "poorly-formed-request", "code-200"."""
    try:
        return Code(code).name.lower().replace("_", "-")
    except ValueError:
        return f"code-{code}"
