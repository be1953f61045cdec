"""Rows as dataclasses -> DataFrames whose columns have their types even without a row."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from typing import Any

import pandas as pd

Unsigned64 = int
"""A number that needs all 64 bits."""
_KINDS = {"int": "int64", "str": "str", "bool": "bool", "float": "float64", "Unsigned64": "uint64"}


def to_frame(rows: Iterable[Any], kind: type[Any]) -> pd.DataFrame:
    """One row per object; one column per field of the dataclass `kind`, fields that begin with "_" left out."""
    rows = list(rows)
    columns = {}
    for field in fields(kind):
        if not field.name.startswith("_"):
            values = [getattr(row, field.name) for row in rows]
            columns[field.name] = pd.Series(values, dtype=_KINDS.get(str(field.type), "object"))
    return pd.DataFrame(columns)
