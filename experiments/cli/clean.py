"""`roamlab clean`: remove what interrupted runs left in the results folder."""

import fcntl
import os
import shutil
from pathlib import Path

import click

from experiments.cli.terminal import console
from experiments.errors import RoamlabError
from experiments.guest import leftovers
from experiments.rundir import PARTIAL


def stale_folders(results: Path) -> list[Path]:
    """Unfinished run folders whose runner is gone (a live runner holds a lock on its folders)."""
    stale = []
    for folder in sorted(results.glob(f"*/*{PARTIAL}")):
        try:
            fd = os.open(folder, os.O_RDONLY)
        except PermissionError:
            continue  # another user's
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            stale.append(folder)
        except BlockingIOError:
            continue
        finally:
            os.close(fd)
    return stale


@click.command(short_help="Remove what killed runs left.")
@click.option("--results", type=click.Path(path_type=Path, file_okay=False), default=Path("results"), show_default=True)
@click.option("-n", "--dry-run", is_flag=True, help="Only say what would be removed.")
def clean(results: Path, dry_run: bool) -> None:
    """Remove the folders of runs that were killed (*.partial). Finished runs are never touched.

    Nothing else needs cleaning: processes, interfaces and namespaces of a run die with its runner, and so does the temporary
    folder of a guest, unless everything was killed at once; then that goes as well.
    """
    folders = stale_folders(results)
    for folder in folders:
        if not dry_run:
            try:
                shutil.rmtree(folder)
            except OSError as error:
                raise RoamlabError(f"{folder}: cannot be removed: {error.strerror}") from error
    folders += leftovers.remove_stale(dry_run=dry_run)
    for folder in folders:
        console.print(f"{'would remove' if dry_run else 'removed'} {folder}")
    if not folders:
        console.print("nothing to clean")
