"""Figure 10 of the paper on the lightweight MPTCP proxy: a native MPTCP sender uses both paths at once."""

from experiments.model import Bound, Claim, Experiment, Scenario, Source

PAPER = "hampel2013"
RATE_MBIT, DELAY_MS = 20.0, 15.0
PAYLOAD_SHARE = 1420 / 1514
"""Of a full Ethernet frame whose TCP header carries timestamps and a DSS option with numbers of 8 bytes."""
MECHANISM = "proxy-mptcp-multipath"

_PATHS = [{"name": name, "profile": {"rate_mbit": RATE_MBIT, "delay_ms": DELAY_MS}} for name in ("eth1", "eth2")]

EXPERIMENT = Experiment(
    name="fig10",
    title="Multipath reception from a native sender (figure 10)",
    summary="The CN's kernel speaks MPTCP and streams over both Ethernet paths (20 Mbit/s, 15 ms each) to an MN with TCP and "
    "the proxy.",
    scenarios=(Scenario(name="two-paths", label="two equal paths", parameters={"access": _PATHS}, duration_s=15.0),),
    mechanisms=(MECHANISM,),
    claims=(
        Claim(
            id="sum",
            text="Goodput is at least 0.9 of the payload that both paths can carry together",
            source=Source(key=PAPER, where="section 5.5, figure 10"),
            metric="goodput_mbit",
            bound=Bound(op=">=", value=round(0.9 * 2 * RATE_MBIT * PAYLOAD_SHARE, 2), unit="Mbit/s"),
            mechanisms=(MECHANISM,),
            scenarios=("two-paths",),
            published="proper multipath operation, slightly unbalanced",
        ),
        Claim(
            id="nothing-lost",
            text="Not one byte of the application's data is lost or changed",
            source=Source(key=PAPER, where="section 5.5"),
            metric="survived",
            aggregate="all",
            bound=Bound(op="==", value=True),
            mechanisms=(MECHANISM,),
            scenarios=("two-paths",),
        ),
    ),
    repetitions=3,
)
