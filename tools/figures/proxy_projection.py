"""Draws the projection of ACK numbers, computed by the proxy's own functions: `python -m tools.figures.proxy_projection`.

Bytes 21 to 40 went down with another subflow and were sent again behind 41 to 60: the mapping is not monotonous.
"""

import argparse
from pathlib import Path
from typing import Any

from agents.core.proxy.projection import advance, project_forward
from agents.core.proxy.tables import IntervalMap
from tools.figures.proxy_states import CARRIES, HOST, IMAGES, INK, PEER, SOFT, save

NAME = "proxy-projection"
TABLE = ((1, 21, 0), (21, 41, 20), (41, 61, -20))
"""First s, s behind the last, t - s. The peer counts the last entry's bytes as 21 to 40 of the data."""
LAST_TAN = 1
CASES = (
    ("only the SAN", 31, ()),
    ("SAN and two SACK blocks", 11, ((21, 41), (51, 61))),
    ("everything has arrived", 61, ()),
)
"""Title, SAN, SACK blocks of the subflow."""


def mapping() -> IntervalMap[None]:
    """The example's table: s -> t."""
    table: IntervalMap[None] = IntervalMap()
    for start, end, shift in TABLE:
        table.append(start, end, shift, None)
    return table


def projected(san: int, blocks: tuple[tuple[int, int], ...]) -> tuple[int, list[tuple[int, int]]]:
    """TAN and SACK blocks for this host's TCP."""
    return advance(LAST_TAN, project_forward(mapping(), [(1, san), *blocks]))


def looked_up(san: int) -> int:
    """Figure 5a of the paper: lookup(SAN - 1) + 1."""
    table = mapping()
    return san + table.shifts[table.index(san - 1)]


def _panel(axes: Any, title: str, san: int, blocks: tuple[tuple[int, int], ...]) -> None:
    from matplotlib.patches import Rectangle

    for start, end in [(1, san), *blocks]:
        axes.add_patch(Rectangle((start, 0), end - start, 66, facecolor=CARRIES, edgecolor="none", zorder=0))
    for start, end, shift in TABLE:
        axes.plot((start, end), (start + shift, end + shift), color=INK, linewidth=2.2, zorder=3)
    for left, right in project_forward(mapping(), [(1, san), *blocks]):
        axes.plot((65.5, 65.5), (left, right), color=PEER, linewidth=6, solid_capstyle="butt", clip_on=False, zorder=4)
    tan, above = projected(san, blocks)
    axes.axhline(tan, color=PEER, linewidth=1.2, linestyle="--")
    axes.text(63, tan - 1.0, f"TAN {tan}", color=PEER, fontsize=9, ha="right", va="top")
    wrong = looked_up(san)
    if wrong != tan:
        axes.axhline(wrong, color=HOST, linewidth=1.2, linestyle=":")
        axes.text(63, wrong + 0.8, f"reverse lookup: {wrong}", color=HOST, fontsize=9, ha="right", va="bottom")
    words = ", ".join(f"{left}-{right}" for left, right in above)
    told = f"TAN {tan}" + (f", SACK {words}" if above else "")
    blocks_text = "".join(f", SACK {left}-{right}" for left, right in blocks)
    axes.set_title(f"{title}\nSAN {san}{blocks_text}  →  {told}", fontsize=9.5, color=INK)
    axes.set_xlim(0, 64)
    axes.set_ylim(0, 66)
    axes.set_xticks([1, 21, 41, 61])
    axes.set_yticks([1, 21, 41, 61])
    axes.tick_params(colors=SOFT, labelsize=8.5)
    axes.set_xlabel("sequence space of the subflow (s)", fontsize=9, color=SOFT)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def draw(folder: Path) -> list[Path]:
    """Write the figure as SVG and PNG."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    matplotlib.rcParams["svg.hashsalt"] = NAME
    figure, panels = pyplot.subplots(1, len(CASES), figsize=(13.5, 4.5), sharey=True)
    for axes, case in zip(panels, CASES, strict=True):
        _panel(axes, *case)
    panels[0].set_ylabel("sequence space of the data (t)", fontsize=9, color=SOFT)
    figure.tight_layout()
    return save(figure, folder, NAME)


def main() -> None:
    """Draw into docs/images."""
    parser = argparse.ArgumentParser(prog="python -m tools.figures.proxy_projection", description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=IMAGES)
    for path in draw(parser.parse_args().folder):
        print(path)


if __name__ == "__main__":
    main()
