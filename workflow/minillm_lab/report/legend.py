"""How to read the table, and what made it: machine, states, versions, command, warnings."""

from collections import Counter
from string import ascii_uppercase

from minillm_lab.comparison.group import by_machine
from minillm_lab.comparison.shapes import Comparison, Precision, StateFigures
from minillm_lab.comparison.states import WIDE
from minillm_lab.estimates import LEVEL
from minillm_lab.recipe import Recipe
from minillm_lab.report import quality
from minillm_lab.report.table import (
    ROWS,
    by_chance,
    depth_rows,
    drawn,
    shown,
    unranked,
    unranked_line,
)
from minillm_lab.result import Result, depths
from minillm_lab.wording import as_code, inert, number, percent, without_folders


def legend(comparison: Comparison) -> str:
    """How to read the table, and what made it: machine, versions, command, date."""
    level = f"{100 * LEVEL:g} %"
    not_ranked = unranked_line(comparison)
    lines = [
        f"In brackets: the ratio to `{comparison.baseline}`. Speeds and their ratios come from"
        " trials (both variants loaded, taking turns), loads and memory from rounds (fresh"
        " processes). **Bold** is best or tied with the best; ≈ marks a ratio tied with 1. The"
        f" {comparison.claims} comparisons of speeds and loads on this page are corrected together"
        f" (Holm, {level})."
        " ⚠ marks a file that is mostly of other types than its name says."
        + (f" {rounds_line(comparison)}" if depths(*comparison.results.values()) else "")
        + (f" {not_ranked}" if not_ranked else ""),
        "",
        *failed_lines(comparison),
        *machine_lines(comparison),
        *state_lines(comparison),
        *protocol_lines(comparison),
    ]
    for text, names in warned(comparison.results).items():
        lines.append(f"- Warning, {', '.join(f'`{name}`' for name in names)}: {inert(text)}")
    return "\n".join([*lines, *other_states(comparison)])


def rounds_line(comparison: Comparison) -> str:
    """Which speeds come from rounds, whatever the states of the machine were, and their worth."""
    several = any(len(states) > 1 for states in comparison.states.values())
    text = "Prefill and decode at a prompt length that is named come from rounds"
    text += ", over all states of the machine" if several else ""
    found = unranked(comparison, [*depth_rows(comparison.results)])
    return text + (f": {by_chance(comparison, found)}." if any(found.values()) else ".")


def state_lines(comparison: Comparison) -> list[str]:
    """In which states each machine was, and whose figures stand in the table."""
    lines = []
    for fingerprint, states in comparison.states.items():
        on = f" on `{fingerprint}`" if len(comparison.states) > 1 else ""
        if len(states) == 1:
            lines.append(
                f"- State{on}: one, {described(states[0])}. Intervals hold for this machine in"
                " this state during this run."
            )
        elif states:
            listed = "; ".join(
                f"{letter}, {percent(state.share)} of the readings: {described(state)}"
                for letter, state in zip(ascii_uppercase, states, strict=False)
            )
            lines.append(
                f"- States{on}: trials found the machine in {len(states)} ({listed}). Speeds and"
                f" ratios on this page are of state A (trials: {counted(states[0])}), but for those"
                " from rounds, and hold for this machine in that state during this run; figures of"
                " the others stand below."
            )
    return lines


def states_in_short(comparison: Comparison, others: str, machine: str | None = None) -> str:
    """The state that speeds are of, and how steady it was; empty where it was one and steady.

    ``others`` says where other states' figures are. With ``machine`` (a fingerprint), of that
    machine alone.
    """
    every = [s for name, s in comparison.states.items() if s and machine in (None, name)]
    several, told = [states for states in every if len(states) > 1], []
    if several:
        which = f"of the machine, {most_frequent(several[0][0])}"
        which = which if len(every) == 1 else "of their machine, its most frequent with trials"
        told.append(f"Speeds are of state A {which}; {others}.")
    if len(every) == 1 and (ranges := unsteady(every[0][0])):
        told.append(f"The machine was unsteady{' in it' if several else ''}: {ranges}.")
    return " ".join(told)


def most_frequent(state: StateFigures) -> str:
    """What the first state is among a machine's."""
    return f"the most frequent with trials ({percent(state.share)} of the readings)"


def counted(state: StateFigures) -> str:
    """The trials of each variant in a state."""
    return ", ".join(f"{name} {trials}" for name, trials in state.trials.items())


def described(state: StateFigures) -> str:
    """A state by its yardsticks, and how far they went up and down where that is far."""
    text = (
        f"{number(state.compute_flops / 1e9)} GF/s in cache,"
        f" {number(state.memory_bytes_per_second / 1e9)} GB/s from memory"
    )
    ranges = unsteady(state)
    return f"{text}, but unsteady: {ranges}" if ranges else text


def unsteady(state: StateFigures) -> str:
    """How far the yardsticks went up and down in a state; empty where that is not far."""
    ranges = [r for r in (state.compute_range, state.memory_range) if r]
    if all(high < WIDE * low for low, high in ranges):
        return ""
    within = [" to ".join(number(end / 1e9) for end in ends) for ends in ranges]
    return f"nine of ten readings within {within[0]} GF/s, {within[1]} GB/s"


def other_states(comparison: Comparison) -> list[str]:
    """A small table of speeds for each state but the most frequent."""
    parts = []
    for fingerprint, states in comparison.states.items():
        for letter, state in list(zip(ascii_uppercase, states, strict=False))[1:]:
            on = f" of `{fingerprint}`" if len(comparison.states) > 1 else ""
            names = list(state.metrics)
            body = [["", *(f"{n} (baseline)" if n == comparison.baseline else n for n in names)]]
            for metric, (label, unit) in ROWS.items():
                if any(metric in found for found in state.metrics.values()):
                    tokens = comparison.results[names[0]].protocol["generated_tokens"]
                    cells = (
                        shown(state.metrics[n].get(metric), state.ratios[n].get(metric), unit)
                        for n in names
                    )
                    body.append([f"{label.format(tokens=tokens)}, {unit}", *cells])
            parts += ["", f"**State {letter}**{on} (trials: {counted(state)})", "", drawn(body)]
    return parts


def warned(results: dict[str, Result]) -> dict[str, list[str]]:
    """Each warning, and the variants that it is on."""
    found: dict[str, list[str]] = {}
    for name, result in results.items():
        for warning in result.warnings:
            found.setdefault(without_folders(warning), []).append(name)
    return found


def protocol_lines(comparison: Comparison) -> list[str]:
    """What was measured how: threads, versions, quality, command, date, precision."""
    results = list(comparison.results.values())
    first = results[0]
    versions = dict(sorted(item for r in results for item in r.runtime["version"].items()))
    threads = sorted({r.runtime["threads"] for r in results})
    protocol = first.protocol
    lines = [
        f"- Threads: {', '.join(map(str, threads))}; prompt {protocol['prompt_tokens']} tokens;"
        f" trials: {max(r.protocol['trials'] for r in results)};"
        f" rounds × repetitions: {protocol['rounds']} × {protocol['repetitions']}",
        f"- Versions: {', '.join(f'{n} {v}' for n, v in versions.items())};"
        f" Python {first.machine['python']}",
        f"- Command: `{comparison.command}`",
        f"- Measured: {max(r.measured_at for r in results)[:10]}",
    ]
    made_with = [*by_imatrix(comparison.results), *mixtures(comparison.results)]
    made_with += recipes(comparison.results)
    lines[-2:-2] = [*made_with, *quality.legend(comparison.results)]
    if len({r.machine["fingerprint"] for r in results}) > 1:
        lines.append("- Measured on several machines: ratios are only taken within one.")
    if comparison.precision:
        lines.append(precision_line(comparison.precision))
    return lines


def by_imatrix(results: dict[str, Result]) -> list[str]:
    """Which files were made with an importance matrix, and with which, by their headers."""
    found: dict[str, list[str]] = {}
    for name, result in results.items():
        if (told := result.model.imatrix) is not None:
            names = [without_folders(str(told[key])) for key in ("file", "dataset") if key in told]
            chunks = f" ({told['chunks_count']} chunks)" if "chunks_count" in told else ""
            text = " of ".join(map(inert, names)) or "its header does not say which"
            found.setdefault(text + chunks, []).append(name)
    return [
        f"- Importance matrix, {', '.join(f'`{name}`' for name in names)}: {text}"
        for text, names in found.items()
    ]


def mixtures(results: dict[str, Result]) -> list[str]:
    """Which types of tensors the config asked for, by patterns of their names."""
    found: dict[str, list[str]] = {}
    for name, result in results.items():
        if (tensors := result.model.tensors) and not result.model.recipe:
            asked = ", ".join(f"{as_code(p)} {inert(type_)}" for p, type_ in tensors.items())
            base = inert(result.model.quantization)
            found.setdefault(f"{base} with {asked}", []).append(name)
    return [
        f"- Mixture, {', '.join(f'`{name}`' for name in names)}: {text}"
        for text, names in found.items()
    ]


def recipes(results: dict[str, Result]) -> list[str]:
    """What recipes were chosen by."""
    return [
        f"- Recipe, `{name}`: the types of {len(recipe.groups)} groups of tensors that lose"
        f" least in {bounds(recipe)} by its search: {number(recipe.measured)} nats on the"
        f" calibration text, {number(recipe.predicted)} predicted"
        for name, result in results.items()
        if (recipe := result.model.recipe)
    ]


def bounds(recipe: Recipe) -> str:
    """The size, in MB, and the time that a recipe was made for."""
    size = [f"{recipe.size / 1e6:.1f} MB"] if recipe.size else []
    return " and ".join([*size, *([inert(recipe.time)] if recipe.time else [])])


def precision_line(precision: Precision) -> str:
    """Whether the precision asked for is reached, and what would reach it."""
    goal = f"±{precision.goal:.1%}"
    known = {n: reach for n, reach in precision.reached.items() if reach is not None}
    if not known or precision.trials is None:
        return f"- Precision: a goal of {goal} needs at least two trials; set trials to 5 or more."
    worst = max(known, key=lambda n: known[n])
    if known[worst] <= precision.goal:
        return f"- Precision: every decode ratio is known within {goal}, as asked."
    return (
        f"- Precision: the decode ratio of `{worst}` is known to ±{known[worst]:.1%}, {goal} was"
        f" asked; about {precision.trials} trials in all would reach it: an estimate that"
        " expects the spread and the states of these trials (`--config trials=N` runs only the"
        " new ones)."
    )


def machine_lines(comparison: Comparison) -> list[str]:
    """Every machine that something was measured on."""
    return [
        machine_line([*results.values()]) for results in by_machine(comparison.results).values()
    ]


def machine_line(results: list[Result]) -> str:
    """The machine of results in one line, with its GPUs by nvidia-smi or by the runtime."""
    m = results[0].machine
    gpus = [gpu["name"] for gpu in m.get("accelerators", ())]
    told = {r.runtime["device"] for r in results if r.runtime["backend"] != "CPU"}
    names = Counter(gpus or sorted(told))
    return (
        f"- Machine {as_code(m['fingerprint'])}: {inert(m['cpu'])}, {m['cores']} cores,"
        f" {m['memory_bytes'] / 2**30:.0f} GiB, {inert(m['os'])}"
        + "".join(f", {n} × {inert(g)}" if n > 1 else f", {inert(g)}" for g, n in names.items())
    )


def failed_lines(comparison: Comparison) -> list[str]:
    """Why variants have no figures."""
    return [
        f"- **Failed**, `{name}`: {inert(reason)}" for name, reason in comparison.failed.items()
    ]
