"""What the proxy is told at its start."""

from dataclasses import dataclass

from agents.core.proxy.projection import AckTranslation


@dataclass(frozen=True, slots=True)
class LocalAddress:
    """An address of this host."""

    address: bytes
    interface: str
    usable: bool = True
    """The address exists, its interface is up and has a carrier."""
    cost: int = 0
    """Smaller is preferred by the policy `cheapest`."""


@dataclass(frozen=True, slots=True)
class ProxyConfig:
    """Every default is what a host with several networks wants."""

    checksum: bool = False
    """Ask for DSS checksums (RFC 8684 section 3.1, flag A)."""
    wide_numbers: bool = False
    """Send DSNs and data ACKs with 8 bytes: 4 bytes less of payload for each packet."""
    header_reserve: int = 0
    """Bytes by which the MSS is lowered further: 20 when a TCP over IPv4 may have subflows over IPv6."""
    subflow_acks: bool = False
    """Take the ACK for this host's TCP from the subflow while all data is on one (paper section 3.4), not from the data ACK.
    A peer that acknowledges a segment on the subflow may still drop its data (RFC 8684 section 3.3.2), and with a subflow
    that breaks then the data is lost."""
    ack_translation: AckTranslation = AckTranslation.PROJECTION
    policy: str = "manual"
    """Who opens subflows and moves the traffic: "manual" (commands only), "follow" (usable addresses), "cheapest" or
    "lowest-rtt"."""
    join_backup: bool = False
    """Subflows opened by the policy start as backups."""
    announce: bool = False
    """Send ADD_ADDR for further addresses instead of joining (for a server)."""
    native: bool = False
    """This host's kernel speaks MPTCP as well: a join with a token that is not ours may be meant for it."""
    nudge: bool = False
    """After a break make the sender of this host retransmit at once what went down with a subflow."""
    reserve_lost: bool = True
    """After a break, and without SACK, reserve space in order for all that went down: else the mapping is not monotonous."""
    subflows_max: int = 8
    """Of a connection."""
    connections_max: int = 10_000
    half_open_max: int = 1_024
    """Connections whose handshake is not over; the oldest goes first."""
    half_open_s: float = 75.0
    syn_tries: int = 3
    """SYNs of a connection that ask for MPTCP; later ones do not: a middlebox may drop what it does not know."""
    join_rto_s: float = 0.5
    """First wait for an answer to an MP_JOIN; doubles."""
    join_tries: int = 5
    rejoin_s: float = 2.0
    """When nothing is left, a join that failed is tried again after so long, until `break_limit_s` is over."""
    signal_tries: int = 4
    """How often an ADD_ADDR without echo and a FIN without ACK are sent."""
    silence_retransmissions: int = 2
    """So many retransmissions on a subflow that stays silent, and another one that works, mean that its path is dead."""
    silence_s: float = 0.4
    """A subflow is silent when nothing has come for so long, and for three round trips."""
    break_limit_s: float = 60.0
    """A connection without a subflow ends after so long."""
    time_wait_s: float = 30.0
    idle_s: float = 7_440.0
    """RFC 5382 section 5: state of an established connection is kept at least 2 h 4 min."""
