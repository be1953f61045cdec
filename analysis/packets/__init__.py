"""Capture files -> packet tables.

`read_capture` gives a whole file as one table, `open_stream` the same in chunks, `merge` one table of several files.
Rings: walk, decode (compiled loops) <- container (files), addresses, signals (numpy) <- table, reader.
"""

from analysis.packets.addresses import AddressBook
from analysis.packets.container import CaptureError, Interface
from analysis.packets.reader import Capture, Stream, merge, open_stream, read_capture, read_captures
from analysis.packets.table import PacketTable, Point, concatenate

__all__ = [
    "AddressBook",
    "Capture",
    "CaptureError",
    "Interface",
    "PacketTable",
    "Point",
    "Stream",
    "concatenate",
    "merge",
    "open_stream",
    "read_capture",
    "read_captures",
]
