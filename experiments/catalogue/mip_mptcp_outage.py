"""How long a connection stands still: Mobile IP with MPTCP beside each of the two alone, when nothing overlaps."""

from experiments.model import Bound, Claim, Event, Experiment, Scenario, Source

BOTH, DIRECT, ONLY_MPTCP, ONLY_MOBILE_IP = "mip-mptcp", "mip-mptcp-direct", "mptcp", "mip4"
OURS = (BOTH, DIRECT)
WLAN, LTE = "mn-wlan", "mn-lte"
LOST_S, BACK_S, DURATION_S = 5.0, 12.0, 15.0
LATER_S = 0.5
"""So much later than the loss the other network or address is there: break before make."""
PAPER = "mobile-host-multihoming"

SCENARIOS = (
    Scenario(
        name="silent-death",
        label="WLAN dies silently, LTE works",
        duration_s=DURATION_S,
        events=(
            Event(at_s=LOST_S, kind="blackhole-on", target=WLAN),
            Event(at_s=BACK_S, kind="blackhole-off", target=WLAN),
        ),
    ),
    Scenario(
        name="no-overlap",
        label=f"WLAN lost, LTE appears {LATER_S:g} s later",
        duration_s=DURATION_S,
        events=(
            Event(at_s=LOST_S, kind="carrier-loss", target=WLAN),
            Event(at_s=LOST_S + LATER_S, kind="interface-appears", target=LTE),
        ),
    ),
    Scenario(
        name="address-change",
        label=f"WLAN only, another address {LATER_S:g} s later",
        parameters={"access": "wlan"},
        duration_s=DURATION_S,
        events=(
            Event(at_s=LOST_S, kind="address-remove", target=WLAN),
            Event(at_s=LOST_S + LATER_S, kind="address-assign", target=WLAN),
        ),
    ),
)
_ALL = tuple(scenario.name for scenario in SCENARIOS)


def _shortest(scenario: str, text: str, where: str) -> Claim:
    """In this scenario the connection stands still for less time than with either half of the architecture."""
    return Claim(
        id=f"shortest-{scenario}",
        text=text,
        source=Source(key=PAPER, where=where),
        metric="gap_ms",
        bound=Bound(op="<=", value=1.0, unit="ms", others=(ONLY_MPTCP, ONLY_MOBILE_IP)),
        mechanisms=(BOTH,),
        scenarios=(scenario,),
        published="no figure",
        min_repetitions=5,
    )


EXPERIMENT = Experiment(
    name="mip-mptcp-outage",
    title="How long a connection stands still: Mobile IP with MPTCP, and each alone",
    summary="A mobile node with WLAN (20 Mbit/s, 15 ms) and LTE (10 Mbit/s, 35 ms) downloads for 15 s. At 5 s the WLAN dies "
    "silently and is back at 12 s; or it loses its carrier and LTE only appears 0.5 s later; or there is only WLAN, and its "
    "address is replaced by another one after 0.5 s.",
    scenarios=SCENARIOS,
    mechanisms=(BOTH, DIRECT, ONLY_MPTCP, ONLY_MOBILE_IP, "tcp"),
    claims=(
        _shortest(
            "silent-death",
            "MPTCP detects that an interface stopped working and continues over the others: when the WLAN dies silently, the "
            "median gap of both together is the shortest",
            "section 5.2",
        ),
        _shortest(
            "no-overlap",
            "When no path is left until a new network is there, Mobile IP keeps the host reachable: the median gap of both "
            "together is the shortest",
            "section 5.1",
        ),
        _shortest(
            "address-change",
            "“When the MN moves, MPTCP uses the new CoA and MIP (as normal) updates the HoA-CoA binding”: the median gap of "
            "both together is the shortest",
            "section 5.1",
        ),
        Claim(
            id="survives",
            text="“The established connection will be able to survive as long there is at least one path available”: also when "
            "all paths are gone for half a second",
            source=Source(key=PAPER, where="section 6"),
            metric="survived",
            aggregate="all",
            bound=Bound(op="==", value=True),
            mechanisms=OURS,
            scenarios=_ALL,
        ),
        Claim(
            id="tcp-dies",
            text="Without either, a connection whose address is gone for good is lost",
            source=Source(key=PAPER, where="section 4"),
            metric="survived",
            aggregate="all",
            bound=Bound(op="==", value=False),
            mechanisms=("tcp",),
            scenarios=("no-overlap", "address-change"),
        ),
    ),
    repetitions=5,
)
