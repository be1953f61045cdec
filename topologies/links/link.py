"""EmulatedLink: a Mininet link whose frames pass the wire, with run-time changes."""

from typing import Any

from mininet.link import Link

from topologies.links.backend import BOTH, DIRECTIONS, FORWARD
from topologies.links.netns import LinkError
from topologies.links.wire import NodeLike, Port, wire
from topologies.profiles import ProfileLike
from topologies.profiles import profile as to_profile


class EmulatedLink(Link):
    """Link between two Mininet nodes with a profile for each direction.

    Use: `addLink(a, b, cls=EmulatedLink, profile="wlan", intfName1="mn-wlan")`. A profile is a LinkProfile, the name
    of a preset, a dict of fields, or None: frames pass the wire unshaped (for a plain veth pair use Mininet's
    Link). `profile_back` (node2 to node1) defaults to `profile`. The same `seed` gives the same losses where a backend
    draws them from it (userspace).
    All changes have taken effect when the call returns.
    """

    intf1: Any
    intf2: Any

    def __init__(
        self,
        node1: NodeLike,
        node2: NodeLike,
        *arguments: Any,
        profile: ProfileLike = None,
        profile_back: ProfileLike = None,
        seed: int | str = 0,
        **parameters: Any,
    ) -> None:
        self.profile = to_profile(profile)
        self.profile_back = self.profile if profile_back is None else to_profile(profile_back)
        self.seed = seed
        self._wire = wire()
        super().__init__(node1, node2, *arguments, **parameters)

    def makeIntfPair(
        self,
        name1: str,
        name2: str,
        mac1: str | None = None,
        mac2: str | None = None,
        node1: Any = None,
        node2: Any = None,
        deleteIntfs: bool = True,
    ) -> None:
        """Called by Mininet's Link: makes two ports and joins them."""
        if node1 is None or node2 is None:
            raise LinkError("EmulatedLink needs fast=True: its interfaces are made inside the nodes")
        self.port1 = self._wire.add_port(node1, name1, mac1)
        try:
            self.port2 = self._wire.add_port(node2, name2, mac2)
        except LinkError:
            self._wire.remove_port(self.port1)
            raise
        seed = f"{self.seed}/{node1.name}:{name1}/{node2.name}:{name2}"
        try:
            self._joint = self._wire.add_link(f"{name1}<->{name2}", self.profile, self.profile_back, seed)
            self._joined_to: Port | None = self.port2
            self._join()
        except LinkError:
            self._wire.remove_port(self.port1)
            self._wire.remove_port(self.port2)
            raise

    def _join(self) -> None:
        self._wire.attach(self._joint, self.port1, self._joined_to)

    @property
    def joined_to(self) -> Port | None:
        """The port that node1's end is joined to: `port2` until `attach` changes it."""
        return self._joined_to

    def set_profile(self, profile: ProfileLike, direction: str = BOTH) -> None:
        """Change the profile of a direction. Frames in flight stay and are not overtaken."""
        new = to_profile(profile)
        self._check_direction(direction)
        self._joint.backend.set_profile(self._joint.number, direction, new)
        if direction in (FORWARD, BOTH):
            self.profile = new
        if direction != FORWARD:
            self.profile_back = new

    def set_blackhole(self, on: bool, direction: str = BOTH) -> None:
        """Lose every frame silently, those in flight included; interfaces and carrier do not notice."""
        self._check_direction(direction)
        self._joint.backend.set_blackhole(self._joint.number, direction, on)

    def set_carrier(self, up: bool, end: int | None = None) -> None:
        """Take or give the carrier of end 1 (node1's interface), 2 (the port it is joined to) or both (None).

        The interfaces stay administratively up, their addresses and routes stay. What is in flight is lost.
        """
        if end not in (1, 2, None):
            raise LinkError(f"{self}: end {end!r}: must be 1, 2 or None for both")
        far = self._joined_to
        if end == 2 and far is None:
            raise LinkError(f"{self}: joined to nothing: there is no end 2")
        if end != 2:
            self.port1.set_carrier(up)
        if end != 1 and far is not None:
            far.set_carrier(up)
        if not up:
            self._joint.backend.flush(self._joint.number)

    def set_present(self, on: bool) -> None:
        """Remove node1's interface (its addresses and routes vanish) or make it anew: same name and MAC, set up."""
        if on and not self.port1.present:
            self.port1.create()
            self._join()
        elif not on:
            self.port1.delete()

    def attach(self, port: Port | None) -> None:
        """Join node1's end to another port (None: to nothing); the profile goes with it.

        A port that belongs to another link is taken from it. What is in flight is lost. `attach(link.port2)`
        goes back.
        """
        if port is not None and not port.present:
            raise LinkError(f"{self}: cannot be attached to {port}: its interface is not present")
        if port is self.port1:
            raise LinkError(f"{self}: cannot be attached to its own end {port}")
        self._joined_to = port
        self._join()

    def stats(self) -> dict[str, Any]:
        """Counters since the last `Wire.reset_stats`: "forward" and "back" with offered, delivered, dropped_*, lateness."""
        return self._wire.link_stats(self._joint)

    def delete(self) -> None:
        """Delete both interfaces (Mininet calls this)."""
        self._wire.remove_link(self._joint)
        for intf, port in ((self.intf1, self.port1), (self.intf2, self.port2)):
            self._wire.remove_port(port)
            if intf is not None:
                intf.node.delIntf(intf)
                intf.link = None
        self.intf1 = self.intf2 = None

    def _check_direction(self, direction: str) -> None:
        if direction not in DIRECTIONS:
            raise LinkError(f"{self}: direction {direction!r}: must be one of {', '.join(DIRECTIONS)}")

    def describe(self) -> str:
        """The profiles as a label, both when they differ."""
        if self.profile == self.profile_back:
            return self.profile.describe()
        return f"{self.profile.describe()} / {self.profile_back.describe()}"
