"""Quality in the comparison: rows of the table, lines of the CSV, sentences of the learnings."""

from math import floor, log10

from minillm_lab.quality.intervals import FEWEST
from minillm_lab.quality.long_contexts import BLOCKS
from minillm_lab.quality.verdict import verdict
from minillm_lab.recipe import Recipe
from minillm_lab.records import QualityMetric
from minillm_lab.result import OF_CONTEXT, ModelFacts, Result, long_contexts
from minillm_lab.wording import inert, number

BITS = "Bits per byte of the text ↓"
ROWS = {  # metric: (label, factor, digits)
    "kld_mean": ("KL divergence ↓, nats", 1.0, 4),
    "kld_p99": ("KL divergence, 99th percentile ↓", 1.0, 3),
    "same_top": ("Same top token ↑, %", 100.0, 1),
    "first_divergence_token": ("First divergent token of a reply ↑", 1.0, 0),
    "divergent_tokens_share": ("Divergent tokens of replies ↓, %", 100.0, 1),
    "perplexity_ratio": ("Perplexity, × the reference's ↓", 1.0, 3),
    "bits_per_byte": (BITS, 1.0, 3),
    "question_accuracy": ("Questions right ↑, %", 100.0, 0),
    "answer_flips": ("Questions answered differently ↓, %", 100.0, 1),
}


def rows(results: dict[str, Result]) -> list[list[str]]:
    """The table's rows on quality, none where it was measured for no variant."""
    measured = {n: r.quality for n, r in results.items()}
    if not any(measured.values()):
        return []
    words = [(verdict(q) or "–").removesuffix(" loss") for q in measured.values()]
    body = [["Quality loss", *words]]
    for name, (label, factor, digits) in (ROWS | context_rows(results)).items():
        found = [(q or {}).get(name) for q in measured.values()]
        if any(found):
            body.append([label, *(cell(metric, factor, digits) for metric in found)])
    found = [(q or {}).get("answer_first_divergence_token") for q in measured.values()]
    if any(found):
        body.append(["Tokens of the answer before the first difference ↑", *map(agreement, found)])
    return body


def context_rows(results: dict[str, Result]) -> dict[str, tuple[str, float, int]]:
    """Rows for the long contexts, and for what the longest adds to the shortest."""
    lengths = long_contexts(*results.values())
    found = {
        f"{OF_CONTEXT}{n}": (f"KL divergence in a context of {n} ↓, nats", 1.0, 4) for n in lengths
    }
    if len(lengths) > 1:
        label = f"KL divergence in a context of {lengths[-1]}, × that in one of {lengths[0]} ↓"
        found[f"kld_growth_at_{lengths[-1]}"] = (label, 1.0, 2)
    return found


def cell(metric: QualityMetric | None, factor: float, digits: int) -> str:
    """A value with its interval: 0.061 (0.056–0.067); more digits where it would read 0."""
    if metric is None or metric.value is None:
        return "–"
    if 0 < (size := abs(factor * metric.value)) < 10 ** (1 - digits):
        digits = min(7, 1 - floor(log10(size)))  # two that count
    text = f"{factor * metric.value:.{digits}f}"
    if metric.ci95:
        low, high = (f"{factor * bound:.{digits}f}" for bound in metric.ci95)
        text += f" ({low}–{high})"
    return text


def plain(metric: QualityMetric | None, factor: float, digits: int) -> str:
    """A value without its interval."""
    return cell(metric.model_copy(update={"ci95": None}) if metric else None, factor, digits)


def bits(result: Result) -> str:
    """The bits per byte of a variant, without their interval."""
    return plain((result.quality or {}).get("bits_per_byte"), 1.0, 3)


def agreement(metric: QualityMetric | None) -> str:
    """How many tokens of the answer are the reference's, from its first on."""
    if metric is None or metric.value is None:
        return "–"
    return f"{metric.value:.0f} of {metric.n}" if metric.value < metric.n else f"all {metric.n}"


def legend(results: dict[str, Result]) -> list[str]:
    """What quality was measured against, and on what."""
    lines = []
    for result in results.values():
        protocol = result.protocol.get("quality")
        if not protocol or not result.quality:
            continue
        runtime = protocol["reference"]["runtime"]
        dtype = runtime["settings"].get("dtype", "the file's type")
        tokens = result.quality["kld_mean"].n
        intervals = "intervals from the chunks' spread"
        if protocol["chunks"] < FEWEST:
            intervals = (
                f"no intervals, which need {FEWEST} chunks or more, so the verdicts stay open (set"
                " 'chunks' under 'quality', or give a longer text)"
            )
        lines.append(
            f"- Quality of {inert(result.model.name)}: against {dtype} in {runtime['name']},"
            f" {tokens} scored tokens in {protocol['chunks']} chunks of {protocol['context']};"
            f" {intervals}; what the figures mean and where the verdicts begin: docs/quality.md"
        )
        if lengths := long_contexts(result):
            lines.append(
                f"- Long contexts of {inert(result.model.name)}: the divergence of the same"
                f" {result.quality[f'{OF_CONTEXT}{lengths[0]}'].n} tokens, the end of one text,"
                f" after more and more of it; intervals from its spread over {BLOCKS} blocks of"
                " these tokens, so of this text alone"
            )
    models = {r.model.name for r in results.values()}
    if len(models) > 1 and lines:
        lines.append(
            "- Divergence, same top token and verdict are against each model's own reference:"
            " compare them within a model. Between models, compare bits per byte and questions."
        )
    return list(dict.fromkeys(lines))


def csv_rows(name: str, result: Result) -> list[list[object]]:
    """Lines of the CSV: variant, metric, value, unit, interval, n, and no ratio."""
    return [
        [name, metric, m.value, m.unit, *(m.ci95 or ("", "")), m.n, "", "", ""]
        for metric, m in (result.quality or {}).items()
    ]


def losses(results: dict[str, Result]) -> list[str]:
    """One sentence on each variant's loss, the largest divergence first."""

    def lost_most(name: str) -> float:
        lost = (results[name].quality or {}).get("kld_mean")
        return -(lost.value or 0) if lost else 0.0

    found = []
    for name in sorted(results, key=lost_most):
        quality = results[name].quality
        if not quality or (said := verdict(quality)) is None:
            continue
        text = (
            f"`{name}`: {said}. KL divergence from the reference"
            f" {cell(quality['kld_mean'], 1, 4)} nats, the same top token in"
            f" {cell(quality['same_top'], 100, 1)} % of cases"
        )
        if flips := quality.get("answer_flips"):
            changed = round((flips.value or 0) * flips.n)
            p = quality["answer_flips_p"].value or 0
            worse = p < 0.05 and lost(quality)
            accuracy = (
                "fewer are right than before" if worse else "accuracy did not change measurably"
            )
            text += f"; {changed} of {flips.n} questions answered differently, {accuracy}"
        found.append(text + ".")
    return found


def lost(quality: dict[str, QualityMetric]) -> bool:
    """Whether fewer questions are right than before."""
    before = quality["question_accuracy_reference"].value or 0
    return (quality["question_accuracy"].value or 0) < before


def costly(model: ModelFacts, recipe: Recipe, several: bool) -> str:
    """Which role of tensors loses the most for its weights, by the recipe's search.

    ``several``: the page shows other models as well.
    """
    losses, weights = dict[str, float](), dict[str, int]()
    for group in recipe.groups:
        losses[group.role] = losses.get(group.role, 0) + (group.loss_in_same or 0)
        weights[group.role] = weights.get(group.role, 0) + group.weights
    if not sum(losses.values()):
        return ""
    role = max(losses, key=lambda r: losses[r] / weights[r])
    shares = losses[role] / sum(losses.values()), weights[role] / model.parameters
    which = f"tensors of {model.name}" if several else "tensors"
    return (
        f"Of what the {which} that were searched lose in {recipe.same} on the calibration text,"
        f" `{role}` loses {number(100 * shares[0])} % with {number(100 * shares[1])} % of the"
        " model's weights."
    )


def fallbacks(results: dict[str, Result]) -> list[str]:
    """What a file really holds where fallback changed its quantization."""
    found = []
    for name, result in results.items():
        model = result.model
        if "_K" not in model.quantization or result.model.share_of_named_type >= 0.5:
            continue
        shares = ", ".join(f"{s:.0%} {t}" for t, s in list(model.tensor_types.items())[:3])
        rows = next(iter(model.rows_not_of_256), None)
        whys = [f"rows of {rows} are not divisible by 256"] if rows else []
        whys += ["tensors of its mixture have other types"] if model.tensors else []
        why = " and ".join(whys) or "its recipe mixes types"
        base = "The mixture on " if model.tensors else ""
        said = f"{base}{model.label or model.quantization} here is {shares.replace('%', ' %')}"
        found.append(f"`{name}`: {said}, because {why}.")
    return found
