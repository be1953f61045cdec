"""What a run's captures say of the ways of its data: over the home agent or direct, how loaded, and by which protocols."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from analysis.connections import Reconstruction
from analysis.evidence import CORRESPONDENT, MOBILE, Evidence, ends_of, sides
from analysis.measures.audit import Audit, mptcp_options, odd_messages, odd_options, other_traffic
from analysis.measures.homeroute import (
    SETTLING_S,
    Home,
    HomeAgentUse,
    data_round_trip_ms,
    direct_since_ns,
    find_home,
    forwarded,
    rate_over_time,
    round_trips,
)
from analysis.measures.loads import Arrivals, Capacity, Frames, Load, load_phases, wire_bytes
from analysis.mobileip import read_mobility
from analysis.mobileip.discovery import PLAIN_KINDS
from analysis.packets import PacketTable, schema
from analysis.rundir import Json, Run, load_workload
from analysis.series import Series
from analysis.several import flows_of
from analysis.streams import find_stream

SEVERAL = ("mix", "again")
"""Workloads of several flows that are all the mechanism's."""


def route_facts(evidence: Evidence, series: Series | None) -> Json:
    """`home_agent`, `load` and `audit` of docs/metrics.md; None where the captures have nothing of the kind."""
    flows = list(flows_of(evidence.run).values()) if evidence.run.workload_kind in SEVERAL else [evidence.run]
    return {
        "home_agent": _home_agent(evidence, [flow for flow in flows if flow.workload_transport == "tcp"]),
        "load": _load(evidence, series),
        "audit": _audit(evidence, flows),
    }


# --- over the home agent or direct ---


def _home_agent(evidence: Evidence, flows: Sequence[Run]) -> Json | None:
    run = evidence.run
    rec, _ = evidence.reconstruction(MOBILE)
    home = find_home(rec.packets, run.addresses(MOBILE))
    if home is None or not flows:
        return None
    address = rec.packets.addresses.text(home.address)
    connections = _connections(rec, run, flows)
    ports = _ports(flows, rec, connections)
    node, table, rows = _forwarded(evidence, home, ports)
    direct_ns = direct_since_ns(rec, connections, address)
    settled_ns = max(run.t0_wall_ns, direct_ns or 0) + round(SETTLING_S * 1e9)
    end_ns = _data_ended_ns(evidence)
    sizes, times = table["payload_bytes"][rows].astype(np.int64), table["time_ns"][rows]
    settled = int(sizes[times >= settled_ns].sum())
    payload = int(rec.connections.loc[connections, ["payload_up", "payload_down"]].to_numpy().sum())
    trips = round_trips(rec, connections, address)
    carrying = times[sizes > 0]
    use = HomeAgentUse(
        home_address=address,
        home_agent=rec.packets.addresses.text(home.agent),
        application_uses_home_address=_uses(evidence, flows, rec, connections, address),
        seen_at=node,
        bytes=int(sizes.sum()),
        share=round(_payload(rec.packets, forwarded(rec.packets, home, ports)) / max(1, payload), 6),
        direct_since_s=None if direct_ns is None else _at(evidence, direct_ns),
        last_data_s=_at(evidence, int(carrying.max())) if carrying.size else None,
        before_bytes=int(sizes[times < (direct_ns if direct_ns is not None else end_ns)].sum()),
        settled_from_s=_at(evidence, settled_ns),
        settled_bytes=settled,
        settled_mbit=round(settled * 8e3 / (end_ns - settled_ns), 6) if end_ns > settled_ns else None,
        round_trip_ms=_least(trips.least_ms[trips.over_home]),
        direct_round_trip_ms=_least(trips.least_ms[~trips.over_home]),
        settled_round_trip_ms=data_round_trip_ms(rec, trips, settled_ns, end_ns),
        over_time_mbit=rate_over_time(evidence.seconds(times), sizes, _planned_end_s(evidence)),
        direct_over_time_mbit=_direct_over_time(evidence, rec, trips.flows[~trips.over_home]),
    )
    return asdict(use)


def _payload(table: PacketTable, rows: Any) -> int:
    return int(table["payload_bytes"][rows].astype(np.int64).sum())


def _direct_over_time(evidence: Evidence, rec: Reconstruction, flows: Any) -> list[float]:
    segments = rec.segments[rec.segments["flow"].isin(flows)]
    sizes = (segments["flow_end"] - segments["flow_begin"]).to_numpy(np.int64)
    return rate_over_time(evidence.seconds(segments["time_ns"]), sizes, _planned_end_s(evidence))


def _connections(rec: Reconstruction, run: Run, flows: Sequence[Run]) -> list[int]:
    receiving, _ = sides(run)
    role = "receiver" if receiving == MOBILE else "sender"
    found = [
        find_stream(rec, *ends_of(load_workload(flow, role)), run.addresses(MOBILE), receiving == MOBILE) for flow in flows
    ]
    return sorted({item[0] for item in found if item is not None})


def _ports(flows: Sequence[Run], rec: Reconstruction, connections: Sequence[int]) -> list[int]:
    """Ports of the workload's servers."""
    ports = {flow.port for flow in flows if flow.port is not None}
    return sorted(ports | {int(port) for port in rec.connections.loc[list(connections), "server_port"]})


def _forwarded(evidence: Evidence, home: Home, ports: Sequence[int]) -> tuple[str, PacketTable, Any]:
    """Where the home agent's work was seen: at its own node, or, without a capture there, at the mobile node."""
    agents = [node["name"] for node in evidence.run.manifest.get("graph", {}).get("nodes", []) if node["kind"] == "home-agent"]
    for node in agents:
        table, _ = evidence.packets(node)
        rows = forwarded(table, home, ports)
        if rows.size:
            return node, table, rows
    rec, _ = evidence.reconstruction(MOBILE)
    return MOBILE, rec.packets, forwarded(rec.packets, home, ports)


def _uses(evidence: Evidence, flows: Sequence[Run], rec: Reconstruction, connections: Sequence[int], home: str) -> bool | None:
    """Did both programs see the home address at the end, and was it the initial subflow's? None when nobody wrote it down."""
    receiving, _ = sides(evidence.run)
    seen = []
    for flow in flows:
        for role, node in (("receiver", receiving), ("sender", CORRESPONDENT if receiving == MOBILE else MOBILE)):
            local, peer = ends_of(load_workload(flow, role))
            end = local if node == MOBILE else peer
            if end is not None:
                seen.append(end[0] == home)
    ends = rec.connections.loc[list(connections), ["client", "server"]].to_numpy().tolist()
    return all(seen) and all(home in pair for pair in ends) if seen and ends else None


def _least(values: Any) -> float | None:
    known = values[~np.isnan(values)]
    return round(float(known.min()), 3) if known.size else None


def _at(evidence: Evidence, time_ns: int) -> float:
    return round(float(evidence.seconds(time_ns)), 6)


def _data_ended_ns(evidence: Evidence) -> int:
    """When the workload was to end, or did."""
    return evidence.run.t0_wall_ns + round(_planned_end_s(evidence) * 1e9)


def _planned_end_s(evidence: Evidence) -> float:
    planned = evidence.run.manifest["scenario"].get("duration_s")
    return min(float(planned), evidence.ended_s) if isinstance(planned, (int, float)) else evidence.ended_s


# --- load ---


def _load(evidence: Evidence, series: Series | None) -> Json | None:
    run = evidence.run
    names = [path.name for path in run.paths]
    if not names:
        return None
    frames = _frames(evidence, [path.interface for path in run.paths])
    carried = wire_bytes(frames, names)
    arrivals = None
    if series is not None and series.unit == "bytes" and series.times_s:
        arrivals = Arrivals(np.array(series.times_s), np.array(series.totals, np.int64))
    total = sum(carried.values())
    phases = load_phases(frames, names, capacities(run), arrivals, _planned_end_s(evidence))
    return asdict(
        Load(
            wire_bytes=carried,
            wire_share={name: round(count / total, 6) if total else None for name, count in carried.items()},
            phases=[row.fields() for row in phases],
        )
    )


def _frames(evidence: Evidence, interfaces: Sequence[str]) -> Frames:
    """IP packets at the mobile node's interfaces; those that come are known by the destination's address."""
    table, devices = evidence.packets(MOBILE)
    rows = np.flatnonzero(table["problems"] & schema.NOT_IP == 0)
    place = np.array([interfaces.index(name) if name in interfaces else -1 for name in devices], np.int64)
    tunnelled = table["tunnel"][rows] > 0
    source = np.where(tunnelled, table["outer_src"][rows], table["src"][rows])
    mine = evidence.run.addresses(MOBILE)
    codes = np.array([code for code, text in enumerate(table.addresses.texts()) if text in mine], np.int64)
    leaving = np.isin(source, codes)
    down = sides(evidence.run)[0] == MOBILE
    path = place[table["interface"][rows]] if rows.size else np.zeros(0, np.int64)
    return Frames(evidence.seconds(table["time_ns"][rows]), table["length"][rows].astype(np.int64), path, leaving != down)


def capacities(run: Run) -> list[Capacity]:
    """Rates of the access links by the scenario: the profiles, and what profile-change events made of them."""
    rates = {path["name"]: (path.get("profile") or {}).get("rate_mbit") for path in run.manifest.get("paths") or []}
    by_interface = {path.interface: path.name for path in run.paths}
    planned = run.manifest.get("timeline_planned") or run.manifest["scenario"]["events"]
    wanted = "back" if run.direction == "down" else "forward"
    out = [Capacity(0.0, dict(rates))]
    for event in run.events:
        if event.kind != "profile-change" or event.target not in by_interface:
            continue
        parameters: Json = next(
            (
                p.get("parameters") or {}
                for p in planned
                if (p["kind"], p["target"], p["at_s"]) == (event.kind, event.target, event.planned_s)
            ),
            {},
        )
        if parameters.get("direction", "both") not in ("both", wanted):
            continue
        if parameters.get("rate_mbit") is not None:
            rates[by_interface[event.target]] = float(parameters["rate_mbit"])
        elif parameters.get("profile") is not None:
            rates[by_interface[event.target]] = None
        out.append(Capacity(event.at_s, dict(rates)))
    return out


# --- audit ---


def _audit(evidence: Evidence, flows: Sequence[Run]) -> Json | None:
    """What is on the wire at all capture points; None when there was neither MPTCP nor Mobile IP."""
    rec, _ = evidence.reconstruction(MOBILE)
    ports = _recorded_ports(flows)
    ports |= set(_ports(flows, rec, _connections(rec, evidence.run, [f for f in flows if f.workload_transport == "tcp"])))
    options: set[str] = set()
    kinds: Counter[str] = Counter()
    extensions: set[str] = set()
    tunnels: set[str] = set()
    odd: list[Counter[str]] = []
    for node in sorted({owner for owner, _, _ in evidence.taps}):
        table, _ = evidence.packets(node)
        messages = read_mobility(table).messages
        messages = messages[(messages["family"] == 4) & ~messages["kind"].isin(PLAIN_KINDS)]
        options |= mptcp_options(table)
        kinds.update(messages["kind"].tolist())
        extensions |= {number for text in messages["extensions"] for number in str(text).split()}
        tunnels |= {schema.TUNNEL_NAMES[kind] for kind in np.unique(table["tunnel"]).tolist() if kind}
        odd += [odd_options(table), odd_messages(messages), other_traffic(table, ports)]
    if not (options or kinds or tunnels):
        return None
    together = sum(odd, Counter())
    return asdict(
        Audit(
            mptcp_options=sorted(options),
            mobile_ip_messages=dict(sorted(kinds.items())),
            mobile_ip_extensions=sorted(extensions),
            tunnels=sorted(tunnels),
            option_kinds=len(options),
            messages=sum(kinds.values()),
            non_standard=sum(together.values()),
            non_standard_kinds=dict(sorted(together.items())),
        )
    )


def _recorded_ports(flows: Sequence[Run]) -> set[int]:
    """Ports that the programs wrote down."""
    ends = [end for flow in flows for role in ("receiver", "sender") for end in ends_of(load_workload(flow, role))]
    return {end[1] for end in ends if end is not None}
