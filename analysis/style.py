"""How figures look and how they are written: deterministic, colour-blind safe, readable in print.

Colours are Okabe and Ito's palette; a path keeps its colour in every figure, a mechanism its own in comparisons.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#7F7F7F")
PATH_COLOURS = {"wlan": PALETTE[0], "lte": PALETTE[1], "5g": PALETTE[2], "dsl": PALETTE[3], "satellite": PALETTE[4]}
MECHANISM_COLOURS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
LINE_STYLES = ("-", "--", "-.", ":")
GAP_COLOUR, EVENT_COLOUR, TEXT_COLOUR = "#D55E00", "#444444", "#222222"
STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#666666",
    "axes.labelcolor": TEXT_COLOUR,
    "text.color": TEXT_COLOUR,
    "axes.grid": True,
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.7,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "svg.hashsalt": "roamlab",
    "svg.fonttype": "path",
    "path.simplify_threshold": 0.3,
}


def path_colours(names: Sequence[str]) -> dict[str, str]:
    """A fixed colour per path; unknown names get what is left of the palette, in order."""
    out = {name: PATH_COLOURS[name] for name in names if name in PATH_COLOURS}
    spare = [colour for colour in PALETTE if colour not in out.values()]
    for index, name in enumerate(n for n in names if n not in out):
        out[name] = spare[index % len(spare)]
    return out


def new_figure(width_in: float, height_in: float, layout: Any = "constrained") -> Figure:
    """An empty figure with the common style; never touches matplotlib's global state."""
    figure = Figure(figsize=(width_in, height_in), dpi=100, layout=layout, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def styled() -> Any:
    """Context in which figures are drawn and saved."""
    return mpl.rc_context(STYLE)


def save(figure: Figure, stem: Path) -> list[Path]:
    """Write `stem`.png (2x) and `stem`.svg; returns both paths."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    written = [stem.with_name(stem.name + suffix) for suffix in (".png", ".svg")]
    written[0].write_bytes(png_bytes(figure, 200))
    written[1].write_bytes(svg_bytes(figure))
    return written


def png_bytes(figure: Figure, dpi: int) -> bytes:
    """The figure as PNG, the same bytes every time."""
    return _drawn(figure, format="png", dpi=dpi, metadata={"Software": None})


def svg_bytes(figure: Figure) -> bytes:
    """The figure as SVG, the same bytes every time."""
    return _drawn(figure, format="svg", metadata={"Date": None, "Creator": None})


def _drawn(figure: Figure, **options: Any) -> bytes:
    buffer = io.BytesIO()
    with styled():
        figure.savefig(buffer, **options)
    return buffer.getvalue()
