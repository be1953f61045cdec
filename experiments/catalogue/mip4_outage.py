"""Mobile IPv4 in the six ways in which the WLAN is lost: with one binding, and with one for every network."""

from experiments.catalogue.outage import SCENARIOS
from experiments.model import Bound, Claim, Experiment, Source

SINGLE, MULTIPATH = "mip4", "mip4-multipath-backup"
_ALL = tuple(scenario.name for scenario in SCENARIOS)
_SEEN_AT_ONCE = ("carrier-loss", "interface-down", "address-removed")

EXPERIMENT = Experiment(
    name="mip4-outage",
    title="Mobile IPv4 while the WLAN is lost",
    summary="The download of `outage`, to a home address. With one binding the mobile node registers through LTE when the WLAN "
    "is gone; with several the flow moves to a tunnel that stands by. What nobody reports is found by probes.",
    scenarios=SCENARIOS,
    mechanisms=(SINGLE, MULTIPATH),
    claims=(
        Claim(
            id="survives",
            text="The connection of the home address survives every kind of outage, and the change of the care-of address",
            source=Source(key="rfc5944", where="section 1.1"),
            metric="survived",
            aggregate="all",
            bound=Bound(op="==", value=True),
            mechanisms=(SINGLE, MULTIPATH),
            scenarios=_ALL,
        ),
        Claim(
            id="moves-soon",
            text="A loss that the host sees costs at most 1 s",
            metric="gap_ms",
            aggregate="max",
            bound=Bound(op="<=", value=1000.0, unit="ms"),
            mechanisms=(SINGLE, MULTIPATH),
            scenarios=_SEEN_AT_ONCE,
        ),
        Claim(
            id="silence-is-found",
            text="A silent path is given up after 2 s without answers to probes; with TCP's repetition the gap is at most 5 s",
            metric="gap_ms",
            aggregate="max",
            bound=Bound(op="<=", value=5000.0, unit="ms"),
            mechanisms=(SINGLE, MULTIPATH),
            scenarios=("blackhole",),
        ),
        Claim(
            id="make-before-break",
            text="A planned handover while both networks work costs at most 500 ms",
            metric="gap_ms",
            aggregate="max",
            bound=Bound(op="<=", value=500.0, unit="ms"),
            mechanisms=(SINGLE, MULTIPATH),
            scenarios=("handover",),
        ),
    ),
)
