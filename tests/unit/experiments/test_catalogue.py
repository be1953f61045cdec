"""Experiments from files of the user's own, and clear words when such a file is wrong."""

from pathlib import Path

import pytest

from experiments import catalogue
from experiments.errors import RoamlabError

GOOD = """
from experiments.model import Experiment, Scenario
EXPERIMENT = Experiment(name="mine", title="t", summary="s", scenarios=(Scenario(name="calm"),), mechanisms=("tcp",))
"""


def test_a_file_is_an_experiment(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(GOOD)
    assert catalogue.load(str(path)).name == "mine"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("EXPERIMENT = (", ["line 1"]),
        ("\n\nEXPERIMENT = Scenari()", ["line 3", "Scenari"]),
        (GOOD.replace("calm", "calm").replace("mechanisms", "mechanism"), ["line 3", "mechanism"]),
        ("x = 1", ["defines no EXPERIMENT"]),
        (None, ["no such file"]),
    ],
)
def test_a_wrong_file_is_named_with_its_line(tmp_path: Path, content: str | None, words: list[str]) -> None:
    path = tmp_path / "wrong.py"
    if content is not None:
        path.write_text(content)
    with pytest.raises(RoamlabError) as error:
        catalogue.load(str(path))
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
    assert all(word in str(error.value) for word in words)


def test_unknown_names_list_the_valid_ones() -> None:
    with pytest.raises(RoamlabError, match=r"no experiment 'outrage'.*demo, .*outage"):
        catalogue.load("outrage")
