"""What a reconstruction consists of. The columns of its tables are described in `analysis.connections.columns`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from analysis.packets.table import PacketTable

Array = npt.NDArray[Any]
Bools = npt.NDArray[np.bool_]
Int32s = npt.NDArray[np.int32]
Int64s = npt.NDArray[np.int64]

FIRST, RETRANSMISSION, REINJECTION, UNMAPPED = range(4)
"""Values of `segments.kind`. RETRANSMISSION: the same bytes of the subflow again, by TCP. REINJECTION: data that was sent
before, in new bytes of a subflow: mostly of another one, but Linux also repeats data on the subflow that carried it."""
KIND_NAMES = ("first", "retransmission", "reinjection", "unmapped")

LIMIT = 1 << 44
"""Positions from here on (16 TiB) are not believed: no stream of a capture is that long."""


@dataclass
class Reconstruction:
    """Flows and connections of a packet table.

    `packets` is in order of time. `flow` (int32) and `from_client` (bool) are parallel to its rows: number of the flow, -1
    for what is not usable TCP, and whether the opener of the flow sent the packet. The tables:

    * `flows`, index = number in order of the first packet; `connections`, index = number in order of their first flow;
    * `segments` and `acks`, one row per segment with payload and per acknowledgment, in order of time;
    * `signals` and `findings`, what was signalled and what is odd.
    """

    packets: PacketTable
    flow: Int32s
    from_client: Bools
    flows: pd.DataFrame
    connections: pd.DataFrame
    segments: pd.DataFrame
    acks: pd.DataFrame
    signals: pd.DataFrame
    findings: pd.DataFrame
