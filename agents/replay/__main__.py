"""python -m agents.replay replay | decisions: what the proxy's core makes of a capture, or what its event log says."""

import argparse
import ipaddress
import json
import os
import sys
from pathlib import Path
from typing import Any

from agents.config import ConfigError
from agents.core.proxy.config import ProxyConfig
from agents.core.proxy.signalling import decoded
from agents.kernel.proxy.configuration import read_config
from agents.replay import decisions
from agents.replay.captures import CaptureError, Packet, read
from agents.replay.engine import Comparison, Emitted, Outcome, Replay
from agents.replay.recording import RecordingError, segment_of
from agents.wire import mptcp, tcp

SAME, DIFFERENT, UNUSABLE = 0, 1, 2
_FLAGS = ((tcp.SYN, "SYN"), (tcp.FIN, "FIN"), (tcp.RST, "RST"), (tcp.PSH, "PSH"), (tcp.ACK, "ACK"))
_SHOWN = 10


def address(text: str) -> bytes:
    """An argument that is an address."""
    try:
        return ipaddress.ip_address(text).packed
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no address") from None


def parser() -> argparse.ArgumentParser:
    """The command line."""
    program = "roamlab proxy" if os.environ.get("ROAMLAB_PROGRAM") else "python -m agents.replay"
    top = argparse.ArgumentParser(prog=program, description="The lightweight MPTCP proxy without a network.")
    commands = top.add_subparsers(dest="command", required=True, metavar="replay | decisions")
    replay = commands.add_parser(
        "replay",
        help="feed the core with captures",
        description="Feeds the core with the packets of captures, prints its decisions, and compares what it emits with what "
        "the captures hold. Exit code: 0 no difference, 1 differences or a defect, 2 captures that cannot be used.",
        epilog="The captures of one host's network interfaces are enough: the segments of its TCP are then made from what "
        "left. With --inner they are taken from a capture between TCP and proxy.",
    )
    replay.add_argument("outer", nargs="+", type=Path, metavar="PCAP", help="network side: every interface of the host")
    replay.add_argument("--inner", type=Path, action="append", metavar="PCAP", help="between the host's TCP and the proxy")
    replay.add_argument("--role", choices=("client", "server"), default="client", help="of this host (default: %(default)s)")
    replay.add_argument("--host", type=address, action="append", default=[], metavar="ADDRESS",
                        help="of this host; without: told by the handshakes")  # fmt: skip
    replay.add_argument("--config", type=Path, metavar="TOML", help="the agent's configuration; without: what the packets show")
    replay.add_argument("--until", type=float, metavar="SECONDS", help="from the first packet")
    replay.add_argument("--seed", type=int, default=0, help="of random numbers that the capture does not show")
    replay.add_argument("--packets", action="store_true", help="print every packet that the proxy emits")
    replay.add_argument("--json", action="store_true", help="one JSON document")
    told = commands.add_parser(
        "decisions",
        help="the mapping tables, from the event log",
        description="Builds the SEND table of every connection and the RECV table of every subflow again from the agent's "
        "event log.",
    )
    told.add_argument("log", type=Path, metavar="EVENTS.jsonl")
    told.add_argument(
        "--at", type=float, metavar="SECONDS", help="the tables at this time from the first event (default: the last)"
    )
    told.add_argument("--events", action="store_true", help="print the events as well")
    told.add_argument("--json", action="store_true", help="one JSON document")
    return top


def main(arguments: list[str] | None = None) -> int:
    """Run a command; one line on standard error and 2 for what cannot be used."""
    chosen = parser().parse_args(arguments)
    try:
        return _decisions(chosen) if chosen.command == "decisions" else _replay(chosen)
    except (CaptureError, RecordingError, ConfigError, decisions.LogError) as error:
        print(f"roamlab: {error}", file=sys.stderr)
    except OSError as error:
        print(f"roamlab: {error.filename or 'output'}: {error.strerror}", file=sys.stderr)
    return UNUSABLE


# -- replay -----------------------------------------------------------------------------------------------------------


def _replay(chosen: argparse.Namespace) -> int:
    config: ProxyConfig | None = read_config(str(chosen.config)).proxy if chosen.config else None
    outer: list[Packet] = [packet for path in chosen.outer for packet in read(path)]
    inner = [packet for path in chosen.inner for packet in read(path)] if chosen.inner else None
    made = Replay(outer, inner, role=chosen.role, hosts=chosen.host, config=config, seed=chosen.seed)
    outcome = made.run(chosen.until)
    if chosen.json:
        print(json.dumps(document(outcome), indent=1))
    else:
        _print_replay(outcome, packets=chosen.packets)
    return SAME if outcome.same else DIFFERENT


def document(outcome: Outcome) -> dict[str, Any]:
    """For programs."""
    return {
        "same": outcome.same,
        "inbound": outcome.inbound,
        "outbound": outcome.outbound,
        "emitted": {side: sum(towards == side for _at, towards, _packet in outcome.emitted) for side in ("network", "host")},
        "network": _compared(outcome.network),
        "host": None if outcome.host is None else _compared(outcome.host),
        "decisions": [{"at_s": round(at, 9), "event": log.event, **log.fields} for at, log in outcome.decisions],
        "defects": [{"at_s": round(at, 9), "what": what} for at, what in outcome.defects],
        "connections": outcome.connections,
        "counters": outcome.status.get("counters", {}),
    }


def _compared(side: Comparison) -> dict[str, Any]:
    def rows(items: list[Emitted]) -> list[dict[str, Any]]:
        return [{"at_s": round(item.time_s, 9), "packet": describe(item.packet), "hex": item.packet.hex()} for item in items]

    return {"same": side.same, "alike": side.alike, "missing": rows(side.missing), "more": rows(side.more)}


def _print_replay(outcome: Outcome, *, packets: bool) -> None:
    rows: list[tuple[float, str]] = [(at, f"{log.event:<14}{_fields(log.fields)}") for at, log in outcome.decisions]
    rows += [(at, f"DEFECT        {what}") for at, what in outcome.defects]
    if packets:
        rows += [(at, f"to {towards:<11}{describe(packet)}") for at, towards, packet in outcome.emitted]
    for at, line in sorted(rows, key=lambda row: row[0]):
        print(f"{at:12.6f}  {line}")
    print(f"\n{outcome.outbound} packets of the host, {outcome.inbound} of the network; {len(outcome.emitted)} emitted")
    for name, side in (("network", outcome.network), ("host", outcome.host)):
        if side is None:
            continue
        print(f"towards the {name}: {side.same} as in the capture, {side.alike} but for timestamps, "
              f"{len(side.missing)} missing, {len(side.more)} more")  # fmt: skip
        for what, items in (("missing", side.missing), ("more", side.more)):
            for item in items[:_SHOWN]:
                print(f"{item.time_s:12.6f}  {what:<8} {describe(item.packet)}")
            if len(items) > _SHOWN:
                print(f"{'':14}{what:<8} ... {len(items) - _SHOWN} further")


def describe(packet: bytes) -> str:
    """A packet in one line; sequence numbers as on the wire."""
    segment = segment_of(packet)
    if segment is None:
        return f"{len(packet)} bytes, protocol {packet[9] if packet[0] >> 4 == 4 else packet[6]}"
    ends = " > ".join(
        f"{ipaddress.ip_address(host)} {port}"
        for host, port in ((segment.source, segment.source_port), (segment.destination, segment.destination_port))
    )
    words = [ends, " ".join(name for bit, name in _FLAGS if segment.flags & bit) or "-", f"seq {segment.seq}"]
    if segment.flags & tcp.ACK:
        words.append(f"ack {segment.ack}")
    words += [f"win {segment.window}", f"len {segment.payload_length}"]
    words += [f"sack {left}-{right}" for left, right in segment.sack]
    if segment.dss is not None:
        words.append("dss" + _dss(segment.dss))
    words += [f"{type(option).__name__.lower()}" for option in decoded(segment)]
    return ", ".join(words)


def _dss(dss: mptcp.Dss) -> str:
    text = f" ack {dss.ack}" if dss.ack is not None else ""
    if dss.dsn is not None:
        text += f" dsn {dss.dsn} ssn {dss.ssn} length {dss.length}"
    return text + (" fin" if dss.fin else "")


def _fields(fields: dict[str, Any]) -> str:
    return "  ".join(f"{name}={value}" for name, value in fields.items())


# -- decisions --------------------------------------------------------------------------------------------------------


def _decisions(chosen: argparse.Namespace) -> int:
    rows = decisions.read(chosen.log)
    tables = decisions.tables_of(rows, chosen.at)
    if chosen.json:
        print(json.dumps({"at_s": tables.last_s, "events": tables.lines, "connections": tables.to_json()}, indent=1))
        return SAME
    if chosen.events:
        for row in rows[: tables.lines]:
            fields = {
                name: value for name, value in row.items() if name not in ("mono_ns", "wall_ns", "agent", "event", "at_s")
            }
            print(f"{row['at_s']:12.6f}  {row['event']:<14}{_fields(fields)}")
        print()
    print(f"after {tables.lines} events, at {tables.last_s:.6f} s; offsets: the first byte is 1")
    for connection in tables.to_json():
        print(f"\nconnection {connection['connection']}: {connection['state']}, active subflow {connection['active']}")
        for entry in connection["send"]:
            print(f"  SEND  t {entry['start']:>12} - {_until(entry['end']):<12} subflow {entry['subflow']}, s {entry['ssn']}")
        for item in connection["subflows"]:
            print(f"  subflow {item['subflow']}: {item['state']}  {item['local']} {item['remote']}".rstrip())
            for entry in item["received"]:
                print(f"  RECV  s {entry['ssn']:>12} - {_until(entry['end']):<12} t {entry['dsn']}")
    if not tables.connections:
        print("no event of a connection")
    return SAME


def _until(end: int | None) -> str:
    return "..." if end is None else str(end)


if __name__ == "__main__":
    sys.exit(main())
