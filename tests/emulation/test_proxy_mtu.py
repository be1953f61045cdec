"""Packet sizes behind the proxy: a network becomes narrow, or the proxy itself says so to make TCP send again at once.

What this host's TCP is told about its path holds for its own segments; those that the proxy makes of them are larger, and the
kernel must not drop these for it.
"""

import json
import sys
import tempfile
from pathlib import Path

import pytest

from tests.emulation.proxy_lab import Lab, ProxyAgent, mobile, opened, server
from tests.emulation.test_topologies import run_check
from tests.pcaps import applications as app
from topologies.waiting import wait_until

pytestmark = pytest.mark.emulation
PORT = 5001
BYTES = 200_000


def connected(lab: Lab, family: int, nudge: bool) -> tuple[ProxyAgent, app.Pair]:
    """A connection between the proxies of both hosts, that has carried data."""
    config = {"filter": [{"remote_ports": [PORT]}, {"local_ports": [PORT]}], "proxy": {"nudge": nudge}}
    mine, _other = (lab.agent(node, config) for node in ("mn", "cn"))
    pair = opened(lab, "mn", "cn", server(family), port=PORT, mptcp=(False, False), source=mobile(family, 0))
    assert app.exchange(pair, up=BYTES, down=BYTES)
    return mine, pair


def used(agent: ProxyAgent) -> str:
    """The address that data leaves from."""
    return next((row["local"].split()[0] for row in agent.connections()[0]["subflows"] if row["active"]), "")


def own_routes(lab: Lab, node: str, family: int) -> int:
    """Connections that have a route of their own."""
    rules = json.loads(lab.command(node, "ip", "-j", f"-{family}", "rule"))
    return sum(rule["priority"] == 499 for rule in rules)


def check_narrow(family: int) -> None:
    """The router's link to the server becomes narrow while the first path is used, and narrower while the second one is."""
    with tempfile.TemporaryDirectory() as folder, Lab(Path(folder)).running() as lab:
        mine, pair = connected(lab, family, nudge=False)
        for path, mtu in ((0, 1400), (1, 1340), (0, 1340)):
            mine.ask("handover", address=mobile(family, path))
            wait_until(lambda path=path: used(mine) == mobile(family, path), 10.0, "the handover")  # type: ignore[misc]
            # Only packets to the server find it narrow: what veth cannot take in it loses without a word.
            lab.command("gw", "ip", "link", "set", "gw-cn", "mtu", str(mtu))
            assert app.exchange(pair, up=BYTES, down=1000), [side.end for side in pair.sides]
        told = {(row["subflow"], row["mtu"]) for row in mine.events("too-big")}
        assert told == {(0, 1400), (1, 1340)}, told
        assert own_routes(lab, "mn", family) == 1
        app.close(pair)
        mine.end()
        assert own_routes(lab, "mn", family) == 0


def check_nudged(family: int) -> None:
    """Break after break, to and fro: every one of them makes the segments a little smaller."""
    with tempfile.TemporaryDirectory() as folder, Lab(Path(folder)).running() as lab:
        mine, pair = connected(lab, family, nudge=True)

        def cut(path: int) -> None:
            mine.ask("handover", address=mobile(family, path), break_first=True)

        hooks = tuple((BYTES * (1 + number), lambda number=number: cut(1 - number % 2)) for number in range(8))
        assert app.exchange(pair, up=BYTES * 10, down=BYTES * 10, hooks=hooks), [side.end for side in pair.sides]  # type: ignore[arg-type]
        assert len(mine.events("nudge")) >= 3
        assert mine.ask("status")["raw"]["failed"] == 0
        for side, peer in (pair.sides, pair.sides[::-1]):
            assert side.sent >= BYTES * 10
            assert peer.received == side.sent
        app.close(pair)


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("check", ["narrow", "nudged"])
def test_proxy_mtu(check: str, family: int) -> None:
    run_check(__name__, check, str(family))


if __name__ == "__main__":
    globals()[f"check_{sys.argv[1]}"](*(int(word) for word in sys.argv[2:]))
