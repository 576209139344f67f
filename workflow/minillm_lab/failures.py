"""Why a run made no result of a variant: the reason that the failed job gave in its log."""

import re
from collections.abc import Collection
from pathlib import Path
from typing import Any


def failures(dag: Any, failed: Collection[Any], results: dict[str, str]) -> dict[str, str]:
    """By variant, why its result was not made; ``results`` names the result of each variant.

    ``dag`` is Snakemake's graph of jobs, ``failed`` those of its jobs that failed.
    """
    makers = {str(output): job for job in dag.jobs for output in job.output}
    found = {}
    for variant, path in results.items():
        job = first_failed(dag, failed, makers.get(path))
        if job is not None:
            found[variant] = f"{job.rule.name}: {reason(Path(job.log[0]))}"
    return found


def first_failed(dag: Any, failed: Collection[Any], job: Any) -> Any:
    """The failed job that ``job`` waited for, or itself; None where it did not fail."""
    if job is None or job in failed:
        return job
    waited_for = (first_failed(dag, failed, other) for other in dag.dependencies[job])
    return next((other for other in waited_for if other is not None), None)


def reason(log: Path) -> str:
    """The last error that a log names."""
    try:
        errors = re.findall(r"^[\d :,-]*error: (.+)", log.read_text("utf-8", "replace"), re.M)
    except OSError:
        errors = []
    return errors[-1] if errors else f"{log} says why"
