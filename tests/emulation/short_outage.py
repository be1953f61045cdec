"""A small experiment for the tests: one outage of the WLAN, a few seconds."""

from experiments.model import Bound, Claim, Event, Experiment, Scenario

EXPERIMENT = Experiment(
    name="short",
    title="A short outage",
    summary="The WLAN is lost for a second.",
    scenarios=(
        Scenario(
            name="carrier-loss",
            duration_s=4.0,
            events=(
                Event(at_s=1.5, kind="carrier-loss", target="mn-wlan"),
                Event(at_s=2.5, kind="carrier-return", target="mn-wlan"),
            ),
        ),
        Scenario(
            name="long",  # to be interrupted
            duration_s=120.0,
            events=(Event(at_s=1.0, kind="carrier-loss", target="mn-lte"),),
        ),
        Scenario(
            name="ipv6-moves",
            duration_s=4.0,
            family=6,
            parameters={"access": [{"name": "wlan", "families": "ipv6"}, {"name": "lte"}]},
            events=(Event(at_s=1.5, kind="l2-roam", target="mn-wlan", parameters={"to": "ar1/ap2"}),),
        ),
    ),
    mechanisms=("tcp", "mptcp"),
    claims=(
        Claim(
            id="survives",
            text="Every transfer survives",
            metric="survived",
            aggregate="all",
            bound=Bound(op="==", value=True),
            mechanisms=("tcp", "mptcp"),
            scenarios=("carrier-loss",),
        ),
    ),
)
