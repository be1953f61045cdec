"""The proxy's core driven by captures and by its own event log: for debugging and regression, without a network."""
