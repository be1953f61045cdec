"""Forwarding as text for nft; that nft takes it and packets obey is shown in tests/emulation/test_mobileip_kernel.py."""

from agents.core.mobileip.actions import Balancing, FlowRule, Forwarding, Tunnel
from agents.kernel.mobileip.nftables import MARK_BIT, MARK_MASK, Side, elements, home_rules, mark_of, matches
from agents.wire.mobileip.values import Selector

ONE, TWO = Tunnel("10.33.0.2", "10.1.0.100", bid=1), Tunnel("10.33.0.2", "10.2.0.100", bid=2)
NUMBERS = {ONE.key: 7, TWO.key: 8}
HOME = "10.33.0.100"


def number(tunnel: Tunnel) -> int | None:
    return NUMBERS.get(tunnel.key)


def rules(side: Side = Side.HOME_AGENT, **fields: object) -> list[str]:
    return home_rules(Forwarding(HOME, **fields), side, number)  # type: ignore[arg-type]


def test_every_field_of_a_selector() -> None:
    selector = Selector(
        source=("10.65.0.1", "10.65.0.9"), destination=(HOME, HOME), source_port=(80, 80), destination_port=(1000, 2000),
        protocol=(6, 6), traffic_class=(0xB8, 0xBB),
    )  # fmt: skip
    assert matches(selector, mirrored=False) == [
        "ip saddr 10.65.0.1-10.65.0.9 ip daddr 10.33.0.100 ip protocol 6 ip dscp 46 "
        "ip protocol { 6, 17, 33, 132, 136 } th sport 80 th dport 1000-2000 "
    ]
    assert matches(selector, mirrored=True) == [
        "ip daddr 10.65.0.1-10.65.0.9 ip saddr 10.33.0.100 ip protocol 6 ip dscp 46 "
        "ip protocol { 6, 17, 33, 132, 136 } th dport 80 th sport 1000-2000 "
    ]


def test_an_spi_is_that_of_esp_or_of_ah() -> None:
    found = matches(Selector(spi=(256, 300)), mirrored=False)
    assert found == ["ip protocol 50 esp spi 256-300 ", "ip protocol 51 ah spi 256-300 "]


def test_ipv6_matches_no_packet_of_an_ipv4_home_address() -> None:
    assert matches(Selector(version=6, protocol=(6, 6)), mirrored=False) == []
    assert rules(rules=(FlowRule(Selector(version=6), None),), shares=((ONE, 1),)) == ["goto tunnel_7"]


def test_rules_come_before_shares_in_their_order() -> None:
    web, voice = Selector(protocol=(6, 6)), Selector(protocol=(17, 17))
    found = rules(rules=(FlowRule(web, TWO), FlowRule(voice, None)), shares=((ONE, 1),))
    assert found == ["ip protocol 6 goto tunnel_8", "ip protocol 17 counter name dropped_by_policy drop", "goto tunnel_7"]


def test_a_tunnel_that_is_not_open_is_left_out() -> None:
    gone = Tunnel("10.33.0.2", "10.3.0.100")
    assert rules(rules=(FlowRule(Selector(), gone),), shares=((gone, 1), (ONE, 1))) == ["goto tunnel_7"]
    assert rules(shares=((gone, 1),)) == ["counter name dropped_by_policy drop"], "never by another way"


def test_both_ends_hash_the_same_octets() -> None:
    both = {"shares": ((ONE, 1), (TWO, 1))}
    home, mobile = rules(Side.HOME_AGENT, **both), rules(Side.MOBILE_NODE, **both)
    assert "jhash ip saddr . ip daddr . ip protocol . th sport . th dport mod" in home[0]
    assert "jhash ip daddr . ip saddr . ip protocol . th dport . th sport mod" in mobile[0]
    assert home[0].split("vmap")[1] == mobile[0].split("vmap")[1]
    assert "jhash ip saddr . ip daddr . ip protocol mod" in home[1], "without ports: ICMP, later fragments"


def test_per_packet_and_round_robin() -> None:
    both = ((ONE, 2), (TWO, 1))
    turn = "numgen inc mod 3 vmap { 0 : goto tunnel_7, 1 : goto tunnel_8, 2 : goto tunnel_7 }"
    assert rules(shares=both, balancing=Balancing.PER_PACKET) == [turn]
    found = rules(shares=both, balancing=Balancing.ROUND_ROBIN)
    assert found[0] == found[2] == f"ct mark and {MARK_MASK:#x} vmap {{ 0x8000007 : goto tunnel_7, 0x8000008 : goto tunnel_8 }}"
    assert found[1].startswith("ct mark set numgen inc mod 3 map")
    assert found[3] == turn


def test_marks_keep_to_their_bits() -> None:
    assert mark_of(1) == MARK_BIT | 1
    assert mark_of(0xFFFF) & ~MARK_MASK == 0


def test_elements_are_exchanged_not_flushed() -> None:
    assert elements("accepted", ["a", "b"], ["b", "c"]) == (
        "delete element ip roamlab_mobileip accepted { a }\nadd element ip roamlab_mobileip accepted { c }\n"
    )
    assert elements("accepted", ["a"], ["a"]) == ""
