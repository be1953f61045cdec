"""One run of an experiment through the command line, judged from its captures."""

import json
import subprocess
from pathlib import Path
from typing import Any

from analysis.metrics import evaluate
from analysis.rundir import load_run
from experiments.capsule import ROOT, environment

_ROAMLAB = ROOT / ".venv" / "bin" / "roamlab"
_RUN_TIMEOUT_S = 180.0
_DISTURBED = ("link relay was late", "gap is", "ms late", "voice-1: the application counted")
"""What a busy machine makes of a run: its figures are not used, but it must have worked. Of a call, packets that arrive right
behind the reply, before the mobile node has opened its tunnel, are in the captures only."""


def metrics_of_run(experiment: str, results: Path, mechanism: str, scenario: str) -> dict[str, Any]:
    """Run it once, below `results`; its metrics. It ended well, or something disturbed the measurement and nothing else.

    `experiment`: its name in the catalogue, or a file.
    """
    argv = [str(_ROAMLAB), "run", experiment, "--results", str(results), "--json", "--no-report", "-m", mechanism]
    argv += ["-s", scenario, "-n", "1"]
    done = subprocess.run(argv, env=environment(), capture_output=True, text=True, timeout=_RUN_TIMEOUT_S, check=False)
    assert done.returncode == 0, done.stderr
    (manifest,) = results.glob("*/*/manifest.json")
    found = json.loads(manifest.read_text())
    assert found["state"] == "complete", found["reason"]
    metrics, _ = evaluate(load_run(manifest.parent))
    for problem in (metrics["why_not"] or "").split("; "):
        assert not problem or any(word in problem for word in _DISTURBED), problem
    return metrics
