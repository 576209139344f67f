"""Compare all variants of an experiment: ``results/comparison.json``."""

import argparse
from collections.abc import Iterable, Iterator
from math import ceil
from pathlib import Path

from minillm_lab import estimates
from minillm_lab.comparison.claims import DECODE, METRICS_COMPARED, Claims
from minillm_lab.comparison.group import MEMORY, RESOLUTION, Group, value_of
from minillm_lab.comparison.shapes import Comparison, Precision, Ratio, StateFigures
from minillm_lab.comparison.trials import METRICS as TRIED
from minillm_lab.comparison.trials import InState
from minillm_lab.estimates import Estimate, product
from minillm_lab.jobs.command import run
from minillm_lab.records import read_record, write_record
from minillm_lab.result import Metric, Result


def compare(
    results: dict[str, Result],
    baseline: str,
    command: str,
    goal: float | None = None,
    failed: dict[str, str] | None = None,
) -> Comparison:
    """Compute everything that the table, the README and the learnings say.

    ``goal`` is the precision asked for (0.02 for 2 %); ``failed`` says by variant why it has no
    result. Without a result of the baseline there are no ratios.
    """
    models = list(dict.fromkeys(result.model.name for result in results.values()))
    results = dict(sorted(results.items(), key=lambda pair: models.index(pair[1].model.name)))
    claims = Claims(results, baseline)
    groups = list(claims.groups.values())
    ratios = claims.ratios("ratio")
    for name, metric, of_memory in memory_ratios(groups, baseline):
        ratios.setdefault(name, {})[metric] = of_memory
    factors = claims.factors()
    others = [name for name in results if name != baseline and baseline in results]
    return Comparison(
        baseline=baseline,
        command=command,
        results={
            name: with_speeds_of_trials(result, claims.groups[result.machine["fingerprint"]])
            for name, result in results.items()
        },
        ratios={name: ratios.get(name, {}) for name in results},
        best={metric: claims.best(metric) for metric in METRICS_COMPARED},
        factors={name: factors.get(name, []) for name in others},
        cold_loads={key[1]: claims.ratio(*key) for key in claims.estimates if key[0] == "cold"},
        states=states(claims),
        claims=sum(p is not None for p in claims.claims.values()),
        cutoff=max((claims.claims[key] or 0.0 for key in claims.held), default=0.0),
        precision=precision(groups, baseline, goal) if goal and baseline in results else None,
        failed=failed or {},
    )


def measured_in(state: InState, metric: str, name: str) -> Metric | None:
    """A variant's speed in a state. The samples are those of its trials; the baseline's, of all."""
    found = state.speeds[metric].get(name)
    if found is None:
        return None
    own = [[t.speeds[metric]] for t in state.trials.get(name, [])]
    every = [[t.baseline_speeds[metric]] for ts in state.trials.values() for t in ts]
    samples = own or every
    return Metric(
        value=found.value, unit=TRIED[metric], ci95=found.ci95, n=len(samples), samples=samples
    )


def with_speeds_of_trials(result: Result, group: Group) -> Result:
    """A result with the speeds of trials in its machine's most frequent state.

    If it has trials and none counts, its speeds are withheld, and a warning says why. If it cannot
    have any, they are the baseline's in trials times its ratios, which are from rounds.
    """
    name, metrics = result.variant, dict(result.metrics)
    warnings = list(result.warnings)
    if not any(r.trials for r in group.results.values()):
        return result
    if result.no_trials:
        return result.model_copy(update={"metrics": metrics | speeds_by_ratio(name, group)})
    for metric in TRIED:
        nothing = Metric(value=None, unit=TRIED[metric], ci95=None, n=0, samples=[])
        found = measured_in(group.main, metric, name) if group.main else None
        metrics[metric] = found or nothing
    if not result.trials and metrics[DECODE].value is None:
        warnings.append("no speeds: no trial of it counts")
    elif metrics[DECODE].value is None:
        told = [t.disturbed for t in result.trials if t.disturbed]
        why = (
            told[0] if told else "in every trial the machine was in another state or changed state"
        )
        tried = len({t.trial for t in result.trials})
        warnings.append(f"no speeds and ratios: none of {tried} trials counts: {why}")
    return result.model_copy(update={"metrics": metrics, "warnings": warnings})


def speeds_by_ratio(name: str, group: Group) -> dict[str, Metric]:
    """The speeds that ratios from rounds stand for where the baseline's are from trials."""
    found = {}
    for metric, unit in TRIED.items():
        base = group.main.speeds[metric].get(group.baseline) if group.main else None
        ratio = group.ratios(metric).get(name)
        if base and ratio:
            speed = product(base, ratio)
            found[metric] = Metric(
                value=speed.value, unit=unit, ci95=speed.ci95, n=speed.n, samples=[]
            )
    return found


def in_all(needed: int | None, counted: int, taken: int) -> int | None:
    """The number of trials in all that bring ``needed`` of them into one state.

    So far ``counted`` of ``taken`` were in it. The number is larger than ``taken`` unless those are
    enough.
    """
    if needed is None or needed <= counted:
        return needed and max(needed, taken)
    return max(ceil(needed * max(taken, counted) / counted), taken + 1)


def precision(groups: list[Group], baseline: str, goal: float) -> Precision:
    """The precision of every decode ratio to the baseline, beside the goal."""
    found: dict[str, Estimate] = {}
    needed: list[int | None] = []
    for group in groups:
        for name, ratio in group.ratios(DECODE).items():
            if name != baseline:
                found[name] = ratio
                taken = group.results[name].protocol.get("trials", 0)
                needed.append(in_all(estimates.needed(ratio, goal), ratio.n, taken))
    known = [n for n in needed if n is not None]
    return Precision(
        goal=goal,
        reached={n: e.ci95[1] / e.value - 1 if e.ci95 else None for n, e in found.items()},
        trials=max(known) if len(known) == len(needed) > 0 else None,
    )


def memory_ratios(groups: Iterable[Group], baseline: str) -> Iterator[tuple[str, str, Ratio]]:
    """Ratios of memory to the baseline's, without intervals; ties lie within ``RESOLUTION``."""
    for group in groups:
        for name in group.results if baseline in group.results else ():
            for metric in MEMORY:
                ours, theirs = (value_of(group.results[n], metric) for n in (name, baseline))
                if name != baseline and ours and theirs:
                    tie = max(ours, theirs) <= (1 + RESOLUTION) * min(ours, theirs)
                    yield name, metric, Ratio(value=ours / theirs, ci95=None, tie=tie)


def states(claims: Claims) -> dict[str, list[StateFigures]]:
    """The states of each machine; the ratios of the first state are those of the table."""
    return {
        fingerprint: [
            state_figures(
                state,
                group,
                claims.ratios("state", fingerprint, str(i)) if i else claims.ratios("ratio"),
            )
            for i, state in enumerate(group.states)
        ]
        for fingerprint, group in claims.groups.items()
    }


def state_figures(
    state: InState, group: Group, ratios: dict[str, dict[str, Ratio]]
) -> StateFigures:
    """A state and its figures as the comparison holds them."""
    names = [n for n in group.results if n in state.trials or n == group.baseline]
    return StateFigures(
        compute_flops=state.state.compute_flops,
        memory_bytes_per_second=state.state.memory_bytes_per_second,
        compute_range=state.state.compute_range,
        memory_range=state.state.memory_range,
        share=state.state.share,
        trials={n: len(ts) for n, ts in state.trials.items()},
        metrics={
            n: {m: found for m in TRIED if (found := measured_in(state, m, n))} for n in names
        },
        ratios={n: {m: r for m, r in ratios.get(n, {}).items() if m in TRIED} for n in names},
    )


def main(arguments: argparse.Namespace) -> None:
    read = [read_record(path, Result) for path in arguments.results]
    results = {r.variant: r for r in read}
    goal = float(arguments.precision.rstrip("%")) / 100 if arguments.precision else None
    comparison = compare(results, arguments.baseline, arguments.experiment_command, goal)
    write_record(arguments.output, comparison)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, nargs="+", required=True)
    parser.add_argument("--baseline", required=True)
    parser.add_argument(
        "--experiment-command", required=True, help="the command that made these results"
    )
    parser.add_argument("--precision", nargs="?", help="the goal for decode ratios, such as 2%%")
    parser.add_argument("--output", type=Path, required=True)
    run(main, parser)
