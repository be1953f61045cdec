"""Figure 9 of the paper on the lightweight MPTCP proxy: break before make, with and without SACK."""

from experiments.model import Bound, Claim, Event, Experiment, Scenario, Source

PAPER = "hampel2013"
FIRST, SECOND = "mn-eth1", "mn-eth2"
BREAK_S, DURATION_S = 3.0, 8.0
DELAY_MS, RATE_MBIT = 30.0, 20.0
SINGLE, BEYOND, PREPARED = "proxy-proxy-single", "proxy-proxy-single-nudge", "proxy-proxy"
GAP = "stream.handovers.0.gap_ms"


def paths(delay_ms: float) -> list[dict[str, object]]:
    """Two Ethernet paths with an added delay in each direction."""
    profile = {"rate_mbit": RATE_MBIT, "delay_ms": delay_ms}
    return [{"name": name, "profile": dict(profile)} for name in ("eth1", "eth2")]


def breaks(name: str, label: str, *, sack: bool, delay_ms: float = DELAY_MS) -> Scenario:
    """The command of the MN cuts the first path, joins over the second one and tells the CN; the network stays as it is."""
    return Scenario(
        name=name,
        label=label,
        parameters={"access": paths(delay_ms), "sack": sack},
        duration_s=DURATION_S,
        events=(Event(at_s=BREAK_S, kind="break-before-make", target=FIRST, parameters={"to": SECOND}),),
    )


def _recovery(claim: str, text: str, mechanism: str, scenario: str, limit_ms: float, published: str | None) -> Claim:
    return Claim(
        id=claim,
        text=text,
        source=Source(key=PAPER, where="section 5.4, figure 9"),
        metric=GAP,
        bound=Bound(op="<=", value=limit_ms, unit="ms"),
        mechanisms=(mechanism,),
        scenarios=(scenario,),
        published=published,
    )


EXPERIMENT = Experiment(
    name="fig9",
    title="Break before make, with and without SACK (figure 9)",
    summary="A CN streams to an MN over one of two Ethernet paths (20 Mbit/s, 30 ms added in each direction). At 3 s a command "
    "on the MN cuts the subflow, joins another one over the second path and signals MP_PRIO and REMOVE_ADDR. The "
    "figure is the longest time without new data from the command on.",
    scenarios=(breaks("sack", "with SACK", sack=True), breaks("no-sack", "without SACK", sack=False)),
    mechanisms=(SINGLE, BEYOND, PREPARED),
    claims=(
        _recovery("sack-paper", "With SACK, the paper's rules: recovered within 250 ms", SINGLE, "sack", 250.0, "about 250 ms"),
        _recovery(
            "sack-beyond", "With SACK, retransmission at once: recovered within 250 ms", BEYOND, "sack", 250.0, "about 250 ms"
        ),
        _recovery(
            "prepared", "With a backup subflow that was joined before: recovered within 150 ms", PREPARED, "sack", 150.0, None
        ),
        _recovery(
            "no-sack-beyond",
            "Without SACK, monotonous mappings: recovered within 500 ms",
            BEYOND,
            "no-sack",
            500.0,
            "about 4.4 s",
        ),
        Claim(
            id="nothing-lost",
            text="Not one byte of the application's data is lost or changed",
            source=Source(key=PAPER, where="section 5.4"),
            metric="survived",
            aggregate="all",
            bound=Bound(op="==", value=True),
            mechanisms=(SINGLE, BEYOND, PREPARED),
            scenarios=("sack", "no-sack"),
        ),
    ),
    repetitions=5,
)
