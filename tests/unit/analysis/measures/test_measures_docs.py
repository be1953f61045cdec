"""docs/metrics.md against what is measured: every key is documented once, and nothing else is."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import numpy as np

from analysis.connections import reconstruct
from analysis.contact import Contact
from analysis.measures import Datagrams, Handover, measure_datagrams, measure_stream
from analysis.measures.audit import Audit
from analysis.measures.homeroute import HomeAgentUse
from analysis.measures.loads import LinkUse, Load, LoadPhase
from analysis.measures.movement import Movement
from analysis.measures.strays import Switch
from analysis.references import load_references
from tests.unit.analysis.connections.connection_scene import Scene

DOCS = Path(__file__).parents[4] / "docs"
TEXT = (DOCS / "metrics.md").read_text("utf-8")
NAMES = re.compile(r"^\* (`\w+`(?:, `\w+`)*) · ([\w, ]+)$", re.MULTILINE)


def documented(kind: str) -> list[str]:
    """Metrics that the document says exist for this kind."""
    return [name for names, kinds in NAMES.findall(TEXT) if kind in kinds.split(", ") for name in re.findall(r"`(\w+)`", names)]


def streams():
    scene = Scene()
    scene.initial()
    return set(measure_stream(reconstruct(scene.table()), 0, True))


def datagrams():
    nothing = np.zeros(0, np.int64)
    return set(measure_datagrams(Datagrams(nothing, nothing)))


def test_every_metric_of_a_stream_is_documented_and_no_other():
    assert sorted(documented("streams")) == sorted(streams())


def test_every_metric_of_datagrams_is_documented_and_no_other():
    assert sorted(documented("datagrams")) == sorted(datagrams())


def test_every_field_of_a_handover_is_documented_and_no_other():
    assert sorted(documented("handovers")) == sorted(field.name for field in fields(Handover))


def test_every_field_of_a_switch_is_documented_and_no_other():
    assert sorted(documented("switches")) == sorted(field.name for field in fields(Switch))


def load_phases():
    whole = {field.name for kind in (LoadPhase, LinkUse) for field in fields(kind)}
    return whole - {"whole"}


def test_every_field_of_a_run_is_documented_and_no_other():
    assert sorted(documented("home_agent")) == sorted(field.name for field in fields(HomeAgentUse))
    assert sorted(documented("load")) == sorted(field.name for field in fields(Load))
    assert sorted(documented("load phases")) == sorted(load_phases())
    assert sorted(documented("audit")) == sorted(field.name for field in fields(Audit))
    assert sorted(documented("contact")) == sorted(field.name for field in fields(Contact))
    assert sorted(documented("movement")) == sorted(field.name for field in fields(Movement))


def test_all_kinds_are_known():
    known = {
        "streams",
        "datagrams",
        "handovers",
        "switches",
        "home_agent",
        "load",
        "load phases",
        "audit",
        "movement",
        "contact",
    }
    assert {kind for _, kinds in NAMES.findall(TEXT) for kind in kinds.split(", ")} == known


def test_metrics_in_the_text_exist():
    kinds = (Handover, Switch, HomeAgentUse, Load, LoadPhase, LinkUse, Audit, Movement, Contact)
    known = streams() | datagrams() | {field.name for kind in kinds for field in fields(kind)}
    mentioned = set(re.findall(r"`([a-z]+(?:_[a-z]+)*_(?:ms|s|bytes|packets|ratio|mbit|datagrams))`", TEXT))
    assert mentioned - {"measure_datagrams"} <= known


def test_cited_rfcs_are_in_the_bibliography():
    works = load_references()
    assert {f"rfc{number}" for number in re.findall(r"RFC (\d{4})", TEXT)} <= set(works)
    for work in ("zhou2015", "jaiswal2003"):
        assert works[work].title in " ".join(TEXT.split())
