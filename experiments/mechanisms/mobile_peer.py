"""A CN that is mobile as well: it gets the agents that its mechanism gives to the MN, and home network 2.

No mechanism has another name for this: a topology whose CN has access networks (`cn_access`) has two mobile hosts, and a
mechanism of Mobile IP serves both ("A Mobile Host-Multihoming Architecture", section 5.1: "reachability in the case
simultaneous movement").
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from experiments.errors import RoamlabError
from experiments.mechanisms.home import Home
from topologies.mobile import Path
from topologies.waiting import wait_until

if TYPE_CHECKING:
    from experiments.mechanisms.mip_mptcp import MobileIpMptcp
    from experiments.mechanisms.mobileip import MobileIp
    from experiments.testbed import Testbed

HOME: Final = Home(number=2)
"""Of the CN."""
_READY_TIMEOUT_S = 20.0


def register(mechanism: "MobileIp", bed: "Testbed") -> None:
    """Home agent and mobile node of the CN run, and its networks are registered. Raises RoamlabError without home network 2."""
    if bed.topo.homes < HOME.number:
        raise RoamlabError(f"{mechanism.label}: a mobile CN has home network {HOME.number}: the topology needs homes=2")
    paths = _paths(bed)
    mechanism.start_home_agent(bed, [HOME], paths)
    mechanism.start_mobile_node(bed, bed.cn, HOME, paths)
    wait_until(lambda: mechanism.ready(bed, bed.cn, HOME, paths), _READY_TIMEOUT_S, "registration of the CN's networks")


def manage(mechanism: "MobileIpMptcp", bed: "Testbed") -> None:
    """The CN's path manager runs, with the mechanism's policy."""
    mechanism.start_path_manager(bed, bed.cn, [HOME], _paths(bed))


def _paths(bed: "Testbed") -> Sequence[Path]:
    return [path for path in bed.cn_paths if path.families != "ipv6"]
