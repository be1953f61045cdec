"""Texts for what MPTCP says in numbers (RFC 8684)."""

from __future__ import annotations

RESET_REASONS = (
    "unspecified error",
    "MPTCP-specific error",
    "lack of resources",
    "administratively prohibited",
    "too much outstanding data",
    "unacceptable performance",
    "middlebox interference",
)
"""Reason codes of MP_TCPRST (RFC 8684 section 3.6 and the registry of its section 8.3), index = code."""

RESET_TRANSIENT = 1  # T bit of MP_TCPRST: the condition may pass, so the subflow may be tried again (section 3.6)

# Flag bits of MP_CAPABLE (RFC 8684 section 3.1): A checksum, B extensibility, C no subflows to this address, H HMAC-SHA256.
CAPABLE_CHECKSUM, CAPABLE_EXTENSIBILITY, CAPABLE_NO_JOIN_HERE, CAPABLE_HMAC = 0x80, 0x40, 0x20, 0x01


def reset_reason(code: int, flags: int) -> str:
    """The sentence for an MP_TCPRST option: reason and whether it is worth another try."""
    text = RESET_REASONS[code] if code < len(RESET_REASONS) else "unassigned"
    return f"reason {code} ({text}{', transient' if flags & RESET_TRANSIENT else ''})"
