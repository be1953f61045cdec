"""Changes of care-of addresses, split into phases.

The split into detection, registration and resumption is that of the handover latency of Mobile IP in RFC 5944 section 3.6 and
RFC 6275 section 11.5: movement detection, registration, data on the new path.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from analysis.mobileip.bindings import OVERWRITTEN, REPLACED, Binding
from analysis.mobileip.registrations import Registration
from analysis.mobileip.tunnels import PathTimes

_NAN = float("nan")
ATTACH, MOVE, ADD = "attach", "move", "add"


@dataclass(slots=True)
class Handover:
    """One change: columns of the table `handovers`, see `analysis.mobileip.Mobility`."""

    family: int
    home_address: str
    peer: str
    role: str
    kind: str
    bid: int
    old_care_of: str
    new_care_of: str
    last_old_ns: int
    request_ns: int
    reply_ns: int
    first_new_ns: int
    detect_ms: float
    register_ms: float
    resume_ms: float
    gap_ms: float
    registration: int


def handovers(
    bindings: Sequence[Binding], registrations: Sequence[Registration], tunnelled: PathTimes, optimised: PathTimes
) -> list[Handover]:
    """One row per binding with another care-of address than the one before it, in order of time.

    A binding at a home agent moves what goes through tunnels, one at a correspondent what is route-optimised.
    """
    latest: dict[Any, Binding] = {}
    out = []
    for binding in bindings:
        owner = (binding.family, binding.home_address, binding.peer)
        before = latest.get((*owner, binding.bid)) or latest.get(owner)
        if before is None or before.care_of_address != binding.care_of_address:
            paths = tunnelled if binding.role == "home agent" else optimised
            out.append(_handover(before, binding, registrations[binding.registration], paths))
        latest[owner] = latest[(*owner, binding.bid)] = binding
    return out


def _kind(before: Binding | None, binding: Binding) -> str:
    """ "add": the old binding stays; "move": the new one takes its place; "attach": there was none."""
    if before is None:
        return ATTACH
    if before.to_ns > binding.from_ns:
        return ADD
    return MOVE if before.ended in (REPLACED, OVERWRITTEN) else ATTACH


def _handover(before: Binding | None, binding: Binding, r: Registration, paths: PathTimes) -> Handover:
    home, new = binding.home_address, binding.care_of_address
    kind = _kind(before, binding)
    old = before.care_of_address if before is not None else ""
    begin_ns = r.sent_ns if r.sent_ns >= 0 else r.effective_ns
    first_new_ns = paths.first_from(home, new, begin_ns)
    if first_new_ns > binding.to_ns:
        first_new_ns = -1
    limit_ns = first_new_ns if first_new_ns >= 0 else binding.to_ns
    last_old_ns = paths.last_before(home, old, limit_ns) if old and old != new else -1
    row = Handover(
        binding.family, home, binding.peer, binding.role, kind, binding.bid, old, new, last_old_ns, r.sent_ns, r.reply_ns,
        first_new_ns, _NAN, r.total_ms, _NAN, _NAN, binding.registration,
    )  # fmt: skip
    if last_old_ns >= 0 and r.sent_ns >= 0:
        row.detect_ms = max(r.sent_ns - last_old_ns, 0) / 1e6
    if first_new_ns >= 0 and r.reply_ns >= 0:
        row.resume_ms = max(first_new_ns - r.reply_ns, 0) / 1e6
    if first_new_ns >= 0 and last_old_ns >= 0:
        row.gap_ms = (first_new_ns - last_old_ns) / 1e6
    return row
