"""From home to visited network A, to B and home again with one interface; the connection is opened at home."""

from experiments.model import Bound, Claim, Event, Experiment, Scenario, Source

MOBILE, FOREIGN, PLAIN = "mip4", "mip4-fa", "tcp"
INTERFACE = "mn-home"
TO_A_S, TO_B_S, HOME_S, DURATION_S = 4.0, 9.0, 14.0, 20.0

TOUR = Scenario(
    name="tour",
    label="home → A → B → home",
    parameters={
        "homes": 1,
        "at_home": True,
        "access": [
            {"name": "a", "profile": "wlan", "attached": False},
            {"name": "b", "profile": {"rate_mbit": 10.0, "delay_ms": 35.0}, "attached": False},
        ],
    },
    duration_s=DURATION_S,
    events=(
        Event(at_s=TO_A_S, kind="reattach", target=INTERFACE, parameters={"to": "ar1/ap1"}),
        Event(at_s=TO_B_S, kind="reattach", target=INTERFACE, parameters={"to": "ar2/ap1"}),
        Event(at_s=HOME_S, kind="reattach", target=INTERFACE, parameters={"to": "hr1/ap1"}),
    ),
)

EXPERIMENT = Experiment(
    name="roaming",
    title="Roaming with one interface: home, A, B, home",
    summary="A mobile node with one interface starts a download at home and takes it to two visited networks and back. At "
    "home there is no tunnel; away its care-of address comes from DHCP. Plain TCP is bound to its address of the home network.",
    scenarios=(TOUR,),
    mechanisms=(MOBILE, FOREIGN, PLAIN),
    claims=(
        Claim(
            id="survives",
            text="The connection opened at home survives the whole tour",
            source=Source(key="rfc5944", where="section 1.1"),
            metric="survived",
            aggregate="all",
            bound=Bound(op="==", value=True),
            mechanisms=(MOBILE, FOREIGN),
            scenarios=(TOUR.name,),
        ),
        Claim(
            id="gap",
            text="No move costs more than 5 s: loss of the link, DHCP, registration and TCP's repetition",
            metric="gap_ms",
            aggregate="max",
            bound=Bound(op="<=", value=5000.0, unit="ms"),
            mechanisms=(MOBILE, FOREIGN),
            scenarios=(TOUR.name,),
        ),
        Claim(
            id="deregisters",
            text="At home again the mobile node takes its binding off",
            source=Source(key="rfc5944", where="section 2.4.3"),
            metric="mobileip.deregistrations",
            aggregate="min",
            bound=Bound(op=">=", value=1.0),
            mechanisms=(MOBILE, FOREIGN),
            scenarios=(TOUR.name,),
        ),
        Claim(
            id="plain-waits",
            text="Plain TCP stands still while the host is away",
            metric="gap_ms",
            aggregate="min",
            bound=Bound(op=">=", value=(HOME_S - TO_A_S) * 1000 - 100, unit="ms"),
            mechanisms=(PLAIN,),
            scenarios=(TOUR.name,),
        ),
    ),
    repetitions=3,
)
