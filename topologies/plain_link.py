"""A veth pair between two nodes, without shaping and without offloads."""

from typing import Any

from mininet.link import Link

from topologies.links.interfaces import disable_offloads
from topologies.sysctl import network_namespace


class PlainLink(Link):
    """What joins routers whose link is not under study: infinitely fast, no delay, every packet as it is on a wire."""

    def __init__(self, *args: Any, **params: Any) -> None:
        super().__init__(*args, **params)
        for interface in (self.intf1, self.intf2):
            with network_namespace(interface.node.pid):
                disable_offloads(interface.name)
