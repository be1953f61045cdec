"""Run directories: atomic, never overwritten, unfinished ones recognisable."""

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from experiments.cli.clean import stale_folders
from experiments.errors import RoamlabError
from experiments.rundir import RunDirectory, new_campaign_id, read_json, write_json


def test_folder_gets_its_name_only_when_it_is_finished(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path, "run")
    directory.create()
    assert [p.name for p in tmp_path.iterdir()] == ["run.partial"]
    final = directory.finish({"state": "complete"})
    assert [p.name for p in tmp_path.iterdir()] == ["run"]
    assert read_json(final / "manifest.json") == {"state": "complete"}


def test_full_disk_leaves_the_old_file_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.json"
    write_json(path, {"old": True})

    def full(_fd: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RoamlabError, match=r"m\.json: cannot be written: No space left"):
        write_json(path, {"old": False})
    assert read_json(path) == {"old": True}
    assert list(tmp_path.iterdir()) == [path]


def test_existing_results_are_never_overwritten(tmp_path: Path) -> None:
    RunDirectory(tmp_path, "run").create()
    with pytest.raises(RoamlabError, match="cannot be made: File exists"):
        RunDirectory(tmp_path, "run").create()


def test_campaign_names_are_unique_even_within_a_second(tmp_path: Path) -> None:
    names = [new_campaign_id(tmp_path) for _ in range(5)]
    assert len(set(names)) == 5


def test_only_folders_of_dead_runners_are_stale(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path / "experiment", "alive")
    directory.create()
    (tmp_path / "experiment" / "dead.partial").mkdir()
    (tmp_path / "experiment" / "finished").mkdir()
    assert [p.name for p in stale_folders(tmp_path)] == ["dead.partial"]
    directory.release()
    assert [p.name for p in stale_folders(tmp_path)] == ["alive.partial", "dead.partial"]


@pytest.mark.parametrize(("content", "words"), [("{\n oops", "line 2"), ("[1]", "not a JSON object"), (None, "No such file")])
def test_bad_json_names_file_and_line(tmp_path: Path, content: str | None, words: str) -> None:
    path = tmp_path / "c.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(RoamlabError) as error:
        read_json(path)
    assert str(path) in str(error.value)
    assert words in str(error.value)


def test_written_json_is_json(tmp_path: Path) -> None:
    data: dict[str, Any] = {"a": [1, None, "ü"]}
    write_json(tmp_path / "x.json", data)
    assert json.loads((tmp_path / "x.json").read_text()) == data
