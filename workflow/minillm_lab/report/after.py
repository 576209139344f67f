"""The commands that close a run: what to take after it, or the table of what did not fail."""

import json
import shlex

from minillm_lab.experiment.for_others import shareable
from minillm_lab.experiment.plan import Plan


def every_result(plan: Plan) -> dict[str, str]:
    """The result of each variant, by its name."""
    return {variant: f"{plan.results}/{variant}.json" for variant in plan.experiment.variants}


def page_of(plan: Plan) -> list[str]:
    return ["--page", plan.experiment.readme] if plan.experiment.readme else []


def after_success(plan: Plan) -> str:
    """The command that says what to take, where all results are there and compared."""
    module = ("python", "-m", "minillm_lab.report.closing")
    compared = ("--comparison", f"{plan.results}/comparison.json")
    return shlex.join(
        [*module, *compared, "--results", *every_result(plan).values(), *page_of(plan)]
    )


def after_failures(plan: Plan, reasons: dict[str, str], command: str) -> str:
    """The command that makes a table without the variants that failed; empty where none did.

    ``reasons``: why, by variant. ``command``: the one that makes these results.
    """
    if not reasons:
        return ""
    said = {name: (reason, shareable(plan.experiment, reason)) for name, reason in reasons.items()}
    made = [f"--{kind}={plan.results}/comparison.{kind}" for kind in ("json", "csv")]
    return shlex.join(
        [
            *("python", "-m", "minillm_lab.report.partial"),
            *("--results", *every_result(plan).values()),
            *("--failed", json.dumps(said), "--baseline", plan.experiment.baseline),
            *("--experiment-command", command, *page_of(plan), *made),
            *("--markdown", f"{plan.results}/comparison.md"),
            *("--log", f"{plan.results}/logs/failed.log"),
        ]
    )
