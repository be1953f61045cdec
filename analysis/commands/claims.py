"""`python -m analysis claims`: a page of Markdown with the verdicts of one or several campaigns, claim by claim.

Exit codes: 0 every claim holds or is unsupported, 1 a claim does not hold or a run failed.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path

from analysis.claims_page import judge, verdict_text, write_page
from analysis.commands.report import exit_code
from analysis.rundir import load_campaign


def claims(paths: Sequence[Path], out: Path, title: str, refresh: bool) -> int:
    """Do it; returns the exit code. Raises InputError."""
    chapters = [judge(load_campaign(path), refresh) for path in paths]
    heading = title or f"Claims of {', '.join(chapter.campaign.experiment for chapter in chapters)}"
    names = [chapter.campaign.experiment for chapter in chapters]
    shown = out if not out.is_absolute() or out.is_relative_to(Path.cwd()) else Path(out.name)
    command = ["roamlab", "claims", *names, "--output", os.path.relpath(shown)]
    write_page(chapters, out, heading, shlex.join([*command, *(["--title", title] if title else [])]))
    for chapter in chapters:
        for claim in chapter.claims:
            print(f"{verdict_text(claim):14} {chapter.campaign.experiment} {claim.id}")
    print(out)
    return max((exit_code(chapter.results, chapter.claims) for chapter in chapters), default=0)
