"""A calibration as text: cells of tables, and the page in Markdown. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from experiments.calibration.compare import BACKENDS, compare, largest, state_of
from experiments.guest.supervise import CPU_LIMIT

COLUMNS = ("quantity", "direction", "asked", "measured", "unit", "error", "target", "")
PAIR_COLUMNS = (
    "quantity", "direction", "unit", "asked", "target", "userspace", "error", "CPU", "netem", "error", "CPU", "difference", "",
)  # fmt: skip

SHORT_PAIR_COLUMNS = ("quantity", "direction", "asked", "unit", "userspace", "netem", "difference", "")

_HEAD = (
    "Measured from packet timestamps at both ends. `asked` is the profile, or for TCP goodput the ideal: the share of the",
    "rate that is left after all headers; rates count Ethernet frames without their check sequence.",
)
_TARGETS = (
    "Targets, the same natively and in guests: one-way delay ± 100 us (p50) and ± 500 us (p99 of the error's size);",
    "TCP goodput ± 1 %; queue ± 1 packet; loss, length of bursts and jitter ± 4.5 standard deviations of what chance makes",
    "of so many packets, for jitter + 100 us. The backends may differ from each other by as much, where chance is in it by √2",
    "as much.",
)


def number(value: float | None, form: str = ".6g") -> str:
    """A value, or a dash where there is none."""
    return "–" if value is None else format(value, form)


def rows(result: Mapping[str, Any], *, in_guest: bool) -> list[list[str]]:
    """Cells under COLUMNS; the last one is ok, missed, cpu-limited, or why it failed."""
    return [
        [row["quantity"], row["direction"], number(row["asked"]), number(row["measured"]), row["unit"],
         number(row["error"], "+.4g"), _target(row["target"]), row.get("why") or state_of(row, in_guest=in_guest)]
        for row in result["rows"]
    ]  # fmt: skip


def pair_rows(comparison: Mapping[str, Any]) -> list[list[str]]:
    """Cells under PAIR_COLUMNS; the last one says what is not ok."""
    return [
        [row["quantity"], row["direction"], row["unit"], number(row["asked"]), _target(row["target"]),
         *_side(row["userspace"]), *_side(row["netem"]), number(row["difference"], "+.4g"), _verdict(row)]
        for row in comparison["rows"]
    ]  # fmt: skip


def short_pair_rows(comparison: Mapping[str, Any]) -> list[list[str]]:
    """Cells under SHORT_PAIR_COLUMNS, for a terminal: of both backends the error."""
    return [
        [row["quantity"], row["direction"], number(row["asked"]), row["unit"],
         *(number(row[backend]["error"], "+.4g") for backend in BACKENDS), number(row["difference"], "+.4g"), _verdict(row)]
        for row in comparison["rows"]
    ]  # fmt: skip


def _target(value: float | None) -> str:
    return "" if value is None else f"± {value:.4g}"


def _side(side: Mapping[str, Any]) -> list[str]:
    return [number(side["measured"]), number(side["error"], "+.4g"), number(side["cpu_busy"], ".0%")]


def _verdict(row: Mapping[str, Any]) -> str:
    """What is wrong on a side, what a pair does; `ok` when nothing is."""
    words = [
        f"{backend}: {row[backend]['why'] or row[backend]['state']}"
        for backend in BACKENDS
        if row[backend]["state"] not in ("ok", "no target")
    ]
    if row["state"] == "differs":
        words.append("differs")
    return ", ".join(words) or row["state"]


def summary_rows(comparisons: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """One row for each quantity: the largest error of each backend and the largest difference, and where."""
    return [
        [entry["quantity"], entry["unit"], *(_largest_cell(entry.get(name)) for name in (*BACKENDS, "difference"))]
        for entry in largest(comparisons)
    ]


def _largest_cell(entry: Mapping[str, Any] | None) -> str:
    return (
        "not judged" if entry is None else f"{entry['value']:+.4g} ({entry['of_target']:.0%} of its target, {entry['profile']})"
    )


def _table(columns: Sequence[str], cells: Sequence[Sequence[str]], words: int) -> list[str]:
    """A Markdown table whose first columns hold words and whose last holds a verdict."""
    rule = "".join("---|" if index < words or not name else "--:|" for index, name in enumerate(columns))
    lines = ["| " + " | ".join(columns) + " |", "|" + rule]
    return lines + ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in cells]


def page(document: Mapping[str, Any], command: str) -> str:
    """The page about a calibration (see `roamlab calibrate --json` for the document)."""
    guest, machine = document["guest"], document["machine"]
    where = f"Linux {machine['kernel']}, {machine['machine']}"
    title = "# Calibration of the link emulation"
    lines = [title + (" in the guest" if guest else ""), "", f"Made by `{command}` on {where}."]
    if guest:
        lines.append(f"The guest: {guest['flavour']}, QEMU {guest['qemu']}, {guest['memory_mib']} MiB.")
    lines += [*_HEAD, "", *_TARGETS]
    if guest:
        lines += ["", *_guest_words(document)]
    lines += [f"\n{name}: unsupported: {why}" for name, why in document["unsupported"].items()]
    comparisons = compare(document["results"], in_guest=guest is not None)
    if comparisons:
        lines += ["", "## Largest errors and differences", "", "Of the measurements that are judged.", ""]
        lines += _table(("quantity", "unit", *BACKENDS, "difference"), summary_rows(comparisons), 5)
    compared = {(item["kind"], item["profile"]) for item in comparisons}
    for item in comparisons:
        lines += ["", f"## {item['profile']}: {item['label']}", "", *_table(PAIR_COLUMNS, pair_rows(item), 3)]
    for result in document["results"]:
        if (result["kind"], result["profile"]) not in compared:
            title = f"## {result['profile']}: {result['label']} ({result['backend']})"
            lines += ["", title, "", *_table(COLUMNS, rows(result, in_guest=guest is not None), 2)]
    return "\n".join(lines) + "\n"


def _guest_words(document: Mapping[str, Any]) -> list[str]:
    """What is different in a guest, and how long it took."""
    effort = document["effort"]
    times = [result["guest"] for result in document["results"] if "wall_s" in result.get("guest", {})]
    guest_s, wall_s = (sum(time[name] for time in times) for name in ("guest_s", "wall_s"))
    return [
        "Every profile and backend has a boot of its own. The guest's CPU carries fewer packets than a real one: delay is",
        f"measured with {effort['delay_packets_per_s']:g} packets/s, loss with {effort['loss_packets']:,} packets at",
        f"{effort['loss_packets_per_s']:g} packets/s. `CPU` is the busy share of the guest's CPU meanwhile; above "
        f"{CPU_LIMIT:.0%} a measurement",
        "is `cpu-limited` and not judged: it may show the speed of the emulated CPU.",
        "For the queue no share is given: its packets are sent as fast as the CPU can.",
        f"{len(times)} boots: {guest_s:.0f} s of guest time in {wall_s:.0f} s of wall time, summed over boots.",
    ]  # fmt: skip
