"""Rows of a calibration: what was asked, what was measured."""

from typing import Any


def make_row(quantity: str, unit: str, asked: float, measured: float, error: float, target: float | None) -> dict[str, Any]:
    """One measurement."""
    return {
        "quantity": quantity,
        "unit": unit,
        "asked": asked,
        "measured": measured,
        "error": error,
        "target": target,
        "ok": target is None or abs(error) <= target,
    }


def failed_row(what: str, why: str) -> dict[str, Any]:
    """A measurement that could not be made."""
    return {**dict.fromkeys(("asked", "measured", "error", "target")), "quantity": what, "unit": "", "ok": False, "why": why}
