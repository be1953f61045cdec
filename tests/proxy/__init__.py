"""Models of TCP and MPTCP endpoints, a network in memory and a harness: what the proxy is tested against.

Nothing here knows how the proxy works.
"""
