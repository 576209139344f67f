"""Which variant to take, in words: comparison/advice.py takes it."""

from string import ascii_uppercase

from minillm_lab.comparison.advice import Choice, choose
from minillm_lab.comparison.group import Group, by_machine, group_of
from minillm_lab.comparison.limits import (
    FAILED,
    MEMORY,
    SAFE,
    SPEED,
    Limits,
    default_limits,
    taken_on_gpu,
)
from minillm_lab.comparison.shapes import Comparison
from minillm_lab.estimates import quotient
from minillm_lab.quality.verdict import verdict
from minillm_lab.report import quality
from minillm_lab.result import Result
from minillm_lab.wording import as_code, inert, number, times


def in_short(name: str, result: Result) -> str:
    """A variant's figures in one line: speed with its interval, memory, size, verdict."""
    speed, memory = result.metrics[SPEED], result.metrics[MEMORY]
    decoded = "decode speed not measured"
    if speed.value is not None:
        decoded = f"decodes {number(speed.value)} t/s"
    text = f"{as_code(name)}: {decoded}"
    if speed.ci95:
        text += f" ({number(speed.ci95[0])} to {number(speed.ci95[1])})"
    if memory.value is not None:
        text += f", takes {number(memory.value / 1e6)} MB of memory at its peak"
    text += f", {number(result.model.size / 1e6)} MB file"
    if taken := taken_on_gpu(result):
        text += f", and {number(taken / 1e6)} MB on the accelerator"
    text += f", {verdict(result.quality) or 'quality not measured'}"
    if bits := (result.quality or {}).get("bits_per_byte"):
        text += f", {quality.cell(bits, 1, 3)} bits per byte of text"
    return text


def advice(group: Group, limits: Limits) -> str:
    """What to take and why, as Markdown."""
    choice, results = choose(group, limits), group.results
    if choice.taken is None:
        lines = ["**No variant meets these limits.**", ""]
        if choice.nearest:
            lines += [f"- Nearest: {in_short(choice.nearest, results[choice.nearest])}"]
    else:
        lines = [f"**Take {in_short(choice.taken, results[choice.taken])}.**", ""]
        lines += [f"- Why: {choice.why}.{in_other_states(group, choice)}"]
        if choice.runner_up:
            lines += [f"- Runner-up: {in_short(choice.runner_up, results[choice.runner_up])}"]
        lines += between(choice, results)
    shown = {choice.taken, choice.runner_up, *choice.of_models.values()}
    for name, checks in choice.checks.items():
        doubts = [c.text for c in checks if c.outcome != SAFE]
        if name in choice.beaten:
            other = as_code(choice.beaten[name])
            doubts.append(f"{other} is measurably better in something and worse in nothing")
        if doubts:
            out = name in choice.beaten or any(c.outcome >= FAILED for c in checks)
            mark = "but" if name in shown else "out" if out else "not taken"
            lines.append(f"- {as_code(name)} {mark}: {'; '.join(doubts)}")
    return "\n".join(lines)


def in_other_states(group: Group, choice: Choice) -> str:
    """What becomes of the taken variant's decode speed in the machine's other states.

    It is set beside the runner-up's, or the baseline's, and beside that of each variant within the
    limits that is measurably faster there.
    """
    taken, said = choice.taken, ""
    within = {n for n, checks in choice.checks.items() if all(c.outcome < FAILED for c in checks)}
    for letter, state in zip(ascii_uppercase[1:], group.states[1:], strict=False):
        ratios = {n: e for n, e in state.ratios[SPEED].items() if n in group.results}
        if taken is None or taken not in ratios:
            continue
        parts, over = [], choice.runner_up or group.baseline
        if over in ratios and over != taken:
            found = quotient(ratios[taken], ratios[over])
            p = found.p()
            told = ", untested" if p is None else "" if group.claims(p) else ", a tie"
            parts.append(f"it decodes {times(found)} as fast as {as_code(over)}{told}")
        for name in sorted(within & ratios.keys() - {taken, over if parts else taken}):
            found = quotient(ratios[name], ratios[taken])
            if (p := found.p()) is not None and group.claims(p) and found.value > 1:
                parts.append(f"{as_code(name)} decodes {times(found)} as fast as {as_code(taken)}")
        said += f" In the machine's state {letter} {'; '.join(parts)}." if parts else ""
    return said


def between(choice: Choice, results: dict[str, Result]) -> list[str]:
    """What to take of each model but the one chosen, and how the models compare."""
    return [
        f"- Of {inert(model)}: {in_short(name, results[name])}"
        for model, name in choice.of_models.items()
    ]


def recommendation(comparison: Comparison) -> str:
    """The page's line: what to take on each machine, with no limit but that of its loss."""
    groups = by_machine(comparison.results)
    lines = []
    for fingerprint, results in groups.items():
        limits = default_limits(results)
        group = group_of(comparison, results)
        choice = choose(group, limits)
        where = f" on {as_code(fingerprint)}" if len(groups) > 1 else ""
        limit = f" with at most {limits.loss} loss" if limits.loss else ", quality not measured"
        if choice.taken is None:
            nearest = choice.nearest or ""
            why = [c.text for c in choice.checks.get(nearest, []) if c.outcome != SAFE]
            said = f" {as_code(nearest)}, the nearest: {'; '.join(why)}." if why else ""
            lines.append(f"**Recommended{where}**{limit}: nothing.{said}")
            continue
        if any(c.outcome == FAILED for c in choice.checks[choice.taken]):
            limit = ""  # another model's reference set it; what it lost itself is said below
        text = f"**Recommended{where}**{limit}: {in_brief(comparison, choice.taken)}."
        text += f" Why: {choice.why}.{in_other_states(group, choice)}"
        doubts = [c.text for c in choice.checks[choice.taken] if c.outcome != SAFE]
        text += f" But: {'; '.join(doubts)}." if doubts else ""
        if choice.runner_up:
            text += f" Runner-up: {as_code(choice.runner_up)}."
        for model, name in choice.of_models.items():
            text += f" Of {inert(model)}: {in_brief(comparison, name)}."
        lines.append(text)
    return "\n\n".join(lines)


def in_brief(comparison: Comparison, name: str) -> str:
    """A variant and what it costs, in a clause: decode speed, memory, loss."""
    result, ratio = comparison.results[name], comparison.ratios[name].get(SPEED)
    speed, memory = result.metrics[SPEED].value, result.metrics[MEMORY].value
    said = [] if speed is None else [f"decodes {number(speed)} tokens per second"]
    if said and ratio and ratio.ci95 and not ratio.tie:
        said[0] += f" (×{number(ratio.value)})"
    said += [] if memory is None else [f"takes {number(memory / 1e6)} MB of memory at its peak"]
    if taken := taken_on_gpu(result):
        said.append(f"{number(taken / 1e6)} MB on the GPU")
    listed = " and ".join([", ".join(said[:-1]), said[-1]] if len(said) > 1 else said)
    text, loss = f"**{as_code(name)}** {listed}", verdict(result.quality)
    return f"{text}, with {loss}" if loss else text


def explained(comparison: Comparison) -> str:
    """The recommendation of each machine in full, and what speaks against each other variant."""
    parts = []
    groups = by_machine(comparison.results)
    for fingerprint, results in groups.items():
        parts += [f"On {as_code(fingerprint)}:"] if len(groups) > 1 else []
        limits = default_limits(results)
        if limits.loss:
            parts.append(f"With at most {limits.loss} loss:")
        parts.append(advice(group_of(comparison, results), limits))
    return "\n\n".join(parts)
