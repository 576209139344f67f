"""Advice: the variant to take, given limits, from the measured figures and their intervals.

A variant whose answer means nothing is never taken. A figure meets a limit if its whole interval is
within it (for loss: if the verdict proves it). A variant with a figure that meets its limit only by
its value is taken only if no variant meets all limits. Of the variants of a model that meet the
limits, one is left out if another is measurably better in something and measurably worse in
nothing. Of the rest, the fastest in decoding is taken. A tie goes to the variant that lost
measurably less, then to less memory, then to the smaller file, if these differ by more than
``RESOLUTION``.

Losses of two models have two references and are never compared. Between the variants chosen for
each model, bits per byte of the evaluation text decide, and if those tie, decode speed. Where the
limit of loss is only assumed, a model without a variant that meets it enters with that of the least
bits per byte: coarse weights of a large model may predict better than fine ones of a small one.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from math import inf

from minillm_lab.comparison.closeness import closer, predicts_better
from minillm_lab.comparison.group import RESOLUTION, Group
from minillm_lab.comparison.limits import (
    BY_VALUE,
    FAILED,
    MEMORY,
    SAFE,
    SPEED,
    Check,
    Limits,
    checks_of,
)
from minillm_lab.estimates import quotient
from minillm_lab.result import Result
from minillm_lab.wording import inert, times


@dataclass(frozen=True)
class Choice:
    """The variant to take and the runner-up; if there is none, the one nearest to the limits."""

    taken: str | None
    runner_up: str | None
    nearest: str | None
    why: str  # the reason for the taken variant
    beaten: dict[str, str]  # variants left out, and the one that is better
    checks: dict[str, list[Check]]  # by variant
    of_models: dict[str, str] = field(default_factory=dict)  # by other model, its best variant


def memory_of(result: Result) -> float:
    """Peak memory in bytes; infinite if it was not measured."""
    measured = result.metrics.get(MEMORY)
    return measured.value if measured and measured.value is not None else inf


def size_of(result: Result) -> int:
    return result.model.size


def speed_of(result: Result) -> float:
    return result.metrics[SPEED].value or 0.0


def faster(a: str, b: str, group: Group) -> bool | None:
    """Whether ``a`` decodes measurably faster than ``b``; None if that was not tested."""
    ratios = group.ratios(SPEED)
    if not {a, b} <= ratios.keys():
        return None
    found = quotient(ratios[a], ratios[b])
    p = found.p()
    return None if p is None else found.value > 1 and group.claims(p)


def dominates(a: str, b: str, group: Group) -> bool:
    """Whether ``a`` is measurably better than ``b`` in something, and worse in nothing.

    An untested difference of speed counts against ``a`` if its value is the worse one, and one of
    loss does unless both hold the same weights.
    """
    x, y = group.results[a], group.results[b]
    better = False
    same_weights = [f.sha256 for f in x.model.files] == [f.sha256 for f in y.model.files]
    for of in (memory_of, size_of):
        mine, theirs = of(x), of(y)
        if mine > theirs * (1 + RESOLUTION) or inf in (mine, theirs):
            return False
        better |= theirs > mine * (1 + RESOLUTION)
    lost, won = closer(y, x), closer(x, y)
    if lost or (lost is None and not same_weights):
        return False
    better |= bool(won)
    lost, won = faster(b, a, group), faster(a, b, group)
    if lost or (lost is None and speed_of(y) > speed_of(x)):
        return False
    return better or bool(won)


def beaten(names: list[str], group: Group) -> dict[str, str]:
    """The variants of one model that are left out, each with one of the rest that dominates it."""
    out: dict[str, str] = {}
    over = {n: [o for o in names if o != n and dominates(o, n, group)] for n in names}
    left = list(names)
    while left:
        top = [n for n in left if not {*over[n]} & {*left}] or left
        left = [n for n in left if n not in top]
        out |= {n: by[0] for n in left if (by := [o for o in over[n] if o in top])}
        left = [n for n in left if n not in out]
    return out


def fastest(taken: str, others: Iterable[str], group: Group, meets: str) -> str:
    """What can be said of the speed of a variant beside the others that meet the limits."""
    if all(faster(taken, n, group) for n in others):
        return f"it is the fastest that {meets} the limits"
    if not any(faster(n, taken, group) for n in others):
        return f"none that {meets} the limits is measurably faster"
    return "none of those that no other beats is measurably faster"


def first(
    names: list[str], group: Group, meets: str = "meets", beaten: Iterable[str] = ()
) -> tuple[str, str]:
    """The variant to take, and why. ``meets``: how they stand to the limits, as a verb.

    ``beaten``: variants that meet them as well, and are left out.
    """
    results = group.results
    if len(names) == 1:
        return names[0], (
            f"every other variant that {meets} the limits is measurably worse in something and"
            " better in nothing"
        )
    if not (with_best := group.tied(SPEED, names)):
        taken = max(names, key=lambda n: (speed_of(results[n]), -memory_of(results[n])))
        return taken, f"it is the fastest that {meets} the limits, by its value alone"
    tied = [n for n in with_best if not any(faster(other, n, group) for other in names)]
    if len(tied) == 1:
        others = [n for n in (*names, *beaten) if n != tied[0]]
        return tied[0], fastest(tied[0], others, group, meets)

    def least(of: Callable[[Result], float]) -> Callable[[list[str]], list[str]]:
        def narrowed(left: list[str]) -> list[str]:
            lowest = min(of(results[n]) for n in left)
            return [n for n in left if of(results[n]) <= lowest * (1 + RESOLUTION)]

        return narrowed

    def lost_least(left: list[str]) -> list[str]:
        farther = [n for n in left if any(closer(results[o], results[n]) for o in left)]
        return [n for n in left if n not in farther] or left

    left, reasons = tied, []
    for of_several, of_one, narrowed in (
        ("lost least", "lost least", lost_least),
        ("take least memory", "takes least memory", least(memory_of)),
        ("have the smallest file", "has the smallest file", least(size_of)),
    ):
        fewer = narrowed(left)
        reasons += [(of_several, of_one)] if len(fewer) < len(left) else []
        left = fewer
    taken = max(left, key=lambda n: speed_of(results[n]))
    equal = [n for n in tied if n != taken and faster(taken, n, group) is False]
    if len(left) > 1:
        reasons.append(("", "is the fastest by its value alone"))
    *earlier, (_, last) = reasons
    among = f"of those that {' and '.join(many for many, _ in earlier)}" if earlier else "of these"
    with_ = ", ".join(f"`{n}`" for n in equal)
    return taken, f"its decode speed is tied with that of {with_}; {among} it {last}"


def of_one_model(
    names: list[str], group: Group, meets: str, beaten: Iterable[str]
) -> tuple[str, str | None, str]:
    """The variant of one model to take, the runner-up, and why."""
    taken, why = first(names, group, meets, beaten)
    rest = [n for n in names if n != taken]
    runner_up = first(rest, group)[0] if rest else None
    if runner_up and faster(taken, runner_up, group):
        ratios = group.ratios(SPEED)
        found = quotient(ratios[taken], ratios[runner_up])
        why += f"; it decodes {times(found)} as fast as the runner-up"
    return taken, runner_up, why


def between_models(taken: dict[str, str], group: Group, meets: str) -> tuple[str, str]:
    """The model whose variant to take, of one variant for each, and the reason in words."""
    results = group.results
    bits = {m: (results[n].quality or {}).get("bits_per_byte") for m, n in taken.items()}
    known = {m: b.value for m, b in bits.items() if b and b.value is not None}
    level = list(taken)
    how = "the models' bits per byte were not compared"
    if len(known) == len(taken):
        least = min(known, key=lambda m: known[m])
        better = {m: predicts_better(results[taken[least]], results[taken[m]]) for m in taken}
        if all(better[m] for m in taken if m != least):
            return least, "its model predicts the evaluation text best, by bits per byte"
        if None not in (better[m] for m in taken if m != least):
            level = [m for m in taken if not better[m]]
            how = "the models' bits per byte do not differ measurably"
            if len(level) < len(taken):
                how = f"the bits per byte of {' and '.join(map(inert, level))} are the least"
                how += " and do not differ measurably"
    name, why = first([taken[m] for m in level], group, meets)
    return results[name].model.name, f"{how}; of the models' best, {why}"


def beyond_loss(group: Group, limits: Limits, model: str, outcome: int) -> str | None:
    """Of a model's variants that meet all limits but that of loss, the one of least bits per byte.

    None where there is none, or where they were not measured.
    """
    others = replace(limits, loss=None)
    bits = {}
    for name, result in group.results.items():
        measured = (result.quality or {}).get("bits_per_byte")
        worst = max((c.outcome for c in checks_of(result, others)), default=SAFE)
        if result.model.name == model and worst <= outcome and measured:
            bits[name] = inf if measured.value is None else measured.value
    return min(bits, key=lambda name: bits[name], default=None)


def choose(group: Group, limits: Limits) -> Choice:
    """The variant to take among the results of one machine, and the runner-up."""
    results = group.results
    checks = {name: list(checks_of(result, limits)) for name, result in results.items()}
    worst = {n: max((c.outcome for c in found), default=SAFE) for n, found in checks.items()}
    fitting = {outcome: [n for n in results if worst[n] == outcome] for outcome in (SAFE, BY_VALUE)}
    outcome = SAFE if fitting[SAFE] else BY_VALUE
    by_model: dict[str, list[str]] = {}
    for name in fitting[outcome]:
        by_model.setdefault(results[name].model.name, []).append(name)
    out: dict[str, str] = {}
    found: dict[str, tuple[str, str | None, str]] = {}
    meets = "meets" if outcome == SAFE else "may meet"
    whose = " of its model" if len(by_model) > 1 else ""
    for model, names in by_model.items():
        worse = beaten(names, group)
        out |= worse
        found[model] = of_one_model([n for n in names if n not in worse], group, meets, worse)
        if len(names) == 1:
            found[model] = names[0], None, f"it is the only one{whose} that {meets} every limit"
    if not found:

        def distance(name: str) -> tuple[int, float]:
            failed = [c for c in checks[name] if c.outcome >= FAILED]
            return len(failed), sum(c.beyond for c in failed)

        nearest = min(results, key=distance, default=None)
        return Choice(None, None, nearest, "", out, checks)
    for model in {r.model.name: None for r in results.values() if limits.loss_is_assumed}:
        if model not in found and (least := beyond_loss(group, limits, model, outcome)):
            said = (
                f"none of its model {meets} the limit of loss, and it has the least bits per byte"
            )
            found[model] = least, None, f"{said} of those that meet the others"
    model, how = next(iter(found)), ""
    if len(found) > 1:
        model, how = between_models({m: c[0] for m, c in found.items()}, group, meets)
    taken, runner_up, why = found[model]
    if how:
        alone = len(by_model.get(model, ())) < 2
        why = f"{how}; {why}" if alone else f"{how}; within its model, {why}"
    if runner_up is None and outcome == SAFE and fitting[BY_VALUE]:
        same = [
            n
            for n in fitting[BY_VALUE]
            if results[n].model.name == model and not dominates(taken, n, group)
        ]
        runner_up = first(same, group)[0] if same else None
    ratios = group.ratios(SPEED)
    if len(ratios) > 1 and all(e.ci95 is None for e in ratios.values()):
        why += "; decode speeds were not tested: one trial gives no interval"
    others = {m: choice[0] for m, choice in found.items() if m != model}
    return Choice(taken, runner_up, None, why, out, checks, others)
