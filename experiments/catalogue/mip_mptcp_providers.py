"""A home network and a visited network with two providers each: the provider of the addresses in use fails."""

from experiments.model import Bound, Claim, Event, Experiment, Scenario, Source

PAPER = "mobile-host-multihoming"
LOST_S, DURATION_S = 4.0, 13.0
_VISITED = ({"name": "wlan", "prefixes": 2}, "lte")
# Providers are numbered as the networks are built: access networks before home networks.
_HOME: dict[str, object] = {"homes": 1, "home_prefixes": 2}
_FOREIGN: dict[str, object] = {**_HOME, "access": _VISITED}


def _lost(name: str, label: str, node: str, parameters: dict[str, object]) -> Scenario:
    event = Event(at_s=LOST_S, kind="node-mute", target=node)
    return Scenario(name=name, label=label, parameters=parameters, duration_s=DURATION_S, events=(event,))


SCENARIOS = (
    _lost("home-provider", "provider 1 of the home network", "isp1", _HOME),
    _lost("visited-provider", "provider 1 of the visited network", "isp1", _FOREIGN),
    _lost("home-of-pairs", "provider 1 of the home network, 2 CN addresses", "isp1", {**_HOME, "cn_links": 2}),
    _lost("home-agent", "the only home agent", "ha1", _FOREIGN),
)
MOBILE_IP, OURS = "mip4-prefixes", "mip-mptcp-prefixes"
_ALL = tuple(scenario.name for scenario in SCENARIOS)

EXPERIMENT = Experiment(
    name="mip-mptcp-providers",
    title="Multihomed networks: a provider fails",
    summary="The home network has two providers, so the mobile node has two home addresses; in some scenarios its WLAN has "
    "two, so two care-of addresses there. The provider of the first address, or the home agent, is lost at 4 s of a download "
    "to the first home address.",
    scenarios=SCENARIOS,
    mechanisms=(MOBILE_IP, OURS),
    claims=(
        Claim(
            id="survives",
            text="The connection survives: both home addresses and all care-of addresses carry it",
            source=Source(key=PAPER, where="sections 4 and 5.1"),
            metric="survived",
            aggregate="all",
            bound=Bound(op="==", value=True),
            mechanisms=(OURS,),
            scenarios=_ALL,
        ),
        Claim(
            id="no-break",
            text="… with a gap of at most 1 s",
            source=Source(key=PAPER, where="section 5.2"),
            metric="gap_ms",
            aggregate="max",
            bound=Bound(op="<=", value=1000.0, unit="ms"),
            mechanisms=(OURS,),
            scenarios=_ALL,
            published="“without a break”, no figure",
        ),
        Claim(
            id="home-address-is-tied",
            text="Mobile IP alone loses it with the home address, although the other home address works",
            source=Source(key=PAPER, where="section 4"),
            metric="survived",
            aggregate="all",
            bound=Bound(op="==", value=False),
            mechanisms=(MOBILE_IP,),
            scenarios=("home-provider", "home-of-pairs", "home-agent"),
        ),
    ),
    repetitions=5,
)
