"""Estimate how long an answer would take here, from the speeds at several prompt lengths.

The time of a token grows with the number of tokens before it, since attention reads all of them. A
prompt of n tokens therefore costs c + a·n + b·n² seconds, and a token decoded with k tokens in the
cache costs a + b·k. The coefficients, none below zero, are fitted to each round by itself, by least
squares on relative errors. The median over rounds and its interval are computed as for every other
figure.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from minillm_lab import estimates
from minillm_lab.commands import folder
from minillm_lab.comparison.group import of_rounds
from minillm_lab.estimates import Estimate
from minillm_lab.jobs.errors import LabError
from minillm_lab.records import TOKENS_AT_DEPTH
from minillm_lab.result import Result, depths
from minillm_lab.wording import as_code, number

FARTHEST = 4  # times the longest context measured; beyond that no fit is used
WIDE = 1.5  # times the value; an interval that reaches so far shows that a round was disturbed
DISAGREE = 1.3  # times the fastest round
CACHE_STEP = {"llama.cpp": 256}  # cells that attention works on at once, filled or not
EXAMPLES = (
    "minillm-lab estimate q8_0 --prompt-tokens 1000 --answer-tokens 500",
    "minillm-lab estimate q8_0 --prompt-tokens 200 --answer-tokens 50 --cold",
)
Point = tuple[float, float]  # tokens, seconds


@dataclass(frozen=True)
class Answer:
    """The estimated time of an answer and of its parts, in seconds."""

    prompt: Estimate
    answer: Estimate
    load: Estimate | None
    whole: Estimate
    measured_to: int  # tokens of the longest context at which speeds were measured
    apart: float  # the slowest round's time of the whole over the fastest's


def curve(points: Sequence[Point], powers: Sequence[int]) -> dict[int, float]:
    """Coefficients ≥ 0 of the powers of x, by least squares on relative errors."""
    x, seconds = np.array(points).T
    terms = np.stack([x**power for power in powers], axis=1)
    scale = x.max() ** np.array(powers)
    found, _ = nnls(terms / scale / seconds[:, None], np.ones(len(x)))
    return dict(zip(powers, (float(c) for c in found / scale), strict=True))


def cells(result: Result, context: int, tokens: int) -> NDArray[np.int64]:
    """The cache cells that attention reads at each of ``tokens`` tokens after ``context`` others.

    In llama.cpp the number is a staircase, since it takes its cache in steps.
    """
    step = CACHE_STEP.get(result.runtime["name"], 1)
    return -(-np.arange(context + 1, context + tokens + 1) // step) * step


def points(result: Result, round_: int) -> tuple[list[Point], list[Point], float]:
    """A round's (prompt tokens, seconds) and (cells, seconds per token), and seconds per choice.

    A decode speed is a mean over several tokens, so it is placed at the mean of their cells.
    """

    def median(metric: str) -> float:
        return float(np.median(result.metrics[metric].samples[round_]))

    prompt = result.protocol["prompt_tokens"]
    generated = result.protocol["generated_tokens"]
    prefill = [(prompt, prompt / median(f"prefill_tokens_per_second_at_{prompt}"))]
    seen = float(cells(result, prompt, generated - 1).mean())
    decode = [(seen, 1 / median(f"decode_tokens_per_second_at_{prompt}"))]
    value = {name: metric.value or inf for name, metric in result.metrics.items()}
    choosing = value["generate_seconds"] - prompt / value["prefill_tokens_per_second"]
    choosing -= (generated - 1) / value["decode_tokens_per_second"]
    for depth in depths(result):
        prefill.append((depth, depth / median(f"prefill_tokens_per_second_at_{depth}")))
        seen = float(cells(result, depth, min(TOKENS_AT_DEPTH, depth)).mean())
        decode.append((seen, 1 / median(f"decode_tokens_per_second_at_{depth}")))
    return prefill, decode, max(0.0, choosing / generated)


def seconds(
    result: Result, round_: int, prompt_tokens: int, answer_tokens: int
) -> tuple[float, float]:
    """Seconds for the prompt, and for the answer after it, by one round's speeds."""
    prefill, decode, choosing = points(result, round_)
    read = sum(c * prompt_tokens**power for power, c in curve(prefill, (0, 1, 2)).items())
    step = curve(decode, (0, 1))
    seen = cells(result, prompt_tokens, answer_tokens - 1)  # the prompt's last gives the first
    return read, len(seen) * step[0] + float(seen.sum()) * step[1] + answer_tokens * choosing


def estimate(result: Result, prompt_tokens: int, answer_tokens: int, cold: bool = False) -> Answer:
    """Seconds that a user waits for an answer; ``cold`` includes loading from disk.

    Raises LabError if the speeds were not measured, or not at lengths near enough.
    """
    measured_to = max(result.protocol["prompt_tokens"], *depths(result), 0)
    needed, context = prompt_tokens + answer_tokens, result.model.context
    name = as_code(result.variant)
    if context and needed > context:
        raise LabError(
            f"{needed} tokens exceed the {context} that the model of {name} is made for; ask for"
            " fewer"
        )
    if needed > FARTHEST * measured_to:
        raise LabError(
            f"{needed} tokens are more than {FARTHEST} times the {measured_to} at which {name} was"
            " measured; measure a longer prompt (depths and context in the config), then ask again"
        )
    if len(depths(result)) < 1:
        raise LabError(f"{name} was measured at one prompt length only; set depths in the config")
    for metric in ("prefill_tokens_per_second", "decode_tokens_per_second"):
        if result.metrics[metric].value is None:
            raise LabError(f"{name}: {metric} was not measured; its warnings say why")
    load = result.metrics["load_cold_seconds"]
    if cold and load.value is None:
        raise LabError(f"{name}: its cold load could not be measured; leave out --cold")
    rounds = result.protocol["rounds"]
    parts = [seconds(result, r, prompt_tokens, answer_tokens) for r in range(rounds)]
    loads = [load.value or 0.0 if cold else 0.0] * rounds
    wholes = [sum(part) + load for part, load in zip(parts, loads, strict=True)]
    return Answer(
        prompt=estimates.of_rounds([[read] for read, _ in parts]),
        answer=estimates.of_rounds([[written] for _, written in parts]),
        load=estimates.of_rounds(load.samples) if cold else None,
        whole=estimates.of_rounds([[whole] for whole in wholes]),
        measured_to=measured_to,
        apart=max(wholes) / min(wholes),
    )


def text(estimate: Estimate) -> str:
    """Seconds with their interval, such as 5.10 s (4.81 to 5.42)."""
    interval = " to ".join(number(bound) for bound in estimate.ci95 or ())
    return f"{number(estimate.value)} s" + (f" ({interval})" if interval else "")


def described(result: Result, prompt_tokens: int, answer_tokens: int, cold: bool) -> str:
    """The estimate as Markdown, with its parts and its limits."""
    found = estimate(result, prompt_tokens, answer_tokens, cold)
    lines = [
        f"{as_code(result.variant)}: about **{text(found.whole)}** for a prompt of {prompt_tokens}"
        f" tokens and an answer of {answer_tokens}, on machine"
        f" {as_code(result.machine['fingerprint'])}.",
        "",
    ]
    if found.load:
        lines.append(f"- loading, cold cache: {text(found.load)}")
    lines += [f"- prompt: {text(found.prompt)}", f"- answer: {text(found.answer)}"]
    if found.whole.ci95 is None:
        lines.append("- No interval: one round was measured.")
    elif found.whole.ci95[1] > WIDE * found.whole.value:
        lines.append(
            "- The rounds disagree: measure again, or more rounds, on a quiet machine."
            if found.apart > DISAGREE
            else f"- The interval is wide since {result.protocol['rounds']} rounds are few: measure"
            " more (`--config rounds=5`)."
        )
    if prompt_tokens + answer_tokens > found.measured_to + TOKENS_AT_DEPTH:
        lines.append(
            f"- Speeds were measured up to {found.measured_to} tokens of context. Beyond that this"
            " is"
            " an extrapolation, whose error the interval does not include."
        )
    ours = of_rounds(result, "decode_tokens_per_second").value
    tried = ours != result.metrics["decode_tokens_per_second"].value
    other = ", and the table's speeds from trials" if tried else ""
    lines.append(
        f"- The estimate comes from rounds{other}. It holds for the time of the measurement; the"
        " machine itself drifts."
    )
    return "\n".join(lines)


def tokens(given: str) -> int:
    """A number of tokens on the command line, at least 1."""
    if not given.isascii() or not given.isdigit() or int(given[:9]) < 1:
        raise argparse.ArgumentTypeError(f"{given!r} is not a number of tokens; write it as 500")
    return int(given[:9])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("variant", help="a variant's name")
    parser.add_argument("--prompt-tokens", type=tokens, required=True, metavar="N")
    parser.add_argument("--answer-tokens", type=tokens, required=True, metavar="N")
    parser.add_argument("--cold", action="store_true", help="load the model from disk first")
    folder.add_arguments(parser)


def main(arguments: argparse.Namespace) -> None:
    results = folder.read_comparison(arguments.results).results
    mine = folder.of_one_machine(results, arguments.machine)
    result = folder.chosen(mine, arguments.variant)
    print(described(result, arguments.prompt_tokens, arguments.answer_tokens, arguments.cold))
