"""A small experiment for the tests: a few seconds of Mobile IPv4, with the WLAN lost for a moment."""

from experiments.model import Event, Experiment, Scenario, Workload

_LOSS = (
    Event(at_s=1.5, kind="carrier-loss", target="mn-wlan"),
    Event(at_s=3.5, kind="carrier-return", target="mn-wlan"),
)

EXPERIMENT = Experiment(
    name="short-mobileip",
    title="A short outage with Mobile IPv4",
    summary="The WLAN is lost for two seconds.",
    scenarios=(
        Scenario(name="carrier-loss", duration_s=6.0, events=_LOSS),
        Scenario(
            name="behind-nat",
            duration_s=6.0,
            parameters={"access": [{"name": "wlan", "middlebox": "nat"}, {"name": "lte", "middlebox": "nat"}]},
            events=_LOSS,
        ),
    ),
    mechanisms=("mip4", "mip4-fa", "mip4-multipath", "mip4-multipath-backup", "mip4-multipath-packets", "mip4-multipath-flows"),
    workloads=(Workload(kind="mix", parameters={"bulk": 1, "voice": 1, "rpc": 1}),),
)
