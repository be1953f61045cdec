"""One connection of several subflows and plain TCP connections behind one bottleneck: who gets how much?"""

from experiments.model import Bound, Claim, Experiment, Scenario, Source, Workload

ONE_TCP = "tcp"
UNCOUPLED, COUPLED = ("mptcp", "mip-mptcp"), ("mptcp-lia", "mip-mptcp-lia")
DURATION_S = 40.0
SHARED_MBIT = 10.0
FAIR = 1.2
"""Times what a TCP connection in its place gets. RFC 6356 says "no more", but the share of TCP itself differs between runs."""
_ACCESS = {"rate_mbit": 30.0, "delay_ms": 15.0}

SCENARIO = Scenario(
    name="shared-bottleneck",
    label=f"{SHARED_MBIT:g} Mbit/s shared",
    parameters={
        "homes": 1,
        "access": [{"name": "wlan", "profile": _ACCESS}, {"name": "lte", "profile": _ACCESS}],
        "core": {"rate_mbit": SHARED_MBIT, "delay_ms": 10.0, "queue_packets": 50},
        "congestion_control": "reno",  # linked increases are Reno's, coupled
    },
    duration_s=DURATION_S,
)
AGAINST = {count: Workload(kind="contest", name=f"against-{count}", parameters={"tcp": count}) for count in (1, 3)}


def _share(identifier: str, text: str, op: str, mechanisms: tuple[str, ...], source: Source) -> Claim:
    """A connection's share of the bottleneck beside that of a TCP connection in its place."""
    return Claim(
        id=identifier,
        text=text,
        source=source,
        metric="contest.share",
        bound=Bound(op=op, value=FAIR, others=(ONE_TCP,)),
        mechanisms=mechanisms,
        scenarios=(SCENARIO.name,),
        published="no figure",
        min_repetitions=5,
    )


EXPERIMENT = Experiment(
    name="mip-mptcp-fairness",
    title="Fairness at a shared bottleneck",
    summary="A mobile node's two access networks (30 Mbit/s, 15 ms each) lead over one link of 10 Mbit/s, 10 ms with a queue "
    "of 50 packets. It downloads over MPTCP with a subflow for each network, with Mobile IP one more over the home agent, "
    "beside one or three plain TCP connections. Linux gives every subflow a congestion control of its own (here Reno); the "
    "linked increases of RFC 6356 couple them. The share of the bottleneck is that of new data, from 5 s after the last "
    "connection began.",
    scenarios=(SCENARIO,),
    mechanisms=(ONE_TCP, *UNCOUPLED, *COUPLED),
    workloads=tuple(AGAINST.values()),
    claims=(
        _share(
            "coupled-is-fair",
            "Traffic is distributed “using the coupled congestion control”, which is fair to TCP at a bottleneck, here: at "
            f"most {FAIR:g} times the share of a TCP connection in its place",
            "<=",
            COUPLED,
            Source(key="mobile-host-multihoming", where="section 5.1"),
        ),
        _share(
            "uncoupled-takes-more",
            "As Linux has it, with TCP's control on each subflow, the connection gets “more than its fair share at a "
            f"bottleneck link traversed by more than one of its subflows”, here: at least {FAIR:g} times a TCP connection's",
            ">=",
            UNCOUPLED,
            Source(key="rfc6356", where="abstract"),
        ),
        Claim(
            id="link-is-used",
            text="Fairness is not bought with an idle link: together the connections use at least 90 % of it less headers",
            metric="goodput_mbit",
            bound=Bound(op=">=", value=round(0.9 * SHARED_MBIT * 1400 / 1514, 2), unit="Mbit/s"),
            mechanisms=(*UNCOUPLED, *COUPLED),
            scenarios=(SCENARIO.name,),
        ),
    ),
    repetitions=5,
)
