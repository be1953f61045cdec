"""The wire: the namespace that holds the outer ends of all emulated links, and the backend that joins them."""

import atexit
import os
import threading
from typing import Any, Protocol

from topologies.links.backend import Backend
from topologies.links.interfaces import add_pair, delete_interface, mac_of, set_up
from topologies.links.netns import LinkError, inside, namespace_of, new_namespace
from topologies.links.userspace import UserspaceBackend
from topologies.profiles import LinkProfile

BACKEND_VARIABLE = "ROAMLAB_LINKS"
BACKENDS = ("netem", "userspace")


class NodeLike(Protocol):
    """What the wire needs of a Mininet node."""

    name: str
    pid: int


class Port:
    """One veth pair: an interface in a node and its outer end in the wire. Made by `Wire.add_port`."""

    def __init__(self, wire: "Wire", number: int, node: NodeLike, name: str, mac: str | None) -> None:
        self.node = node
        self.name = name
        """Name of the interface in the node."""
        self.mac = mac
        self.number = number
        self.outer = f"p{number}"
        """Name of the outer end in the wire."""
        self.present = False
        self._wire = wire

    def create(self) -> None:
        """Make the veth pair. The interface in the node appears, up and with carrier."""
        if self.present:
            return
        node = namespace_of(self.node.pid)
        try:
            add_pair(self._wire.namespace, self.outer, node, self.name, self.mac)
            # Kept, so that an interface that comes back is the same to its neighbours.
            self.mac = mac_of(node, self.name)
        except LinkError as error:
            raise LinkError(f"{self.node.name}: {error}") from error
        finally:
            os.close(node)
        try:
            self._wire.backend.add_port(self.number, self.outer)
        except LinkError:
            delete_interface(self._wire.namespace, self.outer)
            raise
        self.present = True

    def delete(self) -> None:
        """Delete the veth pair. The interface in the node vanishes with its addresses and routes."""
        if not self.present:
            return
        self.present = False
        # In this order the interface vanishes at once; closing its socket in the relay's stead takes another 20 ms.
        delete_interface(self._wire.namespace, self.outer)
        self._wire.backend.remove_port(self.number)

    def set_carrier(self, up: bool) -> None:
        """Give or take the carrier of the interface in the node, which stays administratively up."""
        if not self.present:
            raise LinkError(f"{self.node.name}: {self.name} is not present: it has no carrier to set")
        with inside(self._wire.namespace):
            set_up(self.outer, up)

    def __repr__(self) -> str:
        return f"<Port {self.node.name}:{self.name}>"


class Wire:
    """All emulated links of a process. `backend` is "netem" or "userspace"; None chooses."""

    def __init__(self, backend: str | None = None) -> None:
        self.namespace = new_namespace()
        """File descriptor of the wire's network namespace."""
        self._lock = threading.RLock()
        self._ports = 0
        self._links: dict[int, str] = {}
        self._port_names: dict[int, str] = {}
        self._next_link = 0
        self._closed = False
        name = backend or choose_backend()
        if name not in BACKENDS:
            raise LinkError(f"link backend {name!r}: there are {' and '.join(BACKENDS)}")
        self.backend: Backend = UserspaceBackend(self.namespace)

    def add_port(self, node: NodeLike, name: str, mac: str | None = None) -> Port:
        """Make an interface `name` in a node whose far end is joined to nothing until a link attaches to it."""
        with self._lock:
            self._ports += 1
            port = Port(self, self._ports, node, name, mac)
            port.create()
            self._port_names[port.number] = f"{node.name}:{name}"
            return port

    def add_link(self, name: str, forward: LinkProfile, back: LinkProfile, seed: str) -> int:
        """A link without ends; returns its number for the backend's requests. `name` labels its statistics."""
        with self._lock:
            self._next_link += 1
            self.backend.add_link(self._next_link, forward, back, seed)
            self._links[self._next_link] = name
            return self._next_link

    def remove_link(self, link: int) -> None:
        """Forget a link."""
        with self._lock:
            if self._links.pop(link, None) is not None:
                self.backend.remove_link(link)

    def link_stats(self, link: int) -> dict[str, Any]:
        """Counters of one link: {"forward": {...}, "back": {...}}."""
        value: dict[str, Any] = self.backend.stats()["links"][link]
        return value

    def stats(self) -> dict[str, Any]:
        """Backend, lateness in us (late_p50_us, late_p99_us, late_max_us), and counters by link and port name."""
        value = self.backend.stats()
        value["links"] = {self._links.get(number, str(number)): item for number, item in value["links"].items()}
        value["ports"] = {self._port_names.get(number, str(number)): item for number, item in value["ports"].items()}
        return {"backend": self.backend.name, **value}

    def reset_lateness(self) -> None:
        """Start the record of lateness anew, for instance when set-up is over."""
        self.backend.reset()

    def check(self) -> None:
        """Raise LinkError when the links no longer work."""
        self.backend.check()

    def close(self) -> None:
        """End the backend and release the namespace. Interfaces that are left vanish with it."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self.backend.close()
            os.close(self.namespace)


def choose_backend() -> str:
    """The backend that ROAMLAB_LINKS names, or the best one that works here."""
    wanted = os.environ.get(BACKEND_VARIABLE, "")
    if wanted:
        if wanted not in BACKENDS:
            raise LinkError(f"{BACKEND_VARIABLE}={wanted}: must be {' or '.join(BACKENDS)}, or unset to choose")
        return wanted
    return "userspace"


_wire: Wire | None = None
_owner = 0
_wire_lock = threading.Lock()


def wire() -> Wire:
    """The wire of this process, started when first needed."""
    global _wire, _owner
    with _wire_lock:
        # A forked child must not share the control socket of its parent.
        if _wire is None or _owner != os.getpid() or _wire._closed:
            _wire = Wire()
            _owner = os.getpid()
            atexit.register(_wire.close)
        return _wire
