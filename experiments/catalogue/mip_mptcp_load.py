"""Does the load follow the capacity of the paths? Mobile IP with MPTCP beside flow bindings, which do not know it."""

from experiments.model import Bound, Claim, Event, Experiment, Scenario, Source, Workload

BOTH, DIRECT, BACKUP, CHEAPEST = "mip-mptcp", "mip-mptcp-direct", "mip-mptcp-backup", "mip-mptcp-cheapest"
ONLY_MPTCP, ONE_TUNNEL, FLOWS_BALANCED, FLOW_BINDINGS, PACKETS_BALANCED = (
    "mptcp", "mip4", "mip4-multipath", "mip4-multipath-flows", "mip4-multipath-packets",
)  # fmt: skip
USING_ALL = (BOTH, DIRECT, BACKUP)
PAPER = "mobile-host-multihoming"
WLAN, LTE = "mn-wlan", "mn-lte"
BEFORE_MBIT, AFTER_MBIT = {WLAN: 20.0, LTE: 10.0}, {WLAN: 5.0, LTE: 25.0}
STEADY_S, CHANGE_S, DURATION_S = 15.0, 12.0, 24.0
HEADERS = 1400 / 1514
"""The application's part of a full frame in the tunnel, where headers are largest: IP twice, TCP with 40 bytes of options."""
FOLLOWS, AGGREGATES = 0.85, 0.9
METERED = 0.02
"""Of the bytes; handshakes and probes of paths that stand by."""

STEADY = Scenario(name="steady", label="20 + 10 Mbit/s", parameters={"homes": 1}, duration_s=STEADY_S)
CHANGE = Scenario(
    name="change",
    label="20 + 10, then 5 + 25 Mbit/s",
    parameters={"homes": 1},
    duration_s=DURATION_S,
    events=tuple(
        Event(at_s=CHANGE_S, kind="profile-change", target=interface, parameters={"rate_mbit": rate_mbit})
        for interface, rate_mbit in AFTER_MBIT.items()
    ),
)


def _follows(phase: int, rates_mbit: dict[str, float]) -> Claim:
    """The goodput of the second half of a phase, when senders have adapted."""
    total_mbit = sum(rates_mbit.values())
    rates = " + ".join(f"{rate:g}" for rate in rates_mbit.values())
    return Claim(
        id=f"follows-{phase + 1}",
        text=f"Load follows the available capacity ({rates} Mbit/s): within 15 % of the sum, less headers",
        source=Source(key=PAPER, where="section 5.1"),
        metric=f"load.phases.{phase}.settled.goodput_mbit",
        bound=Bound(op=">=", value=round(FOLLOWS * HEADERS * total_mbit, 2), unit="Mbit/s"),
        mechanisms=USING_ALL,
        scenarios=(CHANGE.name,),
        published="“distribution of the load, based on the available capacity for each path”, no figure",
    )


EXPERIMENT = Experiment(
    name="mip-mptcp-load",
    title="Load distribution by Mobile IP and MPTCP",
    summary="One download to a mobile node with WLAN (20 Mbit/s, 15 ms) and LTE (10 Mbit/s, 35 ms); in one scenario the rates "
    f"become 5 and 25 Mbit/s after {CHANGE_S:g} s. MPTCP above Mobile IP uses what each path has; a flow binding leads the "
    "flow to one tunnel, and packets in turn share the tunnels equally, whatever their rates. LTE is metered: what does each "
    "policy of the path manager cost there?",
    scenarios=(STEADY, CHANGE),
    mechanisms=(
        ONE_TUNNEL,
        FLOWS_BALANCED,
        FLOW_BINDINGS,
        PACKETS_BALANCED,
        ONLY_MPTCP,
        BOTH,
        DIRECT,
        BACKUP,
        CHEAPEST,
    ),
    workloads=(Workload(kind="mix", parameters={"bulk": 1}),),
    claims=(
        _follows(0, BEFORE_MBIT),
        _follows(1, AFTER_MBIT),
        Claim(
            id="aggregates",
            text="One connection gets at least 0.9 of the sum of the paths, less headers",
            source=Source(key=PAPER, where="section 5.2"),
            metric="load.phases.0.settled.goodput_mbit",
            bound=Bound(op=">=", value=round(AGGREGATES * HEADERS * sum(BEFORE_MBIT.values()), 2), unit="Mbit/s"),
            mechanisms=USING_ALL,
            scenarios=(STEADY.name,),
            published="“more efficient use of the available capacity on the several paths”, no figure",
        ),
        Claim(
            id="one-path",
            text="Without MPTCP a flow gets no more than one path has",
            source=Source(key=PAPER, where="section 4"),
            metric="goodput_mbit",
            aggregate="max",
            bound=Bound(op="<=", value=max(BEFORE_MBIT.values()), unit="Mbit/s"),
            mechanisms=(ONE_TUNNEL, FLOWS_BALANCED, FLOW_BINDINGS),
            scenarios=(STEADY.name,),
        ),
        Claim(
            id="blind",
            text="Flow bindings are blind to capacity: the flow stays on the WLAN, which then has 5 of 30 Mbit/s",
            source=Source(key=PAPER, where="section 4"),
            metric="load.phases.1.settled.goodput_mbit",
            aggregate="max",
            bound=Bound(op="<=", value=AFTER_MBIT[WLAN], unit="Mbit/s"),
            mechanisms=(FLOW_BINDINGS,),
            scenarios=(CHANGE.name,),
            published="“done blindly with respect to the available capacity in each path”",
        ),
        Claim(
            id="in-turn",
            text="Packets in turn get no more than twice the slower path",
            source=Source(key=PAPER, where="section 4"),
            metric="load.phases.1.settled.goodput_mbit",
            aggregate="max",
            bound=Bound(op="<=", value=2 * min(AFTER_MBIT.values()), unit="Mbit/s"),
            mechanisms=(PACKETS_BALANCED,),
            scenarios=(CHANGE.name,),
        ),
        Claim(
            id="better-than-flow-bindings",
            text="After the change Mobile IP with MPTCP gets more than flow bindings do",
            source=Source(key=PAPER, where="section 4"),
            metric="load.phases.1.settled.goodput_mbit",
            bound=Bound(op=">=", value=1.0, unit="Mbit/s", others=(FLOW_BINDINGS, PACKETS_BALANCED)),
            mechanisms=USING_ALL,
            scenarios=(CHANGE.name,),
        ),
        Claim(
            id="cheapest-saves",
            text="The policy `cheapest` leaves the metered LTE alone while the WLAN works: at most 2 % of the bytes",
            metric="load.wire_share.lte",
            aggregate="max",
            bound=Bound(op="<=", value=METERED),
            mechanisms=(CHEAPEST,),
            scenarios=(STEADY.name, CHANGE.name),
        ),
        Claim(
            id="others-cost",
            text="The other policies use LTE as much as it gives: at least a quarter of the bytes",
            metric="load.wire_share.lte",
            aggregate="min",
            bound=Bound(op=">=", value=0.25),
            mechanisms=USING_ALL,
            scenarios=(STEADY.name,),
        ),
        Claim(
            id="survives",
            text="The connection survives the change of the paths' capacities",
            metric="survived",
            aggregate="all",
            bound=Bound(op="==", value=True),
            mechanisms=(*USING_ALL, CHEAPEST, ONLY_MPTCP),
            scenarios=(CHANGE.name,),
        ),
    ),
    repetitions=5,
)
