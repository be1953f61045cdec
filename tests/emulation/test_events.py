"""Every kind of event has its effect on the kernel, as root and in a user namespace."""

import json
import subprocess
import sys

import pytest

from experiments import capsule, events
from tests.emulation.events_inside import CHECKS

pytestmark = pytest.mark.emulation

TIMEOUT_S = 240.0


def test_every_kind_is_checked() -> None:
    assert {kind for kinds in CHECKS.values() for kind in kinds} == set(events.KINDS)


@pytest.mark.parametrize("user_namespace", [False, True], ids=["as-is", "user-namespace"])
def test_events_have_their_effect(user_namespace: bool) -> None:
    argv = [sys.executable, "-m", "tests.emulation.events_inside"]
    box = capsule.launch(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, user_namespace=user_namespace or None)
    try:
        out, err = box.process.communicate(timeout=TIMEOUT_S)
    finally:
        box.close()
    results = {line["check"]: line for line in map(json.loads, out.decode().splitlines())}
    assert set(results) == set(CHECKS), err.decode(errors="replace")[-2000:]
    failed = [f"{name}: {line['why']}" for name, line in results.items() if not line["ok"]]
    assert not failed, "\n".join(failed)
