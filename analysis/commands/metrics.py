"""`python -m analysis metrics`: compute the metrics of runs."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from analysis.metrics import measure
from analysis.rundir import InputError


def metrics(paths: list[Path]) -> int:
    """Compute and print; a directory that cannot be used does not keep the others from being measured."""
    code = 0
    for path in paths:
        try:
            found, _ = measure(path, refresh=True)
        except InputError as error:
            print(error, file=sys.stderr)
            code = 2
            continue
        print(json.dumps(found), flush=True)
        if found["verdict"] in ("failed", "interrupted"):
            code = max(code, 1)
    return code
