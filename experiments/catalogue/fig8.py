"""Figure 8 of the paper on the lightweight MPTCP proxy: seamless handover between Wi-Fi and Ethernet, and back."""

from experiments.model import Bound, Claim, Event, Experiment, Scenario, Source

PAPER = "hampel2013"  # key in docs/references.bib
WLAN, ETHERNET = "mn-wlan", "mn-eth"
TO_ETHERNET_S, TO_WLAN_S, DURATION_S = 5.0, 10.0, 15.0
GRACE_MS = 20.0
"""What scheduling may add to one round trip. The round trip is the one of that moment, queues included: the native sender opens
the window of a fresh subflow until the queue overflows, and repairs that one round trip later."""
MECHANISMS = ("proxy-proxy", "proxy-mptcp")


def handovers(name: str, label: str, access: object) -> Scenario:
    """Both paths work all the time; the MN moves the traffic to the second one and back."""
    return Scenario(
        name=name,
        label=label,
        parameters={"access": access},
        duration_s=DURATION_S,
        events=(
            Event(at_s=TO_ETHERNET_S, kind="prefer", target=ETHERNET, parameters={"over": WLAN}),
            Event(at_s=TO_WLAN_S, kind="prefer", target=WLAN, parameters={"over": ETHERNET}),
        ),
    )


def _gap(number: int, text: str) -> Claim:
    return Claim(
        id=f"seamless-{number + 1}",
        text=text,
        source=Source(key=PAPER, where="section 5.3, figure 8"),
        metric=f"stream.handovers.{number}.gap_beyond_round_trip_ms",
        bound=Bound(op="<=", value=GRACE_MS, unit="ms"),
        mechanisms=MECHANISMS,
        scenarios=("both-ways",),
        published="no significant interruption on a scale of 200 ms",
    )


EXPERIMENT = Experiment(
    name="fig8",
    title="Seamless handover: Wi-Fi to Ethernet and back (figure 8)",
    summary="A CN streams to a multihomed MN. At 5 s the MN's proxy asks for the Ethernet path (MP_PRIO), at 10 s for the WLAN "
    "again; both work all the time. Paths: WLAN 20 Mbit/s, 15 ms; Ethernet 20 Mbit/s, 2 ms.",
    scenarios=(
        handovers(
            "both-ways", "Wi-Fi → Ethernet → Wi-Fi", ["wlan", {"name": "eth", "profile": {"rate_mbit": 20.0, "delay_ms": 2.0}}]
        ),
    ),
    mechanisms=MECHANISMS,
    claims=(
        _gap(0, "Wi-Fi to Ethernet: no gap longer than one round trip and 20 ms"),
        _gap(1, "Ethernet to Wi-Fi: no gap longer than one round trip and 20 ms"),
        Claim(
            id="nothing-lost",
            text="Not one byte of the application's data is lost or changed",
            source=Source(key=PAPER, where="section 5.3"),
            metric="survived",
            aggregate="all",
            bound=Bound(op="==", value=True),
            mechanisms=MECHANISMS,
            scenarios=("both-ways",),
        ),
    ),
    repetitions=3,
)
