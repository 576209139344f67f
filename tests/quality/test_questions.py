from pathlib import Path

import numpy as np
import pytest
import yaml

from minillm_lab.jobs.errors import LabError
from minillm_lab.quality import questions as module
from minillm_lab.quality.evaluation import opened
from minillm_lab.quality.intervals import mcnemar, proportion
from minillm_lab.quality.questions import choice_scores, choose_all, load_questions
from minillm_lab.quality.score import question_metrics
from minillm_lab.quality.text import EvaluationText
from minillm_lab.quality.tokenizer import open_tokenizer
from minillm_lab.runtimes import Passage
from quality_lab import FLOAT32, LLAMA

OWN = Path(module.__file__).with_name("questions.yaml")


@pytest.mark.parametrize("runtime", ["llama.cpp", "transformers"])
def test_a_choice_scores_as_if_it_were_asked_alone(
    runtime: str, text: EvaluationText, tiny_gguf: Path, tiny_safetensors: Path
) -> None:
    on_llama = runtime == "llama.cpp"
    weights, settings = (tiny_gguf, LLAMA) if on_llama else (tiny_safetensors, FLOAT32)
    with opened(weights, settings, 256) as loaded:
        together = choice_scores(loaded.runtime, text.questions)
        for question, scores in zip(text.questions, together, strict=True):
            alone = []
            for ids, size in zip(question.choices, question.bytes, strict=True):
                asked = Passage(question.prompt + ids, len(question.prompt) - 1)
                rows = loaded.runtime.logits_of([asked])
                log_p = rows - np.logaddexp.reduce(rows.astype(np.float64), axis=1)[:, None]
                alone.append(sum(log_p[i, token] for i, token in enumerate(ids)) / size)
            assert scores == pytest.approx(alone, abs=2e-3)


def test_the_order_of_the_choices_does_not_matter(text: EvaluationText, tiny_gguf: Path) -> None:
    turned = [
        q.model_copy(update={"choices": q.choices[::-1], "bytes": q.bytes[::-1]})
        for q in text.questions
    ]
    with opened(tiny_gguf, LLAMA, 256) as loaded:
        before = choose_all(loaded.runtime, text.questions)
        assert [3 - choice for choice in choose_all(loaded.runtime, turned)] == before


def test_shuffled_labels_are_answered_by_chance(tiny_gguf: Path) -> None:
    encode, begin, _ = open_tokenizer(tiny_gguf)
    written = load_questions(OWN.read_text(encoding="utf-8"), "own")
    random = np.random.default_rng(3)
    shuffled = [w.model_copy(update={"answer": w.choices[random.integers(4)]}) for w in written]
    asked = [module.tokenized(w, encode, begin) for w in shuffled]
    with opened(tiny_gguf, LLAMA, 512) as loaded:
        answers = choose_all(loaded.runtime, asked)
    low, high = question_metrics(answers, answers, asked)["question_accuracy"].ci95 or (1, 0)
    assert low < 0.25 < high


def test_the_labs_own_questions_are_many_and_in_groups() -> None:
    written = load_questions(OWN.read_text(encoding="utf-8"), "own")
    assert len(written) >= 120
    assert len({w.group for w in written}) == 6
    assert len({w.question for w in written}) == len(written)
    places = [w.choices.index(w.answer) for w in written]
    assert max(map(places.count, range(4))) < 0.4 * len(written)


def test_a_changed_answer_is_a_flip_whichever_way_it_goes(text: EvaluationText) -> None:
    asked = text.questions
    right = [q.answer for q in asked]
    wrong = [(q.answer + 1) % 4 for q in asked]
    found = question_metrics([*right[:1], *wrong[1:]], [*wrong[:1], *right[1:]], asked)
    assert found["answer_flips"].value == 1
    assert found["question_accuracy"].value == pytest.approx(1 / 3)
    assert found["question_accuracy: one"].n == 2


def test_figures_of_statistics_against_published_ones() -> None:
    wilson = proportion(15, 148)  # Newcombe 1998, table I, method 3: 0.0624 to 0.1605
    assert wilson.ci95 == pytest.approx((0.0624, 0.1605), abs=1e-4)
    assert mcnemar(0, 0) == 1
    assert mcnemar(0, 6) == pytest.approx(2 * 0.5**6)


@pytest.mark.parametrize(
    "entry",
    [
        {"group": "g", "question": "q", "choices": ["a", "b", "c", "d"], "answer": "e"},
        {"group": "g", "question": "q", "choices": ["a", "b", "c"], "answer": "a"},
        {"group": "g", "question": "q", "choices": ["a", "a", "c", "d"], "answer": "a"},
        {"group": "g", "question": "q", "choices": [1, 2, 3, 4], "answer": 1},
        {"question": "q", "choices": ["a", "b", "c", "d"], "answer": "a"},
        "why?",
    ],
)
def test_a_question_that_cannot_be_asked_is_named_in_one_line(entry: object) -> None:
    with pytest.raises(LabError, match=r"mine\.yaml: question 1") as caught:
        load_questions(yaml.safe_dump({"questions": [entry]}), "mine.yaml")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "questions: []", "- a", "questions: {a: [", "questions: 3"])
def test_a_file_without_questions_is_refused(text: str) -> None:
    with pytest.raises(LabError, match=r"mine\.yaml: is not YAML"):
        load_questions(text, "mine.yaml")
