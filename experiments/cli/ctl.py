"""`roamlab ctl`: commands to the agents of a run or a shell that is under way."""

import json
from typing import Any

import click
from rich.console import RenderableType
from rich.text import Text

from experiments import control
from experiments.cli.mobileip_tables import bindings_table, facts_table, tunnels_table
from experiments.cli.shell import parse_parameters
from experiments.cli.terminal import console
from experiments.control import AgentSocket
from experiments.errors import RoamlabError
from experiments.mobileip_state import ROLES, Sample, bindings, facts, tunnels, unsaid
from topologies.mobile_host import control_request
from topologies.nodes import NodeError

_TIMEOUT_S = 20.0
COMMANDS = {
    "home-agent": ("status", "bindings", "deregister", "policy"),
    "foreign-agent": ("status", "bindings"),
    "mobile-node": ("status", "bindings", "register", "deregister", "policy", "handover", "signal"),
}
"""Of the roles of Mobile IP; those of other roles are in their documentation."""


@click.command(short_help="Talk to an agent of a running run or shell.")
@click.argument("agent", required=False)
@click.argument("command", default="status")
@click.argument("parameters", nargs=-1, metavar="[NAME=VALUE]...")
@click.option("--run", default="", help="Which run, if several are under way: a part of its folder, or the process id.")
@click.option("--json", "as_json", is_flag=True, help="The agent's answer as it is, also where there is a table for people.")
def ctl(agent: str | None, command: str, parameters: tuple[str, ...], run: str, as_json: bool) -> None:
    """Send COMMAND (default: status) to AGENT, written NODE/ROLE, and print its answer. Without AGENT: list them.

    \b
    Every agent:
      roamlab ctl mn/netconf status
      roamlab ctl mn/netconf prefer interface=mn-lte
    \b
    proxy (docs/proxy.md):
      roamlab ctl mn/proxy connections
      roamlab ctl mn/proxy add-subflow address=10.2.0.101 backup=true
      roamlab ctl mn/proxy handover to=1
      roamlab ctl mn/proxy handover address=10.2.0.101 break_first=true
      roamlab ctl mn/proxy prio subflow=0 priority=backup
      roamlab ctl mn/proxy del-subflow subflow=1 connection=3
    \b
    home-agent, foreign-agent, mobile-node (docs/mobile-ip.md); tables, or --json:
      status                          figures, bindings, tunnels
      bindings                        bindings (foreign agent: visitors)
      register [interface=NAME]       mobile node: register now, over one interface or all
      deregister [interface=NAME]     mobile node: take the binding off, or all
      deregister home_address=ADDRESS [bid=NUMBER]    home agent: the same
      policy 'flows=[{...}]'          mobile node: replace the flow policy
      policy home_address=ADDRESS 'flows=[{...}]'     home agent: the same; without flows: the configured one
      handover interface=NAME         mobile node with one binding: use this interface
    \b
      roamlab ctl mn/mobile-node
      roamlab ctl mn/mobile-node policy 'flows=[{protocol = "tcp", source_port = 443, bids = [1, 2]}]'
      roamlab ctl ha1/home-agent deregister home_address=10.33.0.100 bid=2
    """
    known = control.agents()
    if agent is None:
        for item in known:
            console.print(f"{item.name:24} {item.capsule:>8}  {item.what}")
        if not known:
            console.print("no agents run now")
        return
    found = control.find(agent, run, known)
    check(found, command)
    reply = ask(found, {**parse_parameters(parameters), "cmd": command})
    reply.pop("ok", None)
    if as_json or found.role not in ROLES:
        click.echo(json.dumps(reply, indent=1))
        return
    for part in tables(found, command, reply):
        console.print(part, width=max(console.width, 0 if console.is_terminal else 120))


def check(agent: AgentSocket, command: str) -> None:
    """Raise RoamlabError for a command that the role does not have."""
    commands = COMMANDS.get(agent.role)
    if commands is None or command in commands:
        return
    others = [role for role, words in COMMANDS.items() if command in words]
    where = f" ({' and '.join(others)} {'has' if len(others) == 1 else 'have'} it)" if others else ""
    raise RoamlabError(f"{agent.name} has no command {command!r}{where}: there are {', '.join(commands)}")


def ask(agent: AgentSocket, request: dict[str, Any]) -> dict[str, Any]:
    """The agent's answer. Raises RoamlabError."""
    try:
        return control_request(agent.path, request, _TIMEOUT_S)
    except NodeError as error:
        raise RoamlabError(f"{agent.name}: {str(error).removeprefix(f'{agent.path}: ')}") from None
    except TimeoutError:
        raise RoamlabError(
            f"{agent.name}: no answer within {_TIMEOUT_S:g} s: its process hangs or has very much to do"
        ) from None
    except OSError as error:
        raise RoamlabError(
            f"{agent.name}: {error.strerror or error}: has it just ended? `roamlab ctl` lists what runs"
        ) from None


def tables(agent: AgentSocket, command: str, reply: dict[str, Any]) -> list[RenderableType]:
    """An answer for people: what the agent says of itself now. `handover` and `signal` answer with what they have done."""
    if command == "signal":
        return [json.dumps(reply)]
    status = reply if command == "status" else ask(agent, {"cmd": "status"})
    sample = Sample(agent, 0.0, status)
    more = unsaid([sample], "bindings")
    parts: list[RenderableType] = [bindings_table(bindings(agent.name, agent.role, status), None, more)]
    if command == "policy":
        parts.append(facts_table("flow policy", forwarding_lines(status)))
        parts += [Text(f"warning: {text}", style="yellow") for text in reply.get("warnings", ())]
    if command == "status":
        parts += [
            tunnels_table(tunnels(agent.name, sample, None), None, unsaid([sample], "tunnels"), rates=False),
            facts_table("forwarding", forwarding_lines(status)),
            facts_table("figures", facts(status)),
        ]
    return parts


def forwarding_lines(status: dict[str, Any]) -> list[tuple[str, str]]:
    """Which packets take which tunnel, for each home address: rules in their order, then the shares of the rest."""
    lines = []
    for row in status["forwarding"]:
        for rule in row["rules"]:
            lines.append((row["home_address"], f"{rule['selector'] or 'everything'} -> {rule['tunnel']}"))
        shares = ", ".join(f"{share['tunnel']} ({share['weight']})" for share in row["shares"])
        lines.append((row["home_address"], f"the rest, {row['balancing']} -> {shares or 'nowhere'}"))
    return lines
