"""Mobile IPv4 and Mobile IPv6 in a packet table: messages, registrations, bindings, tunnels, handovers.

`read_mobility` gives all tables at once. Rings: codes, message <- flowbindings <- mobileip4, mobileip6, discovery (decoders of
one message) <- finding <- registrations <- bindings, routability <- handovers; tunnels needs the packet table alone.
"""

from analysis.mobileip.message import FlowBinding, Message
from analysis.mobileip.mobility import Mobility, read_mobility

__all__ = ["FlowBinding", "Message", "Mobility", "read_mobility"]
