"""Which addresses the core hears of, and parameters that get their old values back."""

from pathlib import Path

from agents.core.proxy.config import LocalAddress
from agents.kernel.proxy.rtnetlink import Address, Link
from agents.kernel.proxy.surroundings import Parameters, alive, local_addresses, smallest_mtu

LINKS = [
    Link(1, "lo", True, True, 65536, 65536), Link(2, "wlan", True, True, 1500, 65536), Link(3, "lte", True, False, 1400, 65536),
    Link(4, "other", True, True, 1300, 65536),
]  # fmt: skip
A, B, C = bytes(4), b"\1\1\1\1", b"\2\2\2\2"
ADDRESSES = [
    Address(1, A, True, True), Address(2, A, True, False), Address(3, B, True, False), Address(4, C, True, False),
    Address(9, b"gone", True, False),
]  # fmt: skip


def test_only_configured_interfaces_with_their_costs() -> None:
    found = local_addresses(LINKS, ADDRESSES, {"wlan": 0, "lte": 5}, lambda address: {A: 2, B: 3}[address])
    assert found == [LocalAddress(A, "wlan", True, 0), LocalAddress(B, "lte", False, 5)]


def test_without_configuration_all_but_lo() -> None:
    found = local_addresses(LINKS, ADDRESSES, {}, lambda _address: 2)
    assert [(item.interface, item.usable) for item in found] == [("wlan", True), ("lte", False), ("other", False)]


def test_an_address_whose_packets_are_refused_or_waits_for_detection_is_not_usable() -> None:
    assert not local_addresses(LINKS, [Address(2, A, True, False)], {}, lambda _address: None)[0].usable
    assert not local_addresses(LINKS, [Address(2, A, False, False)], {}, lambda _address: 2)[0].usable


def test_alive_is_not_what_the_proxy_itself_keeps() -> None:
    assert alive(LINKS, ADDRESSES) == {A, C}
    assert alive(LINKS, [Address(1, A, True, True)]) == set()


def test_the_smallest_mtu_of_the_configured_interfaces() -> None:
    assert smallest_mtu(LINKS, {}) == 1300
    assert smallest_mtu(LINKS, {"wlan": 0, "lte": 0}) == 1400
    assert smallest_mtu(LINKS[:1], {}) == 1500


def test_parameters_get_their_old_values_back(tmp_path: Path) -> None:
    for name in ("all", "wlan"):
        (tmp_path / name).mkdir()
        for parameter, value in (("rp_filter", 1), ("arp_ignore", 0), ("arp_announce", 2)):
            (tmp_path / name / parameter).write_text(f"{value}\n")
    parameters = Parameters(str(tmp_path))
    assert parameters.set("all") is None
    assert parameters.set("wlan") is None
    assert (tmp_path / "wlan" / "rp_filter").read_text() == "0\n"
    assert (tmp_path / "wlan" / "arp_ignore").read_text() == "1\n"
    assert parameters.set("wlan") is None, "a second time changes nothing"
    refused = parameters.set("gone")
    assert refused is not None
    assert "gone" in refused
    parameters.restore()
    assert [(tmp_path / "wlan" / name).read_text() for name in ("rp_filter", "arp_ignore", "arp_announce")] == [
        "1\n",
        "0\n",
        "2\n",
    ]
