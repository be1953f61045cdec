"""Paths that fail while traffic flows: home agents, home networks, providers, access networks, in many orders.

Every scenario has two access networks and two home networks unless its name says otherwise. What a path is: from a home
address through its home agent, or from a care-of address directly; "the established connection will be able to survive as
long there is at least one path available" ("A Mobile Host-Multihoming Architecture", section 6).
"""

from experiments.model import Bound, Claim, Event, Experiment, Scenario, Source, Workload

PAPER = "mobile-host-multihoming"
LOST_S, AGAIN_S, DURATION_S = 4.0, 8, 13.0
WLAN, LTE = "mn-wlan", "mn-lte"
TWO = {"homes": 2}


def _loss(name: str, label: str, *events: Event, **parameters: object) -> Scenario:
    return Scenario(name=name, label=label, parameters=parameters or TWO, duration_s=DURATION_S, events=events)


def _crash(node: str, at_s: float = LOST_S) -> Event:
    return Event(at_s=at_s, kind="node-crash", target=node)


def _mute(node: str, at_s: float = LOST_S) -> Event:
    return Event(at_s=at_s, kind="node-mute", target=node)


HOME_LOSSES = (
    _loss("ha-crash", "home agent 1 crashes", _crash("ha1")),
    _loss("home-dark", "home network 1 unreachable", _mute("hr1")),
    _loss("pairs-ha-crash", "2 CN addresses, home agent 1 crashes", _crash("ha1"), homes=2, cn_links=2),
)

DEAD = ("mip4-homes", "mip4-multipath-homes")
OURS = ("mip-mptcp-homes", "mip-mptcp-direct-homes")
PLAIN = ("tcp", "mptcp")
_HOME = tuple(scenario.name for scenario in HOME_LOSSES)


EXPERIMENT = Experiment(
    name="mip-mptcp-failures",
    title="A home agent fails while traffic flows",
    summary="A mobile node away from home in WLAN (20 Mbit/s, 15 ms) and LTE (10 Mbit/s, 35 ms), with two home addresses and a "
    "home agent for each, downloads to the first home address. At 4 s its home agent is lost; at 8 s a new "
    "connection is opened from the second home address. TCP and MPTCP alone use care-of addresses.",
    scenarios=HOME_LOSSES,
    mechanisms=(*PLAIN, *DEAD, *OURS),
    workloads=(Workload(kind="again", parameters={"after_s": AGAIN_S}),),
    claims=(
        Claim(
            id="home-agent-kills",
            text="A failure affecting the reachability of the home address breaks the connection that uses it",
            source=Source(key=PAPER, where="section 4"),
            metric="flows.first.survived",
            aggregate="all",
            bound=Bound(op="==", value=False),
            mechanisms=DEAD,
            scenarios=_HOME,
            published="“would break the established communication”",
        ),
        Claim(
            id="other-home-works",
            text="… even though the other home address works: a new connection from it survives",
            source=Source(key=PAPER, where="section 4"),
            metric="flows.again.survived",
            aggregate="all",
            bound=Bound(op="==", value=True),
            mechanisms=DEAD,
            scenarios=_HOME,
            published="“even if there are other working HoAs available”",
        ),
        Claim(
            id="survives",
            text="With MPTCP over Mobile IP the connection is not affected by a failure along the path through the home agent",
            source=Source(key=PAPER, where="section 5.2"),
            metric="survived",
            aggregate="all",
            bound=Bound(op="==", value=True),
            mechanisms=OURS,
            scenarios=_HOME,
        ),
        Claim(
            id="no-break",
            text="It goes on “without a break”, here: with a gap of at most 1 s",
            source=Source(key=PAPER, where="section 5.2"),
            metric="gap_ms",
            aggregate="max",
            bound=Bound(op="<=", value=1000.0, unit="ms"),
            mechanisms=OURS,
            scenarios=_HOME,
            published="“without a break”, no figure",
        ),
    ),
    repetitions=5,
)
