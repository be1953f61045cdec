"""A mobile node behind address translators: tunnels in UDP, from one translator to another, a translator that forgets."""

from experiments.model import Bound, Claim, Event, Experiment, Scenario, Source

MECHANISMS = ("mip4", "mip4-multipath-backup")
WLAN = "mn-wlan"
LOST_S, BACK_S, REBIND_S, DURATION_S = 5.0, 10.0, 5.0, 16.0
PARAMETERS = {"access": [{"name": "wlan", "middlebox": "nat"}, {"name": "lte", "middlebox": "nat"}], "homes": 1}
RFC = "rfc3519"

HANDOVER = Scenario(
    name="handover",
    label="WLAN lost, both networks behind a NAT",
    parameters=PARAMETERS,
    duration_s=DURATION_S,
    events=(
        Event(at_s=LOST_S, kind="carrier-loss", target=WLAN),
        Event(at_s=BACK_S, kind="carrier-return", target=WLAN),
    ),
)
REBIND = Scenario(
    name="rebind",
    label="the WLAN's NAT forgets its mappings",
    parameters=PARAMETERS,
    duration_s=DURATION_S,
    events=(Event(at_s=REBIND_S, kind="nat-rebind", target="mb1"),),
)
_BOTH = (HANDOVER.name, REBIND.name)

EXPERIMENT = Experiment(
    name="nat",
    title="Mobile IPv4 behind address translators",
    summary="Both access networks of the mobile node are behind a NAT. The home agent sees another source than the care-of "
    "address and tunnels in UDP (RFC 3519). The WLAN is lost and comes back, or its NAT forgets all mappings.",
    scenarios=(HANDOVER, REBIND),
    mechanisms=MECHANISMS,
    claims=(
        Claim(
            id="udp",
            text="All data travels in UDP tunnels",
            source=Source(key=RFC, where="section 4"),
            metric="mobileip.udp_only",
            aggregate="all",
            bound=Bound(op="==", value=True),
            mechanisms=MECHANISMS,
            scenarios=_BOTH,
        ),
        Claim(
            id="survives",
            text="The connection survives",
            source=Source(key=RFC, where="section 2"),
            metric="survived",
            aggregate="all",
            bound=Bound(op="==", value=True),
            mechanisms=MECHANISMS,
            scenarios=_BOTH,
        ),
        Claim(
            id="handover-gap",
            text="From one NAT to the other: a gap of at most 1 s",
            metric="gap_ms",
            aggregate="max",
            bound=Bound(op="<=", value=1000.0, unit="ms"),
            mechanisms=MECHANISMS,
            scenarios=(HANDOVER.name,),
        ),
        Claim(
            id="rebind-gap",
            text="A forgotten mapping is noticed by probes after 2 s; with TCP's repetition the gap is at most 6 s",
            metric="gap_ms",
            aggregate="max",
            bound=Bound(op="<=", value=6000.0, unit="ms"),
            mechanisms=MECHANISMS,
            scenarios=(REBIND.name,),
        ),
    ),
    repetitions=3,
)
