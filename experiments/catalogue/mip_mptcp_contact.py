"""The CN opens the connection: it calls the home address while the MN is away."""

from experiments.model import Bound, Claim, Event, Experiment, Scenario, Source, Workload

PAPER = "mobile-host-multihoming"
CRASH_S, DURATION_S = 5.0, 12.0
CALL, CRASH = "call", "call-then-crash"

SCENARIOS = (
    Scenario(name=CALL, label="the CN calls", parameters={"homes": 1}, duration_s=DURATION_S),
    Scenario(
        name=CRASH,
        label="the CN calls, HA crashes",
        parameters={"homes": 1},
        duration_s=DURATION_S,
        events=(Event(at_s=CRASH_S, kind="node-crash", target="ha1"),),
    ),
)
MOBILE_IP, OURS, PLAIN_PEER = ("mip4", "mip4-multipath"), ("mip-mptcp", "mip-mptcp-direct"), ("mip-mptcp-plain-cn",)
_EVERYBODY = (*MOBILE_IP, *OURS, *PLAIN_PEER)


EXPERIMENT = Experiment(
    name="mip-mptcp-contact",
    title="First contact: the CN calls the home address",
    summary="A mobile node is away from home in WLAN and LTE. The CN opens a connection to its home address and sends. In "
    "one scenario the home agent crashes at 5 s. One CN has no MPTCP.",
    scenarios=SCENARIOS,
    mechanisms=_EVERYBODY,
    workloads=(Workload(kind="bulk", parameters={"opened_by": "cn"}),),
    claims=(
        Claim(
            id="reached",
            text="The CN reaches the MN at its home address while that is away",
            source=Source(key=PAPER, where="section 5.1"),
            metric="contact.at_home_address",
            aggregate="all",
            bound=Bound(op="==", value=True),
            mechanisms=_EVERYBODY,
            scenarios=(CALL, CRASH),
            published="“Mobile IP playing its standard role when the CN initiates the connection”",
        ),
        Claim(
            id="care-of-address-joins",
            text="“As soon as communication is established, MPTCP can add the CoAs”: one has joined 1 s after the first SYN",
            source=Source(key=PAPER, where="section 5.1"),
            metric="contact.care_of_join_ms",
            aggregate="max",
            bound=Bound(op="<=", value=1000.0, unit="ms"),
            mechanisms=OURS,
            scenarios=(CALL, CRASH),
            published="“as soon as”, no figure",
        ),
        Claim(
            id="survives",
            text="From then on the home agent may die: the connection survives",
            source=Source(key=PAPER, where="section 5.2"),
            metric="survived",
            aggregate="all",
            bound=Bound(op="==", value=True),
            mechanisms=OURS,
            scenarios=(CALL, CRASH),
        ),
        Claim(
            id="no-break",
            text="… with a gap of at most 1 s",
            source=Source(key=PAPER, where="section 5.2"),
            metric="gap_ms",
            aggregate="max",
            bound=Bound(op="<=", value=1000.0, unit="ms"),
            mechanisms=OURS,
            scenarios=(CRASH,),
            published="“without a break”, no figure",
        ),
        Claim(
            id="falls-back",
            text="A CN without MPTCP: the connection is a standard TCP connection, and works",
            source=Source(key=PAPER, where="section 3.2"),
            metric="contact.mptcp",
            aggregate="all",
            bound=Bound(op="==", value=False),
            mechanisms=PLAIN_PEER,
            scenarios=(CALL, CRASH),
        ),
        Claim(
            id="plain-works",
            text="… which Mobile IP alone carries",
            source=Source(key=PAPER, where="section 3.2"),
            metric="survived",
            aggregate="all",
            bound=Bound(op="==", value=True),
            mechanisms=PLAIN_PEER,
            scenarios=(CALL,),
        ),
        Claim(
            id="home-agent-kills",
            text="Then, and with Mobile IP alone, the home agent's death is the connection's",
            source=Source(key=PAPER, where="section 4"),
            metric="survived",
            aggregate="all",
            bound=Bound(op="==", value=False),
            mechanisms=(*PLAIN_PEER, *MOBILE_IP),
            scenarios=(CRASH,),
        ),
    ),
    repetitions=5,
)
