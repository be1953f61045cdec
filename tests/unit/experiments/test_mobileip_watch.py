"""`roamlab watch` and `roamlab ctl` with made-up answers of Mobile IP's agents; real ones: tests/emulation/test_watch.py."""

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from agents.kernel.mobileip.driver import Driver
from agents.kernel.mobileip.foreign_agent import ForeignAgentDriver
from agents.kernel.mobileip.home_agent import HomeAgentDriver
from agents.kernel.mobileip.mobile_node import MobileNodeDriver
from experiments import control, mobileip_state
from experiments.cli import ctl as ctl_module
from experiments.cli import watch as watch_module
from experiments.cli.terminal import console
from experiments.control import AgentSocket
from experiments.errors import RoamlabError
from experiments.mobileip_state import Sample, rates, report
from topologies.nodes import NodeError

HOME, AGENT, WLAN, LTE = "10.33.0.100", "10.33.0.2", "10.1.0.100", "10.2.0.100"


def tunnel(device: str, local: str, remote: str, packets: int, **fields: Any) -> dict[str, Any]:
    return {
        "device": device, "local": local, "remote": remote, "remote_port": 0, "encapsulation": "ipip", "backend": "userspace",
        "interface": "", "mtu": 1480, "sent_packets": packets, "sent_bytes": 1000 * packets, "received_packets": 2 * packets,
        "received_bytes": 100 * packets, **fields,
    }  # fmt: skip


def home_agent(packets: int = 0) -> dict[str, Any]:
    row = {"home_address": HOME, "local": AGENT, "remote_port": 0, "remaining_s": 200.4}
    bindings = [{**row, "bid": 1, "label": 7, "care_of_address": WLAN, "remote": WLAN},
                {**row, "bid": 2, "label": 2, "care_of_address": LTE, "remote": LTE, "remaining_s": None}]  # fmt: skip
    forwarding = {"home_address": HOME, "balancing": "per-flow", "rules": [],
                  "shares": [{"tunnel": f"{AGENT} {WLAN} bid 1", "weight": 1}]}  # fmt: skip
    return {"core": {"bindings": 2, "discards": {"no-message": 3}}, "bindings": bindings, "forwarding": [forwarding],
            "tunnels": [tunnel("mip1", AGENT, WLAN, packets), tunnel("mip2", AGENT, LTE, 0)]}  # fmt: skip


def mobile_node() -> dict[str, Any]:
    row = {"held": False, "validated": True}
    interfaces = [{**row, "name": "mn-wlan", "bid": 1, "state": "registered", "care_of": WLAN},
                  {**row, "name": "mn-lte", "bid": 2, "state": "discovering", "care_of": None, "validated": False}]  # fmt: skip
    bindings = [{"interface": "mn-wlan", "bid": 1, "care_of": WLAN, "label": 7, "remaining_s": 150.0}]
    return {"core": {"interfaces": interfaces}, "home_address": HOME, "bindings": bindings, "forwarding": [],
            "tunnels": [tunnel("mip1", WLAN, AGENT, 5, interface="mn-wlan")]}  # fmt: skip


def foreign_agent() -> dict[str, Any]:
    visitor = {"home_address": HOME, "home_agent": AGENT, "interface": "fa-eth1", "remaining_s": 90.0, "reverse_tunnel": True}
    return {"core": {"care_of_address": "10.9.0.1"}, "bindings": [visitor], "forwarding": [],
            "tunnels": [tunnel("mip1", "10.9.0.1", AGENT, 0)]}  # fmt: skip


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Answers by agent; they may be changed. An exception is raised."""
    answers: dict[str, Any] = {"ha1/home-agent": home_agent(), "mn/mobile-node": mobile_node(),
                               "fa/foreign-agent": foreign_agent(), "mn/proxy": {}}  # fmt: skip
    asked: list[dict[str, Any]] = []
    answers["asked"] = asked

    def known() -> list[AgentSocket]:
        names = [name.split("/") for name in answers if "/" in name]
        return [AgentSocket(7, "/results/mip4/run-1", node, role, Path(f"{node}/{role}")) for node, role in names]

    def answer(path: Path, request: dict[str, Any], _timeout_s: float = 1.0) -> dict[str, Any]:
        asked.append(request)
        result = answers[str(path)]
        if isinstance(result, Exception):
            raise result
        return dict(result)

    monkeypatch.setattr(control, "agents", known)
    monkeypatch.setattr(mobileip_state, "control_request", answer)
    monkeypatch.setattr(ctl_module, "control_request", answer)
    return answers


def run(command: Any, *words: str) -> Result:
    result = CliRunner().invoke(command, list(words), standalone_mode=False)
    if isinstance(result.exception, RoamlabError):
        raise result.exception
    assert result.exception is None, result.exc_info
    return result


def test_both_ends_are_shown_with_what_is_known_there(lab: dict[str, Any]) -> None:
    found = json.loads(run(watch_module.watch, "--json", "--interval", "0.2").output)
    assert [(row["agent"], row["bid"], row["care_of"], row["label"], row["remaining_s"], row["state"], row["tunnel"])
            for row in found["bindings"]] == [
        ("ha1/home-agent", 1, WLAN, 7, 200.4, "used", "mip1"),
        ("ha1/home-agent", 2, LTE, 2, None, "standby", "mip2"),
        ("mn/mobile-node", 1, WLAN, 7, 150.0, "registered", "mip1"),
        ("mn/mobile-node", 2, "", None, None, "discovering", ""),
        ("fa/foreign-agent", None, "10.9.0.1", None, 90.0, "visitor on fa-eth1, reverse tunnel", "mip1"),
    ]  # fmt: skip
    assert [row["device"] for row in found["tunnels"]] == ["mip1", "mip2", "mip1", "mip1"]
    assert found["tunnels"][0]["out_mbit"] == 0.0


def test_both_home_addresses_of_a_mobile_node_are_shown() -> None:
    status, other = mobile_node(), ("10.34.0.100", "10.34.0.2")
    core = {**status["core"], "home_address": HOME, "home_agent": AGENT}
    further = {**core, "home_address": other[0], "home_agent": other[1]}
    rows = [
        {**row, "home_address": home, "label": label}
        for row in status["bindings"]
        for home, label in ((HOME, 7), (other[0], 8))
    ]
    ways = [*status["tunnels"], tunnel("mip2", WLAN, other[1], 5, interface="mn-wlan")]
    both = {**status, "core": {**core, "further": [further]}, "bindings": rows, "tunnels": ways}
    found = mobileip_state.bindings("mn", "mobile-node", both)
    assert [(row.home_address, row.label, row.tunnel) for row in found if row.care_of] == [
        (HOME, 7, "mip1"), (other[0], 8, "mip2")]  # fmt: skip


def test_rates_are_growth_over_time_and_nothing_for_another_tunnel() -> None:
    agent = AgentSocket(7, "run", "ha1", "home-agent", Path("x"))
    before, now = Sample(agent, 10.0, home_agent(0)), Sample(agent, 12.0, home_agent(1000))
    row = report([now], [before])["tunnels"][0]
    assert (row["out_packets_s"], row["in_packets_s"], row["out_mbit"], row["in_mbit"]) == (500.0, 1000.0, 4.0, 0.4)
    assert report([now], [])["tunnels"][0]["out_mbit"] is None, "there is no earlier sample"
    anew = Sample(agent, 13.0, home_agent(3))
    assert report([anew], [now])["tunnels"][0]["out_mbit"] is None, "an agent that was started again counts from 0"
    one, other = tunnel("mip1", AGENT, WLAN, 1), tunnel("mip1", AGENT, LTE, 9)
    assert set(rates(other, one, 1.0).values()) == {None}, "the device is another tunnel now"
    assert set(rates(one, one, 0.0).values()) == {None}


def test_an_agent_that_does_not_answer_is_a_line_and_the_others_are_shown(lab: dict[str, Any]) -> None:
    lab["ha1/home-agent"] = ConnectionRefusedError(111, "Connection refused")
    text = run(watch_module.watch, "--once", "--interval", "0.2").output
    assert "ha1/home-agent: no answer: Connection refused" in text
    assert WLAN in text
    only = CliRunner().invoke(watch_module.watch, ["ha1", "--once", "--interval", "0.2"], standalone_mode=False)
    assert only.return_value == 1


def test_one_table_without_a_terminal_and_a_live_one_that_ctrl_c_ends(
    lab: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(watch_module.watch, "mn", "--interval", "0.2").output.count("care-of address") == 1
    waits: list[float] = []

    class Clock(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            waits.append(timeout or 0.0)
            if len(waits) == 2:
                lab["ha1/home-agent"] = OSError(2, "No such file or directory")
            if len(waits) == 3:
                raise KeyboardInterrupt
            return False

    monkeypatch.setattr(watch_module.threading, "Event", Clock)
    monkeypatch.setattr(type(console), "is_terminal", True)
    monkeypatch.setattr(type(console), "is_dumb_terminal", False)
    monkeypatch.setattr(console, "is_interactive", True)
    result = CliRunner().invoke(watch_module.watch, [], standalone_mode=False)
    assert (result.exception, result.return_value, len(waits)) == (None, 0, 3)
    assert all(0.5 < wait_s <= 1.0 for wait_s in waits)
    assert "no answer: No such file" in result.output


def test_nothing_to_watch_is_one_line_with_what_to_do(lab: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RoamlabError, match=r"no agent of Mobile IP 'cn': there are .*mn/proxy.*`roamlab ctl`"):
        run(watch_module.watch, "cn")
    with pytest.raises(RoamlabError, match="no agent of Mobile IP runs: there are none"):
        run(watch_module.watch, "--run", "run-2")
    monkeypatch.setattr(control, "agents", list)
    with pytest.raises(RoamlabError, match="nothing runs: start a run") as caught:
        run(watch_module.watch, "--json")
    assert "\n" not in str(caught.value)


def test_ctl_shows_tables_and_the_answer_itself_on_request(lab: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "width", 140)
    words = " ".join(run(ctl_module.ctl, "ha1/home-agent").output.split())
    assert f"ha1/home-agent {HOME} 1 {WLAN} 7 200 used mip1" in words
    assert "discards no-message 3" in words
    assert f"the rest, per-flow -> {AGENT} {WLAN} bid 1 (1)" in words
    assert json.loads(run(ctl_module.ctl, "--json", "ha1/home-agent").output)["core"]["bindings"] == 2
    lab["asked"].clear()
    run(ctl_module.ctl, "ha1/home-agent", "deregister", f"home_address={HOME}", "bid=2")
    assert lab["asked"] == [{"cmd": "deregister", "home_address": HOME, "bid": 2}, {"cmd": "status"}]


def test_ctl_says_in_one_line_what_is_wrong(lab: dict[str, Any]) -> None:
    with pytest.raises(
        RoamlabError, match=r"fa/foreign-agent has no command 'deregister' \(home-agent and mobile-node have it\)"
    ):
        run(ctl_module.ctl, "fa/foreign-agent", "deregister")
    for answer, text in (
        (NodeError("mn/mobile-node: register: mn-p9 is not configured"), "mn/mobile-node: register: mn-p9 is not configured"),
        (TimeoutError("timed out"), "no answer within 20 s"),
        (ConnectionRefusedError(111, "Connection refused"), r"Connection refused: has it just ended\? `roamlab ctl` lists"),
    ):
        lab["mn/mobile-node"] = answer
        with pytest.raises(RoamlabError, match=text):
            run(ctl_module.ctl, "mn/mobile-node", "register")


@pytest.mark.parametrize("driver", [HomeAgentDriver, ForeignAgentDriver, MobileNodeDriver])
def test_the_commands_of_the_help_are_those_of_the_agents(driver: type[Driver]) -> None:
    commands = object.__new__(driver).commands()
    assert set(ctl_module.COMMANDS[driver.side.value]) == set(commands)
    assert all(word in (ctl_module.ctl.help or "") for word in commands if word != "signal")


def test_bindings_that_the_agent_has_not_said_are_counted(lab: dict[str, Any]) -> None:
    lab["ha1/home-agent"]["counts"] = {"bindings": 10_000, "tunnels": 2, "forwarding": 9_000}
    assert "and 9998 more" in run(watch_module.watch, "--once", "--interval", "0.2", "ha1").output
    assert "and 9998 more" in run(ctl_module.ctl, "ha1/home-agent").output
    found = json.loads(run(watch_module.watch, "--json", "--interval", "0.2", "ha1").output)
    assert found["agents"][0]["counts"]["bindings"] == 10_000
