"""The tc commands of the netem backend, and the choice of a backend."""

import pytest

from topologies.links import netem, wire
from topologies.links.netns import LinkError
from topologies.profiles import GilbertElliott, LinkProfile
from topologies.traces import Trace


def test_limiter_counts_the_frame_in_transmission() -> None:
    assert netem.limiter(LinkProfile(rate_mbit=20, delay_ms=15)) == "netem limit 51 rate 20000000bit"
    assert netem.limiter(LinkProfile(rate_mbit=0.0015, queue_packets=3)) == "netem limit 4 rate 1500bit"
    assert netem.limiter(LinkProfile(delay_ms=15)) == "netem limit 10000 rate 100gbit"


def test_delay_line() -> None:
    assert netem.delay_line(LinkProfile()) == "netem limit 40000 delay 0us rate 100gbit"
    everything = LinkProfile(delay_ms=15.5, jitter_ms=2, loss=0.00123, duplicate=0.5, reorder=0.01)
    assert netem.delay_line(everything) == (
        "netem limit 40000 delay 15500us 2000us loss random 0.1230000% duplicate 50.0000000% reorder 1.0000000% rate 100gbit"
    )


def test_burst_parameters_are_in_the_order_of_gemodel() -> None:
    burst = GilbertElliott(p=0.01, r=0.25, loss_good=0.001, loss_bad=0.8)
    assert "loss gemodel 1.0000000% 25.0000000% 80.0000000% 0.1000000% " in netem.delay_line(LinkProfile(burst=burst))


def test_a_change_keeps_the_disciplines_and_a_flush_does_not() -> None:
    profile = LinkProfile(rate_mbit=1, delay_ms=1)
    assert [line.split()[:2] for line in netem.shape("change", "f1", "p2", profile)] == [["qdisc", "change"]] * 2
    assert netem.unshape("f1", "p2") == ["qdisc del dev f1 root", "qdisc del dev p2 root"]
    assert netem.shape("add", "f1", None, profile) == ["qdisc add dev f1 root handle 1: netem limit 21 rate 1000000bit"]


class RecordingBackend(netem.NetemBackend):
    """Keeps the commands instead of running them."""

    def __init__(self) -> None:
        super().__init__(-1)
        self.commands: list[str] = []

    def _tc(self, commands: list[str], tolerant: bool = False) -> None:
        self.commands += commands

    def _count(self, number: int, direction: str) -> None:
        pass


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> RecordingBackend:
    monkeypatch.setattr(netem, "add_pair", lambda *_arguments: None)
    backend = RecordingBackend()
    backend.add_link(7, LinkProfile(delay_ms=1), LinkProfile(delay_ms=2), "seed")
    backend.attach(7, 1, 2)
    return backend


def test_each_way_goes_through_its_hop(backend: RecordingBackend) -> None:
    redirects = [
        (words[3], words[-1]) for words in map(str.split, backend.commands) if words[0] == "filter" and words[1] == "add"
    ]
    assert sorted(redirects) == sorted([("p1", "f7"), ("b7", "p2"), ("p2", "b7"), ("f7", "p1")])
    assert "qdisc add dev p2 root handle 1: netem limit 40000 delay 1000us rate 100gbit" in backend.commands
    assert "qdisc add dev p1 root handle 1: netem limit 40000 delay 2000us rate 100gbit" in backend.commands


def test_blackhole_of_one_way(backend: RecordingBackend) -> None:
    backend.commands.clear()
    backend.set_blackhole(7, "forward", True)
    assert backend.commands[:3] == ["filter del dev p1 ingress", "qdisc del dev f7 root", "qdisc del dev p2 root"]
    backend.commands.clear()
    backend.set_blackhole(7, "forward", False)
    assert backend.commands == [netem.redirect("p1", "f7")]


def test_a_port_is_taken_from_its_old_link(backend: RecordingBackend) -> None:
    backend.add_link(8, LinkProfile(), LinkProfile(), "seed")
    backend.commands.clear()
    backend.attach(8, 3, 2)
    removed = {words[3] for words in map(str.split, backend.commands) if words[:2] == ["filter", "del"]}
    assert removed >= {"p1", "p2", "f7", "b7"}
    assert netem.redirect("p3", "f8") in backend.commands
    assert netem.redirect("p1", "f7") not in backend.commands


def test_a_trace_is_refused(backend: RecordingBackend) -> None:
    trace = LinkProfile(trace=Trace(file="/x.trace", times_ms=(1,)))
    with pytest.raises(LinkError, match=r"trace /x\.trace: .* set ROAMLAB_LINKS=userspace"):
        backend.set_profile(7, "both", trace)


@pytest.mark.parametrize(
    ("variable", "missing", "chosen"),
    [("", None, "netem"), ("", "no netem", "userspace"), ("userspace", None, "userspace"), ("netem", None, "netem")],
)
def test_choice(monkeypatch: pytest.MonkeyPatch, variable: str, missing: str | None, chosen: str) -> None:
    monkeypatch.setenv("ROAMLAB_LINKS", variable)
    monkeypatch.setattr(netem, "probe", lambda: missing)
    assert wire.choose_backend()[0] == chosen


def test_bad_choices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(netem, "probe", lambda: "no netem")
    monkeypatch.setenv("ROAMLAB_LINKS", "netem")
    with pytest.raises(LinkError, match=r"^ROAMLAB_LINKS=netem: does not work here: no netem$"):
        wire.choose_backend()
    monkeypatch.setenv("ROAMLAB_LINKS", "quick")
    with pytest.raises(LinkError, match=r"^ROAMLAB_LINKS = 'quick': must be netem or userspace, or left out to choose$"):
        wire.choose_backend()
