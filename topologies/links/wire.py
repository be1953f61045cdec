"""The wire: the namespace that holds the outer ends of all emulated links, and the backends that join them."""

import atexit
import os
import threading
from dataclasses import dataclass
from typing import Any, Protocol

from topologies.links import netem
from topologies.links.backend import Backend
from topologies.links.interfaces import add_pair, delete_interface, learn_station, mac_of, set_up, wait_carrier
from topologies.links.netem import NetemBackend
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

    def __init__(self, namespace: int, number: int, node: NodeLike, name: str, mac: str | None) -> None:
        self.node = node
        self.name = name
        """Name of the interface in the node."""
        self.mac = mac
        self.number = number
        self.outer = f"p{number}"
        """Name of the outer end in the wire."""
        self.present = False
        self.served_by: Backend | None = None
        """The backend that takes this port's frames; None while no link has been attached."""
        self._namespace = namespace

    def create(self) -> None:
        """Make the veth pair. The interface in the node appears, up and with carrier."""
        if self.present:
            return
        node = namespace_of(self.node.pid)
        try:
            add_pair(self._namespace, self.outer, node, self.name, self.mac)
            # Kept, so that an interface that comes back is the same to its neighbours.
            self.mac = mac_of(node, self.name)
        except LinkError as error:
            raise LinkError(f"{self.node.name}: {error}") from error
        finally:
            os.close(node)
        self.present = True

    def serve(self, backend: Backend) -> None:
        """Hand the port's frames to a backend."""
        if self.served_by is backend or not self.present:
            return
        if self.served_by is not None:
            self.served_by.remove_port(self.number)
        self.served_by = None
        backend.add_port(self.number, self.outer)
        self.served_by = backend

    def delete(self) -> None:
        """Delete the veth pair. The interface in the node vanishes with its addresses and routes."""
        if not self.present:
            return
        self.present = False
        # In this order the interface vanishes at once; closing what served it takes another 20 ms.
        delete_interface(self._namespace, self.outer)
        if self.served_by is not None:
            backend, self.served_by = self.served_by, None
            backend.remove_port(self.number)

    def set_carrier(self, up: bool) -> None:
        """Give or take the carrier of the interface in the node, which stays administratively up."""
        if not self.present:
            raise LinkError(f"{self.node.name}: {self.name} is not present: it has no carrier to set")
        with inside(self._namespace):
            set_up(self.outer, up)
        node = namespace_of(self.node.pid)
        try:
            wait_carrier(node, self.name, up)
        finally:
            os.close(node)

    def learn_station(self, mac: str) -> None:
        """Where the interface is a port of a bridge: tell the bridge that a station with this MAC address is there now."""
        node = namespace_of(self.node.pid)
        try:
            learn_station(node, self.name, mac)
        finally:
            os.close(node)

    def __repr__(self) -> str:
        return f"<Port {self.node.name}:{self.name}>"


@dataclass(frozen=True)
class Joint:
    """A link as a backend knows it."""

    number: int
    name: str
    backend: Backend


class Wire:
    """All emulated links of a process. `backend` is "netem" or "userspace"; None chooses."""

    def __init__(self, backend: str | None = None) -> None:
        name, reason = choose_backend() if backend is None else (_known(backend, "backend"), "asked for")
        self.notes = [f"links by {name}: {reason}"]
        """What a person should know about how links are made here."""
        self.namespace = new_namespace()
        """File descriptor of the wire's network namespace."""
        self._lock = threading.RLock()
        self._ports: dict[int, Port] = {}
        self._joints: dict[int, Joint] = {}
        self._numbers = 0
        self._userspace: UserspaceBackend | None = None
        self.closed = False
        self.backend: Backend = NetemBackend(self.namespace) if name == "netem" else self._relay()

    def _relay(self) -> UserspaceBackend:
        if self._userspace is None:
            self._userspace = UserspaceBackend(self.namespace)
        return self._userspace

    def _number(self) -> int:
        self._numbers += 1
        return self._numbers

    def add_port(self, node: NodeLike, name: str, mac: str | None = None) -> Port:
        """Make an interface `name` in a node whose far end is joined to nothing until a link attaches to it."""
        with self._lock:
            port = Port(self.namespace, self._number(), node, name, mac)
            port.create()
            try:
                # Now and not when a link attaches: opening takes the kernel 10 ms, which a handover would wait for.
                port.serve(self.backend)
            except LinkError:
                port.delete()
                raise
            self._ports[port.number] = port
            return port

    def remove_port(self, port: Port) -> None:
        """Delete a port for good."""
        with self._lock:
            port.delete()
            self._ports.pop(port.number, None)

    def add_link(self, name: str, forward: LinkProfile, back: LinkProfile, seed: str) -> Joint:
        """A link without ends. `name` labels its statistics."""
        with self._lock:
            backend = self.backend
            if forward.trace or back.trace:
                backend = self._relay()
                if backend is not self.backend:
                    self.notes.append(f"{name}: by the userspace relay, because netem plays no traces")
            joint = Joint(self._number(), name, backend)
            backend.add_link(joint.number, forward, back, seed)
            self._joints[joint.number] = joint
            return joint

    def remove_link(self, joint: Joint) -> None:
        """Forget a link."""
        with self._lock:
            if self._joints.pop(joint.number, None) is not None:
                joint.backend.remove_link(joint.number)

    def attach(self, joint: Joint, a: Port | None, b: Port | None) -> None:
        """Make `a` and `b` the ends of a link. Absent interfaces count as none."""
        with self._lock:
            present = [port if port is not None and port.present else None for port in (a, b)]
            for port in present:
                if port is not None:
                    port.serve(joint.backend)
            one, other = (None if port is None else port.number for port in present)
            joint.backend.attach(joint.number, one, other)

    def link_stats(self, joint: Joint) -> dict[str, Any]:
        """Counters of one link: {"forward": {...}, "back": {...}}."""
        value: dict[str, Any] = joint.backend.stats()["links"][joint.number]
        return value

    def stats(self) -> dict[str, Any]:
        """Backend, lateness in us (late_p50_us, late_p99_us, late_max_us), and counters by link and port name.

        All since the last `reset_stats`, or since the link or port was made.
        """
        value = self.backend.stats()
        if self._userspace is not None and self._userspace is not self.backend:
            relay = self._userspace.stats()
            relay["links"].update(value["links"])
            value = relay
        names = {joint.number: joint.name for joint in self._joints.values()}
        value["links"] = {names.get(number, str(number)): item for number, item in value["links"].items()}
        value["ports"] = {
            f"{self._ports[number].node.name}:{self._ports[number].name}" if number in self._ports else str(number): item
            for number, item in value["ports"].items()
        }
        return {"backend": self.backend.name, "notes": list(self.notes), **value}

    def reset_stats(self) -> None:
        """Start all statistics anew, for instance when set-up is over: lateness and the counters of links and ports.

        Frames that are in flight at that moment are counted when they are delivered, not as offered.
        """
        self.backend.reset()
        if self._userspace is not None and self._userspace is not self.backend:
            self._userspace.reset()

    def check(self) -> None:
        """Raise LinkError when the links no longer work."""
        if self._userspace is not None:
            self._userspace.check()

    def close(self) -> None:
        """End the backends and release the namespace. Interfaces that are left vanish with it."""
        with self._lock:
            if self.closed:
                return
            self.closed = True
            if self._userspace is not None:
                self._userspace.close()
            os.close(self.namespace)


def _known(name: str, what: str) -> str:
    if name not in BACKENDS:
        raise LinkError(f"{what} = {name!r}: must be {' or '.join(BACKENDS)}, or left out to choose")
    return name


def choose_backend() -> tuple[str, str]:
    """The backend that ROAMLAB_LINKS names, or netem where it works, else userspace; and the reason.

    Raises LinkError when the variable names an unknown backend, or netem where it does not work.
    """
    wanted = os.environ.get(BACKEND_VARIABLE, "")
    if wanted:
        _known(wanted, BACKEND_VARIABLE)
    if wanted == "userspace":
        return wanted, f"{BACKEND_VARIABLE} asks for it"
    missing = netem.probe()
    if missing is None:
        return "netem", f"{BACKEND_VARIABLE} asks for it" if wanted else "the kernel has all it needs"
    if wanted:
        raise LinkError(f"{BACKEND_VARIABLE}=netem: does not work here: {missing}")
    return "userspace", f"netem does not work here: {missing}"


_wire: Wire | None = None
_owner = 0
_wire_lock = threading.Lock()


def wire() -> Wire:
    """The wire of this process, started when first needed."""
    global _wire, _owner
    with _wire_lock:
        # A forked child must not share the control socket of its parent.
        if _wire is None or _wire.closed or _owner != os.getpid():
            _wire = Wire()
            _owner = os.getpid()
            atexit.register(_wire.close)
        return _wire
