"""Return routability: home tests and care-of tests, and the Binding Updates that used them.

Sources: RFC 6275 sections 5.2.5 (procedure), 6.1.3-6.1.6 (messages; the reply copies the cookie), 6.2.6 (the Binding Update
names the nonces by index), 5.2.7 (a token may be used again).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from analysis.mobileip.finding import Seen
from analysis.mobileip.registrations import MAX_LEGS, NOT_ASKED, Registration

_NAN = float("nan")


@dataclass(slots=True)
class Routability:
    """One procedure: columns of the table `return_routability`, see `analysis.mobileip.Mobility`."""

    home_address: str
    correspondent: str
    care_of_address: str
    hoti_ns: int = -1
    hot_ns: int = -1
    home_ms: float = _NAN
    coti_ns: int = -1
    cot_ns: int = -1
    care_of_ms: float = _NAN
    home_nonce: int = -1
    care_of_nonce: int = -1
    home_reused: bool = False
    care_of_reused: bool = False
    retransmissions: int = 0
    bu_ns: int = -1
    ba_ns: int = -1
    total_ms: float = _NAN
    result: str = ""
    registration: int = -1


@dataclass(slots=True)
class _Test:
    """A home test or care-of test: one cookie."""

    is_home: bool
    address: str
    correspondent: str
    init_ns: int = -1
    reply_ns: int = -1
    nonce: int = -1
    retransmissions: int = 0
    uses: int = 0
    legs: set[Any] = field(default_factory=set)

    @property
    def latency_ms(self) -> float:
        return (self.reply_ns - self.init_ns) / 1e6 if self.init_ns >= 0 and self.reply_ns >= 0 else _NAN


class _Collector:
    def __init__(self, registrations: Sequence[Registration]) -> None:
        self.rows: list[Routability] = []
        self.tests: dict[Any, _Test] = {}
        self._registrations = registrations
        self._by_row = {r.request_row: n for n, r in enumerate(registrations) if r.family == 6 and r.role == "correspondent"}
        self._latest: dict[Any, _Test] = {}

    def take(self, seen: Seen) -> None:
        """One message, in order of time."""
        kind = seen.message.kind
        if kind in ("HoTI", "CoTI"):
            self._init(seen)
        elif kind in ("HoT", "CoT"):
            self._reply(seen)
        elif kind == "BU" and seen.row in self._by_row:
            self._use(self._by_row[seen.row])

    def _test(self, seen: Seen) -> _Test:
        m = seen.message
        is_home = m.kind.startswith("Ho")
        address, peer = (seen.src, seen.dst) if m.kind.endswith("I") else (seen.dst, seen.src)
        return self.tests.setdefault((is_home, address, peer, m.cookie), _Test(is_home, address, peer))

    def _leg(self, seen: Seen, test: _Test) -> bool:
        """Whether the message is there for the first time on its way between two nodes."""
        leg = (seen.message.kind, seen.src, seen.dst, seen.outer_src, seen.outer_dst)
        fresh = leg not in test.legs and len(test.legs) < 2 * MAX_LEGS
        if fresh:
            test.legs.add(leg)
        return fresh

    def _init(self, seen: Seen) -> None:
        test = self._test(seen)
        fresh = self._leg(seen, test)
        if test.init_ns < 0:
            test.init_ns = seen.time_ns
        elif not fresh and not seen.copy:
            test.retransmissions += 1

    def _reply(self, seen: Seen) -> None:
        test, m = self._test(seen), seen.message
        if self._leg(seen, test) or seen.copy:
            test.reply_ns = seen.time_ns  # the last hop reaches the mobile node
        test.nonce = m.home_nonce if test.is_home else m.care_of_nonce
        self._latest[test.is_home, test.address, test.correspondent, test.nonce] = test

    def _use(self, number: int) -> None:
        """A Binding Update to a correspondent: find its tests by the indices of their nonces."""
        r = self._registrations[number]
        row = Routability(r.home_address, r.peer, r.care_of_address, bu_ns=r.sent_ns, ba_ns=r.reply_ns, registration=number)
        row.home_nonce, row.care_of_nonce, row.result = r._home_nonce, r._care_of_nonce, r.result
        begins = [r.sent_ns]
        home = self._latest.get((True, r.home_address, r.peer, r._home_nonce))
        care_of = self._latest.get((False, r.care_of_address, r.peer, r._care_of_nonce))
        for test in (home, care_of):
            if test is not None:
                begins += [test.init_ns] if not test.uses and test.init_ns >= 0 else []
                _fill(row, test)
                test.uses += 1
        end_ns = r.sent_ns if r.result == NOT_ASKED else r.reply_ns
        row.total_ms = (end_ns - min(begins)) / 1e6 if end_ns >= 0 else _NAN
        self.rows.append(row)

    def rest(self) -> list[Routability]:
        """Tests that no Binding Update used."""
        out = []
        for test in self.tests.values():
            if not test.uses:
                row = Routability(
                    test.address if test.is_home else "", test.correspondent, "" if test.is_home else test.address
                )
                row.result = "unused" if test.reply_ns >= 0 else "unanswered"
                _fill(row, test)
                out.append(row)
        return out


def _fill(row: Routability, test: _Test) -> None:
    row.retransmissions += test.retransmissions
    if test.is_home:
        row.hoti_ns, row.hot_ns, row.home_ms, row.home_reused = test.init_ns, test.reply_ns, test.latency_ms, test.uses > 0
        row.home_nonce = test.nonce
    else:
        row.coti_ns, row.cot_ns, row.care_of_ms, row.care_of_reused = (
            test.init_ns,
            test.reply_ns,
            test.latency_ms,
            test.uses > 0,
        )
        row.care_of_nonce = test.nonce


def return_routability(registrations: Sequence[Registration], messages: Sequence[Seen]) -> list[Routability]:
    """One row per Binding Update to a correspondent with its tests, and one per test that was not used; in order of time."""
    collector = _Collector(registrations)
    for seen in messages:
        if seen.family == 6:
            collector.take(seen)
    rows = collector.rows + collector.rest()
    return sorted(rows, key=lambda row: min((t for t in (row.hoti_ns, row.coti_ns, row.bu_ns) if t >= 0), default=-1))
