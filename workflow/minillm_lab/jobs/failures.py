"""Failures of a run: why a variant has no result, by the log of the job that failed."""

import re
from pathlib import Path
from typing import Any


def failures(workflow: Any, results: dict[str, str]) -> dict[str, str]:
    """By variant, why its result was not made; ``results`` maps each variant to its file.

    ``workflow`` is Snakemake's own object. No interface of Snakemake gives its graph of jobs and
    which of them failed, so they are read from inside it, here alone.
    """
    dag, failed = workflow.dag, workflow.scheduler.failed

    def first_failed(job: Any) -> Any:
        """The failed job that ``job`` waited for, or ``job`` itself; None if neither failed."""
        if job is None or job in failed:
            return job
        waited_for = map(first_failed, dag.dependencies[job])
        return next((other for other in waited_for if other is not None), None)

    makers = {str(output): job for job in dag.jobs for output in job.output}
    if not any(job.rule.name == "compare" for job in dag.jobs):
        return {}
    found = {variant: first_failed(makers.get(path)) for variant, path in results.items()}
    return {
        variant: f"{job.rule.name}: {reason(Path(job.log[0]))}"
        for variant, job in found.items()
        if job is not None
    }


def reason(log: Path) -> str:
    """The last error in a log; where it has none, a pointer to the log."""
    try:
        errors = re.findall(r"^[\d :,-]*error: (.+)", log.read_text("utf-8", "replace"), re.M)
    except OSError:
        errors = []
    return errors[-1] if errors else f"it gave no reason; read {log}"
