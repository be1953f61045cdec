"""Fewer points, same picture."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from analysis.charts.thinning import envelope, one_per_cell

GRID = 16


def cells(x, y, chosen, bounds):
    left, right, bottom, top = bounds
    column = np.clip(((x[chosen] - left) / max(right - left, 1e-12) * GRID), 0, GRID - 1).astype(int)
    row = np.clip(((y[chosen] - bottom) / max(top - bottom, 1e-12) * GRID), 0, GRID - 1).astype(int)
    return set(zip(column.tolist(), row.tolist(), strict=True))


@given(st.lists(st.tuples(st.integers(0, 64), st.integers(0, 64)), max_size=300))
def test_every_cell_with_a_point_keeps_one(points):
    """Coordinates in 64ths, so that test and code agree on borders of cells."""
    x, y = (np.array([p[i] for p in points], np.float64) for i in (0, 1))
    kept = one_per_cell(x, y, GRID, GRID, (0, 64, 0, 64))
    assert cells(x, y, kept, (0, 64, 0, 64)) == cells(x, y, np.arange(x.size), (0, 64, 0, 64))
    assert len(kept) == len(cells(x, y, kept, (0, 64, 0, 64)))
    assert (np.diff(kept) > 0).all()


def test_a_lone_outlier_among_a_million_stays():
    x = np.linspace(0, 1, 1_000_000)
    y = x.copy()
    y[123_456] = 0.9
    kept = one_per_cell(x, y, 1600, 800)
    assert 123_456 in kept
    assert kept.size < 4000


@given(st.integers(0, 2**32 - 1), st.integers(1, 400), st.integers(1, 20))
def test_envelope_keeps_the_extremes_of_every_column(seed, count, columns):
    y = np.random.default_rng(seed).integers(-50, 50, count).astype(np.float64)
    x = np.arange(y.size, dtype=np.float64)
    kept = envelope(x, y, columns)
    assert kept[0] == 0
    assert kept[-1] == y.size - 1
    column = np.clip(x / max(y.size - 1, 1e-9) * columns, 0, columns - 1).astype(int)
    for number in np.unique(column):
        some = y[column == number]
        assert some.min() in y[kept][column[kept] == number]
        assert some.max() in y[kept][column[kept] == number]
    assert kept.size <= max(4 * columns, y.size)


def test_equal_coordinates_are_one_point():
    same = np.zeros(50)
    assert one_per_cell(same, same, 100, 100).tolist() == [0]
    assert one_per_cell(same[:0], same[:0], 100, 100).size == 0
