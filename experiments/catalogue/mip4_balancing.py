"""Flows over several tunnels: each flow on one of them, or each packet on the next, against the asymmetry of the paths."""

from experiments.model import Bound, Claim, Experiment, Scenario, Source, Workload

PER_FLOW, PER_PACKET = "mip4-multipath", "mip4-multipath-packets"
RATE_MBIT, DELAY_MS, DURATION_S = 10.0, 20.0, 12.0
FURTHER_MS = (0.0, 5.0, 20.0, 60.0)
"""How much longer the second path takes, one way."""
ONE, MANY = "one-flow", "eight-flows"


def _paths(further_ms: float) -> Scenario:
    access = [
        {"name": "wlan", "profile": {"rate_mbit": RATE_MBIT, "delay_ms": DELAY_MS}},
        {"name": "lte", "profile": {"rate_mbit": RATE_MBIT, "delay_ms": DELAY_MS + further_ms}},
    ]
    return Scenario(
        name=f"further-{further_ms:g}ms",
        label=f"2nd path {further_ms:g} ms longer" if further_ms else "equal paths",
        parameters={"access": access, "homes": 1},
        duration_s=DURATION_S,
    )


SCENARIOS = tuple(map(_paths, FURTHER_MS))
_ALL = tuple(scenario.name for scenario in SCENARIOS)
_RFC = Source(key="rfc7629", where="section 6")

EXPERIMENT = Experiment(
    name="balancing",
    title="Per flow or per packet",
    summary="Two access networks of 10 Mbit/s, the second one 0 to 60 ms longer than the first (20 ms). One download or eight "
    "through two tunnels: each flow on one tunnel, or each packet on the next one. Goodput and reordering.",
    scenarios=SCENARIOS,
    mechanisms=(PER_FLOW, PER_PACKET),
    workloads=(Workload(kind="bulk", name=ONE), Workload(kind="mix", name=MANY, parameters={"bulk": 8})),
    claims=(
        Claim(
            id="flows-keep-order",
            text="A flow on one tunnel is never reordered",
            source=_RFC,
            metric="stream.reordered_ratio",
            aggregate="max",
            bound=Bound(op="<=", value=0.0),
            mechanisms=(PER_FLOW,),
            scenarios=_ALL,
            workloads=(ONE,),
        ),
        Claim(
            id="packets-overtake",
            text="Packet by packet over paths that differ by 5 ms or more, more than 5 % of a flow's packets are overtaken",
            source=_RFC,
            metric="stream.reordered_ratio",
            aggregate="min",
            bound=Bound(op=">=", value=0.05),
            mechanisms=(PER_PACKET,),
            scenarios=_ALL[1:],
            workloads=(ONE,),
        ),
        Claim(
            id="one-flow-one-path",
            text="A single flow on one tunnel gets no more than one network has",
            metric="goodput_mbit",
            bound=Bound(op="<=", value=RATE_MBIT, unit="Mbit/s"),
            mechanisms=(PER_FLOW,),
            scenarios=_ALL,
            workloads=(ONE,),
        ),
        Claim(
            id="one-flow-two-paths",
            text="Packet by packet over equal paths a single flow gets more than one network has",
            metric="goodput_mbit",
            bound=Bound(op=">=", value=RATE_MBIT, unit="Mbit/s"),
            mechanisms=(PER_PACKET,),
            scenarios=_ALL[:1],
            workloads=(ONE,),
        ),
        Claim(
            id="many-flows-fill-both",
            text="Eight flows, each on one tunnel, get at least 0.85 of both networks less headers, whatever the asymmetry",
            metric="goodput_mbit",
            bound=Bound(op=">=", value=round(0.85 * 2 * RATE_MBIT * 1428 / 1500, 2), unit="Mbit/s"),
            mechanisms=(PER_FLOW,),
            scenarios=_ALL,
            workloads=(MANY,),
        ),
    ),
    repetitions=3,
)
