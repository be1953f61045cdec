"""Flow policies that nobody will honour are never silent: in the log, and in the status."""

import pytest

from agents.core.mobileip.selection import StaticFlow
from tests.unit.agents.core.mobileip.ha_parts import HOME, HTTP, LTE, VOICE, WLAN, Bench, config, multipath, node
from tests.unit.agents.core.mobileip.mn_parts import LTE_UP, WLAN_UP, logged, registered, script
from tests.unit.agents.core.mobileip.test_mn_multipath import LTE_TUNNEL, newest


def warned(flows: tuple[StaticFlow, ...], **values: object) -> list[str]:
    """Warnings of a mobile node that was told the flows; they are in the log and in its status."""
    run = script(**values)
    actions = run.node.set_policy(flows, run.now)
    said = [row["what"] for row in logged(actions, "policy-warning")]
    assert said == run.node.status()["warnings"]
    return said


def test_a_policy_that_is_not_told_to_the_home_agent() -> None:
    (text,) = warned((StaticFlow(HTTP, (1,)),))
    assert text.startswith("exchange_flows is off: the home agent is not told")
    assert warned((StaticFlow(HTTP, (1,)),), exchange_flows=True) == []
    assert warned((), exchange_flows=False) == []


def test_35_the_mobile_node_follows_its_own_policy_also_without_exchange() -> None:
    run = registered(WLAN_UP, LTE_UP, flows=(StaticFlow(HTTP, (2, 1)),))
    assert [(rule.selector, rule.tunnel) for rule in newest(run).rules] == [(HTTP, LTE_TUNNEL)]


def test_a_policy_of_the_configuration_is_warned_of_at_the_start() -> None:
    run = script(flows=(StaticFlow(HTTP, (1,)),), multipath=False)
    (line,) = logged(run.actions, "policy-warning")
    assert line["what"] == "the flow policy has no effect: multipath is off, so there is one tunnel for all flows"


def test_a_policy_after_code_152() -> None:
    run = script(flows=(StaticFlow(HTTP, (1,)),), exchange_flows=True)
    assert run.node.status()["warnings"] == []
    run.reply(run.up(WLAN_UP)[0], 152)
    assert "refused several bindings (code 152)" in run.node.status()["warnings"][0]


@pytest.mark.parametrize(
    ("flow", "text"),
    [
        (StaticFlow(HTTP, (9,)), "flow 1 names no interface of this node (BID 9): nobody will honour it"),
        (StaticFlow(HTTP, (), (99,)), "flow 1 names no interface of this node (label 99): nobody will honour it"),
        (StaticFlow(HTTP, (1, 9)), "flow 1: no interface has BID 9"),
    ],
)
def test_paths_that_are_not_there(flow: StaticFlow, text: str) -> None:
    assert warned((flow,), exchange_flows=True) == [text]


def test_the_home_agent_warns_of_what_it_cannot_do() -> None:
    bench = Bench()
    policy = (StaticFlow(HTTP, (7,)), StaticFlow(VOICE, (), (1,)))
    assert not logged(bench.agent.set_policy(HOME, policy, bench.now), "policy-warning"), "nothing is registered yet"
    bench.register(WLAN, multipath(1, 1))
    bench.register(LTE, multipath(2, 2))
    said = [row["what"] for row in logged(bench.agent.set_policy(HOME, policy, bench.now), "policy-warning")]
    assert said[0] == "flow 1: no binding with BID 7 now"
    assert said[1].startswith("flows with labels only are not told to the mobile node")
    assert bench.agent.status()["warnings"] == [f"{HOME}: {text}" for text in said]


def test_the_home_agent_warns_of_a_mobile_node_without_binding_identifiers() -> None:

    bench = Bench(config(node(multipath=False, policy=(StaticFlow(HTTP, (1,)),))))
    assert "multipath is off for this mobile node" in bench.agent.status()["warnings"][0]
    bench = Bench()
    bench.register(WLAN)
    bench.agent.set_policy(HOME, (StaticFlow(HTTP, (1,)),), bench.now)
    assert "registered without the Multipath extension" in bench.agent.status()["warnings"][0]
