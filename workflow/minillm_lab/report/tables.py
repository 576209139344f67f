"""The comparison as tables: ``results/comparison.md`` for people, ``.csv`` for programs."""

import argparse
import csv
import io
from pathlib import Path

from minillm_lab.comparison.shapes import Comparison
from minillm_lab.jobs.command import run
from minillm_lab.jobs.files import write_text
from minillm_lab.records import read_record
from minillm_lab.report import quality
from minillm_lab.report.legend import failed_lines, legend
from minillm_lab.report.table import drawn, rows


def markdown(comparison: Comparison) -> str:
    """The Markdown table with its legend: a variant a column up to six, else a variant a row.

    Figures of two machines never stand in one table: each machine has its own.
    """
    machines = list(dict.fromkeys(r.machine["fingerprint"] for r in comparison.results.values()))
    if not machines:
        return "\n".join(["No variant has a result.", "", *failed_lines(comparison)])
    if len(machines) == 1:
        return f"{drawn(with_failed(rows(comparison), comparison))}\n\n{legend(comparison)}"
    tables = [f"**Machine `{m}`**\n\n{drawn(rows(comparison, m))}" for m in machines]
    return "\n\n".join([*tables, legend(comparison)])


def with_failed(body: list[list[str]], comparison: Comparison) -> list[list[str]]:
    """The table with a column for each variant that failed, and nothing in it but that."""
    for name in comparison.failed:
        column = [name, "**failed**", *["–"] * (len(body) - 2)]
        body = [[*row, cell] for row, cell in zip(body, column, strict=True)]
    return body


def csv_of(comparison: Comparison) -> str:
    """One line per variant and metric: value, unit, interval, n, ratio to the baseline."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    columns = "variant metric value unit ci95_low ci95_high n ratio ratio_ci95_low ratio_ci95_high"
    writer.writerow(columns.split())
    for name, result in comparison.results.items():
        writer.writerow([name, "model_bytes", result.model.size, "B", "", "", 1, "", "", ""])
        writer.writerow(
            [name, "bits_per_weight", result.model.bits_per_weight, "bit", "", "", 1, "", "", ""]
        )
        for metric, m in result.metrics.items():
            ratio = comparison.ratios[name].get(metric)
            writer.writerow(
                [
                    name, metric, m.value, m.unit, *(m.ci95 or ("", "")), m.n,
                    ratio.value if ratio else "", *((ratio and ratio.ci95) or ("", "")),
                ]
            )  # fmt: skip
        writer.writerows(quality.csv_rows(name, result))
    for name, reason in comparison.failed.items():
        writer.writerow([name, "failed", reason, *[""] * 7])
    return out.getvalue()


def main(arguments: argparse.Namespace) -> None:
    comparison = read_record(arguments.comparison, Comparison)
    write_text(arguments.markdown, markdown(comparison) + "\n")
    write_text(arguments.csv, csv_of(comparison))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--comparison", type=Path, required=True, help="results/comparison.json")
    parser.add_argument("--markdown", type=Path, required=True)
    parser.add_argument("--csv", type=Path, required=True)
    run(main, parser)
