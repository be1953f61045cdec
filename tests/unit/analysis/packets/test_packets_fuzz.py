"""10,000 hostile capture files: refused in one line or read, and analysed; never a crash, a hang or memory without bound.

Each part runs in a process of its own with numba's bounds checks on, see `tests/pcaps/fuzz.py`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from analysis.compiled import cache_folder

MUTATED, GENERATED, PARTS = 2300, 220, 4
GROWTH_KBYTES = 300_000


@pytest.mark.parametrize("part", range(PARTS))
def test_hostile_files(part):
    words = ["--seed", str(part), "--inputs", str(MUTATED), "--generated", str(GENERATED)]
    checked = {"NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(cache_folder() / "checked")}
    done = subprocess.run(
        [sys.executable, "-m", "tests.pcaps.fuzz", *words], env={**os.environ, **checked}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-8000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["bounds_checked"]
    assert found["inputs"] >= MUTATED + GENERATED
    assert PARTS * (MUTATED + GENERATED) >= 10_000
    # Mutation must neither spare the files nor make rubbish of all of them.
    assert found["refused"] > 50
    assert found["damaged"] > 500
    assert found["packets"] > 20_000
    assert found["grown_kbytes"] < GROWTH_KBYTES


def test_an_index_outside_of_its_array_would_be_noticed():
    """Without the checks the same process reports that there are none."""
    code = "from tests.pcaps.fuzz import bounds_are_checked; print(bounds_are_checked())"
    unchecked = {key: value for key, value in os.environ.items() if not key.startswith("NUMBA_")}
    done = subprocess.run([sys.executable, "-c", code], env=unchecked, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
