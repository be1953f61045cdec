"""What the forwarder writes for one change, against what must be there after it; nft and netlink are recorded."""

import random
import re
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import pytest

from agents.core.mobileip.actions import Balancing, Forwarding, Tunnel
from agents.kernel.mobileip import forwarding as module
from agents.kernel.mobileip.forwarding import Forwarder, first_usable
from agents.kernel.mobileip.nft import NftError
from agents.kernel.mobileip.nftables import Side, mark_of

_ELEMENT = re.compile(r"^(add|delete) element ip \S+ (\S+) \{ (.*) \}$")
TUNNELS = [Tunnel("10.64.0.1", f"10.1.0.{last}", bid=last) for last in range(1, 7)]
HOMES = [f"10.64.1.{last}" for last in range(1, 9)]


class Netlink:
    def __getattr__(self, _name: str) -> Any:
        return lambda *_args, **_fields: None


class Tunnels:
    def __init__(self) -> None:
        self.ports: dict[Any, Any] = {}

    def open(self, tunnel: Tunnel) -> Any:
        number = next(number for number in range(1, 100) if number not in {port.number for port in self.ports.values()})
        port = SimpleNamespace(tunnel=tunnel, number=number, device=f"mip{number}", gateway="")
        return self.ports.setdefault(tunnel.key, port)

    def find(self, tunnel: Tunnel) -> Any:
        return self.ports.get(tunnel.key)

    def close(self, tunnel: Tunnel) -> None:
        del self.ports[tunnel.key]


class Table:
    """The elements of nft's sets and maps, as the texts have left them."""

    def __init__(self) -> None:
        self.elements: dict[str, set[str]] = {"accepted": set(), "arrived": set(), "homes": set()}
        self.texts: list[str] = []
        self.broken = False

    def run(self, text: str) -> str:
        if self.broken:
            raise NftError(1, "nft: no")
        self.texts.append(text)
        for line in text.splitlines():
            found = _ELEMENT.match(line)
            if found is None:
                continue
            verb, name, element = found.groups()
            if verb == "add":
                assert element not in self.elements[name], "there already"
                self.elements[name].add(element)
            else:
                gone = {item for item in self.elements[name] if item == element or item.startswith(f"{element} :")}
                assert gone, "not there"
                self.elements[name] -= gone
        return ""


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> Table:
    result = Table()
    monkeypatch.setattr(module, "nft", result.run)
    return result


def made(side: Side = Side.HOME_AGENT) -> tuple[Forwarder, Tunnels]:
    tunnels = Tunnels()
    return Forwarder(side, Netlink(), tunnels, None), tunnels  # type: ignore[arg-type]


def through(home: str, used: Iterable[Tunnel], balancing: Balancing = Balancing.PER_FLOW) -> Forwarding:
    ways = tuple(used)
    return Forwarding(home, shares=tuple((tunnel, 1) for tunnel in ways), balancing=balancing, accept=ways)


def check(forwarder: Forwarder, tunnels: Tunnels, table: Table) -> None:
    """Who may come out of which tunnel is what is asked for and open, and nobody else."""
    wanted = {f'"{port.device}" . {home}' for home, item in forwarder.active.items() for tunnel in item.accept
              if (port := tunnels.find(tunnel)) is not None}  # fmt: skip
    assert table.elements["accepted"] == wanted
    assert table.elements["arrived"] == {f'"{port.device}" : {mark_of(port.number):#x}' for port in tunnels.ports.values()}
    assert {item.split(" :")[0] for item in table.elements["homes"]} == {
        home for home, item in forwarder.active.items() if item.shares
    }


@pytest.mark.parametrize("seed", range(20))
def test_every_change_leaves_what_is_asked_for(seed: int, table: Table) -> None:
    draw = random.Random(seed)
    forwarder, tunnels = made()
    for _ in range(120):
        tunnel = draw.choice(TUNNELS)
        if draw.random() < 0.3:
            forwarder.open(tunnel)
        elif draw.random() < 0.3:
            forwarder.close(tunnel)
        else:
            count = draw.randint(1, 3)
            forwarder.forward(*(through(home, draw.sample(TUNNELS, draw.randint(0, 3)), draw.choice(list(Balancing)))
                                for home in draw.sample(HOMES, count)))  # fmt: skip
        check(forwarder, tunnels, table)


def test_one_registration_among_ten_thousand_writes_its_own_lines_only(table: Table) -> None:
    forwarder, tunnels = made()
    for tunnel in TUNNELS:
        forwarder.open(tunnel)
    homes = [f"10.65.{number // 250}.{number % 250 + 1}" for number in range(10_000)]
    forwarder.forward(*(through(home, TUNNELS[:1]) for home in homes))
    forwarder.active = Untouched(forwarder.active)
    forwarder._accepted = Untouched(forwarder._accepted)
    table.texts.clear()
    forwarder.forward(through(homes[7], TUNNELS[1:2]))
    assert len(table.texts) == 1
    assert len(table.texts[0].splitlines()) < 10
    assert '"mip2" . 10.65.0.8' in table.elements["accepted"]
    forwarder.open(Tunnel("10.64.0.1", "10.9.0.1"))
    forwarder.close(TUNNELS[5])
    assert first_usable(forwarder.active.get(homes[7]), tunnels).device == "mip2"  # type: ignore[arg-type, union-attr]


class Untouched(dict[Any, Any]):
    """Nobody looks at all of it: work for one home address does not depend on how many there are."""

    def __iter__(self) -> Any:
        raise AssertionError("all home addresses are looked at")

    items = values = keys = __iter__  # type: ignore[assignment]


def test_what_nft_refuses_is_written_next_time(table: Table) -> None:
    forwarder, tunnels = made()
    table.broken = True
    with pytest.raises(NftError):
        forwarder.open(TUNNELS[0])
    with pytest.raises(NftError):
        forwarder.forward(through(HOMES[0], TUNNELS[:1]))
    table.broken = False
    forwarder.forward(through(HOMES[0], TUNNELS[:1]))
    check(forwarder, tunnels, table)


def test_a_tunnel_that_is_only_drained_is_not_a_way(table: Table) -> None:
    forwarder, tunnels = made()
    forwarder.open(TUNNELS[0])
    forwarder.forward(Forwarding(HOMES[0], accept=(TUNNELS[0],)))
    check(forwarder, tunnels, table)
    assert first_usable(forwarder.active[HOMES[0]], tunnels) is None  # type: ignore[arg-type]


def test_a_mobile_node_takes_its_home_address_out_of_every_tunnel(table: Table) -> None:
    forwarder, _tunnels = made(Side.MOBILE_NODE)
    forwarder.homes = {HOMES[0]}
    forwarder.open(TUNNELS[0])
    forwarder.open(TUNNELS[1])
    assert table.elements["accepted"] == {f'"mip1" . {HOMES[0]}', f'"mip2" . {HOMES[0]}'}
    forwarder.close(TUNNELS[0])
    assert table.elements["accepted"] == {f'"mip2" . {HOMES[0]}'}
