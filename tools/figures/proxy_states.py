"""Draws the proxy's state machines from the tables in agents.core.proxy.states: `python -m tools.figures.proxy_states`.

Only places and wording are chosen here. Every transition comes from the tables; one without a place is an error, and the
drawing names the tables that it was made from, so that a stale figure is noticed.
"""

import argparse
import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from agents.core.proxy.states import CARRYING, CONNECTION, SUBFLOW, Input, State, SubflowInput, SubflowState

IMAGES = Path(__file__).resolve().parents[2] / "docs" / "images"
NAME = "proxy-states"
BOX_WIDTH, BOX_HEIGHT = 2.75, 0.72
INK, SOFT, PLAIN, CARRIES, FRAME = "#1b2a3a", "#5b6b7b", "#ffffff", "#d9ecdf", "#f4f6f8"
HOST, PEER, NEITHER = "#9a4a00", "#0b5fa5", "#5b6b7b"


@dataclass(frozen=True)
class Arrow:
    """A transition with the text at it."""

    text: str
    colour: str
    bend: float = 0.0
    """Curvature; 0 is a straight line."""
    at: float = 0.5
    """Where the text is, from the beginning (0) to the end (1)."""
    shift: tuple[float, float] = (0.0, 0.0)
    align: str = "center"


@dataclass(frozen=True)
class Machine:
    """One state machine: its table, where its states are, and what is written at its transitions."""

    title: str
    table: Mapping[tuple[Any, Any], Any]
    places: Mapping[Any, tuple[float, float]]
    arrows: Mapping[tuple[Any, Any], Arrow]
    everywhere: Mapping[Any, str]
    """Inputs that lead from every state to the last one: drawn once, from the frame around the states."""
    entries: Mapping[Any, tuple[str, str]]
    """How the machine begins: state -> text, colour."""
    end: Enum
    carrying: frozenset[Any] = frozenset()

    def drawn(self) -> set[tuple[Any, Any, Any]]:
        """The transitions that the figure shows: (state, input, next state)."""
        single = {(state, what, self.table[state, what]) for state, what in self.arrows if (state, what) in self.table}
        inside = [state for state in self.places if state is not self.end]
        return single | {(state, what, self.end) for state in inside for what in self.everywhere}

    def missing(self) -> set[tuple[Any, Any, Any]]:
        """What the table and the figure do not have in common."""
        return self.drawn() ^ {(state, what, after) for (state, what), after in self.table.items()}


def connection_machine() -> Machine:
    """Paper figure 4a, with the states of RFC 9293."""
    local_fin = Arrow("host: FIN\n→ DATA_FIN", HOST)
    fin_acked = Arrow("peer: data ACK\nof it → ACK", PEER)
    remote_fin = Arrow("peer: DATA_FIN → FIN,\nhost: ACK → data ACK", PEER)
    return Machine(
        "Connection: the TCP of this host and the data level, one machine",
        CONNECTION,
        {
            State.SYN_SENT: (2.3, 10.4), State.SYN_RECEIVED: (8.7, 10.4), State.ESTABLISHED: (5.5, 8.4),
            State.FIN_WAIT_1: (2.3, 6.3), State.CLOSE_WAIT: (8.7, 6.3), State.CLOSING: (5.5, 4.3),
            State.FIN_WAIT_2: (2.3, 3.6), State.LAST_ACK: (8.7, 3.6), State.TIME_WAIT: (5.5, 1.7), State.CLOSED: (5.5, -0.7),
        },
        {
            (State.SYN_SENT, Input.CAPABLE_ANSWERED):
                Arrow("peer: SYN/ACK + MP_CAPABLE\n→ SYN/ACK", PEER, shift=(-0.25, -0.25), align="right"),
            (State.SYN_RECEIVED, Input.CAPABLE_ANSWERED):
                Arrow("peer: ACK + MP_CAPABLE\n→ ACK", PEER, shift=(0.25, -0.25), align="left"),
            (State.ESTABLISHED, Input.LOCAL_FIN): _moved(local_fin, (-0.25, 0.1), "right"),
            (State.ESTABLISHED, Input.REMOTE_FIN): _moved(remote_fin, (0.25, 0.1), "left"),
            (State.FIN_WAIT_1, Input.LOCAL_FIN_ACKED): _moved(fin_acked, (-0.12, 0.0), "right"),
            (State.FIN_WAIT_1, Input.REMOTE_FIN): _moved(remote_fin, (0.15, 0.35), "left"),
            (State.FIN_WAIT_2, Input.REMOTE_FIN): _moved(remote_fin, (-0.2, -0.25), "right"),
            (State.CLOSE_WAIT, Input.LOCAL_FIN): _moved(local_fin, (0.12, 0.0), "left"),
            (State.CLOSING, Input.LOCAL_FIN_ACKED): _moved(fin_acked, (0.12, 0.05), "left"),
            (State.LAST_ACK, Input.LOCAL_FIN_ACKED): _moved(fin_acked, (0.2, -0.25), "left"),
        },
        {
            Input.RESET: "reset: host's RST → MP_FASTCLOSE,\npeer's MP_FASTCLOSE → RST",
            Input.TIMEOUT: "timeout: the state is freed",
        },
        {State.SYN_SENT: ("host: SYN → SYN + MP_CAPABLE", HOST), State.SYN_RECEIVED: ("peer: SYN + MP_CAPABLE → SYN", PEER)},
        State.CLOSED,
    )  # fmt: skip


def subflow_machine() -> Machine:
    """Every subflow has one; the TCP of this host knows nothing of it."""
    peer_fin = Arrow("peer: FIN → FIN sent", PEER)
    return Machine(
        "Subflow: made up by the proxy",
        SUBFLOW,
        {
            SubflowState.JOIN_SENT: (2.3, 10.4), SubflowState.JOIN_RECEIVED: (8.7, 10.4),
            SubflowState.JOIN_CONFIRMING: (2.3, 8.0), SubflowState.ESTABLISHED: (8.7, 6.3),
            SubflowState.FIN_SENT: (2.3, 4.0), SubflowState.FIN_RECEIVED: (8.7, 2.9), SubflowState.CLOSED: (5.5, -0.7),
        },
        {
            (SubflowState.JOIN_SENT, SubflowInput.JOIN_ANSWERED):
                Arrow("peer: SYN/ACK, its HMAC right\n→ ACK + our HMAC", PEER, shift=(0.12, 0.0), align="left"),
            (SubflowState.JOIN_RECEIVED, SubflowInput.JOIN_VERIFIED):
                Arrow("peer: ACK, its HMAC right\n→ fourth ACK", PEER, at=0.35, shift=(-0.12, 0.0), align="right"),
            (SubflowState.JOIN_CONFIRMING, SubflowInput.JOIN_CONFIRMED):
                Arrow("peer: fourth ACK, or any DSS", PEER, at=0.5, shift=(-0.1, 0.3), align="left"),
            (SubflowState.JOIN_CONFIRMING, SubflowInput.CLOSE):
                Arrow("close → FIN", NEITHER, shift=(-0.12, 0.0), align="right"),
            (SubflowState.ESTABLISHED, SubflowInput.CLOSE): Arrow("close → FIN", NEITHER, at=0.6, shift=(0.0, -0.35)),
            (SubflowState.JOIN_CONFIRMING, SubflowInput.PEER_FIN):
                _moved(peer_fin, (0.2, 0.1), "left", at=0.36),
            (SubflowState.ESTABLISHED, SubflowInput.PEER_FIN): _moved(peer_fin, (0.12, 0.0), "left"),
            (SubflowState.FIN_SENT, SubflowInput.PEER_FIN): Arrow("peer: FIN → ACK", PEER, at=0.45, shift=(0.0, -0.33)),
            (SubflowState.FIN_RECEIVED, SubflowInput.FIN_ACKED):
                Arrow("peer: ACK of our FIN", PEER, bend=-0.18, at=0.3, shift=(0.85, 0.0), align="left"),
        },
        {SubflowInput.DEAD: "dead: reset, silent, not answered,\nor its address is gone"},
        {
            SubflowState.JOIN_SENT: ("command or policy → SYN + MP_JOIN", NEITHER),
            SubflowState.JOIN_RECEIVED: ("peer: SYN + MP_JOIN → SYN/ACK", PEER),
            SubflowState.ESTABLISHED: ("the first subflow", NEITHER),
        },
        SubflowState.CLOSED,
        CARRYING,
    )  # fmt: skip


def machines() -> tuple[Machine, Machine]:
    """Left and right."""
    return connection_machine(), subflow_machine()


def digest() -> str:
    """Names the tables that a drawing was made from."""
    rows = sorted(f"{a!s} {b!s} {c!s}" for machine in machines() for (a, b), c in machine.table.items())
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()[:16]


def _moved(arrow: Arrow, shift: tuple[float, float], align: str, at: float = 0.5) -> Arrow:
    return Arrow(arrow.text, arrow.colour, arrow.bend, at, shift, align)


# -- drawing ----------------------------------------------------------------------------------------------------------


def _edge(centre: tuple[float, float], towards: tuple[float, float]) -> tuple[float, float]:
    """Where the line from the middle of a box leaves the box."""
    dx, dy = towards[0] - centre[0], towards[1] - centre[1]
    scale = min((BOX_WIDTH / 2 + 0.06) / abs(dx) if dx else math.inf, (BOX_HEIGHT / 2 + 0.06) / abs(dy) if dy else math.inf)
    return centre[0] + dx * scale, centre[1] + dy * scale


def _box(axes: Any, centre: tuple[float, float], text: str, fill: str) -> None:
    from matplotlib.patches import FancyBboxPatch

    left, low = centre[0] - BOX_WIDTH / 2, centre[1] - BOX_HEIGHT / 2
    axes.add_patch(FancyBboxPatch((left, low), BOX_WIDTH, BOX_HEIGHT, boxstyle="round,pad=0,rounding_size=0.18",
                                  facecolor=fill, edgecolor=INK, linewidth=1.3, zorder=3))  # fmt: skip
    axes.text(*centre, text, ha="center", va="center", fontsize=9, color=INK, fontweight="bold", zorder=4)


def _line(axes: Any, start: tuple[float, float], end: tuple[float, float], colour: str, bend: float = 0.0) -> None:
    from matplotlib.patches import FancyArrowPatch

    axes.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=13, color=colour, linewidth=1.3,
                                   connectionstyle=f"arc3,rad={bend}", shrinkA=0, shrinkB=0, zorder=2))  # fmt: skip


def _label(axes: Any, place: tuple[float, float], text: str, colour: str, align: str) -> None:
    axes.text(*place, text, ha=align, va="center", fontsize=8, color=colour, linespacing=1.25, zorder=5)


def _draw(axes: Any, machine: Machine) -> None:
    from matplotlib.patches import FancyBboxPatch

    axes.set_xlim(-1.5, 12.5)
    axes.set_ylim(-1.5, 13.1)
    axes.set_aspect("equal")
    axes.axis("off")
    axes.text(5.5, 12.75, machine.title, ha="center", va="center", fontsize=11.5, color=INK, fontweight="bold")
    axes.add_patch(FancyBboxPatch((-1.35, 0.95), 13.7, 10.35, boxstyle="round,pad=0,rounding_size=0.3", facecolor=FRAME,
                                  edgecolor=SOFT, linewidth=1.0, linestyle=(0, (5, 3)), zorder=0))  # fmt: skip
    for state, place in machine.places.items():
        _box(axes, place, state.name.replace("_", "-"), CARRIES if state in machine.carrying else PLAIN)
    for (state, what), arrow in machine.arrows.items():
        begin, after = machine.places[state], machine.places[machine.table[state, what]]
        start, end = _edge(begin, after), _edge(after, begin)
        if arrow.bend:
            start = (begin[0], begin[1] - BOX_HEIGHT / 2 - 0.06)
            end = (after[0] + BOX_WIDTH / 2 + 0.06, after[1])
        _line(axes, start, end, arrow.colour, arrow.bend)
        x, y = (start[i] + (end[i] - start[i]) * arrow.at + arrow.shift[i] for i in (0, 1))
        _label(axes, (x, y), arrow.text, arrow.colour, arrow.align)
    for state, (text, colour) in machine.entries.items():
        x, y = machine.places[state]
        if y > 10:
            _line(axes, (x, y + 1.35), (x, y + BOX_HEIGHT / 2 + 0.06), colour)
            axes.text(x, y + 1.55, text, ha="center", va="center", fontsize=8, color=colour)
        else:
            _line(axes, (x + 1.0, y + 1.3), (x + 1.0, y + BOX_HEIGHT / 2 + 0.06), colour)
            _label(axes, (x + 1.1, y + 1.15), text, colour, "left")
    x, y = machine.places[machine.end]
    _line(axes, (x, 0.95), (x, y + BOX_HEIGHT / 2 + 0.06), SOFT)
    notes = "\n".join(["from every state in the frame", *machine.everywhere.values()])
    axes.text(x - 0.2, 0.32, notes, ha="right", va="center", fontsize=7.5, color=SOFT, linespacing=1.3)


def draw(folder: Path) -> list[Path]:
    """Write the figure as SVG and PNG. Raises ValueError when a transition of the tables has no place in it."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    for machine in machines():
        if machine.missing():
            raise ValueError(f"{machine.title}: not in table and figure alike: {sorted(map(str, machine.missing()))}")
    matplotlib.rcParams["svg.hashsalt"] = NAME
    figure, both = pyplot.subplots(1, 2, figsize=(17, 8.9))
    for axes, machine in zip(both, machines(), strict=True):
        _draw(axes, machine)
    for place, (text, colour) in enumerate(
        (("begun by this host's TCP", HOST), ("begun by the peer", PEER), ("by the proxy itself", NEITHER))
    ):
        figure.text(0.33 + 0.13 * place, 0.015, f"■ {text}", fontsize=9, color=colour)
    figure.text(0.72, 0.015, "■", fontsize=9, color=CARRIES)
    figure.text(0.73, 0.015, "carries data and acknowledgements", fontsize=9, color=SOFT)
    figure.subplots_adjust(left=0.005, right=0.995, top=0.995, bottom=0.035, wspace=0.01)
    return save(figure, folder, NAME, description=f"tables {digest()}")


def save(figure: Any, folder: Path, name: str, description: str | None = None) -> list[Path]:
    """Write a figure as SVG and PNG, the same bytes every time; `description` goes into the SVG."""
    from matplotlib import pyplot

    made = []
    said = {} if description is None else {"Description": description}
    for kind, metadata in (("svg", {"Date": None, **said}), ("png", {"Software": None})):
        path = folder / f"{name}.{kind}"
        figure.savefig(path, metadata=metadata, dpi=110, facecolor="white")
        made.append(path)
    pyplot.close(figure)
    return made


def main() -> None:
    """Draw into docs/images."""
    parser = argparse.ArgumentParser(prog="python -m tools.figures.proxy_states", description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=IMAGES)
    for path in draw(parser.parse_args().folder):
        print(path)


if __name__ == "__main__":
    main()
