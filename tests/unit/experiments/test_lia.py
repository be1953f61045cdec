"""Linked increases as a program: names, reasons in one line, and mechanisms that need them."""

import re
import shutil
from pathlib import Path

import pytest

from experiments import features, lia, mechanisms
from experiments.catalogue import load


def test_every_run_has_a_name_of_its_own_that_the_kernel_allows() -> None:
    names = {lia.own_name() for _ in range(50)}
    assert len(names) == 50
    assert all(re.fullmatch(r"[A-Za-z0-9_.]{1,15}", name) for name in names)


def test_without_a_compiler_the_reason_names_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(lia.Refused, match="Debian package clang"):
        lia.compile_as("lia_x", tmp_path)


def test_what_the_compiler_complains_of_is_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = tmp_path / "clang"
    compiler.write_text("#!/bin/sh\necho 'lia.bpf.c:1: no such thing' >&2; echo more >&2; exit 1\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    with pytest.raises(lia.Refused, match=r"^clang: lia\.bpf\.c:1: no such thing$"):
        lia.compile_as("lia_x", tmp_path)


def test_without_the_kernels_types_the_reason_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lia, "TYPES", tmp_path / "vmlinux")
    with pytest.raises(lia.Refused, match="CONFIG_DEBUG_INFO_BTF"):
        lia.register(tmp_path / "lia.o")


@pytest.mark.parametrize("name", ["mptcp-lia", "mip-mptcp-lia"])
def test_where_it_cannot_be_the_mechanism_is_unsupported_with_the_reason(name: str) -> None:
    needed = mechanisms.make(name).requires
    found: dict[str, str | None] = dict.fromkeys(needed)
    assert features.why_unsupported(needed, found) is None
    found["lia"] = "clang is not installed: Debian package clang"
    assert features.why_unsupported(needed, found) == "needs lia (clang is not installed: Debian package clang)"


def test_fairness_compares_every_multipath_mechanism_with_tcp_in_its_place() -> None:
    experiment = load("mip-mptcp-fairness")
    fair = [claim for claim in experiment.claims if claim.metric == "contest.share"]
    assert {name for claim in fair for name in claim.mechanisms} == set(experiment.mechanisms) - {"tcp"}
    assert all(claim.bound.others == ("tcp",) for claim in fair)
    parameters = experiment.scenarios[0].parameters
    shared, access = parameters["core"]["rate_mbit"], [row["profile"]["rate_mbit"] for row in parameters["access"]]
    assert all(rate > 2 * shared for rate in access), "the shared link is the only bottleneck"


@pytest.mark.skipif(shutil.which("clang") is None, reason="clang is not installed")
def test_the_program_compiles_without_a_warning(tmp_path: Path) -> None:
    assert lia.compile_as(lia.own_name(), tmp_path).stat().st_size > 1000
