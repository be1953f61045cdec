"""Long lists in answers."""

from typing import Any

import pytest

from agents.kernel.control import CommandError
from agents.kernel.mobileip.pages import ROWS, Page, page_of, preferring


def test_a_page_of_a_long_list() -> None:
    assert page_of({"cmd": "status"}) == Page(0, ROWS)
    assert page_of({"cmd": "status", "first": 3, "limit": 2}).of(range(10)) == [3, 4]
    assert page_of({"limit": 0}).of(range(10)) == []
    assert Page(8, 5).of(iter(range(10))) == [8, 9]


@pytest.mark.parametrize("request_", [{"limit": -1}, {"limit": "all"}, {"first": 1.5}, {"first": True}])
def test_what_is_no_number_is_refused(request_: dict[str, Any]) -> None:
    with pytest.raises(CommandError, match="must be a whole number"):
        page_of(request_)


def test_what_is_shown_first() -> None:
    assert list(preferring([7, 3, 7], range(10), 4)) == [7, 3, 0, 1]
    assert list(preferring([], range(10), 2)) == [0, 1]
    assert list(preferring(range(5), range(10), 3)) == [0, 1, 2]
