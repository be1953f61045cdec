"""What a run's captures at the mobile node say of its registrations with a home agent."""

from __future__ import annotations

import pandas as pd

from analysis.evidence import MOBILE, Evidence
from analysis.mobileip import read_mobility
from analysis.mobileip.registrations import ACCEPTED, REFUSED, UNANSWERED
from analysis.packets import PacketTable
from analysis.packets.schema import TUNNEL_NAMES, TUNNEL_UDP
from analysis.rundir import Json

_ASKING = ("registration", "refresh")


def registration_facts(evidence: Evidence) -> Json | None:
    """Counts of registrations by result, the median time to the reply, whether each went through its own interface.

    `own_interface`: every request with a binding identifier has its care-of address as source, and each care-of address was
    used at one interface only (RFC 7629 section 5.1); deregistrations may go another way. `multipath`: all requests have
    the Multipath extension; `flow_bindings`: Flow-Binding extensions in requests. `tunnels`: kinds of the tunnels that
    carried data; `udp_only`: of RFC 3519, and no others. None without any registration, `own_interface` None without such a
    request.
    """
    table, devices = evidence.packets(MOBILE)
    if not len(table):
        return None
    mobility = read_mobility(table)
    found = mobility.registrations
    found = found[(found["family"] == 4) & (found["request_row"] >= 0)]
    if found.empty:
        return None
    asking = found[found["kind"].isin(_ASKING)]
    kinds = sorted(set(mobility.tunnels["kind"]))
    median = asking["latency_ms"].median()
    return {
        "registrations": len(asking),
        "deregistrations": int((found["kind"] == "deregistration").sum()),
        **{result: int((asking["result"] == result).sum()) for result in (ACCEPTED, REFUSED, UNANSWERED)},
        "latency_ms": None if median != median else round(float(median), 3),
        "multipath": all(asking["bids"]),
        "flow_bindings": int((mobility.flow_bindings["kind"] == "RRQ").sum()),
        "tunnels": " ".join(kinds),
        "udp_only": kinds == [TUNNEL_NAMES[TUNNEL_UDP]],
        "own_interface": _own_interface(asking[asking["bids"].map(bool)], table, devices),
    }


def _own_interface(asking: pd.DataFrame, table: PacketTable, devices: list[str]) -> bool | None:
    if asking.empty:
        return None
    rows = asking["request_row"].to_numpy()
    care_of = asking["care_of_address"].tolist()
    sources = [table.addresses.text(int(code)) for code in table["src"][rows]]
    at = {(address, devices[number]) for address, number in zip(care_of, table["interface"][rows], strict=True)}
    return sources == care_of and len(at) == len(set(care_of))
