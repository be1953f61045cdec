"""Projection of acknowledgements and placing of data, against models that know every byte by itself (paper section 3.5)."""

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from agents.core.proxy.config import ProxyConfig
from agents.core.proxy.connection import Connection
from agents.core.proxy.projection import AckTranslation, advance, intersection, project, project_forward
from agents.core.proxy.states import State
from agents.core.proxy.subflow import Subflow
from agents.core.proxy.tables import Interval, IntervalMap, IntervalSet

SAME = settings(derandomize=True, deadline=None, max_examples=150)
SMALL = st.integers(0, 40)
SPANS = st.lists(st.tuples(SMALL, SMALL), max_size=4)


def runs(numbers: set[int]) -> list[Interval]:
    """The numbers as intervals: ascending, disjoint, not adjacent."""
    found: list[Interval] = []
    for number in sorted(numbers):
        if found and found[-1][1] == number:
            found[-1] = (found[-1][0], number + 1)
        else:
            found.append((number, number + 1))
    return found


def numbers_of(spans: list[Interval]) -> set[int]:
    return {number for left, right in spans for number in range(left, right)}


def after(last: int, acknowledged: set[int]) -> tuple[int, list[Interval]]:
    """The ACK number that follows `last`, and the blocks above it, byte by byte."""
    while last in acknowledged:
        last += 1
    return last, runs({number for number in acknowledged if number > last})


def subflow(number: int = 0) -> Subflow:
    return Subflow(number, bytes(4), 1, bytes(4), 2, iss=0)


# -- the functions ------------------------------------------------------------------------------------------------------

# Of each piece: length, and where in the other space it lies; pieces of 40 do not overlap there.
TABLES = st.lists(st.tuples(st.integers(1, 9), st.integers(0, 3)), max_size=6).flatmap(
    lambda rows: st.tuples(st.just(rows), st.permutations(range(len(rows))))
)


def table_of(made: tuple[list[tuple[int, int]], list[int]]) -> tuple[IntervalMap[None], dict[int, int]]:
    """A table whose images are permuted, with gaps, and the same as a dict."""
    rows, order = made
    table: IntervalMap[None] = IntervalMap()
    model: dict[int, int] = {}
    at = 1
    for (length, gap), place in zip(rows, order, strict=True):
        start, image = at + gap, 1 + place * 10
        table.append(start, start + length, image - start, None)
        model.update({start + n: image + n for n in range(length)})
        at = start + length
    return table, model


@SAME
@given(TABLES, SPANS, st.one_of(st.none(), SPANS))
def test_project(made: tuple[list[tuple[int, int]], list[int]], spans: list[Interval], seen: list[Interval] | None) -> None:
    table, model = table_of(made)
    arrived = None
    if seen is not None:
        arrived = IntervalSet()
        for left, right in seen:
            arrived.add(left, right)
    acknowledged = numbers_of(spans)
    expected = {key for key, image in model.items() if image in acknowledged}
    if seen is not None:
        expected &= numbers_of(seen)
    assert project(table, spans, arrived) == runs(expected)


@SAME
@given(TABLES, SPANS)
def test_project_forward(made: tuple[list[tuple[int, int]], list[int]], spans: list[Interval]) -> None:
    table, model = table_of(made)
    assert project_forward(table, spans) == runs({model[key] for key in numbers_of(spans) if key in model})


@SAME
@given(SPANS, SPANS, SMALL)
def test_intersection_and_advance(one: list[Interval], other: list[Interval], last: int) -> None:
    left, right = runs(numbers_of(one)), runs(numbers_of(other))
    assert intersection(left, right) == runs(numbers_of(one) & numbers_of(other))
    reached, above = advance(last, left)
    assert (reached, above) == after(last, numbers_of(one) | set(range(last)))


# -- the receiver: TAN and SACK of the host to SAN and SACK of a subflow -------------------------------------------------


class ReceiverMachine(RuleBasedStateMachine):
    """Subflow.learn, .seen, .project_ack and .acknowledged against dicts of bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.real = subflow()
        self.table: dict[int, int] = {}
        self.arrived: set[int] = set()
        self.base = 0
        self.tan = 1

    @initialize(base=st.sampled_from((0, 2**32 - 20, 2**64 - 20)))
    def begin(self, base: int) -> None:
        """Far along in both spaces: offsets do not wrap."""
        self.base = self.tan = base
        self.real.ack_sent = self.san = base + 1

    @rule(start=st.integers(1, 60), length=st.integers(1, 15), shift=st.integers(0, 6))
    def learn(self, start: int, length: int, shift: int) -> None:
        start, shift = max(self.base + start, self.san), shift * 10
        keys = range(start, start + length)
        contradiction = any(self.table.get(key, key + shift) != key + shift for key in keys)
        assert self.real.contradicts(start, start + length, shift) == contradiction
        if not contradiction:
            self.real.learn(start, start + length, shift)
            self.table.update({key: key + shift for key in keys})

    @rule(start=st.integers(1, 60), length=st.integers(1, 15))
    def arrive(self, start: int, length: int) -> None:
        for piece in self.real.received.pieces(max(self.base + start, self.san), self.base + start + length):
            if piece.shift is not None:
                self.real.seen.add(piece.start, piece.end)
                self.arrived.update(range(piece.start, piece.end))

    @rule(more=st.integers(0, 30), spans=SPANS, tell=st.booleans())
    def acknowledge(self, more: int, spans: list[Interval], tell: bool) -> None:
        self.tan += more
        blocks = [(self.tan + 1 + left, self.tan + 1 + right) for left, right in runs(numbers_of(spans))]
        known = numbers_of(blocks)
        acknowledged = {s for s, t in self.table.items() if s in self.arrived and (t < self.tan or t in known)}
        san, sacks = self.real.project_ack(self.tan, blocks)
        assert (san, sacks) == after(self.san, {s for s in acknowledged if s >= self.san})
        if tell:
            self.real.acknowledged(san, sacks)
            self.san = san
            self.table = {s: t for s, t in self.table.items() if s >= san}
            self.arrived = {s for s in self.arrived if s >= san}

    @invariant()
    def nothing_below_is_kept(self) -> None:
        assert all(start >= self.real.ack_sent for start in self.real.received.starts + self.real.seen.starts)
        entries = list(self.real.received.entries())
        assert {s: s + shift for start, end, shift, _ in entries for s in range(start, end)} == self.table


# -- the sender: placing, SAN and SACK of subflows and the data ACK to the TAN ------------------------------------------


def open_connection() -> Connection:
    config = ProxyConfig(subflow_acks=True)
    return Connection(1, config, bytes(4), 1, bytes(4), 2, True, State.ESTABLISHED, 0.0, bytes(8))


class SenderMachine(RuleBasedStateMachine):
    """Connection.place, .project_tan and .give, Subflow.take_ack and .delivered against dicts of bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.real = open_connection()
        self.placed: dict[int, tuple[Subflow, int]] = {}
        self.sent: dict[Subflow, dict[int, int]] = {}
        self.sacked: dict[Subflow, set[int]] = {}
        self.send_max = self.tan = 1
        self.more()
        self.real.active = self.real.subflows[0]

    @rule()
    def more(self) -> None:
        """A new subflow, which carries the new data with a chance."""
        made = subflow(len(self.sent))
        self.sent[made], self.sacked[made] = {}, set()
        self.real.subflows.append(made)
        if self.real.active is None or len(self.sent) % 2:
            self.real.active = made

    @rule(subflow_acks=st.booleans())
    def configure(self, subflow_acks: bool) -> None:
        self.real.config = ProxyConfig(subflow_acks=subflow_acks)

    @rule(number=st.integers(0, 9))
    def break_one(self, number: int) -> None:
        if self.real.subflows:
            self.real.remove(self.real.subflows[number % len(self.real.subflows)])

    @rule(number=st.integers(0, 9))
    def move(self, number: int) -> None:
        if self.real.subflows:
            self.real.active = self.real.subflows[number % len(self.real.subflows)]

    @rule(back=st.integers(0, 25), length=st.integers(1, 20))
    def again(self, back: int, length: int) -> None:
        """The host sends from before its highest byte."""
        self._place(max(self.send_max - back, self.tan), length)

    @rule(length=st.integers(1, 20))
    def new(self, length: int) -> None:
        self._place(self.send_max, length)

    @rule(ahead=st.integers(1, 12), length=st.integers(1, 20))
    def ahead(self, ahead: int, length: int) -> None:
        """Packets of the host have overtaken each other."""
        self._place(self.send_max + ahead, length)

    def _place(self, start: int, length: int) -> None:
        end, active = start + length, self.real.active
        places = self.real.place(start, end)
        if active is None:
            assert all(low < self.send_max and owner.alive for owner, _s, low, _high in places)
        else:
            assert [(low, high) for _, _, low, high in places] == [
                (low, high) for (_, _, low, high) in sorted(places, key=lambda place: place[2])
            ]
            assert set(range(start, end)) == {t for _, _, low, high in places for t in range(low, high)}
            for t in range(start, end):
                if t in self.placed and not self.placed[t][0].alive:
                    self._assign(t, active)
            for t in range(self.send_max, end):  # reserved space included
                self._assign(t, active)
            self.send_max = max(self.send_max, end)
        for owner, s, low, high in places:
            for t in range(low, high):
                assert self.placed[t] == (owner, s + t - low), "a retransmission moved, or two bytes got one s"
        assert self.real.send_max == self.send_max

    def _assign(self, t: int, owner: Subflow) -> None:
        s = len(self.sent[owner]) + 1
        self.sent[owner][s] = t
        self.placed[t] = (owner, s)

    @rule(number=st.integers(0, 9), more=st.integers(0, 25), spans=SPANS)
    def acknowledge(self, number: int, more: int, spans: list[Interval]) -> None:
        """The peer's SAN and SACK on a subflow."""
        if not self.real.subflows:
            return
        at = self.real.subflows[number % len(self.real.subflows)]
        highest = len(self.sent[at]) + 1
        san = min(at.send_acked + more, highest)
        blocks = [(san + 1 + left, san + 1 + right) for left, right in runs(numbers_of(spans))]
        assert at.take_ack(san, blocks)
        self.sacked[at] = {s for left, right in blocks if right <= highest for s in range(left, right)}

    @rule(number=st.integers(0, 9), beyond=st.integers(1, 9))
    def acknowledge_too_much(self, number: int, beyond: int) -> None:
        for at in self.real.subflows[number : number + 1]:
            before = at.send_acked, at.send_sacked
            assert not at.take_ack(len(self.sent[at]) + 1 + beyond, [])
            assert (at.send_acked, at.send_sacked) == before

    @rule(more=st.integers(0, 12))
    def data_ack(self, more: int) -> None:
        dan = min(self.real.dan + more, self.send_max)
        assert self.real.take_data_ack(dan)
        assert not self.real.take_data_ack(self.send_max + 1)

    @rule(tell=st.booleans())
    def translate(self, tell: bool) -> None:
        everything = [(at, s, t) for at in self.real.subflows for s, t in self.sent[at].items()]
        cumulative = {t for at, s, t in everything if s < at.send_acked}
        known = cumulative | {t for at, s, t in everything if s in self.sacked[at]}
        owed = [t for at, s, t in everything if s >= at.send_acked and s not in self.sacked[at]]
        owners = {self.placed[t][0] for t in range(self.tan, self.send_max)}
        tan = self.tan
        if self.real.config.subflow_acks and len(owners) <= 1 and all(owner.alive for owner in owners):
            tan = after(tan, cumulative)[0]
        tan = max(tan, self.real.dan)
        if owed:
            tan = max(self.tan, min(tan, *owed, tan))
        expected = tan, [block for block in runs(known) if block[0] > tan]
        assert self.real.project_tan() == expected
        if tell:
            self.real.give(*expected, 0)
            self.tan = expected[0]

    @invariant()
    def subflows_have_no_gaps(self) -> None:
        for at in self.real.subflows:
            assert at.send_next == len(self.sent[at]) + 1
        expected = {t: place for t, place in self.placed.items() if t >= self.tan}
        entries = list(self.real.send.entries())
        found = {t: (owner, t + shift) for start, end, shift, owner in entries for t in range(start, end)}
        assert found == expected


TestReceiver = ReceiverMachine.TestCase
TestReceiver.settings = settings(max_examples=60, stateful_step_count=25, deadline=None, derandomize=True)
TestSender = SenderMachine.TestCase
TestSender.settings = settings(max_examples=80, stateful_step_count=30, deadline=None, derandomize=True)


def test_the_tables_have_one_entry_between_handovers() -> None:
    connection = SenderMachine().real
    for number in range(1000):
        connection.place(1 + number * 100, 101 + number * 100)
    assert (len(connection.send), len(connection.subflows[0].sent)) == (1, 1)
    connection.subflows.append(subflow(1))
    connection.active = connection.subflows[1]
    for number in range(1000, 2000):
        connection.place(1 + number * 100, 101 + number * 100)
    assert (len(connection.send), len(connection.active.sent)) == (2, 1)
    connection.give(150_001, [], 0)
    assert len(connection.send) == 1


# -- figure 5 -----------------------------------------------------------------------------------------------------------


def figure_5() -> Connection:
    """After a break, new data went out before what had been lost: t 11 to 20 have s 1 to 10, t 1 to 10 have s 11 to 20."""
    connection = open_connection()
    old, new = subflow(0), subflow(1)
    connection.subflows += [old, new]
    connection.active = old
    connection.place(1, 11)
    connection.remove(old)
    connection.active = new
    assert connection.place(11, 21) == [(new, 1, 11, 21)]
    assert connection.place(1, 11) == [(new, 11, 1, 11)]
    return connection


def translated(
    connection: Connection, translation: AckTranslation, san: int, blocks: list[Interval]
) -> tuple[int, list[Interval]]:
    connection.config = ProxyConfig(ack_translation=translation, subflow_acks=True)
    assert connection.subflows[0].take_ack(san, blocks)
    return connection.project_tan()


def test_figure_5_reverse_lookup_acknowledges_what_was_not_delivered() -> None:
    connection = figure_5()
    assert translated(connection, AckTranslation.AGGRESSIVE, 6, []) == (16, [])
    assert translated(connection, AckTranslation.PROJECTION, 6, []) == (1, [(11, 16)])
    assert translated(connection, AckTranslation.CONSERVATIVE, 6, []) == (1, [])


def test_figure_5_projection_acknowledges_all_that_was_delivered() -> None:
    connection = figure_5()
    assert translated(connection, AckTranslation.PROJECTION, 16, []) == (6, [(11, 21)])
    assert translated(connection, AckTranslation.CONSERVATIVE, 16, []) == (6, [])
    assert translated(connection, AckTranslation.AGGRESSIVE, 16, []) == (6, [])
    assert translated(connection, AckTranslation.PROJECTION, 21, []) == (21, [])


def test_figure_5_selective_acknowledgements_move_blocks_but_not_the_ack() -> None:
    """A receiver may take its SACK blocks back (RFC 2018 section 8): the host keeps the data until the SAN covers it."""
    connection = figure_5()
    assert translated(connection, AckTranslation.PROJECTION, 1, [(6, 13), (15, 17)]) == (1, [(5, 7), (16, 21)])
    assert translated(connection, AckTranslation.CONSERVATIVE, 1, [(6, 13), (15, 17)]) == (1, [])
    assert translated(connection, AckTranslation.PROJECTION, 13, [(15, 17)]) == (3, [(5, 7), (11, 21)])
