"""What a backend of the wire does, and which one this machine gets."""

from typing import Any, Protocol

from topologies.profiles import LinkProfile

FORWARD, BACK, BOTH = "forward", "back", "both"
DIRECTIONS = (FORWARD, BACK, BOTH)


class Backend(Protocol):
    """Joins ports by links and applies profiles. Every call returns after its effect. Numbers are the caller's."""

    name: str

    def add_port(self, port: int, outer: str) -> None:
        """Serve the outer end of a veth pair."""

    def remove_port(self, port: int) -> None:
        """Stop serving it; a link that uses it is left with one end."""

    def add_link(self, link: int, forward: LinkProfile, back: LinkProfile, seed: str) -> None:
        """Make a link without ends."""

    def remove_link(self, link: int) -> None:
        """Forget a link."""

    def attach(self, link: int, a: int | None, b: int | None) -> None:
        """Make `a` and `b` the ends of a link (forward: a to b), taking them from other links. Flushes."""

    def set_profile(self, link: int, direction: str, profile: LinkProfile) -> None:
        """Change the profile; frames in flight stay and keep their order."""

    def set_blackhole(self, link: int, direction: str, on: bool) -> None:
        """Deliver nothing, frames in flight included, until switched off."""

    def flush(self, link: int) -> None:
        """Drop what is in flight."""

    def stats(self) -> dict[str, Any]:
        """{"links": {number: {"forward": {...}, "back": {...}}}, "ports": {...}, "late_p50_us", ...}."""

    def reset(self) -> None:
        """Start lateness and all counters anew."""

    def check(self) -> None:
        """Raise LinkError when the backend no longer works."""

    def close(self) -> None:
        """Release everything."""
