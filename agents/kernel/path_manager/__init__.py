"""The path manager's effects: generic netlink of MPTCP, socket diagnostics, probes, the agent."""
