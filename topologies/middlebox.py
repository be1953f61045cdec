"""Boxes on a path that do more than forward: address translators and filters."""

import os
import socket
import struct
from collections.abc import Sequence
from typing import Any

from topologies.nodes import NodeError, Router
from topologies.sysctl import network_namespace

NETLINK_NETFILTER = 12
# linux/netfilter/nfnetlink_conntrack.h: delete without a tuple empties the table.
IPCTNL_MSG_CT_DELETE = (1 << 8) | 2
NLM_F_REQUEST, NLM_F_ACK = 1, 4
NLMSG_ERROR = 2


class Middlebox(Router):
    """A router on a path that translates addresses, filters by connection state or obeys further nft rules.

    outside: interface towards the core. nat: IPv4 masquerading on it. firewall: connections may only be opened from
    inside. rules: nft commands, for example "add rule inet middlebox forward tcp option mptcp exists drop"; the chains
    of table `inet middlebox` are prerouting, input, forward and postrouting.
    """

    kind = "middlebox"

    def __init__(
        self,
        name: str,
        outside: str | None = None,
        nat: bool = False,
        firewall: bool = False,
        rules: Sequence[str] = (),
        **params: Any,
    ) -> None:
        self.outside = outside
        self.nat, self.firewall, self.rules = nat, firewall, list(rules)
        self._random_ports = False
        super().__init__(name, **params)

    def config(self, **params: Any) -> dict[str, Any]:
        """Addresses and routes, then the rules."""
        result = super().config(**params)
        self.apply()
        return result

    def apply(self, nat: bool | None = None, firewall: bool | None = None, rules: Sequence[str] | None = None) -> None:
        """Replace the rules at run time, all at once; None leaves a setting as it is."""
        if nat is not None:
            self.nat = nat
        if firewall is not None:
            self.firewall = firewall
        if rules is not None:
            self.rules = list(rules)
        self.run(["nft", "-f", "-"], self.ruleset())

    def rebind(self) -> None:
        """Forget all mappings and connections, as a translator does after a restart or an idle time.

        The next packet of a flow gets a new, random port; packets to old ports are dropped. Raises NodeError.
        """
        self._random_ports = True
        self.apply()
        request = struct.pack("=IHHII", 20, IPCTNL_MSG_CT_DELETE, NLM_F_REQUEST | NLM_F_ACK, 1, 0)
        request += struct.pack("!BBH", 0, 0, 0)
        with (
            network_namespace(self.pid),
            socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER) as netfilter,
        ):
            netfilter.send(request)
            reply = netfilter.recv(4096)
        number = -struct.unpack_from("=i", reply, 16)[0] if struct.unpack_from("=H", reply, 4)[0] == NLMSG_ERROR else 0
        if number:
            raise NodeError(f"{self.name}: emptying the connection table: {os.strerror(number)}")

    def ruleset(self) -> str:
        """The nft file: an empty table first, so that it can be applied again and again."""
        if self.outside is None and (self.nat or self.firewall):
            raise NodeError(f"{self.name}: nat and firewall need the interface towards the core: outside=...")
        forward, postrouting, inward = "", "", ""
        if self.firewall or self.nat:
            # A translator without a mapping has nowhere to send a packet from outside: it behaves like a filter there.
            family = "" if self.firewall else "meta nfproto ipv4 "
            forward = (
                "ct state established,related accept; "
                f'{family}ct state invalid drop; {family}iifname "{self.outside}" ct state new drop;'
            )
        if self.nat:
            ports = " fully-random" if self._random_ports else ""
            postrouting = f'oifname "{self.outside}" meta nfproto ipv4 masquerade{ports};'
            # What has no mapping is for nobody: silence, not a reset from the translator itself.
            inward = f'iifname "{self.outside}" meta l4proto {{ tcp, udp }} drop;'
        lines = [
            "add table inet middlebox",
            "delete table inet middlebox",
            "table inet middlebox {",
            "  chain prerouting { type filter hook prerouting priority -150; policy accept; }",
            f"  chain input {{ type filter hook input priority 0; policy accept; {inward} }}",
            f"  chain forward {{ type filter hook forward priority 0; policy accept; {forward} }}",
            f"  chain postrouting {{ type nat hook postrouting priority 100; policy accept; {postrouting} }}",
            "}",
            *self.rules,
        ]
        return "\n".join(lines) + "\n"
