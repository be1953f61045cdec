"""Mobile IPv4 on the wire: registration messages with their extensions, agent advertisements, traffic selectors, tunnels.

`values` are what the cores work with, `codec` makes octets of them and back, strictly; `layers`, `agent_layers` are for scapy.
"""
