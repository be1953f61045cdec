"""Mobile IPv4 (RFC 5944), with one binding or with several (RFC 7629): programs use the home address wherever the MN is.

The home agent runs on `ha1`, or where a mechanism names other homes. Programs and their TCP are unmodified; TCP and UDP are
carried.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final

from experiments.errors import Unsupported
from experiments.mechanisms import mobile_peer
from experiments.mechanisms.base import Mechanism
from experiments.mechanisms.home import Home
from experiments.ports import HTTP_PORTS, RPC_PORTS, VOICE_PORTS
from experiments.testbed import Testbed
from topologies.mobile import Path
from topologies.waiting import wait_until

HOME_ROLE, MOBILE_ROLE, FOREIGN_ROLE = "home-agent", "mobile-node", "foreign-agent"
SECURITY: Final = {"spi": 256, "key": "00112233445566778899aabbccddeeff"}
PROBES: Final = {"probe_interval_s": 0.2, "probe_timeout_s": 0.4, "probe_failures": 3}
"""A silent path is given up after two seconds at most."""
ADVERTISEMENTS: Final = {"advertisement_interval_s": 1.0, "advertisement_lifetime_s": 3}
"""RFC 5944 section 2.3: at most one a second, and three may be lost."""
_TECHNOLOGIES: Final = {"wlan": "wlan", "lte": "eutran", "cdma": "cdma_1x", "eth": "ethernet", "eth1": "ethernet",
                        "eth2": "ethernet", "home": "ethernet"}  # fmt: skip
_UNDER_WAY: Final = ("registering", "refreshing", "deregistering", "discovering")
_READY_TIMEOUT_S = 20.0


class MobileIp(Mechanism):
    """One binding, of the preferred network that works; co-located care-of addresses."""

    name: ClassVar[str] = "mip4"
    label: ClassVar[str] = "Mobile IPv4"
    summary: ClassVar[str] = "Mobile IPv4 with one binding: a tunnel between home agent and the MN's preferred network"
    fills_cpu: ClassVar[bool] = True
    requires: ClassVar[tuple[str, ...]] = ("nft-flows",)
    homes: ClassVar[int] = 1
    home: ClassVar[Home] = Home()
    """Of the MN: programs use its home address."""
    further_homes: ClassVar[Sequence[Home]] = ()
    """Where the MN has home addresses besides."""
    settings: ClassVar[Mapping[str, Any]] = {"multipath": False}
    """Of the mobile node's agent."""
    interface_settings: ClassVar[Mapping[str, Any]] = {"foreign_agent": False}
    selection: ClassVar[str] = "per-flow"
    """What becomes of packets of no flow binding, at both ends."""
    flows: ClassVar[Sequence[Mapping[str, Any]]] = ()
    """Flow bindings, which the mobile node sends to the home agent; `paths` names the networks, preferred first."""

    def prepare(self, bed: Testbed) -> None:
        """Home agent and mobile node run; networks that this mechanism uses are registered: of the MN, of a mobile CN."""
        if bed.family != 4:
            raise Unsupported(f"{self.label} carries IPv4 only")
        for node in (bed.mn, bed.cn):
            bed.sysctl(node, "net.mptcp.enabled", 0, optional=True)
        paths = [path for path in bed.paths if path.families != "ipv6"]
        homes = [self.home, *self.further_homes]
        for node in dict.fromkeys(home.agent_node for home in homes):
            self.start_home_agent(bed, [home for home in homes if home.agent_node == node], paths)
        self.start_mobile_node(bed, bed.mn, self.home, paths, self.further_homes)
        wait_until(
            lambda: all(self.ready(bed, bed.mn, home, paths) for home in homes),
            _READY_TIMEOUT_S, "registration of the MN's networks",
        )  # fmt: skip
        if bed.cn_paths:
            mobile_peer.register(self, bed)

    def start_home_agent(self, bed: Testbed, homes: Sequence[Home], paths: Sequence[Path]) -> None:
        """Start the home agent of `homes`, which all have the same agent; labels of bindings are numbers of `paths`."""
        first = homes[0]
        node = {"multipath": bool(self.settings.get("multipath")), "selection": self.selection, **SECURITY}
        labels = [{"label": number, "cost": number - 1, **_capacity(path)} for number, path in enumerate(paths, 1)]
        bed.start_agent(first.agent_node, HOME_ROLE, {
            "addresses": list(dict.fromkeys(home.agent for home in homes)),
            "home_prefix": first.network, "home_interface": first.agent_interface,
            "state": str(bed.node(first.agent_node).state_dir / "bindings.sqlite"),
            "mobile_node": [{"home_address": home.address, **node} for home in homes], "label": labels,
        })  # fmt: skip

    def start_mobile_node(
        self, bed: Testbed, host: Any, home: Home, paths: Sequence[Path], further: Sequence[Home] = ()
    ) -> None:
        """Start the mobile node's agent on a host (the MN, or a CN that moves) with the networks of `paths`.

        `further`: home addresses besides that of `home`.
        """
        interfaces = [
            {"name": path.interface, "bid": number, "label": number, "cost": number - 1, **_capacity(path),
             "technology": _TECHNOLOGIES.get(path.name, "virtual"), **self.interface_settings}
            for number, path in enumerate(paths, 1)
        ]  # fmt: skip
        state = host.congestion_control_state()
        control = {"congestion_control": state["congestion_control"]} if state["how"] == "route" else {}
        flows = [_flow(flow, paths) for flow in self.flows]
        bed.start_agent(host.name, MOBILE_ROLE, {
            **_place(home), **SECURITY, **control, **PROBES, "nat_traversal": True, "selection": self.selection,
            **self.settings, "interface": interfaces,
            **({"home": [_place(item) for item in further]} if further else {}),
            **({"flow": flows, "exchange_flows": True} if flows else {}),
        })  # fmt: skip

    def ready(self, bed: Testbed, host: Any, home: Home, paths: Sequence[Path]) -> bool:
        """Are the host's tunnels in use, or is it at home?"""
        status = bed.agent_command(host.name, MOBILE_ROLE, {"cmd": "status"})
        if next(row["at_home"] for row in status["homes"] if row["home_address"] == home.address):
            return not _bindings(bed, home.agent_node, HOME_ROLE, home)
        present = sum(path.interface in bed.addresses(host) for path in paths)
        wanted = present if self.settings.get("multipath") else min(present, 1)
        if sum(bool(row["validated"]) for row in _bindings(bed, host.name, MOBILE_ROLE, home)) != wanted:
            return False
        core = next(row for row in (status["core"], *status["core"].get("further", ())) if row["home_address"] == home.address)
        if any(row["state"] in _UNDER_WAY for row in core["interfaces"]):
            return False  # a refresh carries flow bindings that name the networks registered last
        peer = bed.agent_command(home.agent_node, HOME_ROLE, {"cmd": "status"})
        return all(self._forwards(end["forwarding"], home) for end in (status, peer))

    def _forwards(self, rows: Sequence[Mapping[str, Any]], home: Home) -> bool:
        """Is there a tunnel to use, and are all flow bindings in force?"""
        mine = next((row for row in rows if row["home_address"] == home.address), None)
        return mine is not None and bool(mine["shares"]) and len(mine["rules"]) >= len(self.flows)

    def client_address(self, bed: Testbed) -> str | None:
        """The home address."""
        return self.home.address

    def server_address(self, bed: Testbed) -> str:
        """The home address of a mobile CN, else its own."""
        return mobile_peer.HOME.address if bed.cn_paths else super().server_address(bed)

    def handover_begins(self, bed: Testbed, old: str, new: str) -> None:
        """The mobile node registers through the new interface; the old one carries the traffic until that is done."""
        bed.agent_command(bed.mn.name, MOBILE_ROLE, {"cmd": "handover", "interface": new})

    def break_before_make(self, bed: Testbed, old: str, new: str) -> None:
        """The binding of the old interface goes before the one of the new interface is there."""
        bed.agent_command(bed.mn.name, MOBILE_ROLE, {"cmd": "deregister", "interface": old})
        self.handover_begins(bed, old, new)

    def signal_changed(self, bed: Testbed, interface: str, dbm: float) -> None:
        """The mobile node weighs it, where `signal_min_dbm` is configured."""
        bed.agent_command(bed.mn.name, MOBILE_ROLE, {"cmd": "signal", "interface": interface, "dbm": dbm})


class MobileIpForeignAgents(MobileIp):
    """As `MobileIp`, but the access routers are foreign agents: their address is the care-of address."""

    name: ClassVar[str] = "mip4-fa"
    label: ClassVar[str] = "Mobile IPv4, foreign agents"
    summary: ClassVar[str] = "Mobile IPv4 with one binding; the access routers are foreign agents and end the tunnel"
    interface_settings: ClassVar[Mapping[str, Any]] = {"foreign_agent": True, "co_located": False}

    def prepare(self, bed: Testbed) -> None:
        """A foreign agent on every access router, then the others."""
        routers = {point.router for point in bed.topo.attachment_points.values() if point.router.startswith("ar")}
        for router in sorted(routers):
            node = bed.node(router)
            address = next(a for a in bed.addresses(node)[node.bridge] if ":" not in a)
            bed.start_agent(router, FOREIGN_ROLE, {
                "care_of_address": address, **ADVERTISEMENTS, "link": [{"interface": node.bridge, "address": address}],
            })  # fmt: skip
        super().prepare(bed)


class MobileIpMultipath(MobileIp):
    """Every network has a binding of its own; each flow is on one of the tunnels, the same in both directions."""

    name: ClassVar[str] = "mip4-multipath"
    label: ClassVar[str] = "Mobile IPv4, multipath"
    summary: ClassVar[str] = "Mobile IPv4 with a binding for every network (RFC 7629), flows balanced over the tunnels"
    settings: ClassVar[Mapping[str, Any]] = {"multipath": True}

    def handover_begins(self, bed: Testbed, old: str, new: str) -> None:
        """A flow policy at both ends: everything on the new interface's tunnel, on the others if that one goes."""
        rows = bed.agent_command(bed.mn.name, MOBILE_ROLE, {"cmd": "status"})["core"]["interfaces"]
        bids = sorted((row["bid"] for row in rows), key=lambda bid: _bid(rows, new) != bid)
        flows = [{"destination": self.home.address, "bids": bids}]
        bed.agent_command(bed.mn.name, MOBILE_ROLE, {"cmd": "policy", "flows": flows})
        if not self.flows:  # else the mobile node tells the home agent
            request = {"cmd": "policy", "home_address": self.home.address, "flows": flows}
            bed.agent_command(self.home.agent_node, HOME_ROLE, request)

    def break_before_make(self, bed: Testbed, old: str, new: str) -> None:
        """The binding of the old interface goes."""
        bed.agent_command(bed.mn.name, MOBILE_ROLE, {"cmd": "deregister", "interface": old})


class MobileIpStandby(MobileIpMultipath):
    """All flows are on the preferred network's tunnel; the others stand by."""

    name: ClassVar[str] = "mip4-multipath-backup"
    label: ClassVar[str] = "Mobile IPv4, 2nd tunnel standby"
    summary: ClassVar[str] = "as mip4-multipath, but all flows are on the preferred network's tunnel; the others stand by"
    selection: ClassVar[str] = "priority"


class MobileIpPerPacket(MobileIpMultipath):
    """The packets of a flow take the tunnels in turn."""

    name: ClassVar[str] = "mip4-multipath-packets"
    label: ClassVar[str] = "Mobile IPv4, multipath per packet"
    summary: ClassVar[str] = "as mip4-multipath, but each packet takes the next tunnel: packets of a flow overtake each other"
    selection: ClassVar[str] = "per-packet"


class MobileIpFlows(MobileIpMultipath):
    """The policy of the example in RFC 7629: flow bindings that the MN negotiates."""

    name: ClassVar[str] = "mip4-multipath-flows"
    label: ClassVar[str] = "Mobile IPv4, flow bindings"
    summary: ClassVar[str] = "as mip4-multipath, with flow bindings: HTTP on WLAN, voice on LTE, SIP on WLAN, others if lost"
    flows: ClassVar[Sequence[Mapping[str, Any]]] = (
        {"protocol": "tcp", "source_port": HTTP_PORTS, "paths": ("wlan", "cdma", "lte")},
        {"protocol": "udp", "source_port": VOICE_PORTS, "paths": ("lte", "wlan", "cdma")},
        {"protocol": "tcp", "source_port": RPC_PORTS, "paths": ("wlan", "lte", "cdma")},
    )


MOBILE_IP_MECHANISMS: tuple[type[Mechanism], ...] = (
    MobileIp,
    MobileIpForeignAgents,
    MobileIpMultipath,
    MobileIpStandby,
    MobileIpPerPacket,
    MobileIpFlows,
)


def _bindings(bed: Testbed, node: str, role: str, home: Home) -> list[dict[str, Any]]:
    """The bindings of one home address that an agent knows."""
    rows = bed.agent_command(node, role, {"cmd": "bindings"})["bindings"]
    return [row for row in rows if row["home_address"] == home.address]


def _place(home: Home) -> dict[str, str]:
    """Fields of a mobile node's configuration."""
    return {"home_address": home.address, "home_network": home.network, "home_agent": home.agent, "home_gateway": home.router}


def _capacity(path: Path) -> dict[str, float]:
    rate_mbit = path.profile.rate_mbit
    return {"capacity_mbit": float(rate_mbit)} if rate_mbit else {}


def _flow(flow: Mapping[str, Any], paths: Sequence[Path]) -> dict[str, Any]:
    """A flow binding with identifiers of the paths that this topology has."""
    numbers = {path.name: number for number, path in enumerate(paths, 1)}
    known = [numbers[name] for name in flow["paths"] if name in numbers]
    return {**{key: value for key, value in flow.items() if key != "paths"}, "bids": known or list(numbers.values())}


def _bid(rows: Sequence[Mapping[str, Any]], interface: str) -> int:
    return next(int(row["bid"]) for row in rows if row["name"] == interface)
