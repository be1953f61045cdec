"""`roamlab analyse` on real captures: what it says, what it writes, what it refuses."""

from __future__ import annotations

import errno
import gzip
import json
import os
import shutil
from pathlib import Path

import pandas as pd
import pytest

from analysis.__main__ import main
from analysis.packets import CaptureError
from analysis.packets.selection import find_captures

PCAPS = Path(__file__).resolve().parents[2] / "pcaps"
KERNEL = PCAPS / "kernel"
PRIO = KERNEL / "handover-prio-v4.client.pcapng.gz"


def known(name: str) -> dict:
    return json.loads((KERNEL / f"{name}.json").read_text())


def analyse(*arguments: object) -> int:
    return main(["analyse", *map(str, arguments)])


def said(capsys, *arguments: object) -> dict:
    assert analyse(*arguments, "--json") == 0
    return json.loads(capsys.readouterr().out)


def test_summary_for_people(capsys):
    assert analyse(PRIO) == 0
    out = capsys.readouterr().out
    for words in ("MPTCP v1", "10.1.0.100", "10.2.0.100", "HMAC verified", "backup", "MP_PRIO 4", "keys agree"):
        assert words in out, words
    assert max(map(len, out.splitlines())) <= 80


def test_summary_for_machines_agrees_with_the_applications(capsys):
    summary = said(capsys, PRIO)
    truth = known("handover-prio-v4")["connections"][0]
    connection = summary["connections"][0]
    assert connection["transport"] == "mptcp"
    assert connection["delivered_down"] == truth["client"]["received_bytes"]
    assert connection["keys"] == "verified"
    assert [flow["join"] for flow in connection["subflows"]] == ["", "verified"]
    assert sum(flow["data_down"] for flow in connection["subflows"]) == connection["delivered_down"]
    assert summary["files"][0]["dropped"] == 0
    assert summary["packets"]["total"] == summary["files"][0]["packets"]


def test_interfaces_of_one_host_in_several_files(capsys):
    folder = PCAPS / "real-mptcp"
    summary = said(capsys, *sorted((folder / "pcap").glob("mn-*.pcapng")))
    assert len(summary["capture_points"]) == 1
    assert summary["connections_total"] == 1
    assert said(capsys, folder)["connections"] == summary["connections"]  # the folder of a run


def test_two_points_of_a_path_are_compared(capsys):
    summary = said(capsys, PRIO, KERNEL / "handover-prio-v4.server.pcapng.gz")
    assert len(summary["capture_points"]) == 2
    assert summary["connections_total"] == 2
    assert {c["point"] for c in summary["connections"]} == {0, 1}


def test_host_and_port(capsys):
    summary = said(capsys, PRIO, "--host", "10.2.0.100")
    assert {c["client"][0] for c in summary["connections"]} == {"10.2.0.100"}
    assert said(capsys, PRIO, "--port", 9)["connections_total"] == 0


def test_packets_alone_and_with_the_rest(tmp_path, capsys):
    out = tmp_path / "p.parquet"
    assert analyse(PRIO, "--parquet", out) == 0
    line = capsys.readouterr().out
    assert "packets" in line
    assert "MPTCP" not in line
    frame = pd.read_parquet(out)
    assert f"{len(frame):,} packets" in line
    summary = said(capsys, PRIO, "--parquet", out, "--tables", tmp_path / "t", "--html", tmp_path / "p.html")
    assert len(pd.read_parquet(out)) == len(frame) == summary["packets"]["total"]
    tables = {path.stem: len(pd.read_parquet(path)) for path in (tmp_path / "t").glob("*.parquet")}
    assert {"flows", "connections", "segments", "acks", "signals", "findings"} <= set(tables)
    assert tables["flows"] == 2
    assert "<script>" in (tmp_path / "p.html").read_text()
    assert set(summary["outputs"]) == {"parquet", "tables", "html"}


def test_selected_packets_in_parquet(tmp_path):
    assert analyse(PRIO, "--parquet", tmp_path / "p.parquet", "--host", "10.2.0.100") == 0
    frame = pd.read_parquet(tmp_path / "p.parquet")
    assert ((frame["src"] == "10.2.0.100") | (frame["dst"] == "10.2.0.100")).all()
    assert 0 < len(frame) < 500


def test_damaged_capture_is_read_as_far_as_it_goes(tmp_path, capsys):
    whole = gzip.decompress(PRIO.read_bytes())
    path = tmp_path / "cut.pcapng"
    path.write_bytes(whole[: len(whole) // 2])
    assert analyse(path) == 1
    streams = capsys.readouterr()
    assert "MPTCP v1" in streams.out
    assert "damaged: byte" in streams.out
    assert streams.err.startswith(f"{path}: byte ")
    assert streams.err.count("\n") == 1
    assert analyse(path, "--parquet", tmp_path / "cut.parquet") == 1
    assert 100 < len(pd.read_parquet(tmp_path / "cut.parquet")) < 500


@pytest.mark.parametrize("options", [[], ["--parquet", "out.parquet"], ["--json"]])
def test_what_is_no_capture_is_one_line(tmp_path, capsys, monkeypatch, options):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.txt").write_text("no capture")
    assert analyse("notes.txt", *options) == 2
    streams = capsys.readouterr()
    assert streams.out == ""
    assert streams.err.count("\n") == 1
    assert "notes.txt: byte 0: neither pcapng nor pcap" in streams.err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["notes.txt"]


def test_refusals_name_the_option(tmp_path, capsys):
    path = tmp_path / "x.pcapng.gz"
    shutil.copy(PRIO, path)
    for arguments, words in (
        ((path, "--parquet", path), "is also an input"),
        ((path, "--html", tmp_path), "is a folder"),
        ((path, "--html", tmp_path / "no" / "x.html"), "no folder that can be written"),
        ((path, "--tables", tmp_path / "no" / "x"), "no folder that can be written"),
        ((path, "--host", "somewhere"), "is no IP address"),
        ((path, "--connections", 0), "at least 1"),
        ((tmp_path / "none.pcap",), "No such file"),
    ):
        assert analyse(*arguments) == 2
        error = capsys.readouterr().err
        assert words in error
        assert error.count("\n") == 1


def test_an_input_in_a_folder_is_never_overwritten(tmp_path, capsys):
    path = tmp_path / "a.pcapng.gz"
    shutil.copy(PRIO, path)
    before = path.read_bytes()
    assert analyse(tmp_path, "--parquet", path) == 2
    assert "is also an input" in capsys.readouterr().err
    assert path.read_bytes() == before
    assert analyse(path, "--parquet", tmp_path / "x", "--html", tmp_path / "x") == 2
    assert analyse(path, path) == 2
    assert "named twice" in capsys.readouterr().err
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    assert analyse(path, "--parquet", pipe) == 2
    assert pipe.is_fifo()


def test_a_full_disk_leaves_nothing_behind(tmp_path, capsys, monkeypatch):
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("pyarrow.parquet.ParquetWriter.write_table", full)
    assert analyse(PRIO, "--parquet", tmp_path / "p.parquet") == 2
    assert capsys.readouterr().err == f"{tmp_path / 'p.parquet'}: No space left on device\n"
    monkeypatch.setattr("pathlib.Path.write_text", full)
    assert analyse(PRIO, "--html", tmp_path / "p.html") == 2
    assert capsys.readouterr().err == f"{tmp_path / 'p.html'}: No space left on device\n"
    assert not list(tmp_path.iterdir())


def test_names_of_strangers(tmp_path, capsys):
    for name in ("bad\nline.pcapng.gz", "[red].pcapng.gz", "\udcff.pcapng.gz", "\x1b[31m.pcapng.gz"):
        path = tmp_path / name
        shutil.copy(PRIO, path)
        assert analyse(path, "--parquet", tmp_path / "p.parquet", "--html", tmp_path / "p.html") == 0
        streams = capsys.readouterr()
        assert "\x1b" not in streams.out
        assert analyse(path, "--parquet", path) == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_an_unanswered_move_is_no_second_point_of_the_path(tmp_path, capsys):
    import synthetic as syn

    writer = syn.Pcapng(("wlan0", "lte0"))
    a, b = ("10.0.0.1", 1000), ("10.0.0.2", 80)
    writer.add(1, syn.tcp(*a, *b, 1, 0, syn.SYN))
    writer.add(2, syn.tcp(*b, *a, 9, 2, syn.SYN | syn.ACK))
    for index in range(10):
        writer.add(10 + 2 * index, syn.tcp(*a, *b, 2 + 100 * index, 10, size=100))
        writer.add(11 + 2 * index, syn.tcp(*b, *a, 10, 102 + 100 * index))
    for index in range(4):
        writer.add(10**9 * (index + 1), syn.tcp(*a, *b, 902, 10, size=100), interface=1)
    path = tmp_path / "move.pcapng"
    path.write_bytes(writer.bytes())
    summary = said(capsys, path)
    assert len(summary["capture_points"]) == 1
    assert [c["duplicate_up"] for c in summary["connections"]] == [400]


def test_folders_are_searched_for_captures(tmp_path):
    with pytest.raises(ValueError, match="no capture in this folder"):
        find_captures([tmp_path])
    (tmp_path / "pcap").mkdir()
    (tmp_path / "pcap" / "b.pcapng").touch()
    (tmp_path / "pcap" / "a.pcap.gz").touch()
    (tmp_path / "pcap" / ".hidden.pcap").touch()
    (tmp_path / "pcap" / "a.pcap.parquet").touch()
    assert [path.name for path in find_captures([tmp_path])] == ["a.pcap.gz", "b.pcapng"]
    assert issubclass(CaptureError, ValueError)


def test_empty_capture(tmp_path, capsys):
    import synthetic as syn

    path = tmp_path / "empty.pcap"
    path.write_bytes(syn.pcap([]))
    assert analyse(path) == 0
    assert "no TCP connection" in capsys.readouterr().out
    assert said(capsys, path, "--html", tmp_path / "e.html")["packets"]["total"] == 0
