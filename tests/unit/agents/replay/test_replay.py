"""Runs in memory are captured and replayed: the proxy does the same again, packet by packet."""

import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from agents.replay import __main__ as program
from agents.replay.captures import CaptureError, read
from agents.replay.engine import Outcome, Replay
from agents.replay.recording import RecordingError
from experiments.cli.main import COMMANDS, cli
from tests.proxy.capture import Capture
from tests.proxy.transfers import Plan, Run, prepare

STEP_S = 2e-9


class Ordered:
    """One clock for several captures: no two packets have the same time, so their order is known."""

    def __init__(self, own: tuple[bytes, ...]) -> None:
        self.own, self.last = own, 0.0
        self.outer, self.inner = Tap(self), Tap(self)

    def time(self, now: float) -> float:
        self.last = max(now, self.last + STEP_S)
        return self.last


class Tap(Capture):
    """A capture at the host."""

    def __init__(self, order: Ordered) -> None:
        super().__init__()
        self.order = order

    def add(self, now: float, packet: bytes) -> None:
        super().add(self.order.time(now), packet)


class Leaving(Capture):
    """What enters the network from the host goes into another capture; what it gets is captured where it arrives."""

    def __init__(self, order: Ordered) -> None:
        super().__init__()
        self.order = order

    def add(self, now: float, packet: bytes) -> None:
        source = packet[12:16] if packet[0] >> 4 == 4 else packet[8:24]
        if source in self.order.own:
            self.order.outer.add(now, packet)


@dataclass
class Recorded:
    """A run with its files."""

    run: Run
    outer: Path
    inner: Path
    role: str

    def replay(self, *, inner: bool, **options: Any) -> Outcome:
        return Replay(
            read(self.outer),
            read(self.inner) if inner else None,
            role=self.role,
            **options,  # type: ignore[arg-type]
        ).run()


def record(folder: Path, plan: Plan) -> Recorded:
    return record_run(folder, prepare(plan))


def record_run(folder: Path, run: Run) -> Recorded:
    order = Ordered(run.near_addresses)
    run.network.capture, run.near.inner = Leaving(order), order.inner
    handle = run.near.handle

    def arrive(packet: bytes, now: float) -> None:
        order.outer.add(now, packet)
        handle(packet, now)

    run.near.handle = arrive  # type: ignore[method-assign]
    assert run.run().good
    outer, inner = folder / "outer.pcap", folder / "inner.pcap"
    order.outer.write(outer)
    order.inner.write(inner)
    return Recorded(run, outer, inner, "client" if run.simulation.near.client else "server")


def differences(outcome: Outcome) -> list[str]:
    sides = [("network", outcome.network)] + ([("host", outcome.host)] if outcome.host is not None else [])
    found = [f"defect {what}" for _at, what in outcome.defects]
    for name, side in sides:
        for what in ("missing", "more"):
            found += [f"{name} {what} {item.time_s:.6f} {program.describe(item.packet)}" for item in getattr(side, what)]
    return found


@pytest.mark.parametrize("peer", ["mptcp", "proxy"])
@pytest.mark.parametrize("near_is_client", [True, False])
def test_without_commands_every_packet_comes_again(tmp_path: Path, peer: Any, near_is_client: bool) -> None:
    """Both sides, with loss and reordering: not one difference, whatever was decided."""
    for seed in range(4):
        made = record(tmp_path, Plan(seed, peer=peer, near_is_client=near_is_client, commands=0, boxes=False, size=60_000))
        outcome = made.replay(inner=True)
        assert differences(outcome) == [], seed
        assert outcome.network.same > 3
        assert outcome.same


def test_ipv6(tmp_path: Path) -> None:
    made = record(tmp_path, Plan(1, six=True, commands=0, boxes=False, size=60_000))
    assert differences(made.replay(inner=True)) == []


@pytest.mark.parametrize("command", ["to-address", "to-address-break"])
def test_a_handover_is_followed(tmp_path: Path, command: str) -> None:
    """Joins, withdrawn addresses and the choice of the subflow are taken from the capture."""
    for seed in range(4):
        plan = Plan(seed, near_is_client=True, commands=0, boxes=False, cuts=False, lossless=True, pauses=False)
        run = prepare(plan)
        run.later(0.5, lambda run=run: run.command(command, 1))  # type: ignore[misc]
        made = record_run(tmp_path, run)
        outcome = made.replay(inner=True)
        assert outcome.network.same >= 0.95 * (outcome.network.same + len(outcome.network.missing)), differences(outcome)
        if any("moved" in line for line in run.script):
            assert any(log.event == "join" for _at, log in outcome.decisions)


def test_the_wire_alone_is_enough(tmp_path: Path) -> None:
    """The host's segments are made from what left: the same mappings and nearly the same packets."""
    for seed in (0, 2, 5):
        made = record(tmp_path, Plan(seed, commands=0, boxes=False, lossless=True, pauses=False))
        outcome = made.replay(inner=False)
        events = [log.event for _at, log in outcome.decisions]
        assert "established" in events
        assert len(outcome.network.missing) <= 3, differences(outcome)
        assert outcome.host is None


def test_the_same_twice(tmp_path: Path) -> None:
    made = record(tmp_path, Plan(3, commands=2, boxes=False))
    first, second = (program.document(made.replay(inner=False)) for _ in range(2))
    assert first == second


def test_a_changed_packet_is_a_difference(tmp_path: Path) -> None:
    """What regression tests rely on."""
    made = record(tmp_path, Plan(0, commands=0, boxes=False, lossless=True, pauses=False, near_is_client=True))
    packets = read(made.outer)
    at = next(
        number for number, packet in enumerate(packets) if packet.data[12:16] == made.run.near_addresses[0] and number > 8
    )
    changed = bytearray(packets[at].data)
    changed[34] ^= 1  # the window
    packets[at] = packets[at]._replace(data=bytes(changed))
    outcome = Replay(packets, read(made.inner), role="client").run()
    assert (len(outcome.network.missing), len(outcome.network.more)) == (1, 1)
    assert not outcome.same


def test_a_defect_of_the_core_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = record(tmp_path, Plan(0, commands=0, boxes=False, lossless=True, pauses=False, near_is_client=True))

    def broken(*_values: Any, **_options: Any) -> None:
        raise IndexError("oops")

    monkeypatch.setattr("agents.core.proxy.proxy.Proxy.inbound", broken)
    outcome = made.replay(inner=True)
    assert not outcome.same
    assert "IndexError('oops')" in outcome.defects[0][1]


# -- the command ------------------------------------------------------------------------------------------------------


def test_the_command_prints_and_its_exit_code_tells(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = record(tmp_path, Plan(0, commands=0, boxes=False, lossless=True, pauses=False, near_is_client=True))
    words = ["replay", str(made.outer), "--inner", str(made.inner)]
    assert program.main(words) == program.SAME
    text = capsys.readouterr().out
    assert "established" in text
    assert "0 missing, 0 more" in text
    assert program.main([*words, "--json", "--seed", "7"]) == program.SAME
    found = json.loads(capsys.readouterr().out)
    assert found["same"] is True
    assert found["network"]["missing"] == []
    assert found["decisions"][0]["event"] == "established"
    assert program.main([*words, "--packets", "--until", "0.5"]) in (program.SAME, program.DIFFERENT)
    assert "to network" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file"),
        (b"", "begins with nothing"),
        (b"hello world", "is no capture"),
        (b"\x4d\x3c\xb2\xa1", "ends in its header"),
        (struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 65535, 101), "no MP_CAPABLE handshake"),
        (struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 65535, 101) + bytes(9), "in the middle of a packet at byte 24"),
    ],
)
def test_what_cannot_be_used_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes | None, message: str
) -> None:
    path = tmp_path / "x.pcap"
    if content is not None:
        path.write_bytes(content)
    assert program.main(["replay", str(path)]) == program.UNUSABLE
    text = capsys.readouterr().err
    assert message in text
    assert len(text.splitlines()) == 1


def test_a_handshake_of_the_other_role_is_no_handshake_of_this_host(tmp_path: Path) -> None:
    made = record(tmp_path, Plan(0, commands=0, boxes=False, near_is_client=True))
    with pytest.raises(RecordingError, match="must begin with the connection"):
        Replay(read(made.outer), None, role="server", hosts=[made.run.near_addresses[0]])


def test_the_command_is_in_the_command_line() -> None:
    assert COMMANDS["proxy"] == "proxy:proxy"
    assert "proxy" in CliRunner().invoke(cli, ["--help"]).output


# -- captures ---------------------------------------------------------------------------------------------------------


def ipv4(length: int = 40) -> bytes:
    return bytes((0x45, 0)) + length.to_bytes(2, "big") + bytes(5) + b"\x06" + bytes(length - 10)


def test_all_kinds_of_pcap(tmp_path: Path) -> None:
    path, packet = tmp_path / "a.pcap", ipv4()
    for order in "<>":
        for magic, unit in ((0xA1B2C3D4, 1000), (0xA1B23C4D, 1)):
            for link, head in ((1, bytes(12) + b"\x08\x00"), (1, bytes(12) + b"\x81\x00\x00\x05\x08\x00"), (101, b""),
                               (113, bytes(14) + b"\x08\x00"), (276, b"\x08\x00" + bytes(18)), (0, bytes(4))):  # fmt: skip
                frame = head + packet + b"trailer"
                path.write_bytes(
                    struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, 65535, link)
                    + struct.pack(order + "IIII", 5, 7, len(frame), len(frame)) + frame
                )  # fmt: skip
                assert [(p.time_ns, p.data, p.cut) for p in read(path)] == [(5 * 10**9 + 7 * unit, packet, False)]


def block(kind: int, body: bytes) -> bytes:
    body += bytes(-len(body) % 4)
    return struct.pack("<II", kind, 12 + len(body)) + body + struct.pack("<I", 12 + len(body))


def test_pcapng(tmp_path: Path) -> None:
    """Two interfaces with clocks of their own; unknown blocks; a packet that was cut is filled up."""
    path, packet = tmp_path / "a.pcapng", ipv4(60)
    section = block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1))
    nanoseconds = block(1, struct.pack("<HHI", 101, 0, 0) + struct.pack("<HHB3x", 9, 1, 9) + struct.pack("<HH", 0, 0))
    plain = block(1, struct.pack("<HHI", 1, 0, 0))

    def enhanced(number: int, time: int, frame: bytes) -> bytes:
        return block(6, struct.pack("<IIIII", number, time >> 32, time & 0xFFFFFFFF, len(frame), 999) + frame)

    ethernet = bytes(12) + b"\x08\x00"
    path.write_bytes(section + nanoseconds + plain + block(99, b"???") + enhanced(0, 10**18 + 3, packet)
                     + enhanced(1, 7, ethernet + packet[:50])
                     + enhanced(1, 8, bytes(12) + b"\x08\x06" + bytes(28)))  # fmt: skip
    assert [tuple(p) for p in read(path)] == [(10**18 + 3, packet, False), (7000, packet[:50] + bytes(10), True)]
    path.write_bytes(section + enhanced(0, 1, packet))
    with pytest.raises(CaptureError, match="a packet of no interface at byte 28"):
        read(path)
    path.write_bytes(section + plain[:-2])
    with pytest.raises(CaptureError, match="in the middle of a block at byte 28"):
        read(path)
