"""The figures of docs/proxy.md belong to the tables and functions that they show."""

from pathlib import Path

import pytest

from agents.core.proxy.states import CONNECTION, SUBFLOW, State, SubflowState
from tools.figures import proxy_projection, proxy_states

IMAGES = Path(__file__).resolve().parents[2] / "docs" / "images"


@pytest.mark.parametrize("machine", proxy_states.machines(), ids=["connection", "subflow"])
def test_every_transition_is_drawn(machine: proxy_states.Machine) -> None:
    assert machine.missing() == set()


def test_every_state_is_drawn() -> None:
    connection, subflow = proxy_states.machines()
    assert (set(connection.places), set(subflow.places)) == (set(State), set(SubflowState))
    assert (connection.table, subflow.table) == (CONNECTION, SUBFLOW)


def test_a_new_transition_is_noticed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(CONNECTION, (State.CLOSED, next(iter(CONNECTION))[1]), State.ESTABLISHED)  # type: ignore[misc]
    with pytest.raises(ValueError, match="not in table and figure alike"):
        proxy_states.draw(tmp_path)


def test_the_drawn_figure_is_of_todays_tables() -> None:
    """Else: make figures."""
    assert f"tables {proxy_states.digest()}" in (IMAGES / "proxy-states.svg").read_text()
    assert (IMAGES / "proxy-states.png").stat().st_size > 50_000


def test_the_example_shows_what_it_says() -> None:
    """Reverse lookup acknowledges what was not delivered, or too little; the projection neither."""
    (_, only_san, none), (_, san, blocks), (_, everything, _none) = proxy_projection.CASES
    assert proxy_projection.projected(only_san, none) == (21, [(41, 51)])
    assert proxy_projection.looked_up(only_san) == 51
    assert proxy_projection.projected(san, blocks) == (11, [(31, 61)])
    assert proxy_projection.projected(everything, ()) == (61, [])
    assert proxy_projection.looked_up(everything) == 41
