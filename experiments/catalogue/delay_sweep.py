"""Handovers of the proxy over paths of 10 to 300 ms: the last remark of the paper's section 5.4."""

from experiments.catalogue import fig8, fig9
from experiments.model import Experiment

DELAYS_MS = (10.0, 30.0, 100.0, 300.0)


def _seamless(delay_ms: float) -> object:
    profile = {"rate_mbit": fig9.RATE_MBIT, "delay_ms": delay_ms}
    return [{"name": name, "profile": dict(profile)} for name in ("wlan", "eth")]


EXPERIMENT = Experiment(
    name="delay-sweep",
    title="Seamless and break-before-make handover over long paths",
    summary="The handovers of figures 8 and 9 over two equal paths of 20 Mbit/s with 10, 30, 100 and 300 ms in each direction.",
    scenarios=(
        *(fig8.handovers(f"seamless-{d:g}ms", f"seamless, {d:g} ms", _seamless(d)) for d in DELAYS_MS),
        *(fig9.breaks(f"break-{d:g}ms", f"break, {d:g} ms", sack=True, delay_ms=d) for d in DELAYS_MS),
    ),
    mechanisms=("proxy-proxy", "proxy-proxy-single-nudge"),
    repetitions=3,
)
