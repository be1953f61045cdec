"""What a mobile node's agent says of its home addresses."""

from typing import Any

import pytest

from agents.kernel.path_manager.configuration import Home, MobileNode
from agents.kernel.path_manager.surroundings import homes_of

NODE = MobileNode("/x.sock", 3, "company")
FIRST, OTHER = ("10.33.0.10", "10.33.0.2"), ("10.34.0.10", "10.34.0.2")


def rows(*homes: tuple[str, str]) -> list[dict[str, Any]]:
    return [{"home_address": address, "home_agent": agent, "at_home": ""} for address, agent in homes]


@pytest.mark.parametrize(
    ("status", "wanted"),
    [
        ({"home_address": FIRST[0], "homes": rows(FIRST, OTHER)}, [FIRST, OTHER]),
        ({"home_address": FIRST[0], "core": {"home_agent": FIRST[1]}}, [FIRST]),
        ({"home_address": "", "homes": rows(("", "10.33.0.2"))}, []),
        ({}, []),
    ],
)
def test_all_home_addresses_are_taken(status: dict[str, Any], wanted: list[tuple[str, str]]) -> None:
    assert homes_of(status, NODE) == [Home(address, agent, 3, "company") for address, agent in wanted]
