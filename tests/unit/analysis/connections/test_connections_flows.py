"""Which packets belong together, who is the client, and where bytes lie in their streams."""

from __future__ import annotations

import numpy as np
import pytest
from connection_table import Line, Packets, capable, initial, join

from analysis.connections import guess_points
from analysis.connections.flows import find_flows
from analysis.connections.positions import find_positions
from analysis.packets.schema import TRANSPORT_CUT, UDP


def flows_of(packets: Packets, places=None):
    return find_flows(packets.table(), places)


# --- one flow or several ---


def test_handshake_names_both_ends():
    packets = Packets()
    line = Line(packets, "10.0.0.1 80", "10.0.0.9 50000")
    line.handshake(0)
    line.send(40, False, size=10)
    table = packets.table()
    flows = find_flows(table)
    assert flows.flow.tolist() == [0, 0, 0, 0]
    assert flows.from_client.tolist() == [True, False, True, False]
    assert (table.addresses.text(flows.client[0]), flows.client_port[0]) == ("10.0.0.1", 80)
    assert (table.addresses.text(flows.server[0]), flows.server_port[0]) == ("10.0.0.9", 50000)
    assert flows.isn.tolist() == [[1000, 2_000_000]]
    assert flows.base.tolist() == [[1001, 2_000_001]]
    assert (flows.syn_row[0], flows.answer_row[0], flows.third_row[0]) == (0, 1, 2)


def test_another_sequence_number_is_another_flow():
    packets = Packets()
    Line(packets, isn=(1, 50)).handshake(0)
    Line(packets, isn=(2, 99)).handshake(100)
    flows = flows_of(packets)
    assert flows.flow.tolist() == [0, 0, 0, 1, 1, 1]
    assert flows.isn[:, 0].tolist() == [1, 2]


def test_repeated_syn_is_the_same_flow():
    packets = Packets()
    line = Line(packets)
    for ms in (0, 1000, 3000):
        line.send(ms, True, flags="S")
    line.send(3010, False, flags="SA")
    line.send(3015, True, flags="S")
    line.send(3020, False, flags="SA")
    assert flows_of(packets).flow.tolist() == [0] * 6


def test_simultaneous_opening_is_one_flow():
    packets = Packets()
    line = Line(packets)
    line.send(0, True, flags="S")
    packets.add(1, line.server, line.client, "S", seq=line.isn[1])
    line.send(20, True, flags="SA", at=-1)
    line.send(21, False, flags="SA", at=-1)
    line.send(30, True, size=5)
    flows = flows_of(packets)
    assert flows.flow.tolist() == [0] * 5
    assert flows.isn.tolist() == [[1000, 2_000_000]]
    assert flows.from_client.tolist() == [True, False, True, False, True]


def test_server_calls_back_on_the_same_ports():
    """A SYN of the other side after the handshake is no simultaneous opening."""
    packets = Packets()
    line = Line(packets)
    line.handshake(0)
    packets.add(500, line.server, line.client, "S", seq=7)
    flows = flows_of(packets)
    assert flows.flow.tolist() == [0, 0, 0, 1]
    assert flows.from_client[3]


def test_syn_of_the_other_side_in_mid_connection_is_no_simultaneous_opening():
    """The SYN/ACK is not in the capture."""
    packets = Packets()
    line = Line(packets)
    line.send(0, True, flags="S")
    line.send(20, True, 0, 100)
    packets.add(500, line.server, line.client, "S", seq=7)
    assert flows_of(packets).flow.tolist() == [0, 0, 1]


def test_late_packets_belong_to_the_flow_before():
    """Ports are used again: an old FIN with old numbers comes after the new handshake began."""
    packets = Packets()
    old, new = Line(packets, isn=(1000, 9_000_000)), Line(packets, isn=(2**31, 4000))
    old.handshake(0)
    old.send(40, False, 0, 1000)
    new.send(100, True, flags="S")
    old.send(101, False, 1000, 0, flags="FA")
    new.send(110, False, flags="SA")
    new.send(120, True)
    old.send(121, False, 1000, 0, flags="FA")
    new.send(130, False, 0, 500)
    assert flows_of(packets).flow.tolist() == [0, 0, 0, 0, 1, 0, 1, 1, 0, 1]


def test_challenge_ack_answers_the_flow_before():
    packets = Packets()
    old, new = Line(packets, isn=(1000, 9_000_000)), Line(packets, isn=(700_000_000, 4000))
    old.handshake(0)
    new.send(100, True, flags="S")
    old.send(101, False)
    new.send(102, True, flags="S")
    assert flows_of(packets).flow.tolist() == [0, 0, 0, 1, 0, 1]


def test_packets_before_the_first_syn_are_another_connection():
    packets = Packets()
    Line(packets, isn=(3_000_000_000, 77)).send(0, False, 5000, 100)
    Line(packets).handshake(100)
    flows = flows_of(packets)
    assert flows.flow.tolist() == [0, 1, 1, 1]


@pytest.mark.parametrize("order", [(1, 0, 2), (2, 0, 1), (1, 2, 0), (2, 1, 0), (0, 2, 1)])
def test_handshake_captured_out_of_order_is_one_flow(order):
    packets = Packets()
    line = Line(packets)
    steps = [(True, "S"), (False, "SA"), (True, "A")]
    for place, step in enumerate(order):
        up, flags = steps[step]
        line.send(place, up, flags=flags)
    flows = flows_of(packets)
    assert flows.flow.tolist() == [0, 0, 0]
    assert flows.isn.tolist() == [[1000, 2_000_000]]
    assert flows.from_client.tolist() == [steps[step][0] for step in order]


def test_answer_to_a_syn_that_was_not_captured():
    packets = Packets()
    Line(packets).handshake(0)
    other = Line(packets, isn=(40_000_000, 80_000_000))
    other.send(500, False, flags="SA")
    other.send(510, True)
    flows = flows_of(packets)
    assert flows.flow.tolist() == [0, 0, 0, 1, 1]
    assert flows.isn[1].tolist() == [40_000_000, 80_000_000]
    assert flows.from_client[3:].tolist() == [False, True]


def test_data_in_the_syn_is_answered():
    """TCP Fast Open: the SYN/ACK acknowledges the SYN's payload."""
    packets = Packets()
    line = Line(packets)
    line.send(0, True, flags="S", size=100)
    line.send(10, False, flags="SA", acked=100)
    line.send(20, True, 100, 50)
    table = packets.table()
    flows = find_flows(table)
    positions = find_positions(table, flows)
    assert flows.flow.tolist() == [0, 0, 0]
    assert positions.begin[[0, 2]].tolist() == [0, 100]
    assert positions.acked[1] == 100


def test_what_is_no_usable_tcp_belongs_to_no_flow():
    packets = Packets()
    line = Line(packets)
    line.handshake(0)
    line.send(40, True, problems=TRANSPORT_CUT)
    packets.add(50, line.client, line.server, protocol=UDP)
    assert flows_of(packets).flow.tolist() == [0, 0, 0, -1, -1]


def test_no_packets():
    flows = flows_of(Packets())
    assert flows.count == 0


def test_a_host_that_talks_to_itself():
    packets = Packets()
    packets.add(0, "127.0.0.1 5", "127.0.0.1 5", "S", seq=9)
    packets.add(1, "127.0.0.1 5", "127.0.0.1 5", "SA", seq=9, ack=10)
    assert flows_of(packets).flow.tolist() == [0, 0]


# --- the client of a flow without handshake ---


@pytest.mark.parametrize(
    ("sender", "receiver", "client"),
    [
        ("10.0.0.1 443", "10.0.0.2 50000", "10.0.0.2"),
        ("10.0.0.1 50000", "10.0.0.2 443", "10.0.0.1"),
        ("10.0.0.1 5001", "10.0.0.2 40000", "10.0.0.2"),
        ("10.0.0.1 5001", "10.0.0.2 8080", "10.0.0.2"),
        ("10.0.0.1 7000", "10.0.0.2 7000", "10.0.0.1"),
    ],
)
def test_ports_tell_the_client(sender, receiver, client):
    packets = Packets()
    packets.add(0, sender, receiver, size=5)
    table = packets.table()
    assert table.addresses.text(find_flows(table).client[0]) == client


@pytest.mark.parametrize("option", [capable(5, 6), join(24)])
def test_options_of_a_third_ack_tell_the_client(option):
    packets = Packets()
    packets.add(0, "10.0.0.1 80", "10.0.0.2 50000", options=[option])
    table = packets.table()
    assert table.addresses.text(find_flows(table).client[0]) == "10.0.0.1"


# --- positions ---


@pytest.mark.parametrize("isn", [1000, 2**32 - 3000, 2**32 - 1, 2**31 - 5])
def test_positions_wrap(isn):
    packets = Packets()
    line = Line(packets, isn=(isn, isn))
    line.handshake(0)
    for index in range(6000):
        line.send(50 + index, True, 1_400_000 * index, 1400, acked=1_000_000 * index)
    table = packets.table()
    positions = find_positions(table, find_flows(table))
    assert (positions.begin[3:] == 1_400_000 * np.arange(6000)).all()
    assert positions.top_ack.tolist() == [0, 1_000_000 * 5999]


def test_a_stray_number_moves_nothing():
    """2^31 apart, neighbours could be taken for either direction."""
    packets = Packets()
    line = Line(packets)
    line.handshake(0)
    line.send(40, True, 0, 1000)
    line.send(41, True, 2**31 + 500, 1000)
    line.send(42, True, 1000, 1000)
    line.send(43, True, 2000, 1000)
    table = packets.table()
    assert find_positions(table, find_flows(table)).begin[[3, 5, 6]].tolist() == [0, 1000, 2000]


def test_a_gap_of_two_gigabytes_in_the_capture_is_followed():
    packets = Packets()
    line = Line(packets)
    line.handshake(0)
    far = 2**31 - 2**28
    for ms, at in ((40, 0), (41, far), (42, far + 1000), (43, far * 2), (44, far * 2 + 1000)):
        line.send(ms, True, at, 1000)
    table = packets.table()
    assert find_positions(table, find_flows(table)).begin[3:].tolist() == [0, far, far + 1000, far * 2, far * 2 + 1000]


def test_fin_is_no_byte():
    packets = Packets()
    line = Line(packets)
    line.handshake(0)
    line.send(40, True, 0, 1000, flags="FA")
    line.send(50, False, acked=1001)
    table = packets.table()
    flows = find_flows(table)
    positions = find_positions(table, flows)
    assert positions.fin.tolist() == [1000, -1]
    assert positions.acked[4] == 1000
    assert flows.fin_row.tolist() == [[3, -1]]


# --- capture points ---


def test_points_separate_the_same_packets():
    packets = Packets(interfaces=2)
    for interface in (0, 1):
        line = Line(packets)
        for number, (up, flags) in enumerate(((True, "S"), (False, "SA"), (True, "A"))):
            line.send(10 * number + interface, up, flags=flags, interface=interface)
    table = packets.table()
    assert find_flows(table).count == 1
    flows = find_flows(table, [0, 1])
    assert flows.flow.tolist() == [0, 1, 0, 1, 0, 1]
    assert flows.interface.tolist() == [0, 1]
    assert flows.place.tolist() == [0, 1]


def test_too_few_points_are_refused():
    packets = Packets()
    packets.add(0, "10.0.0.1 5", "10.0.0.2 5", interface=3)
    with pytest.raises(ValueError, match="places: 2 capture points for 4 interfaces"):
        flows_of(packets, [0, 1])


def transfer(packets: Packets, interface: int, delay_ms: float = 0.0, segments: int = 60, skip=(), **places) -> Line:
    line = Line(packets, **places)
    line.handshake(0)
    for row in packets.rows[-3:]:
        row["interface"] = interface
    for number in range(segments):
        if number not in skip:
            line.send(50 + number + delay_ms, False, number * 1000, 1000, interface=interface)
    return line


def test_interfaces_on_the_way_of_the_same_packets_are_different_points():
    packets = Packets(interfaces=2)
    transfer(packets, 0)
    transfer(packets, 1, 5, skip=range(0, 60, 10))
    assert guess_points(packets.table()) == [0, 1]


def test_addresses_may_be_translated_between_points():
    packets = Packets(interfaces=2)
    transfer(packets, 0)
    transfer(packets, 1, 5, client="192.0.2.1 61000")
    assert guess_points(packets.table()) == [0, 1]


def test_interfaces_of_one_host_are_one_point():
    """The connection moves to the other interface and repeats a few segments there."""
    packets = Packets(interfaces=3)
    line = transfer(packets, 0)
    for number in range(55, 120):
        line.send(300 + number, False, number * 1000, 1000, interface=1)
    assert guess_points(packets.table()) == [0, 0, 0]


def test_interfaces_of_a_host_and_of_its_peer():
    packets = Packets(interfaces=4)
    for host, peer, client, isn in ((0, 2, "10.0.0.1 1000", (5, 6)), (1, 2, "10.0.1.1 1000", (70_000, 80_000))):
        transfer(packets, host, client=client, isn=isn)
        transfer(packets, peer, 5, client=client, isn=isn)
    table = packets.table()
    assert guess_points(table) == [0, 0, 1, 0]


def test_an_interface_without_packets_goes_with_its_file():
    packets = Packets(interfaces=3)
    transfer(packets, 0)
    transfer(packets, 1, 5)
    table = packets.table()
    table.points = tuple(point.__class__(name, "", 1) for point, name in zip(table.points, ("a", "b", "b"), strict=True))
    assert guess_points(table) == [0, 1, 1]


def test_points_of_no_packets():
    assert guess_points(Packets().table()) == [0]
    assert initial(Packets()) is not None
