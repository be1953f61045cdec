"""Paths that fail one after the other, in many orders, until one is left: care-of addresses directly, home addresses through
their home agents.

The last order leaves none: a connection without any path must not survive, or the experiment would not show anything.
"""

from experiments.model import Bound, Claim, Event, Experiment, Scenario, Source

PAPER = "mobile-host-multihoming"
FIRST_S, SECOND_S, THIRD_S, DURATION_S = 4.0, 7.0, 10.0, 16.0
WLAN, LTE = "10.1.0.0/24", "10.2.0.0/24"


def _agent(number: int, at_s: float) -> Event:
    """The path over a home agent fails."""
    return Event(at_s=at_s, kind="node-crash", target=f"ha{number}")


def _direct(prefix: str, at_s: float) -> Event:
    """The CN's network loses its way to a care-of address; the home agents' tunnels to it work."""
    return Event(at_s=at_s, kind="prefix-lost", target="cr1", parameters={"prefix": prefix})


def _access(name: str, at_s: float, *, back: bool = False) -> Event:
    """An access network goes silent: the care-of address, and the tunnels that end there."""
    return Event(at_s=at_s, kind="blackhole-off" if back else "blackhole-on", target=f"mn-{name}")


def _order(name: str, label: str, *events: Event) -> Scenario:
    return Scenario(name=name, label=label, parameters={"homes": 2}, duration_s=DURATION_S, events=events)


ORDERS = (
    _order("lte-left", "HA 1, HA 2, WLAN", _agent(1, FIRST_S), _agent(2, SECOND_S), _access("wlan", THIRD_S)),
    _order("wlan-left", "LTE, HA 1, HA 2", _access("lte", FIRST_S), _agent(1, SECOND_S), _agent(2, THIRD_S)),
    _order("ha2-left", "WLAN direct, LTE direct, HA 1",
           _direct(WLAN, FIRST_S), _direct(LTE, SECOND_S), _agent(1, THIRD_S)),
    _order("ha1-left", "HA 2, LTE direct, WLAN direct",
           _agent(2, FIRST_S), _direct(LTE, SECOND_S), _direct(WLAN, THIRD_S)),
    _order("in-turn", "HA 1, WLAN until LTE",
           _agent(1, FIRST_S), _access("wlan", FIRST_S + 1.0), _access("wlan", THIRD_S - 2.0, back=True),
           _access("lte", THIRD_S)),
)  # fmt: skip
NONE_LEFT = _order("none-left", "WLAN, LTE", _access("wlan", FIRST_S), _access("lte", SECOND_S))

HOME, OURS = ("mip4-homes", "mip4-multipath-homes"), ("mip-mptcp-homes", "mip-mptcp-direct-homes")
_ORDERS = tuple(scenario.name for scenario in ORDERS)

EXPERIMENT = Experiment(
    name="mip-mptcp-orders",
    title="Paths fail in all orders until one is left",
    summary="A mobile node in WLAN and LTE with two home agents downloads, so there are four kinds of paths: two direct ones "
    "and two over home agents. They fail one after the other, silently, until one is left; in the last scenario none is. "
    "MPTCP alone has the direct ones.",
    scenarios=(*ORDERS, NONE_LEFT),
    mechanisms=("mptcp", *HOME, *OURS),
    claims=(
        Claim(
            id="one-path-is-enough",
            text="The connection survives as long as there is at least one path available",
            source=Source(key=PAPER, where="section 6"),
            metric="survived",
            aggregate="all",
            bound=Bound(op="==", value=True),
            mechanisms=OURS,
            scenarios=_ORDERS,
            published="“survive as long there is at least one path available”",
        ),
        Claim(
            id="no-path-is-not",
            text="Without any path it does not survive",
            metric="survived",
            aggregate="all",
            bound=Bound(op="==", value=False),
            mechanisms=OURS,
            scenarios=(NONE_LEFT.name,),
        ),
        Claim(
            id="one-home-address-is-not",
            text="Mobile IP alone loses the connection with the home agent of its home address, whatever else is left",
            source=Source(key=PAPER, where="section 4"),
            metric="survived",
            aggregate="all",
            bound=Bound(op="==", value=False),
            mechanisms=HOME,
            scenarios=tuple(name for name in _ORDERS if name != "ha1-left"),
        ),
        Claim(
            id="direct-paths-are-not",
            text="MPTCP alone loses the connection with the direct paths, although a home agent is left",
            metric="survived",
            aggregate="all",
            bound=Bound(op="==", value=False),
            mechanisms=("mptcp",),
            scenarios=("ha2-left", "ha1-left"),
        ),
    ),
    repetitions=5,
)
