"""Several tunnels at once against one: how much of the access networks' capacity several flows get."""

from experiments.model import Bound, Claim, Experiment, Scenario, Source, Workload

SINGLE, SEVERAL = "mip4", "mip4-multipath"
RATES_MBIT = (10.0, 10.0)
DURATION_S, FLOWS = 15.0, 12
SHARE = 0.9
HEADERS = 1428 / 1500
"""Of a full packet in a tunnel that is the application's: IP twice, TCP with time stamps."""


def _access(rates_mbit: tuple[float, ...]) -> list[dict[str, object]]:
    names = ("wlan", "lte", "cdma")
    return [
        {"name": name, "profile": {"rate_mbit": rate, "delay_ms": 20.0}} for name, rate in zip(names, rates_mbit, strict=False)
    ]


def _scenario(name: str, rates_mbit: tuple[float, ...]) -> Scenario:
    label = " + ".join(f"{rate:g}" for rate in rates_mbit) + " Mbit/s"
    return Scenario(name=name, label=label, parameters={"access": _access(rates_mbit), "homes": 1}, duration_s=DURATION_S)


TWO, THREE = _scenario("two", RATES_MBIT), _scenario("three", (*RATES_MBIT, 10.0))


def _rate(scenario: Scenario) -> float:
    return sum(row["profile"]["rate_mbit"] for row in scenario.parameters["access"])


EXPERIMENT = Experiment(
    name="aggregation",
    title="Several tunnels against one",
    summary=f"{FLOWS} downloads at once between a mobile node with two or three networks of 10 Mbit/s and its "
    "correspondent: through one tunnel, and through a tunnel in every network with the flows balanced over them.",
    scenarios=(TWO, THREE),
    mechanisms=(SINGLE, SEVERAL),
    workloads=(Workload(kind="mix", parameters={"bulk": FLOWS}),),
    claims=(
        *(
            Claim(
                id=f"sum-{scenario.name}",
                text=f"{scenario.label}: the flows together get at least 0.9 of the sum of the access rates, less headers",
                source=Source(key="rfc7629", where="section 1"),
                metric="goodput_mbit",
                bound=Bound(op=">=", value=round(SHARE * HEADERS * _rate(scenario), 2), unit="Mbit/s"),
                mechanisms=(SEVERAL,),
                scenarios=(scenario.name,),
                published="“higher aggregated logical pipe”, no figure",
            )
            for scenario in (TWO, THREE)
        ),
        Claim(
            id="one",
            text="One tunnel gets no more than its network has",
            metric="goodput_mbit",
            bound=Bound(op="<=", value=RATES_MBIT[0], unit="Mbit/s"),
            mechanisms=(SINGLE,),
            scenarios=(TWO.name, THREE.name),
        ),
    ),
    repetitions=3,
)
