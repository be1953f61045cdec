"""The home agent is killed and started again while traffic flows; its bindings are on its disk."""

from experiments.model import Bound, Claim, Event, Experiment, Scenario, Source, Workload

MECHANISMS = ("mip4", "mip4-multipath")
CRASH_S, DURATION_S = 4.0, 20.0
DOWN_S = (0.5, 5.0)


def _restart(down_s: float) -> Scenario:
    return Scenario(
        name=f"down-{down_s:g}".replace(".", "_"),
        label=f"home agent down for {down_s:g} s",
        parameters={"homes": 1},
        duration_s=DURATION_S,
        events=(
            Event(at_s=CRASH_S, kind="node-crash", target="ha1"),
            Event(at_s=CRASH_S + down_s, kind="node-restart", target="ha1"),
        ),
    )


SCENARIOS = tuple(map(_restart, DOWN_S))

EXPERIMENT = Experiment(
    name="ha-restart",
    title="The home agent crashes and is back",
    summary="At 4 s everything on the home agent's node is killed and the node is silent; 0.5 s or 5 s later it is "
    "back and reads its bindings from disk. Three downloads and a dialogue go on. "
    "The mobile node keeps its paths, for all are silent at the same time (probes), and asks for its bindings again.",
    scenarios=SCENARIOS,
    mechanisms=MECHANISMS,
    workloads=(Workload(kind="mix", parameters={"bulk": 3, "rpc": 1}),),
    claims=(
        Claim(
            id="no-flow-is-lost",
            text="No flow is lost: every download arrives whole, the dialogue goes on",
            source=Source(key="rfc5944", where="section 3.8.1"),
            metric="survived",
            aggregate="all",
            bound=Bound(op="==", value=True),
            mechanisms=MECHANISMS,
            scenarios=tuple(scenario.name for scenario in SCENARIOS),
        ),
        *(
            Claim(
                id=f"gap-{scenario.name}",
                text=f"Down for {down_s:g} s: no gap longer than that, the start of the agent, and TCP's next repetition",
                metric="gap_ms",
                aggregate="max",
                bound=Bound(op="<=", value=down_s * 2000 + 4000, unit="ms"),
                mechanisms=MECHANISMS,
                scenarios=(scenario.name,),
            )
            for down_s, scenario in zip(DOWN_S, SCENARIOS, strict=True)
        ),
    ),
    repetitions=3,
)
