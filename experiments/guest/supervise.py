"""One run in a guest: boots it, passes its reports on, and completes the run directory with what it hands back.

    python -m experiments.guest.supervise JOB          a JSON object; started by `experiments.guest.place`

The guest lives no longer than this process.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from experiments.errors import RoamlabError
from experiments.guest.image import Image
from experiments.guest.inside import RESULTS
from experiments.guest.machine import GuestError, Machine, Outcome
from experiments.rundir import RunDirectory, read_json

_NAME = "run"
_FULL_BYTES = 1_000_000
CPU_LIMIT = 0.7
"""A run that used more of the guest's CPU measures the emulation, not the network."""


def order_for_guest(order: dict[str, Any]) -> dict[str, Any]:
    """The order without what differs between two executions of the same run.

    Every byte that the guest handles takes virtual time; what it is not told cannot make a difference.
    """
    run = {**order["run"], "repetition": 0}
    return {"run": run, "folder": str(RESULTS), "run_id": _NAME, "campaign": _NAME, "environment": {}}


def complete_manifest(manifest: dict[str, Any], order: dict[str, Any], outcome: Outcome) -> dict[str, Any]:
    """The guest's manifest with what it was not told, and with how long the guest took in both times and how busy it was."""
    identity = {"run_id": order["run_id"], "campaign": order["campaign"], "repetition": order["run"]["repetition"]}
    manifest = {**manifest, **identity, **order["environment"]}
    busy = next((report["cpu_busy"] for report in reversed(outcome.reports) if "cpu_busy" in report), None)
    guest = {
        **manifest.get("guest", {}),
        "guest_s": round(outcome.guest_s, 3),
        "wall_s": round(outcome.wall_s, 3),
        "cpu_busy": busy,
        "cpu_limited": busy is not None and busy > CPU_LIMIT,
    }
    return {**manifest, "guest": guest}


def unpack(archive: Path, folder: Path) -> None:
    """What the guest handed back. Raises GuestError when it is not whole."""
    done = subprocess.run(
        ["tar", "-x", "--no-same-owner", "-f", str(archive), "-C", str(folder)], capture_output=True, text=True
    )
    if done.returncode != 0 or not (folder / "manifest.json").exists():
        text = done.stderr.strip().splitlines()
        full = "" if shutil.disk_usage(archive.parent).free > _FULL_BYTES else f"; {archive.parent} is full: set TMPDIR"
        raise GuestError(f"what the guest handed back is not whole: {text[0] if text else 'no manifest'}{full}")


def _say(report: dict[str, Any]) -> None:
    print(json.dumps(report), flush=True)


def supervise(job: dict[str, Any]) -> int:
    """Do the job; 0 when the run is complete or unsupported. Raises RoamlabError."""
    order = read_json(Path(job["order"]))
    directory = RunDirectory(Path(order["folder"]), order["run_id"])
    console = directory.path / "logs" / "guest-console.log"
    machine = Machine(Image(Path(job["image"])), Path(job["folder"]), console, job["flavour"], seed=order["run"]["seed"])
    _say({"phase": "booting"})
    outcome = machine.execute({"task": "run", "order": order_for_guest(order)}, job["deadline_s"], _say)
    unpack(outcome.results, directory.path)
    outcome.results.unlink()
    manifest = read_json(directory.path / "manifest.json")
    directory.finish(complete_manifest(manifest, order, outcome))
    return outcome.code


def main() -> None:
    """The last line on standard error says what was wrong; the runner puts it into the manifest."""
    try:
        sys.exit(supervise(json.loads(sys.argv[1])))
    except (RoamlabError, OSError) as error:
        print(f"roamlab: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
