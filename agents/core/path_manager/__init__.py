"""Decisions of the path manager: which addresses of a mobile host carry which MPTCP connection. Pure."""
