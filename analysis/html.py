"""What the HTML pages share: templates, and figures as data URIs, so that a page needs no other file."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.figure import Figure

from analysis.charts.axes import bytes_text, duration_text
from analysis.style import png_bytes, save, svg_bytes

TEMPLATES = Path(__file__).resolve().parent / "templates"
PNG_DPI = 160
"""Of what is only embedded; figures that are kept are finer."""


def environment() -> Environment:
    """The templates, with filters for amounts; everything is escaped."""
    made = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    made.filters["bytes"] = lambda value: "–" if value is None else bytes_text(value)
    made.filters["mbit"] = lambda value: "–" if value is None else f"{value:.2f}"
    made.filters["duration"] = lambda seconds: "–" if seconds is None else duration_text(seconds)
    made.filters["ms"] = lambda value: "–" if value is None else duration_text(value / 1e3)
    made.filters["count"] = lambda value: f"{value:,}".replace(",", "\u202f")
    return made


@dataclass(frozen=True)
class Picture:
    """An embedded figure: data URI, text for those who cannot see it, natural width in CSS pixels."""

    uri: str
    alt: str
    width_px: int


def embed(figure: Figure, alt: str, svg_limit_bytes: int = 150_000) -> Picture:
    """A figure as SVG, or as PNG when that would be larger than the limit."""
    svg = svg_bytes(figure) if svg_limit_bytes else b""
    if svg and len(svg) <= svg_limit_bytes:
        return _picture("image/svg+xml", svg, figure, alt)
    return _picture("image/png", png_bytes(figure, PNG_DPI), figure, alt)


def keep(figure: Figure, stem: Path, alt: str, svg_limit_bytes: int = 250_000) -> Picture:
    """Save a figure as `stem`.png and `stem`.svg, and return one of them for embedding."""
    png, vector = save(figure, stem)
    svg = vector.read_bytes()
    if len(svg) <= svg_limit_bytes:
        return _picture("image/svg+xml", svg, figure, alt)
    return _picture("image/png", png.read_bytes(), figure, alt)


def _picture(kind: str, data: bytes, figure: Figure, alt: str) -> Picture:
    return Picture(f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}", alt, round(figure.get_figwidth() * 100))
