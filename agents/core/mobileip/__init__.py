"""Mobile IPv4: home agent, foreign agent and mobile node as pure state machines, and the tables they share."""
