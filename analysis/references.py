"""The bibliography that claims cite: docs/references.bib, one field per line with its value in braces."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

BIBLIOGRAPHY = Path(__file__).resolve().parent.parent / "docs" / "references.bib"
_ENTRY = re.compile(r"^@\w+\{(?P<key>[^,\s]+),\s*$(?P<body>.*?)^\}", re.MULTILINE | re.DOTALL)
_FIELD = re.compile(r"^\s*(?P<name>\w+)\s*=\s*\{(?P<value>.*?)\},?\s*$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Reference:
    """One work: authors by family name, title, where it appeared, year, link ("" when there is none)."""

    key: str
    authors: str
    title: str
    venue: str
    year: str
    link: str

    @property
    def short(self) -> str:
        """Author and title, as claims cite it."""
        return f"{self.authors}, “{self.title}”"


def load_references(path: Path = BIBLIOGRAPHY) -> dict[str, Reference]:
    """Entries by key and by the further keys in `ids`; empty when the file is not installed."""
    if not path.exists():
        return {}
    out = {}
    for entry in _ENTRY.finditer(path.read_text("utf-8")):
        fields = {m["name"].lower(): " ".join(m["value"].split()) for m in _FIELD.finditer(entry["body"])}
        doi = fields.get("doi")
        work = Reference(
            key=entry["key"],
            authors=_families(fields.get("author", "")),
            title=fields.get("title", entry["key"]),
            venue=fields.get("booktitle") or fields.get("howpublished") or fields.get("publisher") or "",
            year=fields.get("year", ""),
            link=f"https://doi.org/{doi}" if doi else fields.get("url", ""),
        )
        for key in (entry["key"], *re.split(r"[,\s]+", fields.get("ids", ""))):
            if key:
                out[key] = work
    return out


def _families(authors: str) -> str:
    """Family names: "A", "A and B", "A, B and C", "A et al." from four authors on."""
    names = [name.split(",")[0].strip() for name in authors.split(" and ") if name.strip()]
    if "others" in names or len(names) > 3:
        return f"{names[0]} et al."
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))
