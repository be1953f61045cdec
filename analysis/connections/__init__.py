"""TCP flows and MPTCP connections (versions 1 and 0) in packet tables of any capture.

`reconstruct(table)` gives flows, connections, segments, acknowledgments, signals and findings (columns: see `columns`);
`delivery` when the data of a connection arrived; `guess_points` which interfaces are one capture point.

Rings: flows, positions, offers, keys, coverage <- orphans, membership, datanumbers, mapping <- payload, missed, delivery
<- tables <- assemble. `signalling` and `findings` read a finished reconstruction.
"""

from analysis.connections.assemble import reconstruct, reconstruct_core
from analysis.connections.delivery import delivery
from analysis.connections.model import FIRST, KIND_NAMES, REINJECTION, RETRANSMISSION, UNMAPPED, Reconstruction
from analysis.connections.points import guess_points

__all__ = [
    "FIRST",
    "KIND_NAMES",
    "REINJECTION",
    "RETRANSMISSION",
    "UNMAPPED",
    "Reconstruction",
    "delivery",
    "guess_points",
    "reconstruct",
    "reconstruct_core",
]
