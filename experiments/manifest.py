"""What every manifest says of its run, whoever writes it: the run itself, or the runner for a run that could not."""

from typing import Any

from experiments import mechanisms, workloads
from experiments.model import RECOVERY_LIMIT_S, Event, RunSpec
from experiments.rundir import SCHEMA


def event_dict(event: Event) -> dict[str, Any]:
    """An event as the manifest shows it."""
    return {"at_s": event.at_s, "kind": event.kind, "target": event.target, "parameters": dict(event.parameters)}


def describe_run(spec: RunSpec, run_id: str, campaign: str, state: str, reason: str | None) -> dict[str, Any]:
    """What is known before the run (identity, scenario, mechanism, workload), and how its execution ended."""
    scenario, workload = spec.scenario, spec.workload
    mechanism = mechanisms.REGISTRY[spec.mechanism]
    kind = workloads.REGISTRY[workload.kind]
    return {
        "schema": SCHEMA,
        "state": state,
        "reason": reason,
        "run_id": run_id,
        "campaign": campaign,
        "experiment": spec.experiment,
        "seed": spec.seed,
        "repetition": spec.repetition,
        "recovery_limit_s": RECOVERY_LIMIT_S,
        "scenario": {
            "name": scenario.name,
            "label": scenario.label or scenario.name,
            "topology": scenario.topology,
            "parameters": dict(scenario.parameters),
            "duration_s": scenario.duration_s,
            "family": scenario.family,
            "events": [event_dict(event) for event in scenario.events],
        },
        "mechanism": {
            "name": mechanism.name,
            "label": mechanism.label,
            "transport": mechanism.transport,
            "falls_back": mechanism.falls_back,
        },
        "workload": {
            "name": workload.name,
            "kind": workload.kind,
            "transport": kind.transport,
            "direction": workload.direction,
            "parameters": {"duration_s": scenario.duration_s, **kind.parameters, **workload.parameters},
        },
        "t0_mono_ns": None,
        "t0_wall_ns": None,
        "captures": [],
    }


def why_not_carried(spec: RunSpec) -> str | None:
    """A mechanism that only carries TCP says nothing about UDP: such a run is unsupported. One line, or None."""
    mechanism, workload = mechanisms.REGISTRY[spec.mechanism], workloads.make(spec.workload)
    if "udp" in workload.transports() and not mechanism.carries_udp:
        what = "is UDP" if workload.transport == "udp" else "has flows of UDP"
        return f"{mechanism.label} carries TCP connections; {workload.kind} {what}"
    return None
