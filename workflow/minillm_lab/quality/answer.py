"""The reference's own greedy answer to the prompt, and its comparison with a variant's answer.

It is apart from reference and score, since a new prompt changes the answers, not the divergence.
"""

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import Any

from minillm_lab.jobs.command import run, say
from minillm_lab.quality.evaluation import opened
from minillm_lab.quality.unmeasured import tried
from minillm_lab.records import Output, Prompt, QualityMetric, read_record, write_record
from minillm_lab.runtimes import replied

GRAM = 4


def greedy_answer(
    weights: Path, prompt: list[int], settings: dict[str, Any], tokens: int
) -> Output:
    """A model's answer of exactly ``tokens`` tokens, end of text ignored, as in the rounds."""
    with opened(weights, settings, len(prompt) + tokens) as loaded:
        ids = replied(loaded.runtime, prompt, tokens)
        return Output(text=loaded.runtime.detokenize(ids), token_ids=ids)


def answer_metrics(ids: list[int], reference: list[int]) -> dict[str, QualityMetric]:
    """An answer compared with the reference's, as single figures without an interval.

    ``answer_first_divergence_token`` counts the tokens before the first difference, or all if there
    is none. ``answer_tokens_in_common`` is the share of tokens, with repeats, that both have
    anywhere. ``answer_repetition`` is the share of the answer's 4-grams that occurred before.
    """
    n = min(len(ids), len(reference))
    first = next((i for i in range(n) if ids[i] != reference[i]), n)
    common = (Counter(ids) & Counter(reference)).total() / max(len(ids), len(reference))
    grams = [tuple(ids[i : i + GRAM]) for i in range(len(ids) - GRAM + 1)]
    repeated = 1 - len(set(grams)) / len(grams) if grams else 0.0
    return {
        "answer_first_divergence_token": QualityMetric(value=first, unit="tokens", ci95=None, n=n),
        "answer_tokens_in_common": QualityMetric(value=common, unit="1", ci95=None, n=len(ids)),
        "answer_repetition": QualityMetric(value=repeated, unit="1", ci95=None, n=len(grams)),
    }


def no_answer(arguments: argparse.Namespace, reason: str) -> None:
    """Write an answer without tokens that says why there is none."""
    write_record(arguments.output, Output(text="", token_ids=[], flaw=reason))


def main(arguments: argparse.Namespace) -> None:
    say(f"{arguments.model}: the reference answers the prompt")
    prompt = read_record(arguments.prompt, Prompt).token_ids
    settings = json.loads(arguments.settings)
    output = greedy_answer(arguments.weights, prompt, settings, arguments.generate)
    write_record(arguments.output, output)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="the model's name")
    parser.add_argument("--weights", type=Path, required=True, help="a GGUF file or a folder")
    parser.add_argument("--prompt", type=Path, required=True, help="the prompt, tokenized")
    parser.add_argument("--settings", required=True, help="how to compute, as JSON")
    parser.add_argument("--generate", type=int, required=True, help="new tokens")
    parser.add_argument("--output", type=Path, required=True)
    run(tried(main, no_answer), parser)
