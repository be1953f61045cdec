"""Where the workloads' servers listen: agents that select connections must know it."""

PORT = 5001
HTTP_PORTS, VOICE_PORTS, RPC_PORTS = "80-95", "5004-5019", "5060-5075"
"""Of several flows at once: each kind has ports of its own, so that a flow policy can tell them apart."""
