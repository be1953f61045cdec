"""Mininet's command line on a topology, inside a capsule; events can be made to happen by hand."""

import json
import sys
import tempfile
from pathlib import Path

from mininet.cli import CLI
from mininet.log import setLogLevel

from experiments import events, mechanisms
from experiments.cli.shell import parse_parameters
from experiments.clock import now_ns, sleep_until
from experiments.errors import RoamlabError
from experiments.model import Event
from experiments.testbed import Testbed
from topologies.links.netns import LinkError
from topologies.nodes import NodeError


class Shell(CLI):
    """Mininet's CLI plus `event` and `events`."""

    prompt = "roamlab> "

    def __init__(self, bed: Testbed) -> None:
        self.context = events.Context(bed, mechanisms.make("tcp"))
        super().__init__(bed.net)

    def do_events(self, _line: str) -> None:
        """List the kinds of events and their parameters."""
        for kind in events.KINDS.values():
            parameters = " ".join(f"{name}={value}" for name, value in kind.parameters.items())
            print(f"{kind.name:20} {kind.target:10} {parameters}\n    {kind.summary}")

    def do_event(self, line: str) -> None:
        """Make an event happen now: event KIND TARGET [NAME=VALUE ...], for example: event carrier-loss mn-wlan"""
        try:
            kind, target, *parameters = line.split() if len(line.split()) >= 2 else ["", ""]
            event = Event(at_s=0.0, kind=kind, target=target, parameters=parse_parameters(tuple(parameters)))
            events.check(event)
            events.check_targets((event,), self.context.bed.topo)
            self.context.bed.prepare_attachments(events.attachments((event,)))
            began_ns = now_ns()
            for entry in events.expand((event,)):
                sleep_until(began_ns + int(entry.at_s * 1e9))
                done = events.perform(entry, self.context, began_ns)
                print(f"{entry.kind}: done after {done['done_s'] * 1000:.1f} ms. {done['note']}")
        except (RoamlabError, NodeError, LinkError, ValueError, TimeoutError) as error:
            print(error)


def main() -> None:
    """Build the topology of the order, open the command line, leave with it."""
    order = json.loads(sys.argv[1])
    setLogLevel("info")
    folder = Path(tempfile.mkdtemp())  # in the capsule's own /run: gone with it
    for part in ("logs", "events", "workload"):
        (folder / part).mkdir()
    try:
        bed = Testbed(order["topology"], order["parameters"], folder)
        bed.start()
    except (RoamlabError, NodeError, LinkError, TimeoutError, ValueError) as error:
        sys.exit(f"roamlab: {error}")
    print("paths: " + ", ".join(f"{p.name} ({p.interface})" for p in bed.paths))
    Shell(bed)


if __name__ == "__main__":
    main()
