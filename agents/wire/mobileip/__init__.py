"""Mobile IPv4 on the wire: registration messages with their extensions, agent advertisements, traffic selectors, tunnels.

`values` are what the cores work with; `layers` are the scapy layers; `codec` turns one into the other, strictly.
"""
