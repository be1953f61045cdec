"""`roamlab ctl`: commands to the agents of a run or a shell that is under way."""

import json

import click

from experiments import control
from experiments.cli.shell import parse_parameters
from experiments.cli.terminal import console
from experiments.errors import RoamlabError
from topologies.mobile_host import control_request
from topologies.nodes import NodeError


@click.command(short_help="Talk to an agent of a running run or shell.")
@click.argument("agent", required=False)
@click.argument("command", default="status")
@click.argument("parameters", nargs=-1, metavar="[NAME=VALUE]...")
@click.option("--run", default="", help="Which run, if several are under way: a part of its folder, or the process id.")
def ctl(agent: str | None, command: str, parameters: tuple[str, ...], run: str) -> None:
    """Send COMMAND (default: status) to AGENT, written NODE/ROLE, and print its answer. Without AGENT: list them.

    \b
    roamlab ctl mn/proxy connections
    roamlab ctl mn/proxy add-subflow address=10.2.0.101 backup=true
    roamlab ctl mn/proxy handover to=1
    roamlab ctl mn/proxy handover address=10.2.0.101 break_first=true
    roamlab ctl mn/proxy prio subflow=0 priority=backup
    roamlab ctl mn/proxy del-subflow subflow=1 connection=3
    roamlab ctl mn/netconf prefer interface=mn-lte
    """
    known = control.agents()
    if agent is None:
        for item in known:
            console.print(f"{item.name:24} {item.capsule:>8}  {item.what}")
        if not known:
            console.print("no agents run now")
        return
    found = control.find(agent, run, known)
    try:
        reply = control_request(found.path, {**parse_parameters(parameters), "cmd": command})
    except NodeError as error:
        raise RoamlabError(str(error).removeprefix(f"{found.path}: ")) from None
    except OSError as error:
        raise RoamlabError(f"{found.name}: {error.strerror or error}") from None
    reply.pop("ok", None)
    click.echo(json.dumps(reply, indent=1))
