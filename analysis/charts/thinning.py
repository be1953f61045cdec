"""Fewer points for the same picture.

Both ways keep every outlier: what they leave out lies under something that is drawn.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Int64s = npt.NDArray[np.int64]
Numbers = npt.NDArray[Any]


def _cells(values: Numbers, low: float, high: float, count: int) -> Int64s:
    """In which of `count` equal cells between `low` and `high` each value lies; outside ones go to the border."""
    step = (high - low) / count
    if not step > 0:
        return np.zeros(values.size, np.int64)
    return np.clip((values.astype(np.float64) - low) / step, 0, count - 1).astype(np.int64)


def one_per_cell(
    x: Numbers, y: Numbers, columns: int, rows: int, bounds: tuple[float, float, float, float] | None = None
) -> Int64s:
    """Indices of the first point in every cell of a grid that has any, ascending.

    x, y: (n,) coordinates. `bounds`: left, right, bottom, top of the grid, by default those of the points. With cells not
    larger than a pixel the drawing is the same as with all points, and there are at most columns * rows of them.
    """
    if not x.size:
        return np.zeros(0, np.int64)
    left, right, bottom, top = bounds or (float(x.min()), float(x.max()), float(y.min()), float(y.max()))
    cell = _cells(x, left, right, columns) * rows + _cells(y, bottom, top, rows)
    return np.sort(np.unique(cell, return_index=True)[1]).astype(np.int64)


def envelope(x: Numbers, y: Numbers, columns: int) -> Int64s:
    """Indices of the first, lowest, highest and last point of each of `columns` equal steps of x, ascending.

    x must ascend. A line through these points covers the same pixels as the line through all.
    """
    if x.size <= 4 * columns:
        return np.arange(x.size, dtype=np.int64)
    cell = _cells(x, float(x[0]), float(x[-1]), columns)
    first = np.flatnonzero(np.diff(cell, prepend=-1))
    last = np.append(first[1:], x.size) - 1
    order = np.lexsort((y, cell))  # sorted by height within a cell, cells in the same order as before
    return np.unique(np.concatenate((first, last, order[first], order[last]))).astype(np.int64)
