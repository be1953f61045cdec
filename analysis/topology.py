"""The topology of a run as a drawing: mobile node left, correspondent node right, one column per hop between."""

from __future__ import annotations

from collections import defaultdict

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from analysis.rundir import Json
from analysis.style import PATH_COLOURS, new_figure, styled

Position = tuple[float, float]
BOX_WIDTH, BOX_HEIGHT = 0.94, 0.52
COLUMN, ROW = 2.45, 1.12
KIND_COLOURS = {
    "mobile-host": ("#FDE8C8", "#B36B00"),
    "host": ("#DCEBF7", "#0072B2"),
    "correspondent-host": ("#DCEBF7", "#0072B2"),
    "access-router": ("#E2F3EC", "#007A59"),
    "home-agent": ("#F6E3EE", "#9C4F7D"),
}
OTHER_COLOURS = ("#F2F2F2", "#666666")


def layout(graph: Json, paths: list[str] | None = None) -> dict[str, Position]:
    """Place the nodes: column = hops from the mobile node, rows ordered so that links cross little.

    The correspondent node stands alone in the last column. Positions are in inches, x to the right, y upwards.
    """
    nodes = [str(node["name"]) for node in graph.get("nodes", [])]
    kinds = {str(node["name"]): str(node.get("kind", "")) for node in graph.get("nodes", [])}
    near: dict[str, list[str]] = defaultdict(list)
    for link in graph.get("links", []):
        a, b = str(link["a"]), str(link["b"])
        if a in kinds and b in kinds:
            near[a].append(b)
            near[b].append(a)
    if not nodes:
        return {}
    start = next((n for n in nodes if kinds[n] == "mobile-host"), "mn" if "mn" in kinds else nodes[0])
    depth = {start: 0}
    queue = [start]
    for node in queue:
        for other in near[node]:
            if other not in depth:
                depth[other] = depth[node] + 1
                queue.append(other)
    last = max(depth.values())
    for node in nodes:
        depth.setdefault(node, last)
    if "cn" in depth and start != "cn":
        depth["cn"] = max([depth["cn"], *(d for n, d in depth.items() if n != "cn" and "cn" in near[n])])
        depth["cn"] = max(last, depth["cn"])
    columns: dict[int, list[str]] = defaultdict(list)
    for node in nodes:
        columns[depth[node]].append(node)
    rank = {node: float(index) for column in columns.values() for index, node in enumerate(column)}
    for sweep in range(4):
        for number in sorted(columns, reverse=bool(sweep % 2)):
            column = columns[number]
            centre = {n: _mean([rank[o] - len(columns[depth[o]]) / 2 for o in near[n] if depth[o] != number]) for n in column}
            column.sort(key=lambda n: (centre[n], n))
            for index, node in enumerate(column):
                rank[node] = float(index)
    tallest = max(len(column) for column in columns.values())
    return {
        node: (COLUMN * number, ROW * (tallest - len(column)) / 2 + ROW * (len(column) - 1 - index))
        for number, column in columns.items()
        for index, node in enumerate(column)
    }


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def topology_figure(graph: Json, path_names: dict[str, str] | None = None) -> Figure:
    """Draw a manifest's graph. `path_names`: interface of the mobile node -> path, which gives a link its colour."""
    placed = layout(graph)
    kinds = {str(node["name"]): str(node.get("kind", "")) for node in graph.get("nodes", [])}
    with styled():
        width = max((x for x, _ in placed.values()), default=0) + BOX_WIDTH + 0.3
        height = max((y for _, y in placed.values()), default=0) + BOX_HEIGHT + 0.3
        figure = new_figure(width, height, layout=None)
        axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
        axes.set_xlim(-BOX_WIDTH / 2 - 0.15, width - BOX_WIDTH / 2 - 0.15)
        axes.set_ylim(-BOX_HEIGHT / 2 - 0.15, height - BOX_HEIGHT / 2 - 0.15)
        axes.set_axis_off()
        labels: list[tuple[float, float, str]] = []
        for link in graph.get("links", []):
            a, b = str(link["a"]), str(link["b"])
            if a not in placed or b not in placed:
                continue
            names = path_names or {}
            path = names.get(str(link.get("a_interface"))) or names.get(str(link.get("b_interface")))
            (x1, y1), (x2, y2) = placed[a], placed[b]
            axes.plot(
                [x1, x2], [y1, y2], linewidth=2.6 if path else 1.4, zorder=1,
                color=PATH_COLOURS.get(path or "", "#888888"), linestyle="-", solid_capstyle="round",
            )  # fmt: skip
            if link.get("label"):
                labels.append(((x1 + x2) / 2, (y1 + y2) / 2, str(link["label"])))
        for x, y, text in _apart(labels):
            axes.text(
                x, y, _two_lines(text), ha="center", va="center", fontsize=7.5, zorder=2, linespacing=1.15,
                bbox={"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none"},
            )  # fmt: skip
        for node, (x, y) in placed.items():
            _box(axes, x, y, node, kinds[node])
        return figure


def _box(axes: Axes, x: float, y: float, name: str, kind: str) -> None:
    fill, edge = KIND_COLOURS.get(kind, OTHER_COLOURS)
    axes.add_patch(
        FancyBboxPatch(
            (x - BOX_WIDTH / 2, y - BOX_HEIGHT / 2), BOX_WIDTH, BOX_HEIGHT, facecolor=fill, edgecolor=edge,
            boxstyle="round,pad=0,rounding_size=0.1", linewidth=1.3, zorder=3,
        )
    )  # fmt: skip
    axes.text(x, y + (0.09 if kind else 0), name, ha="center", va="center", fontsize=10, fontweight="bold", zorder=4)
    if kind:
        size = min(6.5, 6.5 * 15 / max(1, len(kind)))
        axes.text(x, y - 0.12, kind.replace("-", " "), ha="center", va="center", fontsize=size, zorder=4)


def _apart(labels: list[tuple[float, float, str]], distance: float = 0.4) -> list[tuple[float, float, str]]:
    """Move labels of one column gap up or down until they no longer touch."""
    out: list[tuple[float, float, str]] = []
    by_x: dict[float, list[tuple[float, str]]] = defaultdict(list)
    for x, y, text in labels:
        by_x[round(x, 1)].append((y, text))
    for x, column in by_x.items():
        column.sort()
        middle = _mean([y for y, _ in column])
        ys = [y for y, _ in column]
        for index in range(1, len(ys)):
            ys[index] = max(ys[index], ys[index - 1] + distance)
        shift = middle - _mean(ys)
        out += [(x, y + shift, text) for y, (_, text) in zip(ys, column, strict=True)]
    return out


def _two_lines(text: str) -> str:
    """Break a link label before its first number: "WLAN 20 Mbit/s 15 ms" -> two lines."""
    words = text.split()
    first = next((i for i, word in enumerate(words[:-1]) if word[0].isdigit()), 0)
    return " ".join(words[:first]) + ("\n" if first else "") + " ".join(words[first:])
