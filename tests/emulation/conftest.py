"""A marker of the emulation tests, beside those of pyproject.toml."""

import pytest


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "long: takes minutes; runs with `make guest-test` or `make proxy-test`, not in `make test`"
    )
