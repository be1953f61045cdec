"""docs/analysis.md describes the columns as they are."""

from __future__ import annotations

from pathlib import Path

from analysis.connections import columns
from analysis.packets.schema import COLUMNS, SIGNAL_COLUMNS

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "analysis.md").read_text("utf-8")


def test_every_column_of_the_packet_table():
    for column in (*COLUMNS, *SIGNAL_COLUMNS):
        assert f"| `{column.name}` | {column.kind} | {column.meaning} |" in PAGE


def test_every_column_of_the_other_tables():
    tables = [columns.FLOWS, columns.CONNECTIONS, columns.SEGMENTS, columns.ACKS]
    assert sum(map(len, tables)) > 60
    for column in (column for table in tables for column in table):
        assert f"| `{column.name}` | {column.meaning} |" in PAGE
