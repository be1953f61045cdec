"""Command line: `python -m analysis analyse FILE...`, `metrics RUN_DIR...`, `report CAMPAIGN.json`,
`repeatability CAMPAIGN.json CAMPAIGN.json`.

Exit codes: 0 done, 1 a claim does not hold, a run failed or a capture is damaged, 2 the input is unusable.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

_ANALYSE = """What do these captures hold? Reads any pcap or pcapng, also packed by gzip or zstd.

Without options a summary is printed: connections, subflows, losses, what is odd.
Several files are taken as interfaces of one host when they show different packets,
as several capture points on a path when they show the same ones."""
_ANALYSE_MORE = """examples:
  roamlab analyse wlan.pcapng lte.pcapng           the two interfaces of a host
  roamlab analyse results/outage/20261121-*/       a finished run
  roamlab analyse big.pcap.gz --parquet big.parquet   for pandas, polars, DuckDB ...
  roamlab analyse client.pcap server.pcap --html report.html
  roamlab analyse trace.pcap --json | jq '.connections[].subflows'

exit code: 0; 1 a capture is damaged (it is read as far as it goes); 2 a file cannot be used"""


def parser(program: str) -> argparse.ArgumentParser:
    """The command line of this package."""
    top = argparse.ArgumentParser(prog=program, description="Captures and run directories to tables, metrics and reports.")
    commands = top.add_subparsers(dest="command", required=True)
    metrics = commands.add_parser("metrics", help="compute metrics.json of runs, print one JSON line per run")
    metrics.add_argument("runs", nargs="+", type=Path, metavar="RUN_DIR")
    report = commands.add_parser("report", help="judge a campaign's claims and write its report")
    report.add_argument("campaign", type=Path, metavar="CAMPAIGN.json")
    report.add_argument("--out", type=Path, metavar="FILE.html", help="where to write the report (default: beside it)")
    report.add_argument("--json", action="store_true", help="print one JSON document instead of tables")
    report.add_argument("--refresh", action="store_true", help="compute metrics again that exist already")
    claims = commands.add_parser("claims", help="write a page with the verdicts of campaigns, claim by claim")
    claims.add_argument("campaigns", nargs="+", type=Path, metavar="CAMPAIGN.json")
    claims.add_argument("--output", type=Path, required=True, metavar="FILE.md", help="the page; figures in a folder beside it")
    claims.add_argument("--title", default="", help="heading of the page")
    claims.add_argument("--refresh", action="store_true", help="compute metrics again that exist already")
    repeat = commands.add_parser("repeatability", help="the spread of each metric in two campaigns, side by side")
    repeat.add_argument("campaigns", nargs=2, type=Path, metavar="CAMPAIGN.json", help="native runs, and runs in the guest")
    repeat.add_argument("--markdown", type=Path, metavar="FILE", help="write the table as a page")
    repeat.add_argument("--json", action="store_true", help="print one JSON document instead of a table")
    repeat.add_argument("--all-metrics", action="store_true", help="show every metric, not only the main ones")
    repeat.add_argument("--refresh", action="store_true", help="compute metrics again that exist already")
    analyse = commands.add_parser(
        "analyse", help="what captures hold", description=_ANALYSE, epilog=_ANALYSE_MORE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    analyse.add_argument("files", nargs="+", type=Path, metavar="FILE", help="captures, or the folder of a run")
    analyse.add_argument("--json", action="store_true", help="print one JSON document instead of tables")
    analyse.add_argument("--html", type=Path, metavar="OUT", help="write a page with figures that can be zoomed")
    analyse.add_argument(
        "--parquet", type=Path, metavar="OUT", help="write the packets, one row each; alone: nothing else is done"
    )
    analyse.add_argument(
        "--tables", type=Path, metavar="FOLDER", help="write flows, connections, segments, ... as Parquet files"
    )
    analyse.add_argument("--host", metavar="ADDRESS", help="only packets from or to this address")
    analyse.add_argument("--port", type=int, metavar="N", help="only packets from or to this port")
    analyse.add_argument(
        "--points", choices=("auto", "one", "files"), default="auto",
        help="where was captured: guess (auto), all files at one host, or every file at another point of the path",
    )  # fmt: skip
    analyse.add_argument("--connections", type=int, default=10, metavar="N", help="show the N largest connections (default 10)")
    return top


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    from analysis.files import printable

    program = os.environ.get("ROAMLAB_PROGRAM", "python -m analysis")
    options = parser(program).parse_args(arguments)
    try:
        if options.command == "analyse":
            from analysis.commands.analyse import analyse

            return analyse(options)
        from analysis.rundir import InputError

        try:
            if options.command == "metrics":
                from analysis.commands.metrics import metrics

                return metrics(options.runs)
            if options.command == "claims":
                from analysis.commands.claims import claims

                return claims(options.campaigns, options.output, options.title, options.refresh)
            if options.command == "repeatability":
                from analysis.commands.repeatability import repeatability

                first, second = options.campaigns
                return repeatability((first, second), options.markdown, options.json, options.all_metrics, options.refresh)
            from analysis.commands.report import report

            return report(options.campaign, options.out, options.json, options.refresh)
        except InputError as error:
            print(error, file=sys.stderr)
            return 2
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    except OSError as error:
        print(printable(f"{error.filename or 'standard output'}: {error.strerror or error}"), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; nothing unfinished is left", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
