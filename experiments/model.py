"""Experiments as typed data: what is run, and which claims the result must show.

An experiment file defines `EXPERIMENT = Experiment(...)`. Everything here is plain data that goes through JSON
unchanged, so that a run can be executed in another process and described in its manifest.
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from experiments.errors import RoamlabError

Parameters = Mapping[str, Any]

RECOVERY_LIMIT_S = 30.0
"""A connection has survived when new bytes arrive within this time after the last event (s)."""
MAX_DURATION_S = 86_400.0
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_+-]*")


def check_name(what: str, name: str) -> None:
    """Names become parts of folder names. Raises RoamlabError."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise RoamlabError(f"{what} name {name!r}: letters, digits, - + and _ only")


def _is_number(value: object, low: float, high: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and low <= value <= high


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that happens to the network at a scheduled time of the scenario."""

    at_s: float
    """Seconds after the workload's connection was established."""
    kind: str
    """Name in `experiments.events.KINDS`."""
    target: str = ""
    """Interface, node or link that it happens to, for example "mn-wlan"."""
    parameters: Parameters = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not _is_number(self.at_s, 0.0, MAX_DURATION_S):
            raise RoamlabError(f"event {self.kind}: at_s = {self.at_s!r} must be from 0 to {MAX_DURATION_S:g} seconds")


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """A topology and what happens to it."""

    name: str
    label: str = ""
    topology: str = "mobile"
    parameters: Parameters = field(default_factory=dict)
    """Arguments of the topology."""
    events: tuple[Event, ...] = ()
    duration_s: float = 20.0
    """How long the workload produces data (s)."""
    family: int = 4
    """IP version of the workload's connection: 4 or 6."""

    def __post_init__(self) -> None:
        check_name("scenario", self.name)
        if not _is_number(self.duration_s, 0.1, MAX_DURATION_S):
            raise RoamlabError(
                f"scenario {self.name}: duration_s = {self.duration_s!r} must be from 0.1 to {MAX_DURATION_S:g} seconds"
            )
        if self.family not in (4, 6):
            raise RoamlabError(f"scenario {self.name}: family = {self.family!r} must be 4 or 6")

    @property
    def last_s(self) -> float:
        """When the last thing that is planned happens: the end of the workload's data, or an event (s)."""
        return max([self.duration_s, *(event.at_s for event in self.events)])


@dataclass(frozen=True, kw_only=True)
class Workload:
    """The traffic of a run; `kind` names a class in `experiments.workloads.REGISTRY`."""

    kind: str = "bulk"
    direction: str = "down"
    """"down": CN to MN; "up": MN to CN."""
    parameters: Parameters = field(default_factory=dict)
    name: str = ""
    """Tells the workloads of an experiment apart; the kind when nothing else is said."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", self.name or self.kind)
        check_name("workload", self.name)
        if self.direction not in ("down", "up"):
            raise RoamlabError(f"workload {self.kind}: direction {self.direction!r} is neither 'down' nor 'up'")


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where a claim comes from: a key of docs/references.bib and the place in that work."""

    key: str
    where: str


@dataclass(frozen=True, kw_only=True)
class Bound:
    """`measured op value`, for example `gap_ms <= 1000 ms`; with `others`, `measured op value x what each other has`."""

    op: str
    value: float | bool | str
    unit: str = ""
    others: tuple[str, ...] = ()
    """Mechanisms of the same scenario and workload whose aggregate, times `value`, is the bound."""
    other_scenarios: tuple[str, ...] = ()
    """Instead: scenarios in which that of the same mechanism is the bound."""

    def __post_init__(self) -> None:
        if self.op not in ("<=", ">=", "=="):
            raise RoamlabError(f"bound: operator {self.op!r} is none of <=, >=, ==")
        if self.others and self.other_scenarios:
            raise RoamlabError("bound: it is compared with other mechanisms or with other scenarios, not with both")
        if (self.others or self.other_scenarios) and not (_is_number(self.value, 0.0, math.inf) and self.value):
            raise RoamlabError(f"bound: value {self.value!r} times what others have must be a number above 0")


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A statement that the runs must show; judged by the analysis from captures and records."""

    id: str
    text: str
    metric: str
    bound: Bound
    mechanisms: tuple[str, ...]
    scenarios: tuple[str, ...]
    workloads: tuple[str, ...] = ()
    """Names of the workloads that it is about; empty: all."""
    aggregate: str = "median"
    source: Source | None = None
    published: str | None = None
    min_repetitions: int = 1


@dataclass(frozen=True, kw_only=True)
class RunSpec:
    """One run: everything that decides what will happen, and nothing else."""

    experiment: str
    scenario: Scenario
    mechanism: str
    workload: Workload
    seed: int
    repetition: int

    @property
    def slug(self) -> str:
        """Short name of the run inside its campaign."""
        return f"{self.scenario.name}.{self.mechanism}.{self.workload.name}-r{self.repetition}"

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form; `from_dict` is its inverse."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "RunSpec":
        """Rebuild a run from its JSON form."""
        scenario = dict(data["scenario"])
        scenario["events"] = tuple(Event(**event) for event in scenario["events"])
        return cls(**{**data, "scenario": Scenario(**scenario), "workload": Workload(**data["workload"])})


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """A set of runs, every scenario with every mechanism and workload, and the claims about them."""

    name: str
    title: str
    summary: str
    scenarios: tuple[Scenario, ...]
    mechanisms: tuple[str, ...]
    workloads: tuple[Workload, ...] = (Workload(),)
    claims: tuple[Claim, ...] = ()
    repetitions: int = 1
    seed: int = 1

    def __post_init__(self) -> None:
        check_name("experiment", self.name)
        names_of = {
            "scenario": [s.name for s in self.scenarios],
            "mechanism": list(self.mechanisms),
            "workload": [w.name for w in self.workloads],
        }
        for what, names in names_of.items():
            if not names:
                raise RoamlabError(f"experiment {self.name}: it has no {what}")
            doubles = sorted({name for name in names if names.count(name) > 1})
            if doubles:
                raise RoamlabError(f"experiment {self.name}: {what} {', '.join(doubles)} is there twice")
        known = {s.name for s in self.scenarios}
        for claim in self.claims:
            unknown = [n for n in claim.scenarios if n not in known]
            unknown += [n for n in (*claim.mechanisms, *claim.bound.others) if n not in self.mechanisms]
            unknown += [n for n in claim.workloads if n not in names_of["workload"]]
            if unknown:
                raise RoamlabError(f"experiment {self.name}: claim {claim.id} names {', '.join(unknown)}, which it has not")

    def runs(self, *, repetitions: int, seed: int, same_seed: bool = False) -> Iterator[RunSpec]:
        """All runs; repetition k of every cell uses seed + k, so that cells can be compared pair by pair.

        `same_seed`: every repetition uses `seed`; what differs between repetitions then is not chance.
        """
        for repetition in range(repetitions):
            for scenario in self.scenarios:
                for workload in self.workloads:
                    for mechanism in self.mechanisms:
                        yield RunSpec(
                            experiment=self.name,
                            scenario=scenario,
                            mechanism=mechanism,
                            workload=workload,
                            seed=seed if same_seed else seed + repetition,
                            repetition=repetition,
                        )

    def only(self, *, scenarios: tuple[str, ...] = (), mechanisms: tuple[str, ...] = ()) -> "Experiment":
        """The part of the experiment that the user asked for; claims about other parts are left out.

        Raises RoamlabError that lists the valid names when one is unknown.
        """
        for what, asked, valid in (
            ("scenario", scenarios, [s.name for s in self.scenarios]),
            ("mechanism", mechanisms, list(self.mechanisms)),
        ):
            for name in asked:
                if name not in valid:
                    raise RoamlabError(f"{self.name} has no {what} {name!r}; it has: {', '.join(valid)}")
        kept_scenarios = tuple(s for s in self.scenarios if not scenarios or s.name in scenarios)
        kept_mechanisms = tuple(m for m in self.mechanisms if not mechanisms or m in mechanisms)
        names = {s.name for s in kept_scenarios}
        claims = []
        for claim in self.claims:
            claim_mechanisms = tuple(m for m in claim.mechanisms if m in kept_mechanisms)
            claim_scenarios = tuple(s for s in claim.scenarios if s in names)
            compared = all(other in kept_mechanisms for other in claim.bound.others)
            if claim_mechanisms and claim_scenarios and compared:
                claims.append(replace(claim, mechanisms=claim_mechanisms, scenarios=claim_scenarios))
        return replace(self, scenarios=kept_scenarios, mechanisms=kept_mechanisms, claims=tuple(claims))
