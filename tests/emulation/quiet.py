"""An experiment for the tests: five minutes in which little happens."""

from experiments.model import Event, Experiment, Scenario, Workload

DURATION_S = 300.0

EXPERIMENT = Experiment(
    name="quiet",
    title="A quiet connection",
    summary="A question and its answer every two seconds for five minutes; the WLAN is lost for ten seconds.",
    scenarios=(
        Scenario(
            name="carrier-loss",
            duration_s=DURATION_S,
            events=(
                Event(at_s=100.0, kind="carrier-loss", target="mn-wlan"),
                Event(at_s=110.0, kind="carrier-return", target="mn-wlan"),
            ),
        ),
    ),
    mechanisms=("tcp", "mptcp"),
    workloads=(Workload(kind="rpc", parameters={"interval_ms": 2000, "response_bytes": 1024}),),
)
