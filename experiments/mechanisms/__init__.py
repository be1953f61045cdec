"""The mechanisms by name. A new one is a module with a class, and its line here."""

from experiments.errors import RoamlabError
from experiments.mechanisms.base import Mechanism
from experiments.mechanisms.lia import LIA_MECHANISMS
from experiments.mechanisms.mip_mptcp import MIP_MPTCP_MECHANISMS
from experiments.mechanisms.mobileip import MOBILE_IP_MECHANISMS
from experiments.mechanisms.mptcp import Mptcp, MptcpBackup
from experiments.mechanisms.proxy import PROXY_MECHANISMS
from experiments.mechanisms.several_homes import SEVERAL_HOMES_MECHANISMS
from experiments.mechanisms.tcp import Tcp

_ALL: tuple[type[Mechanism], ...] = (
    Tcp, Mptcp, MptcpBackup, *PROXY_MECHANISMS, *MOBILE_IP_MECHANISMS, *MIP_MPTCP_MECHANISMS,
    *SEVERAL_HOMES_MECHANISMS, *LIA_MECHANISMS,
)  # fmt: skip
REGISTRY: dict[str, type[Mechanism]] = {cls.name: cls for cls in _ALL}


def make(name: str) -> Mechanism:
    """The mechanism called `name`. Raises RoamlabError that lists the valid names."""
    try:
        return REGISTRY[name]()
    except KeyError:
        raise RoamlabError(f"no mechanism {name!r}; there are: {', '.join(REGISTRY)}") from None
