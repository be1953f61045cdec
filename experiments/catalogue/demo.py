"""The part of `outage` that tells the story in two minutes."""

from dataclasses import replace

from experiments.catalogue import outage

EXPERIMENT = replace(
    outage.EXPERIMENT.only(scenarios=("carrier-loss", "blackhole", "address-removed"), mechanisms=("tcp", "mptcp")),
    name="demo",
    title="The WLAN is lost: TCP beside MPTCP",
)
