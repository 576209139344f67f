"""Score a variant: its divergence from the reference at every scored token, and the questions."""

import argparse
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minillm_lab.jobs.command import run, say
from minillm_lab.jobs.errors import LabError
from minillm_lab.quality.divergence import divergence, exact_divergence, log_normalizer
from minillm_lab.quality.evaluation import Piece, evaluate, evaluate_long, longest, opened
from minillm_lab.quality.intervals import mcnemar, proportion
from minillm_lab.quality.long_contexts import by_position, context_metrics
from minillm_lab.quality.metrics import (
    Tokens,
    bits_by_block,
    by_section,
    chunk_means,
    hurt_most,
    metrics_of,
    reply_metrics,
)
from minillm_lab.quality.questions import Question, choose_all
from minillm_lab.quality.reference import Reference
from minillm_lab.quality.text import EvaluationText
from minillm_lab.quality.unmeasured import pass_on, tried
from minillm_lab.records import QualityMetric, Score, read_record, write_record
from minillm_lab.runtimes import Passage, Runtime

NOT_FINITE = "quality: no figures, since the model computes values that are not numbers"
OTHER_NAME = (
    "quality: its reference was made of a model named {theirs!r}, and the experiment names its"
    " model {ours!r}; if these are two models, its quality says nothing"
)


class NotFiniteError(Exception):
    """The model computed values that are not numbers."""


def score(
    variant: str,
    model: str,
    weights: Path,
    text: EvaluationText,
    settings: dict[str, Any],
    path: Path,
) -> Score:
    """All figures of quality of a variant. Raises LabError if the reference does not fit it.

    ``path`` is that of the reference. A reference made of a model by another name than ``model``
    is taken with a warning: two people may name a model differently.
    """
    with Reference(path) as reference:
        if reference.facts.text != text:
            raise LabError(
                f"{path}: was made from another text, other questions or another protocol, or"
                " another tokenizer cut the text; use what it was made with, or make another"
            )
        say(f"{variant}: scoring {weights}")
        with opened(weights, settings, longest(text)) as loaded:
            if (size := loaded.vocabulary(text)) != reference.facts.vocabulary:
                raise LabError(
                    f"{path}: belongs to another model: it has a vocabulary of"
                    f" {reference.facts.vocabulary} tokens, and the model of {variant} one of"
                    f" {size};"
                    " use the reference of that model"
                )
            try:
                tokens = Tokens.room(len(text.chunks), text.protocol.scored)
                fill([tokens], evaluate(loaded, text, variant), text, reference)
                choices = choose_all(loaded.runtime, text.questions)
                agreed = agreement(loaded.runtime, text.prompts, reference.facts.replies)
            except NotFiniteError:
                tokens, choices, agreed = None, [], None
            hurt = hurt_most(tokens, text, loaded.runtime.detokenize) if tokens else []
        long = [] if tokens is None else long_tokens(variant, weights, settings, text, reference)
    facts = reference.facts
    protocol = text.protocol.model_dump() | {
        "chunks": len(text.chunks),
        "text_sha256": text.text_sha256,
        "questions_sha256": text.questions_sha256,
        "long_text_sha256": text.long_text_sha256,
        "reference": {"kind": facts.kind, "weights": facts.weights, "runtime": facts.runtime},
    }
    warnings = [] if tokens else [NOT_FINITE]
    if facts.model != model:
        warnings.append(OTHER_NAME.format(theirs=facts.model, ours=model))
    metrics: dict[str, QualityMetric] = {}
    if tokens is not None and agreed is not None:
        metrics = metrics_of(tokens, text) | reply_metrics(agreed) | context_metrics(long, text)
        metrics |= question_metrics(choices, facts.answers, text.questions)
    return Score(
        variant=variant,
        protocol=protocol,
        metrics=metrics,
        by_chunk=chunk_means(tokens) if tokens else {},
        by_section=by_section(tokens, text) if tokens else {},
        by_position=by_position(long, text),
        bits_by_block=bits_by_block(tokens, text) if tokens else [],
        hurt_most=hurt,
        answers=choices,
        warnings=warnings,
    )


def long_tokens(
    variant: str,
    weights: Path,
    settings: dict[str, Any],
    text: EvaluationText,
    reference: Reference,
) -> list[Tokens]:
    """The values of every scored token of each long passage; none if some are not numbers."""
    passages = text.passages[len(text.chunks) :]
    long = [Tokens.room(1, len(ids) - 1 - first) for ids, first in passages]
    try:
        fill(long, evaluate_long(weights, settings, text, variant), text, reference)
    except NotFiniteError:
        return []
    return long


def fill(
    kept: list[Tokens],
    evaluated: Iterable[tuple[Piece, NDArray[np.float32]]],
    text: EvaluationText,
    reference: Reference,
) -> None:
    """Put the values of every scored token into arrays: one of all chunks, or one a long passage.

    The logits are not kept. Raises NotFiniteError.
    """
    for piece, logits in evaluated:
        theirs, normalizers = reference.piece(piece.number), log_normalizer(logits)
        if not np.isfinite(normalizers).all():
            raise NotFiniteError
        of_long = piece.passage - len(text.chunks)
        tokens = kept[max(of_long, 0)]
        place = (0 if of_long >= 0 else piece.passage, piece.rows)
        if theirs.exact is not None:
            tokens.kld[place] = exact_divergence(theirs.exact, logits, normalizers)
        elif theirs.compact is not None:
            tokens.kld[place] = divergence(theirs.compact, logits, normalizers)
        tokens.surprise[place] = normalizers - logits[np.arange(len(logits)), piece.next]
        tokens.reference_surprise[place] = theirs.surprise
        tokens.best[place] = logits.argmax(axis=1)
        tokens.reference_best[place] = theirs.best


def agreement(
    runtime: Runtime, prompts: list[list[int]], replies: list[list[int]]
) -> NDArray[np.float64]:
    """1 where the variant, after the reference's own tokens, chooses the reply's next token.

    The shape is (prompts, tokens of a reply). Prompt and reply are one evaluation.
    """
    agreed = []
    for prompt, reply in zip(prompts, replies, strict=True):
        logits = runtime.logits_of([Passage(prompt + reply[:-1], len(prompt) - 1)])
        agreed.append(logits.argmax(axis=1) == reply)
    return np.array(agreed, float)


def question_metrics(
    choices: list[int], reference: list[int], questions: list[Question]
) -> dict[str, QualityMetric]:
    """Accuracy, overall and by group, and the choices that differ from the reference's."""
    if not questions:
        return {}
    right = [c == q.answer for c, q in zip(choices, questions, strict=True)]
    before = [c == q.answer for c, q in zip(reference, questions, strict=True)]
    n = len(questions)
    flips = sum(ours != theirs for ours, theirs in zip(choices, reference, strict=True))
    lost = sum(b and not r for r, b in zip(right, before, strict=True))
    won = sum(r and not b for r, b in zip(right, before, strict=True))
    metrics = {
        "question_accuracy": proportion(sum(right), n),
        "question_accuracy_reference": proportion(sum(before), n),
        "answer_flips": proportion(flips, n),
        "answer_flips_p": QualityMetric(value=mcnemar(lost, won), unit="p", n=lost + won),
    }
    for group in dict.fromkeys(q.group for q in questions):
        of_group = [r for r, q in zip(right, questions, strict=True) if q.group == group]
        metrics[f"question_accuracy: {group}"] = proportion(sum(of_group), len(of_group))
    return metrics


def without_metrics(arguments: argparse.Namespace, reason: str) -> None:
    """Write a score without figures that says why there are none."""
    found = Score(
        variant=arguments.variant,
        protocol={},
        metrics={},
        by_chunk={},
        by_section={},
        by_position={},
        bits_by_block=[],
        hurt_most=[],
        answers=[],
        warnings=[reason],
    )
    write_record(arguments.output, found)


def main(arguments: argparse.Namespace) -> None:
    pass_on(arguments.text, arguments.reference)
    found = score(
        arguments.variant,
        arguments.model,
        arguments.weights,
        read_record(arguments.text, EvaluationText),
        json.loads(arguments.settings),
        arguments.reference,
    )
    write_record(arguments.output, found)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--variant", required=True)
    parser.add_argument("--model", required=True, help="the name of its model")
    parser.add_argument("--weights", type=Path, required=True, help="a GGUF file or a folder")
    parser.add_argument(
        "--text", type=Path, required=True, help="the text and questions, tokenized"
    )
    parser.add_argument("--reference", type=Path, required=True, help="an .npz file")
    parser.add_argument("--settings", required=True, help="how the variant computes, as JSON")
    parser.add_argument("--output", type=Path, required=True)
    run(tried(main, without_metrics), parser)
