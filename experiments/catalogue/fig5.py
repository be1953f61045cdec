"""Figure 5 of the paper on the lightweight MPTCP proxy, as an ablation: three translations of ACK numbers on the same runs."""

from experiments.catalogue.fig9 import PAPER, SINGLE, breaks
from experiments.model import Bound, Claim, Experiment, Source

AGGRESSIVE, CONSERVATIVE = "proxy-proxy-aggressive", "proxy-proxy-conservative"

EXPERIMENT = Experiment(
    name="fig5",
    title="Three translations of ACK numbers (figure 5)",
    summary="Break before make leaves a mapping that is not monotonous. The ACK numbers are translated by reverse lookup "
    "(aggressive), by the most cautious lookup (conservative), and by projection; everything else is the same.",
    scenarios=(breaks("sack", "with SACK", sack=True), breaks("no-sack", "without SACK", sack=False)),
    mechanisms=(AGGRESSIVE, CONSERVATIVE, SINGLE),
    claims=(
        Claim(
            id="projection-is-safe",
            text="With projection every transfer survives",
            source=Source(key=PAPER, where="section 3.5"),
            metric="survived",
            aggregate="all",
            bound=Bound(op="==", value=True),
            mechanisms=(SINGLE, CONSERVATIVE),
            scenarios=("sack", "no-sack"),
        ),
    ),
    repetitions=3,
)
