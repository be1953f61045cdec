"""The example of RFC 7629: HTTP on the WLAN, voice on LTE, and three access networks; the WLAN is lost and comes back.

Figure 1: a mobile node at WLAN, LTE and CDMA. Figure 3: it registers over WLAN, then over LTE, each request with the Multipath
extension and the flow bindings; the policy is then in force at both ends.
"""

from experiments.model import Bound, Claim, Event, Experiment, Scenario, Source, Workload

RFC = "rfc7629"
MECHANISM = "mip4-multipath-flows"
WLAN, LTE = "mn-wlan", "mn-lte"
ACCESS = ("wlan", "lte", {"name": "cdma", "profile": {"rate_mbit": 3.1, "delay_ms": 60.0}})
LTE_S, LOST_S, BACK_S, DURATION_S = 3.0, 6.0, 11.0, 18.0
CALL_FLOW, TABLE = "call-flow", "wlan-lost"
HTTP, VOICE, SIP = "flows.bulk-1", "flows.voice-1", "flows.rpc-1"

_LOSS = (
    Event(at_s=LOST_S, kind="carrier-loss", target=WLAN),
    Event(at_s=BACK_S, kind="carrier-return", target=WLAN),
)
SCENARIOS = (
    Scenario(
        name=TABLE,
        label="WLAN lost at 6 s, back at 11 s",
        parameters={"access": ACCESS, "homes": 1},
        duration_s=DURATION_S,
        events=_LOSS,
    ),
    Scenario(
        name=CALL_FLOW,
        label="LTE appears at 3 s; WLAN lost at 6 s, back at 11 s",
        parameters={"access": ACCESS, "homes": 1},
        duration_s=DURATION_S,
        events=(Event(at_s=LTE_S, kind="interface-appears", target=LTE), *_LOSS),
    ),
)
_SECTION = "section 3, figures 1 to 3"


def _all_on(claim: str, text: str, flow: str, path: str, phase: int, scenario: str, part: str) -> tuple[Claim, ...]:
    """All packets of a flow are on one tunnel in a phase, in both directions."""
    return tuple(
        Claim(
            id=f"{claim}-{way}",
            text=f"{text} ({'to' if way == 'down' else 'from'} the mobile node)",
            source=Source(key=RFC, where=_SECTION),
            metric=f"{flow}.phases.{phase}.{part}{way}.{path}",
            aggregate="min",
            bound=Bound(op=">=", value=1.0),
            mechanisms=(MECHANISM,),
            scenarios=(scenario,),
        )
        for way in ("down", "up")
    )


EXPERIMENT = Experiment(
    name="flow-binding",
    title="Flow bindings: HTTP on WLAN, voice on LTE (RFC 7629)",
    summary="A download from port 80, a voice call and a SIP-like dialogue between a node with WLAN, LTE and CDMA and its "
    "correspondent. The mobile node negotiates flow bindings with its home agent: HTTP and SIP on the WLAN, voice on LTE; "
    "without WLAN HTTP takes CDMA and SIP takes LTE. Shares are of packets at the mobile node, inside the tunnels.",
    scenarios=SCENARIOS,
    mechanisms=(MECHANISM,),
    workloads=(Workload(kind="mix", parameters={"bulk": 1, "voice": 1, "rpc": 1}),),
    claims=(
        *_all_on("http-wlan", "HTTP is on the WLAN's tunnel", HTTP, "wlan", 0, TABLE, ""),
        *_all_on("sip-wlan", "SIP is on the WLAN's tunnel", SIP, "wlan", 0, TABLE, ""),
        *(
            claim
            for phase, when in enumerate(("before", "during", "after"))
            for claim in _all_on(
                f"voice-lte-{when}", f"Voice is on LTE's tunnel, {when} the loss", VOICE, "lte", phase, TABLE, ""
            )
        ),
        *_all_on(
            "http-moves", "Without WLAN HTTP is on the next tunnel of its flow binding", HTTP, "cdma", 1, TABLE, "settled."
        ),
        *_all_on("sip-moves", "Without WLAN SIP is on the next tunnel of its flow binding", SIP, "lte", 1, TABLE, "settled."),
        *_all_on("http-returns", "When the WLAN is back HTTP returns to it", HTTP, "wlan", 2, TABLE, "settled."),
        *_all_on("voice-joins", "Voice takes LTE as soon as its tunnel is there", VOICE, "lte", 1, CALL_FLOW, "settled."),
        Claim(
            id="voice-loses-nothing",
            text="The loss of the WLAN costs the call no packet",
            source=Source(key=RFC, where=_SECTION),
            metric=f"{VOICE}.voice.loss",
            aggregate="max",
            bound=Bound(op="<=", value=0.0),
            mechanisms=(MECHANISM,),
            scenarios=(TABLE,),
        ),
        Claim(
            id="http-gap",
            text="The download goes on within 2 s of the loss",
            metric=f"{HTTP}.gap_ms",
            aggregate="max",
            bound=Bound(op="<=", value=2000.0, unit="ms"),
            mechanisms=(MECHANISM,),
            scenarios=(TABLE,),
        ),
        Claim(
            id="own-interface",
            text="Every registration goes through the interface whose care-of address it registers",
            source=Source(key=RFC, where="section 5.1"),
            metric="mobileip.own_interface",
            aggregate="all",
            bound=Bound(op="==", value=True),
            mechanisms=(MECHANISM,),
            scenarios=(CALL_FLOW,),
        ),
        Claim(
            id="multipath",
            text="Every request has the Multipath extension",
            source=Source(key=RFC, where="section 5.1"),
            metric="mobileip.multipath",
            aggregate="all",
            bound=Bound(op="==", value=True),
            mechanisms=(MECHANISM,),
            scenarios=(CALL_FLOW,),
        ),
        Claim(
            id="flow-bindings",
            text="LTE's first request has the three flow bindings",
            source=Source(key=RFC, where="section 3.1, figure 3"),
            metric="mobileip.flow_bindings",
            aggregate="min",
            bound=Bound(op=">=", value=3.0),
            mechanisms=(MECHANISM,),
            scenarios=(CALL_FLOW,),
        ),
        Claim(
            id="call-flow",
            text="The registrations of LTE when it appears, and of the WLAN when it is back, are accepted",
            source=Source(key=RFC, where="section 3.1, figure 3"),
            metric="mobileip.accepted",
            aggregate="min",
            bound=Bound(op=">=", value=2.0),
            mechanisms=(MECHANISM,),
            scenarios=(CALL_FLOW,),
        ),
        Claim(
            id="all-survive",
            text="Every flow survives",
            metric="survived",
            aggregate="all",
            bound=Bound(op="==", value=True),
            mechanisms=(MECHANISM,),
            scenarios=(TABLE, CALL_FLOW),
        ),
    ),
    repetitions=3,
)
