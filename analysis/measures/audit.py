"""Which protocol elements are on the wire, and whether anything is there that no standard knows.

Sources: RFC 8684 section 3 (formats and lengths of MPTCP's options) and 8.2 (subtypes); Mobile IP's messages, extensions and
codes as in `analysis.mobileip.codes`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.measures.observation import Bools
from analysis.mobileip.codes import EXTENSION_NAMES, MALFORMED, REPLY_CODES, UDP_KINDS
from analysis.packets import schema
from analysis.packets.table import PacketTable

MPTCP_VERSION = 1
LENGTHS = {
    schema.MP_CAPABLE: {4, 12, 20, 22, 24},
    schema.MP_JOIN: {12, 16, 24},
    schema.ADD_ADDR: {8, 10, 16, 18, 20, 22, 28, 30},
    schema.REMOVE_ADDR: set(range(4, 41)),
    schema.MP_PRIO: {3},
    schema.MP_FAIL: {12},
    schema.MP_FASTCLOSE: {12},
    schema.MP_TCPRST: {4},
}
"""Lengths in bytes that RFC 8684 gives the options (sections 3.1 to 3.7); DSS: the decoder checks it by its flags."""
_IGMP = 2
_UDP_ALWAYS = (67, 68, 434, 546, 547)
"""DHCP, Mobile IP, DHCPv6."""
_REPLIES = ("RRP",)


@dataclass(frozen=True)
class Audit:
    """Protocol elements at all capture points together; a packet that several points saw counts at each."""

    mptcp_options: list[str]
    mobile_ip_messages: dict[str, int]
    """By kind, without plain router discovery."""
    mobile_ip_extensions: list[str]
    """Numbers, with the subtype where there is one: "154/1"."""
    tunnels: list[str]
    option_kinds: int
    messages: int
    non_standard: int
    """Everything in `non_standard_kinds` together."""
    non_standard_kinds: dict[str, int]


def mptcp_options(table: PacketTable) -> set[str]:
    """Names of the MPTCP options in a capture (RFC 8684 section 8.2)."""
    bits = int(np.bitwise_or.reduce(table["mp_subtypes"], initial=0))
    return {name for subtype, name in enumerate(schema.SUBTYPE_NAMES) if bits >> subtype & 1}


def odd_options(table: PacketTable) -> Counter[str]:
    """TCP and MPTCP options of no standard, or not in their form, by what they are."""
    found: Counter[str] = Counter()
    usable = table["problems"] & schema.UNUSABLE == 0
    found["unknown TCP option"] = int((usable & (table["options"] & schema.HAS_UNKNOWN > 0)).sum())
    found["malformed TCP options"] = int((usable & (table["problems"] & schema.OPTIONS_MALFORMED > 0)).sum())
    signals = table.signals
    for subtype in np.unique(signals["subtype"]).tolist():
        chosen = signals["subtype"] == subtype
        lengths = signals["length"][chosen]
        name = schema.SUBTYPE_NAMES[subtype]
        if subtype != schema.DSS and subtype not in LENGTHS:
            found[f"MPTCP {name}"] = lengths.size
        elif subtype in LENGTHS:
            found[f"{name} of another length"] = int((~np.isin(lengths, list(LENGTHS[subtype]))).sum())
        if subtype == schema.MP_CAPABLE:
            found["MP_CAPABLE of another version"] = int((signals["version"][chosen] != MPTCP_VERSION).sum())
    return +found


def odd_messages(messages: pd.DataFrame) -> Counter[str]:
    """Mobile IPv4 messages that are malformed, or of types, extensions or codes that are not registered."""
    found: Counter[str] = Counter()
    known = {*UDP_KINDS.values()}
    for row in messages[messages["family"] == 4].itertuples():
        kind = str(row.kind)
        found[f"{MALFORMED} message"] += kind == MALFORMED
        found[f"message of {kind}"] += kind.startswith("type ") and kind not in known
        found[f"{kind} code {row.code}"] += kind in _REPLIES and row.code not in REPLY_CODES
        for number in str(row.extensions).split():
            found[f"extension {number}"] += number not in EXTENSION_NAMES
    return +found


def other_traffic(table: PacketTable, ports: Collection[int]) -> Counter[str]:
    """IP packets that neither carry the application's data nor belong to Mobile IP, ICMP, IGMP or DHCP, by what they are.

    `ports`: of the workload's programs. Packets in tunnels count by what is inside.
    """
    sound = table["problems"] & (schema.NOT_IP | schema.IP_CUT | schema.IP_MALFORMED | schema.LATER_FRAGMENT) == 0
    protocol = table["protocol"]
    expected = np.isin(protocol, (schema.ICMP, schema.ICMPV6, schema.MOBILITY, _IGMP))
    expected |= (protocol == schema.TCP) & _has_port(table, ports)
    expected |= (protocol == schema.UDP) & _has_port(table, {*ports, *_UDP_ALWAYS})
    rows = np.flatnonzero(sound & ~expected)
    names = {schema.TCP: "TCP", schema.UDP: "UDP"}
    found: Counter[str] = Counter()
    for number, sport, dport in zip(*(table[name][rows].tolist() for name in ("protocol", "sport", "dport")), strict=True):
        found[f"{names[number]} port {min(sport, dport)}" if number in names else f"IP protocol {number}"] += 1
    return found


def _has_port(table: PacketTable, ports: Collection[int]) -> Bools:
    wanted = np.array(sorted(ports), np.int64)
    return np.asarray(np.isin(table["sport"], wanted) | np.isin(table["dport"], wanted))
