"""Executed inside a capsule by test_events.py: makes every kind of event happen and looks at the kernel for its effect.

Prints one JSON line per check: {"check": name, "ok": true} or the reason why not.
"""

import json
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from experiments import events, mechanisms
from experiments.clock import now_ns
from experiments.errors import RoamlabError
from experiments.model import Event
from experiments.testbed import Testbed
from topologies.waiting import wait_until

WITHIN_S = 15.0
ECHO = """
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(("0.0.0.0", 7777))
print("ready", flush=True)
while True:
    data, peer = s.recvfrom(100); s.sendto(f"{peer[0]} {peer[1]}".encode(), peer)
"""
ASK = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind((sys.argv[1], 5555)); s.settimeout(2)
s.sendto(b"?", (sys.argv[2], 7777)); print(s.recv(100).decode())
"""


class Checks:
    """One network, one method per kind of event."""

    def __init__(self, bed: Testbed) -> None:
        self.bed = bed
        self.context = events.Context(bed, mechanisms.make("tcp"))

    def event(self, kind: str, target: str, **parameters: Any) -> dict[str, Any]:
        event = Event(at_s=0.0, kind=kind, target=target, parameters=parameters)
        self.bed.prepare_attachments(events.attachments((event,)))
        return events.perform(event, self.context, now_ns())

    def flags(self, interface: str) -> list[str]:
        found = json.loads(self.bed.run(self.bed.owner_of(interface), ["ip", "-j", "link", "show", interface]))
        return list(found[0]["flags"])

    def pings(self, interface: str, family: int = 4, count: int = 1) -> bool:
        source, target = self.bed.address_on(interface, family), self.bed.cn_address(family)
        argv = ["ping", "-c", str(count), "-i", "0.2", "-W", "1", "-I", source, target]
        return "bytes from" in self.bed.run(self.bed.mn, argv, check=False)

    def rtt_ms(self, interface: str) -> float:
        target = self.bed.cn_address(4)
        out = self.bed.run(self.bed.mn, ["ping", "-c", "3", "-i", "0.2", "-I", self.bed.address_on(interface, 4), target])
        return float(out.rsplit(" = ", 1)[1].split("/")[0])

    def until(self, condition: Callable[[], object], what: str) -> None:
        wait_until(lambda: bool(condition()), WITHIN_S, what)

    def has_address(self, interface: str, prefix: str) -> bool:
        return any(a.startswith(prefix) for a in self.bed.addresses(self.bed.mn).get(interface, []))

    # -- the checks -----------------------------------------------------------------------------------------------

    def carrier(self) -> None:
        self.event("carrier-loss", "mn-lte")
        assert "NO-CARRIER" in self.flags("mn-lte")
        assert "UP" in self.flags("mn-lte"), "administratively up"
        assert self.has_address("mn-lte", "10.2."), "addresses stay"
        assert "mn-wlan" not in self.flags("mn-wlan")
        self.event("carrier-return", "mn-lte")
        self.until(lambda: "LOWER_UP" in self.flags("mn-lte"), "carrier")
        self.until(lambda: self.pings("mn-lte"), "ping after the carrier's return")

    def interface(self) -> None:
        before = self.bed.link_of("mn-lte").stats()["back"]
        self.event("interface-down", "mn-lte")
        assert "UP" not in self.flags("mn-lte")
        router = self.bed.node(self.bed.path_of("mn-lte").access_router)
        self.bed.run(router, ["ping", "-c", "2", "-i", "0.2", "-W", "1", "10.2.0.101"], check=False)
        after = self.bed.link_of("mn-lte").stats()["back"]
        assert after["dropped_carrier"] > before["dropped_carrier"], "what is sent to an interface that is down is lost there"
        assert after["dropped_send"] == 0, "and not a loss of the emulation"
        assert "via 10.2.0.1 " not in self.bed.run(self.bed.mn, ["ip", "route", "show", "table", "all"])
        self.event("interface-up", "mn-lte")
        self.until(lambda: self.has_address("mn-lte", "10.2.") and self.pings("mn-lte"), "ping after the interface is up")
        self.until(lambda: self.has_address("mn-lte", "2001:db8:2:") and self.pings("mn-lte", 6), "IPv6 after up")

    def blackhole(self) -> None:
        self.event("blackhole-on", "mn-lte")
        assert "LOWER_UP" in self.flags("mn-lte")
        assert not self.pings("mn-lte")
        self.event("blackhole-off", "mn-lte")
        assert self.pings("mn-lte")
        self.event("blackhole-on", "mn-lte", direction="back")
        assert not self.pings("mn-lte")
        self.event("blackhole-off", "mn-lte")
        assert self.pings("mn-lte")

    def address(self) -> None:
        before = set(self.bed.addresses(self.bed.mn)["mn-lte"])
        self.event("address-remove", "mn-lte")
        assert not set(self.bed.addresses(self.bed.mn).get("mn-lte", [])) & before
        self.event("address-assign", "mn-lte")
        self.until(lambda: len(self.bed.addresses(self.bed.mn).get("mn-lte", [])) >= 2, "new addresses")
        assert not set(self.bed.addresses(self.bed.mn)["mn-lte"]) & before, "the new addresses are others"
        self.until(lambda: self.pings("mn-lte") and self.pings("mn-lte", 6), "ping from the new addresses")

    def presence(self) -> None:
        self.event("interface-vanishes", "mn-lte")
        assert "mn-lte" not in self.bed.run(self.bed.mn, ["ip", "-br", "link"])
        self.event("interface-appears", "mn-lte")
        self.until(lambda: self.has_address("mn-lte", "10.2.") and self.pings("mn-lte"), "ping over the new interface")

    def reattach(self) -> None:
        for point, prefix in (("ar2/ap2", "10.2.0."), ("hr1/ap1", "10.33.0."), ("ar1/ap1", "10.1.0.")):
            self.event("reattach", "mn-wlan", to=point)
            router = self.bed.node(point.split("/")[0])
            station = [self.bed.topo.mac("mn-wlan"), "dev", self.bed.topo.attachment_points[point].port]
            known = [line.split() for line in self.bed.run(router, ["bridge", "fdb", "show"]).splitlines()]
            assert [row for row in known if row[:3] == station and not {"permanent", "static"} & set(row)], known
            self.until(lambda prefix=prefix: self.has_address("mn-wlan", prefix), f"address at {point}")
            self.until(lambda: self.pings("mn-wlan"), f"ping at {point}")
            assert len([a for a in self.bed.addresses(self.bed.mn)["mn-wlan"] if "." in a]) == 1, "the old address is gone"

    def cn_moves(self) -> None:
        """The events of a mobile CN's interface act on the CN."""
        for point, prefix in (("hr1/ap2", "10.33.0."), ("ar4/ap1", "10.4.0.")):
            self.event("reattach", "cn-eth", to=point)
            self.until(lambda prefix=prefix: self.bed.cn_address(4).startswith(prefix), f"the CN's address at {point}")
            self.until(lambda: self.pings("mn-wlan"), f"ping to the CN at {point}")
        self.event("interface-down", "cn-eth")
        assert "UP" not in self.flags("cn-eth")
        assert "UP" in self.flags("mn-wlan")
        self.event("interface-up", "cn-eth")
        self.until(lambda: self.pings("mn-wlan"), "ping to the CN that is up again")

    def l2_roam(self) -> None:
        before = self.bed.addresses(self.bed.mn)["mn-wlan"]
        for point in ("ar1/ap2", "ar1/ap1"):
            self.event("l2-roam", "mn-wlan", to=point)
            self.until(lambda: self.pings("mn-wlan"), f"ping at {point}")
            assert set(before) <= set(self.bed.addresses(self.bed.mn)["mn-wlan"]), "same subnet, same addresses"

    def renumber(self) -> None:
        before = self.bed.address_on("mn-lte", 6)
        self.event("renumber", "ar2")
        self.until(lambda: self.bed.address_on("mn-lte", 6) != before, "another preferred IPv6 address")
        self.until(lambda: not self.has_address("mn-lte", "10.2."), "another IPv4 address")
        self.until(lambda: self.pings("mn-lte") and self.pings("mn-lte", 6), "ping from the new prefix")

    def nat(self) -> None:
        server = self.bed.spawn(self.bed.cn, [sys.executable, "-c", ECHO], "echo")
        self.until(lambda: "ready" in server.log_path.read_text(), "echo server")

        def outside() -> str:
            ask = [sys.executable, "-c", ASK, self.bed.address_on("mn-dsl", 4), self.bed.cn_address(4)]
            return self.bed.run(self.bed.mn, ask).strip()

        first = outside()
        assert not first.startswith("10.3.0."), "the CN sees the translator, not the MN"
        assert outside() == first, "a mapping lasts"
        self.event("nat-rebind", "mb3")
        assert outside() != first

    def profile(self) -> None:
        assert self.rtt_ms("mn-wlan") < 60
        self.event("profile-change", "mn-wlan", delay_ms=60)
        assert 120 <= self.rtt_ms("mn-wlan") < 200
        self.event("profile-change", "mn-wlan", profile="wlan")
        assert 30 <= self.rtt_ms("mn-wlan") < 60

    def signal(self) -> None:
        assert "4 Mbit/s" in self.event("signal-strength", "mn-wlan", dbm=-78)["note"]
        self.event("signal-strength", "mn-wlan", dbm=-90)
        assert "NO-CARRIER" in self.flags("mn-wlan")
        assert "20 Mbit/s" in self.event("signal-strength", "mn-wlan", dbm=-50)["note"]
        self.until(lambda: self.pings("mn-wlan"), "ping with a good signal")

    def crash(self) -> None:
        server = self.bed.spawn(self.bed.node("ha1"), [sys.executable, "-c", ECHO], "ha-server")
        self.until(lambda: "ready" in server.log_path.read_text(), "server on ha1")
        reaches = ["ping", "-c", "1", "-W", "1", "10.33.0.2"]
        assert "bytes from" in self.bed.run(self.bed.cn, reaches)
        self.event("node-crash", "ha1")
        self.until(lambda: not server.running(), "end of the server")
        assert "bytes from" not in self.bed.run(self.bed.cn, reaches, check=False)
        self.event("node-restart", "ha1")
        assert "bytes from" in self.bed.run(self.bed.cn, reaches)
        self.event("node-crash", "mn")
        assert not self.pings("mn-wlan")
        self.event("node-restart", "mn")
        self.until(lambda: self.has_address("mn-wlan", "10.1.") and self.pings("mn-wlan"), "ping after the MN's restart")

    def mute(self) -> None:
        ends = ["ping", "-c", "1", "-W", "1", "10.33.0.2"]
        self.event("node-mute", "hr1")
        assert "bytes from" not in self.bed.run(self.bed.cn, ends, check=False)
        self.event("node-unmute", "hr1")
        assert "bytes from" in self.bed.run(self.bed.cn, ends)

    def prefix(self) -> None:
        self.event("prefix-lost", "core", prefix="10.1.0.0/24")
        assert not self.pings("mn-wlan")
        assert self.pings("mn-lte"), "other prefixes are reached"
        self.event("prefix-back", "core", prefix="10.1.0.0/24")
        assert self.pings("mn-wlan")

    def prefer(self) -> None:
        self.event("prefer", "mn-lte", over="mn-wlan")  # plain TCP has nothing to tell anybody

    def break_before_make(self) -> None:
        told: list[tuple[str, str]] = []
        mechanism = self.context.mechanism
        said = ""
        try:
            self.event("break-before-make", "mn-wlan", to="mn-lte")
        except RoamlabError as error:
            said = str(error)
        assert "has no command" in said  # plain TCP cannot give up a path for another
        mechanism.break_before_make = lambda _bed, old, new: told.append((old, new))  # type: ignore[method-assign]
        self.event("break-before-make", "mn-wlan", to="mn-lte")
        assert told == [("mn-wlan", "mn-lte")]

    def planned_handover(self) -> None:
        timeline = events.expand(
            (Event(at_s=0.0, kind="planned-handover", target="mn-lte", parameters={"to": "mn-wlan", "overlap_s": 0.1}),)
        )
        for entry in timeline:
            events.perform(entry, self.context, now_ns())
        assert "UP" not in self.flags("mn-lte")
        self.event("interface-up", "mn-lte")
        self.until(lambda: self.has_address("mn-lte", "2001:") and self.has_address("mn-lte", "10."), "addresses again")


CHECKS = {
    "carrier": ("carrier-loss", "carrier-return"),
    "interface": ("interface-down", "interface-up"),
    "blackhole": ("blackhole-on", "blackhole-off"),
    "address": ("address-remove", "address-assign"),
    "presence": ("interface-appears", "interface-vanishes"),
    "reattach": ("reattach",),
    "cn_moves": ("reattach", "interface-down", "interface-up"),
    "l2_roam": ("l2-roam",),
    "nat": ("nat-rebind",),
    "profile": ("profile-change",),
    "signal": ("signal-strength",),
    "crash": ("node-crash", "node-restart"),
    "mute": ("node-mute", "node-unmute"),
    "prefix": ("prefix-lost", "prefix-back"),
    "prefer": ("prefer",),
    "break_before_make": ("break-before-make",),
    "planned_handover": ("planned-handover",),
    "renumber": ("renumber",),
}
"""Method -> the kinds of event that it covers."""


def main() -> None:
    folder = Path(tempfile.mkdtemp())
    for part in ("logs", "events", "workload"):
        (folder / part).mkdir()
    access = [{"name": "wlan"}, {"name": "lte"}, {"name": "dsl", "middlebox": "nat"}]
    bed = Testbed("mobile", {"access": access, "homes": 1, "cn_access": [{"name": "eth", "profile": "lan"}]}, folder)
    bed.start()
    checks = Checks(bed)
    for name in sys.argv[1:] or CHECKS:
        try:
            getattr(checks, name)()
        except Exception:  # whatever is wrong is the result of the check
            print(json.dumps({"check": name, "ok": False, "why": traceback.format_exc()}), flush=True)
        else:
            print(json.dumps({"check": name, "ok": True}), flush=True)


if __name__ == "__main__":
    main()
