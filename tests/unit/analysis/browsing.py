"""Pages as a reader gets them: in a real browser, and taken apart."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


class Elements(HTMLParser):
    """Start tags with their attributes, contents of scripts by their type, and everything else that is text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[tuple[str | None, str]] = []
        self.text, self._inside = "", False
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._inside = tag == "script"
        if self._inside:
            self.scripts.append((dict(attrs).get("type"), ""))

    def handle_endtag(self, tag):
        self._inside = False

    def handle_data(self, data):
        if self._inside:
            self.scripts[-1] = (self.scripts[-1][0], self.scripts[-1][1] + data)
        else:
            self.text += data

    @property
    def policy(self) -> str:
        """The page's Content-Security-Policy."""
        return next(a["content"] for t, a in self.tags if t == "meta" and "http-equiv" in a)

    @property
    def plots(self) -> list[dict]:
        """Data of the interactive plots."""
        return [json.loads(text) for kind, text in self.scripts if kind == "application/json"]


def browser() -> str:
    """A browser's path. Without one the test fails, so that nobody takes a page that was never looked at for tested."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None and os.environ.get("ROAMLAB_WITHOUT_BROWSER"):
        pytest.skip("no browser, and ROAMLAB_WITHOUT_BROWSER is set")
    if found is None:
        pytest.fail(f"none of {', '.join(BROWSERS)} is installed; set ROAMLAB_WITHOUT_BROWSER=1 to do without")
    return found


def browse(page: Path, profile: Path, *options: str) -> subprocess.CompletedProcess:
    words = [
        browser(), "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
        "--disable-component-update", "--disable-sync", f"--user-data-dir={profile}", "--enable-logging=stderr",
        *options, page.as_uri(),
    ]  # fmt: skip
    return subprocess.run(words, capture_output=True, text=True, timeout=50, check=True)
