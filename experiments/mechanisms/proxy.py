"""TCP with the lightweight MPTCP proxy (Hampel, Rana and Klein 2013): programs and their TCP are unmodified.

`proxy-proxy`: both hosts run TCP and the proxy. `proxy-mptcp`: the MN runs TCP and the proxy, the CN the kernel's MPTCP.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from experiments.mechanisms.base import Mechanism
from experiments.ports import PORT
from experiments.testbed import Testbed
from topologies.waiting import wait_until

_READY_TIMEOUT_S = 10.0
_COST_STEP = 10
ROLE = "proxy"


class ProxyProxy(Mechanism):
    """Every path of the MN carries a subflow; the first usable one carries the data, the others are backups."""

    name: ClassVar[str] = "proxy-proxy"
    label: ClassVar[str] = "proxy ↔ proxy"
    summary: ClassVar[str] = "TCP with a header-rewriting MPTCP proxy on both hosts; a backup subflow on every further path"
    fills_cpu: ClassVar[bool] = True
    transport: ClassVar[str] = "mptcp"
    carries_udp: ClassVar[bool] = False
    requires: ClassVar[tuple[str, ...]] = ("nfqueue", "conntrack", "iptables")
    settings: ClassVar[Mapping[str, Any]] = {"policy": "cheapest", "join_backup": True, "nudge": True}
    """The table [proxy] of the MN's agent."""
    cn_settings: ClassVar[Mapping[str, Any]] = {"nudge": True}

    def prepare(self, bed: Testbed) -> None:
        """The kernel's own MPTCP is off where the proxy works; the agents run before the first connection."""
        bed.sysctl(bed.mn, "net.mptcp.enabled", 0, optional=True)
        costs = {path.interface: _COST_STEP * i for i, path in enumerate(bed.paths)}
        filters: dict[str, Any] = {"remote_ports": [PORT]}
        self._start(bed, bed.mn.name, self.settings, filters, costs)
        self._prepare_cn(bed)
        wait_until(lambda: self._knows_paths(bed), _READY_TIMEOUT_S, "the proxy's addresses on the MN")

    def _prepare_cn(self, bed: Testbed) -> None:
        bed.sysctl(bed.cn, "net.mptcp.enabled", 0, optional=True)
        self._start(bed, bed.cn.name, self.cn_settings, {"local_ports": [PORT]}, {})

    @staticmethod
    def _start(
        bed: Testbed, node: str, settings: Mapping[str, Any], filters: Mapping[str, Any], costs: Mapping[str, int]
    ) -> None:
        interfaces = [{"name": name, "cost": cost} for name, cost in costs.items()]
        config: dict[str, Any] = {"filter": [dict(filters)], "proxy": dict(settings)}
        bed.start_agent(node, ROLE, {**config, **({"interface": interfaces} if interfaces else {})})

    @staticmethod
    def _knows_paths(bed: Testbed) -> bool:
        """Has the agent seen the address of every path?"""
        present = {row["address"] for row in bed.agent_command(bed.mn.name, ROLE, {"cmd": "status"})["addresses"]}
        found = {a for path in bed.paths for a in bed.addresses(bed.mn).get(path.interface, [])}
        return {a for a in found if (":" in a) == (bed.family == 6)} <= present

    def client_address(self, bed: Testbed) -> str | None:
        """The address of the first path: TCP keeps it for the life of the connection."""
        return bed.address_on(bed.paths[0].interface)

    def handover_begins(self, bed: Testbed, old: str, new: str) -> None:
        """Both directions move to the new path (MP_PRIO) while the old one still works."""
        bed.agent_command(bed.mn.name, ROLE, {"cmd": "handover", "address": bed.address_on(new)})

    def break_before_make(self, bed: Testbed, old: str, new: str) -> None:
        """The old subflow is cut, a new one joined; MP_PRIO and REMOVE_ADDR tell the peer (paper section 5.4)."""
        bed.agent_command(bed.mn.name, ROLE, {"cmd": "handover", "address": bed.address_on(new), "break_first": True})


class ProxyProxySingle(ProxyProxy):
    """One subflow until a command asks for another: break before make by the paper's own rules (section 5.4)."""

    name: ClassVar[str] = "proxy-proxy-single"
    label: ClassVar[str] = "proxy ↔ proxy, one subflow"
    summary: ClassVar[str] = "as proxy-proxy, but a second subflow is only joined on command"
    settings: ClassVar[Mapping[str, Any]] = {"policy": "manual", "reserve_lost": False}
    cn_settings: ClassVar[Mapping[str, Any]] = {"reserve_lost": False}


class ProxyProxySingleNudge(ProxyProxySingle):
    """The same with what goes beyond the paper: monotonous mappings after a break, and retransmission at once."""

    name: ClassVar[str] = "proxy-proxy-single-nudge"
    label: ClassVar[str] = "proxy ↔ proxy, one subflow, nudged"
    summary: ClassVar[str] = "as proxy-proxy-single; after a break the sender's TCP retransmits at once, in order"
    settings: ClassVar[Mapping[str, Any]] = {"policy": "manual", "nudge": True}
    cn_settings: ClassVar[Mapping[str, Any]] = {"nudge": True}


class ProxyProxyAggressive(ProxyProxySingle):
    """ACK numbers by reverse lookup (paper figure 5a)."""

    name: ClassVar[str] = "proxy-proxy-aggressive"
    label: ClassVar[str] = "proxy ↔ proxy, aggressive lookup"
    summary: ClassVar[str] = "as proxy-proxy-single, ACK numbers by reverse lookup: acknowledges what was not delivered"
    settings: ClassVar[Mapping[str, Any]] = {"policy": "manual", "ack_translation": "aggressive"}
    cn_settings: ClassVar[Mapping[str, Any]] = {"ack_translation": "aggressive"}


class ProxyProxyConservative(ProxyProxySingle):
    """ACK numbers by the lowest byte that may be missing (paper figure 5a), no SACK."""

    name: ClassVar[str] = "proxy-proxy-conservative"
    label: ClassVar[str] = "proxy ↔ proxy, conservative lookup"
    summary: ClassVar[str] = "as proxy-proxy-single, ACK numbers by the most cautious lookup, without SACK blocks"
    settings: ClassVar[Mapping[str, Any]] = {"policy": "manual", "ack_translation": "conservative"}
    cn_settings: ClassVar[Mapping[str, Any]] = {"ack_translation": "conservative"}


class ProxyMptcp(ProxyProxy):
    """The CN needs no proxy: its kernel speaks MPTCP."""

    name: ClassVar[str] = "proxy-mptcp"
    label: ClassVar[str] = "proxy ↔ MPTCP"
    summary: ClassVar[str] = "TCP with the proxy on the MN, kernel MPTCP v1 on the CN; a backup subflow on every further path"
    requires: ClassVar[tuple[str, ...]] = (*ProxyProxy.requires, "mptcp", "mptcpize")

    def _prepare_cn(self, bed: Testbed) -> None:
        bed.sysctl(bed.cn, "net.mptcp.enabled", 1)
        bed.run(bed.cn, ["ip", "mptcp", "limits", "set", "subflows", "8", "add_addr_accepted", "8"])

    def command(self, argv: list[str], node_name: str) -> list[str]:
        """mptcpize on the CN only."""
        return ["mptcpize", "run", *argv] if node_name == "cn" else argv


class ProxyMptcpMultipath(ProxyMptcp):
    """All subflows are regular: the CN sends on all of them (paper section 5.5)."""

    name: ClassVar[str] = "proxy-mptcp-multipath"
    label: ClassVar[str] = "proxy ↔ MPTCP, multipath"
    summary: ClassVar[str] = "as proxy-mptcp, but every path carries a regular subflow: the CN uses all of them at once"
    settings: ClassVar[Mapping[str, Any]] = {"policy": "follow", "nudge": True}


PROXY_MECHANISMS: tuple[type[Mechanism], ...] = (
    ProxyProxy,
    ProxyProxySingle,
    ProxyProxySingleNudge,
    ProxyProxyAggressive,
    ProxyProxyConservative,
    ProxyMptcp,
    ProxyMptcpMultipath,
)
