"""The timeline: what is accepted, how events expand, and what must be prepared before the run."""

from types import SimpleNamespace
from typing import Any

import pytest

from experiments import catalogue, events
from experiments.errors import RoamlabError
from experiments.model import Event
from topologies import registry


def test_a_planned_handover_takes_the_old_interface_down_after_the_overlap() -> None:
    handover = Event(at_s=3.0, kind="planned-handover", target="mn-wlan", parameters={"to": "mn-lte", "overlap_s": 2.0})
    up = Event(at_s=4.0, kind="interface-up", target="mn-lte")
    assert [(e.at_s, e.kind, e.target) for e in events.expand((handover, up))] == [
        (3.0, "planned-handover", "mn-wlan"),
        (4.0, "interface-up", "mn-lte"),
        (5.0, "interface-down", "mn-wlan"),
    ]


def test_interfaces_that_appear_are_absent_at_the_start() -> None:
    timeline = (
        Event(at_s=9.0, kind="interface-vanishes", target="mn-lte"),
        Event(at_s=3.0, kind="interface-appears", target="mn-lte"),
        Event(at_s=3.0, kind="interface-vanishes", target="mn-wlan"),
        Event(at_s=9.0, kind="interface-appears", target="mn-wlan"),
    )
    assert events.absent_at_start(timeline) == ("mn-lte",)


def test_networks_that_come_into_range_are_out_of_it_at_the_start() -> None:
    timeline = (
        Event(at_s=9.0, kind="carrier-loss", target="mn-lte"),
        Event(at_s=3.0, kind="carrier-return", target="mn-lte"),
        Event(at_s=3.0, kind="carrier-loss", target="mn-wlan"),
        Event(at_s=9.0, kind="carrier-return", target="mn-wlan"),
    )
    assert events.out_of_range_at_start(timeline) == ("mn-lte",)


def test_hosts_that_move_at_once_lose_their_networks_before_anyone_gets_another_one() -> None:
    done: list[str] = []

    class Link(SimpleNamespace):
        def set_carrier(self, up: bool, end: int) -> None:
            done.append(f"{self.name} {'up' if up else 'down'}")

    bed: Any = SimpleNamespace(
        link_of=lambda name: Link(name=name), end_of=lambda name: 1, attach=lambda name, to: done.append(f"{name} to {to}")
    )
    moment = [Event(at_s=1, kind="reattach", target=name, parameters={"to": to}) for name, to in (("a", "x"), ("b", "y"))]
    moment.insert(1, Event(at_s=1, kind="carrier-loss", target="c"))
    lines = events.perform_at_once(moment, events.Context(bed, SimpleNamespace()), 0)  # type: ignore[arg-type]
    assert done == ["a down", "b down", "a to x", "a up", "c down", "b to y", "b up"]
    assert [line["target"] for line in lines] == ["a", "b", "c"], "by time: both moves have begun before c is performed"


def test_moves_are_known_before_the_run() -> None:
    move = Event(at_s=1.0, kind="reattach", target="mn-wlan", parameters={"to": "ar2/ap1"})
    assert events.attachments((move,)) == (("mn-wlan", "ar2/ap1"),)


@pytest.mark.parametrize(
    ("event", "words"),
    [
        (Event(at_s=0, kind="carrier-lost", target="mn-wlan"), ["'carrier-lost'", "carrier-loss"]),
        (Event(at_s=0, kind="blackhole-on", target="x", parameters={"way": 1}), ["unknown parameter way", "direction"]),
        (Event(at_s=0, kind="reattach", target="mn-wlan"), ["parameter to is missing"]),
        (Event(at_s=0, kind="carrier-loss"), ["target is missing"]),
        (Event(at_s=0, kind="signal-strength", target="mn-wlan"), ["parameter dbm is missing"]),
        (Event(at_s=0, kind="prefer", target="mn-wlan"), ["parameter over is missing"]),
        (Event(at_s=0, kind="profile-change", target="mn-wlan", parameters={"loss": "much"}), ["loss = 'much'"]),
        (Event(at_s=0, kind="signal-strength", target="mn-wlan", parameters={"dbm": float("nan")}), ["dbm = nan"]),
    ],
)
def test_bad_events_say_what_is_valid(event: Event, words: list[str]) -> None:
    with pytest.raises(RoamlabError) as error:
        events.check(event)
    assert all(word in str(error.value) for word in words)


def test_every_experiment_of_the_catalogue_has_valid_events() -> None:
    experiments = catalogue.load_all()
    assert {"outage", "demo"} <= set(experiments)
    for experiment in experiments.values():
        for scenario in experiment.scenarios:
            events.expand(scenario.events)


def test_every_kind_is_documented_in_one_line() -> None:
    for kind in events.KINDS.values():
        assert kind.summary.endswith((".", ":")) or kind.summary
        assert kind.target in ("interface", "mn-interface", "link", "node", "router", "middlebox")


@pytest.mark.parametrize(
    ("kind", "target", "words"),
    [
        ("carrier-loss", "mn-wifi", ["no interface 'mn-wifi'", "mn-wlan, mn-lte"]),
        ("blackhole-on", "core-cr1", ["no link 'core-cr1'", "ar1-ap1"]),
        ("node-crash", "ha9", ["no node 'ha9'", "core"]),
        ("renumber", "core", ["no router 'core'", "ar1, ar2"]),
        ("nat-rebind", "ar1", ["no middlebox 'ar1'", "none here"]),
    ],
)
def test_targets_are_looked_up_in_the_topology(kind: str, target: str, words: list[str]) -> None:
    with pytest.raises(RoamlabError) as error:
        events.check_targets((Event(at_s=0, kind=kind, target=target),), registry.make("mobile"))
    assert all(word in str(error.value) for word in words), str(error.value)


def test_a_mobile_cn_moves_but_only_the_mn_s_mechanism_is_told() -> None:
    topo = registry.make("mobile-cn")
    move = Event(at_s=0, kind="reattach", target="cn-eth", parameters={"to": "hr2/ap1"})
    events.check_targets((move, Event(at_s=0, kind="blackhole-on", target="ar3-ap1")), topo)
    told = Event(at_s=0, kind="planned-handover", target="cn-eth", parameters={"to": "cn-eth"})
    with pytest.raises(RoamlabError, match=r"no interface 'cn-eth' .*mn-wlan, mn-lte$"):
        events.check_targets((told,), topo)
    with pytest.raises(RoamlabError, match="no interface 'cn-eth'"):
        events.check_targets((move,), registry.make("mobile"))


def test_an_attachment_point_is_for_one_interface() -> None:
    topo = registry.make("mobile-cn")
    for target, point in (("cn-eth", "ar1/ap1"), ("mn-wlan", "ar3/ap1")):
        with pytest.raises(RoamlabError, match="cannot share"):
            events.check_targets((Event(at_s=0, kind="reattach", target=target, parameters={"to": point}),), topo)
    there = Event(at_s=0, kind="reattach", target="cn-eth", parameters={"to": "hr2/ap1"})
    other = Event(at_s=1, kind="reattach", target="mn-wlan", parameters={"to": "hr2/ap1"})
    events.check_targets((there, there), topo)
    with pytest.raises(RoamlabError, match="cn-eth and mn-wlan"):
        events.check_targets((there, other), topo)
