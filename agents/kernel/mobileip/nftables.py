"""Forwarding as a text for nft: selectors, balancing, and which packets may come out of a tunnel. Pure.

All lies in one table. A home address has a chain of its own, reached by a map; a tunnel has a chain that sets its mark. Rules
for the mark lead to the routing table of the tunnel (forwarding.py). Packets that match nothing are let alone, and so are those
that have a mark of ours already: probes. An echo request that comes out of a tunnel is answered through the same one
(net.ipv4.fwmark_reflect): that is what a probe measures. ICMP errors about a marked packet get its mark as well, and lose it
here: they go back to the sender.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from enum import Enum
from typing import Final

from agents.core.mobileip.actions import Balancing, FlowRule, Forwarding, Tunnel
from agents.kernel.mobileip.balancing import BUCKETS, SEED, buckets, cycle, ranges
from agents.wire.mobileip.values import Selector

TABLE: Final = "roamlab_mobileip"
MARK_BIT: Final = 0x0800_0000
MARK_MASK: Final = 0x0800_FFFF
"""Bits of a packet's mark that are ours; the others stay as they are."""
_OTHERS = 0xFFFF_FFFF & ~MARK_MASK
COUNTERS: Final = ("not_of_a_binding", "dropped_by_policy")
_PORTS = "ip protocol { 6, 17, 33, 132, 136 }"
"""Protocols whose first four octets are ports: TCP, UDP, DCCP, SCTP, UDP-Lite."""

_ERRORS = "{ destination-unreachable, time-exceeded, parameter-problem }"

NumberOf = Callable[[Tunnel], "int | None"]
"""Number of an open tunnel; None: it is not open."""


class Side(Enum):
    """Whose table it is."""

    HOME_AGENT = "home-agent"
    """Packets *to* home addresses go into tunnels, arriving or made here."""
    MOBILE_NODE = "mobile-node"
    """Packets of this host *from* its home address go into tunnels."""
    FOREIGN_AGENT = "foreign-agent"
    """Packets from visitors on a link go into the tunnel to their home agent."""


def mark_of(number: int) -> int:
    """Mark of the packets that take a tunnel."""
    return MARK_BIT | number


def base(side: Side) -> str:
    """The table without any home address; replaces what there was."""
    home = {
        Side.HOME_AGENT: "ip daddr vmap @homes",
        Side.MOBILE_NODE: "ip saddr vmap @homes",
        Side.FOREIGN_AGENT: 'iifname != "mip*" ip saddr vmap @homes',
    }[side]
    inside = "ip saddr" if side is Side.HOME_AGENT else "ip daddr"
    in_prerouting = home if side is not Side.MOBILE_NODE else ""
    in_output = home if side is not Side.FOREIGN_AGENT else ""
    return f"""
add table ip {TABLE}
delete table ip {TABLE}
table ip {TABLE} {{
  counter not_of_a_binding {{ }}
  counter dropped_by_policy {{ }}
  map homes {{ type ipv4_addr : verdict; }}
  set accepted {{ type ifname . ipv4_addr; }}
  map arrived {{ type ifname : mark; }}
  chain learn {{ }}
  chain answer_same_way {{
    fib daddr type local icmp type echo-request meta mark set iifname map @arrived
    goto learn
  }}
  chain decapsulated {{
    iifname . {inside} @accepted goto answer_same_way
    counter name not_of_a_binding drop
  }}
  chain prerouting {{
    type filter hook prerouting priority mangle; policy accept;
    iifname "mip*" jump decapsulated
    {in_prerouting}
  }}
  chain output {{
    type route hook output priority mangle; policy accept;
    meta mark and {MARK_BIT:#x} != 0 icmp type {_ERRORS} meta mark set meta mark and {_OTHERS:#x}
    meta mark and {MARK_BIT:#x} != 0 accept
    {in_output}
  }}
}}
"""


def removal() -> str:
    """No table any more."""
    return f"add table ip {TABLE}\ndelete table ip {TABLE}\n"


def chain_of(home_address: str) -> str:
    """Name of a home address's chain."""
    return "home_" + home_address.replace(".", "_")


def tunnel_chain(number: int) -> str:
    """Text that makes the chain of a tunnel."""
    return (
        f"add chain ip {TABLE} tunnel_{number}\nflush chain ip {TABLE} tunnel_{number}\n"
        f"add rule ip {TABLE} tunnel_{number} meta mark set meta mark and {_OTHERS:#x} or {mark_of(number):#x} accept\n"
    )


def tunnel_removal(number: int) -> str:
    """Text that removes it; nothing leads to it by now."""
    return f"delete chain ip {TABLE} tunnel_{number}\n"


def home_text(forwarding: Forwarding, side: Side, number_of: NumberOf, *, known: bool) -> str:
    """Text that replaces the forwarding of a home address in one transaction. `known`: there is one to be replaced."""
    chain, home = chain_of(forwarding.home_address), forwarding.home_address
    lines = [f"add chain ip {TABLE} {chain}", f"flush chain ip {TABLE} {chain}"]
    lines += [f"add rule ip {TABLE} {chain} {rule}" for rule in home_rules(forwarding, side, number_of)]
    if not known:
        lines.append(f"add element ip {TABLE} homes {{ {home} : goto {chain} }}")
    return "\n".join(lines) + "\n"


def home_removal(home_address: str) -> str:
    """Text that forgets a home address."""
    chain = chain_of(home_address)
    return (
        f"delete element ip {TABLE} homes {{ {home_address} }}\n"
        f"flush chain ip {TABLE} {chain}\ndelete chain ip {TABLE} {chain}\n"
    )


def elements(name: str, before: Iterable[str], after: Iterable[str]) -> str:
    """Text that makes the elements of a set or map what they shall be."""
    old, new = set(before), set(after)
    lines = [f"delete element ip {TABLE} {name} {{ {item.partition(' :')[0]} }}" for item in sorted(old - new)]
    lines += [f"add element ip {TABLE} {name} {{ {item} }}" for item in sorted(new - old)]
    return "".join(line + "\n" for line in lines)


def learning(on: bool) -> str:
    """Whether a connection is to remember the tunnel by which it came (balancing `ROUND_ROBIN`)."""
    rule = f"add rule ip {TABLE} learn ct state new ct mark set iifname map @arrived\n" if on else ""
    return f"flush chain ip {TABLE} learn\n{rule}"


# -- the chain of a home address --------------------------------------------------------------------------------------
def home_rules(forwarding: Forwarding, side: Side, number_of: NumberOf) -> list[str]:
    """Its rules, in order."""
    mirrored = side is Side.MOBILE_NODE
    result = []
    for rule in forwarding.rules:
        result += _flow_rules(rule, mirrored, number_of)
    shares = [(tunnel, weight) for tunnel, weight in forwarding.shares if number_of(tunnel) is not None]
    if shares:
        numbers = [number_of(tunnel) or 0 for tunnel, _weight in shares]
        result += _share_rules(shares, numbers, forwarding.balancing, mirrored)
    elif forwarding.rules or forwarding.shares:
        # A packet for a home address without a way must not leave by another one.
        result.append("counter name dropped_by_policy drop")
    return result


def _flow_rules(rule: FlowRule, mirrored: bool, number_of: NumberOf) -> list[str]:
    number = number_of(rule.tunnel) if rule.tunnel is not None else None
    if rule.tunnel is not None and number is None:
        return []
    verdict = f"goto tunnel_{number}" if number is not None else "counter name dropped_by_policy drop"
    return [f"{match}{verdict}" for match in matches(rule.selector, mirrored)]


def matches(selector: Selector, mirrored: bool) -> list[str]:
    """The selector in nft's language, one text for each rule that is needed, each with a blank at its end; IPv6: none.

    mirrored: for packets in the other direction. Later fragments have no ports and match no selector that names them.
    """
    if selector.version != 4 or selector.flow_label is not None:
        return []
    near, far = ("daddr", "saddr") if mirrored else ("saddr", "daddr")
    near_port, far_port = ("dport", "sport") if mirrored else ("sport", "dport")
    parts = [f"ip {name} {_range(value)}" for name, value in ((near, selector.source), (far, selector.destination)) if value]
    if selector.protocol is not None:
        parts.append(f"ip protocol {_range(selector.protocol)}")
    if selector.traffic_class is not None:
        low, high = selector.traffic_class
        parts.append(f"ip dscp {_range((low >> 2, high >> 2))}")
    ports = ((near_port, selector.source_port), (far_port, selector.destination_port))
    if any(value for _name, value in ports):
        parts.append(_PORTS)
        parts += [f"th {name} {_range(value)}" for name, value in ports if value]
    base_text = "".join(part + " " for part in parts)
    if selector.spi is None:
        return [base_text]
    # Of AH (protocol 51) and of ESP (50).
    return [f"{base_text}ip protocol {number} {name} spi {_range(selector.spi)} " for name, number in (("esp", 50), ("ah", 51))]


def _range(value: tuple[object, object]) -> str:
    low, high = value
    return f"{low}" if low == high else f"{low}-{high}"


def _share_rules(
    shares: Sequence[tuple[Tunnel, int]], numbers: Sequence[int], balancing: Balancing, mirrored: bool
) -> list[str]:
    if len(shares) == 1:
        return [f"goto tunnel_{numbers[0]}"]
    if balancing is Balancing.PER_FLOW:
        table = _verdicts(buckets(shares), numbers)
        hashed = [f"jhash {text} mod {BUCKETS} seed {SEED:#x} vmap {table}" for text in _tuples(mirrored)]
        return [f"{_PORTS} {hashed[0]}", hashed[1]]
    order = cycle(shares)
    turn = (
        f"numgen inc mod {len(order)} vmap {_verdicts(order, numbers)}"
        if len(order) > 1
        else f"goto tunnel_{numbers[order[0]]}"
    )
    if balancing is Balancing.PER_PACKET:
        return [turn]
    known = ", ".join(f"{mark_of(number):#x} : goto tunnel_{number}" for number in numbers)
    marks = ", ".join(f"{at} : {mark_of(numbers[position]):#x}" for at, position in enumerate(order))
    return [
        f"ct mark and {MARK_MASK:#x} vmap {{ {known} }}",
        f"ct mark set numgen inc mod {len(order)} map {{ {marks} }}",
        f"ct mark and {MARK_MASK:#x} vmap {{ {known} }}",
        # Without tracking (a packet that belongs to no connection).
        turn,
    ]


def _tuples(mirrored: bool) -> tuple[str, str]:
    """What is hashed: with ports, and without. The same octets at both ends, in both directions."""
    if mirrored:
        return "ip daddr . ip saddr . ip protocol . th dport . th sport", "ip daddr . ip saddr . ip protocol"
    return "ip saddr . ip daddr . ip protocol . th sport . th dport", "ip saddr . ip daddr . ip protocol"


def _verdicts(positions: Sequence[int], numbers: Sequence[int]) -> str:
    parts = [f"{_range((low, high))} : goto tunnel_{numbers[position]}" for low, high, position in ranges(positions)]
    return "{ " + ", ".join(parts) + " }"


def fingerprint(text: str) -> str:
    """Short name of a text, for the log."""
    return hashlib.blake2b(text.encode(), digest_size=4).hexdigest()
