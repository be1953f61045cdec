"""How fast captures become tables: `python -m tests.bench.analysis` (`make bench-analysis`).

Our reader, tshark, dpkt and scapy read the same capture of the kernel's MPTCP in one run: every contestant in a fresh process,
in turns, the file in the page cache. A second file holds the same packets ten times over. Medians are printed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.bench.capture import repeat, warm

PACKETS, TIMES = 200_000, 10
SAMPLE_S = 0.003
PYTHON = [sys.executable, "-m"]
TSHARK_FIELDS = """frame.time_epoch ip.src ip.dst tcp.srcport tcp.dstport tcp.seq_raw tcp.ack_raw tcp.flags
tcp.window_size_value tcp.len tcp.options.timestamp.tsval tcp.options.timestamp.tsecr tcp.options.sack_le
tcp.options.sack_re tcp.options.mptcp.subtype tcp.options.mptcp.rawdataack tcp.options.mptcp.rawdataseqno
tcp.options.mptcp.subflowseqno tcp.options.mptcp.datalvllen tcp.options.mptcp.sendkey tcp.options.mptcp.recvtok
tcp.options.mptcp.addrid tcp.options.mptcp.backup.flag""".split()  # noqa: SIM905
TUNED = """tcp.analyze_sequence_numbers:FALSE tcp.try_heuristic_first:FALSE tcp.desegment_tcp_streams:FALSE
tcp.calculate_timestamps:FALSE tcp.track_bytes_in_flight:FALSE tcp.relative_sequence_numbers:FALSE
mptcp.analyze_mptcp:FALSE mptcp.relative_sequence_numbers:FALSE""".split()  # noqa: SIM905


@dataclass(frozen=True)
class Contestant:
    """One program: how to start it, what it is called, how often it runs on the small and on the large file."""

    name: str
    label: str
    words: tuple[str, ...]
    rounds: tuple[int, int] = (5, 5)


def contestants(scratch: Path) -> list[Contestant]:
    tshark = ["tshark", "-n", "-T", "fields", "-d", "tcp.port==5001,data"]
    tshark += [word for preference in TUNED for word in ("-o", preference)]
    tshark += [word for name in TSHARK_FIELDS for word in ("-e", name)]
    own = (*PYTHON, "tests.bench.contestants")
    parquet = (*PYTHON, "analysis", "analyse", "FILE", "--parquet", str(scratch / "packets.parquet"))
    return [
        Contestant("tshark", "tshark -T fields, tuned", (*tshark, "-r", "FILE"), (5, 3)),
        Contestant("scapy", "scapy PcapReader", (*own, "scapy", "FILE"), (5, 1)),
        Contestant("dpkt", "dpkt", (*own, "dpkt", "FILE"), (5, 1)),
        Contestant("parse", "ours: table", (*own, "parse", "FILE")),
        Contestant("parse-again", "ours: table, second time in a process", (*own, "parse-again", "FILE")),
        Contestant("parquet", "ours: --parquet", parquet),
        Contestant("reconstruction", "ours: table and reconstruction", (*own, "reconstruction", "FILE")),
    ]


@dataclass
class Outcome:
    """What one run of a contestant took. Bytes are peaks of sampled values."""

    wall_s: float
    cpu_s: float
    rss_bytes: int
    anonymous_bytes: int
    told: dict[str, float] = field(default_factory=dict)


def _memory(pid: int) -> tuple[int, int]:
    """Resident bytes of a process, and those that no file backs."""
    found = {}
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name in ("VmRSS", "RssAnon"):
            found[name] = int(rest.split()[0]) * 1024
    return found.get("VmRSS", 0), found.get("RssAnon", 0)


def measure(words: list[str]) -> Outcome:
    """Run a program to its end. Raises CalledProcessError."""
    peaks = [0, 0]
    with tempfile.TemporaryFile() as errors:
        begun = time.perf_counter()
        sink = subprocess.DEVNULL if words[0] == "tshark" else subprocess.PIPE
        process = subprocess.Popen(words, stdout=sink, stderr=errors)
        ended = threading.Event()

        def watch() -> None:
            while not ended.wait(SAMPLE_S):
                try:
                    now = _memory(process.pid)
                except OSError:
                    return
                peaks[:] = [max(pair) for pair in zip(peaks, now, strict=True)]

        watcher = threading.Thread(target=watch)
        watcher.start()
        output = process.stdout.read() if process.stdout else b""
        _, status, usage = os.wait4(process.pid, 0)
        wall_s = time.perf_counter() - begun
        process.returncode = os.waitstatus_to_exitcode(status)
        ended.set()
        watcher.join()
        if process.returncode:
            errors.seek(0)
            raise RuntimeError(f"{' '.join(words)}: {errors.read().decode(errors='replace')[-500:]}")
    told = json.loads(output) if output.startswith(b"{") else {}
    return Outcome(wall_s, usage.ru_utime + usage.ru_stime, max(usage.ru_maxrss * 1024, peaks[0]), peaks[1], told)


def rounds(file: Path, which: int, runners: list[Contestant], most: int) -> dict[str, list[Outcome]]:
    """All contestants in turns, so that a slow minute of the machine hits all of them."""
    warm(file)
    found: dict[str, list[Outcome]] = defaultdict(list)
    for number in range(most):
        for runner in runners:
            if number < min(runner.rounds[which], most):
                outcome = measure([str(file) if word == "FILE" else word for word in runner.words])
                found[runner.name].append(outcome)
                print(f"  {file.name}: {runner.label}: {outcome.wall_s:.2f} s", file=sys.stderr, flush=True)
    return found


def medians(outcomes: dict[str, list[Outcome]], packets: int) -> dict[str, dict[str, Any]]:
    """Per contestant: medians, rates, ratios to tshark and scapy."""
    result: dict[str, dict[str, Any]] = {}
    for name, runs in outcomes.items():
        wall_s = statistics.median(run.wall_s for run in runs)
        inside = [run.told["inside_s"] for run in runs if "inside_s" in run.told]
        result[name] = {
            "runs": len(runs), "wall_s": wall_s, "wall_least_s": min(run.wall_s for run in runs),
            "wall_most_s": max(run.wall_s for run in runs), "packets_per_s": packets / wall_s,
            "inside_s": statistics.median(inside) if inside else None,
            "cpu_s": statistics.median(run.cpu_s for run in runs),
            "peak_rss_bytes": max(run.rss_bytes for run in runs),
            "peak_anonymous_bytes": max(run.anonymous_bytes for run in runs),
            "table_bytes": runs[0].told.get("table_bytes"),
        }  # fmt: skip
        told = runs[0].told.get("packets", packets)
        # The last packets of the capture program itself are UDP, which dpkt and scapy leave out.
        if not packets - 0.001 * packets <= told <= packets:
            raise RuntimeError(f"{name} has {told} packets of {packets}")
    for row in result.values():
        for other in ("tshark", "scapy"):
            if other in result:
                row[f"times_{other}"] = result[other]["wall_s"] / row["wall_s"]
                row[f"cpu_times_{other}"] = result[other]["cpu_s"] / row["cpu_s"]
                if row["inside_s"]:
                    row[f"inside_times_{other}"] = result[other]["wall_s"] / row["inside_s"]
    return result


def captures(folder: Path) -> tuple[Path, Path, int]:
    """The small and the large capture, made when they are not there, and the number of packets of the small one."""
    folder.mkdir(parents=True, exist_ok=True)
    small, large, note = folder / "mptcp.pcapng", folder / f"mptcp-{TIMES}.pcapng", folder / "packets.json"
    if not (small.exists() and note.exists()):
        print(f"making {small}", file=sys.stderr, flush=True)
        subprocess.run([*PYTHON, "tests.bench.capture", str(small), str(PACKETS)], check=True)
        large.unlink(missing_ok=True)
    if not large.exists():
        count = repeat(small, large, TIMES) // TIMES
        note.write_text(json.dumps({"packets": count}))
    count = json.loads(note.read_text())["packets"]
    if count < PACKETS:
        raise RuntimeError(f"{small} has {count} packets only: remove it")
    return small, large, count


def machine() -> dict[str, str]:
    """What the numbers were measured on and with."""
    model = [line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line]
    from importlib.metadata import version

    tshark = "tshark " + subprocess.run(["tshark", "--version"], capture_output=True, text=True).stdout.split()[2]
    names = ("numpy", "numba", "pyarrow", "dpkt", "scapy")
    return {
        "processor": f"{os.cpu_count()} x {model[0] if model else platform.machine()}",
        "kernel": platform.release(),
        "programs": ", ".join([tshark, f"Python {platform.python_version()}", *(f"{n} {version(n)}" for n in names)]),
        "load": f"{os.getloadavg()[0]:.1f}",
    }


def _megabytes(value: float | None) -> str:
    return f"{value / 1e6:,.0f}" if value else ""


def _times(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


HEADINGS = (
    "program", "runs", "s (least - most)", "packets/s", "x tshark", "x scapy", "inside, s", "x tshark", "CPU, s", "x tshark",
    "peak RSS, MB", "without file pages, MB", "table, MB",
)  # fmt: skip


def table_lines(result: dict[str, dict[str, Any]], labels: dict[str, str]) -> list[str]:
    """A Markdown table of the results on one file."""
    lines = ["| " + " | ".join(HEADINGS) + " |", "|---" + "|--:" * (len(HEADINGS) - 1) + "|"]
    for name, row in result.items():
        cells = [
            labels[name], row["runs"], f"{row['wall_s']:.2f} ({row['wall_least_s']:.2f} - {row['wall_most_s']:.2f})",
            f"{row['packets_per_s']:,.0f}", _times(row.get("times_tshark")), _times(row.get("times_scapy")),
            f"{row['inside_s']:.2f}" if row["inside_s"] else "", _times(row.get("inside_times_tshark")),
            f"{row['cpu_s']:.2f}", _times(row.get("cpu_times_tshark")), _megabytes(row["peak_rss_bytes"]),
            _megabytes(row["peak_anonymous_bytes"]), _megabytes(row["table_bytes"]),
        ]  # fmt: skip
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return lines


def linearity(results: dict[str, Any]) -> dict[str, float]:
    """Seconds per packet on the large file over those on the small one; 1 is linear. Without the start where it is known."""
    small, large = results["small"], results["large"]
    found = {}
    for name in small["programs"]:
        if name in large["programs"]:
            rates = []
            for part in (small, large):
                row = part["programs"][name]
                rates.append((row["inside_s"] or row["wall_s"]) / part["packets"])
            found[name] = rates[1] / rates[0]
    return found


def markdown(results: dict[str, Any], labels: dict[str, str]) -> str:
    """The page for docs/results."""
    m = results["machine"]
    lines = [
        "# How fast captures become tables", "",
        "Written by `make bench-analysis MARKDOWN=docs/results/analysis-bench.md`. Wall-clock medians of whole processes; the",
        "contestants ran in turns with the file in the page cache and numba's kernels compiled before.", "",
        f"Machine: {m['processor']}, Linux {m['kernel']}, load average {m['load']} before the start. {m['programs']}.", "",
    ]  # fmt: skip
    for key, title in (("small", "one capture"), ("large", f"the same packets {TIMES} times over, as other connections")):
        if key in results:
            part = results[key]
            lines += [f"## {part['packets']:,} MPTCP packets, {part['file_bytes'] / 1e6:.0f} MB: {title}", ""]
            lines += [*table_lines(part["programs"], labels), ""]
    if "linearity" in results:
        lines += [
            "## Linearity",
            "",
            "Time per packet on the large file over that on the small one (inside where it is known):",
            "",
        ]
        lines += [f"* {labels[name]}: {value:.2f}" for name, value in results["linearity"].items()]
        lines.append("")
    lines += [
        "## How it was measured", "",
        "* The capture is the kernel's own: MPTCP over two paths, captured by dumpcap on both interfaces of the client, 128",
        "  bytes of each packet. All programs extract time, addresses, ports, sequence and acknowledgment numbers, flags,",
        "  window, payload length, timestamps, SACK blocks and MPTCP fields. tshark runs without sequence and MPTCP analysis,",
        "  without guessing at the payload, and writes to /dev/null; dpkt and scapy keep a list of tuples.",
        "* `inside`: seconds without starting Python and importing. `second time in a process`: what a notebook sees.",
        "* `CPU`: user and system time of the process; on a busy machine it says more than the clock on the wall.",
        "* Peak RSS is the kernel's high-water mark. `Without file pages` is the peak of RssAnon, sampled every",
        f"  {SAMPLE_S * 1e3:.0f} ms: a mapped capture counts in the first, not in the second: its pages are the page cache's.",
        "  Both are the largest of all runs and hold the interpreter and the libraries. `Table`: size of the result.",
        "* `runs` says where fewer than five were done because one takes minutes.",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "roamlab" / "bench"
    parser.add_argument("--cache", type=Path, default=home, help="folder for the captures (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each (default 5; slow ones on the large file fewer)")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="only these contestants")
    parser.add_argument("--small", action="store_true", help="leave the large file out")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of tables")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the page")
    options = parser.parse_args()
    small, large, count = captures(options.cache)
    with tempfile.TemporaryDirectory() as scratch:
        runners = [c for c in contestants(Path(scratch)) if not options.only or c.name in options.only]
        labels = {c.name: c.label for c in runners}
        results: dict[str, Any] = {"machine": machine()}
        subprocess.run([*PYTHON, "tests.bench.contestants", "reconstruction", str(small)], check=True, capture_output=True)
        parts = [("small", small, count)] + ([] if options.small else [("large", large, count * TIMES)])
        for index, (key, file, packets) in enumerate(parts):
            outcomes = rounds(file, index, runners, options.rounds)
            results[key] = {"packets": packets, "file_bytes": file.stat().st_size, "programs": medians(outcomes, packets)}
    if not options.small:
        results["linearity"] = linearity(results)
    page = markdown(results, labels)
    print(json.dumps(results, indent=1) if options.json else page)
    if options.markdown:
        options.markdown.write_text(page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
