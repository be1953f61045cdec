"""Access router: one subnet behind several attachment points, DHCPv4 and router advertisements by dnsmasq."""

import ipaddress
import socket
import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from topologies.addressing import PrefixPair, dhcp_range
from topologies.links.checksum import internet_checksum
from topologies.nodes import NodeError, Router, check_program, end_program
from topologies.sysctl import network_namespace, write_sysctls
from topologies.waiting import wait_until

LEASE_S = 120
"""Shortest lease that dnsmasq gives."""
RA_INTERVAL_S = 4
"""Longest time between two unsolicited advertisements: the smallest value that dnsmasq takes (RFC 4861: MaxRtrAdvInterval)."""
ROUTER_LIFETIME_S = 1800
"""Longer than any outage of an experiment: an interrupted link alone must not take the default route away."""
PREFIX_LIFETIME_S = 7200
SECOND_VENDOR_CLASS = "roamlab-second"
"""A DHCP client that gives this vendor class gets its address from the second prefix of the link."""
READY_TIMEOUT_S = 10.0

_ICMPV6_ROUTER_SOLICITATION = 133
_ALL_ROUTERS = "ff02::2"


def dnsmasq_configuration(
    bridge: str, prefixes: Sequence[PrefixPair], deprecated: Sequence[PrefixPair], hosts: dict[str, str], state_dir: Path
) -> str:
    """Text of the dnsmasq configuration file of one access network.

    prefixes: what is advertised and served; the second one goes to clients of SECOND_VENDOR_CLASS. deprecated: advertised
    with preferred lifetime 0, no longer served. hosts: MAC -> IPv4 address that this client shall get.
    """
    # No change of user or group: a user namespace refuses setgroups().
    lines = [
        "port=0", "keep-in-foreground", "user=root", "group=", "pid-file=", "no-resolv", "no-hosts",
        "log-facility=-", "log-dhcp", f"interface={bridge}", "bind-dynamic", "dhcp-authoritative", "no-ping",
        f"dhcp-leasefile={state_dir}/leases",
        f"dhcp-vendorclass=set:second,{SECOND_VENDOR_CLASS}",
    ]  # fmt: skip
    served4 = [pair.ipv4 for pair in prefixes if pair.ipv4 is not None]
    for number, network in enumerate(served4):
        first, last = dhcp_range(network)
        tag = "" if len(served4) == 1 else ("tag:!second," if number == 0 else "tag:second,")
        lines.append(f"dhcp-range={tag}{first},{last},{network.netmask},{LEASE_S}")
    served6 = [pair.ipv6 for pair in prefixes if pair.ipv6 is not None]
    old6 = [pair.ipv6 for pair in deprecated if pair.ipv6 is not None]
    if served6 or old6:
        lines += ["enable-ra", f"ra-param={bridge},{RA_INTERVAL_S},{ROUTER_LIFETIME_S}"]
    lines += [f"dhcp-range={network.network_address},ra-only,64,{PREFIX_LIFETIME_S}" for network in served6]
    lines += [f"dhcp-range={network.network_address},ra-only,64,deprecated" for network in old6]
    lines += [f"dhcp-host={mac},{address}" for mac, address in hosts.items()]
    return "\n".join(lines) + "\n"


class AccessRouter(Router):
    """Router of an access or home network: a kernel bridge holds its ports, so all attachment points share the subnet.

    prefixes: one or two PrefixPair (host part 1 is the router's); families follow from which members are None.
    spare: the pair that `renumber()` moves to. ports: interfaces that belong to the bridge. services: start DHCP and
    router advertisements.
    """

    kind = "access-router"

    def __init__(
        self,
        name: str,
        prefixes: Sequence[PrefixPair] = (),
        spare: PrefixPair | None = None,
        ports: Sequence[str] = (),
        services: bool = True,
        **params: Any,
    ) -> None:
        if not 1 <= len(prefixes) <= 2:
            raise ValueError(f"{name}: prefixes holds {len(prefixes)} pairs: give one or two")
        self.prefixes = list(prefixes)
        self.deprecated: list[PrefixPair] = []
        self.spare = spare
        self.port_names = list(ports)
        self.services = services
        self.bridge = f"{name}-br"
        self._hosts: dict[str, str] = {}
        self._dnsmasq: subprocess.Popen[bytes] | None = None
        super().__init__(name, **params)

    def config(self, **params: Any) -> dict[str, Any]:
        """Router links first, then the bridge, then the services."""
        self._make_bridge()
        result = super().config(**params)
        if self.services:
            self.start_services()
        return result

    def terminate(self) -> None:
        """Stop the services, then the node."""
        self.stop_services()
        super().terminate()

    def _make_bridge(self) -> None:
        # A pair of veth ends keeps the bridge's carrier: an access router stays up when the last host leaves.
        inner, outer = f"{self.name}-lan", f"{self.name}-lanx"
        lines = [
            f"link add name {self.bridge} type bridge stp_state 0 forward_delay 0 mcast_snooping 0",
            f"link add {inner} type veth peer name {outer}",
            f"link set {inner} master {self.bridge} up",
            f"link set {outer} up",
        ]
        self.ip_batch(lines)
        quiet: dict[str, str | int] = {f"net/ipv6/conf/{name}/disable_ipv6": 1 for name in (inner, outer)}
        if all(pair.ipv6 is None for pair in self.prefixes):
            quiet[f"net/ipv6/conf/{self.bridge}/disable_ipv6"] = 1
        write_sysctls(self.pid, quiet)
        first_port = self.nameToIntf.get(self.port_names[0]) if self.port_names else None
        mac = [f"link set {self.bridge} address {first_port.mac}"] if first_port is not None and first_port.mac else []
        addresses = [address for pair in self.prefixes for address in pair.host(1)]
        self.ip_batch([*mac, f"link set {self.bridge} up"])
        for port in self.port_names:
            self.adopt_port(port)
        self.ip_batch(self._address_lines({self.bridge: addresses}))

    def adopt_port(self, interface: Any) -> None:
        """Make an interface of this node an attachment point: its name, or anything with a `name` (Intf, wire port)."""
        name = interface if isinstance(interface, str) else str(interface.name)
        write_sysctls(self.pid, {f"net/ipv6/conf/{name}/disable_ipv6": 1})
        self.ip_batch([f"link set {name} master {self.bridge} up"])
        if name not in self.port_names:
            self.port_names.append(name)

    # -- services -----------------------------------------------------------------------------------------------------
    def start_services(self) -> None:
        """Start dnsmasq and wait until its sockets exist; NodeError with its last words when it ends instead."""
        self.stop_services()
        configuration = self.state_dir / "dnsmasq.conf"
        configuration.write_text(
            dnsmasq_configuration(self.bridge, self.prefixes, self.deprecated, self._hosts, self.state_dir)
        )
        process = self.spawn(["dnsmasq", f"--conf-file={configuration}"], self._dnsmasq_log)
        self._dnsmasq = process
        ipv4 = any(pair.ipv4 for pair in self.prefixes)
        ipv6 = any(pair.ipv6 for pair in [*self.prefixes, *self.deprecated])

        def ready() -> bool:
            self.check()
            return (not ipv4 or _has_socket(process.pid, "udp", 67)) and (
                not ipv6 or _has_socket(process.pid, "raw6", socket.IPPROTO_ICMPV6)
            )

        wait_until(ready, READY_TIMEOUT_S, f"{self.name}: dnsmasq serves {self.bridge}", poll_s=0.005)

    def stop_services(self) -> None:
        """Stop DHCP and advertisements; hosts keep what they have until its lifetime ends. Harmless when stopped."""
        process, self._dnsmasq = self._dnsmasq, None
        end_program(process)

    @property
    def _dnsmasq_log(self) -> Path:
        return self.shared_dir("logs") / f"{self.name}-dnsmasq.log"

    def check(self) -> None:
        """Raise NodeError when dnsmasq has ended by itself: node, program, exit code and its last words.

        Costs one system call while it runs.
        """
        check_program(self.name, "dnsmasq", self._dnsmasq, lambda: self._dnsmasq_log)

    def restart_services(self) -> None:
        """Stop and start, then advertise at once."""
        self.start_services()
        self.advertise()

    def renumber(self, prefix4: str | None = None, prefix6: str | None = None) -> PrefixPair:
        """Advertise a new prefix and deprecate the first one (preferred lifetime 0); DHCP serves the new one.

        Without arguments both families move to the spare pair, which the core knows a route to. A family without a new
        prefix stays. The router keeps its old address, so established connections go on. Returns the new pair.
        """
        old = self.prefixes[0]
        if prefix4 is None and prefix6 is None:
            if self.spare is None:
                raise NodeError(f"{self.name}: no spare prefix: name the new one")
            new4, new6 = self.spare.ipv4, self.spare.ipv6
        else:
            new4 = ipaddress.IPv4Network(prefix4) if prefix4 else None
            new6 = ipaddress.IPv6Network(prefix6) if prefix6 else None
        new = PrefixPair(new4 if old.ipv4 and new4 else old.ipv4, new6 if old.ipv6 and new6 else old.ipv6)
        changed = [network for network in new.networks() if network not in old.networks()]
        if not changed:
            raise NodeError(f"{self.name}: renumbering changes nothing: {', '.join(map(str, new.networks()))}")
        self.deprecated.append(
            PrefixPair(old.ipv4 if old.ipv4 != new.ipv4 else None, old.ipv6 if old.ipv6 != new.ipv6 else None)
        )
        self.prefixes[0] = new
        addresses = [f"{network[1]}/{network.prefixlen}" for network in changed]
        self.ip_batch(self._address_lines({self.bridge: addresses}))
        if self.services:
            self.restart_services()
        return new

    def serve_other_address(self, mac: str) -> str | None:
        """The next IPv4 lease of this client differs from its present one; returns the address it will get.

        None where there is no DHCPv4: nothing is to be done for an IPv6 address, which the host forms itself (`release`
        with other=True of netconf). Raises NodeError when no address is free.
        """
        leases = self.leases()
        present = leases.get(mac.lower())
        network = next((pair.ipv4 for pair in self.prefixes if pair.ipv4 is not None), None)
        if network is None or not self.services:
            return None
        first, last = (ipaddress.IPv4Address(address) for address in dhcp_range(network))
        taken = {*leases.values(), *self._hosts.values()}
        candidates = (str(ipaddress.IPv4Address(number)) for number in range(int(last), int(first), -1))
        other = next((address for address in candidates if address not in taken and address != present), None)
        if other is None:
            raise NodeError(f"{self.name}: no free address in {network}")
        self.stop_services()
        self._hosts[mac.lower()] = other
        path = self.state_dir / "leases"
        if path.exists():
            lines = [line for line in path.read_text().splitlines() if mac.lower() not in line.lower().split()]
            path.write_text("".join(f"{line}\n" for line in lines))
        self.start_services()
        return other

    def leases(self) -> dict[str, str]:
        """MAC -> IPv4 address of the present leases."""
        path = self.state_dir / "leases"
        if not path.exists():
            return {}
        rows = [line.split() for line in path.read_text().splitlines()]
        return {row[1].lower(): row[2] for row in rows if len(row) >= 3 and "." in row[2]}

    def advertise(self) -> None:
        """Make dnsmasq send a router advertisement to all hosts now instead of up to 5 s later.

        It answers a solicitation from the unspecified address to everybody (RFC 4861 section 6.2.6), so one is sent that
        the kernel loops back to the router itself.
        """
        if all(pair.ipv6 is None for pair in [*self.prefixes, *self.deprecated]):
            return
        payload = struct.pack("!BBHI", _ICMPV6_ROUTER_SOLICITATION, 0, 0, 0)
        target = socket.inet_pton(socket.AF_INET6, _ALL_ROUTERS)
        pseudo = bytes(16) + target + struct.pack("!IHBB", len(payload), 0, 0, socket.IPPROTO_ICMPV6)
        checksum = internet_checksum(pseudo + payload)
        payload = payload[:2] + struct.pack("!H", checksum) + payload[4:]
        header = struct.pack("!IHBB", 6 << 28, len(payload), socket.IPPROTO_ICMPV6, 255) + bytes(16) + target
        with (
            network_namespace(self.pid),
            socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw,
        ):
            index = socket.if_nametoindex(self.bridge)
            raw.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
            try:
                raw.sendto(header + payload, (_ALL_ROUTERS, 0, 0, index))
            except OSError as error:
                raise NodeError(f"{self.name}: router solicitation on {self.bridge}: {error}") from error


def _has_socket(pid: int, table: str, port: int) -> bool:
    """Whether the network namespace of `pid` has a socket bound to a port (or, for raw sockets, a protocol)."""
    try:
        lines = Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]
    except FileNotFoundError:
        return False
    return any(line.split()[1].endswith(f":{port:04X}") for line in lines)
