"""Snakemake's graph of jobs: which jobs are due, and why a variant has no result.

No interface of Snakemake gives its graph or which jobs failed, so they are read from inside its own
object, ``workflow``, here alone.
"""

import re
from pathlib import Path
from typing import Any


def jobs_due(workflow: Any) -> list[str]:
    """The first output of each job that is to run; empty without a graph."""
    if (dag := getattr(workflow, "_dag", None)) is None:
        return []
    jobs = dag.needrun_jobs(exclude_finished=False)  # in a dry run all are finished in the end
    return [str(job.output[0]) for job in jobs if job.output]


def failures(workflow: Any, results: dict[str, str]) -> dict[str, str]:
    """By variant, why its result was not made, by the log of the job that failed.

    ``results`` maps each variant to its file.
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
