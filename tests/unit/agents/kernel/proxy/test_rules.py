"""The rules' text: who is queued with bypass and who without, stale rules, filters."""

import pytest

from agents.kernel.proxy import rules
from agents.kernel.proxy.rules import Filter, installation_text, ports, removal_text, ruleset

PRESENT = """-P PREROUTING ACCEPT
-P OUTPUT ACCEPT
-N ROAMLAB-PROXY-IN
-N ROAMLAB-PROXY-OUT
-N MINE
-A PREROUTING -p tcp -j ROAMLAB-PROXY-IN
-A OUTPUT -p tcp -j ROAMLAB-PROXY-OUT
-A OUTPUT -p udp -j MINE
-A ROAMLAB-PROXY-IN -i lo -j RETURN
"""


def queued(version: int, *filters: Filter) -> list[str]:
    return [rule for rule in ruleset(version, filters, 40) if "NFQUEUE" in rule]


def test_only_unmarked_syns_may_pass_without_a_proxy() -> None:
    for rule in queued(4, Filter(remote_ports=("5001",)), Filter(local_ports=("80",))):
        assert ("--queue-bypass" in rule) is (" --syn" in rule and "! --syn" not in rule), rule
        if "connmark" in rule:
            assert "--queue-bypass" not in rule


def test_marked_connections_come_before_everything_else_of_their_chain() -> None:
    for chain in ("OUT", "IN"):
        own = [rule for rule in ruleset(4, [Filter(remote_ports=("1",))], 40) if f"-A ROAMLAB-PROXY-{chain} " in rule]
        assert own[0].endswith("-j RETURN"), "what the proxy sends itself is not queued again"
        assert "connmark --mark 0x20000000/0x20000000 -j NFQUEUE" in own[1]


def test_directions_and_the_middle_have_queues_of_their_own() -> None:
    found = {rule.split("--queue-num ")[1].split()[0] for rule in queued(6, Filter(remote_ports=("1",)))}
    assert found == {"40", "41", "42", "43"}


def test_a_filter_is_mirrored_for_the_other_direction() -> None:
    item = Filter(remote_ports=("5001", "6000:6010"), prefixes=("10.64.0.0/24", "2001:db8::/32"))
    assert item.matches(4, outbound=True) == ["-d 10.64.0.0/24 -m multiport --dports 5001,6000:6010 "]
    assert item.matches(4, outbound=False) == ["-s 10.64.0.0/24 -m multiport --sports 5001,6000:6010 "]
    assert item.matches(6, outbound=True) == ["-d 2001:db8::/32 -m multiport --dports 5001,6000:6010 "]
    assert Filter(prefixes=("10.0.0.0/8",)).matches(6, outbound=True) == []
    assert Filter(local_ports=("80",)).matches(4, outbound=False) == ["-m multiport --dports 80 "]


def test_a_cgroup_selects_what_leaves_and_nothing_that_arrives() -> None:
    item = Filter(cgroup="roamlab/app")
    assert item.matches(4, outbound=True) == ["-m cgroup --path roamlab/app "]
    assert item.matches(4, outbound=False) == []


def test_connections_from_outside_are_shown_only_where_a_filter_names_local_ports() -> None:
    syns = [r for r in queued(4, Filter(remote_ports=("5001",))) if "PROXY-IN" in r and " --syn" in r and "! --syn" not in r]
    assert all("--tcp-option 30" in rule for rule in syns)
    assert any("--dports 80" in rule and "--queue-bypass" in rule for rule in queued(4, Filter(local_ports=("80",))))


@pytest.mark.parametrize("value", [0, 65536, "5-1", "x", "1-2-3", "", -1])
def test_a_wrong_port_is_refused(value: int | str) -> None:
    with pytest.raises(ValueError, match="is no port"):
        ports([value])


def test_ports_become_what_iptables_writes() -> None:
    assert ports([5001, "6000-6010", "7:7"]) == ("5001", "6000:6010", "7")
    with pytest.raises(ValueError, match="more than 15"):
        ports([f"{number}-{number + 1}" for number in range(1, 9)])


def test_stale_rules_are_removed_and_those_of_others_stay() -> None:
    assert removal_text(PRESENT).splitlines() == [
        "*mangle", ":ROAMLAB-PROXY-IN - [0:0]", ":ROAMLAB-PROXY-OUT - [0:0]", "-D PREROUTING -p tcp -j ROAMLAB-PROXY-IN",
        "-D OUTPUT -p tcp -j ROAMLAB-PROXY-OUT", "-X ROAMLAB-PROXY-IN", "-X ROAMLAB-PROXY-OUT", "COMMIT",
    ]  # fmt: skip
    assert removal_text("-P OUTPUT ACCEPT\n-N MINE\n") == ""


def test_installation_names_every_chain_before_it_is_used() -> None:
    lines = installation_text(4, ruleset(4, [Filter(remote_ports=("1",))], 40)).splitlines()
    assert (lines[0], lines[-1]) == ("*mangle", "COMMIT")
    chains = [line.split()[0][1:] for line in lines if line.startswith(":")]
    assert len(chains) == 4
    for line in lines:
        if line.startswith("-A ROAMLAB"):
            assert line.split()[1] in chains
    first_jump = next(line for line in lines if line.startswith("-A") and "-j ROAMLAB" in line)
    assert first_jump == "-A OUTPUT -p tcp -j ROAMLAB-PROXY-OUT"
    assert "-A PREROUTING -p icmp --icmp-type fragmentation-needed -j ROAMLAB-PROXY-IN" in lines
    assert "-A PREROUTING -p ipv6-icmp --icmpv6-type packet-too-big -j ROAMLAB-PROXY-IN" in installation_text(6, [])


def test_a_second_proxy_does_not_displace_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def call(_self: rules.Rules, words: list[str], text: str = "") -> str:
        calls.append((words, text))
        return "-N ROAMLAB-PROXY-OUT\n-A ROAMLAB-PROXY-OUT -j NFQUEUE --queue-num 40\n-A MINE -j NFQUEUE --queue-num 60\n"

    monkeypatch.setattr(rules.Rules, "_call", call)
    monkeypatch.setattr(rules, "owned_queues", lambda: {40, 41, 42, 43})
    second = rules.Rules([], 60, "/dev/null")
    with pytest.raises(rules.RulesError, match="another proxy is at work here, with NFQUEUE 40"):
        second.check_alone()
    rules.Rules([], 40, "/dev/null").check_alone()
    assert not any(text for _words, text in calls), "nothing was changed"


def test_a_missing_program_is_one_line(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(rules.RulesError, match="iptables"):
        rules.Rules([], 40, "/dev/null").install()
