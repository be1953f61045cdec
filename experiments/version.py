"""Which roamlab this is."""

import subprocess
from importlib import metadata
from typing import Any

from experiments.capsule import ROOT


def version() -> str:
    """The installed version."""
    return metadata.version("roamlab")


def describe_version() -> dict[str, Any]:
    """Version, commit and whether the tree differs from it; the commit is null outside a git checkout."""
    return {
        "version": version(),
        "commit": _git("rev-parse", "HEAD"),
        "dirty": bool(_git("status", "--porcelain")),
    }


def _git(*arguments: str) -> str | None:
    try:
        # safe.directory: the checkout may belong to another user than the one who runs it
        done = subprocess.run(
            ["git", "--no-optional-locks", "-c", f"safe.directory={ROOT}", "-C", str(ROOT), *arguments],
            capture_output=True,
            text=True,
        )
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None
