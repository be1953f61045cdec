"""What the agents of Mobile IPv4 say of themselves, as rows for people: bindings, tunnels and their rates.

The agents answer `status` on their control sockets; nothing here knows how the rows are shown.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from experiments.control import AgentSocket
from topologies.mobile_host import control_request
from topologies.nodes import NodeError

ROLES = ("home-agent", "foreign-agent", "mobile-node")
ANSWER_TIMEOUT_S = 5.0
_COUNTERS = {"sent_packets": "out_packets_s", "received_packets": "in_packets_s", "sent_bytes": "out_mbit",
             "received_bytes": "in_mbit"}  # fmt: skip
_MEGABIT_BYTES = 125_000


@dataclass(frozen=True)
class Binding:
    """A care-of address of a home address, or a visitor; an interface that is not registered has no lifetime."""

    agent: str
    home_address: str
    bid: int | None
    care_of: str
    label: int | None
    remaining_s: float | None
    state: str
    tunnel: str = ""
    """The device."""


@dataclass(frozen=True)
class TunnelRow:
    """A tunnel with its rates since the sample before; None: there was none."""

    agent: str
    device: str
    local: str
    remote: str
    encapsulation: str
    backend: str
    rates: Mapping[str, float | None] = field(default_factory=dict)
    """out_packets_s, in_packets_s, out_mbit, in_mbit: of inner packets."""
    totals: Mapping[str, int] = field(default_factory=dict)
    """sent_packets, received_packets, sent_bytes, received_bytes, mtu."""


@dataclass(frozen=True)
class Sample:
    """One look at one agent."""

    agent: AgentSocket
    at_s: float
    status: Mapping[str, Any]
    error: str = ""


def look(agent: AgentSocket) -> Sample:
    """Ask an agent. One that does not answer is a sample with an error."""
    try:
        status = control_request(agent.path, {"cmd": "status"}, ANSWER_TIMEOUT_S)
    except NodeError as error:
        return Sample(agent, time.monotonic(), {}, str(error).removeprefix(f"{agent.path}: "))
    except (OSError, ValueError) as error:
        return Sample(agent, time.monotonic(), {}, getattr(error, "strerror", None) or str(error) or type(error).__name__)
    return Sample(agent, time.monotonic(), status)


def bindings(name: str, role: str, status: Mapping[str, Any]) -> list[Binding]:
    """The bindings in an agent's status: of a mobile node all interfaces, of a foreign agent its visitors."""
    return {"home-agent": _of_home_agent, "foreign-agent": _of_foreign_agent, "mobile-node": _of_mobile_node}[role](
        name, status
    )


def _of_home_agent(name: str, status: Mapping[str, Any]) -> list[Binding]:
    devices = {(row["local"], row["remote"], row["remote_port"]): row["device"] for row in status["tunnels"]}
    used = {row["home_address"]: _tunnels_used(row) for row in status["forwarding"]}
    found = []
    for row in status["bindings"]:
        ends = row["local"], row["remote"], row["remote_port"]
        home, bid = row["home_address"], row["bid"]
        active = any(words[:2] == [*ends[:2]] and words[2:] in ([], ["bid", str(bid)]) for words in used.get(home, ()))
        found.append(
            Binding(name, home, bid or None, row["care_of_address"], row["label"] if bid else None, row["remaining_s"],
                    "used" if active else "standby", devices.get(ends, ""))
        )  # fmt: skip
    return found


def _tunnels_used(forwarding: Mapping[str, Any]) -> list[list[str]]:
    """The words of the tunnels that packets for a home address may take."""
    return [row["tunnel"].split() for kind in ("rules", "shares") for row in forwarding[kind]]


def _of_foreign_agent(name: str, status: Mapping[str, Any]) -> list[Binding]:
    core = status["core"]
    return [
        Binding(name, row["home_address"], None, core["care_of_address"], None, row["remaining_s"],
                f"visitor on {row['interface']}" + (", reverse tunnel" if row["reverse_tunnel"] else ""),
                next((item["device"] for item in status["tunnels"] if item["remote"] == row["home_agent"]), ""))
        for row in status["bindings"]
    ]  # fmt: skip


def _of_mobile_node(name: str, status: Mapping[str, Any]) -> list[Binding]:
    """The interfaces of every home address."""
    cores = [status["core"], *status["core"].get("further", ())]
    found = []
    for core in cores:
        home, several = core.get("home_address") or status["home_address"] or "", len(cores) > 1
        bound = {row["interface"]: row for row in status["bindings"] if not several or row["home_address"] == home}
        devices = {row["interface"]: row["device"] for row in status["tunnels"]
                   if not several or row["remote"] == core["home_agent"]}  # fmt: skip
        for row in core["interfaces"]:
            binding = bound.get(row["name"], {})
            words = [row["state"], "held" if row["held"] else "", "" if row["validated"] or not binding else "not validated"]
            found.append(
                Binding(name, home, row["bid"], row["care_of"] or "", binding.get("label"),
                        binding.get("remaining_s"), ", ".join(word for word in words if word), devices.get(row["name"], ""))
            )  # fmt: skip
    return found


def tunnels(name: str, now: Sample, before: Sample | None) -> list[TunnelRow]:
    """The tunnels of an agent with their rates since an earlier sample."""
    known = {row["device"]: row for row in before.status.get("tunnels", ())} if before is not None else {}
    passed_s = now.at_s - before.at_s if before is not None else 0.0
    return [
        TunnelRow(name, row["device"], row["local"], row["remote"], row["encapsulation"], row["backend"],
                  rates(row, known.get(row["device"]), passed_s), {key: row[key] for key in (*_COUNTERS, "mtu") if key in row})
        for row in now.status.get("tunnels", ())
    ]  # fmt: skip


def rates(now: Mapping[str, Any], before: Mapping[str, Any] | None, passed_s: float) -> dict[str, float | None]:
    """Packets and Mbit a second from counters. A tunnel that is another one, or counts from the beginning, has none yet."""
    result: dict[str, float | None] = dict.fromkeys(_COUNTERS.values())
    if before is None or passed_s <= 0 or any(before.get(end) != now.get(end) for end in ("local", "remote")):
        return result
    grown = {name: now.get(name, 0) - before.get(name, 0) for name in _COUNTERS}
    if min(grown.values()) < 0:
        return result
    for name, value in grown.items():
        result[_COUNTERS[name]] = value / passed_s / (_MEGABIT_BYTES if name.endswith("bytes") else 1)
    return result


def unsaid(samples: Sequence[Sample], what: str) -> int:
    """How many "bindings" or "tunnels" the agents have beyond those that they have said: they say a page of a long list."""
    listed = ((item.status.get("counts", {}).get(what, 0), len(item.status.get(what, ()))) for item in samples)
    return sum(max(0, count - said) for count, said in listed)


def report(samples: Sequence[Sample], before: Sequence[Sample]) -> dict[str, Any]:
    """Everything for machines: agents, bindings, tunnels."""
    rows, ways = view(samples, before)
    return {
        "agents": [{"agent": item.agent.name, "capsule": item.agent.capsule, "what": item.agent.what, "error": item.error,
                    "counts": item.status.get("counts", {})} for item in samples],
        "bindings": [asdict(row) for row in rows],
        "tunnels": [_flat(row) for row in ways],
    }  # fmt: skip


def _flat(row: TunnelRow) -> dict[str, Any]:
    plain = {name: value for name, value in asdict(row).items() if name not in ("rates", "totals")}
    return {**plain, **row.rates, **row.totals}


def facts(status: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The figures of a status that are in no table."""
    core = status["core"]
    said = {name: value for name, value in core.items() if name not in ("interfaces", "visitors", "bindings")}
    said |= {name: status[name] for name in ("packets", "strangers", "problems") if status.get(name)}
    return [(name.replace("_", " "), _plain(value)) for name, value in said.items() if value not in ({}, [], None, "")]


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_plain(item)}" for name, item in value.items())
    if isinstance(value, list):
        return ", ".join(map(_plain, value))
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def view(samples: Sequence[Sample], before: Sequence[Sample]) -> tuple[list[Binding], list[TunnelRow]]:
    """Bindings and tunnels of all agents that have answered. Agents of several runs are told apart by the capsule's number."""
    earlier = {item.agent.path: item for item in before if not item.error}
    several = len({item.agent.capsule for item in samples}) > 1
    rows: list[Binding] = []
    ways: list[TunnelRow] = []
    for item in samples:
        if item.error:
            continue
        name = f"{item.agent.capsule}:{item.agent.name}" if several else item.agent.name
        rows += bindings(name, item.agent.role, item.status)
        ways += tunnels(name, item, earlier.get(item.agent.path))
    return rows, ways
