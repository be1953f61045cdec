"""The address plan of the topologies: which prefix, address, MAC and route belongs where. Pure, no input or output.

Access network i: 10.i.0.0/24 and 2001:db8:i::/64. Home network i: 10.(32+i).0.0/24 and 2001:db8:20i::/64. Correspondent
network i: 10.(64+i).0.0/24 and 2001:db8:40i::/64. A second prefix on the same link: 10.(128+...) and 2001:db8:80.../64;
the spare one, for renumbering: 10.(192+...) and 2001:db8:c0.../64. Router links: 10.255.n.0/30, 2001:db8:ff00:n::/64.
Routers have host part 1.
"""

import ipaddress
from dataclasses import dataclass, field
from itertools import pairwise

Network4 = ipaddress.IPv4Network
Network6 = ipaddress.IPv6Network
Network = Network4 | Network6

FAMILIES = ("dual", "ipv4", "ipv6")
MAX_NETWORKS = 15
"""Networks of one kind: the third byte of a prefix is one hexadecimal digit wide per kind."""
MAX_ROUTER_LINKS = 254
INTERFACE_NAME_MAX = 15
"""Bytes of an interface name (IFNAMSIZ without the final zero)."""

DHCP_FIRST_HOST, DHCP_LAST_HOST = 100, 199

_KINDS = {"access": (0, 0x000), "home": (32, 0x200), "correspondent": (64, 0x400)}
_SECOND, _SPARE = (128, 0x800), (192, 0xC00)


@dataclass(frozen=True)
class PrefixPair:
    """One prefix of a link in each family; None: the family does not exist there."""

    ipv4: Network4 | None
    ipv6: Network6 | None

    def networks(self) -> list[Network]:
        """The prefixes that exist, IPv4 first."""
        return [network for network in (self.ipv4, self.ipv6) if network is not None]

    def host(self, part: int) -> list[str]:
        """Interface addresses ("10.1.0.1/24") with this host part, IPv4 first."""
        return [f"{network[part]}/{network.prefixlen}" for network in self.networks()]

    def only(self, families: str) -> "PrefixPair":
        """The pair without the families that a link of kind "dual", "ipv4" or "ipv6" does not carry."""
        check_families(families)
        return PrefixPair(
            self.ipv4 if families != "ipv6" else None,
            self.ipv6 if families != "ipv4" else None,
        )


def check_families(families: str) -> None:
    """Raise ValueError unless `families` is one of FAMILIES."""
    if families not in FAMILIES:
        raise ValueError(f"families is {families!r}: choose one of {', '.join(FAMILIES)}")


def network_prefixes(kind: str, index: int, families: str = "dual", variant: str = "first") -> PrefixPair:
    """Prefixes of network number `index` (1...) of a kind ("access", "home", "correspondent").

    `variant`: "first", "second" (a link with two prefixes) or "spare" (what a renumbered link moves to).
    Raises ValueError on an index outside 1..15.
    """
    if not 1 <= index <= MAX_NETWORKS:
        raise ValueError(f"{kind} network {index} does not exist: at most {MAX_NETWORKS} networks of a kind")
    byte, word = _KINDS[kind]
    if variant == "first":
        add_byte, add_word = 0, 0
    elif kind == "correspondent":
        raise ValueError("correspondent networks have one prefix")
    else:
        # Access and home networks use bytes 1..47, so the higher variants do not collide with each other.
        add_byte, add_word = {"second": _SECOND, "spare": _SPARE}[variant]
    pair = PrefixPair(
        ipaddress.IPv4Network(f"10.{byte + add_byte + index}.0.0/24"),
        ipaddress.IPv6Network(f"2001:db8:{word + add_word + index:x}::/64"),
    )
    return pair.only(families)


def dhcp_range(network: Network4) -> tuple[str, str]:
    """First and last address that the DHCP server of this network gives out."""
    return str(network[DHCP_FIRST_HOST]), str(network[DHCP_LAST_HOST])


def mac_address(node_number: int, interface_number: int) -> str:
    """A locally administered MAC, the same in every run, so that automatic addresses are the same as well."""
    if not (0 <= node_number < 256 and 0 <= interface_number < 256):
        raise ValueError(f"no MAC for node {node_number} interface {interface_number}: both must be below 256")
    return f"02:72:6c:00:{node_number:02x}:{interface_number:02x}"


def slaac_address(network: Network6, mac: str) -> str:
    """The address that a host with this MAC configures from a /64 prefix (modified EUI-64, RFC 4291 appendix A)."""
    octets = bytes(int(part, 16) for part in mac.split(":"))
    identifier = bytes([octets[0] ^ 2]) + octets[1:3] + b"\xff\xfe" + octets[3:]
    return str(network[int.from_bytes(identifier, "big")])


def interface_name(node: str, peer: str) -> str:
    """Name of the interface of `node` towards `peer`; ValueError when the kernel would not take it."""
    name = f"{node}-{peer}"
    if len(name.encode()) > INTERFACE_NAME_MAX:
        raise ValueError(
            f"interface name {name!r} has {len(name.encode())} characters: at most {INTERFACE_NAME_MAX}, "
            f"choose a name of at most {INTERFACE_NAME_MAX - len(node) - 1} for {peer!r}"
        )
    return name


@dataclass(frozen=True)
class Route:
    """A static route: packets to `destination` ("default4", "default6" or a prefix) go to `gateway`.

    With `source` only packets from that prefix (source-address dependent routing, RFC 8678)."""

    destination: str
    gateway: str
    source: str | None = None


@dataclass(frozen=True)
class RouterLink:
    """A point-to-point link between two routers: interface names, addresses without prefix length."""

    a: str
    b: str
    a_interface: str
    b_interface: str
    a_ipv4: str
    b_ipv4: str
    a_ipv6: str
    b_ipv6: str

    def address_of(self, node: str, family: int) -> str:
        """Address of one of the two nodes; `family` 4 or 6."""
        if node == self.a:
            return self.a_ipv4 if family == 4 else self.a_ipv6
        if node == self.b:
            return self.b_ipv4 if family == 4 else self.b_ipv6
        raise ValueError(f"{node} is not on the link {self.a} - {self.b}")


@dataclass
class AddressPlan:
    """Addresses and static routes of all nodes, filled step by step while a topology is built."""

    addresses: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    """node -> interface -> interface addresses with prefix length"""
    routes: dict[str, list[Route]] = field(default_factory=dict)
    router_links: list[RouterLink] = field(default_factory=list)

    def add_addresses(self, node: str, interface: str, addresses: list[str]) -> None:
        """Give an interface of a node further addresses (with prefix length)."""
        self.addresses.setdefault(node, {}).setdefault(interface, []).extend(addresses)

    def add_route(self, node: str, route: Route) -> None:
        """Give a node a static route; a repeated one is kept once."""
        routes = self.routes.setdefault(node, [])
        if route not in routes:
            routes.append(route)

    def add_default(self, node: str, gateways: list[str], source: str | None = None) -> None:
        """Default routes of a node by gateways (one per family)."""
        for gateway in gateways:
            version = ipaddress.ip_address(gateway).version
            if source is None or ipaddress.ip_network(source).version == version:
                self.add_route(node, Route(f"default{version}", gateway, source))

    def connect(self, a: str, b: str) -> RouterLink:
        """Number the next router link and give both ends their addresses."""
        number = len(self.router_links) + 1
        if number > MAX_ROUTER_LINKS:
            raise ValueError(f"more than {MAX_ROUTER_LINKS} router links")
        net4 = ipaddress.IPv4Network(f"10.255.{number}.0/30")
        net6 = ipaddress.IPv6Network(f"2001:db8:ff00:{number:x}::/64")
        link = RouterLink(
            a, b, interface_name(a, b), interface_name(b, a),
            str(net4[1]), str(net4[2]), str(net6[1]), str(net6[2]),
        )  # fmt: skip
        self.add_addresses(a, link.a_interface, [f"{link.a_ipv4}/30", f"{link.a_ipv6}/64"])
        self.add_addresses(b, link.b_interface, [f"{link.b_ipv4}/30", f"{link.b_ipv6}/64"])
        self.router_links.append(link)
        return link

    def link_between(self, a: str, b: str) -> RouterLink:
        """The router link of two nodes; ValueError when there is none."""
        for link in self.router_links:
            if {link.a, link.b} == {a, b}:
                return link
        raise ValueError(f"no router link between {a} and {b}")

    def uplink(self, chain: list[str], networks: list[Network], by_source: bool = False, hide4: bool = False) -> None:
        """Route along a chain of connected routers, leaf first, core last.

        Down the chain go routes to `networks`, up the chain default routes. `by_source`: the leaf chooses this chain
        only for packets from `networks` (a link with one prefix per provider). `hide4`: the last hop (the core) gets no
        IPv4 routes, because an address translator stands in between.
        """
        for below, above in pairwise(chain):
            link = self.link_between(below, above)
            gateways = [link.address_of(above, 4), link.address_of(above, 6)]
            if by_source and below == chain[0]:
                for network in networks:
                    self.add_default(below, gateways, source=str(network))
            else:
                self.add_default(below, gateways)
            for network in networks:
                if hide4 and above == chain[-1] and network.version == 4:
                    continue
                self.add_route(above, Route(str(network), link.address_of(below, network.version)))
