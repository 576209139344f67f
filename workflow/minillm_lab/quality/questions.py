"""Multiple-choice questions, scored by the log-probability of each choice's text.

A choice is scored by itself, as the text after "Question: …\nAnswer:", so their order cannot
matter. The score is the sum of its tokens' log-probabilities divided by its length in bytes, which
is lm-evaluation-harness's ``acc_norm`` (byte-length normalization).
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from pydantic import Field, ValidationError, model_validator

from minillm_lab.jobs.command import progress
from minillm_lab.jobs.errors import LabError
from minillm_lab.quality.divergence import log_normalizer
from minillm_lab.records import Record
from minillm_lab.runtimes import Passage, Runtime

CHOICES = 4
TOGETHER = 512  # tokens of questions given to the runtime at once


class Question(Record):
    """One question as token ids."""

    group: str = Field(min_length=1, max_length=80)
    prompt: list[int] = Field(min_length=1, max_length=4096)
    choices: list[list[int]] = Field(min_length=CHOICES, max_length=CHOICES)
    bytes: list[int] = Field(
        min_length=CHOICES, max_length=CHOICES, description="It holds each choice's bytes."
    )
    answer: int = Field(ge=0, lt=CHOICES, description="This choice, counted from 0, is right.")

    @model_validator(mode="after")
    def choices_are_not_empty(self) -> "Question":
        if any(not 1 <= len(ids) <= 1024 for ids in self.choices) or min(self.bytes) < 1:
            raise ValueError("a choice is empty or too long")
        return self


class WrittenQuestion(Record):
    """One question as a person writes it."""

    group: str = Field(min_length=1, max_length=80)
    question: str = Field(min_length=1)
    choices: list[str] = Field(min_length=CHOICES, max_length=CHOICES)
    answer: str

    @model_validator(mode="after")
    def answer_is_a_choice(self) -> "WrittenQuestion":
        if self.answer not in self.choices:
            raise ValueError(f"the answer {self.answer!r} is not one of the choices")
        if len(set(self.choices)) < CHOICES or not all(c.strip() for c in self.choices):
            raise ValueError("the choices must differ and must not be empty")
        return self


def load_questions(text: str, name: str) -> list[WrittenQuestion]:
    """Questions from YAML. Raises LabError with one line that names the question."""
    try:
        entries: Any = yaml.safe_load(text)["questions"]
        if not isinstance(entries, list) or not entries:
            raise TypeError
    except (yaml.YAMLError, TypeError, KeyError):
        raise LabError(f"{name}: is not YAML with a list 'questions'; give it one") from None
    questions = []
    for number, entry in enumerate(entries, 1):
        try:
            questions.append(WrittenQuestion.model_validate(entry))
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(map(str, first["loc"]))
            raise LabError(f"{name}: question {number}: {key}: {first['msg']}") from None
    return questions


def tokenized(
    question: WrittenQuestion, encode: Callable[[str], list[int]], begin: int | None
) -> Question:
    """A question as token ids; a choice has the ids that its text adds to the prompt's."""
    text = f"Question: {question.question}\nAnswer:"
    prompt = encode(text)
    choices = []
    for choice in question.choices:
        whole = encode(f"{text} {choice}")
        joined = whole[: len(prompt)] == prompt
        choices.append(whole[len(prompt) :] if joined else encode(f" {choice}"))
    return Question(
        group=question.group,
        prompt=prompt if begin is None else [begin, *prompt],
        choices=choices,
        bytes=[len(choice.encode()) for choice in question.choices],
        answer=question.choices.index(question.answer),
    )


def choice_scores(runtime: Runtime, questions: list[Question]) -> NDArray[np.float64]:
    """Log-probability per byte of each choice, shape (n, 4); each prompt is evaluated once."""
    logits = runtime.logits_of([passage(question) for question in questions])
    normalizers = log_normalizer(logits)
    scores, row = np.empty((len(questions), CHOICES)), 0
    for number, question in enumerate(questions):
        prompt, row = row, row + 1
        for i, choice in enumerate(question.choices):
            rows = [prompt, *range(row, row + len(choice) - 1)]
            row += len(choice) - 1
            scores[number, i] = (logits[rows, choice] - normalizers[rows]).sum()
    return scores / [question.bytes for question in questions]


def passage(question: Question) -> Passage:
    """The tokens that predict the choices' tokens: all but each choice's last."""
    branches = [choice[:-1] for choice in question.choices]
    return Passage(question.prompt, len(question.prompt) - 1, branches)


def together(questions: list[Question]) -> Iterator[list[Question]]:
    """Batches of questions in order, each as large as TOGETHER allows, and at least one."""
    batch: list[Question] = []
    for question in questions:
        if batch and sum(len(passage(q)) for q in [*batch, question]) > TOGETHER:
            yield batch
            batch = []
        batch.append(question)
    if batch:
        yield batch


def choose_all(runtime: Runtime, questions: list[Question]) -> list[int]:
    """For each question, the choice with the highest score."""
    chosen: list[int] = []
    with progress("questions", len(questions), "questions") as advance:
        for batch in together(questions):
            chosen += choice_scores(runtime, batch).argmax(axis=1).tolist()
            advance(len(batch))
    return chosen
