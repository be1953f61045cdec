"""What happens to a live download when the WLAN is lost, in six ways, and comes back."""

from experiments.model import Bound, Claim, Event, Experiment, Scenario, Source

LOST_S, BACK_S, DURATION_S = 5.0, 12.0, 20.0
WLAN = "mn-wlan"
_PAPER = "mobile-host-multihoming"  # key of the paper on Mobile IP + MPTCP host multihoming


def _outage(name: str, label: str, lost: str, back: str) -> Scenario:
    """The WLAN is lost by one kind of event and comes back by another."""
    events = (Event(at_s=LOST_S, kind=lost, target=WLAN), Event(at_s=BACK_S, kind=back, target=WLAN))
    return Scenario(name=name, label=label, duration_s=DURATION_S, events=events)


SCENARIOS = (
    _outage("carrier-loss", "carrier loss", "carrier-loss", "carrier-return"),
    _outage("interface-down", "interface down", "interface-down", "interface-up"),
    _outage("blackhole", "silent blackhole", "blackhole-on", "blackhole-off"),
    _outage("address-removed", "address removed, another later", "address-remove", "address-assign"),
    Scenario(
        name="handover",
        label="planned handover, 2 s overlap",
        duration_s=DURATION_S,
        events=(
            Event(at_s=LOST_S - 2.0, kind="planned-handover", target=WLAN, parameters={"to": "mn-lte", "overlap_s": 2.0}),
            Event(at_s=BACK_S, kind="interface-up", target=WLAN),
            Event(at_s=BACK_S + 1.0, kind="prefer", target=WLAN, parameters={"over": "mn-lte"}),
        ),
    ),
    Scenario(name="no-event", label="no event", duration_s=DURATION_S),
)
_ALL = tuple(scenario.name for scenario in SCENARIOS)
_SAME_ADDRESS_RETURNS = ("carrier-loss", "interface-down", "blackhole", "handover")
_MULTIPATH = ("mptcp", "mptcp-backup")

EXPERIMENT = Experiment(
    name="outage",
    title="A download while the WLAN is lost",
    summary="A mobile node with WLAN (20 Mbit/s, 15 ms) and LTE (10 Mbit/s, 35 ms) downloads for 20 s. The WLAN is lost "
    "at 5 s and is back at 12 s. Plain TCP is bound to the WLAN; MPTCP uses both networks, or keeps LTE as a backup.",
    scenarios=SCENARIOS,
    mechanisms=("tcp", *_MULTIPATH),
    claims=(
        Claim(
            id="multipath-survives",
            text="With MPTCP the transfer survives every kind of outage of one network",
            source=Source(key=_PAPER, where="section 5.2"),
            metric="survived",
            aggregate="all",
            bound=Bound(op="==", value=True),
            mechanisms=_MULTIPATH,
            scenarios=_ALL,
        ),
        Claim(
            id="no-break",
            text="MPTCP continues over the other path without a break, here: with a handover gap of at most 1 s",
            source=Source(key=_PAPER, where="section 5.2"),
            metric="gap_ms",
            aggregate="max",
            bound=Bound(op="<=", value=1000.0, unit="ms"),
            mechanisms=_MULTIPATH,
            scenarios=tuple(name for name in _ALL if name not in ("no-event", "handover")),
            published="“without a break”, no figure",
        ),
        Claim(
            id="smooth-handover",
            text="Make-before-break handover is smooth, here: with a gap of at most 250 ms",
            source=Source(key=_PAPER, where="section 5.2"),
            metric="gap_ms",
            aggregate="max",
            bound=Bound(op="<=", value=250.0, unit="ms"),
            mechanisms=_MULTIPATH,
            scenarios=("handover",),
            published="“smooth”, no figure",
        ),
        Claim(
            id="tcp-dies-with-its-address",
            text="A TCP connection does not survive the loss of its address when another one follows",
            source=Source(key=_PAPER, where="section 4"),
            metric="survived",
            aggregate="all",
            bound=Bound(op="==", value=False),
            mechanisms=("tcp",),
            scenarios=("address-removed",),
        ),
        Claim(
            id="tcp-resumes",
            text="A TCP connection whose address returns resumes",
            metric="survived",
            aggregate="all",
            bound=Bound(op="==", value=True),
            mechanisms=("tcp",),
            scenarios=_SAME_ADDRESS_RETURNS,
        ),
        Claim(
            id="tcp-waits",
            text="Plain TCP stands still at least as long as the outage lasts",
            metric="gap_ms",
            aggregate="min",
            bound=Bound(op=">=", value=(BACK_S - LOST_S) * 1000 - 100, unit="ms"),
            mechanisms=("tcp",),
            scenarios=_SAME_ADDRESS_RETURNS,
        ),
        Claim(
            id="aggregation",
            text="Without an event MPTCP uses the capacity of both paths, here: at least 85 % of 30 Mbit/s less headers",
            source=Source(key=_PAPER, where="section 5.2"),
            metric="goodput_mbit",
            bound=Bound(op=">=", value=24.0, unit="Mbit/s"),
            mechanisms=("mptcp",),
            scenarios=("no-event",),
        ),
    ),
)
