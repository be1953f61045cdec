"""What the kernel and the DHCP client's hook say, taken apart."""

import os
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.core.attachment import Lease
from agents.core.mptcp_endpoints import FLAGS
from agents.kernel import dhcp, mptcp_pm, netlink
from agents.kernel.netlink import Changed, PrefixEvent, parse_events
from agents.kernel.solicitation import router_solicitation

# RTM_NEWPREFIX as Linux 6.18 sent it: 2001:db8:1::/64 on interface 2, valid and preferred 7200 s.
PREFIX = (
    struct.pack("=IHHII", 60, netlink.RTM_NEWPREFIX, 0, 0, 0)
    + struct.pack("=BBHiBBBB", 10, 0, 0, 2, 3, 64, 3, 0)
    + struct.pack("=HH", 20, 1) + bytes.fromhex("20010db8000100000000000000000000")
    + struct.pack("=HHII", 12, 2, 7200, 7200)
)  # fmt: skip


def test_prefix_event() -> None:
    assert list(parse_events(PREFIX)) == [PrefixEvent(2, "2001:db8:1::/64", 7200, 7200)]


def test_other_events() -> None:
    other = struct.pack("=IHHII", 16, 16, 0, 0, 0)
    assert list(parse_events(other + PREFIX + other)) == [Changed(), PrefixEvent(2, "2001:db8:1::/64", 7200, 7200), Changed()]


@given(st.binary(max_size=120))
def test_events_never_raise(data: bytes) -> None:
    list(parse_events(data))


@given(st.integers(0, len(PREFIX)), st.integers(0, 255))
def test_damaged_prefix_events_never_raise(at: int, value: int) -> None:
    list(parse_events(PREFIX[:at]))
    list(parse_events(PREFIX[:at] + bytes([value]) + PREFIX[at + 1 :]))


def test_router_solicitation() -> None:
    assert router_solicitation("02:72:6c:00:01:01").hex() == "8500000000000000" + "0101" + "02726c000101"
    assert router_solicitation("").hex() == "8500000000000000"


def test_hook_writes_what_is_read(tmp_path: Path) -> None:
    """The shell hook itself, with the variables that udhcpc sets."""
    fifo, hook = tmp_path / "fifo", tmp_path / "hook"
    os.mkfifo(fifo)
    hook.write_text(dhcp._HOOK)
    hook.chmod(0o700)
    reader = os.open(fifo, os.O_RDWR | os.O_NONBLOCK)
    env = {"ROAMLAB_FIFO": str(fifo), "ROAMLAB_TAG": "mn-wlan 0 7", "ip": "10.1.0.100", "mask": "24",
           "router": "10.1.0.1 10.1.0.2", "lease": "120"}  # fmt: skip
    subprocess.run([hook, "bound"], env=env, check=True)
    parsed = dhcp.parse_hook_line(os.read(reader, 4096).decode())
    os.close(reader)
    assert parsed is not None
    assert parsed[:4] == ("mn-wlan", 0, 7, "bound")
    assert dhcp.lease_of(parsed[4]) == (Lease("10.1.0.100", 24, "10.1.0.1"), 120)


@pytest.mark.parametrize("values", [{}, {"ip": "x"}, {"ip": "10.0.0.1", "mask": "99"}, {"ip": "10.0.0.1", "router": "y"}])
def test_bad_leases_are_refused(values: dict[str, str]) -> None:
    assert dhcp.lease_of(values) is None


@given(st.text(max_size=60))
def test_hook_lines_never_raise(line: str) -> None:
    parsed = dhcp.parse_hook_line(line)
    if parsed is not None:
        dhcp.lease_of(parsed[4])


@given(st.frozensets(st.sampled_from(FLAGS)))
def test_endpoint_flags_round_trip(flags: frozenset[str]) -> None:
    assert mptcp_pm.flag_words(mptcp_pm.flag_bits(flags)) == flags


def test_interface_index_from_raw_bytes() -> None:
    assert mptcp_pm._interface_index("02:01:00:00") == 258
    assert mptcp_pm._interface_index(None) == 0
