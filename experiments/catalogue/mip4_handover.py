"""Handover with Mobile IPv4: co-located care-of addresses and foreign agents, with and without overlap of the networks."""

from experiments.model import Bound, Claim, Event, Experiment, Scenario, Source

CO_LOCATED, FOREIGN = "mip4", "mip4-fa"
WLAN, LTE = "mn-wlan", "mn-lte"
HANDOVER_S, DURATION_S = 5.0, 12.0
OVERLAPS_S = (0.0, 0.2, 1.0, 3.0)


def _overlap(overlap_s: float) -> Scenario:
    return Scenario(
        name=f"overlap-{overlap_s:g}".replace(".", "_"),
        label=f"{overlap_s:g} s of overlap" if overlap_s else "no overlap",
        duration_s=DURATION_S,
        events=(Event(at_s=HANDOVER_S, kind="planned-handover", target=WLAN, parameters={"to": LTE, "overlap_s": overlap_s}),),
    )


SCENARIOS = tuple(map(_overlap, OVERLAPS_S))
_LONG = tuple(_overlap(overlap_s).name for overlap_s in OVERLAPS_S if overlap_s >= 1)

EXPERIMENT = Experiment(
    name="mip4-handover",
    title="Handover with Mobile IPv4, with and without overlap",
    summary="A mobile node with WLAN and LTE downloads. At 5 s it is told to go from WLAN to LTE; both work for 0 to 3 s, "
    "then the WLAN goes down. With foreign agents the access routers end the tunnels, and the mobile node waits for their "
    "advertisements (one a second, or on solicitation).",
    scenarios=SCENARIOS,
    mechanisms=(CO_LOCATED, FOREIGN),
    claims=(
        Claim(
            id="survives",
            text="The connection survives every handover",
            source=Source(key="rfc5944", where="section 1.1"),
            metric="survived",
            aggregate="all",
            bound=Bound(op="==", value=True),
            mechanisms=(CO_LOCATED, FOREIGN),
            scenarios=tuple(scenario.name for scenario in SCENARIOS),
        ),
        Claim(
            id="overlap-hides-registration",
            text="With an overlap of 1 s or more, longer than a registration takes, the gap is at most 500 ms",
            source=Source(key="bagnulo2010", where="section 5.2"),
            metric="gap_ms",
            aggregate="max",
            bound=Bound(op="<=", value=500.0, unit="ms"),
            mechanisms=(CO_LOCATED, FOREIGN),
            scenarios=_LONG,
        ),
        Claim(
            id="without-overlap",
            text="Without overlap data waits for the registration and for TCP's repetition: at most 3 s",
            metric="gap_ms",
            aggregate="max",
            bound=Bound(op="<=", value=3000.0, unit="ms"),
            mechanisms=(CO_LOCATED, FOREIGN),
            scenarios=("overlap-0",),
        ),
    ),
    repetitions=3,
)
