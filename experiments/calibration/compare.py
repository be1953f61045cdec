"""Results of a calibration judged, and those of both backends side by side. Pure.

A measurement is `ok`, `missed`, `failed` (it could not be made), `cpu-limited` (the guest's CPU was so busy that its figure
shows the emulation's speed) or has `no target`. A pair of measurements is `ok`, `differs`, has `no target`, or is
`not judged` when one of them is not.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.guest.supervise import CPU_LIMIT

BACKENDS = ("userspace", "netem")

Result = Mapping[str, Any]


def state_of(row: Mapping[str, Any], *, in_guest: bool) -> str:
    """ok, missed, failed, cpu-limited or no target.

    Natively nothing is cpu-limited: the speed of a real CPU belongs to what is measured.
    """
    if row["measured"] is None:
        return "failed"
    if in_guest and (row.get("cpu_busy") or 0.0) > CPU_LIMIT:
        return "cpu-limited"
    if row["target"] is None:
        return "no target"
    return "ok" if row["ok"] else "missed"


def compare(results: Sequence[Result], *, in_guest: bool) -> list[dict[str, Any]]:
    """One comparison for each profile that was measured on both backends: {"profile", "label", "asked", "rows"}.

    Each row has quantity, direction, unit, asked, target, one entry for each backend (measured, error, cpu_busy, state, why),
    difference (userspace minus netem), difference_target and state.
    """
    by_profile: dict[tuple[str, str], dict[str, Result]] = {}
    for result in results:
        by_profile.setdefault((result["kind"], result["profile"]), {})[result["backend"]] = result
    return [
        {"profile": name, "kind": kind, "label": both["netem"]["label"], "asked": both["netem"]["asked"],
         "rows": _rows(both, in_guest=in_guest)}
        for (kind, name), both in by_profile.items() if set(BACKENDS) <= set(both)
    ]  # fmt: skip


def _rows(both: Mapping[str, Result], *, in_guest: bool) -> list[dict[str, Any]]:
    """Measurements with the same name, in the order in which they were made."""
    pairs: dict[tuple[str, str], dict[str, Mapping[str, Any]]] = {}
    for backend in BACKENDS:
        for row in both[backend]["rows"]:
            pairs.setdefault((row["direction"], row["quantity"]), {})[backend] = row
    ordered = sorted(pairs.items(), key=lambda item: item[0][0] != "forward")
    return [_pair(quantity, direction, pair, in_guest=in_guest) for (direction, quantity), pair in ordered]


def _pair(quantity: str, direction: str, pair: Mapping[str, Mapping[str, Any]], *, in_guest: bool) -> dict[str, Any]:
    # What was asked comes from a row that was measured; of a failed one nothing is known but why.
    known = next((row for row in pair.values() if row["measured"] is not None), next(iter(pair.values())))
    entry: dict[str, Any] = {name: known[name] for name in ("unit", "asked", "target")}
    entry.update(quantity=quantity, direction=direction)
    for backend in BACKENDS:
        entry[backend] = _side(pair.get(backend), in_guest=in_guest)
    one, other = (entry[backend] for backend in BACKENDS)
    states = {one["state"], other["state"]}
    entry["difference"] = entry["difference_target"] = None
    entry["state"] = "no target" if states == {"no target"} else "not judged"
    if one["measured"] is not None and other["measured"] is not None:
        entry["difference"] = one["measured"] - other["measured"]
    if states <= {"ok", "missed"}:
        # Two draws differ by more than one differs from its mean.
        entry["difference_target"] = known["target"] * (math.sqrt(2) if known.get("chance") else 1.0)
        entry["state"] = "ok" if abs(entry["difference"]) <= entry["difference_target"] else "differs"
    return entry


def _side(row: Mapping[str, Any] | None, *, in_guest: bool) -> dict[str, Any]:
    if row is None:
        return {"measured": None, "error": None, "cpu_busy": None, "state": "failed", "why": None}
    side = {name: row.get(name) for name in ("measured", "error", "cpu_busy", "why")}
    return {**side, "state": state_of(row, in_guest=in_guest)}


def count_states(results: Sequence[Result], comparison: Sequence[Mapping[str, Any]], *, in_guest: bool) -> dict[str, int]:
    """How many measurements are ok, missed, failed and cpu-limited, and how many pairs differ."""
    counts = dict.fromkeys(("ok", "missed", "failed", "cpu-limited", "no target", "differs"), 0)
    for result in results:
        for row in result["rows"]:
            counts[state_of(row, in_guest=in_guest)] += 1
    counts["differs"] = sum(row["state"] == "differs" for item in comparison for row in item["rows"])
    return counts


def largest(comparison: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """For each quantity the largest judged error of each backend and the largest judged difference, as shares of their targets.

    Entries: quantity, unit, and for userspace, netem and difference: {"value", "of_target", "profile"} or None.
    """
    found: dict[str, dict[str, Any]] = {}
    for item in comparison:
        for row in item["rows"]:
            if not row["target"]:
                continue
            entry = found.setdefault(row["quantity"], {"quantity": row["quantity"], "unit": row["unit"]})
            for name in BACKENDS:
                if row[name]["state"] in ("ok", "missed"):
                    _keep_larger(entry, name, row[name]["error"], row["target"], item["profile"])
            if row["difference_target"]:
                _keep_larger(entry, "difference", row["difference"], row["difference_target"], item["profile"])
    return list(found.values())


def _keep_larger(entry: dict[str, Any], name: str, value: float, target: float, profile: str) -> None:
    share = abs(value) / target
    if name not in entry or share > entry[name]["of_target"]:
        entry[name] = {"value": value, "of_target": share, "profile": profile}
