"""What the HTML pages share: templates, and figures as data URIs, so that a page needs no other file."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.figure import Figure
from PIL import Image

from analysis.charts.axes import GAP_ALPHA, GAP_TEXT, bytes_text, duration_text
from analysis.charts.dsn import ACK_LINE
from analysis.charts.view import OTHERS_COLOUR
from analysis.style import EVENT_COLOUR, GAP_COLOUR, PALETTE, TEXT_COLOUR, png_bytes, save, svg_bytes

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


def small(figure: Figure, alt: str, dpi: int = 110) -> Picture:
    """A figure as a PNG in the colours of all figures and their shades: many of them fit on a page."""
    image = Image.open(io.BytesIO(png_bytes(figure, dpi))).convert("RGB")
    buffer = io.BytesIO()
    image.quantize(palette=_shades(), dither=Image.Dither.NONE).save(buffer, "PNG", optimize=True)
    return _picture("image/png", buffer.getvalue(), figure, alt)


@cache
def _shades() -> Image.Image:
    """A palette: every colour of figures, mixed with white and with the shade of a gap as smoothed edges need it."""
    white, gap = (255, 255, 255), _rgb(GAP_COLOUR)
    shaded = _mixed(gap, white, GAP_ALPHA)
    colours = dict.fromkeys((white, shaded, (0, 0, 0)))
    for colour in (*PALETTE, OTHERS_COLOUR, EVENT_COLOUR, TEXT_COLOUR, ACK_LINE, GAP_TEXT, "#E4E4E4"):
        for share in (1.0, 0.75, 0.5, 0.25):
            colours |= dict.fromkeys(_mixed(_rgb(colour), ground, share) for ground in (white, shaded))
    palette = Image.new("P", (1, 1))
    palette.putpalette([part for colour in list(colours)[:256] for part in colour])
    return palette


def _rgb(colour: str) -> tuple[int, int, int]:
    red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return red, green, blue


def _mixed(colour: tuple[int, int, int], ground: tuple[int, int, int], share: float) -> tuple[int, int, int]:
    red, green, blue = (round(a * share + b * (1 - share)) for a, b in zip(colour, ground, strict=True))
    return red, green, blue


def _picture(kind: str, data: bytes, figure: Figure, alt: str) -> Picture:
    return Picture(f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}", alt, round(figure.get_figwidth() * 100))
