"""Topologies of a mobile node (MN), its correspondent node (CN) and the networks between them.

                    wlan  ┌─────┐
               ┌~~~~~~~~~~│ ar1 │──┐
        ┌────┐ │          └─────┘  │  ┌──────┐  ┌─────┐  ┌────┐
        │ mn │─┤    lte   ┌─────┐  ├──│ core │──│ cr1 │──│ cn │
        └────┘ └~~~~~~~~~~│ ar2 │──┤  └──────┘  └─────┘  └────┘
                          └─────┘  │
                 ┌─────┐  ┌─────┐  │
                 │ ha1 │──│ hr1 │──┘        ~~~ emulated link with a profile, ─── veth pair
                 └─────┘  └─────┘

From Mininet's own command line, without Open vSwitch and without a controller:

    sudo .venv/bin/mn --custom topologies/mobile.py --topo mobile,homes=1 --controller none
    sudo .venv/bin/mn --custom topologies/mobile.py --topo mobile,access=wlan+lte:lte:ipv4 --controller none

The configurations of a multihomed MN (several interfaces, a multihomed home network, a multihomed visited network) follow
section 4 of M. Bagnulo and others, "Boosting mobility performance with Multi-Path TCP".
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, ClassVar

from mininet.topo import Topo

from topologies.access_network import AccessNetwork, access_networks
from topologies.access_router import AccessRouter
from topologies.addressing import (
    AddressPlan,
    Network,
    PrefixPair,
    interface_name,
    mac_address,
    network_prefixes,
)
from topologies.links.link import EmulatedLink
from topologies.middlebox import Middlebox
from topologies.middlebox_settings import MiddleboxSettings, middlebox_settings
from topologies.mobile_host import MobileHost, StaticHost
from topologies.nodes import HomeAgentHost, LinuxHost, Router
from topologies.plain_link import PlainLink
from topologies.profiles import LinkProfile, profile

CN_HOST_PART = HA_HOST_PART = 2
FIRST_TABLE = 101
"""Routing table of the MN's first interface; the others follow."""
FIRST_METRIC = 100
METRIC_STEP = 100


@dataclass(frozen=True)
class AttachmentPoint:
    """A port of a router's bridge where an interface of the MN, or of a mobile CN, can be attached."""

    router: str
    port: str
    occupied_by: str | None
    """The interface that starts here; None: the port does not exist until somebody makes it."""


@dataclass(frozen=True)
class Path:
    """One way between MN and CN, named after the access network it starts with."""

    name: str
    interface: str
    access_router: str
    families: str
    prefixes: int
    profile: LinkProfile

    def to_dict(self) -> dict[str, Any]:
        """JSON values, as in the manifest of a run."""
        return {**asdict(self), "profile": self.profile.to_dict()}


class MobileTopo(Topo):
    """An MN with one interface per access network, and a CN (diagram: top of this module).

    access: access networks (AccessNetwork, tables of its fields, or text such as "wlan+lte:lte:ipv4").
    homes: home networks (0..2) with router hr* and home agent ha*. home_prefixes: prefixes on each home link; with 2 the
    home network is connected to two providers. at_home: the MN starts with an interface mn-home on the first home link.
    home_profile: profile of that link. cn_links: 1 or 2 interfaces of the CN, each with a network of its own. cn_access:
    access networks of a mobile CN, written as those of the MN, instead of its own networks; their routers are numbered
    after the MN's.
    core, home_uplink: profiles of the links between core and the routers of the CN, and of the home networks (none: plain
    veth). congestion_control, sack: of the TCP of MN and CN.
    home_middlebox, cn_middlebox: a box between each home or correspondent network and the core ("nat", "firewall", or a table
    of MiddleboxSettings), named mbh* and mbc*; those of access networks are mb*. seed: of the random numbers of all links.
    """

    DEFAULTS: ClassVar[dict[str, Any]] = {
        "access": "wlan+lte",
        "homes": 0,
        "home_prefixes": 1,
        "at_home": False,
        "home_profile": "wlan",
        "home_uplink": None,
        "cn_links": 1,
        "cn_access": None,
        "core": None,
        "congestion_control": "cubic",
        "sack": True,
        "home_middlebox": None,
        "cn_middlebox": None,
        "seed": 0,
    }
    OWN_DEFAULTS: ClassVar[dict[str, Any]] = {}
    """What a named configuration changes."""

    @classmethod
    def parameters(cls) -> dict[str, Any]:
        """Valid parameters and their defaults."""
        return {**cls.DEFAULTS, **cls.OWN_DEFAULTS}

    # Mininet's Topo calls build with the parameters given to the constructor.
    def build(self, **given: Any) -> None:
        """Make nodes and links. Raises ValueError, one line, on an unknown parameter or a bad value."""
        valid = self.parameters()
        for name in given:
            if name not in valid:
                raise ValueError(f"{type(self).__name__} has no parameter {name!r}: valid are {', '.join(valid)}")
        self.values = {**valid, **given}
        self.access: tuple[AccessNetwork, ...] = access_networks(self.values["access"])
        self.homes = _count("homes", self.values["homes"], 0, 2)
        self.home_prefixes = _count("home_prefixes", self.values["home_prefixes"], 1, 2)
        self.cn_links = _count("cn_links", self.values["cn_links"], 1, 2)
        self.cn_access = access_networks(self.values["cn_access"]) if self.values["cn_access"] is not None else ()
        self.at_home = bool(_count("at_home", self.values["at_home"], 0, 1))
        self.home_profile = profile(self.values["home_profile"])
        self.core_profile, self.home_uplink_profile = (
            None if self.values[name] is None else profile(self.values[name]) for name in ("core", "home_uplink")
        )
        self.home_middlebox = middlebox_settings(self.values["home_middlebox"], "home_middlebox")
        self.cn_middlebox = middlebox_settings(self.values["cn_middlebox"], "cn_middlebox")
        self.seed = _seed(self.values["seed"])
        if self.home_middlebox is not None and not self.homes:
            raise ValueError("home_middlebox needs a home network: homes=1")
        if self.home_middlebox is not None and self.home_prefixes == 2:
            raise ValueError("home_middlebox needs home_prefixes=1")
        if self.at_home and not self.homes:
            raise ValueError("at_home needs a home network: homes=1")
        if not self.at_home and not any(item.attached for item in self.access):
            raise ValueError("the MN has no interface: attach it to an access network, or set at_home")
        self._check_mobile_cn()

        self.plan = AddressPlan()
        self.attachment_points: dict[str, AttachmentPoint] = {}
        self._paths: dict[str, list[Path]] = {"mn": [], "cn": []}
        self._graph: dict[str, list[dict[str, Any]]] = {"nodes": [], "links": []}
        self._pending: list[dict[str, Any]] = []
        self._kinds: dict[str, tuple[type, str, dict[str, Any]]] = {}
        self._subnets: dict[str, list[PrefixPair]] = {}

        self.tcp = {
            "congestion_control": self.values["congestion_control"],
            "sack": bool(_count("sack", self.values["sack"], 0, 1)),
        }
        self._declare("mn", MobileHost, "mobile-host", **self.tcp)
        self._declare("core", Router, "router")
        for number, item in enumerate(self.access, start=1):
            self._add_access("mn", number, item)
        for number in range(1, self.homes + 1):
            self._add_home(number)
        if self.cn_access:
            self._declare("cn", MobileHost, "mobile-host", **self.tcp)
            for number, item in enumerate(self.cn_access, start=len(self.access) + 1):
                self._add_access("cn", number, item)
        else:
            self._add_correspondent()
        self._realise()

    def _check_mobile_cn(self) -> None:
        if self.cn_access and not any(item.attached for item in self.cn_access):
            raise ValueError("the mobile CN has no interface: attach it to a network of cn_access")
        for name in ("cn_links", "cn_middlebox", "core"):
            if self.cn_access and self.values[name] != self.DEFAULTS[name]:
                raise ValueError(f"{name} is for a CN with a network of its own: leave it out, or leave out cn_access")

    # -- parts --------------------------------------------------------------------------------------------------------
    def _add_access(self, owner: str, number: int, item: AccessNetwork) -> None:
        router = f"ar{number}"
        variants = ("first", "second")[: item.prefixes]
        prefixes = [network_prefixes("access", number, item.families, variant) for variant in variants]
        spare = network_prefixes("access", number, item.families, "spare")
        interface = interface_name(owner, item.name) if item.attached else None
        self._declare(router, AccessRouter, "access-router", prefixes=prefixes, spare=spare)
        self._add_attachment_points(router, item.aps, interface)
        self._connect_router(router, prefixes, spare, item.box, f"mb{number}")
        if interface is not None:
            self._attach(owner, router, interface, item.name, item.profile, item.families, item.prefixes, item.label)

    def _add_home(self, number: int) -> None:
        router, agent = f"hr{number}", f"ha{number}"
        variants = ("first", "second")[: self.home_prefixes]
        prefixes = [network_prefixes("home", number, variant=variant) for variant in variants]
        spare = network_prefixes("home", number, variant="spare")
        self._declare(router, AccessRouter, "home-router", prefixes=prefixes, spare=spare)
        self._declare(agent, HomeAgentHost, "home-agent")
        interface = interface_name("mn", "home") if self.at_home and number == 1 else None
        self._add_attachment_points(router, 2, interface)
        self._connect_router(router, prefixes, spare, self.home_middlebox, f"mbh{number}", self.home_uplink_profile)
        mine, theirs = interface_name(agent, router), interface_name(router, agent)
        self._kinds[router][2].setdefault("ports", []).append(theirs)
        for pair in prefixes:
            self.plan.add_addresses(agent, mine, pair.host(HA_HOST_PART))
        self.plan.add_default(agent, [str(network[1]) for network in prefixes[0].networks()])
        self._link(agent, router, mine, theirs, None, f"home link {number}")
        if interface is not None:
            label = f"home {self.home_profile.describe()}".strip()
            self._attach("mn", router, interface, "home", self.home_profile, "dual", self.home_prefixes, label)

    def _add_correspondent(self) -> None:
        several = self.cn_links > 1
        self._declare("cn", StaticHost if several else LinuxHost, "host", **self.tcp)
        for number in range(1, self.cn_links + 1):
            router = f"cr{number}"
            pair = network_prefixes("correspondent", number)
            self._declare(router, Router, "router")
            self._uplink_through(router, pair.networks(), self.cn_middlebox, f"mbc{number}", self.core_profile)
            mine, theirs = interface_name("cn", router), interface_name(router, "cn")
            self.plan.add_addresses(router, theirs, pair.host(1))
            self.plan.add_addresses("cn", mine, pair.host(CN_HOST_PART))
            if not several:
                self.plan.add_default("cn", [str(network[1]) for network in pair.networks()])
            else:
                interfaces = self._kinds["cn"][2].setdefault("interfaces", [])
                interfaces.append(
                    {
                        "name": mine,
                        "table": FIRST_TABLE + number - 1,
                        "metric": FIRST_METRIC + METRIC_STEP * (number - 1),
                        "ipv4": "static",
                        "ipv6": "static",
                        "addresses": pair.host(CN_HOST_PART),
                        "gateways": [str(network[1]) for network in pair.networks()],
                    }
                )
            self._link("cn", router, mine, theirs, None, f"correspondent network {number}")

    def _connect_router(
        self,
        router: str,
        prefixes: Sequence[PrefixPair],
        spare: PrefixPair,
        middlebox: MiddleboxSettings | None,
        box: str,
        profile_of_link: LinkProfile | None = None,
    ) -> None:
        """Join an access or home router to the core: directly, through a middlebox, or through one provider per prefix."""
        networks = [pair.networks() for pair in prefixes]
        if len(prefixes) == 2:
            for own in networks:
                provider = f"isp{sum(name.startswith('isp') for name in self._kinds) + 1}"
                self._declare(provider, Router, "provider")
                first = own is networks[0]
                own_and_spare = own + (spare.networks() if first else [])
                self._uplink([router, provider, "core"], own_and_spare, by_source=True, profile_of_link=profile_of_link)
                if first:
                    link = self.plan.link_between(router, provider)
                    self.plan.add_default(router, [link.address_of(provider, 4), link.address_of(provider, 6)])
            return
        self._uplink_through(router, networks[0] + spare.networks(), middlebox, box, profile_of_link)

    def _uplink_through(
        self,
        router: str,
        networks: list[Network],
        middlebox: MiddleboxSettings | None,
        box: str,
        profile_of_link: LinkProfile | None = None,
    ) -> None:
        """Join a router to the core, through a middlebox called `box` where there are settings for one."""
        if middlebox is None:
            self._uplink([router, "core"], networks, profile_of_link=profile_of_link)
            return
        self._declare(box, Middlebox, "middlebox", outside=interface_name(box, "core"), **middlebox.to_dict())
        self._uplink([router, box, "core"], networks, hide4=middlebox.nat, profile_of_link=profile_of_link)

    def _uplink(
        self,
        chain: list[str],
        networks: list[Network],
        by_source: bool = False,
        hide4: bool = False,
        profile_of_link: LinkProfile | None = None,
    ) -> None:
        for below, above in pairwise(chain):
            link = self.plan.connect(below, above)
            # One link of the chain has the profile: a middlebox must not add the delay once more.
            last = above == chain[-1]
            self._link(below, above, link.a_interface, link.b_interface, profile_of_link if last else None, "")
        self.plan.uplink(chain, networks, by_source=by_source, hide4=hide4)

    def _add_attachment_points(self, router: str, count: int, interface: str | None) -> None:
        for number in range(1, count + 1):
            occupant = interface if number == 1 else None
            port = interface_name(router, f"ap{number}")
            self.attachment_points[f"{router}/ap{number}"] = AttachmentPoint(router, port, occupant)

    def _attach(
        self, owner: str, router: str, interface: str, name: str, link_profile: LinkProfile, families: str, prefixes: int,
        label: str,
    ) -> None:  # fmt: skip
        port = self.attachment_points[f"{router}/ap1"].port
        self._kinds[router][2].setdefault("ports", []).append(port)
        number = len(self._paths[owner])
        self._kinds[owner][2].setdefault("interfaces", []).append(
            {
                "name": interface,
                "table": FIRST_TABLE + number,
                "metric": FIRST_METRIC + METRIC_STEP * number,
                "ipv4": "dhcp",
                "ipv6": "ra",
                "leases": prefixes,
            }
        )
        self._kinds[owner][2].setdefault("expected", {})[interface] = {"families": families, "prefixes": prefixes}
        self._paths[owner].append(Path(name, interface, router, families, prefixes, link_profile))
        self._link(owner, router, interface, port, link_profile, label)

    # -- nodes and links ----------------------------------------------------------------------------------------------
    def _declare(self, name: str, cls: type, kind: str, **params: Any) -> None:
        self._kinds[name] = (cls, kind, params)
        self._graph["nodes"].append({"name": name, "kind": kind})

    def _link(self, a: str, b: str, a_interface: str, b_interface: str, link_profile: LinkProfile | None, label: str) -> None:
        self._pending.append({"a": a, "b": b, "a_interface": a_interface, "b_interface": b_interface, "profile": link_profile})
        self._graph["links"].append({"a": a, "b": b, "a_interface": a_interface, "b_interface": b_interface, "label": label})

    def _realise(self) -> None:
        """Nodes with their final parameters, then links with fixed MACs, so that every run has the same addresses."""
        for name, (cls, _kind, params) in self._kinds.items():
            self.addHost(name, cls=cls, addresses=self._own_addresses(name), routes=self.plan.routes.get(name, []), **params)
        numbers = {name: number for number, name in enumerate(self._kinds, start=1)}
        used = dict.fromkeys(self._kinds, 0)
        self._macs: dict[str, str] = {}
        for number, link in enumerate(self._pending):
            macs = []
            for node, interface in ((link["a"], link["a_interface"]), (link["b"], link["b_interface"])):
                used[node] += 1
                macs.append(mac_address(numbers[node], used[node]))
                self._macs[interface] = macs[-1]
            link_params: dict[str, Any] = {"cls": PlainLink}
            if link["profile"] is not None:
                link_params = {"cls": EmulatedLink, "profile": link["profile"], "seed": f"{self.seed}/{number}"}
            self.addLink(
                link["a"], link["b"], intfName1=link["a_interface"], intfName2=link["b_interface"],
                addr1=macs[0], addr2=macs[1], **link_params,
            )  # fmt: skip

    def _own_addresses(self, name: str) -> dict[str, list[str]]:
        # A host that an agent configures gets its addresses from the agent.
        return {} if self._kinds[name][0] in (MobileHost, StaticHost) else self.plan.addresses.get(name, {})

    # -- data for whoever runs experiments ----------------------------------------------------------------------------
    def paths(self) -> list[Path]:
        """The ways between MN and CN, in the order of preference."""
        return list(self._paths["mn"])

    def cn_paths(self) -> list[Path]:
        """The same of a mobile CN: its interfaces to access networks. Empty where it has networks of its own."""
        return list(self._paths["cn"])

    def graph(self) -> dict[str, list[dict[str, Any]]]:
        """Nodes with their kind and links with interfaces and label, as JSON values, for drawing."""
        return {key: [dict(row) for row in rows] for key, rows in self._graph.items()}

    def capture_points(self) -> list[dict[str, str]]:
        """Where to record packets unless told otherwise: the MN's, the CN's and the home agents' interfaces."""
        points = []
        for row in self._graph["links"]:
            for end in ("a", "b"):
                if row[end] in ("mn", "cn") or self._kinds[row[end]][1] == "home-agent":
                    points.append({"node": row[end], "interface": row[f"{end}_interface"]})
        return points

    def cn_addresses(self, net: Any = None) -> dict[str, list[str]]:
        """Addresses of the CN without prefix length, by family, in the order of its links: {"ipv4": [...], "ipv6": [...]}.

        A mobile CN has those of the networks where it is: they are known when it runs in `net`.
        """
        if net is not None and self.cn_access:
            rows = net["cn"].netconf("status")["interfaces"]
            values = [address for row in rows for address in row["addresses"]]
        else:
            fixed = self.plan.addresses.get("cn", {})
            values = [value.split("/")[0] for addresses in fixed.values() for value in addresses]
        return {
            "ipv4": [value for value in values if ":" not in value],
            "ipv6": [value for value in values if ":" in value],
        }

    def mac(self, interface: str) -> str:
        """MAC address of an interface of this topology; KeyError when there is none."""
        return self._macs[interface]

    def describe(self) -> str:
        """A few lines for people: paths, home networks, correspondent node."""
        lines = [
            f"{path.name}: {path.interface} at {path.access_router}, {path.families}, {path.profile.describe()}"
            + (", two prefixes" if path.prefixes == 2 else "")
            for path in self._paths["mn"] + self._paths["cn"]
        ]
        if self.homes:
            lines.append(f"home networks: {self.homes}" + (", two prefixes each" if self.home_prefixes == 2 else ""))
        addresses = self.cn_addresses()
        lines.append(f"cn: {', '.join(addresses['ipv4'] + addresses['ipv6']) or 'mobile'}")
        return "\n".join(lines)


class SeveralInterfacesTopo(MobileTopo):
    """An MN with two interfaces, each with a home network of its own.

    ┌────┐ ~~~ wlan ~~~ ar1 ──┐
    │ mn │                    ├── core ── cr1 ── cn
    └────┘ ~~~ lte  ~~~ ar2 ──┤
          ha1 ── hr1 ─────────┤
          ha2 ── hr2 ─────────┘
    """

    OWN_DEFAULTS: ClassVar[dict[str, Any]] = {"homes": 2}


class MultihomedHomeTopo(MobileTopo):
    """An MN at home; the home network has two providers and so two prefixes. It can leave for the network wlan.

    mn ~~~ hr1 ──┬── isp1 ──┐
           ha1 ──┤          ├── core ── cr1 ── cn
                 └── isp2 ──┤
           (wlan) ar1 ──────┘
    """

    OWN_DEFAULTS: ClassVar[dict[str, Any]] = {
        "access": ({"name": "wlan", "attached": False},),
        "homes": 1,
        "home_prefixes": 2,
        "at_home": True,
    }


class MultihomedVisitedTopo(MobileTopo):
    """An MN in a visited network that has two providers and so two prefixes.

    mn ~~~ ar1 ──┬── isp1 ──┐
                 │          ├── core ── cr1 ── cn
                 └── isp2 ──┤
           ha1 ── hr1 ──────┘
    """

    OWN_DEFAULTS: ClassVar[dict[str, Any]] = {"access": ({"name": "wlan", "prefixes": 2},), "homes": 1}


class MobileCnTopo(MobileTopo):
    """An MN and a CN that are both mobile, each with a home network; the CN's is the second one.

    mn ~~~ wlan ~~~ ar1 ──┐        ┌── ar3 ~~~ eth ~~~ cn
     └~~~~ lte  ~~~ ar2 ──┴─ core ─┤
          ha1 ── hr1 ──────────┴───┴── hr2 ── ha2
    """

    OWN_DEFAULTS: ClassVar[dict[str, Any]] = {"homes": 2, "cn_access": ({"name": "eth", "profile": "lan"},)}


class MultihomedCnTopo(MobileTopo):
    """A CN with two interfaces, each in a network of its own.

    mn ~~~ wlan ~~~ ar1 ──┐        ┌── cr1 ──┐
     └~~~~ lte  ~~~ ar2 ──┴─ core ─┤         cn
                                   └── cr2 ──┘
    """

    OWN_DEFAULTS: ClassVar[dict[str, Any]] = {"cn_links": 2}


def _count(name: str, value: Any, low: int, high: int) -> int:
    if not isinstance(value, int) or not low <= value <= high:
        raise ValueError(f"{name} = {value!r}: must be a number from {low} to {high}")
    return int(value)


def _seed(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"seed = {value!r}: must be a whole number of at least 0")
    return value


topos = {
    "mobile": MobileTopo,
    "several-interfaces": SeveralInterfacesTopo,
    "multihomed-home": MultihomedHomeTopo,
    "multihomed-visited": MultihomedVisitedTopo,
    "multihomed-cn": MultihomedCnTopo,
    "mobile-cn": MobileCnTopo,
}
"""For `mn --custom`, and for topologies.registry."""
