"""What a run's captures at the mobile node say of its registrations with a home agent."""

from __future__ import annotations

from analysis.evidence import MOBILE, Evidence
from analysis.mobileip import read_mobility
from analysis.mobileip.registrations import ACCEPTED, REFUSED, UNANSWERED
from analysis.rundir import Json

_ASKING = ("registration", "refresh")


def registration_facts(evidence: Evidence) -> Json | None:
    """Counts of registrations by result, the median time to the reply, whether each went through its own interface.

    `own_interface`: every request that was sent for a binding has its care-of address as source, and each care-of address was
    used at one interface only (RFC 7629 section 5.1); deregistrations may go another way. `tunnels`: kinds of the tunnels that
    carried data. None without any registration.
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
    rows = asking["request_row"].to_numpy()
    sources = [table.addresses.text(int(code)) for code in table["src"][rows]]
    at = {
        (care_of, devices[number]) for care_of, number in zip(asking["care_of_address"], table["interface"][rows], strict=True)
    }
    median = asking["latency_ms"].median()
    return {
        "registrations": len(asking),
        "deregistrations": int((found["kind"] == "deregistration").sum()),
        **{result: int((asking["result"] == result).sum()) for result in (ACCEPTED, REFUSED, UNANSWERED)},
        "latency_ms": None if median != median else round(float(median), 3),
        "tunnels": " ".join(sorted(set(mobility.tunnels["kind"]))),
        "own_interface": sources == asking["care_of_address"].tolist() and len(at) == len({care_of for care_of, _ in at}),
    }
