"""Does Mobile IP with MPTCP take the direct way? A home network far away, so that the way over the home agent is long."""

from experiments.model import Bound, Claim, Event, Experiment, Scenario, Source

BOTH, DIRECT, ONLY_MPTCP, ONLY_MOBILE_IP, PLAIN = "mip-mptcp", "mip-mptcp-direct", "mptcp", "mip4", "tcp"
OURS = (BOTH, DIRECT)
PAPER = "mobile-host-multihoming"
HOME_MS, WLAN_MS, LTE_MS = 30.0, 15.0, 35.0
"""One-way delays: between core and home network, and of the access networks."""
FAR_HOME = {"homes": 1, "home_uplink": {"rate_mbit": 100.0, "delay_ms": HOME_MS}}
DURATION_S, MOVES_S = 10.0, 4.0
OVERLAP_S = 1.0
MARGIN = 1.1
"""The least round trip that is measured is that of the links, and what hosts, tunnels and one packet's transmission add."""

ONE = Scenario(name="one", label="WLAN", parameters={**FAR_HOME, "access": "wlan"}, duration_s=DURATION_S)
TWO = Scenario(name="two", label="WLAN + LTE", parameters=FAR_HOME, duration_s=DURATION_S)
MULTIHOMED = Scenario(
    name="multihomed",
    label="WLAN with two providers",
    topology="multihomed-visited",
    parameters=FAR_HOME,
    duration_s=DURATION_S,
)
MOVES = Scenario(
    name="moves",
    label="WLAN → LTE",
    parameters=FAR_HOME,
    duration_s=DURATION_S,
    events=(
        Event(
            at_s=MOVES_S,
            kind="planned-handover",
            target="mn-wlan",
            parameters={"to": "mn-lte", "overlap_s": OVERLAP_S},
        ),
    ),
)
SCENARIOS = (ONE, TWO, MULTIHOMED, MOVES)
_ALL = tuple(scenario.name for scenario in SCENARIOS)


def _round_trip_ms(*delays_ms: float) -> float:
    return 2 * sum(delays_ms)


OVER_HOME_MS = _round_trip_ms(WLAN_MS, HOME_MS, HOME_MS)
"""To the home agent and back to the core, and so in both directions: the tunnel is bidirectional (RFC 3024)."""

EXPERIMENT = Experiment(
    name="mip-mptcp-route-optimisation",
    title="Route optimisation by Mobile IP and MPTCP",
    summary=f"A mobile node away from home downloads for {DURATION_S:g} s to its home address. Its home network is "
    f"{HOME_MS:g} ms further away, so that the round trip over the home agent takes {OVER_HOME_MS:g} ms and the direct one "
    f"over the WLAN {_round_trip_ms(WLAN_MS):g} ms. Mobile IPv4 has no other way; with MPTCP above, care-of addresses join.",
    scenarios=SCENARIOS,
    mechanisms=(PLAIN, ONLY_MPTCP, ONLY_MOBILE_IP, *OURS),
    claims=(
        Claim(
            id="joins",
            text="Care-of addresses join as soon as communication is established, here: within 1 s",
            source=Source(key=PAPER, where="section 5.1"),
            metric="home_agent.direct_since_s",
            aggregate="max",
            bound=Bound(op="<=", value=1.0, unit="s"),
            mechanisms=OURS,
            scenarios=_ALL,
            published="“as soon as communication is established”, no figure",
        ),
        Claim(
            id="no-bytes",
            text="With the home address' subflow closed no data passes the home agent any more",
            source=Source(key=PAPER, where="section 5.1"),
            metric="home_agent.settled_bytes",
            aggregate="max",
            bound=Bound(op="<=", value=0.0, unit="bytes"),
            mechanisms=(DIRECT,),
            scenarios=_ALL,
            published="“packets are not exchanged through the path through the HA”",
        ),
        Claim(
            id="home-address",
            text="The programs' addresses stay those that were used to initiate the communication: the home address",
            source=Source(key=PAPER, where="section 5.1"),
            metric="home_agent.application_uses_home_address",
            aggregate="all",
            bound=Bound(op="==", value=True),
            mechanisms=OURS,
            scenarios=_ALL,
        ),
        Claim(
            id="survives",
            text="Closing the subflow of the home address costs no byte of the connection",
            source=Source(key=PAPER, where="section 5.1"),
            metric="survived",
            aggregate="all",
            bound=Bound(op="==", value=True),
            mechanisms=OURS,
            scenarios=_ALL,
        ),
        Claim(
            id="direct-round-trip",
            text="The round trip becomes that of the direct path over the WLAN",
            source=Source(key=PAPER, where="section 5.2"),
            metric="home_agent.settled_round_trip_ms",
            aggregate="max",
            bound=Bound(op="<=", value=MARGIN * _round_trip_ms(WLAN_MS), unit="ms"),
            mechanisms=(DIRECT,),
            scenarios=(ONE.name, MULTIHOMED.name),
            published="“effectively do route optimisation”, no figure",
        ),
        Claim(
            id="direct-round-trip-two",
            text="With WLAN and LTE it is at most that of the longer direct path",
            source=Source(key=PAPER, where="section 5.2"),
            metric="home_agent.settled_round_trip_ms",
            aggregate="max",
            bound=Bound(op="<=", value=MARGIN * _round_trip_ms(LTE_MS), unit="ms"),
            mechanisms=(DIRECT,),
            scenarios=(TWO.name, MOVES.name),
        ),
        Claim(
            id="mobile-ip-alone",
            text="With Mobile IPv4 alone all data passes the home agent",
            source=Source(key=PAPER, where="section 2"),
            metric="home_agent.share",
            aggregate="min",
            bound=Bound(op=">=", value=1.0),
            mechanisms=(ONLY_MOBILE_IP,),
            scenarios=_ALL,
        ),
        Claim(
            id="mobile-ip-round-trip",
            text="and takes the round trip over the home agent",
            source=Source(key=PAPER, where="section 2"),
            metric="home_agent.settled_round_trip_ms",
            aggregate="min",
            bound=Bound(op=">=", value=OVER_HOME_MS, unit="ms"),
            mechanisms=(ONLY_MOBILE_IP,),
            scenarios=_ALL,
        ),
        Claim(
            id="standard",
            text="Neither protocol's messages are modified: options, messages, extensions and packets are all of the standards",
            source=Source(key=PAPER, where="section 5.1"),
            metric="audit.non_standard",
            aggregate="max",
            bound=Bound(op="<=", value=0.0),
            mechanisms=OURS,
            scenarios=_ALL,
            published="“without requiring any modification to either of their protocol messages”",
        ),
        Claim(
            id="audited",
            text="The audit has seen registrations: a request and its reply at the least",
            metric="audit.messages",
            aggregate="min",
            bound=Bound(op=">=", value=2.0),
            mechanisms=OURS,
            scenarios=(MOVES.name,),
        ),
    ),
    repetitions=5,
)
