"""Compare all variants of an experiment: the comparison, and its table as Markdown and CSV."""

import argparse
import json
from pathlib import Path

from minillm_lab.command import run
from minillm_lab.files import write_text
from minillm_lab.records import read_record, write_record
from minillm_lab.report import table
from minillm_lab.report.comparison import compare
from minillm_lab.result import Result


def main(arguments: argparse.Namespace) -> None:
    read = [read_record(path, Result) for path in arguments.results]
    results = {r.variant: r for r in read}
    goal = float(arguments.precision.rstrip("%")) / 100 if arguments.precision else None
    peers = {path.stem: json.loads(path.read_bytes()) for path in arguments.peers}
    comparison = compare(results, arguments.baseline, arguments.experiment_command, goal, peers)
    write_text(arguments.markdown, table.markdown(comparison) + "\n")
    write_text(arguments.csv, table.csv_of(comparison))
    write_record(arguments.json, comparison)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, nargs="+", required=True)
    parser.add_argument("--baseline", required=True)
    parser.add_argument("--experiment-command", required=True, help="what made these results")
    parser.add_argument("--peers", type=Path, nargs="+", default=[], help="results/peer/*.json")
    parser.add_argument("--precision", help="the goal for decode ratios, as 2%%")
    parser.add_argument("--markdown", type=Path, required=True)
    parser.add_argument("--csv", type=Path, required=True)
    parser.add_argument("--json", type=Path, required=True)
    run(main, parser)
