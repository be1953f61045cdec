"""The kernel backend: tc moves frames between the outer ends and netem shapes them.

Per link there is one more veth pair in the wire, the hop (`fN`, `bN`), because limiter and delay line must be two
queueing disciplines in a row: the limiter's limit then counts only packets that wait for the rate.

    forward:  a ingress -> fN egress [netem rate, limit] -> bN ingress -> b egress [netem delay, loss, ...]
    back:     b ingress -> bN egress [netem rate, limit] -> fN ingress -> a egress [netem delay, loss, ...]

`netem rate` is a virtual clock like the userspace shaper, without the burst that a token bucket must have. With a rate
set netem never sends a frame before the one ahead of it, so the delay line gets a very high rate: this is
what keeps jitter, and a delay that becomes shorter, from reordering.
"""

import json
import os
import shutil
import subprocess
import threading
from typing import Any

from topologies.links.backend import BACK, BOTH, FORWARD
from topologies.links.interfaces import add_pair, delete_interface, set_up
from topologies.links.netns import LinkError, inside, new_namespace
from topologies.profiles import GilbertElliott, LinkProfile

UNLIMITED_RATE = "100gbit"
DELAY_LINE_PACKETS = 40_000
"""Bound of the frames in flight; the userspace backend's bound holds as many full frames."""

UNLIMITED_QUEUE_PACKETS = 10_000


def _percent(share: float) -> str:
    return f"{100 * share:.7f}%"


def limiter(profile: LinkProfile) -> str:
    """Arguments of the rate limiter: rate and queue."""
    limit = profile.queue_limit
    if profile.rate_mbit is None or limit is None:
        return f"netem limit {UNLIMITED_QUEUE_PACKETS} rate {UNLIMITED_RATE}"
    # One more than may wait: netem counts the frame in transmission too.
    return f"netem limit {limit + 1} rate {round(profile.rate_mbit * 1e6)}bit"


def delay_line(profile: LinkProfile) -> str:
    """Arguments of the delay line: delay, jitter, loss, duplication, reordering."""
    words = [f"netem limit {DELAY_LINE_PACKETS} delay {round(profile.delay_ms * 1000)}us"]
    if profile.jitter_ms:
        words.append(f"{round(profile.jitter_ms * 1000)}us")
    if profile.burst is not None:
        burst = profile.burst
        words.append(
            f"loss gemodel {_percent(burst.p)} {_percent(burst.r)} {_percent(burst.loss_bad)} {_percent(burst.loss_good)}"
        )
    elif profile.loss:
        words.append(f"loss random {_percent(profile.loss)}")
    if profile.duplicate:
        words.append(f"duplicate {_percent(profile.duplicate)}")
    if profile.reorder:
        words.append(f"reorder {_percent(profile.reorder)}")
    words.append(f"rate {UNLIMITED_RATE}")
    return " ".join(words)


def shape(verb: str, hop: str, far: str | None, profile: LinkProfile) -> list[str]:
    """Commands that put a profile on one direction; `verb` is add or change."""
    commands = [f"qdisc {verb} dev {hop} root handle 1: {limiter(profile)}"]
    if far is not None:
        commands.append(f"qdisc {verb} dev {far} root handle 1: {delay_line(profile)}")
    return commands


def unshape(hop: str, far: str | None) -> list[str]:
    """Commands that remove both disciplines of a direction and the frames in them."""
    return [f"qdisc del dev {device} root" for device in (hop, far) if device is not None]


def redirect(from_device: str, to_device: str) -> str:
    """Command that sends every frame arriving at one device out of another. u32 is in more kernels than matchall."""
    return (
        f"filter add dev {from_device} ingress pref 1 protocol all u32 match u32 0 0 "
        f"action mirred egress redirect dev {to_device}"
    )


def unredirect(device: str) -> str:
    """Command that ends a redirection: frames go to the wire's own stack, which has no address and drops them."""
    return f"filter del dev {device} ingress"


class _Way:
    """One direction of a link: its hop device, the profile, and what is to be added to the kernel's counters."""

    def __init__(self, hop: str, profile: LinkProfile) -> None:
        self.hop = hop
        self.profile = profile
        self.blackhole = False
        self.counted = dict.fromkeys(_COUNTERS, 0)


class _NetemLink:
    def __init__(self, forward: _Way, back: _Way) -> None:
        self.ways = {FORWARD: forward, BACK: back}
        self.ends: tuple[int | None, int | None] = (None, None)

    def device(self, direction: str, far: bool) -> str | None:
        """The outer end at which a direction begins (or, `far`, ends)."""
        port = self.ends[(direction == FORWARD) == far]
        return None if port is None else f"p{port}"


_COUNTERS = ("offered", "offered_bytes", "dropped_queue", "dropped_loss", "delivered", "delivered_bytes")


class NetemBackend:
    """Links by tc in the wire namespace. Thread safe."""

    name = "netem"

    def __init__(self, namespace: int) -> None:
        self._namespace = namespace
        self._links: dict[int, _NetemLink] = {}
        self._lock = threading.RLock()

    def _tc(self, commands: list[str], tolerant: bool = False) -> None:
        if commands:
            run_tc(self._namespace, commands, tolerant)

    def add_port(self, port: int, outer: str) -> None:
        """Let frames that arrive at an outer end be redirected."""
        self._tc([f"qdisc add dev {outer} clsact"])

    def remove_port(self, port: int) -> None:
        """Take a port out of its link. Its device may have vanished already."""
        with self._lock:
            for number, link in self._links.items():
                if port in link.ends:
                    self._clean(number)
                    a, b = link.ends
                    link.ends = (None if a == port else a, None if b == port else b)
            with inside(self._namespace):
                exists = os.path.exists(f"/proc/sys/net/ipv4/conf/p{port}")
            if exists:
                self._tc([f"qdisc del dev p{port} clsact"])

    def add_link(self, link: int, forward: LinkProfile, back: LinkProfile, seed: str) -> None:
        """Make the hop of a link. The kernel draws its own random numbers: `seed` has no effect."""
        for profile in (forward, back):
            _refuse_trace(profile)
        one, other = f"f{link}", f"b{link}"
        add_pair(self._namespace, one, self._namespace, other, None)
        with self._lock:
            self._links[link] = _NetemLink(_Way(one, forward), _Way(other, back))
        self._tc([f"qdisc add dev {device} clsact" for device in (one, other)])
        for direction, profile in ((FORWARD, forward), (BACK, back)):
            self._tc(shape("add", self._links[link].ways[direction].hop, None, profile))

    def remove_link(self, link: int) -> None:
        """Remove the hop of a link and what is on its ends."""
        with self._lock:
            self.attach(link, None, None)
            delete_interface(self._namespace, f"f{link}")
            del self._links[link]

    def attach(self, link: int, a: int | None, b: int | None) -> None:
        """Make `a` and `b` the ends of a link."""
        with self._lock:
            for number, other in self._links.items():
                taken = {port for port in other.ends if port is not None} & {a, b}
                if taken and number != link:
                    self._clean(number)
                    first, second = other.ends
                    other.ends = (None if first in taken else first, None if second in taken else second)
            self._clean(link)
            self._links[link].ends = (a, b)
            self._build(link)

    def _clean(self, number: int) -> None:
        """Stop a link: no redirections, nothing in flight. What is not there, or gone with its device, is fine."""
        link = self._links[number]
        self._count(number, BOTH)
        commands = []
        for direction, way in link.ways.items():
            near, far = link.device(direction, False), link.device(direction, True)
            commands += [unredirect(device) for device in (near, way.hop) if device is not None]
            commands += unshape(way.hop, far)
        self._tc(commands, tolerant=True)
        self._tc([command for way in link.ways.values() for command in shape("add", way.hop, None, way.profile)])

    def _build(self, number: int) -> None:
        """Put profiles and redirections on a link that has two ends; without them it stays as it is."""
        link = self._links[number]
        if None in link.ends:
            return
        commands = []
        for direction, way in link.ways.items():
            near, far = link.device(direction, False), link.device(direction, True)
            hop_exit = link.ways[BACK if direction == FORWARD else FORWARD].hop
            assert near is not None
            assert far is not None
            commands.append(f"qdisc add dev {far} root handle 1: {delay_line(way.profile)}")
            commands.append(redirect(hop_exit, far))
            if not way.blackhole:
                commands.append(redirect(near, way.hop))
        self._tc(commands)

    def set_profile(self, link: int, direction: str, profile: LinkProfile) -> None:
        """Change the profile; what is queued stays."""
        _refuse_trace(profile)
        with self._lock:
            known = self._links[link]
            for name in _names(direction):
                known.ways[name].profile = profile
                far = known.device(name, True) if None not in known.ends else None
                self._tc(shape("change", known.ways[name].hop, far, profile))

    def set_blackhole(self, link: int, direction: str, on: bool) -> None:
        """Take away (or give back) the redirection into a direction, and drop what is in it."""
        with self._lock:
            known = self._links[link]
            for name in _names(direction):
                way = known.ways[name]
                near = known.device(name, False)
                if way.blackhole != on and None not in known.ends and near is not None:
                    self._tc([unredirect(near) if on else redirect(near, way.hop)])
                way.blackhole = on
                if on:
                    self._flush(link, name)

    def flush(self, link: int) -> None:
        """Drop what is in flight."""
        with self._lock:
            for name in (FORWARD, BACK):
                self._flush(link, name)

    def _flush(self, number: int, direction: str) -> None:
        link = self._links[number]
        way = link.ways[direction]
        far = link.device(direction, True) if None not in link.ends else None
        self._count(number, direction)
        self._tc(unshape(way.hop, far) + shape("add", way.hop, far, way.profile))

    def _count(self, number: int, direction: str) -> None:
        """Keep the counters of disciplines that are about to be deleted; those that stay would be counted twice."""
        link = self._links[number]
        values = self._read(link)
        for name in _names(direction):
            link.ways[name].counted = values[name]

    def _read(self, link: _NetemLink) -> dict[str, dict[str, int]]:
        with inside(self._namespace):
            done = subprocess.run(["tc", "-s", "-j", "qdisc", "show"], capture_output=True, text=True, check=False)
        roots = {item["dev"]: item for item in json.loads(done.stdout or "[]") if item.get("root")}
        values = {}
        for direction, way in link.ways.items():
            queue = roots.get(way.hop, {})
            line = roots.get(link.device(direction, True) or "", {})
            fresh = {
                "offered": queue.get("packets", 0) + queue.get("drops", 0) + queue.get("qlen", 0),
                "offered_bytes": queue.get("bytes", 0) + queue.get("backlog", 0),
                "dropped_queue": queue.get("drops", 0),
                "dropped_loss": line.get("drops", 0),
                "delivered": line.get("packets", 0),
                "delivered_bytes": line.get("bytes", 0),
            }
            values[direction] = {name: way.counted[name] + fresh[name] for name in _COUNTERS}
        return values

    def stats(self) -> dict[str, Any]:
        """Counters of all links. The kernel keeps no record of lateness: it is reported as None."""
        with self._lock:
            links = {number: self._read(link) for number, link in self._links.items()}
        return {"links": links, "ports": {}, "late_p50_us": None, "late_p99_us": None, "late_max_us": None}

    def reset(self) -> None:
        """Start all counters anew; the disciplines of the kernel go on counting."""
        with self._lock:
            for link in self._links.values():
                for direction, values in self._read(link).items():
                    way = link.ways[direction]
                    way.counted = {name: way.counted[name] - values[name] for name in _COUNTERS}

    def check(self) -> None:
        """The kernel does not die."""

    def close(self) -> None:
        """Everything vanishes with the namespace."""


def _names(direction: str) -> tuple[str, ...]:
    return (FORWARD, BACK) if direction == BOTH else (direction,)


def _refuse_trace(profile: LinkProfile) -> None:
    if profile.trace is not None:
        raise LinkError(
            f"trace {profile.trace.file}: a link made with netem cannot play it; "
            "give the link a trace from the start, or set ROAMLAB_LINKS=userspace"
        )


def run_tc(namespace: int, commands: list[str], tolerant: bool = False) -> None:
    """Run tc commands in a namespace. Raises LinkError with the command that failed and tc's own words.

    `tolerant`: go on after a command that fails and raise nothing.
    """
    program = shutil.which("tc")
    if program is None:
        raise LinkError("tc is not installed (Debian package iproute2)")
    with inside(namespace):
        # A child process starts in the namespace of the thread that forks it.
        done = subprocess.run(
            [program, *(["-force"] if tolerant else []), "-batch", "-"],
            input="\n".join(commands) + "\n",
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode and not tolerant:
        words = " ".join(done.stderr.split())
        number = words.rpartition("Command failed -:")[2]
        failed = commands[int(number) - 1] if number.isdigit() and int(number) <= len(commands) else commands[0]
        raise LinkError(f"tc {failed}: {words}")


def probe() -> str | None:
    """None when this kernel and this user can run the backend, else the reason. Leaves nothing behind."""
    try:
        namespace = new_namespace()
    except LinkError as error:
        return str(error)
    try:
        add_pair(namespace, "p1", namespace, "p2", None)
        with inside(namespace):
            set_up("p2", True)
        everything = LinkProfile(
            rate_mbit=1, delay_ms=2, jitter_ms=1, burst=GilbertElliott(p=0.1, r=0.5), reorder=0.1, duplicate=0.1
        )
        run_tc(
            namespace,
            [
                *shape("add", "p1", "p2", everything),
                *(f"qdisc add dev {device} clsact" for device in ("p1", "p2")),
                redirect("p1", "p2"),
                *shape("change", "p1", "p2", LinkProfile()),
            ],
        )
    except LinkError as error:
        return str(error)
    finally:
        os.close(namespace)
    return None
