"""Where the workloads' servers listen: agents that select connections must know it."""

PORT = 5001
