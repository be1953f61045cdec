"""Where compiled code is kept, and that numba is loaded only when a kernel is called."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from analysis import compiled as module

ROOT = Path(module.__file__).parents[1]
KERNELS = '''
from analysis.compiled import compiled

@compiled
def half(x):
    """Half of it."""
    return x // 2

@compiled
def quarter(x):
    return half(half(x))
'''


def run(folder: Path, code: str, **environment: str) -> str:
    """Run code in a fresh interpreter that can import `kernels` from a folder."""
    (folder / "kernels.py").write_text(KERNELS)
    clean = {name: value for name, value in os.environ.items() if not name.startswith("NUMBA")}
    out = subprocess.run(
        [sys.executable, "-c", code],
        env=clean | {"PYTHONPATH": f"{ROOT}{os.pathsep}{folder}"} | environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert out.returncode == 0, out.stderr
    return out.stdout.strip()


def test_numba_waits_for_the_first_call(tmp_path):
    code = "import sys, kernels; early = 'numba' in sys.modules; print(kernels.quarter(100), early, kernels.half.__doc__)"
    assert run(tmp_path, code, XDG_CACHE_HOME=str(tmp_path / "cache")) == "25 False Half of it."


def test_compiled_code_is_kept_and_found_again(tmp_path):
    code = "import kernels; kernels.quarter(100); print(sum(kernels.quarter.stats.cache_hits.values()))"
    cache = str(tmp_path / "cache")
    assert run(tmp_path, code, XDG_CACHE_HOME=cache) == "0"
    assert run(tmp_path, code, XDG_CACHE_HOME=cache) == "1"
    assert list(Path(cache).glob("roamlab/kernels-*/*/*.nbi"))


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path):
    (tmp_path / "file").write_text("")
    code = "import kernels; from analysis.compiled import cache_folder; print(kernels.quarter(100), cache_folder())"
    number, folder = run(tmp_path, code, XDG_CACHE_HOME=str(tmp_path / "file")).split()
    assert number == "25"
    assert not Path(folder).exists()  # it went with the process


def test_a_folder_for_compiled_code_named_by_the_user_is_used(tmp_path):
    run(tmp_path, "import kernels; kernels.quarter(100)", NUMBA_CACHE_DIR=str(tmp_path / "mine"))
    assert list((tmp_path / "mine").glob("*/*.nbi"))


def test_a_changed_source_has_another_folder(tmp_path):
    package = tmp_path / "package"
    package.mkdir()
    kernel = package / "kernel.py"
    kernel.write_text("from analysis." + "compiled import compiled\n")
    (package / "constants.py").write_text("LIMIT = 1\n")
    before = module._digest_of_sources(tmp_path)
    assert module._digest_of_sources(tmp_path) == before
    (package / "constants.py").write_text("LIMIT = 22\n")
    assert module._digest_of_sources(tmp_path) != before


@pytest.mark.parametrize(("age_s", "left"), [(10, 9), (10 * 24 * 3600, 4)])
def test_old_folders_go(tmp_path, age_s, left):
    for number in range(9):
        folder = tmp_path / f"kernels-{number}"
        folder.mkdir()
        changed = folder.stat().st_mtime - age_s - number
        os.utime(folder, (changed, changed))
    module._prune(tmp_path, tmp_path / "kernels-0")
    assert len(list(tmp_path.iterdir())) == left
    assert (tmp_path / "kernels-0").exists()
