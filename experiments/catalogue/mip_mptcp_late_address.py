"""The home agent is dead when a new network appears and the old one fails: who can use the new care-of address?"""

from experiments.model import Bound, Claim, Event, Experiment, Scenario, Source

PAPER = "mobile-host-multihoming"
CRASH_S, APPEARS_S, LOST_S, DURATION_S = 4.0, 7.0, 12.0, 18.0

LATE = Scenario(
    name="late-address",
    label="HA dead, LTE appears, WLAN lost",
    parameters={"homes": 1},
    duration_s=DURATION_S,
    events=(
        Event(at_s=CRASH_S, kind="node-crash", target="ha1"),
        Event(at_s=APPEARS_S, kind="interface-appears", target="mn-lte"),
        Event(at_s=LOST_S, kind="blackhole-on", target="mn-wlan"),
    ),
)
HOME, OURS = ("mip4", "mip4-multipath"), ("mip-mptcp", "mip-mptcp-direct")
_HERE = (LATE.name,)

EXPERIMENT = Experiment(
    name="mip-mptcp-late-address",
    title="A new care-of address after the home agent's death",
    summary="A mobile node in a WLAN downloads. At 4 s its home agent crashes, at 7 s LTE appears, at 12 s the WLAN is "
    "silent. A new care-of address needs the home agent in Mobile IP, and only the peer in MPTCP.",
    scenarios=(LATE,),
    mechanisms=("mptcp", *HOME, *OURS),
    claims=(
        Claim(
            id="joins",
            text="The new care-of address joins the connection and carries data: the benefit does not rest on the home agent",
            source=Source(key=PAPER, where="section 5.2"),
            metric="bytes_per_path.lte",
            aggregate="min",
            bound=Bound(op=">=", value=100_000, unit="bytes"),
            mechanisms=OURS,
            scenarios=_HERE,
        ),
        Claim(
            id="survives",
            text="The connection outlives home agent and first network",
            source=Source(key=PAPER, where="section 5.2"),
            metric="survived",
            aggregate="all",
            bound=Bound(op="==", value=True),
            mechanisms=OURS,
            scenarios=_HERE,
        ),
        Claim(
            id="cannot-register",
            text="Mobile IP cannot register the new care-of address",
            source=Source(key=PAPER, where="section 4"),
            metric="mobileip.accepted",
            aggregate="max",
            bound=Bound(op="<=", value=0),
            mechanisms=HOME,
            scenarios=_HERE,
        ),
        Claim(
            id="tries-to-register",
            text="… though it tries to",
            metric="mobileip.unanswered",
            aggregate="min",
            bound=Bound(op=">=", value=1),
            mechanisms=HOME,
            scenarios=_HERE,
        ),
        Claim(
            id="home-agent-kills",
            text="Mobile IP alone loses the connection",
            source=Source(key=PAPER, where="section 4"),
            metric="survived",
            aggregate="all",
            bound=Bound(op="==", value=False),
            mechanisms=HOME,
            scenarios=_HERE,
        ),
    ),
    repetitions=5,
)
