"""What is odd about the connections of a capture: one row per finding, in order of time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import pandas as pd

from analysis.connections.facts import Facts, Finding
from analysis.connections.find_data import DATA_FINDERS
from analysis.connections.find_handshake import HANDSHAKE_FINDERS
from analysis.connections.find_signals import SIGNAL_FINDERS
from analysis.connections.find_stalls import STALL_FINDERS

if TYPE_CHECKING:
    from analysis.connections.model import Reconstruction

FINDERS: tuple[Callable[[Facts], Iterable[Finding]], ...] = (
    *HANDSHAKE_FINDERS, *SIGNAL_FINDERS, *DATA_FINDERS, *STALL_FINDERS,
)  # fmt: skip

MOST_OF_A_KIND = 5
"""So many findings of one kind are told per connection; one more row counts the rest."""


def find(core: Reconstruction) -> pd.DataFrame:
    """Findings of a reconstruction: time_ns, row, connection, subflow, kind, text, weight.

    `row` is -1 for what no single packet shows, `subflow` -1 for what concerns the whole connection. `weight` is "note"
    (worth knowing), "warning" (something went wrong on the way) or "error" (a protocol violation or damage). Of each kind a
    connection has at most MOST_OF_A_KIND rows and a last one "and N more".
    """
    facts = Facts(core)
    found = [finding for finder in FINDERS for finding in finder(facts)]
    found.sort(key=lambda finding: (finding.time_ns, finding.row))
    return pd.DataFrame(_limited(found), columns=list(Finding._fields)).astype(
        {"time_ns": "int64", "row": "int64", "connection": "int64", "subflow": "int64"}
    )


def _limited(found: list[Finding]) -> list[Finding]:
    """At most MOST_OF_A_KIND findings per kind and connection, the rest as a number."""
    seen: Counter[tuple[int, str]] = Counter()
    kept = []
    last: dict[tuple[int, str], Finding] = {}
    for finding in found:
        key = finding.connection, finding.kind
        seen[key] += 1
        if seen[key] <= MOST_OF_A_KIND:
            kept.append(finding)
        last[key] = finding
    more = [
        last[key]._replace(row=-1, subflow=-1, text=f"and {count - MOST_OF_A_KIND:,} more of this kind.")
        for key, count in seen.items()
        if count > MOST_OF_A_KIND
    ]
    return sorted(kept + more, key=lambda finding: finding.time_ns)
