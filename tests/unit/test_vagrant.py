"""The Vagrantfile and what belongs to it, without starting a machine."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.capsule import ROOT
from tools.vagrant import test as vagrant_test

VALIDATE_TIMEOUT_S = 120
SCRIPTS = sorted(ROOT.glob("tools/**/*.sh"))


@pytest.mark.skipif(shutil.which("vagrant") is None, reason="vagrant is not installed (Debian package vagrant)")
@pytest.mark.parametrize("setting", [{}, {"ROAMLAB_DRIVER": "qemu", "ROAMLAB_CPUS": "4", "ROAMLAB_MEMORY": "4096"}])
def test_vagrant_accepts_the_vagrantfile(tmp_path: Path, setting: dict[str, str]) -> None:
    environment = {
        **os.environ, **setting, "VAGRANT_HOME": str(tmp_path / "home"), "VAGRANT_DOTFILE_PATH": str(tmp_path / "state"),
        "VAGRANT_CHECKPOINT_DISABLE": "1",
    }  # fmt: skip
    done = subprocess.run(["vagrant", "validate", "--ignore-provider"], cwd=ROOT, env=environment, capture_output=True,
                          text=True, timeout=VALIDATE_TIMEOUT_S)  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed (Debian package shellcheck)")
def test_shellcheck_finds_nothing() -> None:
    done = subprocess.run(["shellcheck", *SCRIPTS], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_settings_of_the_vagrantfile_are_documented() -> None:
    settings = set(re.findall(r'ENV\["(\w+)"\]', (ROOT / "Vagrantfile").read_text()))
    documented = (ROOT / "docs" / "vagrant.md").read_text()
    assert settings
    assert not {name for name in settings if f"`{name}`" not in documented}


def test_folders_that_stay_here_are_those_git_ignores() -> None:
    text = (ROOT / "Vagrantfile").read_text()
    excluded = re.search(r"rsync__exclude: %w\[([^]]*)\]", text)
    assert excluded
    for name in excluded[1].split():
        done = subprocess.run(["git", "-C", str(ROOT), "-c", f"safe.directory={ROOT}", "check-ignore", "-q", name])
        assert done.returncode in (0, 128), name  # 128: not a checkout
    assert ".git/" not in excluded[1].split()  # a run's manifest names the commit


def test_parts_of_vagrant_up_are_timed(tmp_path: Path) -> None:
    inside = vagrant_test.Inside(tmp_path)
    inside.project.mkdir()
    programs = tmp_path / "bin"
    programs.mkdir()
    lines = [
        "Bringing machine 'default' up with 'libvirt' provider...", "==> default: Starting domain.",
        "==> default: Machine booted and ready!", "==> default: Rsyncing folder: /a => /vagrant",
        "==> default: Running provisioner: setup (shell)...", "    default: make: Leaving directory '/vagrant'",
        "==> default: Running action triggers after up ...", "roamlab vagrant-results: asking the machine",
    ]  # fmt: skip
    (programs / "vagrant").write_text("#!/bin/sh\ncat <<'END'\n" + "\n".join(lines) + "\nEND\n")
    (programs / "vagrant").chmod(0o755)
    inside.environment["PATH"] = f"{programs}:{os.environ['PATH']}"
    inside._up()
    steps = [line["step"] for line in vagrant_test.notes(tmp_path)]
    assert steps == [*(name for name, _ in vagrant_test.PARTS), "`vagrant up`, all of it"]


def test_a_step_that_fails_or_hangs_is_named(tmp_path: Path) -> None:
    for argv, timeout_s, words in ((["sh", "-c", "exit 3"], 60, "exit code 3"), (["sleep", "1000"], 0.2, "not within")):
        with pytest.raises(vagrant_test.Trouble, match=words):
            vagrant_test.stream(argv, timeout_s, cwd=tmp_path, environment=dict(os.environ))


def test_what_is_missing_is_named_with_its_packages(tmp_path: Path) -> None:
    """In one line, before anything is begun."""
    argv = [sys.executable, "-m", "tools.vagrant.test"]
    done = subprocess.run(argv, cwd=ROOT, env={"PATH": str(tmp_path)}, capture_output=True, text=True)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert ("apt-get install" in line and " vagrant " in line) if os.geteuid() == 0 else "root" in line


def test_what_stays_in_a_namespace_or_folder_of_the_test_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vagrant_test, "GONE_WITHIN_S", 0.1)
    before = vagrant_test.host_state()
    assert vagrant_test.left_behind(tmp_path, before) == []
    with subprocess.Popen(["sleep", "1000"], cwd=tmp_path) as process:
        try:
            assert vagrant_test.left_behind(tmp_path, before) == [f"process {process.pid}"]
        finally:
            process.kill()
    (tmp_path / "notes.jsonl").write_text(json.dumps({"step": "a", "s": 1.4}) + "\n")
    assert vagrant_test.table(tmp_path)[-1] == "| a | 1 |"
