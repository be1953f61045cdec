"""Tunnels between agents: one network interface for each (RFC 2003, RFC 2784, RFC 3519)."""
